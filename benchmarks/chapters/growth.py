"""What becomes of time, disk and memory as a library grows, and what that means for larger ones.

``BENCH_GROWTH`` names the sizes, by default 10,000, 100,000 and 500,000.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from PIL import Image

from benchmarks.bench import Bench, new_library
from benchmarks.memory import Command, Watch, measured
from benchmarks.photos import MODEL, Photos, number_of, recall, uri
from benchmarks.report import Chapter, Figure, Lines, Table, at_least, at_most
from benchmarks.rival import LIBRARY, Rival
from benchmarks.turns import paired
from lookalike import Embedding, Lookalike, Model
from lookalike.emulator import Emulator
from lookalike.store.embedded import EmbeddedServer
from lookalike.store.index import graph_bytes

SIZES = (10_000, 100_000, 500_000)
EXTRAPOLATED = (10_000_000, 100_000_000)
PICTURES = 200
QUERIES = 200
_MIB, _GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Grown:
    """A library of one size, and what it took.

    Attributes:
        commands: what each command took.
        watches: what the server took meanwhile.
        heap, index, rest: bytes of the vectors' table, of its HNSW index, and of everything else.
    """

    photos: Photos
    images: Lookalike
    rival: Rival
    commands: Mapping[str, Command]
    watches: Mapping[str, Watch]
    heap: int
    index: int
    rest: int

    @property
    def rows(self) -> int:
        """How many photos there are."""
        return self.photos.count

    @property
    def build_seconds(self) -> float:
        """Of the index, within the import."""
        return self.watches["import"].build_seconds

    @property
    def insert_seconds(self) -> float:
        """Of everything before the index, with reading and checking the file."""
        return float(self.commands["import"].document["seconds"]) - self.build_seconds

    def search(self, query: Any) -> list[int]:
        """The numbers of the ten nearest."""
        return [number_of(hit.uri) for hit in self.images.search(Embedding(Model(MODEL), query))]


def run(bench: Bench) -> Chapter:
    """Libraries of several sizes on one server, searched in turns."""
    with ExitStack() as stack:
        server = stack.enter_context(bench.server())
        emulator = stack.enter_context(Emulator())
        pictures = _drawn(bench.folder / "pictures")
        grown = [_grown(bench, stack, server, emulator.url, pictures, size) for size in sizes()]

        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("checkpoint")  # else it happens by itself while something is measured
        bench.say("searching all of them, in turns")
        queries = list(grown[0].photos.asked)
        sides: dict[str, Callable[[Any], object]] = {}
        for one in grown:
            sides |= {f"{one.rows}": one.search, f"{one.rows} by hand": one.rival.search}
        # what a server has in its memory that has run for a while: a first touch of a page is not a search's own
        times = paired(sides, queries, warm_up=len(queries))
        recalls = {}
        for one in grown:
            judged = one.photos.asked[: len(one.photos.nearest)]
            recalls[one.rows] = recall([one.search(query) for query in judged], one.photos.nearest)
        p50 = {one.rows: times.median(f"{one.rows}") * 1e3 for one in grown}
        by_hand = {one.rows: times.median(f"{one.rows} by hand") * 1e3 for one in grown}
        p95 = {one.rows: times.p95(f"{one.rows}") * 1e3 for one in grown}
        pages = {one.rows: statistics.median(map(one.rival.pages, queries)) for one in grown}
        least, most = grown[0].rows, grown[-1].rows
        ratios = times.ratio(f"{most}", f"{least}"), times.ratio(f"{most} by hand", f"{least} by hand")
    return _chapter(bench, grown, p50, p95, by_hand, pages, recalls, ratios)


def sizes() -> Sequence[int]:
    """The sizes to measure, the smallest first.

    Raises:
        ValueError: ``BENCH_GROWTH`` is no list of numbers.
    """
    given = os.environ.get("BENCH_GROWTH", "").replace("_", "").split()
    return sorted({int(size.replace(",", "")) for size in given}) if given else SIZES


def _grown(bench: Bench, stack: ExitStack, server: EmbeddedServer, service: str, pictures: Path, size: int) -> Grown:
    """A library of `size` photos, made and asked by the command line."""
    photos = Photos(size, bench.folder, queries=QUERIES)
    bench.say(f"{size:,}: drawing")
    path = photos.npz()
    images = stack.enter_context(new_library(server, f"photos_{size}"))
    environment = {
        "LOOKALIKE_DATABASE_URL": images.place,
        "VISION_ENDPOINT": service,
        "VISION_KEY": "emulator",
        "VISION_RATE": "5000",
    }
    commands: dict[str, Command] = {}
    watches: dict[str, Watch] = {}

    def run(name: str, *arguments: str | Path) -> None:
        bench.say(f"{size:,}: lookalike {name}")
        with Watch(server, images.place) as watches[name]:
            commands[name] = measured(*arguments, environment=environment)

    run("import", "import", path)
    exported = bench.folder / f"exported-{size}.parquet"
    run("import again", "import", path)
    path.unlink()
    with psycopg.connect(images.place, autocommit=True) as connection:
        connection.execute("vacuum analyze")
    run("similar", "similar", uri(size // 2))
    run("status", "status")
    run("export", "export", exported)
    exported.unlink()
    # under another model, so that searches go on among the same photos
    run("ingest", "ingest", pictures, "--model", "azure-vision/2023-04-15")
    (stored,) = [model for model in images.status().models if model.model == MODEL]
    heap, index, rest = _bytes(images)
    rival = stack.enter_context(closing(Rival(images.place, LIBRARY.format(view=stored.view))))
    return Grown(photos, images, rival, commands, watches, heap, index, rest)


def _bytes(images: Lookalike) -> tuple[int, int, int]:
    """What the vectors' table, its index, and everything else take."""
    (status,) = [status for status in images.index.status() if status.model == MODEL]
    with psycopg.connect(images.place) as connection:
        row = connection.execute(
            "select sum(pg_total_relation_size(c.oid)) from pg_class c"
            " where c.relnamespace = 'lookalike'::regnamespace and c.relkind in ('r', 'm')"
        ).fetchone()
    assert row is not None
    return status.table_bytes, status.index_bytes, int(row[0]) - status.table_bytes - status.index_bytes


def _drawn(folder: Path) -> Path:
    """A folder of small pictures."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number:03}.png")
    return folder


def _chapter(
    bench: Bench,
    grown: Sequence[Grown],
    p50: Mapping[int, float],
    p95: Mapping[int, float],
    by_hand: Mapping[int, float],
    pages: Mapping[int, float],
    recalls: Mapping[int, float],
    ratios: tuple[float, float],
) -> Chapter:
    least, most = grown[0], grown[-1]
    cores = bench.facts()["cores"]

    def memory_ratio(command: str) -> float:
        return most.commands[command].memory / least.commands[command].memory

    figures = [
        Figure(
            f"p50 at {most.rows:,}",
            ratios[0],
            asked=at_most(2),
            note=f"over that at {least.rows:,}, the same queries in turns",
        ),
        Figure(f"p50 by hand at {most.rows:,}", ratios[1], note=f"over that by hand at {least.rows:,}"),
        Figure("least recall@10", min(recalls.values()), "", asked=at_least(0.95)),
        *(
            Figure(
                f"memory of {command} at {most.rows:,}",
                memory_ratio(command),
                asked=at_most(1.25) if command in ("import", "import again", "ingest") else None,
                note=f"over that at {least.rows:,}",
            )
            for command in least.commands
        ),
    ]
    searches = Table(
        ("photos", "p50 ms", "p95 ms", "by hand, p50 ms", "pages of the index", "recall@10"),
        [
            (one.rows, p50[one.rows], p95[one.rows], by_hand[one.rows], pages[one.rows], recalls[one.rows])
            for one in grown
        ],
        "Searches; pages are those that a walk looks at, the median",
    )
    loads = Table(
        ("photos", "insert, µs a row", "index, µs a row", "vectors, bytes a row", "index, bytes a row", "rest"),
        [
            (
                one.rows,
                one.insert_seconds / one.rows * 1e6,
                one.build_seconds / one.rows * 1e6,
                one.heap / one.rows,
                one.index / one.rows,
                one.rest / one.rows,
            )
            for one in grown
        ],
        "Time and disk; the rest are images, files, metadata and their indexes",
    )
    commands = Table(
        ("command", *(f"{one.rows:,}" for one in grown)),
        [(name, *(one.commands[name].memory / _MIB for one in grown)) for name in least.commands],
        "Largest resident size of each command, MiB",
    )
    servers = Table(
        ("", *(f"{one.rows:,}" for one in grown)),
        [
            ("while inserting and building", *(one.watches["import"].memory / _MIB for one in grown)),
            ("while building the index", *(one.watches["import"].build_memory / _MIB for one in grown)),
            ("memory that the graph was reckoned to need", *(graph_bytes(one.rows) / _MIB for one in grown)),
        ],
        "The server's processes together, MiB, with its cache; it holds the smaller libraries, too",
    )
    seconds = Table(
        ("command", *(f"{one.rows:,}" for one in grown)),
        [(name, *(one.commands[name].seconds for one in grown)) for name in least.commands],
        "Seconds of each command, from its start to its end",
    )
    charts = [
        Lines(
            "p50",
            "Time of a search, p50",
            "photos",
            "milliseconds",
            {"Lookalike": list(p50.items()), "psycopg by hand": list(by_hand.items())},
        ),
        Lines(
            "load",
            "Time of an import, a row",
            "photos",
            "microseconds a row",
            {
                "insert": [(one.rows, one.insert_seconds / one.rows * 1e6) for one in grown],
                "index": [(one.rows, one.build_seconds / one.rows * 1e6) for one in grown],
            },
        ),
        Lines(
            "memory",
            "Memory of the commands",
            "photos",
            "largest resident size, MiB",
            {name: [(one.rows, one.commands[name].memory / _MIB) for one in grown] for name in least.commands},
        ),
    ]
    notes = []
    tables = [searches, loads, commands, seconds, servers]
    if len(grown) > 1:
        tables.append(_extrapolated(grown, p50))
        notes.append(
            f"**{' and '.join(f'{rows // 1_000_000} million' for rows in EXTRAPOLATED)} photos are extrapolated, not "
            "measured.** Bytes a row are those of the largest library. Time of the build a row and p50 are taken to "
            "grow with the logarithm of the rows, as a graph's walks do: the straight line through the smallest and "
            f"the largest library, on {cores} cores, and only as long as the memory holds what is said. The graph's "
            "memory is what a build asks for: 2,794 bytes a row at m = 16, and a margin of 3 %."
        )
    return Chapter(
        title="Growth",
        shows=(
            f"Libraries of {', '.join(f'{one.rows:,}' for one in grown)} photos on one server, made by `lookalike "
            "import` of an `.npz` with metadata and asked by other commands, each a process of its own. `ingest` "
            f"brings in {PICTURES} pictures beside them. Then the same {QUERIES} queries are asked of all, in turns."
        ),
        figures=figures,
        tables=tables,
        charts=charts,
        notes=notes,
    )


def _extrapolated(grown: Sequence[Grown], p50: Mapping[int, float]) -> Table:
    """What larger libraries would need."""
    least, most = grown[0], grown[-1]

    def at(rows: int, small: float, large: float) -> float:
        slope = (large - small) / math.log(most.rows / least.rows)
        return large + slope * math.log(rows / most.rows)

    def of(rows: int) -> tuple[Any, ...]:
        build = at(rows, least.build_seconds / least.rows, most.build_seconds / most.rows) * rows
        return (
            rows,
            at(rows, p50[least.rows], p50[most.rows]),
            most.heap / most.rows * rows / _GIB,
            most.index / most.rows * rows / _GIB,
            most.rest / most.rows * rows / _GIB,
            graph_bytes(rows) / _GIB,
            most.insert_seconds / most.rows * rows / 3600,
            build / 3600,
        )

    return Table(
        ("photos", "p50 ms", "vectors GiB", "index GiB", "rest GiB", "graph GiB", "insert hours", "build hours"),
        [of(rows) for rows in EXTRAPOLATED],
        "Extrapolated",
    )
