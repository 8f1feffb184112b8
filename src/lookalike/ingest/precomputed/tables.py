"""Files of vectors, whatever their form: rows that say where a picture lies and what its vector is."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from lookalike.errors import ConfigurationError, SourceNotFound
from lookalike.ingest.precomputed.arrays import Array, Arrays, python_values
from lookalike.ingest.precomputed.number_reader import packed_numbers
from lookalike.ingest.precomputed.readers_beside import ReadersBeside
from lookalike.ingest.sources.manifests import SUFFIXES, Row, Table, column_called, rows_of, uri_column_among
from lookalike.types import StoredVector
from lookalike.uris import path_of, uri_of, without_secrets

Numbers: TypeAlias = npt.NDArray[Any]
"""A vector as a file has it: of whatever real type and length."""

Problem: TypeAlias = tuple[str, str]
"""Code and message of what keeps a row from being stored."""

URI_COLUMNS = ("uri", "files")
VECTOR_COLUMNS = ("vectors", "vector", "embedding")
_ROWS = 1_000
ROWS_TO_LEARN_FROM = 100
MOST_MODELS = 5
_LONGEST_VECTOR = 100_000
_MUCH_TEXT = 32 << 20
"""Bytes of a text table from which on it pays to start further processes."""
METADATA_COLUMNS = ("metadata",)
EXPORTED = "lookalike_export"
"""What says of a file that `lookalike export` has written it: an array, or a note of a Parquet file."""
_NO_VECTOR = "no-vector", "The row has no vector."
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_TOGETHER = 500  # vectors; their numbers then fit into a processor's cache
_INFINITY = 0x7C00
_HEX = re.compile(r"(?:sha256:|\\x|0x)?([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class VectorRow:
    """One row of a file of vectors.

    Attributes:
        row: where the picture lies, its key and metadata, or why the row cannot be used.
        vector: shape ``(n,)``, of whatever length and not checked; None where there is none.
        sha256: digest of the picture's bytes, 32 bytes long, if the file knows it.
        model: what the row says it belongs to, if it does.
        error: why vector or digest cannot be read; code and message.
    """

    row: Row
    vector: Numbers | None = None
    sha256: bytes | None = None
    model: str | None = None
    error: Problem | None = None


class VectorTable(Protocol):
    """A file or a table of vectors.

    Attributes:
        name: how it is called in messages.
        uri: how it is called in what is stored of its rows.
        folder: where relative paths in it begin.
        count: its rows.
        width: how long its vectors are; None where it holds none.
        models: the models that its rows name, a few of them; None among them where a row names none.
    """

    name: str
    uri: str
    folder: Path

    @property
    def count(self) -> int: ...
    @property
    def width(self) -> int | None: ...
    @property
    def models(self) -> Sequence[str | None]: ...
    def rows(self) -> Generator[VectorRow, None, None]:
        """Every row, in order. Close it before its end, and what it has started ends with it.

        Raises:
            ConfigurationError: the rest cannot be read.
        """


def open_table(
    name: str | os.PathLike[str],
    *,
    uri_column: str | None = None,
    vector_column: str | None = None,
    key_column: str | None = None,
) -> VectorTable:
    """Open a file of vectors and read it once.

    Args:
        uri_column, vector_column, key_column: columns or arrays whose names do not tell what they are.

    Raises:
        SourceNotFound: there is no such file.
        ConfigurationError: it cannot be read, is damaged, or does not have the columns.
    """
    given = os.fspath(name)
    path = Path((path_of(given) if given.startswith("file://") else None) or given)
    shown = without_secrets(given)
    if not path.is_file():
        raise SourceNotFound(f"There is no file {shown!r} to import.")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _NpzTable(path, shown, uri_column, vector_column, key_column)
    if suffix in SUFFIXES:
        return _TextTable(path, shown, uri_column, vector_column, key_column)
    alone = " A .npy file holds one array, and says nothing of the pictures." if suffix == ".npy" else ""
    raise ConfigurationError(
        f"{shown} ends in none of .npz, {', '.join(sorted(SUFFIXES))}, the files that can be imported.{alone}"
    )


# -- tables ----------------------------------------------------------------------------------------------------------


class _TextTable:
    """CSV and its like, JSON Lines and Parquet; a vector is a cell."""

    def __init__(
        self, path: Path, name: str, uri_column: str | None, vector_column: str | None, key_column: str | None
    ) -> None:
        self.name, self.uri, self.folder, self._path = name, uri_of(path), path.absolute().parent, path
        columns = (unnamed := Table(path, name)).columns
        self._vectors = named_column(name, "column", "--vector-column", vector_column, VECTOR_COLUMNS, columns)
        self._sha256 = column_called(("sha256",), columns)
        self._model = column_called(("model",), columns)
        notes = unnamed.notes if EXPORTED in unnamed.notes else {}
        own = {column_called(("collection",), columns)} if notes else set()
        apart = ({self._vectors, self._sha256, self._model} | own) - {None, uri_column, key_column}
        self._table = Table(
            path,
            name,
            uri_column or column_called(URI_COLUMNS, columns, apart),
            key_column or column_called(("key",), columns, apart),
            apart=frozenset(column for column in apart if column is not None),
            unfolded=column_called(METADATA_COLUMNS, columns, apart | {uri_column, key_column}),
            lists=self._vectors if path.suffix.lower() in (".csv", ".tsv") and self._vectors in apart else None,
        )
        self._table.check()
        lengths: Counter[int] = Counter()
        models: dict[str | None, None] = {}
        for row in islice(self._table.rows(), ROWS_TO_LEARN_FROM):
            if row.error is None:
                models[self._model_of(row)] = None
                vector, _ = self._vector_of(row)
                if vector is not None:
                    lengths[len(vector)] += 1
        if self._model is not None:
            # all of them, as every row may name one
            for model in self._table.cells(self._model):
                if len(models) >= MOST_MODELS:
                    break
                models[named_model(model)] = None
        if not models and "model" in notes:
            models[named_model(notes["model"])] = None
        self.width = lengths.most_common(1)[0][0] if lengths else None
        self.models: Sequence[str | None] = tuple(models)

    @cached_property
    def count(self) -> int:
        return sum(1 for _ in self._table.skim())

    def rows(self) -> Generator[VectorRow, None, None]:
        if self._table.lists is None or self._path.stat().st_size < _MUCH_TEXT:
            yield from map(self._vector_row, self._table.rows())
            return
        with ReadersBeside() as readers:
            for row, vector in readers.vectors(self._table.rows(), self._list_of):
                yield self._vector_row(row, vector)

    def _list_of(self, row: Row) -> bytes | None:
        """The vector as it is in the file, where it is so written that all its numbers can be read at once."""
        cell = row.apart.get(self._vectors)
        return cell if isinstance(cell, bytes) and len(cell) <= _LONGEST_VECTOR else None

    def _vector_of(self, row: Row) -> tuple[Numbers | None, Problem | None]:
        cell = row.apart.get(self._vectors)
        if self._table.lists is not None and isinstance(cell, bytes):
            cell = cell.decode("utf-8", "surrogateescape")
        return vector_of(cell)

    def _vector_row(self, row: Row, vector: Numbers | None = None) -> VectorRow:
        if row.error is not None:
            return VectorRow(row)
        error: Problem | None = None
        if vector is None:
            vector, error = self._vector_of(row)
        try:
            sha256 = digest_of(row.apart.get(self._sha256)) if self._sha256 is not None else None
        except ValueError as refused:
            sha256, error = None, error or ("bad-sha256", str(refused))
        return VectorRow(row, vector, sha256, self._model_of(row), error)

    def _model_of(self, row: Row) -> str | None:
        return named_model(row.apart.get(self._model)) if self._model is not None else None


# -- arrays ----------------------------------------------------------------------------------------------------------


class _NpzTable:
    """A ``.npz`` file with an array of vectors, one to a row, and others beside it."""

    def __init__(
        self, path: Path, name: str, uri_array: str | None, vector_array: str | None, key_array: str | None
    ) -> None:
        self.name, self.uri, self.folder = name, uri_of(path), path.absolute().parent
        self._arrays = Arrays(path, name)
        headers = self._arrays.headers
        columns = list(headers)
        self._vectors = named_column(name, "array", "--vector-column", vector_array, VECTOR_COLUMNS, columns)
        self._sha256 = column_called(("sha256",), columns)
        self._model = column_called(("model",), columns)
        own = {EXPORTED, column_called(("collection",), columns)} if EXPORTED in columns else set()
        apart = ({self._vectors, self._sha256, self._model} | own) - {None, uri_array, key_array}
        self._key = (
            named_column(name, "array", "--key-column", key_array, (), columns)
            if key_array is not None
            else column_called(("key",), columns, apart)
        )
        uri_array = uri_array or uri_column_among(columns, {self._key} | apart, first=URI_COLUMNS)
        self._uris = named_column(name, "array", "--uri-column", uri_array, URI_COLUMNS, columns)
        self._unfolded = column_called(METADATA_COLUMNS, columns, apart | {self._key, self._uris})
        self._apart = {array for array in apart if array is not None}
        self._arrays.check()
        vectors = headers[self._vectors]
        if len(vectors.shape) != 2 or vectors.dtype.kind not in "fiu":
            raise ConfigurationError(
                f"The array {self._vectors!r} of {name} has the shape {vectors.shape} and the type {vectors.dtype}. "
                "Vectors are numbers, one row for each picture: (rows, dimensions)."
            )
        self.count, width = vectors.shape
        self.width = width if self.count else None
        if headers[self._uris].dtype.kind not in "US":
            raise ConfigurationError(
                f"The array {self._uris!r} of {name} is no text but {headers[self._uris].dtype}. "
                "Name the one of paths or URLs with --uri-column."
            )
        self._scalars: dict[str, Array] = {}
        for array, header in headers.items():
            single = header.shape == () or (header.shape == (1,) and self.count != 1)
            if single and array not in (self._vectors, self._uris):
                self._scalars[array] = self._arrays.scalar(array)
            elif not header.shape or header.shape[0] != self.count:
                raise ConfigurationError(
                    f"The array {array!r} of {name} has {header.shape[0] if header.shape else 1:,} rows, and "
                    f"{self._vectors!r} has {self.count:,}: each picture has one of each."
                )
        for single_column in (self._uris, self._model, self._key):
            if single_column is not None and len(headers[single_column].shape) > 1:
                raise ConfigurationError(f"The array {single_column!r} of {name} has more than one column.")
        self.models = self._models_named()

    def rows(self) -> Generator[VectorRow, None, None]:
        apart = self._apart | {self._vectors} | {name for name in (self._sha256, self._model) if name is not None}
        wanted = {self._vectors, self._sha256, self._model}
        scalars = self._scalars
        rowwise = [n for n in self._arrays.headers if n not in scalars and (n not in apart or n in wanted)]
        same = {name: python_values(value)[0] for name, value in self._scalars.items() if name not in apart}
        first = 1
        for chunk in self._arrays.chunks(rowwise, self.count, _ROWS):
            vectors = chunk[self._vectors]
            count = len(vectors)
            columns: dict[str, Sequence[Any]] = {name: [value] * count for name, value in same.items()}
            columns |= {name: python_values(values) for name, values in chunk.items() if name not in apart}
            rows = rows_of(self.name, first, columns, self._uris, self._key, self._unfolded)
            digests = _digests(chunk.get(self._sha256 or ""), count)
            for row, vector, digest, model in zip(rows, vectors, digests, self._models(chunk, count), strict=True):
                error = ("bad-sha256", str(digest)) if isinstance(digest, ValueError) else None
                yield VectorRow(row, vector, digest if isinstance(digest, bytes) else None, model, error)
            first += count

    def _models_named(self) -> Sequence[str | None]:
        if self._model is None:
            return (None,)
        if self._model in self._scalars:
            return tuple(self._models({}, 1))
        found: dict[str | None, None] = {}
        for chunk in self._arrays.chunks([self._model], self.count, _ROWS):
            found |= dict.fromkeys(self._models(chunk, len(chunk[self._model])))
            if len(found) >= MOST_MODELS:
                break
        return tuple(found)

    def _models(self, chunk: Mapping[str, Array], count: int) -> list[str | None]:
        if self._model is None:
            return [None] * count
        if self._model in self._scalars:
            return [str(python_values(self._scalars[self._model])[0]).strip() or None] * count
        return [str(name).strip() or None for name in python_values(chunk[self._model])]


# -- cells -----------------------------------------------------------------------------------------------------------


def named_column(
    table: str, kind: str, option: str, given: str | None, names: Sequence[str], columns: Sequence[str]
) -> str:
    """The column that was named, or is called so; in whatever capitals."""
    listed = ", ".join(map(repr, columns)) or "none"
    if given is not None:
        found = given if given in columns else column_called((given.strip().lower(),), columns)
        if found is None:
            raise ConfigurationError(f"{table} has no {kind} {given!r}. It has {listed}.")
        return found
    found = column_called(names, columns)
    if found is None:
        raise ConfigurationError(
            f"{table} has no {kind} that is called {' or '.join(names)}. It has {listed}; name it with {option}."
        )
    return found


def named_model(cell: object) -> str | None:
    """The model that a cell names, None where it names none."""
    return (str(cell).strip() or None) if cell is not None else None


def vector_of(cell: object) -> tuple[Numbers | None, Problem | None]:
    """The numbers of a cell, or code and message of what is wrong with it."""
    if isinstance(cell, np.ndarray):
        return (cell, None) if len(cell) else (None, ("no-vector", "The vector is empty."))
    if cell is None or cell == "":
        return None, _NO_VECTOR
    if isinstance(cell, str):
        text = cell.strip()
        if len(text) > _LONGEST_VECTOR:
            return None, ("wrong-length", f"The vector is a text of {len(text):,} characters.")
        if (packed := packed_numbers(text.encode("utf-8", "replace"), "d")) is not None:
            return np.frombuffer(packed, np.float64), None
        if _BRACKETS.get(text[:1]) == text[-1:]:
            text = text[1:-1]
        parts: Sequence[Any] = text.split(",") if "," in text else text.replace(";", " ").split()
        if "_" in text:
            parts = ["_"]  # which Python takes in numbers
    elif isinstance(cell, list | tuple):
        parts = cell
    else:
        return None, ("no-vector", f"The row holds {str(cell)[:40]!r} instead of a vector.")
    try:
        with np.errstate(all="ignore"):
            # a null becomes NaN, which is refused as such
            numbers = np.array([np.nan if part is None else float(part) for part in parts], np.float64)
    except (TypeError, ValueError, OverflowError):
        return None, ("not-numbers", "The vector holds something that is no number.")
    if not len(numbers):
        return None, ("no-vector", "The vector is empty.")
    return numbers, None


def digest_of(cell: object) -> bytes | None:
    """A digest as hexadecimal text or as its 32 bytes; None where there is none."""
    if cell is None or cell in ("", b""):
        return None
    if isinstance(cell, bytes) and len(cell) == 32:
        return cell
    text = cell.decode("ascii", "replace") if isinstance(cell, bytes) else str(cell)
    match = _HEX.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text[:80]!r} is no SHA-256: 64 hexadecimal digits, or 32 bytes.")
    return bytes.fromhex(match[1])


def _digests(array: Array | None, count: int) -> list[bytes | ValueError | None]:
    if array is None:
        return [None] * count
    # NumPy takes zeros at the end of bytes for padding
    raw = array.dtype.kind in "SV" and array.dtype.itemsize == 32 and array.ndim == 1
    if raw or (array.dtype == np.uint8 and array.shape[1:] == (32,)):
        data = array.tobytes()
        return [data[first : first + 32] for first in range(0, len(data), 32)]
    values = array.tolist() if array.dtype.kind == "S" else python_values(array)
    found: list[bytes | ValueError | None] = []
    for value in values:
        try:
            found.append(digest_of(value))
        except ValueError as error:
            found.append(error)
    return found


def stored_forms(vectors: Sequence[Numbers | None], dimensions: int) -> list[StoredVector | Problem]:
    """Vectors as the tables hold them, each number rounded once to half precision; or what keeps it from being one of a
    model with so many dimensions. Many are looked at together, which takes a tenth of the time.
    """
    found: list[StoredVector | Problem] = [_NO_VECTOR] * len(vectors)
    fitting = []
    for n, vector in enumerate(vectors):
        if vector is not None and len(vector) == dimensions:
            fitting.append(n)
        elif vector is not None:
            found[n] = _wrong_length(len(vector), dimensions)
    for first in range(0, len(fitting), _TOGETHER):
        places = fitting[first : first + _TOGETHER]
        given = np.array([vectors[n] for n in places])
        with np.errstate(all="ignore"):
            half = given.astype(np.float16, copy=False)
        # without the sign, the bits of half-precision numbers are in the order of the numbers
        largest = (half.view(np.uint16) & 0x7FFF).max(axis=1)
        sound = (largest > 0) & (largest < _INFINITY)
        for n, vector, is_sound, numbers in zip(places, half, sound.tolist(), given, strict=True):
            found[n] = vector if is_sound else _damage(numbers)
    return found


def _wrong_length(length: int, dimensions: int) -> Problem:
    return "wrong-length", f"The vector has {length:,} numbers, and those of the model have {dimensions:,}."


def _damage(vector: Numbers) -> Problem:
    """What is wrong with a vector that half precision cannot hold."""
    if not np.isfinite(vector).all():
        return "not-finite", "The vector holds a number that is not finite."
    with np.errstate(all="ignore"):
        if not np.isfinite(vector.astype(np.float16)).all():
            return "out-of-range", "The vector holds a number beyond 65,504, the largest in half precision."
    return "zero-vector", "The vector holds only zeros, at least in half precision."
