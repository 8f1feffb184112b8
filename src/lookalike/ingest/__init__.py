"""Ingestion: brings pictures in. `sources` names files, `corridor` takes each of them to its end.

Two entrances, one corridor: `ingest` walks sources, `backfill` the images that a model still lacks. `plan` says what an
ingest would do.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from functools import partial

from lookalike.embedders import Embedder
from lookalike.errors import ConfigurationError
from lookalike.ingest.backfill import lacking
from lookalike.ingest.corridor import Corridor, Terms
from lookalike.ingest.feeder import batched
from lookalike.ingest.plan import plan
from lookalike.ingest.prepare import Preparation
from lookalike.ingest.prune import noting, prune_gone
from lookalike.ingest.sources import Sources
from lookalike.ingest.spill import Seen
from lookalike.reports import IngestReport
from lookalike.store.database import Database
from lookalike.store.known import Retry

__all__ = [
    "Preparation",
    "Retry",
    "Sources",
    "Terms",
    "backfill",
    "check_numbers",
    "failures_allowed",
    "ingest",
    "plan",
]

_WALK_BATCH = 256


def ingest(
    database: Database,
    embedder: Embedder,
    sources: Sources,
    preparation: Preparation,
    terms: Terms,
    *,
    most_pruned: float | None = None,
) -> IngestReport:
    """Embed every picture of `sources` that is not known yet.

    Args:
        most_pruned: remove files that are gone from the sources, up to this share of what they held; None to keep them.

    Raises:
        LookalikeError: nothing more could be done with the service or with the database, or too much would have been
            pruned; its `report` says what was done before.
    """
    with Seen() as seen:
        prune, candidates = None, sources.walk()
        if most_pruned is not None:
            scopes = list(sources.prune_scopes())
            candidates = noting(candidates, scopes, seen)
            prune = partial(prune_gone, database, sources.collection, scopes, seen, most_pruned)
        expected = _counted(sources) if terms.progress is not None else lambda: None
        corridor = Corridor(database, embedder, preparation, terms, prune, expected)
        return corridor.run(batched(candidates, _WALK_BATCH), command="ingest")


def backfill(database: Database, embedder: Embedder, preparation: Preparation, terms: Terms) -> IngestReport:
    """Embed every stored image that the model still lacks, read from its files.

    Several processes may do so at once, on several machines: they split the work.

    Raises:
        LookalikeError: nothing more could be done with the service or with the database; its `report` says what was
            done before.
    """
    corridor = Corridor(database, embedder, preparation, terms)
    images = lacking(database, embedder.model, corridor.worker, terms.halt, corridor.patiently)
    return corridor.run(images, command="models backfill")


def failures_allowed(most: int | str) -> Callable[[int], int]:
    """How many of so many files may fail for the first time: a number, or a share such as ``5%``.

    Raises:
        ConfigurationError: it is neither.
    """
    text = str(most).strip()
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    is_share = text.endswith("%")
    if not 0 <= number < math.inf or (is_share and number > 100) or (not is_share and number % 1):
        raise ConfigurationError(f"--max-failures is {text!r}; it is a number of files, or a share such as 5%.")
    return lambda found: int(found * number / 100) if is_share else int(number)


def _counted(sources: Sources) -> Callable[[], int | None]:
    """The number of files, once they have been counted in the background."""
    counted: list[int | None] = []

    def count() -> None:
        with contextlib.suppress(Exception):  # the run itself reports what is wrong with a source
            counted.append(sources.count(threading.Event()))

    threading.Thread(target=count, name="lookalike-count", daemon=True).start()
    return lambda: counted[0] if counted else None


def check_numbers(max_calls: int | None, max_prune: float, concurrency: int | None) -> None:
    """Refuse numbers that make no sense.

    Raises:
        ValueError: one of them does not.
    """
    if max_calls is not None and max_calls < 0:
        raise ValueError(f"max_calls is {max_calls}; it is a number of calls, 0 or more")
    if not 0 <= max_prune <= 1:
        raise ValueError(f"max_prune is {max_prune!r}; it is a share, 0 to 1")
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}; it is a number of calls, 1 or more")
