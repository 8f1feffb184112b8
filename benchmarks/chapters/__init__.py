"""The chapters, each a module with ``run(bench) -> Chapter``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

from benchmarks.bench import Bench
from benchmarks.report import Chapter

CHAPTERS: Mapping[str, str] = {
    "search": "searches against psycopg by hand: one at a time, from threads, many at once",
    "filters": "searches among a part of the library, against both ways by hand",
    "load": "imports of precomputed vectors, beside COPY by hand",
    "ingest": "pictures through the emulator, beside the loop of a tutorial",
    "peers": "other libraries with the same photos, each beside psycopg by hand",
}
"""What there is to measure, in this order."""

ONLY_WHEN_NAMED: Mapping[str, str] = {
    "growth": "libraries of 10,000, 100,000 and 500,000 photos (BENCH_GROWTH): time, disk and memory",
}
"""What takes too long to be measured unasked."""


def chapter(name: str) -> Callable[[Bench], Chapter]:
    """What measures a chapter."""
    run: Callable[[Bench], Chapter] = importlib.import_module(f"benchmarks.chapters.{name}").run
    return run
