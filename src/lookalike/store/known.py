"""What is known already of the files that a source lists, so that they need not be read, or paid for, again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lookalike.store.claims import TEXT_OF_ANOTHER
from lookalike.store.database import Database
from lookalike.store.writing import UNSUPPORTED, Place, PlaceName, place_columns
from lookalike.types import Model

_TEXT = f"""(
    select t.text from lookalike.texts t
     where t.image_id = e.image_id and t.model_id = m.model_id and not {TEXT_OF_ANOTHER.format(place="f")})"""


@dataclass(frozen=True, slots=True)
class Retry:
    """Which files that failed for good are tried again although nothing has changed: none, all, or those of a code."""

    failed: bool = False
    code: str | None = None


NO_RETRY = Retry()
"""None of them."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored of a file.

    Attributes:
        state: how it ended when it had `fingerprint`.
        told: whether key and metadata are the ones that the source gives now.
        has_exif: whether what the picture itself says has been stored.
        unseen: whether nobody here has seen its bytes.
        text: what its image was embedded together with, unless that is the text of another of the image's files.
    """

    state: Literal["embedded", "failed", "unsupported"]
    fingerprint: str | None
    told: bool
    has_exif: bool
    unseen: bool
    text: str | None = None


def known_places(database: Database, model: Model, places: Sequence[Place], retry: Retry) -> Mapping[PlaceName, Known]:
    """Which of these files are embedded under `model`, or have failed for good and are not to be tried again."""
    text = _TEXT if model.with_text is not None else "null"
    with database.transaction() as connection:
        rows = connection.execute(
            f"""
            with walked as (
                select * from unnest(%s::text[], %s::text[], %s::text[], %s::jsonb[])
                           as w (collection, uri, key, metadata)
            )
            select w.collection, w.uri, 'embedded', f.fingerprint,
                   f.key is not distinct from coalesce(w.key, f.key)
                       and f.metadata = lookalike.merged_metadata(f.metadata, w.metadata),
                   f.metadata ? 'exif', i.sha256 is null, {text}
              from walked w
              join lookalike.files f using (collection, uri)
              join lookalike.images i using (image_id)
              join lookalike.embeddings e using (image_id)
              join lookalike.models m using (model_id)
             where m.name = %s
               -- whoever failed since is read again, lest the failure outlive its reason
               and not exists (select from lookalike.failures x
                                where x.model = m.name and x.collection = w.collection and x.uri = w.uri)
             union all
            -- later than its embedding, so this is how it ended
            select w.collection, w.uri, case when x.code = %s then 'unsupported' else 'failed' end,
                   x.fingerprint, true, true, false, null
              from walked w
              join lookalike.failures x using (collection, uri)
             where x.model = %s and not x.retryable
               and not (%s and x.code = coalesce(%s, x.code))
            """.encode(),
            [*place_columns(places), model.name, UNSUPPORTED, model.name, retry.failed, retry.code],
        ).fetchall()
    return {(collection, uri): Known(*known) for collection, uri, *known in rows}
