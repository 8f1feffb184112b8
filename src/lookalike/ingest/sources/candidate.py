"""What every source gives: files to look at, one after another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from lookalike.pictures.check import PICTURE_SUFFIXES
from lookalike.pictures.videos import video_type
from lookalike.store.writing import Place, storable

_LONGEST_URI = 2000
_DIGITS = 64
_FOR_GOOD = frozenset({"bad-row", "bad-name", "uri-too-long"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that a source has named.

    Attributes:
        location: where it is read: a local path, or a URL with whatever signature it was given.
        place: how it is stored, without anything secret.
        remote: whether `location` is a URL.
        expected: whether it claims to be a picture, by its name or because a list names it.
        oddity: what it is instead of a file, for example a named pipe; None for files.
        error: why it cannot be read, where that is known already.
        code: of that error.
        image_id: the stored image that it is to be, for a backfill.
        sha256: digest of that image's bytes, where they have been seen.
        media_type: of that image, where it is known.
        text: what it is to be embedded together with, under a model that does so; None where there is none.
        repeats: whether it has been walked already in this run, with another text, which counts.
        others: where that image lies, too.
    """

    location: str
    place: Place
    remote: bool = False
    expected: bool = True
    oddity: str | None = None
    error: str | None = None
    code: str = "unreadable"
    image_id: UUID | None = None
    sha256: bytes | None = None
    media_type: str | None = None
    text: str | None = None
    repeats: bool = False
    others: tuple[Candidate, ...] = ()

    @property
    def by_url(self) -> bool:
        """Whether a service could fetch it, too."""
        return self.remote and self.location.lower().startswith(("http://", "https://"))

    @property
    def video(self) -> str | None:
        """The media type of the video that it is by all that is said of it, None for anything else."""
        return video_type(self.location, self.media_type or (self.place.metadata or {}).get("media_type"))

    @property
    def retryable(self) -> bool:
        """Whether the error may pass by itself."""
        return self.code not in _FOR_GOOD

    @property
    def hides_others(self) -> bool:
        """Whether it stands for a part of its source that could not be looked at."""
        return self.error is not None and self.code in ("unlisted", "bad-row")


def fits(uri: str) -> bool:
    """Whether a URI fits into the tables as it is, as nearly all do; where it is False, `nameable` knows."""
    return uri.isascii() and len(uri) <= _LONGEST_URI and "\0" not in uri


def nameable(candidate: Candidate) -> Candidate:
    """`candidate`, or where its URI does not fit into the tables, one that says so, under a URI that does."""
    place = candidate.place
    if fits(place.uri):
        return candidate
    uri, data = storable(place.uri), place.uri.encode("utf-8", "surrogatepass")
    if len(data) > _LONGEST_URI:
        uri = storable(data[: _LONGEST_URI - 80].decode("utf-8", "ignore")) + f"...{sha256(data).hexdigest()}"
        code, error = "uri-too-long", f"The path is longer than {_LONGEST_URI:,} bytes. Move or rename it."
    elif uri != place.uri:
        code, error = "bad-name", "The URL holds characters that none may hold. Write them percent-encoded."
    else:
        return candidate
    place = replace(place, uri=uri)
    if candidate.error is not None:
        return replace(candidate, place=place)
    # with a fingerprint, so that the next run knows it again
    return replace(candidate, place=replace(place, fingerprint=f"name:{code}"), error=error, code=code)


def is_cut(uri: str) -> bool:
    """Whether a stored URI is but the beginning of one that is too long."""
    beginning, _, digest = uri.rpartition("...")
    return len(digest) == _DIGITS and len(beginning.encode()) > _LONGEST_URI - 2 * 80


def looks_like_a_picture(name: str) -> bool:
    """Whether a name ends as those of pictures do."""
    return Path(name).suffix.lower() in PICTURE_SUFFIXES
