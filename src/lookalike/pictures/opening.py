"""Opens pictures of unknown origin: only known formats, and no more pixels, time or memory than a picture is worth."""

from __future__ import annotations

import contextlib
import functools
import io
import threading
import time
import warnings
from collections.abc import Iterator

from PIL import Image, ImageFile, UnidentifiedImageError

from lookalike.errors import ItemError

# What Pillow warns of (many pixels, odd metadata) would reach whoever runs us, who can do nothing about it.
warnings.filterwarnings("ignore", module=r"PIL\.")

SECONDS = 20.0
"""How long one picture may keep a processor busy. An honest one of the largest size needs a quarter of it."""

_FORMATS = (
    *("JPEG", "MPO", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "PSD", "ICO", "PPM"),
    *("PCX", "DIB", "TGA"),
)
"""What is decoded at all; last those known by little, so that they get what nobody else wants. Never what starts
other programs (EPS) or is no picture (FITS, HDF5, MPEG)."""

_JPEGS = ("JPEG", "MPO")

_JPEG_MAGIC = b"\xff\xd8\xff"
"""How both of them begin, and no other format; whether it is an MPO is found out by the decoder of JPEGs."""

_MOST_PIXELS = 178_956_970
"""Twice what Pillow warns of: 16000 × 11000. Ours, because an application may have switched off Pillow's."""

_MOST_PIXELS_AT_ONCE = dict.fromkeys(("AVIF", "HEIF", "JPEG2000"), 100_000_000)
"""Less for the slow ones, whose decoders see the file once and cannot be stopped afterwards."""

_HUGE = 50_000_000
"""Pixels from which on a picture waits until it is the only one of its kind in memory: up to 4 bytes for each."""

_alone = threading.Lock()

_BLOCK, _LARGEST_BLOCK = 1024, 1 << 16
"""How much of a JPEG is decoded between two looks at the clock: a kilobyte may hold several passes over all pixels."""

_PIXELS_FOR_A_BLOCK = 1 << 24
"""Of fewer pixels, as many times as much is decoded: a pass over them takes less in proportion."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_NOT_DECODED = (
    ((b"%!PS", b"\xc5\xd0\xd3\xc6"), "PostScript, which is a program and is not run here"),
    ((b"\xff\x0a", b"\0\0\0\x0cJXL "), "JPEG XL, which cannot be decoded here"),
)


@contextlib.contextmanager
def opened(data: bytes, *, seconds: float = SECONDS) -> Iterator[ImageFile.ImageFile]:
    """The picture in `data`, to be decoded while the context lasts.

    Decoding stops after `seconds` of processor time. What Pillow decodes in one go (AVIF, HEIC, JPEG 2000, WebP, packed
    TIFF) cannot be stopped, but its work is bounded by its pixels. Huge pictures wait for each other.

    Raises:
        ItemError: whatever keeps it from being decoded; codes ``empty-file``, ``not-an-image``, ``unsupported-format``,
            ``too-many-pixels``, ``too-slow``, ``damaged-image``.
    """
    if not data:
        raise ItemError("empty-file", "The file is empty.")
    file = _Guarded(data, seconds)
    try:
        with Image.open(file, formats=_formats(data)) as image, _room_for(image):
            if image.format in _JPEGS:
                times = _PIXELS_FOR_A_BLOCK // max(image.width * image.height, 1)
                image.decodermaxblock = min(max(times, 1) * _BLOCK, _LARGEST_BLOCK)
            yield image
    except ItemError:
        raise
    except Exception as error:
        if file.refusal is not None:
            # whatever a decoder made of it
            raise file.refusal from None
        raise _explained(error, data) from None


def is_jpeg(image: Image.Image) -> bool:
    """Whether `image` is a JPEG, which can be decoded at a fraction of its size."""
    return image.format in _JPEGS


class _Guarded(io.BytesIO):
    """Bytes that are given to a decoder until it has had enough time, or has read all of them often enough."""

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self.refusal: ItemError | None = None
        self._seconds = seconds
        # the thread's own time: a busy machine makes no picture a bad one
        self._end = time.thread_time() + seconds
        # to ask for that is a call of the system, and it cannot have passed before as much has passed on the wall
        self._soonest = time.monotonic() + seconds
        # a directory of a TIFF may name the same megabytes thousands of times, and older Pillows keep each copy
        self._left = 8 * len(data) + (1 << 24)

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self._left -= len(block)
        if time.monotonic() >= self._soonest and self._has_had_enough():
            self.refusal = ItemError(
                "too-slow", f"The picture is not unpacked after {self._seconds:g} seconds. Save it anew, as plain JPEG."
            )
        elif self._left < 0:
            self.refusal = ItemError("damaged-image", "The picture refers to the same bytes over and over again.")
        if self.refusal is not None:
            raise self.refusal
        return block

    def _has_had_enough(self) -> bool:
        left = self._end - time.thread_time()
        self._soonest = time.monotonic() + max(left, 0.0)
        return left < 0


@contextlib.contextmanager
def _room_for(image: ImageFile.ImageFile) -> Iterator[None]:
    pixels = image.width * image.height
    if pixels > _MOST_PIXELS_AT_ONCE.get(image.format or "", _MOST_PIXELS):
        raise _too_many_pixels()
    with _alone if pixels > _HUGE else contextlib.nullcontext():
        yield


def _formats(data: bytes) -> tuple[str, ...]:
    """What `data` may be. To know which of the others Pillow has, it must load all of its decoders, for a JPEG none."""
    if data.startswith(_JPEG_MAGIC):
        return ("JPEG",)
    return (*_built_in(), "HEIF") if _brand(data) in _HEIF_BRANDS and _has_heif() else _built_in()


@functools.cache
def _built_in() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@functools.cache
def _has_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _brand(data: bytes) -> bytes:
    """What a file of the MP4 family says it is: four letters, or nothing."""
    return data[8:12] if data[4:8] == b"ftyp" else b""


def _explained(error: Exception, data: bytes) -> ItemError:
    if isinstance(error, Image.DecompressionBombError):
        return _too_many_pixels()
    if isinstance(error, MemoryError):
        return ItemError("too-many-pixels", "There is not enough memory to unpack the picture.", retryable=True)
    if not isinstance(error, UnidentifiedImageError):
        # Pillow's decoders raise whatever their format's code raises: OSError, SyntaxError, struct.error …
        return ItemError("damaged-image", f"The picture cannot be decoded to its end: {error}")
    brand = _brand(data)
    if brand in _HEIF_BRANDS and not _has_heif():
        return ItemError("unsupported-format", "The picture is HEIC. To read those: pip install 'lookalike[heic]'")
    if brand in _AVIF_BRANDS and "AVIF" not in _built_in():
        return ItemError("unsupported-format", "The picture is AVIF. To read those: pip install 'pillow>=11.3'")
    if brand in _HEIF_BRANDS + _AVIF_BRANDS:
        return ItemError("damaged-image", "The picture is cut off, or damaged at its beginning.")
    for magic, what in _NOT_DECODED:
        if data.startswith(magic):
            return ItemError("unsupported-format", f"The picture is {what}. Save it as JPEG or PNG.")
    return ItemError("not-an-image", "The bytes are no picture, whatever the file is called.")


def _too_many_pixels() -> ItemError:
    return ItemError("too-many-pixels", "The picture unpacks to more pixels than can be decoded safely.")
