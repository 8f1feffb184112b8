"""Bulk writes: what is known already, one merge per batch, and the record of what failed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar
from uuid import UUID

import numpy as np
import orjson
import psycopg
from pgvector import HalfVector
from psycopg import sql
from psycopg.types.json import Jsonb

from lookalike.errors import DatabaseError, ImageNotFound, ModelMismatch
from lookalike.store.claims import release
from lookalike.store.copying import copy_rows
from lookalike.store.database import Database
from lookalike.store.models import add_model
from lookalike.types import DIMENSIONS, Content, Deleted, Embedding, Model, Vector
from lookalike.uris import redacted

COLLECTION = "default"
"""The collection of files that name none."""

LONGEST_COLLECTION = 200
"""Bytes of the longest name of a collection."""

_NAMES = {"uri": "file", "key": "key", "image_id": "image"}
_ATTEMPTS = 8
_TOGETHER = 500  # vectors; their numbers then fit into a processor's cache
_RACES = (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected, psycopg.errors.ForeignKeyViolation)
_T = TypeVar("_T")

PlaceName: TypeAlias = tuple[str, str]
"""Collection and URI."""

_STAGING = """
create temporary table if not exists lookalike_batch (
    image_id uuid, sha256 bytea, media_type text, width integer, height integer, byte_size bigint,
    collection text, uri text, fingerprint text, key text, metadata jsonb, exif jsonb,
    model text, embedding {vector}.halfvec(1024), changes text[], text text
) with (toast_tuple_target = 8160) on commit {on_commit}
"""
_CONTENT = {"media_type": "text", "width": "int4", "height": "int4", "byte_size": "int8"}
_PLACE = {
    "collection": "text",
    "uri": "text",
    "fingerprint": "text",
    "key": "text",
    "metadata": "jsonb",
    "exif": "jsonb",
}
_VECTOR = {"model": "text", "embedding": "halfvec", "changes": "text[]", "text": "text"}
_BATCH = {"image_id": "uuid", "sha256": "bytea", **_CONTENT, **_PLACE, **_VECTOR}

UNSUPPORTED = "unsupported"
"""The code of files that are no pictures, and never claimed to be any: they have not failed."""


def storable(text: str) -> str:
    """Text as PostgreSQL takes it: without NUL, and with U+FFFD for what is no character, such as bytes of a path."""
    if text.isascii():
        return text.replace("\0", "")
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True, slots=True)
class Place:
    """A file as a source lists it.

    Attributes:
        uri: where it lies, without anything secret.
        fingerprint: what tells whether it has changed; None where only reading it can tell.
        collection: the named set that it belongs to.
        key: the owner's own id; None where the source gives none, and what is stored stays.
        metadata: what the source says of it, ready for JSON; None where it says nothing, and what is stored stays.
        exif: what the picture itself says; None where nobody has asked it.
    """

    uri: str
    fingerprint: str | None = None
    collection: str = COLLECTION
    key: str | None = None
    metadata: Mapping[str, Any] | None = None
    exif: Mapping[str, Any] | None = None

    @property
    def name(self) -> PlaceName:
        """What no two files share."""
        return self.collection, self.uri


@dataclass(frozen=True, slots=True)
class NewFile:
    """One file to write: where it lies, what it holds, and its embedding where it was just made.

    Attributes:
        image_id: of the image that it is a file of, if that is new; an image with the same bytes keeps its id.
        content: None where nobody here has seen the bytes.
        sha256: digest of the bytes, where somebody else has seen them and says so.
        media_type: where nobody here has seen the bytes, and it is known nevertheless.
        text: what was embedded together with the picture, where it is this file's.
        changes: how what was embedded differs from the file's own bytes.
    """

    place: Place
    image_id: UUID
    content: Content | None
    embedding: Embedding | None = None
    changes: tuple[str, ...] = ()
    sha256: bytes | None = None
    media_type: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class NewFailure:
    """One file that could not be done."""

    place: Place
    stage: Literal["read", "check", "embed"]
    code: str
    message: str
    retryable: bool
    request_id: str | None = None
    image_id: UUID | None = None


def tell(database: Database, places: Sequence[Place]) -> None:
    """Store keys and metadata of files that are otherwise as they were."""
    # in order, so that two writers lock the same rows in the same order
    ordered = [place for _, place in sorted({place.name: place for place in places}.items())]

    def update(connection: psycopg.Connection) -> None:
        connection.execute(
            """
            update lookalike.files f
               set key = coalesce(w.key, f.key), metadata = lookalike.merged_metadata(f.metadata, w.metadata)
              from unnest(%s::text[], %s::text[], %s::text[], %s::jsonb[]) as w (collection, uri, key, metadata)
             where f.collection = w.collection and f.uri = w.uri
            """,
            place_columns(ordered),
        )

    in_spite_of_races(database, update)


def place_columns(places: Sequence[Place]) -> list[list[Any]]:
    """Collections, URIs, keys and metadata of files, as `unnest` takes them."""
    return [
        [place.collection for place in places],
        [place.uri for place in places],
        [place.key for place in places],
        [None if place.metadata is None else json_of(place.metadata) for place in places],
    ]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch beside being written.

    Attributes:
        abandoned: images that lost a file to it, and may lie nowhere now.
        unembedded: files whose image turned out to have no embedding any more; the next run embeds them.
        embedded: embeddings that are new.
        replaced: embeddings that were stored with other numbers.
    """

    abandoned: tuple[UUID, ...] = ()
    unembedded: int = 0
    embedded: int = 0
    replaced: int = 0


def write_files(database: Database, model: Model, files: Sequence[NewFile], *, done: Sequence[UUID] = ()) -> Written:
    """Write files, their images and embeddings in one transaction; the model is made if this is its first use.

    Args:
        done: images whose claims end with this transaction.

    Raises:
        ModelMismatch: an embedding belongs to another model; nothing is written.
    """
    for file in files:
        if file.embedding is not None and file.embedding.model.name != model.name:
            raise ModelMismatch(model.name, file.embedding.model.name)

    def write(connection: psycopg.Connection) -> Written:
        add_model(connection, model)
        written = merge(connection, database, model, files)
        release(connection, model, done)
        return written

    return in_spite_of_races(database, write)


def merge(
    connection: psycopg.Connection, database: Database, model: Model, files: Sequence[NewFile], *, replace: bool = False
) -> Written:
    """Merge files with what is stored, within the caller's transaction.

    Args:
        replace: embeddings that are stored with other numbers give way; else what is stored stays.
    """
    _stage(connection, database, model, files)
    row = connection.execute(
        "select coalesce(abandoned, '{}'), unembedded, embedded, replaced from lookalike.merge_batch(%s, %s)",
        [model.name, replace],
    ).fetchone()
    assert row is not None
    return Written(tuple(row[0]), *row[1:])


def record_failures(
    database: Database, model: Model, failures: Sequence[NewFailure], run_id: int, *, done: Sequence[UUID] = ()
) -> int:
    """Note files that could not be done; returns how many of them failed for the first time.

    A file that has changed since it failed counts as new, and one that fails again in the same run does not. One that
    has changed since it was embedded is no file of the image that it used to be.

    Args:
        run_id: in which they failed; a table may name a file many times.
        done: images whose claims end with this transaction.
    """

    def record(connection: psycopg.Connection) -> int:
        # each file once, and in order, so that two writers lock the same rows in the same order
        ordered = sorted({failure.place.name: failure for failure in failures}.items())
        new = sum(_record(connection, model, failure, run_id) for _, failure in ordered)
        release(connection, model, done)
        return new

    return in_spite_of_races(database, record)


def _record(connection: psycopg.Connection, model: Model, failure: NewFailure, run_id: int) -> bool:
    if failure.stage != "read":
        connection.execute(
            "delete from lookalike.files where collection = %s and uri = %s and fingerprint <> %s",
            [*failure.place.name, failure.place.fingerprint],
        )
    row = connection.execute(
        """
        insert into lookalike.failures as x
            (model, collection, uri, image_id, fingerprint, stage, code, message, request_id, retryable)
        values (%s, %s, %s, (select image_id from lookalike.images where image_id = %s), %s, %s, %s, %s, %s, %s)
        on conflict (model, collection, uri) do update
        set image_id = excluded.image_id, fingerprint = excluded.fingerprint, stage = excluded.stage,
            code = excluded.code, message = excluded.message, request_id = excluded.request_id,
            retryable = excluded.retryable, last_at = excluded.last_at,
            attempts = case when x.fingerprint is distinct from excluded.fingerprint then 1
                            when x.last_at >= (select started_at from lookalike.runs where run_id = %s) then x.attempts
                            else x.attempts + 1 end,
            first_at = case when x.fingerprint is distinct from excluded.fingerprint then excluded.first_at
                            else x.first_at end
        returning attempts = 1 and first_at = last_at
        """,
        [
            model.name,
            *failure.place.name,
            failure.image_id,
            failure.place.fingerprint,
            failure.stage,
            failure.code,
            redacted(storable(failure.message))[:2000],
            failure.request_id,
            failure.retryable,
            run_id,
        ],
    ).fetchone()
    return bool(row and row[0]) and failure.code != UNSUPPORTED


def remove_abandoned(database: Database, images: Sequence[UUID] | None = None) -> None:
    """Delete those of `images`, by default of all, that lie nowhere any more, with their embeddings."""
    if images is None:
        with database.transaction() as connection:
            rows = connection.execute(
                "select image_id from lookalike.images i"
                " where not exists (select from lookalike.files f where f.image_id = i.image_id)"
            ).fetchall()
        images = [image_id for (image_id,) in rows]
    in_spite_of_races(database, lambda connection: _remove_fileless(connection, images))


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
                    sql.SQL("select distinct {0} from lookalike.{1} where {0} = any(%s)").format(
                        sql.Identifier(column), sql.Identifier("images" if column == "image_id" else "files")
                    ),
                    [list(names)],
                )
                missing = set(names) - {row[0] for row in known}
                if missing:
                    raise ImageNotFound(f"There is no stored {_NAMES[column]} {redacted(min(map(str, missing)))}.")
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
        emptied = {image for image, _, _ in gone} | set(images)
        return Deleted(len(gone), _remove_fileless(connection, sorted(emptied)))

    return in_spite_of_races(database, delete)


def forget_row_failures(database: Database, model: Model, table: str, run_id: int) -> None:
    """Forget what was noted of rows of a table that name no file, unless it was noted since a run began.

    Args:
        table: URI of the table; its rows' own begin with it and ``#row-``.
    """
    with database.transaction() as connection:
        connection.execute(
            "delete from lookalike.failures where model = %s and starts_with(uri, %s)"
            " and last_at < (select started_at from lookalike.runs where run_id = %s)",
            [model.name, f"{table}#row-", run_id],
        )


def stored_uris(database: Database, collection: str, beginning: str, after: str, count: int) -> Sequence[str]:
    """The next `count` URIs behind `after` that begin so, of files that are stored or have failed, in order."""
    # in the order of bytes, which is the column's own, so that an index gives them
    last = beginning[:-1] + chr(ord(beginning[-1]) + 1) if beginning else "\U0010ffff"
    with database.transaction() as connection:
        rows = connection.execute(
            """
            (select uri from lookalike.files
              where collection = %(c)s and uri >= %(first)s and uri > %(after)s and uri < %(last)s
              order by uri limit %(count)s)
             union
            (select uri from lookalike.failures
              where collection = %(c)s and uri >= %(first)s and uri > %(after)s and uri < %(last)s
              order by uri limit %(count)s)
             order by uri limit %(count)s
            """,
            {"c": collection, "first": beginning, "after": after, "last": last, "count": count},
        ).fetchall()
    return [uri for (uri,) in rows]


def forget_files(database: Database, collection: str, uris: Sequence[str]) -> Deleted:
    """Delete files that are gone, what is noted of their failures, and the images that have no file left."""

    def forget(connection: psycopg.Connection) -> Deleted:
        failed = connection.execute(
            "delete from lookalike.failures where collection = %s and uri = any(%s) returning uri",
            [collection, list(uris)],
        ).fetchall()
        gone = connection.execute(
            "delete from lookalike.files where collection = %s and uri = any(%s) returning uri, image_id",
            [collection, list(uris)],
        ).fetchall()
        names = {uri for (uri,) in failed} | {uri for uri, _ in gone}
        return Deleted(len(names), _remove_fileless(connection, sorted({image_id for _, image_id in gone})))

    return in_spite_of_races(database, forget)


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


def in_spite_of_races(database: Database, work: Callable[[psycopg.Connection], _T]) -> _T:
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
                [kind, digest, redacted(source), half_vector(embedding.vector), embedding.model.name],
            )
    except Exception as error:
        refused = (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)
        if not isinstance(error.__cause__, refused):
            raise


def half_vector(vector: Vector) -> HalfVector:
    """The stored form of a vector: 1024 half-precision numbers, zero-padded where the model gives fewer."""
    if len(vector) == DIMENSIONS:
        return HalfVector(vector)
    stored = np.zeros(DIMENSIONS, np.float16)
    stored[: len(vector)] = vector
    return HalfVector(stored)


def json_of(document: Mapping[str, Any]) -> Jsonb:
    """A document as it is written into a column of the type ``jsonb``."""
    return Jsonb(document, dumps=_dumped)


def _dumped(document: Mapping[str, Any]) -> str | bytes:
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document)  # which knows integers of any length


def _half_vectors(vectors: Sequence[Vector]) -> Iterator[HalfVector]:
    """`half_vector` of many of one length, in a fraction of the time."""
    for first in range(0, len(vectors), _TOGETHER):
        some = np.array(vectors[first : first + _TOGETHER])
        stored = np.zeros((len(some), DIMENSIONS), np.float16)
        stored[:, : some.shape[1]] = some
        yield from map(HalfVector, stored)


def _stage(connection: psycopg.Connection, database: Database, model: Model, files: Sequence[NewFile]) -> None:
    on_commit = "drop" if database.transaction_pooler else "delete rows"
    statement = _STAGING.format(vector=database.vector_schema, on_commit=on_commit)
    connection.execute(statement.encode())
    vectors = _half_vectors([file.embedding.vector for file in files if file.embedding is not None])

    def row(file: NewFile) -> tuple[Any, ...]:
        place, seen = file.place, file.content
        return (
            file.image_id,
            seen.sha256 if seen else file.sha256,
            *((seen.media_type, seen.width, seen.height, seen.byte_size) if seen else (file.media_type, *[None] * 3)),
            *(place.collection, place.uri, place.fingerprint, place.key),
            *(None if told is None else json_of(told) for told in (place.metadata, place.exif)),
            model.name,
            next(vectors) if file.embedding is not None else None,
            list(file.changes),
            file.text,
        )

    copy_rows(connection, "pg_temp.lookalike_batch", _BATCH, map(row, files))
