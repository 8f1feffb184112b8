"""What does a search cost beyond the query that somebody would write by hand, by the same index?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from hashlib import sha256
from typing import TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg

from benchmarks.bench import Bench
from benchmarks.photos import MODEL, number_of, recall
from benchmarks.report import Chapter, Figure, Table, at_least, at_most
from benchmarks.rival import EF_SEARCH, LIBRARY, LIBRARY_LIKE_IMAGE, LIBRARY_LIKE_TEXT, Rival
from benchmarks.turns import Turns, in_turns, paired, rates
from lookalike import Embedding, Model, Result
from lookalike.store.database import Database
from lookalike.store.writing import remember_query

Query: TypeAlias = npt.NDArray[np.float32]

OURS, THEIRS = "Lookalike", "by hand"
CLIENTS = (1, 2, 8)
TOGETHER = 100
FEW = 40
"""pgvector's own ``ef_search``, which finds a little less in a shorter time."""


def run(bench: Bench) -> Chapter:
    """Searches by vector, by stored image and by text, alone, from threads and many at once."""
    images, photos = bench.library, bench.photos
    queries, model = list(photos.asked), Model(MODEL)
    view = images.status().models[0].view
    model_id = _ask_for_texts(images.place, model, queries)

    def ours(query: Query) -> Result:
        return images.search(Embedding(model, query))

    def ours_with_few(query: Query) -> Result:
        return images.search(Embedding(model, query), ef_search=FEW)

    with ExitStack() as stack:

        def rival(statement: str, ef_search: int = EF_SEARCH) -> Rival:
            written = statement.format(view=view, model_id=model_id)
            return stack.enter_context(Rival(images.place, written, ef_search=ef_search))

        rivals = [rival(LIBRARY) for _ in range(max(CLIENTS))]
        with_few, like_image, like_text = rival(LIBRARY, FEW), rival(LIBRARY_LIKE_IMAGE), rival(LIBRARY_LIKE_TEXT)

        bench.say("one at a time, each query by both")
        by_vector = paired({OURS: ours, THEIRS: rivals[0].search}, queries)
        forms = {
            "by vector": by_vector,
            f"by vector, ef_search {FEW}": paired({OURS: ours_with_few, THEIRS: with_few.search}, queries),
            "by stored image": paired(
                {OURS: images.similar, THEIRS: lambda image: like_image.ask(image=image)},
                _some_images(images.place, len(queries)),
            ),
            "by text, asked before": paired(
                {OURS: images.search, THEIRS: lambda text: like_text.ask(digest=sha256(text.encode()).digest())},
                [_text(number) for number in range(len(queries))],
            ),
        }

        judged = queries[: len(photos.nearest)]

        def judge(found: Callable[[Query], Sequence[str]]) -> float:
            return recall([[number_of(uri) for uri in found(query)] for query in judged], photos.nearest)

        recalls = {
            "by vector": [judge(lambda query: [hit.uri for hit in ours(query)]), judge(_uris(rivals[0]))],
            f"by vector, ef_search {FEW}": [
                judge(lambda query: [hit.uri for hit in ours_with_few(query)]),
                judge(_uris(with_few)),
            ],
        }

        from_threads: dict[int, Turns] = {}
        for clients in CLIENTS:
            bench.say(f"{clients} client{'s' * (clients > 1)}")
            asks: dict[str, list[Callable[[Query], object]]] = {
                OURS: [ours] * clients,
                THEIRS: [one.search for one in rivals[:clients]],
            }
            from_threads[clients] = rates(asks, queries, seconds=bench.seconds(2.0))

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

    least, theirs = recalls["by vector"]
    return Chapter(
        title="A search against psycopg by hand",
        shows=(
            f"Ten nearest of {bench.count:,}, with URI, key, collection and metadata, by the same index at ef_search "
            f"{EF_SEARCH}. By hand is psycopg 3 with a prepared statement, binary both ways, in autocommit, its "
            "options set once and for all. Each query is asked by both, in random order; ratios are medians of pairs."
        ),
        figures=[
            Figure(
                "p50 of a search by vector",
                by_vector.ratio(OURS, THEIRS),
                asked=at_most(1.25),
                note="over that by hand",
            ),
            Figure(
                f"queries a second, {max(CLIENTS)} threads",
                from_threads[max(CLIENTS)].ratio(OURS, THEIRS),
                asked=at_least(0.9),
                note="over those by hand",
            ),
            Figure(
                f"queries a second, search_many of {TOGETHER}",
                many.ratio(OURS, THEIRS),
                asked=at_least(1.5),
                note="over single ones by hand",
            ),
            Figure("recall@10", least, "", asked=at_least(0.95), note=f"by hand {theirs:.3f}"),
        ],
        tables=[
            Table(
                ("one at a time", "p50 ms", "by hand", "ratio", "p95 ms", "by hand", "recall@10", "by hand"),
                [
                    (
                        form,
                        times.median(OURS) * 1e3,
                        times.median(THEIRS) * 1e3,
                        times.ratio(OURS, THEIRS),
                        times.p95(OURS) * 1e3,
                        times.p95(THEIRS) * 1e3,
                        *recalls.get(form, (None, None)),
                    )
                    for form, times in forms.items()
                ],
            ),
            Table(
                ("threads", "queries a second", "by hand", "ratio"),
                [
                    (clients, rate.median(OURS), rate.median(THEIRS), rate.ratio(OURS, THEIRS))
                    for clients, rate in from_threads.items()
                ],
            ),
        ],
        notes=[
            "A stored image is named by its id, and a text was embedded before, so that their vectors are in the "
            "database already; by hand, they are looked up in the statement that searches."
        ],
    )


def _uris(rival: Rival) -> Callable[[Query], list[str]]:
    return lambda query: [row[2] for row in rival.search(query)]


def _text(number: int) -> str:
    return f"a query in words, number {number}"


def _ask_for_texts(dsn: str, model: Model, queries: Sequence[Query]) -> int:
    """Have as many texts embedded as there are queries, as if somebody had asked for them; returns the model's id."""
    with Database(dsn) as database:
        for number, query in enumerate(queries):
            text = _text(number)
            remember_query(database, "text", sha256(text.encode()).digest(), text, Embedding(model, query))
        with database.transaction() as connection:
            row = connection.execute("select model_id from lookalike.models where name = %s", [model.name]).fetchone()
    assert row is not None
    return int(row[0])


def _some_images(dsn: str, number: int) -> list[UUID]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select image_id from lookalike.files order by key limit %s", [number]).fetchall()
    return [row[0] for row in rows]
