"""How fast are pictures ingested, and at what cost of the client's processor, beside the loop of a tutorial?"""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import psycopg
import requests
from PIL import Image

from benchmarks.bench import Bench, new_library
from benchmarks.report import Chapter, Figure, Table, at_least, at_most
from benchmarks.turns import Turns
from lookalike import Lookalike, Settings
from lookalike.config import Secret
from lookalike.store.embedded import EmbeddedServer

OURS, THEIRS = "Lookalike", "tutorial"
ROUNDS = 3
LARGE = 12
_KEY = "emulator"

Times: TypeAlias = tuple[float, float]
"""Seconds, and seconds of the processor, of the client's process alone."""


def run(bench: Bench) -> Chapter:
    """Both ingest the same pictures in turns, each in a process of its own."""
    many = max(20, min(1_000, bench.count // 20))
    small = _drawn(bench.folder / "small", many, (500, 375))
    large = _drawn(bench.folder / "large", LARGE, (4000, 3000))
    rows, figures = [], []
    with bench.server() as server:
        for name, folder, latency in (("small", small, 20), ("small", small, 0), ("large", large, 0)):
            bench.say(f"{name} pictures, {latency} ms of latency")
            with _emulator(latency) as url:
                seconds, cpu = _in_turns(server, url, folder, f"{name}_{latency}")
            count = len(list(folder.iterdir()))
            faster, cheaper = seconds.ratio(THEIRS, OURS), cpu.ratio(OURS, THEIRS)
            for side in (OURS, THEIRS):
                rows.append(
                    (
                        f"{count:,} {name}, {latency} ms",
                        side,
                        count / seconds.median(side),
                        cpu.median(side) / count * 1e3,
                    )
                )
            if latency:
                note = f"{latency} ms of latency, over the tutorial's"
                figures.append(Figure("pictures a second", faster, asked=at_least(5), note=note))
            else:
                note = f"no latency, {name} pictures, over the tutorial's"
                asked = at_most(1) if name == "small" else None
                figures.append(Figure("the client's processor, a picture", cheaper, asked=asked, note=note))
    return Chapter(
        title="Ingesting pictures",
        shows=(
            "A folder of JPEGs through the emulator, which runs in a process of its own. The tutorial is a loop: "
            "requests.post for each file, an insert for each row in autocommit, the vector as the text of a list. "
            "It checks nothing, and pays again for what it did yesterday. Each runs in a process of its own, whose "
            f"processor time is counted from its first picture on; {ROUNDS} turns."
        ),
        figures=figures,
        tables=[Table(("pictures", "by", "pictures/s", "client's ms of processor a picture"), rows)],
    )


def tutorial(dsn: str, url: str, folder: Path) -> Times:
    """What tutorials show."""
    began, cpu = time.perf_counter(), time.process_time()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create table photos (id bigserial primary key, path text, embedding vector(1024))")
        for path in sorted(folder.iterdir()):
            response = requests.post(
                f"{url}computervision/retrieval:vectorizeImage",
                params={"api-version": "2024-02-01", "model-version": "2023-04-15"},
                headers={"Ocp-Apim-Subscription-Key": _KEY, "Content-Type": "application/octet-stream"},
                data=path.read_bytes(),
            )
            response.raise_for_status()
            vector = response.json()["vector"]
            connection.execute("insert into photos (path, embedding) values (%s, %s)", [str(path), str(vector)])
    return time.perf_counter() - began, time.process_time() - cpu


def library(dsn: str, url: str, folder: Path) -> Times:
    """The same by an ingest."""
    began, cpu = time.perf_counter(), time.process_time()
    settings = Settings(database_url=Secret(dsn), vision_endpoint=url, vision_key=Secret(_KEY), vision_rate=5000.0)
    with Lookalike.open(settings, announce=lambda _: None) as images:
        report = images.ingest(folder, model="azure-vision/2023-04-15")
    assert report.embedded == report.found, report
    return time.perf_counter() - began, time.process_time() - cpu


def _in_turns(server: EmbeddedServer, url: str, folder: Path, name: str) -> tuple[Turns, Turns]:
    sides: dict[str, Callable[[str, str, Path], Times]] = {OURS: library, THEIRS: tutorial}
    seconds: dict[str, list[float]] = {OURS: [], THEIRS: []}
    cpu: dict[str, list[float]] = {OURS: [], THEIRS: []}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as apart:
        for turn in range(ROUNDS):
            for side in (OURS, THEIRS) if turn % 2 == 0 else (THEIRS, OURS):
                with new_library(server, f"{name}_{side}_{turn}".lower()) as images:
                    dsn = images.place
                times = apart.apply(sides[side], (dsn, url, folder))
                seconds[side].append(times[0])
                cpu[side].append(times[1])
    return Turns(seconds), Turns(cpu)


@contextlib.contextmanager
def _emulator(latency: int) -> Iterator[str]:
    """An emulator in a process of its own; gives its URL."""
    command = [sys.executable, "-m", "lookalike", "emulator", "--port", "0", "--latency-ms", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"http://[\d.]+:\d+/", said)
            if found is None:
                raise RuntimeError(f"the emulator does not start: {said}")
            yield found[0]
        finally:
            process.terminate()


def _drawn(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Photos of so many pixels: soft shapes with the noise of a sensor."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        shapes = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        noisy = np.asarray(shapes).astype(np.int16) + random.integers(-6, 7, (size[1], size[0], 1), np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04}.jpg", quality=92)
    return folder
