"""Writes what somebody else has computed: copied straight into the tables where nothing is known of it yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import numpy as np
import orjson
import psycopg

from lookalike.store.copying import copy_embeddings, copy_rows
from lookalike.store.database import Database
from lookalike.store.models import add_model
from lookalike.store.writing import NewFile, Place, Written, in_spite_of_races, json_of, merge
from lookalike.types import Embedding, Model, StoredVector

_IMAGES = {"image_id": "uuid", "sha256": "bytea"}
_FILES = {
    "image_id": "uuid",
    "collection": "text",
    "uri": "text",
    "fingerprint": "text",
    "key": "text",
    "metadata": "jsonb",
}
# The tables may have grown from nothing within a minute, and nobody has told the planner. An import can be repeated,
# and `reach_disk` says whether it must be.
_SETTINGS = (
    b"set local synchronous_commit = off; set local enable_seqscan = off;"
    b" set local enable_hashjoin = off; set local enable_mergejoin = off"
)
_ANY_KNOWN = """
select exists (select from unnest(%(images)s::uuid[]) as g (image_id) join lookalike.images i using (image_id))
       or exists (select from unnest(%(digests)s::bytea[]) as g (sha256) join lookalike.images i using (sha256))
       or exists (select from json_array_elements_text(%(uris)s::json) as g (uri) join lookalike.files f using (uri)),
       exists (select from lookalike.failures where model = %(model)s)
"""


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """One file as an import has it, whose bytes nobody here has seen.

    Attributes:
        image_id: of the image that it is a file of, if that is new.
        vector: None where an earlier row has brought that of the image.
        sha256: digest of the bytes, where the import says so.
    """

    place: Place
    image_id: UUID
    vector: StoredVector | None
    sha256: bytes | None = None


def write_imported(database: Database, model: Model, files: Sequence[ImportedFile]) -> Written:
    """Write files, their images and vectors in one transaction; the model is made if this is its first use.

    An embedding that is stored with other numbers gives way. The commit does not wait for the disk: see `reach_disk`.
    """

    def write(connection: psycopg.Connection) -> Written:
        add_model(connection, model)
        connection.execute(_SETTINGS, prepare=False)
        written = _copied(connection, model, files)
        if written is None:
            new = [_as_new(file, model) for file in files]
            written = merge(connection, database, model, new, replace=True)
        return written

    return in_spite_of_races(database, write)


def reach_disk(database: Database, run_id: int) -> datetime:
    """Wait until all that was written is on the server's disk.

    Returns:
        When the server, or the one that has taken over from it, last forgot its statistics: by crashing, with which it
        forgets what was not on the disk, or because somebody wanted it.

    Raises:
        DatabaseError: the database does not answer.
    """
    with database.transaction() as connection:
        # a commit that waits, which it does for all before it; and one that has written nothing does not
        connection.execute("update lookalike.runs set command = command where run_id = %s", [run_id])
    with database.transaction() as connection:
        row = connection.execute("select stats_reset from pg_stat_wal").fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def _copied(connection: psycopg.Connection, model: Model, files: Sequence[ImportedFile]) -> Written | None:
    """Copy files straight into the tables, as nearly all of a first load can be: half the work of merging.

    Returns:
        None, with nothing written, where one of the files, its place or its image is known already, or is there twice.
    """
    images = {file.image_id.bytes: file for file in files}
    embedded = [(file.image_id.bytes, file.vector) for file in files if file.vector is not None]
    uris = [file.place.uri for file in files]
    given = {
        "images": f"{{{','.join(map(bytes.hex, images))}}}",
        "digests": [file.sha256 for file in images.values() if file.sha256 is not None],
        "uris": orjson.dumps(uris).decode(),
        "model": model.name,
    }
    row = connection.execute(_ANY_KNOWN, given).fetchone()
    assert row is not None
    any_known, any_failed = row
    if any_known or len(set(uris)) < len(uris) or len({image for image, _ in embedded}) < len(embedded):
        return None
    found = connection.execute("select model_id from lookalike.models where name = %s", [model.name]).fetchone()
    assert found is not None
    copy_rows(connection, "lookalike.images", _IMAGES, ((file.image_id, file.sha256) for file in images.values()))
    places = ((file.image_id, file.place) for file in files)
    rows = ((i, at.collection, at.uri, at.fingerprint, at.key, json_of(at.metadata or {})) for i, at in places)
    copy_rows(connection, "lookalike.files", _FILES, rows)
    copy_embeddings(connection, found[0], [image for image, _ in embedded], [vector for _, vector in embedded])
    if any_failed:
        connection.execute(
            "delete from lookalike.failures where model = %s and (collection, uri) in"
            " (select * from unnest(%s::text[], %s::text[]))",
            [model.name, [file.place.collection for file in files], uris],
        )
    return Written(embedded=len(embedded))


def _as_new(file: ImportedFile, model: Model) -> NewFile:
    embedding = None if file.vector is None else Embedding(model, file.vector.astype(np.float32))
    return NewFile(file.place, file.image_id, None, embedding, sha256=file.sha256)
