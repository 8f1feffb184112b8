#!/usr/bin/env python3
"""What does a search cost beyond the query that somebody would write by hand, for the same index and the same columns?

    .venv/bin/python benchmarks/search_against_psycopg.py [VECTORS]

Imports VECTORS (by default 50,000) vectors as photos give them into a library of its own. The rival is psycopg with a
prepared statement, binary both ways, on a connection of its own in autocommit, with ``hnsw.ef_search`` set once and
for all. Prints ratios: of the median time, each query by both in random order; of the queries a second from 8 threads;
and of 100 queries in one call of `search_many` against single hand-written ones. Recall is that of both against an
exact search.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import psycopg
from pgvector import HalfVector
from pgvector.psycopg.halfvec import register_halfvec_info
from psycopg.types import TypeInfo

from lookalike import Embedding, Lookalike, Model, Settings
from lookalike.store.embedded import EmbeddedServer

MODEL = Model("measured/photos-1")
QUERIES = 400
THREADS = 8
SECONDS = 4.0

BY_HAND = """
select e.image_id, e.embedding <=> %(query)s as distance, f.uri, f.key, f.collection, f.metadata
  from (select image_id, embedding from lookalike.{view} order by embedding <=> %(query)s limit 10) e
  join lookalike.files f using (image_id)
 order by distance, e.image_id
"""

Vectors: TypeAlias = npt.NDArray[np.float16]
Ask: TypeAlias = Callable[[Embedding], Sequence[Any]]


def main() -> None:
    count = int(sys.argv[1].replace("_", "").replace(",", "")) if len(sys.argv) > 1 else 50_000
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        try:
            path, queries = vectors(Path(folder), count)
            with Lookalike.open(Settings(home=home, home_chosen=True)) as images:
                images.import_vectors(path)
                view = images.status().models[0].view
                with Rival(images, view) as rival:
                    compare(images, rival, view, queries)
        finally:
            EmbeddedServer(home).stop()


def compare(images: Lookalike, rival: Rival, view: str, queries: list[Embedding]) -> None:
    for query in queries[:50]:
        images.search(query)
        rival.search(query)
    exact = [{hit.image_id for hit in images.search(query, exact=True)} for query in queries[:100]]
    ours = [{hit.image_id for hit in images.search(query)} for query in queries[:100]]
    theirs = [{row[0] for row in rival.search(query)} for query in queries[:100]]
    for name, found in (("ours", ours), ("by hand", theirs)):
        share = statistics.mean(len(a & b) / len(b) for a, b in zip(found, exact, strict=True))
        print(f"recall@10, {name}: {share:.3f}")

    ratios, single = [], []
    for query in queries:
        times = {}
        pair: list[tuple[str, Ask]] = [("ours", lambda q: images.search(q).hits), ("by hand", rival.search)]
        random.shuffle(pair)
        for name, ask in pair:
            began = time.perf_counter()
            ask(query)
            times[name] = time.perf_counter() - began
        ratios.append(times["ours"] / times["by hand"])
        single.append(times["by hand"])
    print(f"one at a time, median time over that by hand: {statistics.median(ratios):.2f}")

    many = []
    for first in range(0, QUERIES, 100):
        began = time.perf_counter()
        images.search_many(queries[first : first + 100])
        many.append((time.perf_counter() - began) / 100)
    print(f"search_many of 100, queries a second over single ones by hand: {statistics.median(single) / min(many):.2f}")

    rates: dict[str, list[float]] = {"ours": [], "by hand": []}
    rivals = [Rival(images, view) for _ in range(THREADS)]
    for _ in range(3):
        rates["ours"].append(rate([lambda q: images.search(q).hits] * THREADS, queries))
        rates["by hand"].append(rate([one.search for one in rivals], queries))
    for one in rivals:
        one.close()
    share = statistics.median(a / b for a, b in zip(rates["ours"], rates["by hand"], strict=True))
    print(f"{THREADS} threads, queries a second over those by hand: {share:.2f}")


class Rival:
    """What a careful person writes by hand."""

    def __init__(self, images: Lookalike, view: str) -> None:
        self._connection = psycopg.connect(images.place, autocommit=True, prepare_threshold=0)
        halfvec = TypeInfo.fetch(self._connection, "halfvec")
        assert halfvec is not None
        register_halfvec_info(self._connection, halfvec)
        self._connection.execute("set hnsw.ef_search = 100")
        self._statement = BY_HAND.format(view=view).encode()

    def search(self, query: Embedding) -> list[tuple[Any, ...]]:
        """The rows of the ten nearest."""
        vector = HalfVector(query.vector.astype(np.float16))
        return self._connection.execute(self._statement, {"query": vector}, binary=True).fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def rate(each: Sequence[Ask], queries: list[Embedding]) -> float:
    """Queries a second, from as many threads as there are things to ask."""
    until = time.perf_counter() + SECONDS
    done = [0] * len(each)

    def ask(number: int) -> None:
        while time.perf_counter() < until:
            each[number](queries[(done[number] * len(each) + number) % len(queries)])
            done[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(each))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / SECONDS


def vectors(folder: Path, count: int) -> tuple[Path, list[Embedding]]:
    """A file of vectors: a mixture of themes around a mean, of few directions within each; and queries like them."""
    random_ = np.random.default_rng(0)
    mean = random_.standard_normal(1024, np.float32)
    themes = 0.7 * random_.standard_normal((200, 1024), np.float32)
    directions = 0.15 * random_.standard_normal((64, 1024), np.float32)

    def draw(number: int) -> Vectors:
        within = random_.standard_normal((number, 64), np.float32) @ directions
        noise = 0.1 * random_.standard_normal((number, 1024), np.float32)
        drawn: Vectors = (mean + themes[random_.integers(0, 200, number)] + within + noise).astype(np.float16)
        return drawn

    matrix = np.concatenate([draw(min(10_000, count - first)) for first in range(0, count, 10_000)])
    path = folder / "vectors.npz"
    np.savez(
        path,
        uri=np.array([f"https://pictures.example/{number}.jpg" for number in range(count)]),
        key=np.array([f"sku-{number}" for number in range(count)]),
        vectors=matrix,
        model=np.array(MODEL.name),
        price=random_.integers(1, 99, count),
        artist=np.array(["Monet", "Manet", "Klee"])[random_.integers(0, 3, count)],
    )
    return path, [Embedding(MODEL, vector.astype(np.float32)) for vector in draw(QUERIES)]


if __name__ == "__main__":
    main()
