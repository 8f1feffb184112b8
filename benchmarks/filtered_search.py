#!/usr/bin/env python3
"""Do searches bring as many rows as were asked for, and the right ones, however few files a filter lets pass?

    .venv/bin/python benchmarks/filtered_search.py [VECTORS]

Imports VECTORS (by default 20,000) clustered vectors with made-up metadata into a library of its own. For each filter
and limit: the fewest rows of 40 searches, their mean recall against an exact search, how many of them were exact by
themselves, and the median of their times over those of the exact search with the same filter, each pair in turn.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from lookalike import Embedding, Lookalike, Model, Settings
from lookalike.store.embedded import EmbeddedServer

MODEL = Model("measured/clustered-1")
SEARCHES = 40
FILTERS = {
    "none": None,
    "50 %": "half=true",
    "20 %": "fifth=true",
    "4 %": "rare=true",
    "1 %": "rarer=true",
    "0.1 %": "rarest=true",
    "7 images": "seven=true",
    "50 %, a range": "chance<0.5",
    "1 %, a range": "chance<0.01",
    "20 % of the themes": "theme<40",
}
"""Only equality is answered by the index over metadata; the themes are where the query mostly is not."""


def main() -> None:
    count = int(sys.argv[1].replace("_", "").replace(",", "")) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        try:
            path, queries = vectors(Path(folder), count)
            with Lookalike.open(Settings(home=home, home_chosen=True)) as images:
                images.import_vectors(path)
                print(f"{count:,} vectors, {SEARCHES} searches each")
                print("filter               limit   rows   recall   exact   time / exact")
                for name, where in FILTERS.items():
                    for limit in (10, 200, 1000):
                        print(f"{name:20} {limit:5}  {measure(images, queries, where, limit)}", flush=True)
        finally:
            EmbeddedServer(home).stop()


def measure(images: Lookalike, queries: list[Embedding], where: str | None, limit: int) -> str:
    """One line of the table."""
    recalls, ratios, rows, exact = [], [], [], 0
    for query in queries:
        found = images.search(query, limit=limit, where=where)
        truth = images.search(query, limit=limit, where=where, exact=True)
        assert len(found) == len(truth), "a search that lies"
        right = {hit.image_id for hit in truth}
        recalls.append(len(right & {hit.image_id for hit in found}) / len(right))
        ratios.append(found.seconds / truth.seconds)
        rows.append(len(found))
        exact += found.exact
    return f"{min(rows):5}    {statistics.mean(recalls):.3f}   {exact:5}   {statistics.median(ratios):12.2f}"


def vectors(folder: Path, count: int) -> tuple[Path, list[Embedding]]:
    """A file of vectors as photos give them, some themes and differences within each; and queries near them."""
    random = np.random.default_rng(0)
    themes = random.standard_normal((200, 1024), np.float32)
    theme = random.integers(0, 200, count)
    matrix = np.empty((count, 1024), np.float16)
    for first in range(0, count, 10_000):
        part = matrix[first : first + 10_000]
        part[:] = themes[theme[first : first + 10_000]] + 0.9 * random.standard_normal(part.shape, np.float32)
    chance = random.permutation(count) / count
    path = folder / "vectors.npz"
    np.savez(
        path,
        uri=np.array([f"https://pictures.example/{number}.jpg" for number in range(count)]),
        vectors=matrix,
        model=np.array(MODEL.name),
        theme=theme,
        chance=chance,
        half=chance < 0.5,
        fifth=chance < 0.2,
        rare=chance < 0.04,
        rarer=chance < 0.01,
        rarest=chance < 0.001,
        seven=np.arange(count) % (count // 7 + 1) == 3,
    )
    near = matrix[:: count // SEARCHES][:SEARCHES].astype(np.float32)
    noise = random.standard_normal(near.shape, np.float32)
    return path, [Embedding(MODEL, vector) for vector in near + noise]


if __name__ == "__main__":
    main()
