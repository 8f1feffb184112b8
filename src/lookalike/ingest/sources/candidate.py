"""What every source gives: files to look at, one after another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from lookalike.pictures.check import PICTURE_SUFFIXES
from lookalike.store.writing import Place


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
    others: tuple[Candidate, ...] = ()

    @property
    def by_url(self) -> bool:
        """Whether a service could fetch it, too."""
        return self.remote and self.location.lower().startswith(("http://", "https://"))


def looks_like_a_picture(name: str) -> bool:
    """Whether a name ends as those of pictures do."""
    return Path(name).suffix.lower() in PICTURE_SUFFIXES
