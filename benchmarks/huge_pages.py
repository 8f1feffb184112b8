#!/usr/bin/env python3
"""What do huge pages do for a search?

    .venv/bin/python -m benchmarks.huge_pages

As root and on Linux, as somebody must set the pages aside. Two servers with the same photos, one of them with huge
pages; each query is asked of both, by hand, in random order.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

import psycopg

from benchmarks.bench import SIZE, Bench
from benchmarks.rival import LIBRARY, Rival
from benchmarks.turns import paired
from lookalike.store.embedded import EmbeddedServer

SMALL, HUGE = "4 kB", "2 MB"


def main() -> None:
    """Print the median time of a search with either size of pages."""
    with Bench(int(os.environ.get("BENCH_N", SIZE))) as bench, ExitStack() as stack:
        libraries = {}
        for pages, overrides in ((SMALL, {"huge_pages": "off"}), (HUGE, None)):
            server = stack.enter_context(bench.server(overrides))
            if (pages == HUGE) != _has_huge_pages(server):
                sys.exit("The system gives PostgreSQL no huge pages. Run this as root, on Linux, with memory to spare.")
            libraries[pages] = stack.enter_context(bench.filled(server))
        print(f"{'ef_search':>9}{'pages':>8}{'p50 ms':>9}")
        for ef_search in (40, 100):
            rivals = {
                pages: stack.enter_context(
                    Rival(images.place, LIBRARY.format(view=images.status().models[0].view), ef_search=ef_search)
                )
                for pages, images in libraries.items()
            }
            times = paired({pages: rival.search for pages, rival in rivals.items()}, list(bench.photos.asked))
            for pages in rivals:
                print(f"{ef_search:9}{pages:>8}{times.median(pages) * 1e3:9.2f}")


def _has_huge_pages(server: EmbeddedServer) -> bool:
    with psycopg.connect(server.dsn) as connection:
        return connection.execute("show huge_pages_status").fetchone() == ("on",)


if __name__ == "__main__":
    main()
