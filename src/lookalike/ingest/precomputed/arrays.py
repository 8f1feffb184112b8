"""NumPy's ``.npz`` files, read a few rows at a time; nothing in them is ever unpickled."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from lookalike.errors import ConfigurationError
from lookalike.uris import redacted

Array: TypeAlias = npt.NDArray[Any]

_CHUNK_BYTES = 16 << 20
_LARGEST_ROW = 4 << 20
_LONGEST_HEADER = 10_000
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """What an array says of itself.

    Attributes:
        shape: as it is in memory; the first number counts rows.
        row_bytes: of one row.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def row_bytes(self) -> int:
        """How long a row is, of a scalar the scalar itself."""
        size = self.dtype.itemsize
        for length in self.shape[1:]:
            size *= length
        return size


@dataclass(frozen=True)
class Arrays:
    """The arrays of a local ``.npz`` file. `check` first.

    Attributes:
        name: how the file is called in messages.
    """

    path: Path
    name: str

    def check(self) -> None:
        """Read everything once, so that damage shows before anything is stored.

        Raises:
            ConfigurationError: it is none, is damaged, or holds what cannot be read in safety.
        """
        with self._opened() as archive:
            for array, header in self.headers.items():
                if header.dtype.hasobject:
                    raise self._refused(
                        array,
                        f"holds Python objects, which are never unpickled. Save it as numbers or text: {_AS_TEXT}",
                    )
                if header.fortran and len(header.shape) > 1:
                    raise self._refused(
                        array, "lies column by column (Fortran order). Save it as numpy.ascontiguousarray(…)."
                    )
                if header.dtype.kind not in "biufSUMmV" or header.dtype.names is not None:
                    raise self._refused(
                        array, f"is of the type {header.dtype}. Numbers, truths, text and dates are read."
                    )
                if header.row_bytes > _LARGEST_ROW:
                    raise self._refused(
                        array, f"has rows of {header.row_bytes:,} bytes; {_LARGEST_ROW:,} are the most."
                    )
                with self._translated(), archive.open(f"{array}.npy") as member:
                    # to the end, where the checksum is compared
                    while member.read(_BLOCK):
                        pass

    @cached_property
    def headers(self) -> dict[str, Header]:
        """The arrays by name.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        found: dict[str, Header] = {}
        with self._opened() as archive, self._translated():
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    continue
                array = info.filename.removesuffix(".npy")
                if array in found:
                    raise ConfigurationError(f"{self.name} has two arrays of the name {array!r}. Save it anew.")
                with archive.open(info) as member:
                    header = _header(member)
                    length = member.tell()
                if not header.dtype.hasobject and info.file_size - length != _bytes(header):
                    raise self._refused(array, "does not have the size that it says it has: the file is damaged.")
                found[array] = header
        return found

    def chunks(self, names: Sequence[str], rows: int, most: int) -> Iterator[dict[str, Array]]:
        """The rows of some arrays that have `rows` of them, together, up to `most` at a time.

        Raises:
            ConfigurationError: the rest cannot be read.
        """
        row_bytes = max((self.headers[name].row_bytes for name in names), default=1)
        step = max(1, min(most, _CHUNK_BYTES // max(row_bytes, 1)))
        with self._opened() as archive, contextlib.ExitStack() as stack, self._translated():
            members = {name: stack.enter_context(archive.open(f"{name}.npy")) for name in names}
            for member in members.values():
                _header(member)
            for first in range(0, rows, step):
                count = min(step, rows - first)
                yield {name: _read(member, self.headers[name], count) for name, member in members.items()}

    def scalar(self, name: str) -> Array:
        """An array that is a single value, or of a single one."""
        with self._opened() as archive, self._translated(), archive.open(f"{name}.npy") as member:
            _header(member)
            header = self.headers[name]
            return np.frombuffer(_whole(member, header.dtype.itemsize), header.dtype)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            archive = zipfile.ZipFile(self.path)
        except OSError as error:
            raise ConfigurationError(f"{self.name} cannot be read: {error.strerror}.") from None
        except Exception:
            raise ConfigurationError(
                f"{self.name} is no .npz file, or only a part of one. Save it with numpy.savez."
            ) from None
        with archive:
            yield archive

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ConfigurationError:
            raise
        except Exception as error:
            # whatever a decompressor or a parser makes of damage
            reason = redacted(str(error))[:200] or type(error).__name__
            raise ConfigurationError(f"{self.name} is damaged, or no .npz file: {reason}") from None

    def _refused(self, array: str, why: str) -> ConfigurationError:
        return ConfigurationError(f"The array {array!r} of {self.name} {why}")


_AS_TEXT = "numpy.array(values, dtype=str)"


def _header(member: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member, max_header_size=_LONGEST_HEADER)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(member, max_header_size=_LONGEST_HEADER)
    else:
        raise ValueError(f"an array is written in version {version[0]}.{version[1]} of the format, which is not read")
    if any(length < 0 for length in shape):
        raise ValueError("an array has a negative length")
    return Header(tuple(shape), dtype, fortran)


def _bytes(header: Header) -> int:
    size = header.dtype.itemsize
    for length in header.shape:
        size *= length
    return size


def _read(member: IO[bytes], header: Header, count: int) -> Array:
    data = _whole(member, header.row_bytes * count)
    if header.row_bytes == 0:
        return np.zeros((count, *header.shape[1:]), header.dtype)
    return np.frombuffer(data, header.dtype).reshape(count, *header.shape[1:])


def _whole(member: IO[bytes], size: int) -> bytes:
    data = member.read(size)
    while len(data) < size:
        more = member.read(size - len(data))
        if not more:
            raise EOFError("it ends before it should")
        data += more
    return data


def python_values(array: Array) -> list[Any]:
    """Rows as Python has them, ready to be made JSON of: text, numbers, truths, dates in ISO 8601, lists of them."""
    match array.dtype.kind:
        case "S":
            return cast("list[Any]", np.char.decode(array, "utf-8", "replace").tolist())
        case "M":
            return _without(np.isnat(array), np.datetime_as_string(array))
        case "m":
            return _without(np.isnat(array), array.astype(str))
        case "f" if array.dtype.itemsize < 8:
            # 0.1 stays 0.1
            return cast("list[Any]", array.astype(str).astype(np.float64).tolist())
        case "f":
            return cast("list[Any]", array.astype(np.float64).tolist())
        case "V":
            return [value.tobytes().hex() for value in array]
        case _:
            return cast("list[Any]", array.tolist())


def _without(missing: Array, texts: Array) -> list[Any]:
    values: Array = texts.astype(object)
    values[missing] = None
    return cast("list[Any]", values.tolist())
