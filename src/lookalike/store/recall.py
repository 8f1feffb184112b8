"""What the index finds, compared with every vector: on queries that were asked before and on images of the library."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import numpy as np
from pgvector import HalfVector

from lookalike.errors import DatabaseError, ImageNotFound
from lookalike.reports import IndexRecall, RecallAt
from lookalike.store.database import Database
from lookalike.store.models import StoredModel
from lookalike.store.nearest import nearest
from lookalike.types import Result, Vector

_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class _Query:
    kind: Literal["image", "text", "picture"]
    source: str
    vector: Vector
    image_id: UUID | None = None


def index_recall(
    database: Database,
    stored: StoredModel,
    *,
    queries: int,
    limit: int,
    ef_search: Sequence[int],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> IndexRecall:
    """Search by the index and exactly, and compare.

    Half of the queries are remembered ones, as far as there are so many, the rest are stored images, which are left out
    of their own hits. The same seed chooses the same ones as long as nothing is added or removed.

    Args:
        queries: how many to ask; fewer where there are no more.
        limit: the k of recall@k.
        ef_search: numbers of candidates to compare, 1 to 1000 each.
        progress: told how many searches are done, of how many.
        stop: once set, the comparison ends with what has been asked so far.

    Raises:
        DatabaseError: there is no valid index.
        ImageNotFound: there is nothing to search.
    """
    if not stored.index_ready:
        raise DatabaseError(
            f"{stored.index}, the index of {stored.model.name}, is missing or invalid: searches compare every vector. "
            "Build it with: lookalike index build"
        )
    chosen = _choose(database, stored, queries, seed)
    if not chosen:
        raise ImageNotFound(f"Nothing is embedded under {stored.model.name} yet.")
    default = _search(database, stored, chosen[0], limit, exact=False).ef_search or 0
    recalls: dict[int, list[float]] = {ef: [] for ef in ef_search}
    times: dict[int | None, list[float]] = {ef: [] for ef in (None, *ef_search)}
    asked: list[_Query] = []
    for query in chosen:
        if stop is not None and stop.is_set():
            break
        exact = _search(database, stored, query, limit, exact=True)
        times[None].append(exact.seconds)
        asked.append(query)
        if not exact.hits:
            continue
        farthest = 1.0 - exact.hits[-1].similarity + _TIE
        for ef in ef_search:
            found = _search(database, stored, query, limit, exact=False, ef_search=ef)
            times[ef].append(found.seconds)
            near = sum(1.0 - hit.similarity <= farthest for hit in found.hits)
            recalls[ef].append(min(near / len(exact.hits), 1.0))
        if progress is not None:
            progress(len(asked), len(chosen))
    return IndexRecall(
        model=stored.model.name,
        index=stored.index,
        rows=_rows(database, stored),
        limit=limit,
        seed=seed,
        images=tuple(query.image_id for query in asked if query.image_id is not None),
        texts=tuple(query.source for query in asked if query.kind == "text"),
        pictures=tuple(query.source for query in asked if query.kind == "picture"),
        recall=tuple(RecallAt(ef, _mean(recalls[ef]), _median_milliseconds(times[ef])) for ef in ef_search),
        default_ef_search=default,
        exact_milliseconds=_median_milliseconds(times[None]),
    )


def _choose(database: Database, stored: StoredModel, queries: int, seed: int) -> list[_Query]:
    with database.transaction() as connection:
        row = connection.execute("select has_table_privilege('lookalike.queries', 'select')").fetchone()
        # readers have no right on the table, in which the vectors of all models lie, but know the texts
        known = (
            "select kind, source, embedding, digest from lookalike.queries"
            "  join lookalike.models using (model_id) where name = %(model)s"
            if row and row[0]
            else "select 'text' as kind, text as source, digest,"
            "       lookalike.known_query(model, 'text', digest) as embedding"
            "  from lookalike.known_texts cross join sha256(convert_to(text, 'UTF8')) digest where model = %(model)s"
        )
        remembered = connection.execute(
            (
                f"select kind, source, embedding from ({known}) known"
                " order by md5(encode(digest, 'hex') || %(seed)s), digest limit %(count)s"
            ).encode(),
            {"model": stored.model.name, "seed": str(seed), "count": queries // 2},
            binary=True,
        ).fetchall()
        images = connection.execute(
            f"""
            with chosen as materialized (
                select image_id from {stored.vectors} e
                 where exists (select from lookalike.files f where f.image_id = e.image_id)
                 order by md5(image_id::text || %s), image_id limit %s
            )
            select image_id, embedding from chosen join {stored.vectors} using (image_id)
             order by md5(image_id::text || %s), image_id
            """.encode(),
            [str(seed), queries - len(remembered), str(seed)],
            binary=True,
        ).fetchall()

    def vector(value: HalfVector) -> Vector:
        return value.to_numpy().astype(np.float32)[: stored.model.dimensions]

    found = [_Query("image", str(image_id), vector(value), image_id) for image_id, value in images]
    for kind, source, value in remembered:
        found.append(_Query("text" if kind == "text" else "picture", source, vector(value)))
    return found


def _search(
    database: Database, stored: StoredModel, query: _Query, limit: int, *, exact: bool, ef_search: int | None = None
) -> Result:
    return nearest(
        database, stored, query.vector, limit=limit, exact=exact, ef_search=ef_search, leave_out=query.image_id
    )


def _rows(database: Database, stored: StoredModel) -> int:
    with database.transaction() as connection:
        row = connection.execute(f"select count(*) from {stored.vectors}".encode()).fetchone()
    return row[0] if row else 0


def _mean(shares: Sequence[float]) -> float:
    return statistics.fmean(shares) if shares else 0.0


def _median_milliseconds(seconds: Sequence[float]) -> float:
    return 1000 * statistics.median(seconds) if seconds else 0.0
