"""Stored vectors on their way out: every file of a model's images, of one moment, a page at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from lookalike.filters import Where
from lookalike.store.conditions import Conditions
from lookalike.store.database import Database
from lookalike.store.models import StoredModel

_PAGE_ROWS = 500


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One file of an image, with the image's vector.

    Attributes:
        sha256: digest of the image's bytes, 32 bytes long; None where nobody has seen them.
        metadata: as JSON.
        vector: float16, shape ``(dimensions,)``, as it is stored.
    """

    uri: str
    key: str | None
    collection: str
    sha256: bytes | None
    metadata: str
    vector: npt.NDArray[np.float16]


class StoredRows:
    """The files that a condition lets pass, by collection and URI, of images that have a vector under a model.

    Attributes:
        count: how many there are.
        images: how many images they are of.
    """

    def __init__(
        self, connection: psycopg.Connection, stored: StoredModel, collection: str | None, where: Where | None
    ) -> None:
        conditions = Conditions(where, None)
        self._connection = connection
        self._dimensions = stored.model.dimensions
        self._parameters: dict[str, Any] = {"collection": collection, **conditions.parameters}
        # readers have no right on the table itself
        self._files = f"from lookalike.files f join lookalike.{stored.view} e using (image_id)"
        self._where = conditions.sql or "true"
        if collection is not None:
            self._where += " and f.collection = %(collection)s"
        row = self._run(f"select count(*), count(distinct f.image_id) {self._files} where {self._where}").fetchone()
        assert row is not None
        self.count: int = row[0]
        self.images: int = row[1]

    def pages(self) -> Iterator[list[StoredRow]]:
        """All of them, some at a time, so that neither side sorts or holds more than a page."""
        after = ""
        last: dict[str, Any] = {}
        while True:
            page = self._run(
                "select f.uri, f.key, f.collection, i.sha256, f.metadata::text, e.embedding, f.image_id"
                f" {self._files} join lookalike.images i using (image_id) where {self._where}{after}"
                f" order by f.collection, f.uri, f.image_id limit {_PAGE_ROWS}",
                last,
            ).fetchall()
            yield [self._row(row) for row in page]
            if len(page) < _PAGE_ROWS:
                return
            uri, _, collection, *_, image_id = page[-1]
            after = " and (f.collection, f.uri, f.image_id) > (%(last_collection)s, %(last_uri)s, %(last_id)s)"
            last = {"last_collection": collection, "last_uri": uri, "last_id": image_id}

    def _run(self, statement: str, more: dict[str, Any] | None = None) -> psycopg.Cursor[Any]:
        return self._connection.execute(statement.encode(), {**self._parameters, **(more or {})}, binary=True)

    def _row(self, row: tuple[Any, ...]) -> StoredRow:
        uri, key, collection, sha256, metadata, embedding, _ = row
        vector = embedding.to_numpy().astype(np.float16)[: self._dimensions]
        return StoredRow(uri, key, collection, sha256, metadata, vector)


@contextlib.contextmanager
def stored_rows(
    database: Database, stored: StoredModel, *, collection: str | None = None, where: Where | None = None
) -> Iterator[StoredRows]:
    """What there is to export, of one moment: what is written meanwhile is not seen.

    Raises:
        DatabaseError: the database does not answer, or refuses.
    """
    with database.snapshot() as connection:
        yield StoredRows(connection, stored, collection, where)
