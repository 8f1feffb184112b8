"""Pictures that were made, or broken, to do harm: they cost neither the run nor the machine."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import threading
import time
import zlib
from typing import IO, Any

import pytest
from PIL import Image, features

from lookalike import ItemError
from lookalike.embedders.azure_vision import LIMITS as AZURE
from lookalike.pictures import opening
from lookalike.pictures.check import Checked, check_picture, exif_of, opened
from tests.unit.pictures import cornered, encoded, noise, png, png_chunk, psd


def code_of(data: bytes) -> str:
    with pytest.raises(ItemError) as caught:
        check_picture(data, AZURE)
    return caught.value.code


# --- pixels


@pytest.mark.parametrize("side", [15_999, 60_000])
def test_a_picture_that_claims_too_many_pixels_is_not_unpacked(side: int) -> None:
    assert code_of(png(side, side, rows=bytes(1000))) == "too-many-pixels"


def test_the_limit_holds_where_the_application_has_switched_off_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert code_of(png(15_999, 15_999, rows=bytes(1000))) == "too-many-pixels"


def test_formats_that_cannot_be_stopped_have_a_lower_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = noise("JPEG2000")
    assert check_picture(data, AZURE).changes == ("converted",)
    monkeypatch.setitem(opening._MOST_PIXELS_AT_ONCE, "JPEG2000", 60 * 40 - 1)
    assert code_of(data) == "too-many-pixels"


def test_large_pictures_pass_without_a_word() -> None:
    # beyond what Pillow warns of, which would be an error here
    data = png(10_000, 9_000, rows=bytes(1251 * 9_000), depth=1, colour_type=0)
    assert check_picture(data, AZURE).data is data


def test_huge_pictures_are_unpacked_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_HUGE", 60 * 40 - 1)
    huge, small = noise("PNG"), noise("PNG", (20, 20))
    entered = threading.Event()

    def open_another() -> None:
        with opened(huge):
            entered.set()

    other = threading.Thread(target=open_another)
    with opened(huge):
        other.start()
        assert not entered.wait(0.1)
        check_picture(small, AZURE)
    assert entered.wait(10)
    other.join()


# --- time


def many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG that goes over all its pixels again and again, at 250 bytes a time."""
    data = encoded(Image.new("L", (width, height), 128), progressive=True)
    last = data.rindex(b"\xff\xda")
    table = data.rindex(b"\xff\xc4", 0, last)
    return data[:-2] + data[table:-2] * scans + data[-2:]


def test_a_picture_that_takes_too_long_is_given_up() -> None:
    data = many_scans(8000, 8000, 2000)
    assert len(data) < 600_000
    started = time.thread_time()
    with pytest.raises(ItemError) as caught, opened(data, seconds=0.3) as image:
        image.load()
    assert caught.value.code == "too-slow"
    assert "0.3 seconds" in str(caught.value)
    assert time.thread_time() - started < 3


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xe0\0\x04ab" + bytes(3_000_000),
        png(50, 50, *[png_chunk(b"tEXt", b"a\0b")] * 100_000, rows=bytes(151 * 50)),
        b"P3 2000 2000 255 " + b"1 " * 12_000_000,
    ],
    ids=["JPEG that does not begin", "PNG of many small parts", "PNM in digits"],
)
def test_files_that_are_slow_to_read_are_given_up(data: bytes) -> None:
    started = time.thread_time()
    with pytest.raises(ItemError) as caught, opened(data, seconds=0.05) as image:
        image.load()
    assert caught.value.code == "too-slow"
    assert time.thread_time() - started < 2


def read_often(file: IO[bytes] | None) -> None:
    assert file is not None
    for _ in range(100):
        file.seek(0)
        file.read()


def test_bytes_are_not_read_over_and_over() -> None:
    with pytest.raises(ItemError) as caught, opened(noise("BMP", (1000, 1000))) as image:
        read_often(image.fp)
    assert caught.value.code == "damaged-image"


# --- memory


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt"])
def test_notes_that_unpack_to_gigabytes_are_not_unpacked(kind: bytes) -> None:
    bomb = png_chunk(kind, b"p\0\0" + zlib.compress(bytes(50_000_000), 9))
    data = png(50, 50, bomb, rows=bytes(151 * 50))
    assert len(data) < 60_000
    assert code_of(data) == "damaged-image"


def test_an_animation_of_many_large_frames_is_not_unpacked_beyond_the_first() -> None:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    screen = struct.pack("<HHBBB", 4000, 4000, 0x80, 0, 0) + bytes(6)
    started = time.thread_time()
    checked = check_picture(b"GIF89a" + screen + frame * 200_000 + b";", AZURE)
    assert checked.changes == ("first-frame",)
    assert time.thread_time() - started < 5


def test_directories_that_point_at_themselves_come_to_an_end() -> None:
    data = bytearray(encoded(cornered(), "TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    check_picture(bytes(data), AZURE)
    assert exif_of(bytes(data)) == {}
    struct.pack_into("<I", data, 4, len(data) - 4)
    assert code_of(bytes(data)) in ("not-an-image", "damaged-image")


def test_a_directory_may_not_name_the_same_megabytes_a_thousand_times() -> None:
    entries = [(256, 3, 1, 50), (257, 3, 1, 50), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 0)]
    entries += [(40_000 + number, 7, 5_000_000, 0) for number in range(5000)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    data = b"II*\0\x08\0\0\0" + directory + bytes(5_000_000)
    started = time.thread_time()
    with contextlib.suppress(ItemError):
        check_picture(data, AZURE)
    assert time.thread_time() - started < 5


# --- whatever else


def samples() -> dict[str, bytes]:
    picture = cornered(48, 48)
    picture.paste(Image.effect_noise((24, 24), 60), (12, 12))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0), 3: "E", 4: (1.0, 2.0, 3.0)})
    frames: dict[str, Any] = {"save_all": True, "append_images": [picture.rotate(90)]}
    found = {
        "jpeg": encoded(picture, "JPEG", exif=exif),
        "progressive": encoded(picture, "JPEG", progressive=True),
        "cmyk": encoded(picture.convert("CMYK"), "JPEG"),
        "png": encoded(picture, "PNG", exif=exif),
        "apng": encoded(picture, "PNG", **frames),
        "palette": encoded(picture.convert("P"), "PNG"),
        "gif": encoded(picture, "GIF", **frames),
        "webp": encoded(picture, "WEBP", exif=exif),
        "tiff": encoded(picture, "TIFF", exif=exif),
        "lzw": encoded(picture, "TIFF", compression="tiff_lzw"),
        "in-jpeg": encoded(picture, "TIFF", compression="jpeg"),
        "psd": psd(picture),
        "mpo": encoded(picture, "MPO", **frames),
    }
    found |= {kind: encoded(picture, kind) for kind in ("BMP", "DIB", "ICO", "JPEG2000", "PCX", "PPM", "TGA")}
    if features.check("avif"):
        found["avif"] = encoded(picture, "AVIF")
    try:
        import pillow_heif
    except ImportError:
        return found
    pillow_heif.register_heif_opener()
    return found | {"heic": encoded(picture, "HEIF", exif=exif)}


def broken(data: bytes, dice: random.Random) -> bytes:
    """Cut off, with bytes exchanged at random, more often near the beginning, or both."""
    found = bytearray(data)
    if dice.random() < 0.7:
        for _ in range(dice.randint(1, 12)):
            reach = len(found) if dice.random() < 0.4 else min(len(found), 256)
            found[dice.randrange(reach)] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
    else:
        del found[dice.randrange(len(found)) :]
    if dice.random() < 0.1:
        found += dice.randbytes(50)
    return bytes(found)


def answer_to(data: bytes) -> Checked | ItemError:
    try:
        return check_picture(data, AZURE)
    except ItemError as error:
        return error


@pytest.mark.parametrize(("kind", "data"), [pytest.param(kind, data, id=kind) for kind, data in samples().items()])
def test_whatever_is_broken_the_answer_is_a_picture_or_a_reason(kind: str, data: bytes) -> None:
    dice = random.Random(kind)
    check_picture(data, AZURE)
    for _ in range(40):
        attempt = broken(data, dice)
        answer = answer_to(attempt)
        if isinstance(answer, ItemError):
            assert "\0" not in str(answer)
        else:
            assert (answer.data == attempt) == (not answer.changes)
            with Image.open(io.BytesIO(answer.data)) as sent:
                assert max(sent.size) <= AZURE.max_side
        assert isinstance(exif_of(attempt), dict)
