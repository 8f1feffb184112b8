"""Ingestion: brings pictures in. `sources` lists files, `corridor` takes each of them to its end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from lookalike.embedders import Embedder
from lookalike.ingest.corridor import Corridor
from lookalike.ingest.sources import check_sources, walk
from lookalike.store.database import Database
from lookalike.store.writing import Retry
from lookalike.types import IngestReport

__all__ = ["Retry", "check_sources", "count_files", "ingest"]


def ingest(
    database: Database,
    embedder: Embedder,
    sources: Sequence[str],
    *,
    halt: threading.Event,
    stop: threading.Event,
    retry: Retry,
    concurrency: int | None = None,
    progress: Callable[[IngestReport], None] | None = None,
) -> IngestReport:
    """Embed every picture below `sources`, which `check_sources` has passed, that is not known yet.

    Args:
        halt: the event that `embedder` waits with; it is set when the run ends early.
        stop: set by the caller to end the run after what is under way.
        retry: which failed files are tried again although they have not changed.

    Raises:
        LookalikeError: nothing more could be done with the service or with the database; its `report` says what was
            done before.
    """
    return Corridor(database, embedder, halt, stop, retry, concurrency, progress).run(walk(sources), command="ingest")


def count_files(sources: Sequence[str | os.PathLike[str]], stop: threading.Event) -> int | None:
    """How many files a walk over `sources` comes upon, for a progress bar; None if stopped before the end."""
    number = 0
    for number, _ in enumerate(walk(check_sources(sources)), start=1):  # noqa: B007
        if stop.is_set():
            return None
    return number
