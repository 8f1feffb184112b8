"""The corridor that every picture walks through, whichever entrance it came by.

::

    walk → known by its fingerprint? → read, hash, check → known by its bytes? → embed → write → report
    └──────────── the feeder ─────────────────────────────────────────────────┘  workers  └ this thread ┘

Queues between the three are bounded, so that memory stays flat however long the walk is. A picture travels as one
`_Work`, which holds its bytes' digest, every file that these bytes were found in, and finally its vector: nothing is
ever joined by position.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar
from uuid import UUID

from lookalike.embedders import Embedder
from lookalike.errors import ConfigurationError, Interrupted, ItemError, LookalikeError
from lookalike.ingest.prepare import Picture, prepare
from lookalike.ingest.sources import Candidate
from lookalike.store.database import Database
from lookalike.store.writing import (
    NewFailure,
    NewFile,
    Place,
    Retry,
    Written,
    begin_run,
    end_run,
    known_contents,
    known_places,
    record_failures,
    remove_abandoned,
    write_files,
)
from lookalike.types import Content, Embedding, ImageInput, IngestReport

_WALK_BATCH = 256
_READ_BATCH = 16
_WRITE_BATCH = 256
_TICK_SECONDS = 0.2

_log = logging.getLogger("lookalike.ingest")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Known:
    """The outcome of a picture whose bytes are embedded already."""


@dataclass(slots=True)
class _Work:
    """One picture on its way, with every file that its bytes were found in so far."""

    content: Content
    places: list[Place]
    data: bytes = b""
    outcome: Embedding | ItemError | _Known | None = None


@dataclass(slots=True)
class _Tally:
    found: int = 0
    embedded: int = 0
    unchanged: int = 0
    failed: int = 0
    unsupported: int = 0
    new_failures: int = 0
    first_read: float | None = None
    last_commit: float | None = None


@dataclass(slots=True)
class Corridor:
    """One run: candidates go in, a report comes out. Used once.

    Args:
        halt: the event that the embedder waits with; set here as soon as nobody shall go on.
        stop: the caller's; once set, the run ends after what is under way, and reports.
        retry: which failed files are tried again although they have not changed.
        progress: told a few times a second how far the run is, as the report would read now.
    """

    database: Database
    embedder: Embedder
    halt: threading.Event
    stop: threading.Event
    retry: Retry
    concurrency: int | None = None
    progress: Callable[[IngestReport], None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tally: _Tally = field(default_factory=_Tally)
    _in_flight: dict[bytes, _Work] = field(default_factory=dict)
    _abandoned: set[UUID] = field(default_factory=set)
    _error: BaseException | None = None

    def run(self, candidates: Iterable[Candidate], *, command: str) -> IngestReport:
        """Embed and store every candidate that is not known yet.

        Raises:
            LookalikeError: nothing more could be done with the service or with the database. What was committed before
                stays, and the error's `report` says what that is.
        """
        run_id = begin_run(self.database, command, self.embedder.model)
        workers = self.concurrency or self.embedder.concurrency
        to_embed: queue.Queue[_Work | None] = queue.Queue(maxsize=workers)
        done: queue.Queue[_Work | NewFailure] = queue.Queue(maxsize=4 * _WRITE_BATCH)
        threads = [
            threading.Thread(target=self._guarded, args=(self._embed, to_embed, done), name=f"lookalike-embed-{n}")
            for n in range(workers)
        ]
        feeding = (self._feed, candidates, to_embed, done)
        threads.append(threading.Thread(target=self._guarded, args=feeding, name="lookalike-feeder"))
        try:
            for thread in threads:
                thread.start()
        except RuntimeError as error:
            self._fail(ConfigurationError(f"The system gives no more threads ({error}). Lower --concurrency."))
            for _ in range(workers):
                to_embed.put(None)  # those that the system did give may end
        writing = True
        while any(thread.is_alive() for thread in threads) or not done.empty():
            try:
                arrived = _drain(done)  # also when nothing is written any more: nobody may wait for a place in it
                if self.stop.is_set():
                    self.halt.set()
                if writing:
                    writing = False
                    self._write(arrived)
                    writing = True
                if self.progress is not None:
                    self.progress(self._report())
            except BaseException as error:
                # whatever was answered has been paid for, so only a database that refuses keeps it from being written
                writing = writing or not isinstance(error, LookalikeError)
                self._fail(error)
        return self._finish(run_id)

    def _finish(self, run_id: int) -> IngestReport:
        error = self._error
        stopped = str(error) or type(error).__name__ if error else "interrupted" if self.halt.is_set() else None
        if stopped is None and self._abandoned:
            # only now is certain that no file on its way belongs to one of them
            remove_abandoned(self.database, sorted(self._abandoned))
        report = replace(self._report(), stopped=stopped)
        if self.progress is not None and error is None:
            self.progress(report)
        exit_code = 2 if error else 130 if stopped else int(report.new_failures > 0)
        counts = {
            name: getattr(report, name)
            for name in ("found", "embedded", "unchanged", "failed", "unsupported", "pending", "new_failures")
        }
        try:
            end_run(self.database, run_id, counts, report.calls, exit_code)
        except LookalikeError:
            if error is None:
                raise
            _log.warning("the end of run %d could not be noted", run_id)
        if error is not None:
            if isinstance(error, LookalikeError):
                error.report = report
            raise error
        return report

    # -- the feeder ---------------------------------------------------------------------------------------------

    def _feed(
        self,
        candidates: Iterable[Candidate],
        to_embed: queue.Queue[_Work | None],
        done: queue.Queue[_Work | NewFailure],
    ) -> None:
        try:
            with ThreadPoolExecutor(4, thread_name_prefix="lookalike-read") as readers:
                for batch in _batched(candidates, _WALK_BATCH):
                    for few in _batched(self._unknown(batch), _READ_BATCH):
                        if self.halt.is_set():
                            return
                        self._tally.first_read = self._tally.first_read or time.monotonic()
                        pictures = []
                        for prepared in readers.map(lambda candidate: prepare(candidate, self.embedder.limits), few):
                            match prepared:
                                case Picture():
                                    pictures.append(prepared)
                                case NewFailure():
                                    done.put(prepared)
                                case None:
                                    self._count(unsupported=1)
                        for work in self._admit(pictures):
                            if work.outcome is None:
                                to_embed.put(work)
                            else:
                                done.put(work)
                    if self.halt.is_set():
                        return
        finally:
            for _ in range(to_embed.maxsize):  # as many as there are workers
                to_embed.put(None)

    def _unknown(self, batch: list[Candidate]) -> Iterator[Candidate]:
        """Those of a batch that must be read."""
        self._count(found=len(batch))
        places = [candidate.place for candidate in batch]
        known = known_places(self.database, self.embedder.model, places, self.retry)
        for candidate in batch:
            match known.get(candidate.place.uri):
                case "embedded":
                    self._count(unchanged=1)
                case "failed":
                    self._count(failed=1)
                case None:
                    yield candidate

    def _admit(self, pictures: list[Picture]) -> list[_Work]:
        """New work for those pictures whose bytes are not under way; the others join the one that is.

        Being under way is claimed before the database is asked, and given up after the commit, so that no bytes can
        slip through between the two and be paid for twice.
        """
        fresh = []
        with self._lock:
            for picture in pictures:
                under_way = self._in_flight.get(picture.content.sha256)
                if under_way is not None:
                    under_way.places.append(picture.place)
                    continue
                work = _Work(picture.content, [picture.place], picture.data)
                self._in_flight[picture.content.sha256] = work
                fresh.append(work)
        if fresh:
            known = known_contents(self.database, self.embedder.model, [work.content.sha256 for work in fresh])
            for work in fresh:
                if work.content.sha256 in known:
                    work.outcome, work.data = _Known(), b""
        return fresh

    # -- the workers --------------------------------------------------------------------------------------------

    def _embed(self, to_embed: queue.Queue[_Work | None], done: queue.Queue[_Work | NewFailure]) -> None:
        while (work := to_embed.get()) is not None:
            if self.halt.is_set():
                continue  # stays pending, and empties the queue for the feeder
            try:
                (work.outcome,) = self.embedder.embed_images([ImageInput(data=work.data)])
            except Interrupted:
                continue
            except LookalikeError as error:
                self._fail(error)
                continue
            except Exception as error:
                # a fault of ours, but no picture may stop a run of millions
                _log.warning("embedding %s failed unexpectedly", work.places[0].uri, exc_info=True)
                work.outcome = ItemError("unexpected", f"{type(error).__name__}: {error}", retryable=True)
            work.data = b""
            done.put(work)

    # -- the writer ---------------------------------------------------------------------------------------------

    def _write(self, arrived: list[_Work | NewFailure]) -> None:
        """Commit what has arrived, and what joined it meanwhile."""
        while arrived:
            files: list[NewFile] = []
            failures: list[NewFailure] = []
            written: list[tuple[_Work, int]] = []
            for item in arrived:
                if isinstance(item, NewFailure):
                    failures.append(item)
                    continue
                with self._lock:
                    places = list(item.places)
                written.append((item, len(places)))
                match item.outcome:
                    case ItemError() as error:
                        failed = NewFailure(
                            *(places[0], "embed", error.code, str(error), error.retryable),
                            request_id=error.request_id,
                            content=item.content,
                        )
                        failures += [replace(failed, place=place) for place in places]
                    case Embedding() as embedding:
                        files += [NewFile(place, item.content, embedding) for place in places]
                    case _:
                        files += [NewFile(place, item.content) for place in places]
            outcome = write_files(self.database, self.embedder.model, files) if files else Written()
            self._abandoned.update(outcome.abandoned)
            new_failures = record_failures(self.database, self.embedder.model, failures) if failures else 0
            self._tally.last_commit = time.monotonic()
            embedded = sum(isinstance(work.outcome, Embedding) for work, _ in written)
            self._count(
                embedded=embedded,
                unchanged=len(files) - embedded - outcome.unembedded,
                failed=len(failures),
                new_failures=new_failures,
            )
            arrived = self._release(written)

    def _release(self, written: list[tuple[_Work, int]]) -> list[_Work | NewFailure]:
        """Give up the claims on what was written; returns work for files that joined after it was collected."""
        late: list[_Work | NewFailure] = []
        with self._lock:
            for work, count in written:
                self._in_flight.pop(work.content.sha256, None)
                if len(work.places) > count:
                    outcome = work.outcome if isinstance(work.outcome, ItemError) else _Known()
                    late.append(_Work(work.content, work.places[count:], outcome=outcome))
        return late

    # -- keeping count ------------------------------------------------------------------------------------------

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(self._tally, name, getattr(self._tally, name) + number)

    def _report(self) -> IngestReport:
        usage = self.embedder.usage
        with self._lock:
            tally = replace(self._tally)
        finished = tally.embedded + tally.unchanged + tally.failed + tally.unsupported
        return IngestReport(
            model=self.embedder.model.name,
            found=tally.found,
            embedded=tally.embedded,
            unchanged=tally.unchanged,
            failed=tally.failed,
            unsupported=tally.unsupported,
            pending=tally.found - finished,
            new_failures=tally.new_failures,
            calls=usage.calls,
            retries=usage.retries,
            seconds=(tally.last_commit - tally.first_read) if tally.last_commit and tally.first_read else 0.0,
        )

    def _guarded(self, target: Callable[..., None], *arguments: object) -> None:
        try:
            target(*arguments)
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Remember the first error, which is the one to report, and stop everybody."""
        with self._lock:
            self._error = self._error or error
        self.halt.set()


def _drain(done: queue.Queue[_T]) -> list[_T]:
    """Whatever has arrived, after waiting a moment for the first: each commit takes all there is."""
    items: list[_T] = []
    try:
        items.append(done.get(timeout=_TICK_SECONDS))
        while len(items) < _WRITE_BATCH:
            items.append(done.get_nowait())
    except queue.Empty:
        pass
    return items


def _batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
