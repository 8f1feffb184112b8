"""Brings in vectors that were computed elsewhere: read, checked like a service's answer, written, reported.

A model's index is dropped before a load that is larger than what it holds, and built at the end: adding vectors to an
index one by one takes many times as long.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Literal, TypeAlias, TypedDict
from uuid import UUID

import numpy as np

from lookalike.embedders import dimensions_of
from lookalike.errors import ConfigurationError, DatabaseError, LookalikeError, ModelMismatch
from lookalike.ingest import failures_allowed
from lookalike.ingest.ahead import ahead
from lookalike.ingest.patience import Patiently
from lookalike.ingest.precomputed.tables import Problem, VectorRow, VectorTable, stored_forms
from lookalike.ingest.sources import collection_named
from lookalike.ingest.sources.candidate import Candidate, fits, nameable
from lookalike.ingest.spill import Firsts
from lookalike.reports import BuildProgress, ImportReport
from lookalike.store.database import Database
from lookalike.store.importing import ImportedFile, reach_disk, write_imported
from lookalike.store.index import build_index, collect_statistics, drop_index, may_build
from lookalike.store.reading import model_to_search, stored_vectors
from lookalike.store.runs import begin_run, end_run
from lookalike.store.writing import (
    COLLECTION,
    NewFailure,
    Place,
    Written,
    forget_row_failures,
    record_failures,
    remove_abandoned,
    storable,
)
from lookalike.types import DIMENSIONS, Model, StoredVector
from lookalike.uris import path_of, uri_of, without_secrets

__all__ = ["Import", "ImportOptions", "columns_named", "model_of"]

_BATCH = 2_500
_FIRST_BATCH = 10
_TOGETHER = 500  # rows to check
_LARGE_LOAD = 2_000
"""Rows from which on dropping an index and building it again may pay."""
_ROWS_PER_PAGE = 3
_PAGE = 8_192
_LONG_BUILD = 20_000
_NO_FILE = re.compile(r"bytes:[0-9a-f]{64}")

_Unsound: TypeAlias = tuple[Place, Place, Problem]
"""The row as a place, the place that it names, and what is wrong with it."""


class ImportOptions(TypedDict, total=False):
    """How vectors are brought in, whatever they lie in; every one may be left out.

    Attributes:
        model: whose vectors they are, where the files do not say.
        collection: the named set that the files belong to.
        uri_column, vector_column, key_column: columns or arrays whose names do not tell what they are.
        max_failures: so many rows, or such a share as ``"5%"``, may fail for the first time without the run
            counting as failed.
        dry_run: read and check everything, and store nothing.
        progress: told after each batch how far the run is.
        stop: set it from another thread to end the run after the batch in hand.
    """

    model: str | None
    collection: str
    uri_column: str | None
    vector_column: str | None
    key_column: str | None
    max_failures: int | str
    dry_run: bool
    progress: Callable[[ImportReport], None] | None
    stop: threading.Event | None


def columns_named(options: ImportOptions) -> dict[str, str | None]:
    """The columns that somebody has named; what makes no sense is refused before anything is read.

    Raises:
        TypeError: there is no such option.
        ValueError: a number makes no sense.
        ConfigurationError: there can be no such collection.
    """
    if unknown := options.keys() - ImportOptions.__annotations__.keys():
        raise TypeError(f"an import has no option {min(unknown)!r}")
    failures_allowed(options.get("max_failures", 0))
    collection_named(options.get("collection", COLLECTION))
    named = {name: options.get(name) for name in ("uri_column", "vector_column", "key_column")}
    return {name: str(column) if column is not None else None for name, column in named.items()}


def model_of(database: Database, tables: Sequence[VectorTable], name: str | None) -> Model:
    """The model whose vectors the files hold, as it is stored or as it is to be.

    Args:
        name: the one that somebody has named, for files that do not.

    Raises:
        ModelMismatch: a file holds vectors of another model.
        ConfigurationError: nobody says whose vectors they are, or they cannot be the model's.
    """
    wanted = Model(name).name if name is not None else None
    named = {found: table for table in tables for found in table.models if found is not None}
    unnamed = next((table for table in tables if set(table.models) == {None}), None)
    if wanted is not None:
        if other := next((found for found in named if found != wanted), None):
            raise ModelMismatch(
                wanted,
                other,
                f"{named[other].name} holds vectors of {other}, and you named {wanted}: two models cannot be "
                f"compared. Import it with --model {other}, or without --model.",
            )
    elif len(named) > 1:
        raise ConfigurationError(
            f"These are vectors of several models: {', '.join(sorted(named))}. Import those of one model at a time, "
            "from files of their own."
        )
    elif not named or unnamed is not None:
        table = unnamed or tables[0]
        raise ConfigurationError(f"{table.name} does not say which model its vectors are of. Name it with --model.")
    model = Model(wanted or next(iter(named)))
    stored = model_to_search(database, model.name)
    widths = {table.width: table for table in tables if table.width is not None}
    if stored is not None:
        model = stored.model
    elif widths:
        width, table = next(iter(widths.items()))
        if not 1 <= width <= DIMENSIONS:
            raise ConfigurationError(
                f"The vectors of {table.name} have {width:,} numbers; Lookalike stores 1 to {DIMENSIONS:,}."
            )
        model = Model(model.name, dimensions_of(model) or width)
    for width, table in widths.items():
        if width != model.dimensions:
            raise ConfigurationError(
                f"The vectors of {table.name} have {width:,} numbers, and those of {model.name} have "
                f"{model.dimensions:,}: they are of another model. Nothing was stored."
            )
    return model


@dataclass(slots=True)
class Import:
    """One run over files of vectors. Used once.

    Args:
        named: whether somebody has said which model it is, so that rows need not.
        is_remote: whether a name is a URL, and not a path.
        allowed_failures: from the number of rows found to the number that may fail without the run counting as failed.
        announce: told, in a sentence, what takes long or went otherwise.
        progress: told after each batch how far the run is.
        stop: the caller's; once set, the run ends after the batch in hand, and reports.
    """

    database: Database
    model: Model
    tables: Sequence[VectorTable]
    collection: str
    named: bool
    is_remote: Callable[[str], bool]
    allowed_failures: Callable[[int], int]
    announce: Callable[[str], None]
    progress: Callable[[ImportReport], None] | None
    stop: threading.Event
    _patiently: Patiently = field(init=False)
    _report: ImportReport = field(init=False)
    _began: float = field(init=False)
    _dropped: tuple[str, ...] | None = None
    _settled: bool = False
    _run_id: int = 0
    _abandoned: set[UUID] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._patiently = Patiently(self.stop, self.database.revive)
        found = sum(table.count for table in self.tables)
        self._report = ImportReport(self.model.name, self.collection, found=found, pending=found)
        self._began = time.monotonic()

    def rehearse(self) -> ImportReport:
        """What `run` would do; nothing is stored.

        Raises:
            LookalikeError: a file cannot be read to its end, or the database does not answer.
        """
        stored = model_to_search(self.database, self.model.name)
        for batch in self._until_stopped():
            vectors: Sequence[object] = [None] * len(batch.files)
            if stored is not None:
                places = [(*file.place.name, file.sha256) for file in batch.files]
                vectors = stored_vectors(self.database, stored, places)
            pairs = [(file.vector, old) for file, old in zip(batch.files, vectors, strict=True)]
            differ = [old for new, old in pairs if new is not None and not _same(new, old)]
            self._count(batch, len(differ), sum(old is not None for old in differ), 0)
        return self._ended(replace(self._report, dry_run=True))

    def run(self) -> ImportReport:
        """Store every row that can be.

        Raises:
            LookalikeError: a file cannot be read to its end, or the database refuses. What was committed before stays,
                and the error's `report` says what that is.
        """
        self._run_id = run_id = begin_run(self.database, "import", self.model)
        failure: BaseException | None = None
        try:
            before = self._reach_disk()
            for batch in self._until_stopped():
                self._write(batch)
            while (now := self._reach_disk()) != before and not self.stop.is_set():
                before = now
                self._write_what_was_forgotten()
            if not self.stop.is_set():
                for uri in [table.uri for table in self.tables]:
                    self._patiently(partial(forget_row_failures, self.database, self.model, uri, run_id))
                if self._abandoned:
                    self._patiently(lambda: remove_abandoned(self.database, sorted(self._abandoned)))
            self._report = replace(self._report, index=self._patiently(self._index))
        except BaseException as error:
            failure = error
            self._report = replace(self._report, stopped=str(error) or type(error).__name__)
            # whoever is to be told what went wrong shall not wait for a server that is gone, too
            self._patiently.hopeless.set()
        self._report = report = self._ended(self._report)
        failed = report.new_failures > self.allowed_failures(report.found)
        code = 2 if isinstance(failure, Exception) else 130 if report.stopped else int(failed)
        try:
            self._patiently(lambda: end_run(self.database, run_id, report, code))
        except LookalikeError:
            if failure is None:
                raise
        if failure is not None:
            if isinstance(failure, LookalikeError):
                failure.report = report
            raise failure
        return report

    def _until_stopped(self) -> Iterator[_Batch]:
        """What there is to write, the next batch made ready meanwhile, until `stop` is set."""
        if self.progress is not None:
            self.progress(self._report)
        with contextlib.closing(ahead(self._batches())) as batches:
            while not self.stop.is_set() and (batch := next(batches, None)) is not None:
                yield batch

    # -- rows ---------------------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[_Batch]:
        """What there is to write, checked."""
        with Firsts() as places, Firsts() as contents:
            for table in self.tables:
                # the first rows of a large load are few, as they still go into the index
                size = _BATCH if table.count < _LARGE_LOAD else _FIRST_BATCH
                with contextlib.closing(table.rows()) as rows:
                    while (batch := self._batch(islice(rows, size), table, places, contents)).rows:
                        yield batch
                        size = _BATCH

    def _batch(self, rows: Iterator[VectorRow], table: VectorTable, places: Firsts, contents: Firsts) -> _Batch:
        """Some rows, checked and put each where it belongs."""
        batch = _Batch()
        unsound: list[_Unsound] = []
        # a few at a time, so that those who read numbers beside this process never wait long for more
        while some := list(islice(rows, _TOGETHER)):
            self._check(some, table, places, contents, batch, unsound)
        for nowhere, place, (code, message) in unsound:
            # a file that is stored has not failed because another row says nonsense of it
            batch.fail(nowhere if place.uri in places else place, code, message)
        return batch

    def _check(
        self,
        rows: Sequence[VectorRow],
        table: VectorTable,
        places: Firsts,
        contents: Firsts,
        batch: _Batch,
        unsound: list[_Unsound],
    ) -> None:
        batch.rows += len(rows)
        forms = stored_forms([row.vector for row in rows], self.model.dimensions)
        sound: list[tuple[VectorRow, Place, StoredVector]] = []
        for row, form in zip(rows, forms, strict=True):
            if row.row.error is not None or row.row.place is None:
                batch.fail(self._nowhere(table, row), "bad-row", row.row.error or "The row names no picture.")
                continue
            place, misnamed = self._named(row, table)
            if misnamed is not None:
                batch.fail(place, *misnamed)
            elif (problem := row.error or self._of_another_model(row, table)) is not None:
                unsound.append((self._nowhere(table, row), place, problem))
            elif isinstance(form, tuple):
                unsound.append((self._nowhere(table, row), place, form))
            else:
                sound.append((row, place, form))
        notes = places.note_all((place.uri, vector.tobytes()) for _, place, vector in sound)
        new = [each for each, note in zip(sound, notes, strict=True) if note == "new"]
        for (row, place, _), note in zip(sound, notes, strict=True):
            if note == "other":
                message = f"An earlier row has another vector for {place.uri}, which was kept."
                batch.fail(self._nowhere(table, row), "duplicate-uri", message)
        # of several rows with the same bytes the first one's vector counts, also when they are imported again
        firsts = iter(contents.note_all((row.sha256[:16], row.sha256) for row, _, _ in new if row.sha256 is not None))
        for row, place, vector in new:
            first = "new" if row.sha256 is None else next(firsts)
            if first == "other":
                batch.fail(place, "bad-sha256", _MADE_UP)
                continue
            digest = row.sha256 or sha256(place.uri.encode()).digest()
            given = vector if first == "new" else None
            batch.files.append(ImportedFile(place, UUID(bytes=digest[:16]), given, row.sha256))

    def _nowhere(self, table: VectorTable, row: VectorRow) -> Place:
        """Where the failure of a row is noted that stands for no file."""
        return Place(f"{table.uri}#row-{row.row.number}", collection=self.collection)

    def _of_another_model(self, row: VectorRow, table: VectorTable) -> Problem | None:
        if row.model is None and not self.named and set(table.models) != {None}:
            return "no-model", "Other rows say which model their vector is of, and this one does not."
        if row.model not in (None, self.model.name):
            return "wrong-model", f"The row says that its vector is of {row.model}."
        return None

    def _named(self, row: VectorRow, table: VectorTable) -> tuple[Place, Problem | None]:
        """The file that a row names, an absolute or relative path or a URL; and why there can be none."""
        name = row.row.place or ""
        name = str(path_of(name) or name) if name.startswith("file://") else name
        if self.is_remote(name):
            uri = without_secrets(name)
        elif _NO_FILE.fullmatch(name):
            uri = name
        else:
            uri = uri_of(os.path.join(table.folder, name))
        # only what the table says itself: without further columns, what is stored stays
        place = Place(uri, collection=self.collection, key=row.row.key, metadata=row.row.metadata or None)
        if "\0" in name:
            return replace(place, uri=storable(uri)), ("bad-name", _NUL)
        if fits(uri):
            return place, None
        candidate = nameable(Candidate(name, place))
        return candidate.place, (candidate.code, candidate.error) if candidate.error is not None else None

    # -- the database -------------------------------------------------------------------------------------------------

    def _write(self, batch: _Batch) -> None:
        new, embedded, replaced = 0, 0, 0
        if batch.failures:
            new = self._patiently(lambda: record_failures(self.database, self.model, batch.failures, self._run_id))
        if batch.files:
            written = self._store(batch)
            embedded, replaced = written.embedded + written.replaced, written.replaced
        self._count(batch, embedded, replaced, new)
        if embedded and not self._settled:
            self._patiently(self._do_without_index)

    def _store(self, batch: _Batch) -> Written:
        written = self._patiently(lambda: write_imported(self.database, self.model, batch.files))
        self._abandoned.update(written.abandoned)
        return written

    def _reach_disk(self) -> datetime:
        return self._patiently(lambda: reach_disk(self.database, self._run_id))

    def _write_what_was_forgotten(self) -> None:
        """Go through everything once more, as nobody knows what was not on the disk yet when the server crashed."""
        self.announce("The server has crashed, and may have forgotten rows. They are compared once more …")
        stored = 0
        for batch in self._until_stopped():
            if batch.files:
                written = self._store(batch)
                stored += written.embedded + written.replaced
        self.announce(f"{stored:,} of them had been forgotten, and are stored again.")

    def _do_without_index(self) -> None:
        """Drop the index where more is to come than it holds, which building it anew pays for many times over."""
        coming = self._report.pending
        stored = model_to_search(self.database, self.model.name)
        if coming < _LARGE_LOAD or stored is None or not stored.index_ready:
            self._settled = True
        elif coming > stored.bytes // _PAGE * _ROWS_PER_PAGE:
            self._settled = True
            self._dropped = drop_index(self.database, stored)

    def _index(self) -> Literal["kept", "rebuilt", "built", "missing"] | None:
        """See to it that there is an index at the end; returns what became of it."""
        stored = model_to_search(self.database, self.model.name)
        if stored is None:
            return None
        if stored.index_ready:
            return "kept"
        if self.stop.is_set() or not may_build(self.database, stored):
            return "missing"
        if stored.bytes // _PAGE * _ROWS_PER_PAGE >= _LONG_BUILD:
            self.announce("Every row is stored. Building the index …")
        try:
            built = build_index(self.database, stored, options=self._dropped, progress=self._tell_build, stop=self.stop)
        except (ConfigurationError, DatabaseError) as error:
            self.announce(f"The index was not built: {error}")
            return "missing"
        for note in built.notes:
            self.announce(note)
        if built.stopped is not None:
            return "missing"
        self._patiently(lambda: collect_statistics(self.database, stored))
        return "rebuilt" if self._dropped is not None else "built"

    def _tell_build(self, building: BuildProgress) -> None:
        if self.progress is not None:
            self.progress(replace(self._report, building=building, seconds=time.monotonic() - self._began))

    def _count(self, batch: _Batch, embedded: int, replaced: int, new_failures: int) -> None:
        so_far, failed = self._report, len(batch.failures)
        self._report = replace(
            so_far,
            embedded=so_far.embedded + embedded,
            replaced=so_far.replaced + replaced,
            unchanged=so_far.unchanged + batch.rows - failed - embedded,
            failed=so_far.failed + failed,
            pending=so_far.pending - batch.rows,
            new_failures=so_far.new_failures + new_failures,
            seconds=time.monotonic() - self._began,
        )
        if self.progress is not None:
            self.progress(self._report)

    def _ended(self, report: ImportReport) -> ImportReport:
        done = report.embedded + report.unchanged + report.failed
        interrupted = self.stop.is_set() and report.pending > 0
        return replace(
            report,
            # a file that has grown or shrunk since it was counted
            found=max(report.found, done) if interrupted or report.stopped else done,
            pending=max(report.found - done, 0) if interrupted or report.stopped else 0,
            seconds=time.monotonic() - self._began,
            stopped=report.stopped or ("interrupted" if interrupted else None),
        )


@dataclass(slots=True)
class _Batch:
    """Some rows, checked.

    Attributes:
        rows: how many there are, with those that say nothing new.
    """

    rows: int = 0
    files: list[ImportedFile] = field(default_factory=list)
    failures: list[NewFailure] = field(default_factory=list)

    def fail(self, place: Place, code: str, message: str) -> None:
        """Note that a row cannot be stored."""
        stage: Literal["read", "check"] = "read" if code in ("bad-row", "bad-name", "uri-too-long") else "check"
        self.failures.append(NewFailure(place, stage, code, message, retryable=False))


def _same(new: StoredVector, old: object) -> bool:
    return isinstance(old, np.ndarray) and np.array_equal(new, old)


_NUL = "The path holds a character that no path may hold."
_MADE_UP = (
    "The first half of the SHA-256 is that of another row, and the second half is not. Digests of pictures differ in "
    "both; without one, the place stands for the picture."
)
