"""What is sent where a picture cannot be sent as it is: it must look as its file does in a viewer."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, features

from lookalike import ItemError
from lookalike.pictures.check import Checked, check_picture
from tests.unit.pictures import (
    BLUE,
    CORNERS,
    GREEN,
    LIMITS,
    RED,
    WHITE,
    alike,
    cornered,
    corners,
    decoded,
    encoded,
    noise,
    png,
    psd,
    ramp,
)

PHOTO = cornered()


def reshaped(data: bytes, *changes: str, **limits: Any) -> Checked:
    """The result of a check that had to change something; what is sent is a plain JPEG."""
    checked = check_picture(data, replace(LIMITS, **limits))
    assert checked.changes == changes
    sent = decoded(checked.data)
    assert (sent.format, sent.mode) == ("JPEG", "RGB")
    assert len(sent.getexif()) == 0
    assert not {"exif", "icc_profile", "comment", "xmp", "photoshop"} & {*sent.info}
    return checked


def greys(data: bytes) -> Any:
    return np.asarray(decoded(data).convert("L"))[16]


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "A camera"
    return exif


# --- upright


def test_a_picture_taken_upright_has_its_corners_where_a_viewer_shows_them() -> None:
    # 6: the top of the picture is on its right-hand side, as phones write it
    checked = reshaped(encoded(PHOTO, exif=oriented(6)), "rotated")
    assert (checked.content.width, checked.content.height) == (64, 96)
    assert decoded(checked.data).size == (64, 96)
    assert alike(corners(checked.data), [BLUE, RED, WHITE, GREEN])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_in_every_format(kind: str, orientation: int) -> None:
    data = encoded(PHOTO, kind, exif=oriented(orientation))
    with Image.open(io.BytesIO(data)) as stored:
        shown = ImageOps.exif_transpose(stored)
    if orientation == 1:
        assert check_picture(data, LIMITS).data is data
        return
    checked = reshaped(data, "rotated")
    assert (checked.content.width, checked.content.height) == shown.size == decoded(checked.data).size
    assert alike(corners(checked.data), corners(encoded(shown, "PNG")))
    assert alike(corners(checked.data), CORNERS) is False


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_do_not_exist_change_nothing(value: int) -> None:
    data = encoded(PHOTO, exif=oriented(value))
    assert check_picture(data, LIMITS).data is data


# --- colours and transparency


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_print_colours_look_like_themselves(kind: str) -> None:
    checked = reshaped(encoded(PHOTO.convert("CMYK"), kind, **({"quality": 95} if kind == "JPEG" else {})), "converted")
    assert alike(corners(checked.data), CORNERS)


def test_print_colours_are_stored_inverted_as_photoshop_does() -> None:
    # the bytes say that there is no ink anywhere: white, were they not inverted
    data = encoded(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), quality=95)
    assert b"Adobe" in data
    assert alike(corners(reshaped(data, "converted").data), [(255, 0, 0)] * 4)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = Image.fromarray(ramp(65535, np.uint16))
    for kind in ("PNG", "TIFF"):
        sent = greys(reshaped(encoded(grey, kind), "converted").data)
        assert alike(sent, np.arange(256), within=6), kind


def test_sixteen_bits_in_colour() -> None:
    values = np.stack([ramp(65535, ">u2"), ramp(0, ">u2"), ramp(65535, ">u2")[:, ::-1]], -1)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    checked = reshaped(png(256, 32, rows=rows, depth=16), "converted")
    assert alike(corners(checked.data)[:2], [(64, 0, 191), (192, 0, 64)])


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0, 1e6])
def test_floating_numbers_fill_the_range_of_greys(top: float) -> None:
    sent = greys(reshaped(encoded(Image.fromarray(ramp(top, np.float32)), "TIFF"), "converted").data)
    assert alike(sent, np.arange(256), within=6)


def test_numbers_that_are_none_do_no_harm() -> None:
    values = ramp(1, np.float32)
    values[:, 128:] = np.nan
    values[:, 200:] = np.inf
    sent = greys(reshaped(encoded(Image.fromarray(values), "TIFF"), "converted").data)
    assert alike(sent[20:100], np.arange(256)[20:100], within=10)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    picture = Image.new("RGBA", (80, 80), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 40, 40))
    if mode == "P":
        flat = Image.new("P", (80, 80), 1)
        flat.putpalette([0, 0, 0, 90, 10, 10])
        flat.paste(0, (0, 0, 40, 40))
        data = encoded(flat, "PNG", transparency=1)
    else:
        data = encoded(picture.convert(mode), "PNG")
    assert check_picture(data, LIMITS).data is data
    checked = reshaped(data, "converted", media_types=frozenset({"image/jpeg"}))
    assert alike(corners(checked.data), [(0, 0, 0), WHITE, WHITE, WHITE])


def test_half_transparent_is_half_white() -> None:
    data = encoded(Image.new("RGBA", (40, 40), (0, 0, 0, 128)), "WEBP", lossless=True, exif=oriented(3))
    assert alike(corners(reshaped(data, "rotated").data), [(127, 127, 127)] * 4, within=3)


def test_black_and_white() -> None:
    drawing = PHOTO.convert("L").point(lambda value: 255 * (value > 200)).convert("1")
    data = encoded(drawing, "PPM")
    assert alike(corners(reshaped(data, "converted").data), [(0, 0, 0)] * 3 + [WHITE])


def test_lab_colours() -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(PHOTO, to_lab)
    assert lab is not None
    assert alike(corners(reshaped(encoded(lab, "TIFF"), "converted").data), CORNERS)


# --- profiles


def swapped_profile() -> bytes:
    """sRGB with red and green exchanged: whoever heeds it sees red as green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ") + 4, profile.index(b"gXYZ") + 4
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    return bytes(profile)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_profiles_are_heeded(kind: str) -> None:
    data = encoded(Image.new("RGB", (40, 40), (255, 0, 0)), kind, icc_profile=swapped_profile(), exif=oriented(3))
    assert alike(corners(reshaped(data, "rotated").data), [(0, 255, 0)] * 4)


@pytest.mark.parametrize("profile", [b"garbage", b"\0" * 500, swapped_profile()[:200]])
def test_profiles_that_are_none_are_passed_over(profile: bytes) -> None:
    data = encoded(PHOTO, icc_profile=profile, exif=oriented(3))
    assert alike(corners(reshaped(data, "rotated").data), CORNERS[::-1])


def test_profiles_for_other_colours_are_passed_over() -> None:
    data = encoded(PHOTO.convert("CMYK"), icc_profile=swapped_profile(), quality=95)
    assert alike(corners(reshaped(data, "converted").data), CORNERS)


# --- formats


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("BMP", {}),
        ("DIB", {}),
        ("ICO", {"sizes": [(64, 64)]}),
        ("JPEG2000", {"irreversible": True}),
        ("MPO", {}),
        ("PCX", {}),
        ("PPM", {}),
        ("TGA", {"compression": "tga_rle"}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {}),
        ("HEIF", {}),
    ],
)
def test_what_the_model_does_not_know_is_sent_as_jpeg(kind: str, options: dict[str, Any]) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    picture = cornered(64, 64)
    data = encoded(picture, kind, **options)
    checked = reshaped(data, "converted", media_types=frozenset({"image/png"}))
    assert alike(corners(checked.data), CORNERS)
    assert (checked.content.width, checked.content.height) == (64, 64)
    assert checked.content.media_type.startswith("image/") or kind == "DIB"


def quarter_turned(heic: bytes) -> bytes:
    """A HEIC of one picture with the note that it is to be shown turned clockwise, as phones write it."""
    data = bytearray(heic)

    def add(place: int, what: int, size: int) -> None:
        data[place : place + size] = (int.from_bytes(data[place : place + size]) + what).to_bytes(size)

    places = {box: data.index(box) for box in (b"meta", b"iprp", b"ipco", b"ipma", b"iloc")}
    known = data[places[b"ipma"] + 14]
    for box, growth in ((b"meta", 10), (b"iprp", 10), (b"ipco", 9), (b"ipma", 1)):
        add(places[box] - 4, growth, 4)
    add(places[b"iloc"] + 22, 10, 4)
    add(places[b"ipma"] + 14, 1, 1)
    end = places[b"ipma"] + 15 + known
    data[end:end] = bytes([0x80 | known + 1])
    data[places[b"ipma"] - 4 : places[b"ipma"] - 4] = b"\0\0\0\x09irot\x03"
    return bytes(data)


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_that_is_turned(brand: bytes) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = quarter_turned(encoded(PHOTO, "HEIF"))
    checked = reshaped(data[:8] + brand + data[12:], "converted")
    assert (checked.content.width, checked.content.height) == (64, 96) == decoded(checked.data).size
    assert alike(corners(checked.data), [BLUE, RED, WHITE, GREEN])


def test_avif_that_is_turned() -> None:
    checked = reshaped(encoded(PHOTO, "AVIF", exif=oriented(6)), "converted", "rotated")
    assert (checked.content.width, checked.content.height) == (64, 96) == decoded(checked.data).size
    assert alike(corners(checked.data), [BLUE, RED, WHITE, GREEN])


def test_photoshop() -> None:
    assert alike(corners(reshaped(psd(PHOTO), "converted").data), CORNERS)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_pictures_the_first_one_is_sent(kind: str) -> None:
    frames = [PHOTO, Image.new("RGB", PHOTO.size, "black"), Image.new("RGB", PHOTO.size, "white")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert alike(corners(reshaped(data, "first-frame").data), CORNERS)


# --- size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_what_is_too_large_is_shrunk_with_its_proportions(kind: str) -> None:
    data = encoded(cornered(1200, 300), kind)
    checked = reshaped(data, "shrunk", max_side=400, max_bytes=2_000_000)
    assert (checked.content.width, checked.content.height) == (1200, 300)
    assert decoded(checked.data).size == (400, 100)
    assert alike(corners(checked.data), CORNERS)


def test_what_is_too_large_and_lies_on_its_side() -> None:
    data = encoded(cornered(1200, 300), exif=oriented(6))
    checked = reshaped(data, "rotated", "shrunk", max_side=400)
    assert decoded(checked.data).size == (100, 400)
    assert alike(corners(checked.data), [BLUE, RED, WHITE, GREEN])


def test_palettes_are_shrunk_smoothly() -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (600, 300)))
    sent = greys(reshaped(encoded(stripes.convert("P"), "PNG"), "shrunk", max_side=100).data)
    assert alike(sent[10:-10], [127] * 80, within=12)


def test_too_many_bytes_first_cost_nothing_but_the_format() -> None:
    data = encoded(cornered(400, 400), "TIFF")
    checked = reshaped(data, "shrunk", max_bytes=100_000)
    assert decoded(checked.data).size == (400, 400)
    assert len(checked.data) <= 100_000


def test_too_many_bytes_then_cost_pixels() -> None:
    checked = reshaped(noise("PNG", (500, 300)), "shrunk", max_bytes=30_000)
    width, height = decoded(checked.data).size
    assert len(checked.data) <= 30_000
    assert 100 < width < 500
    assert width / height == pytest.approx(5 / 3, rel=0.02)


def test_too_many_bytes_at_last_cost_quality() -> None:
    checked = reshaped(noise("PNG", (200, 200)), "shrunk", max_bytes=12_000, min_side=190)
    assert min(decoded(checked.data).size) >= 190
    assert len(checked.data) <= 12_000


def test_what_cannot_be_shrunk_far_enough_is_refused() -> None:
    with pytest.raises(ItemError) as caught:
        check_picture(noise("PNG", (200, 200)), replace(LIMITS, max_bytes=500, min_side=190))
    assert caught.value.code == "too-many-bytes"
