"""What a camera noted beside a picture: when, where and with what it was taken."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from PIL import Image

from lookalike.pictures.opening import opened

_MAKE, _MODEL, _ORIENTATION, _CAMERA_PART, _GPS_PART = 0x010F, 0x0110, 0x0112, 0x8769, 0x8825
_LENS = 0xA434
_TAKEN = ((0x9003, 0x9011), (0x9004, 0x9012))
"""When the shutter opened and when it was stored, each with its distance from UTC. The date of the file's last change
is not among them."""
_LATITUDE, _LONGITUDE, _ALTITUDE = (1, 2), (3, 4), (5, 6)

_DATE = re.compile(r"(\d{4})[:\-/.](\d\d)[:\-/.](\d\d)[ T]+(\d\d):(\d\d)(?::(\d\d))?")
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")

_LONGEST = 200


def exif_of(data: bytes) -> dict[str, Any]:
    """What is noted in `data`, in words of JSON. Never raises; what is missing or makes no sense is left out.

    Returns:
        ``taken_at`` (ISO 8601, with the distance from UTC if that is noted), ``camera``, ``lens``, ``latitude`` and
        ``longitude`` (degrees, south and west negative), ``altitude`` (metres above the sea), ``orientation`` (1 to 8).
    """
    try:
        with opened(data) as image:
            # A PNG may have it behind its pixels, and Pillow unpacks those to look.
            if image.format == "PNG" and not {"exif", "Raw profile type exif"} & {*image.info} and b"eXIf" not in data:
                return {}
            exif = image.getexif()
            # HEIC is turned by its decoder, which then says 1
            orientation = image.info.get("original_orientation") or exif.get(_ORIENTATION)
            camera, place = exif.get_ifd(_CAMERA_PART), exif.get_ifd(_GPS_PART)
            found = {
                "taken_at": _attempt(_taken_at, camera),
                "camera": _attempt(_camera, exif),
                "lens": _attempt(_text, camera.get(_LENS)),
                **_place(place),
                "altitude": _attempt(_altitude, place),
                "orientation": orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else None,
            }
    except Exception:
        # garbage in notes is no reason to lose a picture
        return {}
    return {name: value for name, value in found.items() if value is not None}


def _attempt(read: Any, notes: Any) -> Any:
    with contextlib.suppress(Exception):
        return read(notes)
    return None


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return None
    # Pillow reads Latin-1, where cameras of today write UTF-8
    with contextlib.suppress(UnicodeError):
        value = value.encode("latin-1").decode()
    words = "".join(c if c.isprintable() else " " for c in value.partition("\0")[0])
    return " ".join(words.split())[:_LONGEST].rstrip() or None


def _camera(exif: Image.Exif) -> str | None:
    make, model = _text(exif.get(_MAKE)), _text(exif.get(_MODEL))
    if make is None or model is None:
        return make or model
    # "Canon" makes the "Canon EOS 5D", and "NIKON CORPORATION" the "NIKON D70"
    return model if model.lower().startswith(make.lower().split()[0]) else f"{make} {model}"


def _taken_at(camera: Mapping[int, Any]) -> str | None:
    for date_tag, offset_tag in _TAKEN:
        date = _DATE.match(_text(camera.get(date_tag)) or "")
        if date is None:
            continue
        with contextlib.suppress(ValueError):
            year, month, day, hour, minute, second = (int(number or 0) for number in date.groups())
            zone = _zone(_text(camera.get(offset_tag)) or "")
            return datetime(year, month, day, hour, minute, second, tzinfo=zone).isoformat()
    return None


def _zone(text: str) -> timezone | None:
    if text == "Z":
        return UTC
    match = _OFFSET.fullmatch(text)
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    distance = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-distance if sign == "-" else distance) if distance <= timedelta(hours=14) else None


def _place(notes: Mapping[int, Any]) -> dict[str, float]:
    latitude = _attempt(lambda n: _degrees(n, _LATITUDE, "NS", 90), notes)
    longitude = _attempt(lambda n: _degrees(n, _LONGITUDE, "EW", 180), notes)
    # one of them is no place, and 0, 0 is what devices write that do not know where they are
    if latitude is None or longitude is None or latitude == longitude == 0:
        return {}
    return {"latitude": latitude, "longitude": longitude}


def _degrees(notes: Mapping[int, Any], tags: tuple[int, int], sides: str, most: int) -> float | None:
    side = (_text(notes.get(tags[0])) or "?")[0].upper()
    parts: list[float] = [float(part) for part in notes[tags[1]]][:3]
    degrees = math.fsum(part / 60**place for place, part in enumerate(parts))
    if side not in sides or any(part < 0 for part in parts) or not 0 <= degrees <= most:
        return None
    return round(-degrees if side == sides[1] else degrees, 7) + 0.0


def _altitude(notes: Mapping[int, Any]) -> float | None:
    metres = float(notes[_ALTITUDE[1]])
    if not math.isfinite(metres) or not 0 <= metres <= 100_000:
        return None
    below = notes.get(_ALTITUDE[0]) in (1, b"\1")
    return round(-metres if below else metres, 2) + 0.0
