"""Looks at a picture before money is spent on it: is it one, is it whole, does the model take it?"""

from __future__ import annotations

from hashlib import sha256

from lookalike.errors import ItemError
from lookalike.pictures.exif import exif_of
from lookalike.pictures.opening import opened
from lookalike.types import Content, Limits

__all__ = ["PICTURE_SUFFIXES", "check_picture", "exif_of", "opened"]

PICTURE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".ico", ".mpo"),
        *(".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".psd"),
    }
)
"""A file with one of these is expected to be a picture: if it is none, it has failed."""

_DRAFT_SIZE = (256, 256)
"""JPEGs are decoded at a fraction of their size: that reads every byte and costs a tenth."""


def check_picture(data: bytes, limits: Limits) -> Content:
    """What `data` holds, if it is a whole picture that a model with these `limits` takes.

    Raises:
        ItemError: it is not; codes ``empty-file``, ``not-an-image``, ``unsupported-format``, ``damaged-image``,
            ``too-many-bytes``, ``too-many-pixels``, ``too-large``, ``too-small``.
    """
    if len(data) > limits.max_bytes:
        raise ItemError(
            "too-many-bytes", f"The file has {len(data):,} bytes; the model takes {limits.max_bytes:,} at most."
        )
    with opened(data) as image:
        width, height = image.size
        media_type = image.get_format_mimetype() or "application/octet-stream"
        _check_size(width, height, limits)
        if media_type not in limits.media_types:
            raise ItemError(
                "unsupported-format",
                f"The picture is {image.format}, which the model does not take. Save it as JPEG.",
            )
        image.draft("RGB", _DRAFT_SIZE)
        image.load()
    return Content(sha256(data).digest(), media_type, width, height, len(data))


def _check_size(width: int, height: int, limits: Limits) -> None:
    if max(width, height) > limits.max_side:
        raise ItemError(
            "too-large", f"The picture is {width} × {height} pixels; no side may exceed {limits.max_side:,}."
        )
    if min(width, height) < limits.min_side:
        raise ItemError(
            "too-small", f"The picture is {width} × {height} pixels; each side needs at least {limits.min_side}."
        )
