"""Binary COPY: rows of any types, and embeddings by the hundred."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import psycopg

from lookalike.types import DIMENSIONS, StoredVector

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_TOGETHER = 500  # rows; their numbers then fit into a processor's cache
_LANDMARKS = 128
_LOOKED_AT = 128
"""So many numbers of each vector tell well enough which ones are alike."""
_WITHOUT_THREADS = 16
"""Rows that NumPy multiplies at once; for more, OpenBLAS wakes threads that go on spinning at the server's expense."""
_EMBEDDING = np.dtype(
    [
        ("columns", ">i2"),
        ("image_id_bytes", ">i4"),
        ("image_id", "V16"),
        ("model_id_bytes", ">i4"),
        ("model_id", ">i4"),
        ("embedding_bytes", ">i4"),
        ("dimensions", ">i2"),
        ("unused", ">i2"),
        ("numbers", ">f2", (DIMENSIONS,)),
    ]
)
"""A row of `lookalike.embeddings` as PostgreSQL and pgvector read it."""


def copy_rows(
    connection: psycopg.Connection, table: str, columns: Mapping[str, str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """Copy rows into a table.

    Args:
        columns: the type of each.
    """
    with connection.cursor().copy(_copy(table, columns)) as copy:
        copy.set_types(list(columns.values()))
        for row in rows:
            copy.write_row(row)


def copy_embeddings(
    connection: psycopg.Connection, model_id: int, image_ids: Sequence[bytes], vectors: Sequence[StoredVector]
) -> None:
    """Copy vectors of one model and one length into `lookalike.embeddings`, those that are alike together.

    Rows of equal length are one array to NumPy, so that nothing is done for each of them in Python.
    """
    order = _alike_together(vectors) if vectors else []
    with connection.cursor().copy(_copy("lookalike.embeddings", ("image_id", "model_id", "embedding"))) as copy:
        copy.write(_SIGNATURE)
        for first in range(0, len(order), _TOGETHER):
            some = order[first : first + _TOGETHER]
            ids, numbers = [image_ids[n] for n in some], np.array([vectors[n] for n in some])
            rows = np.zeros(len(ids), _EMBEDDING)
            rows["columns"] = 3
            rows["image_id_bytes"], rows["image_id"] = 16, np.frombuffer(b"".join(ids), "V16")
            rows["model_id_bytes"], rows["model_id"] = 4, model_id
            rows["embedding_bytes"], rows["dimensions"] = 4 + 2 * DIMENSIONS, DIMENSIONS
            rows["numbers"][:, : numbers.shape[1]] = numbers  # zeros behind those of a model that gives fewer
            copy.write(rows.tobytes())
        copy.write(_END)


def _alike_together(vectors: Sequence[StoredVector]) -> list[int]:
    """An order of vectors in which those that are alike lie near each other: their places, each once.

    What a search looks at lies on fewer pages then, of the table and of the index that is built from it, and so does
    what a build looks at (docs/decisions/0013). It goes by the two nearest of some of them.
    """
    looked_at = np.array([vector[:_LOOKED_AT] for vector in vectors]).astype(np.float32)
    landmarks = looked_at[:: max(1, len(vectors) // _LANDMARKS)]
    lengths = np.linalg.norm(landmarks, axis=1, keepdims=True)
    directions = (landmarks / np.maximum(lengths, np.finfo(np.float32).tiny)).T
    slices = range(0, len(vectors), _WITHOUT_THREADS)
    likeness = np.concatenate([looked_at[first : first + _WITHOUT_THREADS] @ directions for first in slices])
    nearest = likeness.argmax(axis=1)
    likeness[np.arange(len(vectors)), nearest] = -np.inf
    order: list[int] = np.lexsort((likeness.argmax(axis=1), nearest)).tolist()
    return order


def _copy(table: str, columns: Iterable[str]) -> bytes:
    return f"copy {table} ({', '.join(columns)}) from stdin (format binary)".encode()
