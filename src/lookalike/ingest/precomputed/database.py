"""A table of vectors in a database, told row by row like a file of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lookalike.errors import ConfigurationError
from lookalike.ingest.precomputed.tables import (
    METADATA_COLUMNS,
    MOST_MODELS,
    ROWS_TO_LEARN_FROM,
    URI_COLUMNS,
    VectorRow,
    digest_of,
    named_column,
    named_model,
    vector_of,
)
from lookalike.ingest.sources.manifests import Row, column_called, row_of, uri_column_among
from lookalike.store.database import Database
from lookalike.store.source_tables import SourceColumn, SourceTable

_AS_VECTORS = "vector, halfvec, arrays of numbers, and text such as [0.1, 0.2]"


class DatabaseTable:
    """A `VectorTable` over a table of anybody's PostgreSQL. Close it, or use it in a ``with`` statement."""

    def __init__(
        self,
        url: str,
        table: str,
        *,
        uri_column: str | None = None,
        vector_column: str | None = None,
        key_column: str | None = None,
    ) -> None:
        """Args:
            uri_column, vector_column, key_column: columns whose names do not tell what they are.

        Raises:
            SourceNotFound: there is no such table.
            ConfigurationError: the URL cannot be read, or a column is missing or of the wrong type.
            DatabaseError: the table may not be read, or its server cannot be reached.
        """
        self._source = SourceTable(url, table)
        try:
            self.name, self.uri, self.folder = self._source.name, self._source.uri, Path.cwd()
            self._columns = {column.name: column for column in self._source.columns}
            self._choose(uri_column, vector_column, key_column)
            self.count = self._source.count()
            self.width = self._width()
            self.models: Sequence[str | None] = (None,)
            if self._model is not None:
                found = self._source.distinct(self._columns[self._model], MOST_MODELS)
                self.models = tuple(dict.fromkeys(map(named_model, found))) or (None,)
        except BaseException:
            self.close()
            raise

    def _choose(self, uri_column: str | None, vector_column: str | None, key_column: str | None) -> None:
        # what a search was made with names no picture
        names = [name for name, column in self._columns.items() if column.kind not in ("bytes", "vector", "search")]
        self._vectors = self._vector_column(vector_column)
        self._sha256 = column_called(("sha256",), list(self._columns))
        self._model = column_called(("model",), names)
        apart = {self._vectors.name, self._sha256, self._model} - {None, uri_column, key_column}
        self._key = (
            named_column(self.name, "column", "--key-column", key_column, (), names)
            if key_column is not None
            else column_called(("key",), names, apart)
        )
        uri_column = uri_column or uri_column_among(names, {self._key} | apart, first=URI_COLUMNS)
        self._uris = named_column(self.name, "column", "--uri-column", uri_column, URI_COLUMNS, names)
        self._unfolded = column_called(METADATA_COLUMNS, names, apart | {self._key, self._uris})
        special = [self._uris, self._key, self._sha256, self._model]
        self._plain = [self._columns[name] for name in dict.fromkeys(special) if name is not None]
        self._told = [self._columns[name] for name in names if name not in {*special, self._vectors.name}]

    def _vector_column(self, given: str | None) -> SourceColumn:
        written = {name: f"{name} ({column.type})" for name, column in self._columns.items()}
        if given is not None:
            name = named_column(self.name, "column", "--vector-column", given, (), list(self._columns))
            if self._columns[name].kind not in ("vector", "numbers", "text"):
                raise ConfigurationError(
                    f"The column {written[name]} of {self.name} holds no vectors. Those are read from {_AS_VECTORS}."
                )
            return self._columns[name]
        found = [column for column in self._columns.values() if column.kind == "vector"]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(written[column.name] for column in found)
            raise ConfigurationError(f"{self.name} has several columns of vectors: {listed}. Name one: --vector-column")
        maybe = [written[name] for name, column in self._columns.items() if column.kind in ("numbers", "text")]
        raise ConfigurationError(
            f"{self.name} has no column of the type vector or halfvec. If one of these holds the vectors, name it with "
            f"--vector-column: {', '.join(maybe) or 'none can'}."
        )

    def _width(self) -> int | None:
        if self._vectors.width is not None:
            return self._vectors.width if self.count else None
        lengths: Counter[int] = Counter()
        for cells in self._source.rows(self._vectors, (), (), most=ROWS_TO_LEARN_FROM):
            vector, _ = vector_of(cells[self._vectors.name]) if isinstance(cells, dict) else (None, None)
            if vector is not None:
                lengths[len(vector)] += 1
        return lengths.most_common(1)[0][0] if lengths else None

    def require_apart_from(self, database: Database) -> None:
        """See to it that reading the table does not keep `database` from being written to.

        Raises:
            ConfigurationError: it reads what is stored there.
        """
        if self._source.is_part_of(database):
            raise ConfigurationError(
                f"{self.name} reads Lookalike's own tables in the very database that is imported into. Import a copy "
                f"(create table … as select * from {self.name}), or a file made with: lookalike export"
            )

    def rows(self) -> Generator[VectorRow, None, None]:
        """Every row, in the order in which they lie. Who reads them again finds them as they are by then.

        Raises:
            DatabaseError: the rest cannot be read.
        """
        apart = {self._vectors.name, self._sha256, self._model} - {None, self._uris, self._key}
        for number, cells in enumerate(self._source.rows(self._vectors, self._plain, self._told), start=1):
            if isinstance(cells, str):
                yield VectorRow(Row(number, error=f"Row {number} of {self.name}: {cells}"))
                continue
            shown = {name: value for name, value in cells.items() if name not in apart}
            row = row_of(self.name, number, shown, self._uris, self._key, (), self._unfolded)
            vector, error = vector_of(cells[self._vectors.name])
            sha256: bytes | None = None
            try:
                sha256 = digest_of(self._cell(cells, self._sha256))
            except ValueError as refused:
                error = error or ("bad-sha256", str(refused))
            yield VectorRow(row, vector, sha256, named_model(self._cell(cells, self._model)), error)

    def _cell(self, cells: dict[str, Any], column: str | None) -> object:
        return cells.get(column) if column is not None else None

    def close(self) -> None:
        """Let go of the table's database."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
