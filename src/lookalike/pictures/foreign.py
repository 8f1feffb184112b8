"""Knows by their first bytes what lies among pictures and is none, so that people are told what to do about it."""

from __future__ import annotations

import struct

_FRAMES = "embed single frames of it, as JPEG, instead"
_SOUND = "it shows nothing to embed"
_PAGES = "embed its pages, as JPEG or PNG, instead"
_DRAWN = "embed a JPEG or PNG of it instead"
_UNPACK = "unpack it, and embed the pictures in it instead"
_DEVELOP = "export a JPEG of it, and embed that instead"
_FETCH = "fetch the picture itself, not the page about it"

_RAW = "a camera's raw picture"
_OFFICE = "an office document"

_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"%PDF-", "a PDF document", _PAGES),
    (0, b"%!PS", "a PostScript drawing (EPS)", _DRAWN),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript drawing (EPS)", _DRAWN),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows drawing (WMF)", _DRAWN),
    (40, b" EMF", "a Windows drawing (EMF)", _DRAWN),
    (0, b"AC10", "a CAD drawing (DWG)", _DRAWN),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _OFFICE, _PAGES),
    (0, b"{\\rtf", _OFFICE, _PAGES),
    (0, b"PK\x03\x04", "a ZIP archive or an office document", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "an archive (7z)", _UNPACK),
    (0, b"Rar!\x1a\x07", "an archive (RAR)", _UNPACK),
    (0, b"\x1f\x8b\x08", "compressed (gzip)", _UNPACK),
    (0, b"\xfd7zXZ\0", "compressed (xz)", _UNPACK),
    (257, b"ustar", "an archive (tar)", _UNPACK),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", _FRAMES),
    (8, b"AVI LIST", "a video (AVI)", _FRAMES),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video (Windows Media)", _FRAMES),
    (0, b"FLV\x01", "a video (Flash)", _FRAMES),
    (0, b"\0\0\x01\xba", "a video (MPEG)", _FRAMES),
    (0, b"\0\0\x01\xb3", "a video (MPEG)", _FRAMES),
    (4, b"moov", "a video (QuickTime)", _FRAMES),
    (4, b"mdat", "a video (QuickTime)", _FRAMES),
    (4, b"wide", "a video (QuickTime)", _FRAMES),
    (8, b"WAVEfmt ", "a sound recording (WAV)", _SOUND),
    (0, b"OggS", "a sound recording or a video (Ogg)", _SOUND),
    (0, b"fLaC", "a sound recording (FLAC)", _SOUND),
    (0, b"ID3", "a sound recording (MP3)", _SOUND),
    (0, b"\xff\xfb", "a sound recording (MP3)", _SOUND),
    (0, b"\xff\xf3", "a sound recording (MP3)", _SOUND),
    (0, b"\xff\xf1", "a sound recording (AAC)", _SOUND),
    (8, b"AIFF", "a sound recording (AIFF)", _SOUND),
    (0, b"MThd", "music in notes (MIDI)", _SOUND),
    (0, b"FUJIFILMCCD-RAW", f"{_RAW} (Fujifilm)", _DEVELOP),
    (0, b"IIRO", f"{_RAW} (Olympus)", _DEVELOP),
    (0, b"IIRS", f"{_RAW} (Olympus)", _DEVELOP),
    (0, b"MMOR", f"{_RAW} (Olympus)", _DEVELOP),
    (0, b"IIU\0", f"{_RAW} (Panasonic)", _DEVELOP),
    (6, b"HEAPCCDR", f"{_RAW} (Canon)", _DEVELOP),
    (8, b"CR\x02\0", f"{_RAW} (Canon)", _DEVELOP),
    (0, b"FOVb", f"{_RAW} (Sigma)", _DEVELOP),
    (0, b"\0MRM", f"{_RAW} (Minolta)", _DEVELOP),
)
"""Where, what bytes, what it is, what to do."""

_STILL_BRANDS = frozenset(
    (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
)
_SOUND_BRANDS = (b"M4A ", b"M4B ", b"M4P ", b"F4A ")

_HEAD = 4096

# tags of a TIFF's directory
_SUBFILE, _COMPRESSION, _COLOURS, _MAKE, _MORE, _DNG = 254, 259, 262, 271, 330, 50706
_SENSOR_COLOURS = (32803, 34892)
_SENSOR_COMPRESSIONS = (32767, 32770, 34713, 65535)


def foreign(data: bytes) -> str | None:
    """What `data` is and what to do about it, in words, if it is known to be no still picture."""
    for offset, magic, what, advice in _MAGIC:
        if data.startswith(magic, offset):
            return _said(what, advice)
    return _film(data) or _markup(data) or _raw(data)


def _said(what: str, advice: str) -> str:
    return f"The file is {what}; {advice}."


def _film(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        length = min(int.from_bytes(data[:4]), 256)
        brands = {data[8:12], *(data[at : at + 4] for at in range(16, length, 4))}
        if data.startswith(b"crx ", 8):
            return _said(f"{_RAW} (Canon)", _DEVELOP)
        if data[8:12] in _SOUND_BRANDS:
            return _said("a sound recording (MP4)", _SOUND)
        return None if brands & _STILL_BRANDS else _said("a video (MP4 or QuickTime)", _FRAMES)
    # packets of a transport stream; a GIF starts with the same letter
    if not data.startswith(b"GIF8") and data[:377:188] == b"GGG":
        return _said("a video (MPEG)", _FRAMES)
    return None


def _markup(data: bytes) -> str | None:
    head = data[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head.startswith(b"<"):
        return None
    svg, html = head.find(b"<svg"), head.find(b"<html")
    if head.startswith((b"<!doctype html", b"<head", b"<body", b"<script", b"<title")) or 0 <= html < svg:
        return _said("a web page", _FETCH)
    if svg >= 0:
        return _said("an SVG drawing", _DRAWN)
    if html >= 0:
        return _said("a web page", _FETCH)
    if head.startswith(b"<?xml"):
        return _said("an XML document", _FETCH)
    return None


def _raw(data: bytes) -> str | None:
    """Raw pictures that are TIFFs, in which a decoder would find a thumbnail at most."""
    tags = _tags(data)
    if _DNG in tags:
        return _said(f"{_RAW} (DNG)", _DEVELOP)
    if (
        tags.get(_COLOURS) in _SENSOR_COLOURS
        or tags.get(_COMPRESSION) in _SENSOR_COMPRESSIONS
        # a camera's file that starts with a smaller copy of what lies further down
        or (tags.get(_SUBFILE, 0) & 1 and _MORE in tags and _MAKE in tags)
    ):
        return _said(_RAW, _DEVELOP)
    return None


def _tags(data: bytes) -> dict[int, int]:
    """The tags of a TIFF's first directory, each with its value if that is one number."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return {}
    tags = {}
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", data, at)
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 8)
    except struct.error:
        # cut off; what was found so far may tell already
        pass
    return tags
