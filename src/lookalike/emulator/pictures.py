"""What services do with a picture before they look at it: fetch it, recognise it, measure it."""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Callable
from functools import cache
from urllib import request as urls
from urllib.error import HTTPError

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

_FETCH_SECONDS = 10.0

_ICO = b"\0\0\1\0"
_READERS: tuple[tuple[tuple[bytes, ...], Callable[[io.BytesIO], ImageFile.ImageFile]], ...] = (
    ((b"\xff\xd8\xff",), JpegImagePlugin.jpeg_factory),  # which tells MPO apart
    ((b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    ((b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    ((b"BM",), BmpImagePlugin.BmpImageFile),
    ((b"RIFF",), WebPImagePlugin.WebPImageFile),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
)
"""First bytes, and what reads a picture that begins so. Not Image.open(): that one warns of, or refuses, numbers of
pixels that the services accept."""


class NotAPicture(Exception):
    """The bytes are in none of the formats JPEG, PNG, GIF, BMP, WEBP, ICO, TIFF and MPO."""


class TooManyPixels(Exception):
    """The picture claims more pixels than Pillow deems safe to look at."""


class NotAccessible(Exception):
    """A URL is badly formatted, or nothing could be fetched from it."""


class NotSized(NotAccessible):
    """What answers at a URL does not say how long it is."""


def dimensions(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, as the header states them; pixels are not decoded.

    Raises:
        NotAPicture: the bytes are no picture, or of another format. That a picture is cut off goes unnoticed.
        TooManyPixels: Pillow refuses even to measure it.
    """
    try:
        return _measure(data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixels from error
    except NotAPicture:
        raise
    except Exception as error:  # damaged files make Pillow's readers raise whatever their arithmetic comes upon
        raise NotAPicture from error


def _measure(data: bytes) -> tuple[int, int]:
    if data.startswith(_ICO):
        # Pillow decodes an icon when it opens it; its directory alone has the sizes.
        return max(IcoImagePlugin.IcoFile(io.BytesIO(data)).sizes())
    for beginnings, read in _READERS:
        if data.startswith(beginnings):
            with read(io.BytesIO(data)) as picture:
                return picture.size
    raise NotAPicture


def fetch(url: str, limit: int, *, sized: bool = False) -> bytes:
    """What lies at an http or https URL: at most `limit` + 1 bytes of it, so that the caller can see the excess.

    Args:
        sized: refuse what does not say beforehand how long it is.

    Raises:
        NotSized: it does not.
        NotAccessible: the URL makes no sense, or could not be read to its end within ten seconds.
    """
    deadline = time.monotonic() + _FETCH_SECONDS
    parts: list[bytes] = []
    missing = limit + 1
    try:
        with _opener().open(url, timeout=_FETCH_SECONDS) as response:
            if sized and response.length is None:
                raise NotSized
            while missing and (part := response.read1(min(missing, 1 << 16))):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{url} took longer than {_FETCH_SECONDS:g} seconds")
                parts.append(part)
                missing -= len(part)
            if missing and response.length:
                raise ConnectionError(f"{url} ended early")
    except HTTPError as error:
        error.close()
        raise NotAccessible from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotAccessible from error
    return b"".join(parts)


@cache
def _opener() -> urls.OpenerDirector:
    """Opens http and https; the usual one would open files of this machine, too."""
    opener = urls.OpenerDirector()
    for handler in (
        urls.ProxyHandler(),
        urls.HTTPHandler(),
        urls.HTTPSHandler(),
        urls.HTTPRedirectHandler(),
        urls.HTTPErrorProcessor(),
        urls.HTTPDefaultErrorHandler(),
        urls.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
