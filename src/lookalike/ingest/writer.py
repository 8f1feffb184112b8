"""The last part of the corridor: commits what has reached its end, and counts it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from lookalike.errors import ItemError
from lookalike.ingest.patience import Patiently
from lookalike.ingest.work import Finished, Tally, Told, UnderWay, Work
from lookalike.store.database import Database
from lookalike.store.writing import UNSUPPORTED, NewFailure, NewFile, Place, record_failures, tell, write_files
from lookalike.types import Embedding, Model


@dataclass(slots=True)
class Writer:
    """Writes what arrives, whole batches at a time. One thread runs it.

    Attributes:
        abandoned: images that lost a file to what was written, and may lie nowhere now.
    """

    database: Database
    model: Model
    patiently: Patiently
    tally: Tally
    under_way: UnderWay
    run_id: int
    abandoned: set[UUID] = field(default_factory=set)

    def write(self, arrived: Sequence[Finished]) -> None:
        """Commit what has arrived, and what joined it meanwhile."""
        while arrived:
            files: list[NewFile] = []
            told: list[Place] = []
            failures: list[NewFailure] = []
            works: list[tuple[Work, int, int]] = []
            for item in arrived:
                match item:
                    case NewFailure():
                        failures.append(item)
                    case Told():
                        told.append(item.place)
                    case Work():
                        places, rows = self.under_way.places(item)
                        works.append((item, len(places), rows))
                        new_files, new_failures = _outcome(item, places)
                        files += new_files
                        failures += new_failures
            self._store(files, told, failures)
            self.tally.last_commit = time.monotonic()
            self._count(works, failures, told)
            late = (self.under_way.release(work, places, rows) for work, places, rows in works)
            arrived = [work for work in late if work is not None]

    def _store(self, files: list[NewFile], told: list[Place], failures: list[NewFailure]) -> None:
        database, model = self.database, self.model
        if told:
            self.patiently(lambda: tell(database, told))
        if files:
            done = [file.image_id for file in files if file.embedding is not None]
            written = self.patiently(lambda: write_files(database, model, files, done=done))
            self.abandoned.update(written.abandoned)
            # whoever has deleted an image meanwhile leaves it to the next run
            self.tally.add(unchanged=-written.unembedded)
        if failures:
            done = [failure.image_id for failure in failures if failure.image_id is not None]
            new = self.patiently(lambda: record_failures(database, model, failures, self.run_id, done=done))
            self.tally.add(new_failures=new)

    def _count(self, works: list[tuple[Work, int, int]], failures: list[NewFailure], told: list[Place]) -> None:
        embedded = adapted = unchanged = failed = 0
        for work, _, rows in works:
            match work.outcome:
                case Embedding():
                    embedded += 1
                    adapted += bool(work.picture.changes)
                    unchanged += rows - 1
                case ItemError():
                    failed += rows
                case _:
                    unchanged += rows
        unread = [failure for failure in failures if failure.stage != "embed"]
        unsupported = sum(failure.code == UNSUPPORTED for failure in unread)
        self.tally.add(
            embedded=embedded,
            adapted=adapted,
            unchanged=unchanged + len(told),
            failed=failed + len(unread) - unsupported,
            unsupported=unsupported,
        )


def _outcome(work: Work, places: list[Place]) -> tuple[list[NewFile], list[NewFailure]]:
    """What is to be stored of a picture that has reached its end, for every place it was found in."""
    picture = work.picture
    files = [NewFile(at, work.image_id, picture.content, media_type=picture.media_type) for at in places]
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
            files = [replace(file, embedding=embedding, changes=picture.changes) for file in files]
            # the text is that of the file that was come upon first
            own = picture.place.name
            return [replace(file, text=picture.input.text) if file.place.name == own else file for file in files], []
        case _:
            return files, []
