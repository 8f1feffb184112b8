"""From a file that a source has named to a picture that is worth a call: read it, and check it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from lookalike.errors import ConfigurationError, ItemError, LookalikeError
from lookalike.ingest.sources.candidate import Candidate, looks_like_a_picture
from lookalike.ingest.sources.folders import fingerprint_of
from lookalike.pictures.check import LARGEST_FILE, check_picture, exif_of
from lookalike.pictures.reading import Reader
from lookalike.store.writing import UNSUPPORTED, NewFailure, Place
from lookalike.types import Content, ImageInput, Limits

if TYPE_CHECKING:
    from lookalike.pictures.web import Download

_NO_TEXT = "no-text"
_log = logging.getLogger("lookalike.ingest")
_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"8BPS"),
)
_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that the model takes, ready to be sent.

    Attributes:
        image_id: of the image that it is, if that is new.
        content: None where the service is to fetch it, so that nobody here sees its bytes.
        changes: how what is sent differs from the file's own bytes.
    """

    place: Place
    image_id: UUID
    content: Content | None
    input: ImageInput
    changes: tuple[str, ...] = ()

    @property
    def media_type(self) -> str | None:
        """What it is, as far as that is known."""
        return self.content.media_type if self.content is not None else self.input.media_type


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A remote file that is still what it was when it was last read."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How candidates become pictures.

    Attributes:
        limits: of the model.
        reader: reads what lies elsewhere.
        shrink: make what is too large for the model smaller, rather than refuse it.
        exif: read from the picture when, where and with what it was taken.
        send_urls: leave it to the service to fetch what lies at an http(s) URL.
        with_text: the column whose text is embedded together with each picture; None to embed pictures alone.
    """

    limits: Limits
    reader: Reader
    shrink: bool = True
    exif: bool = False
    send_urls: bool = False
    with_text: str | None = None

    def __post_init__(self) -> None:
        if self.send_urls and not self.limits.urls:
            raise ConfigurationError("This model's service fetches nothing. Leave --send-urls out.")

    def is_unseen(self, candidate: Candidate) -> bool:
        """Whether a candidate is known by its URL alone, as it is the service that fetches it: videos always are."""
        return candidate.by_url and (self.send_urls or candidate.video is not None)

    def must_read(self, candidate: Candidate) -> bool:
        """Whether only reading a candidate tells what it is, and what becomes of it."""
        told = candidate.text is not None or self.with_text is None or not candidate.expected
        return told and candidate.error is None and candidate.video is None

    def prepare(self, candidate: Candidate, known: str | None = None) -> Picture | NewFailure | Unchanged:
        """Read and check a candidate.

        Args:
            known: its fingerprint when it was last read, for remote files, which are not read again then.
        """
        outcome = self._prepare(candidate, known)
        for other in candidate.others:
            if not isinstance(outcome, NewFailure) or outcome.stage != "read":
                break
            outcome = self._prepare(other, None)
        return outcome

    def _prepare(self, candidate: Candidate, known: str | None) -> Picture | NewFailure | Unchanged:
        place = candidate.place
        stage: Literal["read", "check"] = "read"
        try:
            if candidate.error is not None:
                raise ItemError(candidate.code, candidate.error, retryable=candidate.retryable)
            if candidate.oddity is not None:
                raise ItemError(UNSUPPORTED, f"This is {candidate.oddity}, not a file.")
            if candidate.expected:
                self._require_text(candidate)  # before anything is read, as this will be asked again
            if self.is_unseen(candidate):
                return self._by_url(candidate)
            if candidate.remote:
                download = self._download(candidate, known)
                if download is None:
                    return Unchanged()
                data = download.data
                place = replace(place, fingerprint=place.fingerprint or download.fingerprint)
            else:
                data, place = _read(candidate, place)
            if candidate.sha256 is not None and candidate.sha256 != sha256(data).digest():
                message = "The file is not what it was when it was ingested. Ingest it again."
                raise ItemError("changed", message, retryable=True)
            stage = "check"
            checked = check_picture(data, self.limits, shrink=self.shrink)
            if self.exif:
                place = replace(place, exif=exif_of(data))
            self._require_text(candidate)
            image_id = candidate.image_id or checked.content.image_id
            image = ImageInput(data=checked.data, text=candidate.text)
            return Picture(place, image_id, checked.content, image, checked.changes)
        except ItemError as error:
            code, message = error.code, str(error)
            if not candidate.expected and code != _NO_TEXT:
                code = UNSUPPORTED  # it never claimed to be a picture
            elif code == UNSUPPORTED and stage == "check" and candidate.video is not None:
                code = "video-not-by-url"
                message = "The service fetches videos itself. Name this one by an http(s) URL that everybody can read."
            elif code == UNSUPPORTED and stage == "check" and looks_like_a_picture(candidate.location):
                code = "not-an-image"
            return NewFailure(place, stage, code, message, error.retryable, image_id=candidate.image_id)
        except LookalikeError:
            raise  # what is to be mended before the run can go on
        except Exception as error:
            # a fault of ours or of a decoder, but no picture may stop a run of millions
            _log.info("preparing %s failed unexpectedly", place.uri, exc_info=True)
            message = f"{type(error).__name__}: {error}"
            return NewFailure(place, stage, "unexpected", message, True, image_id=candidate.image_id)

    def _by_url(self, candidate: Candidate) -> Picture:
        """What the service is to fetch, which is identified by its URI."""
        video, place = candidate.video, candidate.place
        if video is not None and not self.limits.max_video_bytes:
            # under a model that takes no videos, those of a backfill have not failed
            code = "video-not-supported" if candidate.image_id is None else UNSUPPORTED
            raise ItemError(code, "This model takes no videos; dashscope/qwen3-vl-embedding does, for example.")
        image_id = candidate.image_id or UUID(bytes=sha256(place.uri.encode()).digest()[:16])
        image = ImageInput(url=candidate.location, media_type=video, text=candidate.text)
        return Picture(place, image_id, None, image)

    def _require_text(self, candidate: Candidate) -> None:
        if self.with_text is not None and candidate.text is None:
            message = (
                f"Nothing stands under {self.with_text!r} for this file, and without a text its vector would be of "
                "another kind. Add one, or ingest the file under the model without text."
            )
            raise ItemError(_NO_TEXT, message, retryable=True)

    def _download(self, candidate: Candidate, known: str | None) -> Download | None:
        try:
            return self.reader.read(candidate.location, most=LARGEST_FILE, known=known)
        except ConfigurationError as error:
            if candidate.image_id is None:
                raise  # of no use for this source, so for none of its files
            # one of many places that images were once brought in from
            raise ItemError("access-refused", str(error), retryable=True) from None


def _read(candidate: Candidate, place: Place) -> tuple[bytes, Place]:
    """The bytes of a local file, with the fingerprint that belongs to them."""
    try:
        # without blocking, lest it has become a named pipe meanwhile
        with open(candidate.location, "rb", opener=_open_at_once) as file:
            before = os.fstat(file.fileno())
            place = replace(place, fingerprint=fingerprint_of(before))
            if not candidate.expected:
                head = file.read(16)
                if not head.startswith(_MAGIC) and head[8:12] not in _BRANDS:
                    raise ItemError(UNSUPPORTED, f"The file is no picture ({_kind(candidate.location)}).")
                file.seek(0)
            # room is made for as many bytes as are asked for: one more than there are said to be, to see the end
            data = file.read(min(before.st_size, LARGEST_FILE) + 1)
            if len(data) > before.st_size:
                # not every file system tells; and one byte more than is allowed, so that the check can tell
                data += file.read(LARGEST_FILE + 1 - len(data))
            after = os.fstat(file.fileno())
    except OSError as error:
        raise ItemError("unreadable", f"The file cannot be read: {error.strerror}.", retryable=True) from None
    if fingerprint_of(after) != fingerprint_of(before):
        raise ItemError("changed-while-read", "The file was being written while it was read.", retryable=True)
    return data, place


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _kind(path: str) -> str:
    suffix = Path(path).suffix
    return f"{suffix[:20]}" if suffix else "it has no suffix, and does not begin as pictures do"
