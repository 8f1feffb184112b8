"""The same photos and the same queries, by libraries for the same job and by psycopg by hand."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import psycopg

from benchmarks.bench import Bench, new_database
from benchmarks.peers import CANDIDATES, CANDIDATES_BUILDING, MODULES, NEIGHBOURS, Given
from benchmarks.peers.apart import Apart, PeerError
from benchmarks.photos import recall
from benchmarks.report import Bars, Chapter, Figure, Table, at_least
from benchmarks.turns import Turns
from lookalike.store.dsn import url_of
from lookalike.store.embedded import EmbeddedServer

OURS, BARE = "Lookalike", "psycopg"
IN_POSTGRES = ("vecs", "langchain-postgres", "llama-index")
CLIENTS = (1, 2, 8)
BURST = 10
"""Queries by one library before it is the next one's turn: by the first of them, others have emptied the caches."""


@dataclass
class Measured:
    """What was found of one library.

    Attributes:
        insert, build: seconds.
        disk, memory: bytes; `memory` is the largest resident size of its process, without the server's.
        seconds: of each query.
        rates: queries a second by the number of clients.
    """

    insert: float = 0.0
    build: float = 0.0
    disk: int = 0
    memory: int = 0
    recall: float = 0.0
    seconds: list[float] = field(default_factory=list)
    rates: dict[int, list[float]] = field(default_factory=lambda: {clients: [] for clients in CLIENTS})

    @property
    def load(self) -> float:
        """Seconds until everything can be searched for."""
        return self.insert + self.build


def run(bench: Bench) -> Chapter:
    """Lookalike, psycopg by hand, and every library that is installed."""
    absent: dict[str, str] = {}
    versions: dict[str, str] = {}
    measured: dict[str, Measured] = {}
    bare_loads: list[float] = []
    with ExitStack() as stack:
        server = stack.enter_context(bench.server())
        workplace = _Workplace(bench, server)
        running: dict[str, Apart] = {}
        # by hand at the beginning, in the middle and at the end, as a load is too long for turns
        names = [BARE, *(name for name in MODULES if name != BARE)]
        for place, name in enumerate(names):
            try:
                apart = stack.enter_context(workplace.process(name))
                versions |= apart.versions
                measured[name] = workplace.load(name, apart)
                running[name] = apart
            except PeerError as error:
                if name == BARE:
                    raise
                bench.say(f"{name}: {error}")
                absent[name] = str(error)
            if name == BARE:
                bare_loads.append(measured[BARE].load)
            elif place in (len(names) // 2, len(names) - 1):
                with workplace.process(BARE) as again:
                    bare_loads.append(workplace.load(BARE, again).load)
        _search(bench, running, measured, absent)
    return _chapter(bench, measured, absent, versions, statistics.median(bare_loads))


class _Workplace:
    """Where libraries find the photos, a folder and a database."""

    def __init__(self, bench: Bench, server: EmbeddedServer) -> None:
        self._bench = bench
        self._server = server
        self._made = 0
        photos = bench.photos
        columns = {name: values.tolist() for name, values in photos.columns.items()}
        self._told = bench.folder / "told.jsonl"
        with self._told.open("w") as file:
            for number in range(photos.count):
                row = {"number": number} | {name: values[number] for name, values in columns.items()}
                file.write(json.dumps(row) + "\n")
        self._npz = photos.npz()
        self._empty = self._size(self._database("empty"))

    @contextmanager
    def process(self, name: str) -> Iterator[Apart]:
        """A library with an empty folder and an empty database."""
        self._made += 1
        folder = self._bench.folder / f"peer-{self._made}"
        folder.mkdir()
        self._place = self._database(f"peer_{self._made}")
        given = Given(
            str(self._bench.photos.path),
            str(self._told),
            str(self._npz),
            str(folder),
            url_of(self._place, secrets=True),
        )
        with Apart(name, given, self._bench.photos.queries_path) as apart:
            yield apart

    def load(self, name: str, apart: Apart) -> Measured:
        """Have a library that was just opened take in everything."""
        self._bench.say(f"{name} loads")
        insert, build = apart.load()
        disk = apart.disk()
        if disk is None:
            disk = self._size(self._place) - self._empty
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
            bench.say(f"{name}: {error}")
            absent[name] = str(error)
            del running[name], measured[name]

    def everybody() -> list[tuple[str, Apart]]:
        order = list(running.items())
        shuffled.shuffle(order)
        return order

    for name, apart in everybody():
        with tolerated(name):
            judged = range(len(photos.nearest))
            measured[name].recall = recall(apart.found(judged), photos.nearest)
    bench.say("one at a time")
    for first in range(0, photos.queries, BURST):
        for name, apart in everybody():
            with tolerated(name):
                measured[name].seconds += apart.ask(range(first, first + BURST))
    for clients in CLIENTS:
        bench.say(f"{clients} client{'s' * (clients > 1)}")
        for _ in range(3):
            for name, apart in everybody():
                with tolerated(name):
                    measured[name].rates[clients].append(apart.rate(clients, bench.seconds(1.0)))
    for name, apart in everybody():
        with tolerated(name):
            measured[name].memory = apart.memory()


def _chapter(
    bench: Bench,
    measured: Mapping[str, Measured],
    absent: Mapping[str, str],
    versions: Mapping[str, str],
    bare_load: float,
) -> Chapter:
    times = Turns({name: one.seconds for name, one in measured.items()})
    rates = {clients: Turns({name: one.rates[clients] for name, one in measured.items()}) for clients in CLIENTS}
    bare = measured[BARE]
    beside = {name: times.ratio(name, BARE) for name in measured}
    rows = [
        (
            name,
            beside[name],
            times.p95(name) / times.p95(BARE),
            *(rates[clients].ratio(name, BARE) for clients in CLIENTS),
            one.load / bare_load,
            one.disk / bare.disk,
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
        figures.append(Figure(f"p50 of {name}", times.ratio(name, OURS), asked=at_least(least), note="over ours"))
        if name in IN_POSTGRES:
            ratio = measured[name].load / measured[OURS].load
            figures.append(Figure(f"load by {name}", ratio, asked=at_least(3), note="over ours"))
    each = ("QPS 1", "QPS 2", "QPS 8")
    return Chapter(
        title="Beside other libraries",
        shows=(
            f"{bench.count:,} photos with the same metadata, the ten nearest with metadata. Those in PostgreSQL share "
            "one server, tuned to the machine. HNSW has "
            f"m = {NEIGHBOURS}, ef_construction = {CANDIDATES_BUILDING} and ef_search = {CANDIDATES} wherever it can be "
            "chosen. Each library has a process of its own; they are asked in turns, "
            f"{BURST} queries at a time. psycopg by hand has one table of half vectors, loaded by binary COPY and then "
            "CREATE INDEX, at the beginning, in the middle and at the end (the median counts)."
        ),
        figures=figures,
        tables=[
            Table(
                ("", "p50", "p95", *each, "load", "disk", "recall@10"),
                rows,
                "Over psycopg by hand with half vectors: times, load and disk less is better, QPS more",
            ),
            Table(
                ("", "p50 ms", "p95 ms", *each, "insert s", "build s", "disk MiB", "client MiB"),
                absolute,
                "As measured",
            ),
        ],
        charts=[
            Bars("p50", "Time of a search, p50", "over psycopg by hand", beside, [OURS], logarithmic=True),
            Bars(
                "load",
                "Time of a load with its index",
                "over psycopg by hand",
                {name: one.load / bare_load for name, one in measured.items()},
                [OURS],
                logarithmic=True,
            ),
        ],
        notes=[
            "*vecs*, *langchain-postgres*, *llama-index* and *psycopg, vector* store single precision, the others in "
            "PostgreSQL half precision. *faiss* and *hnswlib* keep vectors in memory and nothing else: no metadata, no "
            "other process, nothing that survives a crash; *chromadb* and *lancedb* run inside the asking process. The "
            "import of Lookalike also reads and checks a file.",
            *(f"*{name}* was not measured: {why}" for name, why in absent.items()),
        ],
        versions=versions,
    )
