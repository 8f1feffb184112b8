"""The nearest neighbours of a vector: by the index or exactly, and never fewer than there are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from lookalike.store.database import Database
from lookalike.store.models import StoredModel
from lookalike.store.writing import half_vector
from lookalike.types import File, Hit, Result, Vector

EXACT_BELOW_BYTES = 3 << 20
"""Up to this heap size, about a thousand vectors, comparing all of them costs no more than walking the index."""

LEAST_EF_SEARCH = 100
MOST_EF_SEARCH = 1000
"""pgvector's own limit; beyond it the scan goes on iteratively."""

_MOST_ROWS = 1 << 28

_NEAREST = """
with nearest as materialized (
    select image_id, embedding operator({vector}.<=>) %(query)s as distance
      from lookalike.{partition} e
     {only_with_files}
     order by (embedding operator({vector}.<=>) %(query)s){defeat_index}
     limit %(fetch)s
), chosen as materialized (
    select image_id, distance
      from nearest n
     where image_id is distinct from %(leave_out)s
       and exists (select from lookalike.files f where f.image_id = n.image_id)
     order by distance, image_id
     limit %(limit)s
)
select c.image_id, c.distance, f.uri, f.key, f.collection, f.metadata
  from chosen c
  join lookalike.files f using (image_id)
 order by c.distance, c.image_id, f.uri
"""


def nearest(
    database: Database,
    stored: StoredModel,
    vector: Vector,
    *,
    limit: int,
    exact: bool | None = None,
    ef_search: int | None = None,
    leave_out: UUID | None = None,
    query: str = "",
) -> Result:
    """The `limit` images nearest to `vector`, by distance and then by id; fewer only where no more exist.

    The index compares rounded, normalised vectors, so that neighbours closer than 1e-4 may swap and fall over the
    edge: a margin is fetched and sorted again by exact distance.

    Args:
        exact: compare every vector; None leaves it to the size of the model.
        ef_search: how many candidates the index scan keeps, 1 to 1000; by default as many as the limit needs.
        leave_out: an image that is not to be found, usually the query itself.
        query: what is searched for, in words, for the result to repeat.
    """
    if exact is None:
        exact = stored.bytes <= EXACT_BELOW_BYTES
    exact = exact or not stored.index_ready
    limit = min(limit, _MOST_ROWS)
    fetch = limit + (leave_out is not None) + max(10, limit // 10)
    ef_search = ef_search or min(max(LEAST_EF_SEARCH, 2 * fetch), MOST_EF_SEARCH)
    parameters = {"query": half_vector(vector), "fetch": fetch, "limit": limit, "leave_out": leave_out}
    started = time.perf_counter()
    completed = False
    with database.transaction() as connection:
        if exact:
            rows = connection.execute(_statement(database, stored, exact=True), parameters).fetchall()
        else:
            with connection.pipeline():
                connection.execute(
                    "select set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', %s, true),"
                    " set_config('hnsw.max_scan_tuples', %s, true), set_config('enable_seqscan', 'off', true)",
                    [str(ef_search), "relaxed_order", str(max(20_000, 4 * fetch))],
                )
                cursor = connection.execute(_statement(database, stored, exact=False), parameters)
            rows = cursor.fetchall()
            if (found := len({row[0] for row in rows})) < limit:
                # a damaged or bounded walk may end early, and only a full scan knows that there is no more
                rows = connection.execute(_statement(database, stored, exact=True), parameters).fetchall()
                completed = len({row[0] for row in rows}) > found
    return Result(
        model=stored.model.name,
        query=query,
        hits=_hits(rows),
        exact=exact or completed,
        index=None if exact else stored.index,
        ef_search=None if exact else ef_search,
        completed=completed,
        seconds=time.perf_counter() - started,
    )


def _statement(database: Database, stored: StoredModel, *, exact: bool) -> bytes:
    return _NEAREST.format(
        vector=database.vector_schema,
        partition=stored.partition,
        # An image without files is nobody's, and waits to be found again or removed. A condition inside an index scan
        # might cost the scan its order, so there it is left to the margin and, where that is too small, to completion.
        only_with_files="where exists (select from lookalike.files f where f.image_id = e.image_id)" if exact else "",
        # an expression that the index does not hold keeps the planner from using it
        defeat_index=" + 0" if exact else "",
    ).encode()


def _hits(rows: Sequence[tuple[Any, ...]]) -> tuple[Hit, ...]:
    hits = []
    for (image_id, distance), group in groupby(rows, key=lambda row: (row[0], row[1])):
        files = tuple(File(uri, key, collection, metadata) for _, _, uri, key, collection, metadata in group)
        hits.append(Hit(image_id, 1.0 - float(distance), files))
    return tuple(hits)
