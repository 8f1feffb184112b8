"""The first part of the corridor: finds out what must be read, reads it, and claims what must be embedded."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import TypeAlias, TypeVar
from uuid import UUID

from lookalike.ingest.patience import Patiently
from lookalike.ingest.prepare import Picture, Preparation, Unchanged
from lookalike.ingest.sources import Candidate
from lookalike.ingest.texts import Texts, is_new
from lookalike.ingest.work import Done, Embedded, Tally, ToEmbed, Told, UnderWay, Work
from lookalike.store.claims import Wanted, claim, in_other_hands
from lookalike.store.database import Database
from lookalike.store.known import Known, Retry, known_places
from lookalike.store.writing import NewFailure
from lookalike.types import Model

_READERS = 4
_DECODERS = min(_READERS, max(2, os.cpu_count() or 1))
"""Readers of local files: more than there are processors would only be in each other's way."""

_READ_BATCH = 16
_MOST_ASIDE = 4096
_TICK_SECONDS = 0.2
_LOOK_AGAIN_SECONDS = 1.0

_T = TypeVar("_T")
_Unknown: TypeAlias = tuple[Candidate, Known | None, str | None]


@dataclass(slots=True)
class Feeder:
    """Takes candidates to where they are sent or written. One thread runs it, with a few more that read.

    Args:
        worker: in whose name pictures are claimed.
        to_embed: where work goes that must be paid for; a None for each worker ends it.
        done: where everything else goes.
    """

    database: Database
    model: Model
    preparation: Preparation
    retry: Retry
    worker: UUID
    halt: threading.Event
    patiently: Patiently
    tally: Tally
    under_way: UnderWay
    to_embed: ToEmbed
    done: Done
    _texts: Texts = field(init=False)
    _aside: deque[tuple[Candidate, UUID]] = field(default_factory=deque)
    _looked_again: float = 0.0

    def __post_init__(self) -> None:
        self._texts = Texts(self.database, self.preparation.with_text, self.patiently)

    def run(self, batches: Iterable[list[Candidate]]) -> None:
        """Take every candidate of every batch as far as it goes here, until `halt` is set."""
        try:
            with self._texts, ThreadPoolExecutor(_READERS, thread_name_prefix="lookalike-read") as readers:
                for batch in batches:
                    self.tally.add(found=len(batch))
                    self._advance(batch, readers)
                    self._look_again(readers)
                    while len(self._aside) > _MOST_ASIDE and not self.halt.wait(_TICK_SECONDS):
                        self._look_again(readers)
                    if self.halt.is_set():
                        return
                while self._aside and not self.halt.wait(_TICK_SECONDS):
                    self._look_again(readers)
        finally:
            for _ in range(self.to_embed.maxsize):  # at least as many as there are workers
                self.to_embed.put(None)

    def _advance(self, batch: list[Candidate], readers: ThreadPoolExecutor) -> None:
        """Read what must be read, and hand on what must be embedded or written."""
        # no more at once than is needed soon: what is claimed waits for nobody else
        ahead = min(max(self.to_embed.maxsize, _READERS), _READ_BATCH)
        for few in batched(self._unknown(batch), ahead):
            if self.halt.is_set():
                return
            self.tally.first_read = self.tally.first_read or time.monotonic()
            pictures = []
            for (candidate, known, _), outcome in zip(few, self._prepared(few, readers), strict=True):
                match outcome:
                    case Picture() if known is not None and known.unseen:
                        # embedded by its URL; now its bytes have turned up
                        files = {outcome.place.name: (candidate, outcome.place)}
                        self.done.put(Work(outcome, files, outcome=Embedded()))
                    case Picture():
                        pictures.append((candidate, outcome))
                    case NewFailure():
                        self.done.put(outcome)
                    case Unchanged():
                        assert known is not None
                        self._settle(candidate, known)
            self._admit(pictures)

    def _prepared(self, few: list[_Unknown], readers: ThreadPoolExecutor) -> Iterator[Picture | NewFailure | Unchanged]:
        """What becomes of a few candidates, in their order, up to the first with which the run cannot go on.

        Each reader takes the next one when it has done with one. If they were handed out and back one at a time,
        threads would be woken twice for each picture, which costs as much as a good part of reading a small one.
        """
        outcomes: dict[int, Picture | NewFailure | Unchanged] = {}
        left = iter(range(len(few)))  # which all of them draw from

        def read() -> None:
            for number in left:
                candidate, _, fingerprint = few[number]
                outcomes[number] = self.preparation.prepare(candidate, fingerprint)

        most = _READERS if any(candidate.remote for candidate, _, _ in few) else _DECODERS
        readings = [readers.submit(read) for _ in range(min(most, len(few)))]
        wait(readings)
        yield from (outcomes[number] for number in takewhile(outcomes.__contains__, range(len(few))))
        for reading in readings:
            reading.result()

    def _unknown(self, batch: list[Candidate]) -> Iterator[_Unknown]:
        """Those of a batch that must be read, with what is stored of them, and with their fingerprint when they were
        last read if only reading can tell whether they have changed."""
        batch = self._texts.told(batch)
        places = [candidate.place for candidate in batch]
        stored = self.patiently(lambda: known_places(self.database, self.model, places, self.retry))
        for candidate in batch:
            known = stored.get(candidate.place.name)
            if known is None or is_new(candidate, known):
                yield candidate, None, None
            elif self.preparation.is_unseen(candidate):
                self._settle(candidate, known)
            elif self.preparation.exif and not known.has_exif:
                yield candidate, known, None
            elif candidate.place.fingerprint is None:
                yield candidate, known, known.fingerprint
            elif candidate.place.fingerprint == known.fingerprint:
                self._settle(candidate, known)
            else:
                yield candidate, known, None

    def _settle(self, candidate: Candidate, known: Known) -> None:
        """Count a file that is as it was, and see to it that what its source says of it is stored."""
        match known.state:
            case "embedded" if known.told:
                self.tally.add(unchanged=1)
            case "embedded":
                self.done.put(Told(candidate.place))
            case "failed":
                self.tally.add(failed=1)
            case "unsupported":
                self.tally.add(unsupported=1)

    def _admit(self, pictures: list[tuple[Candidate, Picture]]) -> None:
        """Hand on those pictures whose bytes are not under way; the others have joined the one that is.

        Being under way is noted before the database is asked, and given up after the commit, so that no bytes can slip
        through between the two and be paid for twice. What another process has claimed is put aside.
        """
        admitted = (self.under_way.admit(candidate, picture, self.halt) for candidate, picture in pictures)
        fresh = [work for work in admitted if work is not None]
        if not fresh:
            return
        wanted = [_wanted(work) for work in fresh]
        claimed = self.patiently(lambda: claim(self.database, self.model, self.worker, wanted))
        for work in fresh:
            match claimed.get(work.image_id):
                case "mine":
                    self.to_embed.put(work)
                case "embedded":
                    work.outcome, work.input = Embedded(), None
                    self.done.put(work)
                case None:
                    candidates = self.under_way.withdraw(work)
                    # rows of a table that name the file once more are settled here, the file itself later
                    self.tally.add(unchanged=work.rows - len(candidates))
                    self._aside += [(candidate, work.image_id) for candidate in candidates]

    def _look_again(self, readers: ThreadPoolExecutor) -> None:
        """Take up what was put aside, once nobody else has it in hand any more."""
        now = time.monotonic()
        if not self._aside or now - self._looked_again < _LOOK_AGAIN_SECONDS:
            return
        self._looked_again = now
        aside, self._aside = list(self._aside), deque()
        images = [image_id for _, image_id in aside]
        taken = self.patiently(lambda: in_other_hands(self.database, self.model, self.worker, images))
        self._aside += [one for one in aside if one[1] in taken]
        self._advance([candidate for candidate, image_id in aside if image_id not in taken], readers)


def _wanted(work: Work) -> Wanted:
    candidate, place = next(iter(work.files.values()))
    content = work.picture.content
    text = None if candidate.repeats else work.picture.input.text
    return Wanted(work.image_id, content.sha256 if content is not None else None, place.name, text)


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
