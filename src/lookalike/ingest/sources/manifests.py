"""Tables that name pictures: CSV, TSV, JSON Lines and Parquet, read row by row."""

from __future__ import annotations

import codecs
import csv
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from functools import cached_property, lru_cache, partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.errors import ConfigurationError
from lookalike.ingest.sources.csv_lines import BUFFER, WithoutLists, lines_of
from lookalike.store.writing import storable
from lookalike.uris import redacted

SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
"""A file that is named as a source and ends so is a table of pictures."""

_URI_COLUMNS = (
    *("uri", "url", "path", "file", "files", "filename", "file_name", "filepath", "file_path"),
    *("image", "image_uri", "image_url", "image_path", "image_file", "img", "src", "location", "name"),
)
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_MAY_HOLD_SECRETS = re.compile(r"[:=]|bearer\s|eyJ", re.IGNORECASE)
_TRUTHS = {"true": True, "false": False}
_LARGEST_CELL = 10_000_000
_LONGEST_KEY = 2000
_MOST_METADATA = 250_000
"""Bytes of a row's metadata as JSON. PostgreSQL's text search takes a megabyte, and counts some words four times."""
_PARQUET_ROWS = 1024
_SHORT = 500  # characters; whatever they are, not too many bytes for a key
_LARGE = 1e300


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        number: counted from 1, without the header.
        place: what stands in the column of places; None where nothing does.
        key: the owner's own id, if a column of them was named.
        metadata: every other column, ready for JSON; numbers are numbers.
        apart: the columns that are no metadata, as they are.
        error: why the row cannot be used.
    """

    number: int
    place: str | None = None
    key: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    apart: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Table:
    """A table of pictures in a local file. `check` first.

    Attributes:
        name: how the table is called in messages.
        uri_column: the column of paths or URLs; None to find it by its name.
        key_column: the column with the owner's ids; None if there is none.
        keyed: whether rows may be joined by their key alone.
        apart: columns that are neither metadata nor looked at here.
        unfolded: the column of JSON objects whose entries are metadata themselves; None if there is none.
        lists: the column, one of `apart`, of which long lists in CSV stay bytes, as they are in the file; None if there
            is none.
    """

    path: Path
    name: str
    uri_column: str | None = None
    key_column: str | None = None
    keyed: bool = False
    apart: frozenset[str] = frozenset()
    unfolded: str | None = None
    lists: str | None = None

    def check(self) -> None:
        """Read the table's head, and all of it where damage might show later, before anything is spent.

        Raises:
            ConfigurationError: it cannot be read, or does not have the columns.
        """
        _ = self.place_column, self.keys, self._survey
        if self.path.suffix.lower() == ".parquet":
            for _ in self._batches():
                pass

    def rows(self) -> Iterator[Row]:
        """Every row, as it is read.

        Raises:
            ConfigurationError: the rest of the table cannot be read.
        """
        for number, cells in enumerate(self._cells(), start=1):
            if isinstance(cells, str):
                yield Row(number, error=cells)
            else:
                yield row_of(self.name, number, cells, self.place_column, self.keys, self.apart, self.unfolded)

    def cells(self, column: str) -> Iterator[Any]:
        """One column alone, of the rows that can be read; of Parquet, nothing else is read.

        Raises:
            ConfigurationError: the rest of the table cannot be read.
        """
        yield from (cells.get(column) for cells in self._cells([column]) if not isinstance(cells, str))

    @cached_property
    def notes(self) -> Mapping[str, str]:
        """What a Parquet file says of itself beside its columns; nothing for others."""
        if self.path.suffix.lower() != ".parquet":
            return {}
        notes = self._parquet().schema_arrow.metadata or {}
        return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in notes.items()}

    def may_tell(self, column: str) -> bool:
        """Whether a column is there and becomes metadata; rows of JSON Lines may have what the first one lacks."""
        if self.path.suffix.lower() in (".jsonl", ".ndjson"):
            return True
        return column in self.columns and column not in (self.place_column, self.keys)

    def skim(self) -> Iterator[object]:
        """Something for every row, without a closer look at it."""
        match self.path.suffix.lower():
            case ".parquet":
                yield from range(self._parquet().metadata.num_rows)
            case ".jsonl" | ".ndjson":
                with open(self.path, "rb") as lines:
                    yield from (line for line in lines if line.strip())
            case _:
                yield from range(self._survey[1])

    @cached_property
    def columns(self) -> Sequence[str]:
        """The names of the columns; of JSON Lines, those of the first row."""
        match self.path.suffix.lower():
            case ".parquet":
                return self._each_once([str(name) for name in self._parquet().schema_arrow.names])
            case ".jsonl" | ".ndjson":
                for row in self._cells():
                    if isinstance(row, dict):
                        return list(row)
                raise ConfigurationError(f"{self.name} holds no JSON objects, one to a line.")
            case _:
                return self._header

    @cached_property
    def keys(self) -> str | None:
        """The column with the owner's ids, None if there is none."""
        return self._named(self.key_column) if self.key_column is not None else None

    @cached_property
    def place_column(self) -> str | None:
        """The column of paths or URLs; None where rows are joined by key alone."""
        if self.uri_column is not None:
            return self._named(self.uri_column)
        if (found := uri_column_among(self.columns, {self.keys} | self.apart)) is not None:
            return found
        if len(self.columns) == 1 and self.keys is None:
            return self.columns[0]
        if self.keyed and self.keys is not None:
            return None
        raise ConfigurationError(
            f"{self.name} has no column that is called like one of paths or URLs. It has {self._listed}; "
            "name it with --uri-column."
        )

    def _cells(self, only: Sequence[str] | None = None) -> Iterator[Mapping[str, Any] | str]:
        """The cells of each row by column, or what is wrong with the row.

        Args:
            only: the columns that matter; others may be missing.
        """
        try:
            match self.path.suffix.lower():
                case ".parquet":
                    yield from self._parquet_rows(only)
                case ".jsonl" | ".ndjson":
                    yield from self._json_lines()
                case _:
                    types, _ = self._survey
                    for cells in self._csv():
                        if isinstance(cells, str):
                            yield cells
                        else:
                            row = zip(self._header, cells, strict=False)
                            yield {n: types[n](cell) if isinstance(cell, str) else cell for n, cell in row if cell}
        except (OSError, csv.Error, ValueError, ArithmeticError) as error:  # pyarrow's own are ValueErrors
            raise self._cannot_be_read(error) from None

    def _parquet_rows(self, only: Sequence[str] | None) -> Iterator[Mapping[str, Any] | str]:
        first = 1
        for batch in self._batches(only):
            names = batch.schema.names
            unreadable: dict[int, str] = {}
            columns = [self._parquet_cells(*each, unreadable) for each in zip(names, batch.columns, strict=True)]
            for n, row in enumerate(zip(*columns, strict=True)):
                if n in unreadable:
                    yield (
                        f"Row {first + n} of {self.name} holds something in the column {unreadable[n]} that cannot be "
                        "read, such as a date beyond the year 9999."
                    )
                else:
                    yield dict(zip(names, row, strict=True))
            first += batch.num_rows

    def _batches(self, only: Sequence[str] | None = None) -> Iterator[Any]:
        """The rows of a Parquet file, some at a time.

        Raises:
            ConfigurationError: the rest of them cannot be read.
        """
        try:
            yield from self._parquet().iter_batches(batch_size=_PARQUET_ROWS, columns=only)
        except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own are among these
            reason = redacted(str(error)).rstrip(".")
            raise ConfigurationError(
                f"{self.name} cannot be read to its end: {reason}. If it is damaged, write it anew, or copy it again."
            ) from None

    def _parquet_cells(self, name: str, column: Any, unreadable: dict[int, str]) -> Sequence[Any]:
        """The cells of a column; lists of floating-point numbers that are apart, as arrays.

        Args:
            unreadable: is told the rows whose cells Python has nothing for.
        """
        import pyarrow.types as kinds

        kind = column.type
        is_list = kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
        if name not in self.apart or not is_list or not kinds.is_floating(kind.value_type) or column.null_count:
            return _in_python(name, column, unreadable)
        numbers = column.flatten()
        if numbers.null_count:
            return _in_python(name, column, unreadable)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        flat = numbers.to_numpy(zero_copy_only=False)
        return np.split(flat, np.cumsum(lengths))[:-1]

    def _json_lines(self) -> Iterator[Mapping[str, Any] | str]:
        self._require_utf8()
        with open(self.path, encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                yield row if isinstance(row, dict) else f"Line {number} of {self.name} is no JSON object."

    def _csv(self, *, whole: bool = True) -> Iterator[list[str | bytes] | str]:
        """The cells of each row behind the header.

        Args:
            whole: with long lists, instead of which any text may stand where it is False.
        """
        csv.field_size_limit(_LARGEST_CELL)
        # Undecodable bytes may be part of a path, which is bytes as well.
        with open(self.path, "rb", BUFFER) as file:
            lines = WithoutLists(lines_of(file), self._delimiter)
            reader = csv.reader(lines, delimiter=self._delimiter)
            next(reader, None)
            raw = self._header.index(self.lists) if self.lists is not None else None
            restored = partial(lines.restored, raw=raw) if whole else lines.shortened
            for cells in map(restored, reader):
                if not cells:
                    continue
                if len(cells) > len(self._header):
                    yield (
                        f"Line {reader.line_num} of {self.name} has {len(cells)} cells, and the header "
                        f"{len(self._header)}: is a quotation mark missing?"
                    )
                else:
                    yield cells

    @cached_property
    def _header(self) -> list[str]:
        try:
            with open(self.path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                header = next(csv.reader(file, delimiter=self._delimiter), [])
        except (OSError, csv.Error) as error:
            raise self._cannot_be_read(error) from None
        header = [name.strip() or f"column {number}" for number, name in enumerate(header, start=1)]
        if not header:
            raise ConfigurationError(f"{self.name} is empty; its first line names the columns.")
        return self._each_once(header)

    def _each_once(self, names: list[str]) -> list[str]:
        if twice := {name for name, times in Counter(names).items() if times > 1}:
            raise ConfigurationError(f"{self.name} has two columns of the name {min(twice)!r}. Rename one.")
        return names

    @cached_property
    def _delimiter(self) -> str:
        try:
            self._require_utf8()
            if self.path.suffix.lower() == ".tsv":
                return "\t"
            with open(self.path, encoding="utf-8-sig", errors="surrogateescape") as file:
                head = file.readline(100_000)
        except OSError as error:
            raise ConfigurationError(f"{self.name} cannot be read: {error.strerror}.") from None
        return max(",;\t|", key=head.count)

    def _require_utf8(self) -> None:
        with open(self.path, "rb") as file:
            head = file.read(200)
        # every other byte of what is known of UTF-16 without a mark is zero
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 3 * head.count(0) > len(head):
            raise ConfigurationError(f"{self.name} is written in UTF-16 or UTF-32. Save it in UTF-8.")

    @cached_property
    def _survey(self) -> tuple[Mapping[str, Callable[[str], Any]], int]:
        """What the cells of each column of a text table are (all of them numbers, all true or false, else text), and
        how many rows it has."""
        if self.path.suffix.lower() in (".parquet", ".jsonl", ".ndjson"):
            return {}, 0
        rows = 0
        types: dict[str, Callable[[str], Any] | None] = dict.fromkeys(self._header)
        types |= {name: str for name in (self.place_column, self.keys, *self.apart) if name is not None}
        try:
            for rows, cells in enumerate(self._csv(whole=False), start=1):  # noqa: B007
                if isinstance(cells, str):
                    continue
                for name, cell in zip(self._header, cells, strict=False):
                    if cell and isinstance(cell, str) and (known := types[name]) is not str:
                        fits = _type_of(cell)
                        types[name] = fits if known in (None, fits) else str
        except (OSError, csv.Error) as error:
            raise self._cannot_be_read(error) from None
        return {name: kind or str for name, kind in types.items()}, rows

    def _parquet(self) -> Any:
        try:
            import pyarrow.parquet
        except ImportError:
            raise ConfigurationError(
                f"Reading {self.name} takes one more package: pip install 'lookalike[parquet]'"
            ) from None
        try:
            # where whoever wrote it has put checksums in, as an export does
            return pyarrow.parquet.ParquetFile(os.fspath(self.path), page_checksum_verification=True)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{self.name} cannot be read as Parquet: {error}") from None

    def _named(self, name: str) -> str:
        """The column that is called so, if need be in other capitals."""
        if name in self.columns:
            return name
        alike = [column for column in self.columns if column.strip().lower() == name.strip().lower()]
        if len(alike) != 1:
            raise self._no_column(name)
        return alike[0]

    def _cannot_be_read(self, error: Exception) -> ConfigurationError:
        if isinstance(error, csv.Error) and "field limit" in str(error):
            reason = f"a cell has more than {_LARGEST_CELL:,} characters. Is a quotation mark missing?"
        else:
            reason = redacted(str(error))
        return ConfigurationError(f"{self.name} cannot be read: {reason}")

    def _no_column(self, name: str) -> ConfigurationError:
        return ConfigurationError(f"{self.name} has no column {name!r}. It has {self._listed}.")

    @property
    def _listed(self) -> str:
        return ", ".join(map(repr, self.columns)) or "none"


def row_of(
    table: str,
    number: int,
    cells: Mapping[str, Any],
    place_column: str | None,
    key_column: str | None,
    apart: Collection[str] = (),
    unfolded: str | None = None,
) -> Row:
    """A row from its cells by column, or what is wrong with it.

    Args:
        table: how the table is called in messages.
        place_column: None where rows are joined by key alone.
        apart: columns that are not metadata.
        unfolded: the column of JSON objects whose entries are metadata themselves, unless a column has their name.
    """
    try:
        inner = _object(cells.get(unfolded)) if unfolded is not None else None
        metadata = {} if inner is None else ready_for_json(inner)
        metadata |= {
            _column(name): ready_for_json(value)
            for name, value in cells.items()
            if name not in (place_column, key_column) and name not in apart and (name != unfolded or inner is None)
        }
        # as JSON no character takes more than twelve
        size = len(json.dumps(metadata)) if 12 * len(repr(metadata)) > _MOST_METADATA else 0
    except RecursionError:
        return Row(number, error=f"Row {number} of {table} holds lists that lie too deep in each other.")
    place = cells.get(place_column) if place_column is not None else None
    key = _key(cells.get(key_column)) if key_column is not None else None
    error = _misnamed(table, number, place, place_column) if place_column is not None else None
    if error is None and size > _MOST_METADATA:
        error = f"Row {number} of {table} has {size:,} bytes of metadata; {_MOST_METADATA:,} are the most."
    if error is None and key is not None and len(key.encode()) > _LONGEST_KEY:
        error = f"Row {number} of {table} has a key of more than {_LONGEST_KEY:,} bytes: is it one?"
    if error is not None:
        return Row(number, error=error)
    return Row(number, place, key, metadata, {name: cells[name] for name in apart if name in cells})


def rows_of(
    table: str,
    first: int,
    columns: Mapping[str, Sequence[Any]],
    place_column: str,
    key_column: str | None,
    unfolded: str | None = None,
) -> Iterator[Row]:
    """`row_of` for rows that have a cell in every column: where whole columns need no change, in a third of the time.

    Args:
        first: the number of the first row.
    """
    told = {_column(name): values for name, values in columns.items() if name not in (place_column, key_column)}
    places = columns[place_column]
    keys: Sequence[str | None] = [None] * len(places) if key_column is None else columns[key_column]
    short = 12 * (_SHORT * len(told) + sum(map(len, told))) <= _MOST_METADATA
    if short and unfolded is None and all(map(_is_ready, told.values())) and (key_column is None or _are_keys(keys)):
        cells = zip(*told.values(), strict=True) if told else repeat(())
        for number, (place, key, values) in enumerate(zip(places, keys, cells, strict=bool(told)), start=first):
            error = _misnamed(table, number, place, place_column)
            yield Row(number, error=error) if error else Row(number, place, key, dict(zip(told, values, strict=True)))
        return
    for number, values in enumerate(zip(*columns.values(), strict=True), start=first):
        row = dict(zip(columns, values, strict=True))
        yield row_of(table, number, row, place_column, key_column, (), unfolded)


def column_called(names: Sequence[str], columns: Sequence[str], beside: Collection[str | None] = ()) -> str | None:
    """The column that is called like the first of `names` that there is, in whatever capitals; None if there is none.

    Args:
        beside: columns that are meant for something else.
    """
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in names if name in by_name and by_name[name] not in beside), None)


def uri_column_among(
    columns: Sequence[str], beside: Collection[str | None] = (), *, first: Sequence[str] = ()
) -> str | None:
    """The column that is called like one of paths or URLs, None if there is none.

    Args:
        beside: columns that are meant for something else.
        first: names that count before all others.
    """
    return column_called((*first, *_URI_COLUMNS), columns, beside)


def _in_python(name: str, column: Any, unreadable: dict[int, str]) -> Sequence[Any]:
    """The cells of a column of Parquet, as `Table._parquet_cells` gives them."""
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, ArithmeticError):
        cells: list[Any] = []
        for n, cell in enumerate(column):
            try:
                cells.append(cell.as_py())
            except (ValueError, ArithmeticError):
                cells.append(None)
                unreadable.setdefault(n, name)
        return cells


def ready_for_json(value: Any) -> Any:
    """A value as PostgreSQL stores it in JSON: without what it refuses, and without signatures of URLs."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return _text(value)
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            if not value.is_finite():
                return None
            return int(value) if value.as_tuple().exponent == 0 else ready_for_json(float(value))
        case datetime() | date() | time():
            return value.isoformat()
        case Mapping():
            return {_text(str(name)): ready_for_json(each) for name, each in value.items()}
        case list() | tuple():
            return [ready_for_json(each) for each in value]
        case bytes():
            return value.hex()
        case _:
            return _text(str(value))


def _is_ready(column: Sequence[Any]) -> bool:
    """Whether `ready_for_json` leaves every cell of a column as it is, and none is long; in doubt it is not."""
    kinds = set(map(type, column))
    if kinds == {str}:
        together = "\n".join(column)
        whole = max(map(len, column)) <= _SHORT and storable(together) == together
        return whole and not _MAY_HOLD_SECRETS.search(together)
    return kinds <= {bool, float, int} and all(-_LARGE < number < _LARGE for number in column)


def _are_keys(column: Sequence[Any]) -> bool:
    return "" not in column and {*map(type, column)} <= {str} and _is_ready(column)


def _misnamed(table: str, number: int, place: object, column: str) -> str | None:
    """What is wrong with the name of a place, None if nothing is."""
    if not isinstance(place, str) or not place.strip():
        if place is None or isinstance(place, str):
            return f"Row {number} of {table} has nothing in the column {column}."
        return f"Row {number} of {table} holds {str(place)[:40]} in the column {column}, and no text."
    try:
        _ = place.isascii() or os.fsencode(place)
    except UnicodeEncodeError:  # JSON may hold halves of characters, which no file system takes
        return f"Row {number} of {table} names something with halves of characters in it."
    return None


def _text(value: str) -> str:
    whole = storable(value)
    return redacted(whole) if _MAY_HOLD_SECRETS.search(whole) else whole


_column = lru_cache(maxsize=1000)(_text)
"""The name of a column, which is the same in each row."""


def _object(value: object) -> Mapping[str, Any] | None:
    """A JSON object, as it is or as text; None for anything else."""
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, Mapping) else None


def _key(value: object) -> str | None:
    if isinstance(value, float):
        # a column of whole numbers of which some are missing
        value = int(value) if value.is_integer() else value if math.isfinite(value) else None
    if isinstance(value, bytes):
        value = value.hex()
    return None if value is None or value == "" else _text(str(value))


def _type_of(cell: str) -> Callable[[str], Any]:
    if _NUMBER.fullmatch(cell):
        return _number
    return _truth if cell.lower() in _TRUTHS else str


def _number(cell: str) -> int | float | str:
    if _INTEGER.fullmatch(cell):
        return int(cell)
    # text where the table has changed since its columns were looked at
    return float(cell) if _NUMBER.fullmatch(cell) else cell


def _truth(cell: str) -> bool | str:
    return _TRUTHS.get(cell.lower(), cell)
