"""Pictures for the tests of `lookalike.pictures`, drawn on the spot."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from lookalike.types import Limits

Colour = tuple[int, int, int]

LIMITS = Limits(200_000, 11, 15_999, frozenset({"image/jpeg", "image/png", "image/gif", "image/webp", "image/tiff"}))

RED, GREEN, BLUE, WHITE = (230, 20, 20), (20, 180, 20), (20, 20, 230), (255, 255, 255)
CORNERS = (RED, GREEN, BLUE, WHITE)
"""Of `cornered`: top left, top right, bottom left, bottom right."""


def cornered(width: int = 96, height: int = 64) -> Image.Image:
    """A different colour in each quarter."""
    picture = Image.new("RGB", (width, height), WHITE)
    middle, waist = width // 2, height // 2
    picture.paste(RED, (0, 0, middle, waist))
    picture.paste(GREEN, (middle, 0, width, waist))
    picture.paste(BLUE, (0, waist, middle, height))
    return picture


def ramp(top: float, dtype: Any) -> np.ndarray[Any, Any]:
    """From 0 on the left to `top` on the right, 256 × 32."""
    return np.tile(np.linspace(0, top, 256), (32, 1)).astype(dtype)


def encoded(picture: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(kind: str = "JPEG", size: tuple[int, int] = (60, 40), mode: str = "RGB") -> bytes:
    return encoded(Image.effect_noise(size, 80).convert(mode), kind)


def decoded(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        return picture


def corners(data: bytes) -> list[Colour]:
    """The colours in the middle of the four quarters, as a program sees them that knows nothing of EXIF."""
    picture = decoded(data).convert("RGB")
    right, bottom = picture.width * 3 // 4, picture.height * 3 // 4
    left, top = picture.width // 4, picture.height // 4
    found = []
    for place in ((left, top), (right, top), (left, bottom), (right, bottom)):
        pixel = picture.getpixel(place)
        assert isinstance(pixel, tuple)
        found.append((int(pixel[0]), int(pixel[1]), int(pixel[2])))
    return found


def alike(found: Any, expected: Any, *, within: int = 25) -> bool:
    """Whether all numbers are about those that are expected, as JPEG leaves them."""
    return bool(np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= within)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *extra: bytes, rows: bytes, depth: int = 8, colour_type: int = 2) -> bytes:
    """A PNG from its packed rows, with chunks before its pixels."""
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows, 9))
    return b"".join((b"\x89PNG\r\n\x1a\n", head, *extra, body, png_chunk(b"IEND", b"")))


def psd(picture: Image.Image) -> bytes:
    """A Photoshop file without layers, which Pillow reads but does not write."""
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, picture.height, picture.width, 8, 3)
    return head + bytes(12) + bytes(2) + b"".join(band.tobytes() for band in picture.split())
