"""The images that a model still lacks, as candidates for the corridor."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from uuid import UUID

from lookalike.ingest.patience import Patiently
from lookalike.ingest.sources import Candidate
from lookalike.ingest.sources.folders import file_at
from lookalike.store.claims import FROM_THE_FIRST, claim_lacking
from lookalike.store.database import Database
from lookalike.store.reading import StoredFiles, files_of
from lookalike.store.writing import Place
from lookalike.types import Model
from lookalike.uris import path_of

_CLAIMED_AT_ONCE = 64
_LOOK_AGAIN_SECONDS = 1.0


def lacking(
    database: Database,
    model: Model,
    worker: UUID,
    halt: threading.Event,
    patiently: Patiently,
) -> Iterator[list[Candidate]]:
    """Images without an embedding under `model`, claimed a few at a time, until there are none in nobody's hands.

    While others have the rest in hand, empty lists are given, as the others may die.
    """
    began = time.monotonic()
    # each worker begins at a place of its own, and comes by the beginning later
    after = worker
    while not halt.is_set():
        since = time.monotonic() - began + 1.0
        claim = partial(claim_lacking, database, model, worker, _CLAIMED_AT_ONCE, since=since, after=after)
        images, others = patiently(claim)
        if images:
            after = max(images)
            files = patiently(partial(files_of, database, images))
            yield [_candidate(of_image) for of_image in files]
        elif after != FROM_THE_FIRST:
            after = FROM_THE_FIRST
        elif others:
            yield []
            halt.wait(_LOOK_AGAIN_SECONDS)
        else:
            return


def _candidate(stored: StoredFiles) -> Candidate:
    first, *others = (_at(collection, uri, stored) for collection, uri in stored.files)
    return replace(first, others=tuple(others))


def _at(collection: str, uri: str, stored: StoredFiles) -> Candidate:
    path = path_of(uri)
    if path is None:
        candidate = Candidate(uri, Place(uri, collection=collection), remote=True)
    else:
        candidate = file_at(str(path), collection, expected=True)
    return replace(candidate, image_id=stored.image_id, sha256=stored.sha256, media_type=stored.media_type)
