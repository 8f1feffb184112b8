"""How fast do precomputed vectors come in, beside COPY as an expert writes it by hand?"""

from __future__ import annotations

import csv
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from benchmarks.bench import Bench, new_database, new_library
from benchmarks.memory import measured
from benchmarks.photos import MODEL, Photos
from benchmarks.report import Chapter, Figure, Table, at_least, at_most
from benchmarks.turns import Turns
from lookalike import ImportReport
from lookalike.ingest.precomputed.number_reader import packed_numbers
from lookalike.store.embedded import EmbeddedServer
from lookalike.store.index import graph_bytes

OURS, THEIRS = "Lookalike", "by hand"
ROUNDS = 3
MOST_TEXT = 20_000
"""Rows of the file of texts, each of which takes fifteen kilobytes."""
MOST_FOR_MEMORY = 30_000
"""A third of them are still several batches, so that what grows with the rows would show."""
_COLUMNS = ("theme", "price", "artist", "chance")


@dataclass
class Loads:
    """Databases of one server, a new one for each load.

    Attributes:
        processor: seconds that the last import has taken of processors, in this process and those that it started.
    """

    server: EmbeddedServer
    made: int = 0
    processor: float = 0.0

    def name(self) -> str:
        """A name that no database has."""
        self.made += 1
        return f"load_{self.made}"

    def drop(self, name: str) -> None:
        """Give the room back."""
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            connection.execute(f"drop database {name} with (force)".encode())

    def imported(self, path: Path, *, build: bool = True) -> tuple[float, float]:
        """Seconds of an import until every row is stored, and from then on."""
        name, stop, stored = self.name(), threading.Event(), 0.0

        def progress(report: ImportReport) -> None:
            nonlocal stored
            if not stored and report.pending == 0:
                stored = time.perf_counter()
                if not build:
                    stop.set()

        with new_library(self.server, name) as images:
            before, began = sum(os.times()[:4]), time.perf_counter()
            images.import_vectors(path, model=MODEL, progress=progress, stop=stop)
            ended = time.perf_counter()
            self.processor = sum(os.times()[:4]) - before
        self.drop(name)
        return stored - began, ended - stored

    def by_hand(self, path: Path) -> tuple[float, float]:
        """The same file by one binary COPY for each table, and a plain ``create index`` with memory and workers."""
        name = self.name()
        with new_library(self.server, name) as images:
            dsn = images.place
        with psycopg.connect(dsn) as connection:
            register_vector(connection)
            # a model's room without its index, as an import has it
            connection.execute("select lookalike.add_model(%s, 'measured', 'photos-1', 1024, '{}')", [MODEL])
            connection.execute("drop index lookalike.embeddings_1_hnsw")
            connection.commit()
            began = time.perf_counter()
            count = _copy_npz(connection, path)
            connection.commit()
            stored = time.perf_counter()
            memory = max(graph_bytes(count), 64 << 20) >> 10
            connection.execute(f"set maintenance_work_mem = '{memory}kB'".encode())
            connection.execute(f"set max_parallel_maintenance_workers = {os.cpu_count()}".encode())
            connection.execute(
                "create index embeddings_1_hnsw on lookalike.embeddings_1 using hnsw (embedding halfvec_cosine_ops)"
            )
            connection.commit()
            ended = time.perf_counter()
        self.drop(name)
        return stored - began, ended - stored

    def copied(self, path: Path) -> float:
        """Seconds of a COPY of a file of texts into a table with a column of vectors."""
        name = self.name()
        dsn = new_database(self.server, name)
        with psycopg.connect(dsn) as connection, path.open("rb") as file:
            connection.execute("create extension vector")
            connection.execute("create table photos (uri text, key text, price int, embedding vector(1024))")
            connection.commit()
            began = time.perf_counter()
            with connection.cursor().copy("copy photos from stdin (format csv, header)") as copy:
                while block := file.read(1 << 17):
                    copy.write(block)
            connection.commit()
            seconds = time.perf_counter() - began
        self.drop(name)
        return seconds


def run(bench: Bench) -> Chapter:
    """Loads of a .npz file and of texts in turns, and what memory imports need."""
    texts = Photos(min(bench.count, MOST_TEXT), bench.folder, seed=1)
    with bench.server() as server:
        loads = Loads(server)
        path = bench.photos.npz()
        table = _csv(bench.folder / "photos.csv", texts)
        bench.say(f"a .npz of {bench.count:,}, in turns with COPY by hand")
        inserts, builds = _in_turns(lambda: loads.imported(path), lambda: loads.by_hand(path))
        bench.say(f"a CSV of {texts.count:,}, in turns with COPY of the same text")
        csvs, _ = _in_turns(lambda: loads.imported(table, build=False), lambda: (loads.copied(table), 1.0))
        # without the server's share, which the same rows by binary COPY come near to
        alone, ours = _parsing(table), loads.processor / texts.count * 1e6
        bench.say("memory")
        memory = _memory(bench, loads)
    per_row = {side: inserts.median(side) / bench.count * 1e6 for side in (OURS, THEIRS)}
    per_text = {side: csvs.median(side) / texts.count * 1e6 for side in (OURS, THEIRS)}
    return Chapter(
        title="Loading precomputed vectors",
        shows=(
            f"A .npz of {bench.count:,} with four columns of metadata, checked, merged and indexed by an import; by "
            "hand are one binary COPY for each of the same tables, with the same constraints and indexes but HNSW, and "
            "a plain create index with the memory of its graph and all cores. The CSV has its vectors as [0.1, …]; by "
            "hand is COPY of the file into a table with a column of the type vector, unchecked and without any index. "
            f"{ROUNDS} turns each, a new database for each."
        ),
        figures=[
            Figure("insert of a .npz", inserts.ratio(OURS, THEIRS), asked=at_most(1.5), note="over COPY by hand"),
            Figure("build", builds.ratio(OURS, THEIRS), asked=at_most(1.1), note="over a plain create index"),
            Figure(
                "rows a second from CSV",
                csvs.ratio(THEIRS, OURS),
                asked=at_least(3),
                note=(
                    "over COPY of the text; of its time the numbers alone take "
                    f"{alone / per_text[THEIRS]:.2f} of a core, all outside the server {ours / per_text[THEIRS]:.2f}"
                ),
            ),
            *(
                Figure(f"memory of an import of {suffix}", ratio, asked=at_most(1.25), note=note)
                for suffix, ratio, note in memory
            ),
        ],
        tables=[
            Table(
                ("µs a row", "insert of .npz", "build", "insert of CSV"),
                [
                    (side, per_row[side], builds.median(side) / bench.count * 1e6, per_text[side])
                    for side in (OURS, THEIRS)
                ],
            )
        ],
    )


def _in_turns(
    ours: Callable[[], tuple[float, float]], theirs: Callable[[], tuple[float, float]]
) -> tuple[Turns, Turns]:
    """The first and the second time of each side."""
    sides = {OURS: ours, THEIRS: theirs}
    found: dict[str, list[tuple[float, float]]] = {OURS: [], THEIRS: []}
    for turn in range(ROUNDS):
        for side in (OURS, THEIRS) if turn % 2 == 0 else (THEIRS, OURS):
            found[side].append(sides[side]())
    first = {side: [times[0] for times in each] for side, each in found.items()}
    return Turns(first), Turns({side: [times[1] for times in each] for side, each in found.items()})


def _copy_npz(connection: psycopg.Connection, path: Path) -> int:
    with np.load(path) as archive:
        columns = {name: archive[name].tolist() for name in ("uri", "key", *_COLUMNS)}
        vectors = archive["vectors"]
    ids = [UUID(bytes=sha256(uri.encode()).digest()[:16]) for uri in columns["uri"]]
    told = (
        Jsonb(dict(zip(_COLUMNS, row, strict=True))) for row in zip(*(columns[name] for name in _COLUMNS), strict=True)
    )
    tables: dict[str, tuple[list[str], Iterable[tuple[Any, ...]]]] = {
        "images (image_id)": (["uuid"], ((image_id,) for image_id in ids)),
        "files (image_id, uri, key, metadata)": (
            ["uuid", "text", "text", "jsonb"],
            zip(ids, columns["uri"], columns["key"], told, strict=True),
        ),
        "embeddings_1 (image_id, model_id, embedding)": (
            ["uuid", "int4", "halfvec"],
            ((image_id, 1, HalfVector(vector)) for image_id, vector in zip(ids, vectors, strict=True)),
        ),
    }
    for table, (types, rows) in tables.items():
        with connection.cursor().copy(f"copy lookalike.{table} from stdin (format binary)".encode()) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)
    return len(ids)


def _csv(path: Path, photos: Photos) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "key", "price", "embedding"])
        for uri, key, metadata, vector in photos.rows():
            writer.writerow([uri, key, json.loads(metadata)["price"], json.dumps(vector.tolist())])
    return path


def _parsing(table: Path) -> float:
    """Microseconds that reading the numbers of a row takes, and nothing else."""
    csv.field_size_limit(1 << 20)
    with table.open(newline="") as file:
        vectors = [row[3].encode() for row, _ in zip(list(csv.reader(file))[1:], range(500), strict=False)]
    began = time.perf_counter()
    for text in vectors:
        packed_numbers(text, "e")
    return (time.perf_counter() - began) / len(vectors) * 1e6


def _parquet(path: Path, photos: Photos) -> Path:
    import pyarrow
    import pyarrow.parquet

    numbers = pyarrow.array(photos.vectors.reshape(-1), pyarrow.float16())
    vectors = pyarrow.FixedSizeListArray.from_arrays(numbers, photos.vectors.shape[1])
    table = pyarrow.table({"uri": photos.columns["uri"], "price": photos.columns["price"], "vectors": vectors})
    pyarrow.parquet.write_table(table, path, row_group_size=4_000)
    return path


def _memory(bench: Bench, loads: Loads) -> list[tuple[str, float, str]]:
    """For each kind of file the largest resident size of an import of many rows over that of a third of them."""
    many = min(bench.count, MOST_FOR_MEMORY)
    found = []
    kinds: dict[str, Callable[[Photos], Path]] = {
        ".npz": lambda photos: photos.npz(),
        "CSV": lambda photos: _csv(bench.folder / f"{photos.count}.csv", photos),
        "Parquet": lambda photos: _parquet(bench.folder / f"{photos.count}.parquet", photos),
    }
    for suffix, write in kinds.items():
        sizes = []
        for count in (many // 3, many):
            name = loads.name()
            path = write(Photos(count, bench.folder, seed=2))
            with new_library(loads.server, name) as images:
                environment = {"LOOKALIKE_DATABASE_URL": images.place}
            sizes.append(measured("import", path, "--model", MODEL, environment=environment).memory)
            loads.drop(name)
            with suppress(FileNotFoundError):
                path.unlink()
        found.append((suffix, sizes[1] / sizes[0], f"{many:,} rows, {sizes[1] >> 20} MiB, over {many // 3:,}"))
    return found
