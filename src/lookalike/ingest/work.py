"""What travels through the corridor, and the two things that its threads share: what is under way, and the count."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from itertools import islice
from queue import Queue
from typing import TypeAlias
from uuid import UUID

from lookalike.errors import ItemError
from lookalike.ingest.prepare import Picture
from lookalike.ingest.sources import Candidate
from lookalike.store.writing import NewFailure, Place, PlaceName
from lookalike.types import Embedding, ImageInput

MOST_JOINED = 4096
"""Files that one picture on its way takes along; whoever has more waits until they are written."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The outcome of a picture whose bytes are embedded already."""


@dataclass(slots=True)
class Work:
    """One picture on its way, with every file that its bytes were found in so far.

    Attributes:
        rows: how often it was come upon; a table may name a file many times.
        input: what is to be sent, until it has been.
        outcome: None until there is one.
    """

    picture: Picture
    files: dict[PlaceName, tuple[Candidate, Place]]
    rows: int = 1
    input: ImageInput | None = None
    outcome: Embedding | ItemError | Embedded | None = None

    @property
    def image_id(self) -> UUID:
        """The image that it is, if that is new."""
        return self.picture.image_id


@dataclass(frozen=True, slots=True)
class Told:
    """A file that is as it was, but of which its source says something new."""

    place: Place


Finished: TypeAlias = Work | NewFailure | Told
"""What the writer writes."""

ToEmbed: TypeAlias = "Queue[Work | None]"
Done: TypeAlias = "Queue[Finished]"


@dataclass(slots=True)
class Tally:
    """How many files fared how. `add` and `copy` from any thread."""

    found: int = 0
    embedded: int = 0
    unchanged: int = 0
    failed: int = 0
    unsupported: int = 0
    new_failures: int = 0
    adapted: int = 0
    pruned_files: int = 0
    pruned_images: int = 0
    first_read: float | None = None
    last_commit: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, **more: int) -> None:
        """Add to some of the numbers, all at once."""
        with self._lock:
            for name, number in more.items():
                setattr(self, name, getattr(self, name) + number)

    def copy(self) -> Tally:
        """The numbers as they are together now."""
        with self._lock:
            return replace(self)

    @property
    def finished(self) -> int:
        """Files that have reached their end."""
        return self.embedded + self.unchanged + self.failed + self.unsupported

    @property
    def seconds(self) -> float:
        """From the first picture read to the last commit."""
        return self.last_commit - self.first_read if self.last_commit and self.first_read else 0.0


class UnderWay:
    """The pictures that are between reading and commit, so that the same bytes are not sent twice. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._works: dict[UUID, Work] = {}

    def several(self) -> bool:
        """Whether there is more than one of them."""
        return len(self._works) > 1

    def admit(self, candidate: Candidate, picture: Picture, halt: threading.Event) -> Work | None:
        """New work, or None where the file has joined the same picture on its way.

        Waits while too many files have, until `halt` is set.
        """
        name = picture.place.name
        while True:
            with self._lock:
                work = self._works.get(picture.image_id)
                if work is None:
                    work = Work(picture, {name: (candidate, picture.place)}, input=picture.input)
                    self._works[picture.image_id] = work
                    return work
                if len(work.files) < MOST_JOINED or name in work.files or halt.is_set():
                    work.rows += 1
                    work.files[name] = candidate, picture.place  # what a table says last counts
                    return None
            time.sleep(0.05)

    def withdraw(self, work: Work) -> list[Candidate]:
        """Give up work that is not ours to do; returns the files that it was found in."""
        with self._lock:
            del self._works[work.image_id]
            return [candidate for candidate, _ in work.files.values()]

    def places(self, work: Work) -> tuple[list[Place], int]:
        """The files that work was found in so far, and how often it was come upon."""
        with self._lock:
            return [place for _, place in work.files.values()], work.rows

    def release(self, work: Work, places: int, rows: int) -> Work | None:
        """Take written work off; what joined it after it had so many places and rows is returned as further work.

        Further rows without a further place need no writing: their work has no files.
        """
        with self._lock:
            if self._works.get(work.image_id) is work:
                del self._works[work.image_id]
            if work.rows == rows:
                return None
            joined = dict(islice(work.files.items(), places, None))
            outcome = work.outcome if isinstance(work.outcome, ItemError) else Embedded()
            return Work(work.picture, joined, work.rows - rows, outcome=outcome)
