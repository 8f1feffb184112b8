"""Turns what a decoder gives into what every model takes: upright, opaque, 8-bit sRGB, not too large, as JPEG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile

from lookalike.errors import ItemError
from lookalike.pictures.opening import is_jpeg
from lookalike.types import Limits

_QUALITY = 92
_LOWER_QUALITIES = (80, 60, 40, 20)

_LONGEST_JPEG = 65_500

_ROWS = 1 << 22
"""How many pixels of a 16-bit picture are worked on at once."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by the number of its EXIF orientation."""

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
"""The colour space that a profile must be of, by the mode that it is for."""


def as_jpeg(image: ImageFile.ImageFile, limits: Limits, *, shrink: bool) -> tuple[bytes, bool]:
    """A JPEG of `image`, which is not loaded yet, that `limits` let pass; and whether it had to be shrunk for that.

    Raises:
        ItemError: it takes more than ``limits.max_bytes``, and may not be shrunk or not that far.
    """
    whole = image.size
    if is_jpeg(image):
        image.draft("RGB", fitted(image.size, limits))
    image.load()
    if not is_jpeg(image):
        whole = image.size  # some formats know only now
    profile = image.info.get("icc_profile")
    size = fitted(whole, limits)
    pixels = plain(image)
    if pixels.size != size:
        pixels = pixels.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    pixels = upright(_in_srgb(on_white(pixels), profile), orientation_of(image))
    pixels.info.clear()  # Pillow would write a comment along, and other things in other versions
    data, smaller = _in_bytes(pixels, limits, shrink)
    return data, smaller or size != whole


def fitted(size: tuple[int, int], limits: Limits) -> tuple[int, int]:
    """`size`, or the nearest one with the same ratio of its sides that is not too large."""
    longest, most = max(size), min(limits.max_side, _LONGEST_JPEG)
    width, height = size if longest <= most else _scaled(size, most / longest)
    if limits.max_pixels is None or width * height <= limits.max_pixels:
        return width, height
    factor = (limits.max_pixels / (width * height)) ** 0.5
    return max(1, int(width * factor)), max(1, int(height * factor))  # rounded up it might be too large again


def orientation_of(image: Image.Image) -> int:
    """The number that EXIF has for how the picture lies, 1 where it is upright or nothing is known."""
    try:
        orientation = int(image.getexif().get(_ORIENTATION, 1))
    except ItemError:
        raise
    except Exception:
        # what a camera noted beside a picture may be garbage; the picture is none the worse for it
        return 1
    return orientation if orientation in _TURNS else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """`image` as a viewer shows it."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def plain(image: Image.Image) -> Image.Image:
    """`image` in one of the modes that can be resized well, with its transparency: L, RGB, RGBA, CMYK or LAB."""
    if image.mode.startswith(("I", "F")):
        return _in_eight_bits(image)
    if "transparency" in image.info or image.mode in ("PA", "LA", "La", "RGBa"):
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "RGBA", "CMYK", "LAB") else image.convert("RGB")


def on_white(image: Image.Image) -> Image.Image:
    """`image` with white where it is transparent."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen bits, whole or floating numbers of unknown range as eight bits of grey."""
    values = np.asarray(image)
    grey = np.empty(values.shape, np.uint8)
    step = max(1, _ROWS // max(1, image.width))
    blocks = range(0, len(values), step)
    peak = max((float(_finite(values[at : at + step]).max(initial=0.0)) for at in blocks), default=0.0)
    for at in blocks:
        block = _finite(values[at : at + step])
        if image.mode.startswith("I;16") or 255 < peak <= 65535:
            block /= 257
        elif peak > 65535 or (image.mode == "F" and peak <= 1):
            block *= 255 / max(peak, 1)
        grey[at : at + step] = np.clip(block, 0, 255)
    return Image.fromarray(grey)


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.nan_to_num(values.astype(np.float32), posinf=0.0, neginf=0.0)


def _in_srgb(image: Image.Image, profile: Any) -> Image.Image:
    """The colours that `profile` gives to an opaque picture; as they are, if it gives none."""
    if image.mode == "LAB":
        return _translated(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if isinstance(profile, bytes) and profile:
        try:
            meant = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if meant.profile.xcolor_space.strip() == _SPACES[image.mode]:
                return _translated(image, meant)
        except Exception:
            # a picture whose profile is garbage is shown without it everywhere
            pass
    return image.convert("RGB")


def _translated(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    translated = ImageCms.profileToProfile(
        image,
        profile,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert translated is not None  # only in place there is nothing to return
    return translated


def _in_bytes(pixels: Image.Image, limits: Limits, shrink: bool) -> tuple[bytes, bool]:
    """A JPEG of not too many bytes: of fewer pixels if it must be, and only then of lower quality."""
    data = _encoded(pixels, _QUALITY)
    if len(data) <= limits.max_bytes:
        return data, False
    if not shrink:
        raise ItemError(
            "too-many-bytes",
            f"As JPEG the picture has {len(data):,} bytes; the model takes {limits.max_bytes:,} at most, and "
            "--no-shrink forbids to make it smaller.",
        )
    while len(data) > limits.max_bytes:
        size = _scaled(pixels.size, min(0.9, 0.95 * (limits.max_bytes / len(data)) ** 0.5))
        if min(size) < limits.min_side or size == pixels.size:
            break
        pixels = pixels.resize(size, Image.Resampling.LANCZOS)
        data = _encoded(pixels, _QUALITY)
    for quality in _LOWER_QUALITIES:
        if len(data) <= limits.max_bytes:
            return data, True
        data = _encoded(pixels, quality)
    if len(data) > limits.max_bytes:
        raise ItemError(
            "too-many-bytes",
            f"The picture cannot be shrunk to {limits.max_bytes:,} bytes, which is what the model takes.",
        )
    return data, True


def _encoded(pixels: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
