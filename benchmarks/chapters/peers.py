"""The same photos and the same queries, by libraries for the same job and by psycopg by hand."""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from benchmarks.bench import Bench, new_database
from benchmarks.peers import CANDIDATES, CANDIDATES_BUILDING, MODULES, NEIGHBOURS, Given
from benchmarks.peers.apart import Apart, PeerError
from benchmarks.photos import recall
from benchmarks.report import Bars, Chapter, Figure, Table, at_least
from benchmarks.turns import Turns
from lookalike.store.dsn import url_of
from lookalike.store.embedded import EmbeddedServer

OURS, AS_IT_COMES, BARE = "Lookalike", "Lookalike, as it comes", "psycopg"
INDISPENSABLE = (OURS, AS_IT_COMES, BARE)
SAME_DATABASE = {AS_IT_COMES: OURS}
"""Who asks what another has loaded."""

ON_DEFAULT_SERVER = ("psycopg, default server", "psycopg, vector, default server")
DEFAULTS = {
    "shared_buffers": "128MB",
    "effective_cache_size": "4GB",
    "maintenance_work_mem": "64MB",
    "work_mem": "4MB",
    "max_worker_processes": "8",
    "max_parallel_workers": "8",
    "max_parallel_maintenance_workers": "2",
    "max_parallel_workers_per_gather": "2",
    "random_page_cost": "4",
    "max_wal_size": "1GB",
    "jit": "on",
    "huge_pages": "off",
}
"""What PostgreSQL comes with, instead of what the machine calls for; a system comes without huge pages."""

IN_POSTGRES = ("vecs", "langchain-postgres", "llama-index")
CLIENTS = (1, 2, 8)
ENOUGH = 0.95
"""The recall at which everybody is compared: graphs of the same photos differ by 0.03 with equally many candidates."""
CHOICES = (10, 12, 14, 17, 20, 24, 28, 34, 40, 48, 56, 68, 80, 96, 112, 136, 160)
"""Candidates in a search, of which everybody gets the fewest that are `ENOUGH`."""
BURST = 100
"""Queries by one library before it is the next one's turn."""
WARM_UP = 20
"""Queries before those, which do not count: whoever was there before has emptied the processor's caches."""


@dataclass
class Measured:
    """What was found of one library.

    Attributes:
        insert, build: seconds.
        remark: what one must know to understand its times; mostly nothing.
        candidates: how many a search keeps to find `ENOUGH`; None where it is left alone.
        recall: with those.
        disk, memory: bytes; `memory` is the largest resident size of its process, without the server's.
        seconds: of each query.
        rates: queries a second by the number of clients.
        alike_recall, alike_seconds: of queries with as many candidates as pgvector keeps by default, all alike.
    """

    insert: float = 0.0
    build: float = 0.0
    disk: int = 0
    memory: int = 0
    candidates: int | None = None
    recall: float = 0.0
    remark: str = ""
    seconds: list[float] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=lambda: {clients: [] for clients in CLIENTS})
    alike_recall: float = 0.0
    alike_seconds: list[float] = field(default_factory=list)

    @property
    def load(self) -> float:
        """Seconds until everything can be searched for."""
        return self.insert + self.build


def run(bench: Bench) -> Chapter:
    """Lookalike, psycopg by hand, and every library that is installed."""
    absent: dict[str, str] = {}
    versions: dict[str, str] = {}
    measured: dict[str, Measured] = {}
    running: dict[str, Apart] = {}
    with ExitStack() as stack:
        npz = bench.photos.npz()
        tuned = _Workplace(bench, stack.enter_context(bench.server()), npz)
        # by hand at the beginning, in the middle and at the end, as a load is too long for turns
        names = [BARE, *(name for name in MODULES if name != BARE)]
        bare_loads: list[Measured] = []
        for place, name in enumerate(names):
            try:
                workplace = tuned
                if name in ON_DEFAULT_SERVER:  # one for each, as its cache is small
                    workplace = _Workplace(bench, stack.enter_context(bench.server(DEFAULTS)), npz)
                apart = stack.enter_context(workplace.process(name))
                versions |= apart.versions
                if name in SAME_DATABASE:
                    loaded = measured[SAME_DATABASE[name]]
                    measured[name] = Measured(loaded.insert, loaded.build, loaded.disk)
                else:
                    measured[name] = workplace.load(name, apart)
                running[name] = apart
            except PeerError as error:
                if name in INDISPENSABLE:
                    raise
                bench.say(f"{name}: {error}")
                absent[name] = str(error)
            if place in (len(names) // 2, len(names) - 1):
                with tuned.process(BARE) as again:
                    bare_loads.append(tuned.load(BARE, again))
        bare = measured[BARE]
        bare.insert = statistics.median([bare.insert, *(load.insert for load in bare_loads)])
        bare.build = statistics.median([bare.build, *(load.build for load in bare_loads)])
        _search(bench, running, measured, absent)
    return _chapter(bench, measured, absent, versions)


class _Workplace:
    """Where libraries find the photos, a folder and a database."""

    def __init__(self, bench: Bench, server: EmbeddedServer, npz: Path) -> None:
        self._bench = bench
        self._server = server
        self._npz = npz
        self._made = 0
        self._databases: dict[str, str] = {}
        self._empty = self._size(self._database("empty"))

    @contextmanager
    def process(self, name: str) -> Iterator[Apart]:
        """A library with an empty folder, and an empty database unless it asks what another has loaded."""
        if name in SAME_DATABASE:
            self._databases[name] = self._databases[SAME_DATABASE[name]]
        else:
            self._made += 1
            self._databases[name] = self._database(f"peer_{self._made}")
        given = Given(
            str(self._bench.photos.path),
            str(self._bench.photos.told_path),
            str(self._npz),
            tempfile.mkdtemp(prefix="peer-", dir=self._bench.folder),
            url_of(self._databases[name], secrets=True),
        )
        with Apart(name, given, self._bench.photos.queries_path) as apart:
            yield apart

    def load(self, name: str, apart: Apart) -> Measured:
        """Have a library that was just opened take in everything."""
        self._bench.say(f"{name} loads")
        insert, build = apart.load()
        disk = apart.disk()
        if disk is None:
            disk = self._size(self._databases[name]) - self._empty
        return Measured(insert, build, disk)

    def _database(self, name: str) -> str:
        dsn = new_database(self._server, name)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("create extension vector")
        return dsn

    def _size(self, dsn: str) -> int:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")
            row = connection.execute("select pg_database_size(current_database())").fetchone()
        assert row is not None
        return int(row[0])


def _search(bench: Bench, running: dict[str, Apart], measured: dict[str, Measured], absent: dict[str, str]) -> None:
    """Ask all of them, in turns; whoever fails is left out from then on."""
    photos = bench.photos
    shuffled = random.Random(0)

    @contextmanager
    def tolerated(name: str) -> Iterator[None]:
        try:
            yield
        except PeerError as error:
            if name in INDISPENSABLE:
                raise
            bench.say(f"{name}: {error}")
            absent[name] = str(error)
            del running[name], measured[name]

    def everybody() -> list[tuple[str, Apart]]:
        order = list(running.items())
        shuffled.shuffle(order)
        return order

    right = photos.nearest_of(photos.asked)

    def recall_of(apart: Apart) -> float:
        return recall(apart.found(range(photos.queries)), right)

    def fewest(apart: Apart) -> int:
        choices = list(CHOICES)
        while len(choices) > 1:
            middle = (len(choices) - 1) // 2
            apart.look_at(choices[middle])
            choices = choices[: middle + 1] if recall_of(apart) >= ENOUGH else choices[middle + 1 :]
        return apart.look_at(choices[0])

    def one_at_a_time() -> dict[str, list[float]]:
        seconds: dict[str, list[float]] = {name: [] for name in running}
        for first in range(0, photos.queries, BURST):
            for name, apart in everybody():
                with tolerated(name):
                    warm_up = [number % photos.queries for number in range(first - WARM_UP, first)]
                    burst = range(first, min(first + BURST, photos.queries))
                    seconds[name] += apart.ask([*warm_up, *burst])[WARM_UP:]
        return {name: seconds[name] for name in running}

    bench.say(f"one at a time, {CANDIDATES} candidates")
    for name, apart in everybody():
        with tolerated(name):
            measured[name].alike_recall = recall_of(apart)
    for name, seconds in one_at_a_time().items():
        measured[name].alike_seconds = seconds
    bench.say(f"one at a time, a recall of {ENOUGH}")
    for name, apart in everybody():
        with tolerated(name):
            if name != AS_IT_COMES:
                measured[name].candidates = fewest(apart)
            measured[name].recall = recall_of(apart)
    for name, seconds in one_at_a_time().items():
        measured[name].seconds = seconds
    for clients in CLIENTS:
        bench.say(f"{clients} client{'s' * (clients > 1)}")
        for _ in range(3):
            for name, apart in everybody():
                with tolerated(name):
                    measured[name].rates[clients].append(apart.rate(clients, bench.seconds(1.0)))
    for name, apart in everybody():
        with tolerated(name):
            measured[name].memory = apart.memory()
            measured[name].remark = apart.remark()


def _chapter(
    bench: Bench,
    measured: Mapping[str, Measured],
    absent: Mapping[str, str],
    versions: Mapping[str, str],
) -> Chapter:
    times = Turns({name: one.seconds for name, one in measured.items()})
    alike = Turns({name: one.alike_seconds for name, one in measured.items()})
    rates = {clients: Turns({name: one.rates[clients] for name, one in measured.items()}) for clients in CLIENTS}
    bare = measured[BARE]
    beside = {name: times.ratio(name, BARE) for name in measured}
    rows = [
        (
            name,
            beside[name],
            times.p95(name) / times.p95(BARE),
            *(rates[clients].ratio(name, BARE) for clients in CLIENTS),
            one.load / bare.load,
            one.disk / bare.disk,
            one.candidates,
            one.recall,
        )
        for name, one in measured.items()
    ]
    absolute = [
        (
            name,
            times.median(name) * 1e3,
            times.p95(name) * 1e3,
            *(rates[clients].median(name) for clients in CLIENTS),
            one.insert,
            one.build,
            one.disk / (1 << 20),
            one.memory / (1 << 20),
        )
        for name, one in measured.items()
    ]
    figures = []
    for name in (*IN_POSTGRES, "chromadb"):
        if name not in measured:
            continue
        least = 3 if name in IN_POSTGRES else 1.5
        figures += [
            Figure(f"p50 of {name}", times.ratio(name, OURS), asked=at_least(least), note="over ours, same recall"),
            Figure(f"p50 of {name}", alike.ratio(name, OURS), note=f"over ours, {CANDIDATES} candidates each"),
        ]
        if name in IN_POSTGRES:
            ratio = measured[name].load / measured[OURS].load
            figures.append(Figure(f"load by {name}", ratio, asked=at_least(3), note="over ours"))
    each = ("QPS 1", "QPS 2", "QPS 8")
    return Chapter(
        title="Beside other libraries",
        shows=(
            f"{bench.count:,} photos with the same metadata, the ten nearest with metadata. Those in PostgreSQL share "
            f"one server, tuned to the machine. HNSW has m = {NEIGHBOURS} and ef_construction = {CANDIDATES_BUILDING} "
            "as in pgvector by default, as far as they can be chosen. A search keeps the fewest candidates, ef_search, "
            f"that find {ENOUGH} of the ten nearest, of {CHOICES[0]} to {CHOICES[-1]}, for each library its own, as no "
            "two graphs are equally good; *as it comes*, Lookalike keeps 100. Each library has a process of its own; "
            f"they are asked in turns, {BURST} queries at a time. psycopg by hand has one table of half vectors, "
            "loaded by binary COPY and then CREATE INDEX, at the beginning, in the middle and at the end: the medians "
            "count."
        ),
        figures=figures,
        tables=[
            Table(
                ("", "p50", "p95", *each, "load", "disk", "ef_search", "recall@10"),
                rows,
                "Over psycopg by hand with half vectors: times, load and disk less is better, QPS more",
            ),
            Table(
                ("", "p50 ms", "p95 ms", *each, "insert s", "build s", "disk MiB", "client MiB"),
                absolute,
                "As measured",
            ),
            Table(
                ("", "p50 ms", "over psycopg", "recall@10"),
                [
                    (name, alike.median(name) * 1e3, alike.ratio(name, BARE), one.alike_recall)
                    for name, one in measured.items()
                ],
                f"With {CANDIDATES} candidates each, which is pgvector's own number, but 100 for Lookalike as it comes",
            ),
        ],
        charts=[
            Bars("p50", "Time of a search, p50", "over psycopg by hand", beside, [OURS, AS_IT_COMES], logarithmic=True),
            Bars(
                "load",
                "Time of a load with its index",
                "over psycopg by hand",
                {name: one.load / bare.load for name, one in measured.items() if name not in SAME_DATABASE},
                [OURS],
                logarithmic=True,
            ),
        ],
        notes=[
            "*vecs*, *langchain-postgres*, *llama-index* and *psycopg, vector* store single precision, the others in "
            "PostgreSQL half precision. *faiss* and *hnswlib* keep vectors in memory and nothing else: no metadata, no "
            "other process, nothing that survives a crash; *chromadb* and *lancedb* run inside the asking process. The "
            "import of Lookalike also reads and checks a file.",
            *(f"*{name}*: {one.remark}" for name, one in measured.items() if one.remark),
            *(f"*{name}* was not measured: {why}" for name, why in absent.items()),
        ],
        versions=versions,
    )
