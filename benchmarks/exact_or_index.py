#!/usr/bin/env python3
"""From which size on is the index faster than comparing every vector?

    .venv/bin/python benchmarks/exact_or_index.py

Prints medians of one run, exact and by index, and their ratio; `EXACT_BELOW_BYTES` in store/reading.py follows it.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np

from lookalike import Embedding, Model, Settings
from lookalike.store.database import Database
from lookalike.store.embedded import EmbeddedServer
from lookalike.store.nearest import nearest
from lookalike.store.reading import model_to_search
from lookalike.store.writing import NewFile, Place, write_files
from lookalike.types import Content

MODEL = Model("benchmark/themes")


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="lookalike-"))
    try:
        with Database.open(Settings(home=home, home_chosen=True)) as database:
            print("vectors  exact ms  index ms  exact/index")
            for count in (100, 500, 1000, 1500, 2000, 4000):
                exact, index = measure(database, count)
                print(f"{count:7,}  {exact:8.2f}  {index:8.2f}  {exact / index:11.2f}")
    finally:
        EmbeddedServer(home).stop()


def measure(database: Database, count: int) -> tuple[float, float]:
    """Median milliseconds of a search over `count` vectors, exact and by index, in turns."""
    random = np.random.default_rng(0)
    themes = random.standard_normal((40, 1024))
    vectors = (themes[random.integers(0, 40, count)] + 0.7 * random.standard_normal((count, 1024))).astype(np.float32)
    with database.transaction() as connection:
        connection.execute("truncate lookalike.images cascade")
    files = [
        NewFile(Place(f"https://x/{n}"), content.image_id, content, Embedding(MODEL, vector))
        for n, vector in enumerate(vectors)
        for content in [Content(random.bytes(32), "image/jpeg", 9, 9, 9)]
    ]
    for start in range(0, count, 500):
        write_files(database, MODEL, files[start : start + 500])
    stored = model_to_search(database, MODEL.name)
    assert stored is not None
    taken: dict[bool, list[float]] = {True: [], False: []}
    for vector in [*vectors[:50]] * 4:
        for exact, seconds in taken.items():
            seconds.append(nearest(database, stored, vector, limit=10, exact=exact).seconds * 1000)
    return statistics.median(taken[True]), statistics.median(taken[False])


if __name__ == "__main__":
    main()
