"""The vectors that the emulator answers with: recorded ones where it has them, else computed from the input."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import ConfigurationError

DIMENSIONS = 1024

# A number is the sum of six bytes of a hash, which is nearly normally distributed, on a scale that gives vectors the
# length of Azure's real ones (92). All of it is integer arithmetic and IEEE rounding, so every machine agrees; and
# with only 1531 possible numbers, their JSON can be written once.
_BYTES_A_NUMBER = 6
_LEVELS = ((np.arange(_BYTES_A_NUMBER * 255 + 1) - 765) * 0.0159).astype(np.float16)
_LEVELS_AS_JSON = [repr(number) for number in _LEVELS.astype(np.float64).tolist()]

_RECORDED_IN_JSON = 1024


def expected_vector(data: bytes | str, model_version: str, dimensions: int = DIMENSIONS) -> npt.NDArray[np.float32]:
    """The vector that the emulator computes for a picture or text of which it has no recording.

    Equal input gives equal output on every machine; another version or another input gives an unrelated vector.
    The same bytes as a picture and as a text are two inputs. All numbers are float16 values, as those of Azure's
    2022-04-11 model are, so half precision stores them without loss; the vector's length is near 92, not 1.

    Args:
        data: the bytes of a picture, or a text.
        model_version: what the service calls its model, for example ``2023-04-15``.
        dimensions: how many numbers the model is asked for.

    Returns:
        float32, shape ``(dimensions,)``.
    """
    return _LEVELS[_levels(_digest(data), isinstance(data, str), model_version, dimensions)].astype(np.float32)


class Vectors:
    """Recorded and computed vectors, written as JSON numbers."""

    def __init__(self, recordings: Path | None = None) -> None:
        """Read `recordings`, an ``.npz`` file.

        It holds ``sha256`` (hex digests of the pictures), ``vectors`` (count × 1024, any float type) and ``model``
        (one name, ``provider/version``); other arrays are ignored.

        Raises:
            ConfigurationError: the file is missing, is no ``.npz`` file, or holds something else.
        """
        self.recorded_model: str | None = None
        self._rows: dict[bytes, int] = {}
        if recordings is not None:
            self.recorded_model, self._rows, self._recorded = _load(recordings)
        self._recorded_numbers = lru_cache(maxsize=_RECORDED_IN_JSON)(self._write_recorded)
        self._described: dict[str, bytes] = {}

    def describe(self, data: bytes, text: str) -> None:
        """From now on the vector of `text` is near that of `data`, under every model."""
        self._described[text] = data

    def numbers(self, data: bytes | str, model: str, dimensions: int = DIMENSIONS) -> tuple[str, ...]:
        """The numbers of `data` under `model` (``provider/version``), each as JSON writes it."""
        if isinstance(data, str) and data in self._described:
            return _written(self._vector(data, model, dimensions))
        digest = _digest(data)
        row = self._recorded_row(data, digest, model, dimensions)
        if row is not None:
            return self._recorded_numbers(row)
        levels = _levels(digest, isinstance(data, str), model.partition("/")[2], dimensions)
        return tuple([_LEVELS_AS_JSON[level] for level in levels.tolist()])

    def fused(self, parts: Sequence[bytes | str], model: str, dimensions: int = DIMENSIONS) -> tuple[str, ...]:
        """The numbers of several things as one: as near to each of them as to the others."""
        if len(parts) == 1:
            return self.numbers(parts[0], model, dimensions)
        return _written(np.mean([self._vector(part, model, dimensions) for part in parts], axis=0))

    def _vector(self, data: bytes | str, model: str, dimensions: int) -> npt.NDArray[np.float64]:
        row = self._recorded_row(data, _digest(data), model, dimensions)
        if row is not None:
            recorded: npt.NDArray[np.float64] = self._recorded[row].astype(np.float64)
            return recorded
        vector = expected_vector(data, model.partition("/")[2], dimensions).astype(np.float64)
        described = self._described.get(data) if isinstance(data, str) else None
        return vector if described is None else vector / 2 + self._vector(described, model, dimensions)

    def _recorded_row(self, data: bytes | str, digest: bytes, model: str, dimensions: int) -> int | None:
        if model == self.recorded_model and isinstance(data, bytes) and dimensions == DIMENSIONS:
            return self._rows.get(digest)
        return None

    def _write_recorded(self, row: int) -> tuple[str, ...]:
        # Through float64, whose repr has all the digits that it takes to read the same number again.
        return tuple(repr(number) for number in self._recorded[row].astype(np.float64).tolist())


def _digest(data: bytes | str) -> bytes:
    # JSON can escape half a surrogate pair, which UTF-8 proper cannot write.
    return hashlib.sha256(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data).digest()


def _written(vector: npt.NDArray[np.float64]) -> tuple[str, ...]:
    return tuple(repr(number) for number in vector.astype(np.float16).astype(np.float64).tolist())


def _levels(digest: bytes, is_text: bool, model_version: str, dimensions: int) -> npt.NDArray[np.intp]:
    seed = b"\0".join((b"text" if is_text else b"image", model_version.encode(), digest))
    noise = hashlib.shake_256(seed).digest(dimensions * _BYTES_A_NUMBER)
    grouped = np.frombuffer(noise, dtype=np.uint8).reshape(_BYTES_A_NUMBER, dimensions)
    levels: npt.NDArray[np.intp] = grouped.sum(axis=0, dtype=np.intp)
    return levels


def _load(path: Path) -> tuple[str, dict[bytes, int], npt.NDArray[np.floating[Any]]]:
    try:
        arrays = _read_arrays(path)
    except FileNotFoundError:
        raise ConfigurationError(f"There is no file of recordings at {path}.") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigurationError(
            f"{path} cannot be read as recordings: {error}. Recordings are an .npz file, as numpy.savez writes it."
        ) from error
    missing = sorted({"sha256", "vectors", "model"} - arrays.keys())
    if missing:
        raise ConfigurationError(f"The recordings in {path} lack: {', '.join(missing)}.")

    vectors, names, hashes = arrays["vectors"], np.unique(arrays["model"]), arrays["sha256"].ravel().tolist()
    if vectors.ndim != 2 or vectors.shape[1] != DIMENSIONS or not np.issubdtype(vectors.dtype, np.floating):
        raise ConfigurationError(
            f"'vectors' in {path} is {vectors.dtype} of shape {vectors.shape}; "
            f"it must be floating point of shape (count, {DIMENSIONS})."
        )
    if not np.isfinite(vectors).all():
        raise ConfigurationError(f"'vectors' in {path} holds numbers that are not finite.")
    if len(hashes) != len(vectors):
        raise ConfigurationError(f"{path} holds {len(vectors)} vectors, but {len(hashes)} values of 'sha256'.")
    if names.size != 1:
        raise ConfigurationError(f"'model' in {path} must name one model for all vectors; it names {names.size}.")
    try:
        rows = {bytes.fromhex(str(text)): row for row, text in enumerate(hashes)}
    except ValueError:
        raise ConfigurationError(f"'sha256' in {path} must hold hex digests.") from None
    return str(names.item()), rows, vectors


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with archive:
            return {name: archive[name] for name in ("sha256", "vectors", "model") if name in archive}
