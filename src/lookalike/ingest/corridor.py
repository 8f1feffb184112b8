"""The corridor that every picture walks through, whichever entrance it came by.

::

    walk → known by its fingerprint? → read, hash, check → known by its bytes? claimed? → embed → write → report
    └──────────── the feeder ──────────────────────────────────────────────────────────┘  workers  └ this thread ┘

Queues between the three are bounded, so that memory stays flat however long the walk is. A picture travels as one
`Work`, which holds its bytes' digest, every file that these bytes were found in, and finally its vector: nothing is
ever joined by position. What another process has in hand is put aside and looked at again later. While the database
does not answer, everybody waits.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID, uuid4

from lookalike.embedders import Embedder
from lookalike.errors import (
    BudgetSpent,
    ConfigurationError,
    DatabaseError,
    Interrupted,
    ItemError,
    LookalikeError,
)
from lookalike.ingest.feeder import Feeder
from lookalike.ingest.patience import Patiently
from lookalike.ingest.prepare import Preparation
from lookalike.ingest.sources import Candidate
from lookalike.ingest.work import Done, Tally, ToEmbed, UnderWay, Work
from lookalike.ingest.writer import Writer
from lookalike.reports import IngestReport
from lookalike.store.claims import LEASE_SECONDS, alone, release_all, renew
from lookalike.store.database import Database
from lookalike.store.known import NO_RETRY, Retry
from lookalike.store.runs import begin_run, end_run
from lookalike.store.writing import remove_abandoned
from lookalike.types import Deleted, Embedding, Price

_WRITE_BATCH = 256
_TICK_SECONDS = 0.2
_GATHER_SECONDS = 0.05

_log = logging.getLogger("lookalike.ingest")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Terms:
    """How a run is to go.

    Attributes:
        halt: the event that the embedder waits with; the run sets it as soon as nobody shall go on.
        stop: the caller's; once set, the run ends after what is under way, and reports.
        retry: which failed files are tried again although they have not changed.
        allowed_failures: from the number of files found to the number that may fail without the run counting as failed.
        concurrency: calls under way at once, by default what the embedder's rate needs.
        price: what the service asks, None if nobody has said.
        progress: told a few times a second how far the run is, as the report would read now.
    """

    halt: threading.Event
    stop: threading.Event
    retry: Retry = NO_RETRY
    allowed_failures: Callable[[int], int] = lambda found: 0  # noqa: ARG005
    concurrency: int | None = None
    price: Price | None = None
    progress: Callable[[IngestReport], None] | None = None


@dataclass(slots=True)
class Corridor:
    """One run: candidates go in, a report comes out. Used once.

    Args:
        prune: done at the end of a complete run.
        expected: how many candidates there will be, None while nobody knows.
    """

    database: Database
    embedder: Embedder
    preparation: Preparation
    terms: Terms
    prune: Callable[[], Deleted] | None = None
    expected: Callable[[], int | None] = lambda: None
    worker: UUID = field(default_factory=uuid4)
    patiently: Patiently = field(init=False)
    _tally: Tally = field(default_factory=Tally)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _spent: bool = False
    _error: BaseException | None = None

    def __post_init__(self) -> None:
        self.patiently = Patiently(self.terms.stop, self.database.revive)

    def run(self, batches: Iterable[list[Candidate]], *, command: str) -> IngestReport:
        """Embed and store every candidate that is not known yet.

        Args:
            batches: the candidates, a few hundred at a time; each batch is seen to before the next one is asked for.

        Raises:
            LookalikeError: nothing more could be done with the service or with the database. What was committed before
                stays, and the error's `report` says what that is.
        """
        model, under_way = self.embedder.model, UnderWay()
        run_id = begin_run(self.database, command, model)
        workers = self.terms.concurrency or self.embedder.concurrency
        to_embed: ToEmbed = queue.Queue(maxsize=max(workers, self.embedder.pictures_per_call))
        done: Done = queue.Queue(maxsize=4 * _WRITE_BATCH)
        feeder = Feeder(
            self.database,
            model,
            self.preparation,
            self.terms.retry,
            self.worker,
            self.terms.halt,
            self.patiently,
            self._tally,
            under_way,
            to_embed,
            done,
        )
        writer = Writer(self.database, model, self.patiently, self._tally, under_way, run_id)
        threads = [
            threading.Thread(target=self._guarded, args=(self._embed, to_embed, done), name=f"lookalike-embed-{n}")
            for n in range(workers)
        ]
        threads.append(threading.Thread(target=self._guarded, args=(feeder.run, batches), name="lookalike-feeder"))
        finished = threading.Event()
        heart = threading.Thread(target=self._hold_claims, args=(finished,), name="lookalike-claims", daemon=True)
        try:
            self.patiently(lambda: renew(self.database, self.worker))
            heart.start()
            for thread in threads:
                thread.start()
        except RuntimeError as error:
            self._fail(ConfigurationError(f"The system gives no more threads ({error}). Lower --concurrency."))
            for _ in range(workers):
                to_embed.put(None)  # those that the system did give may end
        writing = True
        while any(thread.is_alive() for thread in threads) or not done.empty():
            try:
                arrived = _drain(
                    done, more=under_way.several
                )  # also when nothing is written any more: nobody may wait for a place in it
                if self.terms.stop.is_set():
                    self.terms.halt.set()
                if writing:
                    writing = False
                    writer.write(arrived)
                    writing = True
                if self.terms.progress is not None:
                    self.terms.progress(self._report())
            except BaseException as error:
                # whatever was answered has been paid for, so only a database that refuses keeps it from being written
                writing = writing or not isinstance(error, LookalikeError)
                self._fail(error)
        finished.set()
        if heart.ident is not None:
            heart.join()
        with suppress(DatabaseError):  # they lapse by themselves
            release_all(self.database, self.worker)
        return self._finish(run_id, writer.abandoned)

    def _finish(self, run_id: int, abandoned: set[UUID]) -> IngestReport:
        error = self._error
        stopped = str(error) or type(error).__name__ if error else None
        if stopped is None and self._spent:
            stopped = "as many calls were billed as were allowed"
        elif stopped is None and self.terms.halt.is_set():
            stopped = "interrupted"
        if stopped is None:
            # Only now is certain that no file on its way belongs to one of them. What earlier runs have left behind
            # goes as well, unless another worker may still come upon it.
            mine = None if self.patiently(lambda: alone(self.database, self.worker)) else sorted(abandoned)
            self.patiently(lambda: remove_abandoned(self.database, mine))
        if stopped is None and self.prune is not None:
            try:
                pruned = self.patiently(self.prune)
                self._tally.add(pruned_files=pruned.files, pruned_images=pruned.images)
            except LookalikeError as refused:
                error, stopped = refused, str(refused)
        report = replace(self._report(), stopped=stopped)
        if self.terms.progress is not None and error is None:
            self.terms.progress(report)
        failed = report.new_failures > self.terms.allowed_failures(report.found)
        exit_code = 2 if isinstance(error, Exception) else 130 if stopped and not self._spent else int(failed)
        try:
            self.patiently(lambda: end_run(self.database, run_id, report, exit_code))
        except LookalikeError:
            if error is None:
                raise
            _log.warning("the end of run %d could not be noted", run_id)
        if error is not None:
            if isinstance(error, LookalikeError):
                error.report = report
            raise error
        return report

    def _embed(self, to_embed: ToEmbed, done: Done) -> None:
        while works := _call_of(to_embed, self.embedder.pictures_per_call):
            if self.terms.halt.is_set():
                continue  # stays pending, and empties the queue for the feeder
            outcomes: Sequence[Embedding | ItemError | None]
            try:
                outcomes = self.embedder.embed_images([work.input for work in works if work.input is not None])
            except BudgetSpent as error:
                self._spent = True
                self.terms.halt.set()
                outcomes = error.answered
            except Interrupted as error:
                outcomes = error.answered
            except LookalikeError as error:
                self._fail(error)
                outcomes = error.answered
            except Exception as error:
                # a fault of ours, but no picture may stop a run of millions
                _log.info("embedding %s failed unexpectedly", works[0].picture.place.uri, exc_info=True)
                unexpected = f"{type(error).__name__}: {error}"
                outcomes = [ItemError("unexpected", unexpected, retryable=True) for _ in works]
            for work, outcome in zip(works, outcomes, strict=False):
                if outcome is not None:
                    work.outcome, work.input = outcome, None
                    done.put(work)

    def _hold_claims(self, finished: threading.Event) -> None:
        while not finished.wait(LEASE_SECONDS / 4):
            with suppress(DatabaseError):
                renew(self.database, self.worker)

    def _report(self) -> IngestReport:
        usage = self.embedder.usage
        tally = self._tally.copy()
        return IngestReport(
            model=self.embedder.model.name,
            found=tally.found,
            expected=self.expected(),
            embedded=tally.embedded,
            unchanged=tally.unchanged,
            failed=tally.failed,
            unsupported=tally.unsupported,
            pending=tally.found - tally.finished,
            new_failures=tally.new_failures,
            calls=usage.calls,
            retries=usage.retries,
            tokens=usage.tokens,
            adapted=tally.adapted,
            pruned_files=tally.pruned_files,
            pruned_images=tally.pruned_images,
            rate=self.embedder.rate,
            achieved_rate=usage.calls / tally.seconds if tally.seconds else 0.0,
            price=self.terms.price.of(usage) if self.terms.price else None,
            currency=self.terms.price.currency if self.terms.price else None,
            seconds=tally.seconds,
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
        self.terms.halt.set()
        self.patiently.hopeless.set()


def _call_of(to_embed: ToEmbed, most: int) -> list[Work]:
    """The next work, with as much more as waits already and one call may hold; empty at the end."""
    works: list[Work] = []
    if (work := to_embed.get()) is not None:
        works.append(work)
        with suppress(queue.Empty):
            while len(works) < most:
                if (work := to_embed.get_nowait()) is None:
                    to_embed.put(None)  # it ends this worker, or another one, next time
                    break
                works.append(work)
    return works


def _drain(done: queue.Queue[_T], *, more: Callable[[], bool]) -> list[_T]:
    """Whatever has arrived, after waiting a while for the first: each commit takes all there is.

    Args:
        more: whether others are close behind it. They are waited for a moment, as a commit costs much more than a row.
    """
    items: list[_T] = []
    try:
        items.append(done.get(timeout=_TICK_SECONDS))
        if done.qsize() < _WRITE_BATCH and more():
            time.sleep(_GATHER_SECONDS)
        while len(items) < _WRITE_BATCH:
            items.append(done.get_nowait())
    except queue.Empty:
        pass
    return items
