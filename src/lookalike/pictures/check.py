"""Looks at a picture before money is spent on it: is it one, is it whole, what does the model take of it?"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from PIL import ImageFile

from lookalike.errors import ItemError
from lookalike.pictures.exif import exif_of
from lookalike.pictures.foreign import foreign
from lookalike.pictures.opening import is_jpeg, opened
from lookalike.pictures.reshape import as_jpeg, fitted, orientation_of
from lookalike.types import Content, Limits

__all__ = ["LARGEST_FILE", "PICTURE_SUFFIXES", "Checked", "check_picture", "exif_of", "opened"]

PICTURE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ico", ".mpo"),
        *(".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".psd"),
    }
)
"""A file with one of these is expected to be a picture: if it is none, it has failed."""

LARGEST_FILE = 256 << 20
"""Bytes of the largest file that is looked at. Readers need no more than one byte beyond."""

_DRAFT_SIZE = (1, 1)
"""JPEGs are decoded at the smallest fraction that there is, an eighth: that reads every byte and costs a tenth."""

_AS_IT_IS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"})
"""Modes that need no conversion. The others have more than 8 bits, or colours that few programs read alike."""

_SERIES = frozenset({"GIF", "PNG", "WEBP", "AVIF", "HEIF", "TIFF"})
"""Formats that may hold several pictures of equal standing; what else an MPO or ICO holds belongs to the first."""

_BITS_PER_SAMPLE = 258


@dataclass(frozen=True, slots=True)
class Checked:
    """A whole picture, and what a model takes of it.

    Attributes:
        content: what the file's own bytes hold, with the width and height that a viewer shows.
        data: what is to be sent: the file's own bytes, or a JPEG made of them.
        changes: why the two differ: ``converted``, ``first-frame``, ``rotated``, ``shrunk``; empty where they do not.
    """

    content: Content
    data: bytes
    changes: tuple[str, ...]


def check_picture(data: bytes, limits: Limits, *, shrink: bool = True) -> Checked:
    """What `data` holds, and what of it a model with these `limits` takes.

    Args:
        shrink: make smaller what is too large for the model, instead of refusing it.

    Raises:
        ItemError: it is no whole picture, or none that the model takes; codes ``empty-file``, ``unsupported`` (known
            to be something else), ``not-an-image``, ``unsupported-format``, ``damaged-image``, ``too-slow``,
            ``too-many-bytes``, ``too-many-pixels``, ``too-large``, ``too-small``.
    """
    if len(data) > LARGEST_FILE:
        raise ItemError("too-many-bytes", f"The file has more than {LARGEST_FILE:,} bytes, which are the most.")
    if (reason := foreign(data)) is not None:
        raise ItemError("unsupported", reason)
    with opened(data) as image:
        if image.format == "ICO":
            image.load()  # its directory may say another size than the picture in it
        _check_size(image.size, limits, shrink)
        content = _described(image, data)
        changes = _changes(image, data, content, limits)
        if not changes and len(data) > limits.max_bytes:
            if not shrink:
                raise ItemError(
                    "too-many-bytes",
                    f"The file has {len(data):,} bytes; the model takes {limits.max_bytes:,} at most, and --no-shrink "
                    "forbids to make it smaller.",
                )
            changes.add("shrunk")
        if not changes:
            if is_jpeg(image):
                image.draft("RGB", _DRAFT_SIZE)
            image.load()
            return Checked(content, data, ())
        made, smaller = as_jpeg(image, limits, shrink=shrink)
    return Checked(content, made, tuple(sorted(changes | {"shrunk"} if smaller else changes)))


def _check_size(size: tuple[int, int], limits: Limits, shrink: bool) -> None:
    width, height = size
    if fitted(size, limits) != size:
        said = f"The picture is {width} × {height} pixels; no side may exceed {limits.max_side:,}"
        if limits.max_pixels is not None:
            said += f", nor the whole {limits.max_pixels:,}"
        if min(fitted(size, limits)) < limits.min_side:
            raise ItemError("too-large", f"{said}, and shrunk to that it is less than {limits.min_side} wide or high.")
        if not shrink:
            raise ItemError("too-large", f"{said}, and --no-shrink forbids to make it smaller.")
    elif min(size) < limits.min_side:
        raise ItemError(
            "too-small", f"The picture is {width} × {height} pixels; each side needs at least {limits.min_side}."
        )


def _described(image: ImageFile.ImageFile, data: bytes) -> Content:
    media_type = image.get_format_mimetype()
    if image.format == "DIB":
        media_type = None  # a BMP without its head, which nobody takes for one
    elif image.format == "PNG":
        media_type = "image/png"  # also those that move
    width, height = image.size
    # TIFF and HEIC give the size of what they have turned already
    if image.format not in ("TIFF", "HEIF") and orientation_of(image) >= 5:
        width, height = height, width
    return Content(sha256(data).digest(), media_type or "application/octet-stream", width, height, len(data))


def _changes(image: ImageFile.ImageFile, data: bytes, content: Content, limits: Limits) -> set[str]:
    """What is to be done before the model takes the picture, whatever it weighs."""
    found: dict[str, Any] = {
        "rotated": orientation_of(image) != 1,
        "converted": content.media_type not in limits.media_types
        or image.mode not in _AS_IT_IS
        or _is_deep(image, data),
        "first-frame": image.format in _SERIES and getattr(image, "is_animated", False),
        "shrunk": fitted(image.size, limits) != image.size,
    }
    return {change for change, needed in found.items() if needed}


def _is_deep(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether the file has more than 8 bits a sample, which Pillow's modes do not tell of colours."""
    if image.format == "PNG":
        return data[24:25] > b"\x08"
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
        return any(count > 8 for count in (bits if isinstance(bits, tuple) else (bits,)))
    return False
