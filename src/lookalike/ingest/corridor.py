"""The corridor that every picture walks through, whichever entrance it came by.

::

    walk → known by its fingerprint? → read, hash, check → known by its bytes? claimed? → embed → write → report
    └──────────── the feeder ──────────────────────────────────────────────────────────┘  workers  └ this thread ┘

Queues between the three are bounded, so that memory stays flat however long the walk is. A picture travels as one
`_Work`, which holds its bytes' digest, every file that these bytes were found in, and finally its vector: nothing is
ever joined by position. What another process has in hand is put aside and looked at again later. While the database
does not answer, everybody waits.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
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
from lookalike.ingest.patience import Patiently
from lookalike.ingest.prepare import Picture, Preparation, Unchanged
from lookalike.ingest.sources import Candidate
from lookalike.store.claims import LEASE_SECONDS, claim, in_other_hands, release_all, renew
from lookalike.store.database import Database
from lookalike.store.writing import (
    NO_RETRY,
    UNSUPPORTED,
    Known,
    NewFailure,
    NewFile,
    Place,
    PlaceName,
    Retry,
    begin_run,
    end_run,
    known_places,
    record_failures,
    remove_abandoned,
    tell,
    write_files,
)
from lookalike.types import Deleted, Embedding, ImageInput, IngestReport, Price

_READERS = 4
_READ_BATCH = 16
_WRITE_BATCH = 256
_MOST_ASIDE = 4096
_MOST_JOINED = 4096
_TICK_SECONDS = 0.2
_LOOK_AGAIN_SECONDS = 1.0

_log = logging.getLogger("lookalike.ingest")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Known:
    """The outcome of a picture whose bytes are embedded already."""


@dataclass(slots=True)
class _Work:
    """One picture on its way, with every file that its bytes were found in so far.

    Attributes:
        rows: how often it was come upon; a table may name a file many times.
    """

    picture: Picture
    files: dict[PlaceName, tuple[Candidate, Place]]
    rows: int = 1
    input: ImageInput | None = None
    outcome: Embedding | ItemError | _Known | None = None

    @property
    def image_id(self) -> UUID:
        return self.picture.image_id


@dataclass(frozen=True, slots=True)
class _Told:
    """A file that is as it was, but of which the source says something new."""

    place: Place


@dataclass(slots=True)
class _Tally:
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


@dataclass(slots=True)
class Corridor:
    """One run: candidates go in, a report comes out. Used once.

    Args:
        halt: the event that the embedder waits with; set here as soon as nobody shall go on.
        stop: the caller's; once set, the run ends after what is under way, and reports.
        retry: which failed files are tried again although they have not changed.
        allowed_failures: from the number of files found to the number that may fail without the run counting as failed.
        price: what the service asks, None if nobody has said.
        prune: done at the end of a complete run.
        expected: how many candidates there will be, None while nobody knows.
        progress: told a few times a second how far the run is, as the report would read now.
    """

    database: Database
    embedder: Embedder
    preparation: Preparation
    halt: threading.Event
    stop: threading.Event
    retry: Retry = NO_RETRY
    allowed_failures: Callable[[int], int] = lambda found: 0  # noqa: ARG005
    price: Price | None = None
    prune: Callable[[], Deleted] | None = None
    expected: Callable[[], int | None] = lambda: None
    concurrency: int | None = None
    progress: Callable[[IngestReport], None] | None = None
    worker: UUID = field(default_factory=uuid4)
    patiently: Patiently = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tally: _Tally = field(default_factory=_Tally)
    _in_flight: dict[UUID, _Work] = field(default_factory=dict)
    _aside: deque[tuple[Candidate, UUID]] = field(default_factory=deque)
    _looked_again: float = 0.0
    _abandoned: set[UUID] = field(default_factory=set)
    _spent: bool = False
    _error: BaseException | None = None

    def __post_init__(self) -> None:
        self.patiently = Patiently(self.stop)

    def run(self, batches: Iterable[list[Candidate]], *, command: str) -> IngestReport:
        """Embed and store every candidate that is not known yet.

        Args:
            batches: the candidates, a few hundred at a time; each batch is seen to before the next one is asked for.

        Raises:
            LookalikeError: nothing more could be done with the service or with the database. What was committed before
                stays, and the error's `report` says what that is.
        """
        run_id = begin_run(self.database, command, self.embedder.model)
        workers = self.concurrency or self.embedder.concurrency
        to_embed: queue.Queue[_Work | None] = queue.Queue(maxsize=workers)
        done: queue.Queue[_Work | NewFailure | _Told] = queue.Queue(maxsize=4 * _WRITE_BATCH)
        threads = [
            threading.Thread(target=self._guarded, args=(self._embed, to_embed, done), name=f"lookalike-embed-{n}")
            for n in range(workers)
        ]
        feeding = (self._feed, batches, to_embed, done)
        threads.append(threading.Thread(target=self._guarded, args=feeding, name="lookalike-feeder"))
        finished = threading.Event()
        heart = threading.Thread(target=self._hold_claims, args=(finished,), name="lookalike-claims", daemon=True)
        try:
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
        finished.set()
        if heart.ident is not None:
            heart.join()
        with suppress(DatabaseError):  # they lapse by themselves
            release_all(self.database, self.worker)
        return self._finish(run_id)

    def _finish(self, run_id: int) -> IngestReport:
        error = self._error
        stopped = str(error) or type(error).__name__ if error else None
        if stopped is None and self._spent:
            stopped = "as many calls were billed as were allowed"
        elif stopped is None and self.halt.is_set():
            stopped = "interrupted"
        if stopped is None and self._abandoned:
            # only now is certain that no file on its way belongs to one of them
            self.patiently(lambda: remove_abandoned(self.database, sorted(self._abandoned)))
        if stopped is None and self.prune is not None:
            try:
                pruned = self.patiently(self.prune)
                self._tally.pruned_files, self._tally.pruned_images = pruned.files, pruned.images
            except LookalikeError as refused:
                error, stopped = refused, str(refused)
        report = replace(self._report(), stopped=stopped)
        if self.progress is not None and error is None:
            self.progress(report)
        failed = report.new_failures > self.allowed_failures(report.found)
        exit_code = 2 if error else 130 if stopped and not self._spent else int(failed)
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

    # -- the feeder ---------------------------------------------------------------------------------------------

    def _feed(
        self,
        batches: Iterable[list[Candidate]],
        to_embed: queue.Queue[_Work | None],
        done: queue.Queue[_Work | NewFailure | _Told],
    ) -> None:
        try:
            with ThreadPoolExecutor(_READERS, thread_name_prefix="lookalike-read") as readers:
                for batch in batches:
                    self._count(found=len(batch))
                    self._advance(batch, readers, to_embed, done)
                    self._look_again(readers, to_embed, done)
                    while len(self._aside) > _MOST_ASIDE and not self.halt.wait(_TICK_SECONDS):
                        self._look_again(readers, to_embed, done)
                    if self.halt.is_set():
                        return
                while self._aside and not self.halt.wait(_TICK_SECONDS):
                    self._look_again(readers, to_embed, done)
        finally:
            for _ in range(to_embed.maxsize):  # as many as there are workers
                to_embed.put(None)

    def _advance(
        self,
        batch: list[Candidate],
        readers: ThreadPoolExecutor,
        to_embed: queue.Queue[_Work | None],
        done: queue.Queue[_Work | NewFailure | _Told],
    ) -> None:
        """Read what must be read, and hand on what must be embedded or written."""
        # no more at once than is needed soon: what is claimed waits for nobody else
        ahead = min(max(to_embed.maxsize, _READERS), _READ_BATCH)
        for few in batched(self._unknown(batch, done), ahead):
            if self.halt.is_set():
                return
            self._tally.first_read = self._tally.first_read or time.monotonic()
            pictures = []
            outcomes = readers.map(lambda one: self.preparation.prepare(one[0], one[2]), few)
            for (candidate, known, _), outcome in zip(few, outcomes, strict=True):
                match outcome:
                    case Picture() if known is not None and known.unseen:
                        # embedded by its URL; now its bytes have turned up
                        files = {outcome.place.name: (candidate, outcome.place)}
                        done.put(_Work(outcome, files, outcome=_Known()))
                    case Picture():
                        pictures.append((candidate, outcome))
                    case NewFailure():
                        done.put(outcome)
                    case Unchanged():
                        assert known is not None
                        self._settle(candidate, known, done)
            for work in self._admit(pictures):
                if work.outcome is None:
                    to_embed.put(work)
                else:
                    done.put(work)

    def _unknown(
        self, batch: list[Candidate], done: queue.Queue[_Work | NewFailure | _Told]
    ) -> Iterator[tuple[Candidate, Known | None, str | None]]:
        """Those of a batch that must be read, with what is stored of them, and with their fingerprint when they were
        last read if only reading can tell whether they have changed."""
        places = [candidate.place for candidate in batch]
        stored = self.patiently(lambda: known_places(self.database, self.embedder.model, places, self.retry))
        for candidate in batch:
            known = stored.get(candidate.place.name)
            if known is None or (self.preparation.exif and not known.has_exif):
                yield candidate, known, None
            elif self.preparation.send_urls and candidate.by_url:
                self._settle(candidate, known, done)
            elif candidate.place.fingerprint is None:
                yield candidate, known, known.fingerprint
            elif candidate.place.fingerprint == known.fingerprint:
                self._settle(candidate, known, done)
            else:
                yield candidate, known, None

    def _settle(self, candidate: Candidate, known: Known, done: queue.Queue[_Work | NewFailure | _Told]) -> None:
        """Count a file that is as it was, and see to it that what its source says of it is stored."""
        match known.state:
            case "embedded" if known.told:
                self._count(unchanged=1)
            case "embedded":
                done.put(_Told(candidate.place))
            case "failed":
                self._count(failed=1)
            case "unsupported":
                self._count(unsupported=1)

    def _admit(self, pictures: list[tuple[Candidate, Picture]]) -> list[_Work]:
        """New work for those pictures whose bytes are not under way; the others join the one that is.

        Being under way is claimed before the database is asked, and given up after the commit, so that no bytes can
        slip through between the two and be paid for twice. What another process has claimed is put aside.
        """
        fresh = []
        for candidate, picture in pictures:
            while self._is_crowded(picture.image_id) and not self.halt.wait(_TICK_SECONDS):
                pass
            with self._lock:
                under_way = self._in_flight.get(picture.image_id)
                if under_way is not None:
                    under_way.rows += 1
                    under_way.files.setdefault(picture.place.name, (candidate, picture.place))
                    continue
                files = {picture.place.name: (candidate, picture.place)}
                work = _Work(picture, files, input=picture.input)
                self._in_flight[picture.image_id] = work
                fresh.append(work)
        if not fresh:
            return []
        digests = {w.image_id: w.picture.content.sha256 if w.picture.content else None for w in fresh}
        claimed = self.patiently(lambda: claim(self.database, self.embedder.model, self.worker, digests))
        admitted = []
        for work in fresh:
            match claimed.get(work.image_id):
                case "mine":
                    admitted.append(work)
                case "embedded":
                    work.outcome, work.input = _Known(), None
                    admitted.append(work)
                case None:
                    with self._lock:
                        del self._in_flight[work.image_id]
                        # rows of a table that name the file once more are settled here, the file itself later
                        self._tally.unchanged += work.rows - len(work.files)
                    self._aside += [(candidate, work.image_id) for candidate, _ in work.files.values()]
        return admitted

    def _is_crowded(self, image_id: UUID) -> bool:
        with self._lock:
            work = self._in_flight.get(image_id)
            return work is not None and len(work.files) >= _MOST_JOINED

    def _look_again(
        self,
        readers: ThreadPoolExecutor,
        to_embed: queue.Queue[_Work | None],
        done: queue.Queue[_Work | NewFailure | _Told],
    ) -> None:
        """Take up what was put aside, once nobody else has it in hand any more."""
        now = time.monotonic()
        if not self._aside or now - self._looked_again < _LOOK_AGAIN_SECONDS:
            return
        self._looked_again = now
        aside, self._aside = list(self._aside), deque()
        images = [image_id for _, image_id in aside]
        taken = self.patiently(lambda: in_other_hands(self.database, self.embedder.model, self.worker, images))
        self._aside += [one for one in aside if one[1] in taken]
        self._advance([candidate for candidate, image_id in aside if image_id not in taken], readers, to_embed, done)

    # -- the workers --------------------------------------------------------------------------------------------

    def _embed(self, to_embed: queue.Queue[_Work | None], done: queue.Queue[_Work | NewFailure | _Told]) -> None:
        while (work := to_embed.get()) is not None:
            if self.halt.is_set():
                continue  # stays pending, and empties the queue for the feeder
            assert work.input is not None
            try:
                (work.outcome,) = self.embedder.embed_images([work.input])
            except BudgetSpent:
                self._spent = True
                self.halt.set()
                continue
            except Interrupted:
                continue
            except LookalikeError as error:
                self._fail(error)
                continue
            except Exception as error:
                # a fault of ours, but no picture may stop a run of millions
                _log.info("embedding %s failed unexpectedly", work.picture.place.uri, exc_info=True)
                work.outcome = ItemError("unexpected", f"{type(error).__name__}: {error}", retryable=True)
            work.input = None
            done.put(work)

    # -- the writer ---------------------------------------------------------------------------------------------

    def _write(self, arrived: Sequence[_Work | NewFailure | _Told]) -> None:
        """Commit what has arrived, and what joined it meanwhile."""
        while arrived:
            files: list[NewFile] = []
            told: list[Place] = []
            failures: list[NewFailure] = []
            written: list[tuple[_Work, int, int]] = []
            for item in arrived:
                match item:
                    case NewFailure():
                        failures.append(item)
                    case _Told():
                        told.append(item.place)
                    case _Work():
                        with self._lock:
                            places = [place for _, place in item.files.values()]
                            written.append((item, len(places), item.rows))
                        new_files, new_failures = _outcome(item, places)
                        files += new_files
                        failures += new_failures
            self._store(files, told, failures)
            self._tally.last_commit = time.monotonic()
            self._count_written(written, failures, told)
            arrived = self._release(written)

    def _store(self, files: list[NewFile], told: list[Place], failures: list[NewFailure]) -> None:
        database, model = self.database, self.embedder.model
        if told:
            self.patiently(lambda: tell(database, told))
        if files:
            done = [file.image_id for file in files if file.embedding is not None]
            outcome = self.patiently(lambda: write_files(database, model, files, done=done))
            self._abandoned.update(outcome.abandoned)
            # whoever has deleted an image meanwhile leaves it to the next run
            self._count(unchanged=-outcome.unembedded)
        if failures:
            done = [failure.image_id for failure in failures if failure.image_id is not None]
            new = self.patiently(lambda: record_failures(database, model, failures, done=done))
            self._count(new_failures=new)

    def _count_written(
        self, written: list[tuple[_Work, int, int]], failures: list[NewFailure], told: list[Place]
    ) -> None:
        embedded = adapted = unchanged = failed = 0
        for work, _, rows in written:
            if isinstance(work.outcome, Embedding):
                embedded += 1
                adapted += bool(work.picture.changes)
                unchanged += rows - 1
            elif isinstance(work.outcome, ItemError):
                failed += rows
            else:
                unchanged += rows
        alone = [failure for failure in failures if failure.stage != "embed"]
        unsupported = sum(failure.code == UNSUPPORTED for failure in alone)
        self._count(
            embedded=embedded,
            adapted=adapted,
            unchanged=unchanged + len(told),
            failed=failed + len(alone) - unsupported,
            unsupported=unsupported,
        )

    def _release(self, written: list[tuple[_Work, int, int]]) -> list[_Work | NewFailure | _Told]:
        """Give up the claims on what was written; returns work for files that joined after it was collected."""
        late: list[_Work | NewFailure | _Told] = []
        with self._lock:
            for work, files, rows in written:
                if self._in_flight.get(work.image_id) is work:
                    del self._in_flight[work.image_id]
                failed = isinstance(work.outcome, ItemError)
                joined = dict(islice(work.files.items(), files, None))
                if joined:
                    outcome = work.outcome if failed else _Known()
                    late.append(_Work(work.picture, joined, work.rows - rows, outcome=outcome))
                elif failed:
                    self._tally.failed += work.rows - rows
                else:
                    self._tally.unchanged += work.rows - rows
        return late

    # -- the database -------------------------------------------------------------------------------------------

    def _hold_claims(self, finished: threading.Event) -> None:
        while not finished.wait(LEASE_SECONDS / 4):
            with suppress(DatabaseError):
                renew(self.database, self.worker)

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
        seconds = (tally.last_commit - tally.first_read) if tally.last_commit and tally.first_read else 0.0
        return IngestReport(
            model=self.embedder.model.name,
            found=tally.found,
            expected=self.expected(),
            embedded=tally.embedded,
            unchanged=tally.unchanged,
            failed=tally.failed,
            unsupported=tally.unsupported,
            pending=tally.found - finished,
            new_failures=tally.new_failures,
            calls=usage.calls,
            retries=usage.retries,
            tokens=usage.tokens,
            adapted=tally.adapted,
            pruned_files=tally.pruned_files,
            pruned_images=tally.pruned_images,
            rate=self.embedder.rate,
            achieved_rate=usage.calls / seconds if seconds else 0.0,
            price=self.price.of(usage) if self.price else None,
            currency=self.price.currency if self.price else None,
            seconds=seconds,
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
        self.patiently.hopeless.set()


def _outcome(work: _Work, places: list[Place]) -> tuple[list[NewFile], list[NewFailure]]:
    """What is to be stored of a picture that has reached its end, for every place it was found in."""
    picture = work.picture
    match work.outcome:
        case ItemError() as error:
            failed = NewFailure(
                picture.place,
                "embed",
                error.code,
                str(error),
                error.retryable,
                request_id=error.request_id,
                image_id=work.image_id,
            )
            return [], [replace(failed, place=place) for place in places]
        case Embedding() as embedding:
            changes = picture.changes
            return [NewFile(place, work.image_id, picture.content, embedding, changes) for place in places], []
        case _:
            return [NewFile(place, work.image_id, picture.content) for place in places], []


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


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
