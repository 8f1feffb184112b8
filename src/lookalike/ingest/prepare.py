"""From a file that a walk came upon to a picture that is worth a call: read it, and check it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

from lookalike.errors import ItemError
from lookalike.ingest.sources import Candidate, fingerprint_of
from lookalike.pictures.check import LARGEST_FILE, check_picture
from lookalike.store.writing import NewFailure, Place
from lookalike.types import Content, Limits

_LONGEST_URI = 2000
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole picture that the model takes, with its bytes."""

    place: Place
    content: Content
    data: bytes


def prepare(candidate: Candidate, limits: Limits) -> Picture | NewFailure | None:
    """Read and check a candidate; None if it is not a picture and never claimed to be one."""
    if not candidate.regular:
        return None
    place = _storable(candidate.place)
    stage: Literal["read", "check"] = "read"
    try:
        if len(place.uri) < len(candidate.place.uri):
            raise ItemError("uri-too-long", f"The path is longer than {_LONGEST_URI} characters. Move or rename it.")
        if candidate.error is not None:
            raise ItemError("unreadable", candidate.error, retryable=True)
        data, place = _read(candidate, place)
        if data is None:
            return None
        stage = "check"
        checked = check_picture(data, limits)
        return Picture(place, checked.content, checked.data)
    except ItemError as error:
        if not candidate.expected:
            return None
        return NewFailure(place, stage, error.code, str(error), error.retryable)


def _read(candidate: Candidate, place: Place) -> tuple[bytes | None, Place]:
    """The bytes, with the fingerprint that belongs to them; no bytes where the head of a file tells that it is none."""
    try:
        with open(candidate.path, "rb") as file:
            before = os.fstat(file.fileno())
            place = replace(place, fingerprint=fingerprint_of(before))
            if not candidate.expected:
                if not file.read(16).startswith(_MAGIC):
                    return None, place
                file.seek(0)
            # one byte more than is allowed, so that the check can tell
            data = file.read(LARGEST_FILE + 1)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise ItemError("unreadable", f"The file cannot be read: {error.strerror}.", retryable=True) from None
    if fingerprint_of(after) != fingerprint_of(before):
        raise ItemError("changed-while-read", "The file was being written while it was read.", retryable=True)
    return data, place


def _storable(place: Place) -> Place:
    if len(place.uri) <= _LONGEST_URI:
        return place
    digest = sha256(place.uri.encode()).hexdigest()
    return replace(place, uri=f"{place.uri[: _LONGEST_URI - 80]}...{digest}")
