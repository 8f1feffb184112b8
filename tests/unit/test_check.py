"""What is found out about a picture before money is spent on it."""

from __future__ import annotations

import struct
import sys
from hashlib import sha256

import pytest
from PIL import Image, features

from lookalike import ItemError
from lookalike.embedders.azure_vision import LIMITS as AZURE
from lookalike.pictures import check, opening
from lookalike.pictures.check import check_picture
from lookalike.types import Limits
from tests.unit.pictures import LIMITS, cornered, encoded, noise, psd


def refusal(data: bytes, limits: Limits = LIMITS, *, shrink: bool = True) -> ItemError:
    with pytest.raises(ItemError) as caught:
        check_picture(data, limits, shrink=shrink)
    assert not caught.value.retryable
    return caught.value


# --- what is sent as it is


@pytest.mark.parametrize(
    ("kind", "mode", "media_type"),
    [
        ("JPEG", "RGB", "image/jpeg"),
        ("JPEG", "L", "image/jpeg"),
        ("PNG", "RGB", "image/png"),
        ("PNG", "RGBA", "image/png"),
        ("PNG", "LA", "image/png"),
        ("PNG", "P", "image/png"),
        ("PNG", "1", "image/png"),
        ("GIF", "P", "image/gif"),
        ("WEBP", "RGB", "image/webp"),
        ("TIFF", "RGB", "image/tiff"),
    ],
)
def test_what_the_model_takes_is_sent_byte_for_byte(kind: str, mode: str, media_type: str) -> None:
    data = noise(kind, mode=mode)
    checked = check_picture(data, LIMITS)
    assert checked.data is data
    assert checked.changes == ()
    content = checked.content
    assert (content.media_type, content.width, content.height) == (media_type, 60, 40)
    assert (content.sha256, content.byte_size) == (sha256(data).digest(), len(data))
    assert content.image_id.bytes == content.sha256[:16]


def test_icons_and_photos_with_a_second_picture_are_one_picture() -> None:
    picture = cornered(64, 64)
    photo = encoded(picture, "MPO", save_all=True, append_images=[picture.rotate(90)])
    assert check_picture(photo, AZURE).data is photo
    assert check_picture(photo, AZURE).content.media_type == "image/mpo"
    icon = encoded(picture, "ICO", sizes=[(16, 16), (64, 64)])
    assert check_picture(icon, AZURE).data is icon
    assert check_picture(icon, AZURE).content.width == 64


def test_the_content_tells_of_the_file_and_not_of_what_is_sent() -> None:
    data = noise("PPM")
    checked = check_picture(data, LIMITS)
    assert checked.data != data
    assert checked.content.sha256 == sha256(data).digest()
    assert checked.content.byte_size == len(data)
    assert checked.content.media_type.startswith("image/x-portable")


# --- what is no picture


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "JPEG2000", "PPM", "TGA", "AVIF", "HEIF"])
def test_cut_off_pictures_are_found_out(kind: str, share: float) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = noise(kind, (300, 200))
    assert refusal(data[: int(len(data) * share)]).code in ("damaged-image", "not-an-image")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty-file"),
        (b"This is no picture.", "not-an-image"),
        (b"\0" * 1000, "not-an-image"),
        (bytes(range(256)) * 9, "not-an-image"),
        (b"\xff\xd8\xff\xe0", "not-an-image"),
        (b"\xff\x0a\x7f\x02", "unsupported-format"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported-format"),
    ],
)
def test_what_is_no_picture_for_anybody(data: bytes, code: str) -> None:
    assert refusal(data).code == code


PICTURE = cornered()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing; embed a JPEG or PNG of it instead"),
        (b"\xef\xbb\xbf <?xml version='1.0'?>\n<!-- by hand -->\n<svg/>", "SVG"),
        (b"<!DOCTYPE html><html><body>404<svg/></body></html>", "web page"),
        (b"\n<HTML><title>Not found</title></HTML>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (encoded(PICTURE, "PDF"), "PDF document; embed its pages"),
        (encoded(PICTURE, "EPS"), "PostScript"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", "video (MP4 or QuickTime); embed single frames"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "video"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "video"),
        (b"\x1a\x45\xdf\xa3\x01\0\0\0", "video (Matroska or WebM)"),
        (b"RIFF\x10\0\0\0AVI LIST", "video (AVI)"),
        (b"\0\0\x01\xba\x44", "video (MPEG)"),
        ((b"G" + bytes(187)) * 4, "video (MPEG)"),
        (b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom", "sound"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "sound"),
        (b"ID3\x04\0\0", "sound"),
        (b"OggS\0\x02", "sound"),
        (b"PK\x03\x04\x14\0", "ZIP archive or an office document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "office document"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "camera's raw picture (Canon); export a JPEG"),
        (b"II*\0\x10\0\0\0CR\x02\0", "camera's raw picture (Canon)"),
        (b"IIU\0\x18\0\0\0", "camera's raw picture (Panasonic)"),
        (b"FUJIFILMCCD-RAW 0201", "camera's raw picture (Fujifilm)"),
        (encoded(PICTURE, "TIFF", tiffinfo={50706: b"\1\4\0\0"}), "camera's raw picture (DNG)"),
        (encoded(PICTURE, "TIFF", tiffinfo={254: 1, 271: "NIKON CORPORATION", 330: 8}), "camera's raw picture"),
        (b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 262, 3, 1, 32803, 0), "camera's raw picture"),
    ],
)
def test_what_is_known_to_be_something_else_is_told(data: bytes, words: str) -> None:
    error = refusal(data)
    assert error.code == "unsupported"
    assert words in str(error)
    assert str(error).startswith("The file is ")
    assert str(error).endswith(".")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "ICO", "PPM", "TGA", "PCX", "JPEG2000"])
def test_no_picture_passes_for_something_else(kind: str) -> None:
    assert check_picture(encoded(cornered(64, 64), kind), AZURE).content.width == 64


def test_scans_of_cameras_makers_are_no_raw_pictures() -> None:
    data = encoded(PICTURE, "TIFF", tiffinfo={271: "NIKON", 272: "LS-50"})
    assert check_picture(data, AZURE).data is data


def test_photoshop_files_are_read_as_they_look() -> None:
    assert check_picture(psd(PICTURE), AZURE).changes == ("converted",)


# --- formats that take another package


def test_heic_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = encoded(PICTURE, "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    opening._has_heif.cache_clear()
    try:
        error = refusal(data)
    finally:
        opening._has_heif.cache_clear()
    assert error.code == "unsupported-format"
    assert "pip install 'lookalike[heic]'" in str(error)


def test_avif_without_support_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(PICTURE, "AVIF")
    monkeypatch.setattr(opening, "_built_in", lambda: ("JPEG", "PNG"))
    error = refusal(data)
    assert error.code == "unsupported-format"
    assert "pip install" in str(error)


# --- sizes


@pytest.mark.parametrize(
    ("size", "code"),
    [
        ((11, 11), None),
        ((10, 11), "too-small"),
        ((11, 10), "too-small"),
        ((15_999, 11), None),
        ((16_000, 11), None),
        ((20_000, 12), "too-large"),
        ((5, 17_000), "too-large"),
    ],
)
def test_sides_at_the_edge(size: tuple[int, int], code: str | None) -> None:
    data = encoded(Image.new("RGB", size, "red"), "PNG")
    if code is None:
        check_picture(data, LIMITS)
    else:
        error = refusal(data)
        assert error.code == code
        assert f"{size[0]} × {size[1]}" in str(error)


def test_what_is_too_large_is_refused_where_it_may_not_be_shrunk() -> None:
    wide = refusal(encoded(Image.new("RGB", (16_000, 20)), "PNG"), shrink=False)
    assert wide.code == "too-large"
    assert "--no-shrink" in str(wide)
    heavy = refusal(noise("PNG", (600, 600)), shrink=False)
    assert heavy.code == "too-many-bytes"
    assert "--no-shrink" in str(heavy)
    # what must be made anew counts with the bytes that it has then
    assert check_picture(noise("BMP", (300, 300)), LIMITS, shrink=False).changes == ("converted",)
    assert refusal(noise("BMP", (900, 900)), shrink=False).code == "too-many-bytes"


def test_files_beyond_all_measure_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check.LARGEST_FILE == 256 * 1024 * 1024
    data = noise("PNG")
    monkeypatch.setattr(check, "LARGEST_FILE", len(data) - 1)
    assert refusal(data).code == "too-many-bytes"
    monkeypatch.setattr(check, "LARGEST_FILE", len(data))
    assert check_picture(data, LIMITS).data is data
