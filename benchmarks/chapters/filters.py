"""What does a search cost among a part of the library, and does it bring all that it should?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import psycopg

from benchmarks.bench import Bench, new_library
from benchmarks.photos import MODEL, Photos, number_of, recall
from benchmarks.report import Chapter, Figure, Table, at_least, at_most
from benchmarks.rival import Rival
from benchmarks.turns import paired
from lookalike import Embedding, Lookalike, Model

Query: TypeAlias = npt.NDArray[np.float32]
Kept: TypeAlias = npt.NDArray[np.bool_]

OURS, FILTER_FIRST, ITERATIVE = "Lookalike", "filter first", "iterative"
SHARES = (0.001, 0.01, 0.04, 0.2, 0.5)
QUERIES = 40
SLOWER = 3.0
GOOD = 0.95

COLUMNS = "e.image_id, e.embedding <=> %(query)s as distance, f.uri, f.key, f.collection, f.metadata"
FIRST = """
with f as materialized (select * from lookalike.files where {condition})
select {columns} from f join lookalike.{view} e using (image_id) order by (e.embedding <=> %(query)s) + 0 limit 10
"""
"""By the distance as an expression that the HNSW index does not hold, else the planner may walk it."""
WALK = """
select {columns} from lookalike.{view} e join lookalike.files f using (image_id)
 where {condition} order by e.embedding <=> %(query)s limit 10
"""
FIRST_OPTIONS = {"plan_cache_mode": "force_custom_plan", "hnsw.iterative_scan": "off"}
WALK_OPTIONS = {"hnsw.iterative_scan": "relaxed_order", "enable_seqscan": "off", "enable_sort": "off"}
"""With these each does what its name says, and is fastest."""

INDEXES = (
    "create index by_kind on lookalike.files ((metadata ->> 'kind'))",
    "create index by_chance on lookalike.files (((metadata ->> 'chance')::float8))",
    "create index by_theme on lookalike.files (((metadata ->> 'theme')::int))",
)


@dataclass(frozen=True)
class Filter:
    """One filter, in our words and by hand.

    Attributes:
        form: what kind of filter it is.
        key: the metadata's key that has an index of ours while it is measured, if any.
        bound: whether it is held to the bound on its time.
    """

    form: str
    where: str
    condition: str
    kept: Kept
    key: str | None = None
    bound: bool = True

    @property
    def name(self) -> str:
        return f"{self.form}, {self.kept.mean() * 100:.2g} %"


@dataclass(frozen=True)
class Measured:
    """How one filter fared: seconds, ratios and recall by side.

    Attributes:
        rows: the fewest that a search of ours brought.
        exact: the share of our searches that compared everything that matches.
    """

    filter: Filter
    rows: int
    p50: dict[str, float]
    ratio: dict[str, float]
    recall: dict[str, float]
    exact: float

    def over(self, least_recall: float = 0.0) -> float:
        """Our time over that of the better one of those by hand whose recall is good enough."""
        rivals = [side for side in (FILTER_FIRST, ITERATIVE) if self.recall[side] >= least_recall]
        return self.ratio[min(rivals, key=lambda side: self.p50[side])]


def run(bench: Bench) -> Chapter:
    """Filters of several kinds and shares, each by us, filter-first by hand, and by an iterative scan by hand."""
    photos = bench.photos
    kind = _kinds(photos.count)
    with ExitStack() as stack:
        images = stack.enter_context(new_library(stack.enter_context(bench.server())))
        bench.say(f"importing {photos.count:,} photos, with what filters ask for")
        images.import_vectors(photos.npz(kind=kind))
        with psycopg.connect(images.place, autocommit=True) as connection:
            for statement in INDEXES:
                connection.execute(statement.encode())
            connection.execute("vacuum analyze")
        measured = []
        for one in _filters(photos, kind):
            _only_index(images, one.key)
            found = _measured(images, photos, one)
            bench.say(f"{one.name}: {found.over():.2f} times the better by hand, recall {found.recall[OURS]:.3f}")
            measured.append(found)
    held = [one for one in measured if one.filter.bound]
    return Chapter(
        title="Searches among a part of the library",
        shows=(
            f"Ten nearest of {photos.count:,} among those that a filter keeps. By hand, filter first: an index on the "
            "attribute, then all that match are compared. By hand, iterative: the HNSW index in relaxed order at "
            "ef_search 100. Both return the same columns, prepared and binary. Each query is asked by all three, in "
            "random order; ratios are medians of pairs, to the better of the two."
        ),
        figures=[
            *(
                Figure(
                    f"p50, {one.filter.name}",
                    one.over(GOOD),
                    asked=at_most(SLOWER),
                    note=f"over the better by hand with a recall of {GOOD}",
                )
                for one in held
            ),
            Figure("fewest rows", min(one.rows for one in measured), "", asked=at_least(10)),
            Figure("least recall@10", min(one.recall[OURS] for one in measured), "", asked=at_least(GOOD)),
        ],
        tables=[
            Table(
                ("filter", "p50 ms", FILTER_FIRST, ITERATIVE, "ratio", "rows", "recall@10", ITERATIVE, "exact"),
                [
                    (
                        one.filter.name,
                        *(one.p50[side] * 1e3 for side in (OURS, FILTER_FIRST, ITERATIVE)),
                        one.over(),
                        one.rows,
                        one.recall[OURS],
                        one.recall[ITERATIVE],
                        f"{one.exact:.0%}",
                    )
                    for one in measured
                ],
            )
        ],
        notes=[
            "Equality is answered by the index over all metadata that every library has; ranges by "
            "`lookalike index metadata KEY`, but for the rows that say so. Themes are where the vectors lie: most "
            "queries are of other themes, so that nothing near to them passes. There the iterative scan by hand takes "
            "what it meets first, and `ratio` is to that as well."
        ],
    )


def _kinds(count: int) -> npt.NDArray[np.str_]:
    """A word for each photo that has nothing to do with it, each word in one of the shares."""
    drawn = np.random.default_rng(7).permutation(count) / count
    ends = np.cumsum(SHARES)
    return np.array([*(_word(share) for share in SHARES), "else"])[np.searchsorted(ends, drawn, side="right")]


def _word(share: float) -> str:
    return f"kept{share * 100:g}"


def _filters(photos: Photos, kind: npt.NDArray[np.str_]) -> Iterator[Filter]:
    chance, theme = photos.columns["chance"], photos.columns["theme"]
    for share in SHARES:
        word = _word(share)
        yield Filter("equality", f"kind={word}", f"metadata ->> 'kind' = '{word}'", kind == word)
    for share in SHARES:
        by_hand = f"(metadata ->> 'chance')::float8 < {share}"
        yield Filter("range", f"chance<{share}", by_hand, chance < share, key="chance")
    for share in (SHARES[0], SHARES[-1]):
        by_hand = f"(metadata ->> 'chance')::float8 < {share}"
        yield Filter("range without an index of ours", f"chance<{share}", by_hand, chance < share, bound=False)
    for share in SHARES[1:]:
        themes = round(share * (int(theme.max()) + 1))
        by_hand = f"(metadata ->> 'theme')::int < {themes}"
        yield Filter("themes", f"theme<{themes}", by_hand, theme < themes, key="theme")


def _only_index(images: Lookalike, key: str | None) -> None:
    """Have an index of ours on one key of the metadata, and on no other."""
    for there in images.index.metadata_indexes():
        if there.key != key:
            images.index.drop_metadata(there.key)
    if key is not None:
        images.index.metadata(key)


def _measured(images: Lookalike, photos: Photos, one: Filter) -> Measured:
    view = images.status().models[0].view
    queries, model = list(photos.asked[:QUERIES]), Model(MODEL)
    with ExitStack() as stack:

        def rival(statement: str, options: dict[str, str]) -> Rival:
            written = statement.format(columns=COLUMNS, view=view, condition=one.condition)
            made = stack.enter_context(Rival(images.place, written))
            for name, value in options.items():
                made.connection.execute(f"set {name} = {value}".encode())
            return made

        first, walk = rival(FIRST, FIRST_OPTIONS), rival(WALK, WALK_OPTIONS)
        times = paired(
            {
                OURS: lambda query: images.search(Embedding(model, query), where=one.where),
                FILTER_FIRST: first.search,
                ITERATIVE: walk.search,
            },
            queries,
            warm_up=6,
        )
        results = [images.search(Embedding(model, query), where=one.where) for query in queries]
        right = photos.nearest_of(photos.asked[:QUERIES], among=one.kept)

        def judge(found: Callable[[Query], Sequence[Any]]) -> float:
            return recall([[number_of(uri) for uri in found(query)] for query in queries], right)

        return Measured(
            filter=one,
            rows=min(map(len, results)),
            p50={side: times.median(side) for side in times.values},
            ratio={side: times.ratio(OURS, side) for side in (FILTER_FIRST, ITERATIVE)},
            recall={
                OURS: recall([[number_of(hit.uri) for hit in result] for result in results], right),
                FILTER_FIRST: judge(lambda query: [row[2] for row in first.search(query)]),
                ITERATIVE: judge(lambda query: [row[2] for row in walk.search(query)]),
            },
            exact=sum(result.exact for result in results) / len(results),
        )
