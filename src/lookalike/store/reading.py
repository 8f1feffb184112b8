"""Reads: stored vectors, and what there is to say about the whole library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import numpy as np
from pgvector import HalfVector

from lookalike.errors import ImageNotFound
from lookalike.store.database import Database
from lookalike.store.models import StoredModel, active_model, model_named, models
from lookalike.store.writing import UNSUPPORTED
from lookalike.types import Embedding, Failure, Model, ModelStatus, RememberedText, Status, Vector


def model_to_search(database: Database, name: str | None) -> StoredModel | None:
    """The stored model of that name, or the active one; None where there is none."""
    with database.transaction() as connection:
        return model_named(connection, name) if name else active_model(connection)


def stored_embeddings(database: Database, stored: StoredModel, images: Sequence[UUID]) -> dict[UUID, Embedding]:
    """The vectors of images under a model; images that have none are missing."""
    statement = f"select image_id, embedding from {stored.vectors} where image_id = any(%(images)s)"
    [rows] = database.together([(statement, {"images": list(images)})])
    return {image_id: _embedding(stored.model, vector) for image_id, vector in rows}


def image_known_as(database: Database, *, uri: str | None = None, sha256: bytes | None = None) -> UUID | None:
    """The image that lies at `uri`, or has the digest `sha256`; None if there is none."""
    statement = (
        "select image_id from lookalike.files where uri = %(uri)s"
        " union all select image_id from lookalike.images where sha256 = %(sha256)s limit 1"
    )
    [rows] = database.together([(statement, {"uri": uri, "sha256": sha256})])
    return next((image_id for (image_id,) in rows), None)


def images_of_key(database: Database, key: str) -> list[UUID]:
    """The images whose files have that key of their owner's."""
    statement = "select distinct image_id from lookalike.files where key = %(key)s order by image_id"
    [rows] = database.together([(statement, {"key": key})])
    return [image_id for (image_id,) in rows]


def image_exists(database: Database, image_id: UUID) -> bool:
    """Whether there is an image of that id, under whatever model."""
    with database.transaction() as connection:
        return connection.execute("select from lookalike.images where image_id = %s", [image_id]).fetchone() is not None


def remembered_queries(
    database: Database, stored: StoredModel, kind: Literal["text", "image"], digests: Sequence[bytes]
) -> dict[bytes, Embedding]:
    """The embeddings of those queries that were asked before under this model, by digest."""
    # readers have no right on the table itself, in which the vectors of all models lie
    statement = (
        "select digest, lookalike.known_query(%(model)s, %(kind)s, digest) from unnest(%(digests)s::bytea[]) digest"
    )
    [rows] = database.together([(statement, {"model": stored.model.name, "kind": kind, "digests": list(digests)})])
    return {digest: _embedding(stored.model, vector) for digest, vector in rows if vector is not None}


def models_in_use(database: Database) -> list[str]:
    """The names of the models that have vectors."""
    with database.transaction() as connection:
        return [stored.model.name for stored in models(connection)]


def may_remember(database: Database) -> bool:
    """Whether we may keep embeddings of queries."""
    with database.transaction() as connection:
        row = connection.execute("select has_table_privilege('lookalike.queries', 'insert')").fetchone()
    return bool(row and row[0])


def remembered_texts(database: Database, model: str | None = None) -> list[RememberedText]:
    """The texts that were embedded as queries, the latest first, under one model or under any."""
    with database.transaction() as connection:
        rows = connection.execute(
            "select text, model, created_at from lookalike.known_texts"
            " where %s::text is null or model = %s order by created_at desc, text, model",
            [model, model],
        ).fetchall()
    return [RememberedText(*row) for row in rows]


def status(database: Database) -> Status:
    """What is stored: images, files, and how far each model has come."""
    with database.transaction() as connection:
        counts = connection.execute(
            "select count(*), (select count(*) from lookalike.files),"
            "       count(*) filter (where media_type like 'video/%') from lookalike.images"
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
            row = connection.execute(f"select count(*) from {stored.vectors}".encode()).fetchone()
            embedded = row[0] if row else 0
            pending = connection.execute(
                f"""
                select count(*) from lookalike.images i
                 where not exists (select from {stored.vectors} e where e.image_id = i.image_id)
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
    return Status(database.place, counts[0], counts[1], tuple(reached), failures, counts[2])


def collection_status(database: Database, collection: str) -> Status:
    """What is stored of one collection; a model's `embedded` and `pending` are images, `failed` are files.

    Raises:
        ImageNotFound: nothing was ever ingested into it.
    """
    with database.transaction() as connection:
        counts = connection.execute(
            "select count(distinct image_id), count(*),"
            "       count(distinct image_id) filter (where i.media_type like 'video/%%')"
            "  from lookalike.files join lookalike.images i using (image_id) where collection = %s",
            [collection],
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
    return Status(database.place, counts[0], counts[1], tuple(reached), dict(codes.most_common()), counts[2])


def failures(database: Database, code: str | None = None) -> list[Failure]:
    """Every file that could not be done, or those of one code, the latest first; what is no picture at all has not
    failed, and is listed under its code alone."""
    with database.transaction() as connection:
        rows = connection.execute(
            "select uri, model, collection, stage, code, message, retryable, attempts, request_id, first_at, last_at"
            "  from lookalike.failures where case when %s::text is null then code <> %s else code = %s end"
            " order by last_at desc, uri, model, collection",
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


def stored_vectors(
    database: Database, stored: StoredModel, places: Sequence[tuple[str, str, bytes | None]]
) -> list[Vector | None]:
    """The vectors of images that are found by digest, or where there is none by collection and URI, in that order;
    None where there is no such image, or it is not embedded."""
    found: list[Vector | None] = [None] * len(places)
    with database.transaction() as connection:
        rows = connection.execute(
            f"""
            select w.number, e.embedding
              from unnest(%s::text[], %s::text[], %s::bytea[]) with ordinality as w (collection, uri, sha256, number)
              join lateral (
                  select i.image_id from lookalike.images i where i.sha256 = w.sha256
                   union all
                  select f.image_id from lookalike.files f
                   where w.sha256 is null and f.image_id = (
                             select image_id from lookalike.files o where o.uri = w.uri
                              order by o.collection <> w.collection, o.collection limit 1)
                   limit 1) i on true
              join {stored.vectors} e using (image_id)
            """.encode(),
            [[c for c, _, _ in places], [uri for _, uri, _ in places], [sha256 for _, _, sha256 in places]],
            binary=True,
        ).fetchall()
    for number, value in rows:
        found[number - 1] = _embedding(stored.model, value).vector
    return found


def stored_values(database: Database, places: Sequence[tuple[str, str]], key: str) -> dict[tuple[str, str], Any]:
    """What the stored metadata of files, named by collection and URI, hold under a key; those without are missing."""
    with database.transaction() as connection:
        rows = connection.execute(
            "select collection, uri, f.metadata -> %s::text"
            "  from lookalike.files f"
            "  join unnest(%s::text[], %s::text[]) as w (collection, uri) using (collection, uri)"
            " where f.metadata ? %s::text",
            [key, [collection for collection, _ in places], [uri for _, uri in places], key],
        ).fetchall()
    return {(collection, uri): value for collection, uri, value in rows}


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """Where an image lies, and what tells whether what lies there is still it.

    Attributes:
        sha256, media_type: None where its bytes have not been seen, or nobody has said.
        files: collection and URI of each, by URI.
    """

    image_id: UUID
    sha256: bytes | None
    media_type: str | None
    files: list[tuple[str, str]]


def files_of(database: Database, images: Sequence[UUID]) -> list[StoredFiles]:
    """Where those of `images` lie that have files, by their ids."""
    with database.transaction() as connection:
        rows = connection.execute(
            "select i.image_id, i.sha256, i.media_type, f.collection, f.uri"
            "  from lookalike.images i join lookalike.files f using (image_id)"
            " where i.image_id = any(%s) order by i.image_id, f.uri, f.collection",
            [list(images)],
        ).fetchall()
    found: dict[UUID, StoredFiles] = {}
    for image_id, sha256, media_type, collection, uri in rows:
        found.setdefault(image_id, StoredFiles(image_id, sha256, media_type, [])).files.append((collection, uri))
    return list(found.values())


def _embedding(model: Model, value: HalfVector) -> Embedding:
    return Embedding(model, value.to_numpy().astype(np.float32)[: model.dimensions])
