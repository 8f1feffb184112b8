"""Who has which picture in hand, so that several workers split the work and survive each other's death.

A worker claims an image before it pays for it, renews its claims while it lives, and gives one up in the transaction
that writes the outcome. A claim that is not renewed lapses, and the image is anybody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

import psycopg

from lookalike.store.database import Database
from lookalike.types import Model

_PRESENCE = ""
"""Stands in place of a model where a worker claims nothing but that it lives."""

FROM_THE_FIRST = UUID(int=0)
"""Comes before every image."""

TEXT_OF_ANOTHER = """exists (
    select from lookalike.files o
     where (o.image_id, o.collection, o.uri) = (t.image_id, t.collection, t.uri)
       and (o.collection, o.uri) <> ({place}.collection, {place}.uri))"""
"""Whether a text ``t`` belongs to another file of its image than the one of a row."""

_WITH_ANOTHER_TEXT = f"""
               and not exists (
                   select from lookalike.texts t
                    where t.image_id = i.image_id and t.model_id = m.model_id and t.text <> w.text
                      and not {TEXT_OF_ANOTHER.format(place="w")})"""

LEASE_SECONDS = 12.0
"""How long a claim holds without being renewed: what the others wait for the work of a worker that was killed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that is to be embedded.

    Attributes:
        sha256: counts where the image got its id before its bytes were seen; None where they still are not.
        place: collection and URI of the file that it was come upon in.
        text: what it is to be embedded together with; None takes whatever it was embedded with.
    """

    image_id: UUID
    sha256: bytes | None
    place: tuple[str, str]
    text: str | None = None


def claim(
    database: Database, model: Model, worker: UUID, images: Sequence[Wanted]
) -> Mapping[UUID, Literal["mine", "embedded"]]:
    """Claim images that are not embedded under `model` yet, or with another text of the same file; those missing from
    the answer are in another worker's hands.
    """
    ids = [image.image_id for image in images]
    with_text = model.with_text is not None
    with database.transaction() as connection:
        # a crash of the server may cost the last claims, but nobody waits for a disk
        connection.execute("set local synchronous_commit = off")
        mine = connection.execute(
            """
            insert into lookalike.claims as c (model, image_id, worker, expires_at)
            select %(model)s, w.image_id, %(worker)s, clock_timestamp() + %(lease)s * interval '1 second'
              from unnest(%(images)s::uuid[]) as w (image_id)
             order by w.image_id
                on conflict (model, image_id) do update
               set worker = excluded.worker, expires_at = excluded.expires_at
             where c.worker = excluded.worker or c.expires_at < clock_timestamp()
            returning image_id
            """,
            {"model": model.name, "worker": worker, "lease": LEASE_SECONDS, "images": ids},
        ).fetchall()
        # Asked after claiming: whoever held the claim before wrote the embedding in the transaction that ended it.
        embedded = connection.execute(
            f"""
            select w.image_id
              from unnest(%s::uuid[], %s::bytea[], %s::text[], %s::text[], %s::text[])
                       as w (image_id, sha256, collection, uri, text)
              join lookalike.images i on i.sha256 = w.sha256 or i.image_id = w.image_id and w.sha256 is null
              join lookalike.embeddings e on e.image_id = i.image_id
              join lookalike.models m using (model_id)
             where m.name = %s{_WITH_ANOTHER_TEXT if with_text else ""}
            """.encode(),
            [
                ids,
                [image.sha256 for image in images],
                [image.place[0] for image in images],
                [image.place[1] for image in images],
                [image.text for image in images],
                model.name,
            ],
        ).fetchall()
        found: dict[UUID, Literal["mine", "embedded"]] = {image_id: "mine" for (image_id,) in mine}
        found |= {image_id: "embedded" for (image_id,) in embedded}
        release(connection, model, [image_id for (image_id,) in embedded])
    return found


def claim_lacking(
    database: Database, model: Model, worker: UUID, count: int, *, since: float, after: UUID = FROM_THE_FIRST
) -> tuple[Sequence[UUID], bool]:
    """Claim up to `count` images that have files and no embedding under `model`, and did not fail for good.

    Args:
        since: seconds since the run began; what has failed in this time is not tried again.
        after: of the images behind this one alone, so that a worker need not look again at all that it has done.

    Returns:
        The images, and whether others hold claims on images that lack an embedding still.
    """
    with database.transaction() as connection:
        # what one worker is looking at, the next one skips
        rows = connection.execute(
            """
            with lacking as (
                select i.image_id
                  from lookalike.images i
                 where i.image_id > %(after)s
                   and exists (select from lookalike.files f where f.image_id = i.image_id)
                   and not exists (select from lookalike.embeddings e join lookalike.models m using (model_id)
                                    where e.image_id = i.image_id and m.name = %(model)s)
                   and not exists (select from lookalike.failures x
                                    where x.model = %(model)s and x.image_id = i.image_id
                                      and (not x.retryable
                                           or x.last_at >= clock_timestamp() - %(since)s * interval '1 second'))
                   and not exists (select from lookalike.claims c
                                    where c.model = %(model)s and c.image_id = i.image_id
                                      and c.expires_at >= clock_timestamp())
                 order by i.image_id
                 limit %(count)s
                   for update skip locked
            )
            insert into lookalike.claims as c (model, image_id, worker, expires_at)
            select %(model)s, image_id, %(worker)s, clock_timestamp() + %(lease)s * interval '1 second' from lacking
                on conflict (model, image_id) do update
               set worker = excluded.worker, expires_at = excluded.expires_at
             where c.expires_at < clock_timestamp()
            returning image_id
            """,
            {
                "model": model.name,
                "worker": worker,
                "lease": LEASE_SECONDS,
                "count": count,
                "since": since,
                "after": after,
            },
        ).fetchall()
        others = connection.execute(
            "select exists (select from lookalike.claims where model = %s and worker <> %s"
            " and expires_at >= clock_timestamp())",
            [model.name, worker],
        ).fetchone()
    return [image_id for (image_id,) in rows], bool(others and others[0])


def in_other_hands(database: Database, model: Model, worker: UUID, images: Sequence[UUID]) -> set[UUID]:
    """Those of `images` that another living worker has claimed."""
    with database.transaction() as connection:
        rows = connection.execute(
            "select image_id from lookalike.claims where model = %s and worker <> %s and image_id = any(%s)"
            " and expires_at >= clock_timestamp()",
            [model.name, worker, list(images)],
        ).fetchall()
    return {image_id for (image_id,) in rows}


def alone(database: Database, worker: UUID) -> bool:
    """Whether no other worker lives."""
    with database.transaction() as connection:
        row = connection.execute(
            "select exists (select from lookalike.claims where model = %s and worker <> %s"
            " and expires_at >= clock_timestamp())",
            [_PRESENCE, worker],
        ).fetchone()
    return not (row and row[0])


def renew(database: Database, worker: UUID) -> None:
    """Hold on to the claims of a worker, and to its being there, for another `LEASE_SECONDS`."""
    with database.transaction() as connection:
        connection.execute(
            "insert into lookalike.claims (model, image_id, worker, expires_at)"
            " values (%s, %s, %s, clock_timestamp()) on conflict (model, image_id) do nothing",
            [_PRESENCE, worker, worker],
        )
        connection.execute(
            "update lookalike.claims set expires_at = clock_timestamp() + %s * interval '1 second' where worker = %s",
            [LEASE_SECONDS, worker],
        )


def release(connection: psycopg.Connection, model: Model, images: Sequence[UUID]) -> None:
    """Give up the claims on images, in the transaction that settles them."""
    if images:
        connection.execute(
            "delete from lookalike.claims where model = %s and image_id = any(%s)", [model.name, list(images)]
        )


def release_all(database: Database, worker: UUID) -> None:
    """Give up whatever a worker still holds, and clear away what the dead have left."""
    with database.transaction() as connection:
        connection.execute(
            "delete from lookalike.claims where worker = %s or expires_at < clock_timestamp() - interval '1 minute'",
            [worker],
        )
