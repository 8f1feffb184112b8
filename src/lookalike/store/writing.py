"""Bulk writes: what is known already, one merge per batch, and the record of what failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar
from uuid import UUID

import numpy as np
import psycopg
from pgvector import HalfVector
from psycopg import sql
from psycopg.types.json import Jsonb

from lookalike.errors import DatabaseError, ImageNotFound, ModelMismatch
from lookalike.store.database import Database
from lookalike.store.models import add_model
from lookalike.types import DIMENSIONS, Content, Deleted, Embedding, Model, Vector

COLLECTION = "default"
"""The collection of files that name none."""

_NAMES = {"uri": "file", "key": "key", "image_id": "image"}
_ATTEMPTS = 8
_RACES = (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected, psycopg.errors.ForeignKeyViolation)
_T = TypeVar("_T")

_STAGING = """
create temporary table if not exists lookalike_batch (
    image_id uuid, sha256 bytea, media_type text, width integer, height integer, byte_size bigint,
    collection text, uri text, fingerprint text, model text, embedding {vector}.halfvec(1024)
) on commit {on_commit}
"""
_COPY = "copy pg_temp.lookalike_batch from stdin (format binary)"
_COPY_TYPES = ("uuid", "bytea", "text", "int4", "int4", "int8", "text", "text", "text", "text", "halfvec")


@dataclass(frozen=True, slots=True)
class Place:
    """A file as a source lists it: where it lies and what tells whether it has changed."""

    uri: str
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Which files that failed for good are tried again although nothing has changed: none, all, or those of a code."""

    failed: bool = False
    code: str | None = None


@dataclass(frozen=True, slots=True)
class NewFile:
    """One file to write: where it lies, what it holds, and its embedding where it was just made."""

    place: Place
    content: Content
    embedding: Embedding | None = None


@dataclass(frozen=True, slots=True)
class NewFailure:
    """One file that could not be done."""

    place: Place
    stage: Literal["read", "check", "embed"]
    code: str
    message: str
    retryable: bool
    request_id: str | None = None
    content: Content | None = None


def known_places(
    database: Database, model: Model, places: Sequence[Place], retry: Retry
) -> Mapping[str, Literal["embedded", "failed"]]:
    """Which of these files need not be read: unchanged, and embedded under `model` or failed and not to `retry`."""
    given = [[place.uri for place in places], [place.fingerprint for place in places]]
    with database.transaction() as connection:
        rows = connection.execute(
            """
            with walked as (select * from unnest(%s::text[], %s::text[]) as w (uri, fingerprint))
            select w.uri, 'failed'
              from walked w
              join lookalike.failures x using (uri, fingerprint)
             where x.model = %s and x.collection = %s and not x.retryable
               and not (%s and x.code = coalesce(%s, x.code))
             union all
            select w.uri, 'embedded'
              from walked w
              join lookalike.files f using (uri, fingerprint)
              join lookalike.embeddings e using (image_id)
              join lookalike.models m using (model_id)
             where f.collection = %s and m.name = %s
            """,
            [*given, model.name, COLLECTION, retry.failed, retry.code, COLLECTION, model.name],
        ).fetchall()
    return dict(rows)


def known_contents(database: Database, model: Model, digests: Sequence[bytes]) -> Mapping[bytes, UUID]:
    """Ids of the images with these digests that are embedded under `model` already."""
    with database.transaction() as connection:
        rows = connection.execute(
            """
            select i.sha256, i.image_id
              from lookalike.images i
              join lookalike.embeddings e using (image_id)
              join lookalike.models m using (model_id)
             where i.sha256 = any(%s) and m.name = %s
            """,
            [list(digests), model.name],
        ).fetchall()
    return dict(rows)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch beside being written.

    Attributes:
        abandoned: images that lost a file to it, and may lie nowhere now.
        unembedded: files whose image turned out to have no embedding any more; the next run embeds them.
    """

    abandoned: tuple[UUID, ...] = ()
    unembedded: int = 0


def write_files(database: Database, model: Model, files: Sequence[NewFile]) -> Written:
    """Write files, their images and embeddings in one transaction; the model is made if this is its first use.

    Raises:
        ModelMismatch: an embedding belongs to another model; nothing is written.
    """
    for file in files:
        if file.embedding is not None and file.embedding.model.name != model.name:
            raise ModelMismatch(model.name, file.embedding.model.name)

    def write(connection: psycopg.Connection) -> Written:
        add_model(connection, model)
        _copy(connection, database, model, files)
        row = connection.execute(
            "select coalesce(abandoned, '{}'), unembedded from lookalike.merge_batch(%s)", [model.name]
        ).fetchone()
        assert row is not None
        return Written(tuple(row[0]), row[1])

    return _in_spite_of_races(database, write)


def record_failures(database: Database, model: Model, failures: Sequence[NewFailure]) -> int:
    """Note files that could not be done; returns how many of them failed for the first time.

    A file that has changed since it failed counts as new. One that has changed since it was embedded is no file of the
    image that it used to be.
    """

    def record(connection: psycopg.Connection) -> int:
        # in order, so that two writers lock the same rows in the same order
        return sum(_record(connection, model, failure) for failure in sorted(failures, key=lambda one: one.place.uri))

    return _in_spite_of_races(database, record)


def _record(connection: psycopg.Connection, model: Model, failure: NewFailure) -> bool:
    if failure.stage != "read":
        connection.execute(
            "delete from lookalike.files where collection = %s and uri = %s and fingerprint <> %s",
            [COLLECTION, failure.place.uri, failure.place.fingerprint],
        )
    row = connection.execute(
        """
        insert into lookalike.failures as x
            (model, collection, uri, image_id, fingerprint, stage, code, message, request_id, retryable)
        values (%s, %s, %s,
                (select image_id from lookalike.images where sha256 = %s limit 1),
                %s, %s, %s, %s, %s, %s)
        on conflict (model, collection, uri) do update
        set image_id = excluded.image_id, fingerprint = excluded.fingerprint, stage = excluded.stage,
            code = excluded.code, message = excluded.message, request_id = excluded.request_id,
            retryable = excluded.retryable, last_at = excluded.last_at,
            attempts = case when x.fingerprint is distinct from excluded.fingerprint then 1
                            else x.attempts + 1 end,
            first_at = case when x.fingerprint is distinct from excluded.fingerprint then excluded.first_at
                            else x.first_at end
        returning attempts = 1
        """,
        [
            model.name,
            COLLECTION,
            failure.place.uri,
            failure.content.sha256 if failure.content else None,
            failure.place.fingerprint,
            failure.stage,
            failure.code,
            failure.message.replace("\0", "")[:2000],
            failure.request_id,
            failure.retryable,
        ],
    ).fetchone()
    return bool(row and row[0])


def remove_abandoned(database: Database, images: Sequence[UUID]) -> None:
    """Delete those of `images` that lie nowhere any more, with their embeddings."""
    _in_spite_of_races(database, lambda connection: _remove_fileless(connection, images))


def delete_named(
    database: Database, *, uris: Sequence[str] = (), keys: Sequence[str] = (), images: Sequence[UUID] = ()
) -> Deleted:
    """Delete files by URI, by the owner's key and by image, and the images that have no file left, in one transaction.

    Raises:
        ImageNotFound: one of the names is nobody's; nothing is deleted.
    """

    def delete(connection: psycopg.Connection) -> Deleted:
        wanted: dict[str, Sequence[object]] = {"uri": uris, "key": keys, "image_id": images}
        for column, names in wanted.items():
            if names:
                known = connection.execute(
                    sql.SQL("select distinct {0} from lookalike.files where {0} = any(%s)").format(
                        sql.Identifier(column)
                    ),
                    [list(names)],
                )
                missing = set(names) - {row[0] for row in known}
                if missing:
                    raise ImageNotFound(f"There is no stored {_NAMES[column]} {min(map(str, missing))}.")
        gone = connection.execute(
            "delete from lookalike.files"
            " where uri = any(%s::text[]) or key = any(%s::text[]) or image_id = any(%s::uuid[])"
            " returning image_id, collection, uri",
            [list(uris), list(keys), list(images)],
        ).fetchall()
        connection.execute(
            "delete from lookalike.failures where (collection, uri) in (select * from unnest(%s::text[], %s::text[]))",
            [[collection for _, collection, _ in gone], [uri for _, _, uri in gone]],
        )
        return Deleted(len(gone), _remove_fileless(connection, sorted({image for image, _, _ in gone})))

    return _in_spite_of_races(database, delete)


def _remove_fileless(connection: psycopg.Connection, images: Sequence[UUID]) -> int:
    """Delete those of `images` that lie nowhere, with their embeddings; returns how many."""
    # Whoever is adding a file to one of them holds a lock on it. The second statement sees what they added.
    connection.execute(
        "select from lookalike.images where image_id = any(%s) order by image_id for update", [list(images)]
    )
    return connection.execute(
        "delete from lookalike.images i where image_id = any(%s)"
        " and not exists (select from lookalike.files f where f.image_id = i.image_id)",
        [list(images)],
    ).rowcount


def _in_spite_of_races(database: Database, work: Callable[[psycopg.Connection], _T]) -> _T:
    """Do `work` in a transaction, again where another writer was in its way: its second try finds things settled."""
    for _ in range(_ATTEMPTS - 1):
        try:
            with database.transaction() as connection:
                return work(connection)
        except DatabaseError as error:
            if not isinstance(error.__cause__, _RACES):
                raise
    with database.transaction() as connection:
        return work(connection)


def remember_query(
    database: Database, kind: Literal["text", "image"], digest: bytes, source: str, embedding: Embedding
) -> None:
    """Keep the embedding of a query, so that it is not paid for again; where nothing may be written, do nothing."""
    try:
        with database.transaction() as connection:
            connection.execute(
                """
                insert into lookalike.queries (model_id, kind, digest, source, embedding)
                select model_id, %s, %s, %s, %s from lookalike.models where name = %s
                on conflict do nothing
                """,
                [kind, digest, source, half_vector(embedding.vector), embedding.model.name],
            )
    except Exception as error:
        refused = (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)
        if not isinstance(error.__cause__, refused):
            raise


def begin_run(database: Database, command: str, model: Model) -> int:
    """Note that a command has started; returns the id of the run."""
    with database.transaction() as connection:
        row = connection.execute(
            "insert into lookalike.runs (command, model) values (%s, %s) returning run_id", [command, model.name]
        ).fetchone()
    assert row is not None
    return int(row[0])


def end_run(database: Database, run_id: int, counts: Mapping[str, object], calls: int, exit_code: int) -> None:
    """Note what a run did, what it cost and how it ended."""
    with database.transaction() as connection:
        connection.execute(
            "update lookalike.runs set ended_at = clock_timestamp(), counts = %s, calls = %s, exit_code = %s"
            " where run_id = %s",
            [Jsonb(dict(counts)), calls, exit_code, run_id],
        )


def half_vector(vector: Vector) -> HalfVector:
    """The stored form of a vector: 1024 half-precision numbers, zero-padded where the model gives fewer."""
    stored = np.zeros(DIMENSIONS, np.float16)
    stored[: len(vector)] = vector
    return HalfVector(stored)


def _copy(connection: psycopg.Connection, database: Database, model: Model, files: Sequence[NewFile]) -> None:
    on_commit = "drop" if database.transaction_pooler else "delete rows"
    statement = _STAGING.format(vector=database.vector_schema, on_commit=on_commit)
    connection.execute(statement.encode())
    with connection.cursor().copy(_COPY) as copy:
        copy.set_types(_COPY_TYPES)
        for file in files:
            content = file.content
            copy.write_row(
                (
                    *(content.image_id, content.sha256, content.media_type),
                    *(content.width, content.height, content.byte_size),
                    *(COLLECTION, file.place.uri, file.place.fingerprint, model.name),
                    half_vector(file.embedding.vector) if file.embedding is not None else None,
                )
            )
