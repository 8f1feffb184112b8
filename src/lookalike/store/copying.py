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
    """Copy vectors of one model and one length into `lookalike.embeddings`.

    Rows of equal length are one array to NumPy, so that nothing is done for each of them in Python.
    """
    with connection.cursor().copy(_copy("lookalike.embeddings", ("image_id", "model_id", "embedding"))) as copy:
        copy.write(_SIGNATURE)
        for first in range(0, len(image_ids), _TOGETHER):
            ids, numbers = image_ids[first : first + _TOGETHER], np.array(vectors[first : first + _TOGETHER])
            rows = np.zeros(len(ids), _EMBEDDING)
            rows["columns"] = 3
            rows["image_id_bytes"], rows["image_id"] = 16, np.frombuffer(b"".join(ids), "V16")
            rows["model_id_bytes"], rows["model_id"] = 4, model_id
            rows["embedding_bytes"], rows["dimensions"] = 4 + 2 * DIMENSIONS, DIMENSIONS
            rows["numbers"][:, : numbers.shape[1]] = numbers  # zeros behind those of a model that gives fewer
            copy.write(rows.tobytes())
        copy.write(_END)


def _copy(table: str, columns: Iterable[str]) -> bytes:
    return f"copy {table} ({', '.join(columns)}) from stdin (format binary)".encode()
