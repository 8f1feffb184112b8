"""Reads: nearest neighbours, stored vectors, and what there is to say about the whole library."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal
from uuid import UUID

import numpy as np
from pgvector import HalfVector

from lookalike.errors import ImageNotFound
from lookalike.store.database import Database
from lookalike.store.models import StoredModel, active_model, model_named, models
from lookalike.store.writing import UNSUPPORTED, half_vector
from lookalike.types import Embedding, Failure, File, Hit, Model, ModelStatus, Result, Status, Vector

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
    leave_out: UUID | None = None,
    query: str = "",
) -> Result:
    """The `limit` images nearest to `vector`, by distance and then by id; fewer only where no more exist.

    The index compares rounded, normalised vectors, so that neighbours closer than 1e-4 may swap and fall over the
    edge: a margin is fetched and sorted again by exact distance.

    Args:
        exact: compare every vector; None leaves it to the size of the model.
        leave_out: an image that is not to be found, usually the query itself.
        query: what is searched for, in words, for the result to repeat.
    """
    if exact is None:
        exact = stored.bytes <= EXACT_BELOW_BYTES
    exact = exact or not stored.index_ready
    limit = min(limit, _MOST_ROWS)
    fetch = limit + (leave_out is not None) + max(10, limit // 10)
    ef_search = min(max(LEAST_EF_SEARCH, 2 * fetch), MOST_EF_SEARCH)
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


def model_to_search(database: Database, name: str | None) -> StoredModel | None:
    """The stored model of that name, or the active one; None where there is none."""
    with database.transaction() as connection:
        return model_named(connection, name) if name else active_model(connection)


def stored_embedding(database: Database, stored: StoredModel, image_id: UUID) -> Embedding | None:
    """The vector of an image under a model, None if it has none."""
    statement = f"select embedding from lookalike.{stored.partition} where image_id = %s"
    with database.transaction() as connection:
        row = connection.execute(statement.encode(), [image_id], binary=True).fetchone()
    return _embedding(stored.model, row[0]) if row else None


def image_known_as(database: Database, *, uri: str | None = None, sha256: bytes | None = None) -> UUID | None:
    """The image that lies at `uri`, or has the digest `sha256`; None if there is none."""
    with database.transaction() as connection:
        row = connection.execute(
            "select image_id from lookalike.files where uri = %(uri)s"
            " union all select image_id from lookalike.images where sha256 = %(sha256)s limit 1",
            {"uri": uri, "sha256": sha256},
        ).fetchone()
    return row[0] if row else None


def image_exists(database: Database, image_id: UUID) -> bool:
    """Whether there is an image of that id, under whatever model."""
    with database.transaction() as connection:
        return connection.execute("select from lookalike.images where image_id = %s", [image_id]).fetchone() is not None


def remembered_query(
    database: Database, stored: StoredModel, kind: Literal["text", "image"], digest: bytes
) -> Embedding | None:
    """The embedding of a query that was asked before under this model, None if it was not."""
    with database.transaction() as connection:
        row = connection.execute(
            "select embedding from lookalike.queries where model_id = %s and kind = %s and digest = %s",
            [stored.model_id, kind, digest],
            binary=True,
        ).fetchone()
    return _embedding(stored.model, row[0]) if row else None


def status(database: Database) -> Status:
    """What is stored: images, files, and how far each model has come."""
    with database.transaction() as connection:
        counts = connection.execute(
            "select (select count(*) from lookalike.images), (select count(*) from lookalike.files)"
        ).fetchone()
        assert counts is not None
        failed = dict(
            connection.execute(
                "select model, count(*) from lookalike.failures where code <> %s group by model order by model",
                [UNSUPPORTED],
            ).fetchall()
        )
        unsupported = dict(
            connection.execute(
                "select model, count(*) from lookalike.failures where code = %s group by model", [UNSUPPORTED]
            ).fetchall()
        )
        codes = connection.execute(
            "select code, count(*) from lookalike.failures where code <> %s group by code order by 2 desc, 1",
            [UNSUPPORTED],
        )
        failures = dict(codes.fetchall())
        reached = []
        for stored in models(connection):
            row = connection.execute(f"select count(*) from lookalike.{stored.partition}".encode()).fetchone()
            embedded = row[0] if row else 0
            pending = connection.execute(
                f"""
                select count(*) from lookalike.images i
                 where not exists (select from lookalike.{stored.partition} e where e.image_id = i.image_id)
                   and not exists (select from lookalike.failures x where x.image_id = i.image_id and x.model = %s)
                """.encode(),
                [stored.model.name],
            ).fetchone()
            reached.append(
                ModelStatus(
                    model=stored.model.name,
                    state=stored.state,
                    dimensions=stored.model.dimensions,
                    view=stored.view,
                    embedded=embedded,
                    pending=pending[0] if pending else 0,
                    failed=failed.pop(stored.model.name, 0),
                    unsupported=unsupported.get(stored.model.name, 0),
                )
            )
        # a model that has only failed so far has no rooms yet
        reached += [ModelStatus(name, "unused", 0, "", 0, counts[0], number) for name, number in failed.items()]
    return Status(database.place, counts[0], counts[1], tuple(reached), failures)


def collection_status(database: Database, collection: str) -> Status:
    """What is stored of one collection; a model's `embedded` and `pending` are images, `failed` are files.

    Raises:
        ImageNotFound: nothing was ever ingested into it.
    """
    with database.transaction() as connection:
        counts = connection.execute(
            "select count(distinct image_id), count(*) from lookalike.files where collection = %s", [collection]
        ).fetchone()
        covered = connection.execute(
            "select model, state, code, images, files from lookalike.coverage where collection = %s", [collection]
        ).fetchall()
        known = {stored.model.name: stored for stored in models(connection)}
    assert counts is not None
    if not covered:
        raise ImageNotFound(f"There is no collection {collection!r}. Begin with: lookalike ingest … --collection NAME")
    images: dict[str, Counter[str]] = {name: Counter() for name, *_ in covered}
    files: dict[str, Counter[str]] = {name: Counter() for name, *_ in covered}
    codes: Counter[str] = Counter()
    for name, state, code, of_images, of_files in covered:
        images[name][state] += of_images
        files[name][state] += of_files
        if state == "failed":
            codes[code] += of_files
    reached = [
        ModelStatus(
            model=name,
            state=known[name].state if name in known else "unused",
            dimensions=known[name].model.dimensions if name in known else 0,
            view=known[name].view if name in known else "",
            embedded=images[name]["embedded"],
            pending=images[name]["pending"],
            failed=files[name]["failed"],
            unsupported=files[name]["unsupported"],
        )
        for name in sorted(images)
    ]
    return Status(database.place, counts[0], counts[1], tuple(reached), dict(codes.most_common()))


def failures(database: Database, code: str | None = None) -> list[Failure]:
    """Every file that could not be done, or those of one code, the latest first; what is no picture at all has not
    failed, and is listed under its code alone."""
    with database.transaction() as connection:
        rows = connection.execute(
            "select uri, model, stage, code, message, retryable, attempts, request_id, first_at, last_at"
            "  from lookalike.failures where case when %s::text is null then code <> %s else code = %s end"
            " order by last_at desc, uri, model",
            [code, UNSUPPORTED, code],
        ).fetchall()
    return [Failure(*row) for row in rows]


def embedded_contents(database: Database, model: Model, digests: Sequence[bytes]) -> set[bytes]:
    """Those digests of pictures that are embedded under `model`."""
    with database.transaction() as connection:
        rows = connection.execute(
            "select i.sha256 from lookalike.images i join lookalike.embeddings e using (image_id)"
            "  join lookalike.models m using (model_id) where i.sha256 = any(%s) and m.name = %s",
            [list(digests), model.name],
        ).fetchall()
    return {sha256 for (sha256,) in rows}


def files_of(database: Database, images: Sequence[UUID]) -> Mapping[UUID, tuple[bytes | None, list[tuple[str, str]]]]:
    """Of each image its digest, if its bytes have been seen, and its files: collection and URI."""
    with database.transaction() as connection:
        rows = connection.execute(
            "select i.image_id, i.sha256, f.collection, f.uri"
            "  from lookalike.images i join lookalike.files f using (image_id)"
            " where i.image_id = any(%s) order by i.image_id, f.uri, f.collection",
            [list(images)],
        ).fetchall()
    found: dict[UUID, tuple[bytes | None, list[tuple[str, str]]]] = {}
    for image_id, sha256, collection, uri in rows:
        found.setdefault(image_id, (sha256, []))[1].append((collection, uri))
    return found


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


def _embedding(model: Model, value: HalfVector) -> Embedding:
    return Embedding(model, value.to_numpy().astype(np.float32)[: model.dimensions])
