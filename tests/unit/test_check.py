"""What is found out about a picture before money is spent on it."""

from __future__ import annotations

import io
import struct
import zlib
from hashlib import sha256

import pytest
from PIL import Image

from lookalike import ItemError
from lookalike.pictures.check import check_picture
from lookalike.types import Limits

LIMITS = Limits(200_000, 11, 15_999, frozenset({"image/jpeg", "image/png", "image/gif", "image/webp", "image/tiff"}))


def encoded(kind: str = "JPEG", size: tuple[int, int] = (60, 40), mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    image = Image.effect_noise(size, 80).convert(mode)
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "media_type"),
    [
        ("JPEG", "RGB", "image/jpeg"),
        ("JPEG", "CMYK", "image/jpeg"),
        ("JPEG", "L", "image/jpeg"),
        ("PNG", "RGBA", "image/png"),
        ("PNG", "P", "image/png"),
        ("PNG", "I;16", "image/png"),
        ("GIF", "P", "image/gif"),
        ("WEBP", "RGB", "image/webp"),
        ("TIFF", "RGB", "image/tiff"),
    ],
)
def test_whole_pictures_pass_and_are_described(kind: str, mode: str, media_type: str) -> None:
    data = encoded(kind, mode=mode)
    content = check_picture(data, LIMITS)
    assert (content.media_type, content.width, content.height) == (media_type, 60, 40)
    assert (content.sha256, content.byte_size) == (sha256(data).digest(), len(data))
    assert content.image_id.bytes == content.sha256[:16]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
def test_cut_off_pictures_are_found_out(kind: str, share: float) -> None:
    data = encoded(kind, (300, 200))
    with pytest.raises(ItemError) as caught:
        check_picture(data[: int(len(data) * share)], LIMITS)
    assert caught.value.code in ("damaged-image", "not-an-image")


@pytest.mark.parametrize(
    ("size", "code"),
    [
        ((11, 11), None),
        ((10, 11), "too-small"),
        ((11, 10), "too-small"),
        ((15_999, 11), None),
        ((16_000, 11), "too-large"),
        ((5, 17_000), "too-large"),
    ],
)
def test_sides_at_the_edge(size: tuple[int, int], code: str | None) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    if code is None:
        check_picture(buffer.getvalue(), LIMITS)
    else:
        with pytest.raises(ItemError) as caught:
            check_picture(buffer.getvalue(), LIMITS)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty-file"),
        (b"This is no picture.", "not-an-image"),
        (b"\0" * 1000, "not-an-image"),
        (bytes(200_001), "too-many-bytes"),
        (encoded("PPM"), "unsupported-format"),
        (b"\xff\xd8\xff\xe0", "not-an-image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not-an-image"),
    ],
)
def test_what_is_no_picture_for_the_model(data: bytes, code: str) -> None:
    with pytest.raises(ItemError) as caught:
        check_picture(data, LIMITS)
    assert caught.value.code == code
    assert not caught.value.retryable


def test_a_decompression_bomb_is_not_unpacked() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 15_999, 15_999, 8, 6, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    with pytest.raises(ItemError) as caught:
        check_picture(bomb, LIMITS)
    assert caught.value.code == "too-many-pixels"
