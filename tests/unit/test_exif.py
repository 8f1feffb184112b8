"""What a camera noted beside a picture, as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image, features
from PIL.TiffImagePlugin import IFDRational

from lookalike.pictures.check import exif_of
from tests.unit.pictures import cornered, encoded, png_chunk

CAMERA, PLACE = 0x8769, 0x8825


def photo(
    kind: str = "JPEG",
    *,
    base: dict[int, Any] | None = None,
    camera: dict[int, Any] | None = None,
    place: dict[int, Any] | None = None,
) -> bytes:
    exif = Image.Exif()
    exif.update(base or {})
    exif.get_ifd(CAMERA).update(camera or {})
    exif.get_ifd(PLACE).update(place or {})
    return encoded(cornered(), kind, exif=exif.tobytes())


def place(latitude: Any, north: Any, longitude: Any, east: Any, **more: Any) -> dict[str, Any]:
    notes: dict[int, Any] = {1: north, 2: latitude, 3: east, 4: longitude}
    return exif_of(photo(place={**notes, **{int(tag[1:]): value for tag, value in more.items()}}))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_everything_that_is_noted_is_found_in_every_format(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = photo(
        kind,
        base={0x010F: "Canon", 0x0110: "Canon EOS 5D", 0x0112: 6},
        camera={0x9003: "2024:05:06 07:08:09", 0x9011: "+02:00", 0xA434: "EF 50mm f/1.8"},
        place={1: "S", 2: (33.0, 51.0, 31.2), 3: "E", 4: (151.0, 12.0, 36.0), 5: b"\0", 6: 58.25},
    )
    found = exif_of(data)
    assert found == {
        "taken_at": "2024-05-06T07:08:09+02:00",
        "camera": "Canon EOS 5D",
        "lens": "EF 50mm f/1.8",
        "latitude": -33.8586667,
        "longitude": 151.21,
        "altitude": 58.25,
        "orientation": 6,
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_where_nothing_is_noted_nothing_is_found(kind: str) -> None:
    assert exif_of(encoded(cornered(), kind)) == {}


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe1\x00\x10Exif\0\0II*\0", b"<svg/>"])
def test_what_is_no_picture_has_no_notes(data: bytes) -> None:
    assert exif_of(data) == {}


def test_notes_behind_the_pixels_of_a_png() -> None:
    exif = Image.Exif()
    exif[0x0110] = "Telescope"
    data = encoded(cornered(), "PNG")
    assert exif_of(data[:-12] + png_chunk(b"eXIf", exif.tobytes()[6:]) + data[-12:]) == {"camera": "Telescope"}


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("NIKON CORPORATION", "NIKON D70", "NIKON D70"),
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("OLYMPUS IMAGING CORP.  ", "E-P1   ", "OLYMPUS IMAGING CORP. E-P1"),
        (None, "E-P1", "E-P1"),
        ("Leica", None, "Leica"),
        ("  ", "\0\0", None),
        ("Fa\0rbage", "X\x07\n1", "Fa X 1"),
        ("Kyōcera", "ß", "Kyōcera ß"),
    ],
)
def test_cameras_are_named_once(make: str | None, model: str | None, camera: str | None) -> None:
    noted = {tag: text.encode() for tag, text in ((0x010F, make), (0x0110, model)) if text is not None}
    assert exif_of(photo(base=noted)).get("camera") == camera


@pytest.mark.parametrize(
    ("camera", "taken_at"),
    [
        ({0x9003: "2024:05:06 07:08:09"}, "2024-05-06T07:08:09"),
        ({0x9003: "2024-05-06 07:08"}, "2024-05-06T07:08:00"),
        ({0x9003: "2024:05:06 07:08:09", 0x9011: "-03:30"}, "2024-05-06T07:08:09-03:30"),
        ({0x9003: "2024:05:06 07:08:09", 0x9011: "Z"}, "2024-05-06T07:08:09+00:00"),
        ({0x9003: "2024:05:06 07:08:09", 0x9011: "+99:00"}, "2024-05-06T07:08:09"),
        ({0x9003: "2024:05:06 07:08:09", 0x9011: "   :  "}, "2024-05-06T07:08:09"),
        ({0x9003: "0000:00:00 00:00:00", 0x9004: "2001:02:03 04:05:06"}, "2001-02-03T04:05:06"),
        ({0x9003: "2024:13:45 07:08:09"}, None),
        ({0x9003: "    :  :     :  :  "}, None),
        ({0x9003: b"\xff\xfe\0\0"}, None),
    ],
)
def test_when_it_was_taken(camera: dict[int, Any], taken_at: str | None) -> None:
    assert exif_of(photo(camera=camera)).get("taken_at") == taken_at


def test_the_date_of_the_last_change_is_not_when_it_was_taken() -> None:
    assert exif_of(photo(base={0x0132: "2024:05:06 07:08:09"})) == {}


def test_places() -> None:
    assert place((48.0, 8.0, 0.0), "N", (11.0, 34.5, 0.0), "E") == {"latitude": 48.1333333, "longitude": 11.575}
    assert place((10.5, 0.0, 0.0), "s", (20.25, 0.0, 0.0), "W") == {"latitude": -10.5, "longitude": -20.25}
    below = place((1.0, 0.0, 0.0), "N", (1.0, 0.0, 0.0), "E", t5=b"\1", t6=12.5)
    assert below == {"latitude": 1.0, "longitude": 1.0, "altitude": -12.5}


@pytest.mark.parametrize(
    ("latitude", "north", "longitude", "east"),
    [
        ((91.0, 0.0, 0.0), "N", (1.0, 0.0, 0.0), "E"),
        ((1.0, 0.0, 0.0), "N", (180.0, 1.0, 0.0), "E"),
        ((1.0, 0.0, 0.0), "?", (1.0, 0.0, 0.0), "E"),
        ((0.0, 0.0, 0.0), "N", (0.0, 0.0, 0.0), "E"),
        ((IFDRational(0, 0), 0.0, 0.0), "N", (1.0, 0.0, 0.0), "E"),
        ((IFDRational(1, 0), 0.0, 0.0), "N", (1.0, 0.0, 0.0), "E"),
        (1.0, "N", 1.0, "E"),
    ],
)
def test_places_that_are_none(latitude: Any, north: str, longitude: Any, east: str) -> None:
    assert place(latitude, north, longitude, east) == {}


@pytest.mark.parametrize("metres", [IFDRational(0, 0), IFDRational(1, 0), IFDRational(4294967295, 1)])
def test_altitudes_that_are_none(metres: IFDRational) -> None:
    assert exif_of(photo(place={6: metres})) == {}


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_orientations_that_are_none(orientation: int) -> None:
    assert exif_of(photo(base={0x0112: orientation})) == {}


def test_words_are_short_and_fit_for_a_database() -> None:
    found = exif_of(photo(camera={0xA434: "\udcff".encode("utf-8", "surrogatepass") + b" lens " + b"x" * 5000}))
    assert len(found["lens"]) <= 200
    assert "\0" not in found["lens"]
    found["lens"].encode()
