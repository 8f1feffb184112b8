"""What a careful person writes by hand: psycopg 3, prepared, binary both ways, half vectors inline."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psycopg
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

EF_SEARCH = 100
"""How many candidates a scan keeps: as many as the library's own searches."""

LIBRARY = """
select e.image_id, e.embedding <=> %(query)s as distance, f.uri, f.key, f.collection, f.metadata, i.media_type
  from (select image_id, embedding from lookalike.{view} order by embedding <=> %(query)s limit 10) e
  join lookalike.files f using (image_id)
  join lookalike.images i using (image_id)
 order by distance, e.image_id
"""
"""The ten nearest images of a library with what a hit shows, by the index that the library's own searches use."""

LIBRARY_LIKE_IMAGE = """
select e.image_id, e.distance, f.uri, f.key, f.collection, f.metadata, i.media_type
  from (select image_id, embedding <=> q.vector as distance
          from lookalike.{view}, (select embedding as vector from lookalike.{view} where image_id = %(image)s) q
         order by embedding <=> (select embedding from lookalike.{view} where image_id = %(image)s) limit 11) e
  join lookalike.files f using (image_id)
  join lookalike.images i using (image_id)
 where e.image_id <> %(image)s
 order by e.distance, e.image_id
 limit 10
"""
"""The same for a stored image, which is not to find itself, in one round trip."""

LIBRARY_LIKE_TEXT = """
select e.image_id, e.distance, f.uri, f.key, f.collection, f.metadata, i.media_type
  from (select image_id, embedding <=> q.vector as distance
          from lookalike.{view},
               (select embedding as vector from lookalike.queries
                 where model_id = {model_id} and kind = 'text' and digest = %(digest)s) q
         order by embedding <=> (select embedding from lookalike.queries
                                  where model_id = {model_id} and kind = 'text' and digest = %(digest)s) limit 10) e
  join lookalike.files f using (image_id)
  join lookalike.images i using (image_id)
 order by e.distance, e.image_id
"""
"""The same for a text that was embedded before, in one round trip."""

TABLE = "select id, uri, metadata, embedding <=> %(query)s as distance from photos order by distance limit 10"
"""The ten nearest of a `Table`."""

Kind = Literal["halfvec", "vector"]


class Rival:
    """A connection of its own in autocommit, with the options of the scan set once and for all.

    Args:
        statement: what to ask; a vector is bound as ``query``.
        kind: the type of the column that it compares with.
    """

    def __init__(self, dsn: str, statement: str, *, kind: Kind = "halfvec", ef_search: int = EF_SEARCH) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=0)
        register_vector(self.connection)
        # the type loads the library, and with it the parameter
        self.connection.execute(f"select '[1]'::{kind}".encode())
        self.connection.execute(f"set hnsw.ef_search = {ef_search}".encode())
        # as pgvector comes, and as is fastest where nothing is filtered; a library's database has it on for plain SQL
        self.connection.execute(b"set hnsw.iterative_scan = off")
        self._statement = statement.encode()
        self._kind = kind

    def search(self, query: npt.NDArray[np.float32], **bound: Any) -> list[tuple[Any, ...]]:
        """The rows nearest to `query`, float32 ``(1024,)``."""
        return self.ask(query=self._vector(query), **bound)

    def ask(self, **bound: Any) -> list[tuple[Any, ...]]:
        """The rows that the statement gives for these values."""
        return self.connection.execute(self._statement, bound, binary=True).fetchall()

    def plan(self, query: npt.NDArray[np.float32]) -> str:
        """How PostgreSQL would look for `query`."""
        rows = self.connection.execute(b"explain " + self._statement, {"query": self._vector(query)}).fetchall()
        return "\n".join(row[0] for row in rows)

    def pages(self, query: npt.NDArray[np.float32]) -> int:
        """How many pages its walk through the index looks at, each as often as it is looked at."""
        row = self.connection.execute(
            b"explain (analyze, buffers, timing off, format json) " + self._statement, {"query": self._vector(query)}
        ).fetchone()
        assert row is not None
        below = [row[0][0]["Plan"]]
        while below:
            node = below.pop()
            if node.get("Index Name", "").endswith("_hnsw"):
                return int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"])
            below += node.get("Plans", [])
        raise RuntimeError("by hand does not use the index")

    def _vector(self, query: npt.NDArray[np.float32]) -> HalfVector | Vector:
        return HalfVector(query.astype(np.float16)) if self._kind == "halfvec" else Vector(query)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Table:
    """A table of photos as somebody makes it who needs nothing else: id, URI, metadata and vector.

    Args:
        kind: ``halfvec``, kept inline, or ``vector`` as pgvector's own page has it.
    """

    def __init__(self, dsn: str, kind: Kind = "halfvec") -> None:
        self.dsn = dsn
        self.kind: Kind = kind

    def insert(self, rows: Iterable[tuple[str, Mapping[str, Any], npt.NDArray[np.float16]]]) -> float:
        """Make the table and fill it by one binary COPY with URI, metadata and vector; returns seconds."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("create extension if not exists vector")
            register_vector(connection)
            began = time.perf_counter()
            inline = " with (toast_tuple_target = 8160)" if self.kind == "halfvec" else ""
            connection.execute(
                "create table photos (id bigint primary key, uri text not null, metadata jsonb not null,"
                f" embedding {self.kind}(1024) not null){inline}".encode()
            )
            statement = "copy photos from stdin (format binary)"
            with connection.cursor().copy(statement) as copy:
                copy.set_types(["int8", "text", "jsonb", self.kind])
                for number, (uri, metadata, vector) in enumerate(rows):
                    held = HalfVector(vector) if self.kind == "halfvec" else Vector(vector.astype(np.float32))
                    copy.write_row((number, uri, Jsonb(metadata), held))
            connection.commit()
        return time.perf_counter() - began

    def build(self, *, memory: str | None = None, workers: int | None = None) -> float:
        """Build the HNSW index, with settings of this session where they are given; returns seconds."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            if memory is not None:
                connection.execute(f"set maintenance_work_mem = '{memory}'".encode())
            if workers is not None:
                connection.execute(f"set max_parallel_maintenance_workers = {workers}".encode())
            began = time.perf_counter()
            connection.execute(f"create index on photos using hnsw (embedding {self.kind}_cosine_ops)".encode())
            seconds = time.perf_counter() - began
            connection.execute("vacuum analyze photos")
        return seconds

    def search(self, *, ef_search: int = EF_SEARCH) -> Rival:
        """A connection to search it with."""
        return Rival(self.dsn, TABLE, kind=self.kind, ef_search=ef_search)
