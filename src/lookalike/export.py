"""Vectors on their way out: to a file of NumPy or Parquet, which an import takes back as it is."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import struct
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol, Self

import numpy as np

from lookalike.errors import ConfigurationError
from lookalike.filters import Where
from lookalike.reports import ExportReport
from lookalike.store.database import Database
from lookalike.store.exporting import StoredRow, stored_rows
from lookalike.store.models import StoredModel
from lookalike.types import Model

SUFFIXES = (".npz", ".parquet")

_MARK = "lookalike_export"
"""Tells an import that this is a file of ours, whose collections are no metadata."""
_FORMAT = 1
_BLOCK_BYTES = 4 << 20
_GROUP_ROWS = 4_000
_NUMBERS = "vectors.list.element"
_LEAVES = ("uri", "key", "collection", "sha256", "model", "metadata", _NUMBERS)
_FAST = 1
"""The level of compression, for texts that are mostly padding."""


def exported_to(path: str | os.PathLike[str], *, force: bool) -> Path:
    """The file that an export is to write, with links to it resolved.

    Raises:
        ConfigurationError: it has no such name, is there already, or cannot be made.
    """
    given = os.fspath(path)
    target = Path(os.path.realpath(given))
    if target.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(f"{given} ends in neither .npz nor .parquet, the files that vectors are exported to.")
    if target.suffix.lower() == ".parquet":
        _pyarrow(given)
    try:
        there = target.exists()
        if target.is_dir():
            raise ConfigurationError(f"{given} is a folder. Name a file in it, such as {given}/vectors.npz")
        if there and not target.is_file():
            raise ConfigurationError(
                f"{given} is a pipe or a device, which cannot be exported to. Name a file instead."
            )
        if there and not force:
            raise ConfigurationError(f"{given} is there already. Choose another name, or replace it with --force.")
        if not target.parent.is_dir():
            raise ConfigurationError(f"There is no folder {target.parent} to write {target.name} to. Make it first.")
    except OSError as error:
        raise ConfigurationError(f"{given} cannot be written: {error.strerror}.") from None
    return target


@dataclass(frozen=True, slots=True)
class Export:
    """One run over the stored vectors of a model.

    Args:
        target: the file to write, as `exported_to` gives it.
        collection: only its files; None for all.
        where: only the files that satisfy this.
        force: whether a file that has come there meanwhile gives way.
        progress: told after each batch how far the run is.
        stop: the caller's; once set, the run ends after the batch in hand, without a file.
    """

    database: Database
    stored: StoredModel
    target: Path
    collection: str | None
    where: Where | None
    force: bool
    progress: Callable[[ExportReport], None] | None
    stop: threading.Event | None

    def run(self) -> ExportReport:
        """Write the file.

        Raises:
            ConfigurationError: it cannot be written, or another one has taken its place meanwhile.
            DatabaseError: the database does not answer, or refuses.
        """
        began = time.monotonic()
        model = self.stored.model
        report = ExportReport(model.name, os.fspath(self.target), dimensions=model.dimensions)
        # in the same folder, so that it only has to be renamed
        part = self.target.with_name(f".{self.target.name[:100]}.{secrets.token_hex(4)}.part")
        try:
            with stored_rows(self.database, self.stored, collection=self.collection, where=self.where) as rows:
                report = replace(report, found=rows.count, images=rows.images)
                self._tell(report)
                with _writer(part, self.target.suffix.lower(), model, rows.count) as writer:
                    for page in rows.pages():
                        if self.stop is not None and self.stop.is_set():
                            return replace(report, stopped="interrupted", seconds=time.monotonic() - began)
                        writer.write(page)
                        report = replace(report, rows=report.rows + len(page), seconds=time.monotonic() - began)
                        self._tell(report)
                    writer.finish()
            size = self._put_in_place(part)
        except OSError as error:
            raise ConfigurationError(
                f"{self.target} cannot be written: {error.strerror or error}. No part of it was left."
            ) from None
        finally:
            # where it could not be made, it can sometimes not be removed either
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        return replace(report, bytes=size, seconds=time.monotonic() - began)

    def _put_in_place(self, part: Path) -> int:
        with part.open("rb") as file:
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        if self.target.exists() and not self.force:
            raise ConfigurationError(f"Meanwhile somebody else has made {self.target}. Choose another name.")
        part.replace(self.target)
        return size

    def _tell(self, report: ExportReport) -> None:
        if self.progress is not None:
            self.progress(report)


class _Writer(Protocol):
    """Writes rows to a file in the making; what was not finished is no file."""

    def write(self, rows: Sequence[StoredRow]) -> None: ...
    def finish(self) -> None: ...


@contextlib.contextmanager
def _writer(path: Path, suffix: str, model: Model, count: int) -> Iterator[_Writer]:
    with contextlib.ExitStack() as stack:
        yield _Npz(path, model, count, stack) if suffix == ".npz" else _Parquet(path, model, stack)


# -- NumPy -----------------------------------------------------------------------------------------------------------


class _Npz:
    """The vectors go straight into the archive; texts wait in temporary files until it is known how long they get."""

    def __init__(self, path: Path, model: Model, count: int, stack: contextlib.ExitStack) -> None:
        self._model, self._count, self._stack = model, count, stack
        self._archive = stack.enter_context(zipfile.ZipFile(path, "x", allowZip64=True))
        self._texts = {
            # code points, as texts are in NumPy, but for what may be long; JSON is read from bytes as well
            name: stack.enter_context(_Texts(path.parent, wide=name != "metadata"))
            for name in ("uri", "key", "collection", "sha256", "metadata")
        }
        # half-precision numbers hardly get smaller
        self._vectors = stack.enter_context(self._member("vectors", zipfile.ZIP_STORED))
        _begin(self._vectors, np.dtype("<f2"), (count, model.dimensions))

    def write(self, rows: Sequence[StoredRow]) -> None:
        for row in rows:
            self._vectors.write(row.vector.astype("<f2").tobytes())
            self._texts["uri"].add(row.uri)
            self._texts["key"].add(row.key or "")
            self._texts["collection"].add(row.collection)
            self._texts["sha256"].add(row.sha256.hex() if row.sha256 is not None else "")
            self._texts["metadata"].add(_ascii(row.metadata))

    def finish(self) -> None:
        self._vectors.close()
        for name, texts in self._texts.items():
            with self._member(name, zipfile.ZIP_DEFLATED) as member:
                _begin(member, texts.dtype, (self._count,))
                for block in texts.blocks():
                    member.write(block)
        for name, value in (("model", np.array(self._model.name)), (_MARK, np.array(_FORMAT))):
            with self._member(name, zipfile.ZIP_STORED) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)
        self._archive.close()

    def _member(self, name: str, compression: int) -> IO[bytes]:
        info = zipfile.ZipInfo(f"{name}.npy", time.localtime()[:6])
        info.compress_type = compression
        info._compresslevel = _FAST  # type: ignore[attr-defined]
        return self._archive.open(info, "w", force_zip64=True)


class _Texts:
    """Texts in a temporary file, to be padded to the length of the longest one."""

    def __init__(self, folder: Path, *, wide: bool) -> None:
        # where there is room for the file itself, and not in memory as some have their /tmp
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._wide, self._longest = wide, 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of an array that takes the longest one."""
        return np.dtype(f"<U{self._longest}" if self._wide else f"S{self._longest}")

    def add(self, text: str) -> None:
        """Keep a text."""
        data = text.encode("utf-32-le" if self._wide else "ascii")
        self._longest = max(self._longest, len(text))
        self._file.write(struct.pack("<I", len(data)) + data)

    def blocks(self) -> Iterator[bytes]:
        """All texts as an array of `dtype` has them, some at a time."""
        size = self.dtype.itemsize
        self._file.seek(0)
        block = bytearray()
        while head := self._file.read(4):
            (length,) = struct.unpack("<I", head)
            block += self._file.read(length).ljust(size, b"\0")
            if len(block) >= _BLOCK_BYTES:
                yield bytes(block)
                block.clear()
        yield bytes(block)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _begin(member: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)


def _ascii(text: str) -> str:
    """JSON with every other character escaped; numbers stay as they are written."""
    if text.isascii():
        return text
    escaped = (c if c.isascii() else json.dumps(c)[1:-1] for c in text)
    return "".join(escaped)


# -- Parquet ---------------------------------------------------------------------------------------------------------


class _Parquet:
    """A row group for some pages together."""

    def __init__(self, path: Path, model: Model, stack: contextlib.ExitStack) -> None:
        pyarrow, parquet = _pyarrow(os.fspath(path))
        self._arrow, self._model = pyarrow, model
        text = pyarrow.string()
        self._schema = pyarrow.schema(
            [
                pyarrow.field("uri", text, nullable=False),
                pyarrow.field("key", text),
                pyarrow.field("collection", text, nullable=False),
                pyarrow.field("sha256", text),
                pyarrow.field("model", pyarrow.dictionary(pyarrow.int32(), text), nullable=False),
                pyarrow.field("metadata", text, nullable=False),
                pyarrow.field("vectors", pyarrow.list_(pyarrow.float16(), model.dimensions), nullable=False),
            ],
            # the model once more, for a file without rows
            metadata={_MARK: str(_FORMAT), "model": model.name},
        )
        writer = parquet.ParquetWriter(
            stack.enter_context(path.open("xb")),
            self._schema,
            # half-precision numbers hardly get smaller, and say nothing by their least and largest
            compression={name: "none" if name == _NUMBERS else "zstd" for name in _LEAVES},
            use_dictionary=["collection", "model"],
            write_statistics=["uri", "key", "collection", "sha256"],
            write_page_checksum=True,  # as a number among others could be any
        )
        self._file = stack.enter_context(writer)
        self._waiting: list[StoredRow] = []

    def write(self, rows: Sequence[StoredRow]) -> None:
        self._waiting += rows
        if len(self._waiting) >= _GROUP_ROWS:
            self._write()

    def finish(self) -> None:
        self._write()
        self._file.close()

    def _write(self) -> None:
        rows, self._waiting = self._waiting, []
        arrow = self._arrow
        numbers = np.concatenate([row.vector for row in rows]) if rows else np.zeros(0, np.float16)
        columns = [
            arrow.array([row.uri for row in rows], arrow.string()),
            arrow.array([row.key for row in rows], arrow.string()),
            arrow.array([row.collection for row in rows], arrow.string()),
            arrow.array([row.sha256.hex() if row.sha256 is not None else None for row in rows], arrow.string()),
            arrow.DictionaryArray.from_arrays(np.zeros(len(rows), np.int32), [self._model.name]),
            arrow.array([row.metadata for row in rows], arrow.string()),
            arrow.FixedSizeListArray.from_arrays(arrow.array(numbers, arrow.float16()), self._model.dimensions),
        ]
        self._file.write_batch(arrow.RecordBatch.from_arrays(columns, schema=self._schema))


def _pyarrow(name: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigurationError(
            f"Writing {name} takes one more package: pip install 'lookalike[parquet]'. A .npz file takes none."
        ) from None
    return pyarrow, pyarrow.parquet
