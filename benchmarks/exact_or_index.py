#!/usr/bin/env python3
"""From which size on is the index faster than comparing every vector?

    .venv/bin/python -m benchmarks.exact_or_index

Prints medians of one run, exact and by index, and their ratio; `EXACT_BELOW_BYTES` in store/nearest.py follows it.
"""

from __future__ import annotations

import statistics

import numpy as np

from benchmarks.bench import Bench, new_library
from benchmarks.photos import MODEL, Photos
from lookalike import Embedding, Model
from lookalike.store.database import Database
from lookalike.store.nearest import nearest
from lookalike.store.reading import model_to_search
from lookalike.store.writing import NewFile, Place, write_files
from lookalike.types import Content

_MODEL = Model(MODEL)


def main() -> None:
    with Bench() as bench, bench.server() as server, new_library(server) as images, Database(images.place) as database:
        print("vectors  exact ms  index ms  exact/index")
        for count in (100, 500, 1000, 1500, 2000, 4000):
            exact, index = measure(database, Photos(count, bench.folder, queries=50))
            print(f"{count:7,}  {exact:8.2f}  {index:8.2f}  {exact / index:11.2f}")


def measure(database: Database, photos: Photos) -> tuple[float, float]:
    """Median milliseconds of a search over the photos, exact and by index, in turns."""
    random = np.random.default_rng(0)
    with database.transaction() as connection:
        connection.execute("truncate lookalike.images cascade")
    files = [
        NewFile(Place(f"https://x/{n}"), content.image_id, content, Embedding(_MODEL, vector.astype(np.float32)))
        for n, vector in enumerate(photos.vectors)
        for content in [Content(random.bytes(32), "image/jpeg", 9, 9, 9)]
    ]
    for start in range(0, photos.count, 500):
        write_files(database, _MODEL, files[start : start + 500])
    stored = model_to_search(database, _MODEL.name)
    assert stored is not None
    taken: dict[bool, list[float]] = {True: [], False: []}
    for vector in [*photos.asked] * 4:
        for exact, seconds in taken.items():
            seconds.append(nearest(database, stored, vector, limit=10, exact=exact).seconds * 1000)
    return statistics.median(taken[True]), statistics.median(taken[False])


if __name__ == "__main__":
    main()
