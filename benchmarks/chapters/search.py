"""What does a search cost beyond the query that somebody would write by hand, by the same index?"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from benchmarks.bench import Bench
from benchmarks.photos import MODEL, number_of, recall
from benchmarks.report import Chapter, Figure, Table, at_least, at_most
from benchmarks.rival import EF_SEARCH, LIBRARY, Rival
from benchmarks.turns import in_turns, paired, rates
from lookalike import Embedding, Model, Result

Query: TypeAlias = npt.NDArray[np.float32]

OURS, THEIRS = "Lookalike", "by hand"
CLIENTS = (1, 2, 8)
TOGETHER = 100


def run(bench: Bench) -> Chapter:
    """Searches by vector beside psycopg by hand."""
    images, photos = bench.library, bench.photos
    statement = LIBRARY.format(view=images.status().models[0].view)
    model = Model(MODEL)
    queries = list(photos.asked)

    def ours(query: Query) -> Result:
        return images.search(Embedding(model, query))

    with ExitStack() as stack:
        rivals = [stack.enter_context(closing(Rival(images.place, statement))) for _ in range(max(CLIENTS))]

        bench.say("one at a time, each query by both")
        one = paired({OURS: ours, THEIRS: rivals[0].search}, queries)
        found = {
            OURS: [[number_of(hit.uri) for hit in ours(query)] for query in queries[: len(photos.nearest)]],
            THEIRS: [
                [number_of(row[2]) for row in rivals[0].search(query)] for query in queries[: len(photos.nearest)]
            ],
        }
        recalls = {side: recall(numbers, photos.nearest) for side, numbers in found.items()}

        rows, figures = [], []
        for clients in CLIENTS:
            bench.say(f"{clients} client{'s' * (clients > 1)}")
            each = rates(
                {
                    OURS: [ours] * clients,
                    THEIRS: [rival.search for rival in rivals[:clients]],
                },
                queries,
                seconds=bench.seconds(2.0),
            )
            share = each.ratio(OURS, THEIRS)
            rows.append((f"{clients}", each.median(OURS), each.median(THEIRS), share))
            figures.append(
                Figure(
                    f"queries a second, {clients} threads" if clients > 1 else "queries a second, 1 thread",
                    share,
                    asked=at_least(0.9) if clients == max(CLIENTS) else None,
                    note="over those by hand",
                )
            )

        bench.say(f"{TOGETHER} in one call")

        def together() -> float:
            began = time.perf_counter()
            for first in range(0, len(queries), TOGETHER):
                images.search_many([Embedding(model, query) for query in queries[first : first + TOGETHER]])
            return len(queries) / (time.perf_counter() - began)

        def by_hand() -> float:
            began = time.perf_counter()
            for query in queries:
                rivals[0].search(query)
            return len(queries) / (time.perf_counter() - began)

        many = in_turns({OURS: together, THEIRS: by_hand}, 5)

    return Chapter(
        title="A search against psycopg by hand",
        shows=(
            f"Ten nearest of {bench.count:,}, with URI, key, collection and metadata, by the same index at ef_search "
            f"{EF_SEARCH}. By hand is psycopg 3 with a prepared statement, binary both ways, in autocommit, its "
            "options set once and for all. Each query is asked by both, in random order; ratios are medians of pairs."
        ),
        figures=[
            Figure("p50 of a search by vector", one.ratio(OURS, THEIRS), asked=at_most(1.25), note="over that by hand"),
            *figures,
            Figure(
                f"queries a second, search_many of {TOGETHER}",
                many.ratio(OURS, THEIRS),
                asked=at_least(1.5),
                note="over single ones by hand",
            ),
            Figure("recall@10", recalls[OURS], "", asked=at_least(0.95), note=f"by hand {recalls[THEIRS]:.3f}"),
        ],
        tables=[
            Table(
                ("one at a time", "p50 ms", "p95 ms", "recall@10"),
                [(side, one.median(side) * 1e3, one.p95(side) * 1e3, recalls[side]) for side in (OURS, THEIRS)],
            ),
            Table(("clients", "Lookalike, queries/s", "by hand, queries/s", "ratio"), rows),
        ],
    )
