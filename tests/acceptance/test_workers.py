"""Several workers over the same pictures: they split the work, and whoever dies costs little."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.emulator import Emulator, expected_vector
from lookalike.uris import uri_of

from ..conftest import RunCommand, command_environment, draw_pictures
from ..integration.test_ingest import billed, rows, stored_vectors
from .test_cli import azure, document, forget_the_dead

IN_FLIGHT = 4
FIRST, SECOND = "2023-04-15", "2022-04-11"


def start(dsn: str, emulator: Emulator, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    variables = {"LOOKALIKE_DATABASE_URL": dsn, "VISION_RATE": "5000", **azure(emulator)}
    return subprocess.Popen(
        [sys.executable, "-m", "lookalike", *map(str, arguments), "--concurrency", str(IN_FLIGHT), "--json"],
        env=command_environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a worker that was left alone has done."""
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    report = json.loads(stdout)
    assert isinstance(report, dict)
    assert report["failed"] == report["pending"] == 0
    return report


def kill_again_and_again(
    begin: Callable[[Emulator], subprocess.Popen[str]],
    emulators: Sequence[Emulator],
    lives: int,
    seed: int,
    most_seconds: float,
) -> None:
    """Workers, one for each emulator, each killed and started again so often, at moments that chance chooses: most
    while they embed, some while they start.

    Args:
        most_seconds: a life without a call ends after so long, for the dead may hold all that is left.
    """
    troubles: list[BaseException] = []

    def one(emulator: Emulator, chance: random.Random) -> None:
        try:
            for _ in range(lives):
                before, at_once = billed(emulator), chance.random() < 0.25
                with begin(emulator) as process:
                    deadline = time.monotonic() + (chance.uniform(0, 1) if at_once else most_seconds)
                    while time.monotonic() < deadline and (at_once or billed(emulator) == before):
                        if process.poll() is not None:  # it had nothing to do
                            break
                        time.sleep(0.01)
                    time.sleep(0 if at_once else chance.uniform(0, 0.7))
                    process.kill()
        except BaseException as error:
            troubles.append(error)

    threads = [
        threading.Thread(target=one, args=(emulator, random.Random(f"{seed}-{number}")))
        for number, emulator in enumerate(emulators)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []


def assert_complete(dsn: str, folder: Path, *versions: str) -> None:
    """Every picture has exactly one embedding under each model, and it is its own; nobody holds a claim."""
    pictures = sorted(folder.iterdir())
    for version in versions:
        view = f"azure_vision_{version.replace('-', '_')}"
        assert rows(dsn, f"select count(*), count(distinct image_id) from lookalike.{view}") == [(len(pictures),) * 2]
        found = stored_vectors(dsn, view)
        assert len(found) == len(pictures)
        for path in pictures:
            expected = expected_vector(path.read_bytes(), version).astype(np.float16)
            np.testing.assert_array_equal(found[uri_of(path)], expected)
    # but that the dead are there, for a few seconds more
    assert rows(dsn, "select count(*) from lookalike.claims where model <> ''") == [(0,)]
    assert rows(dsn, "select count(*) from lookalike.failures") == [(0,)]


def most_billed(pictures: int, kills: int) -> int:
    """What was under way when a worker was killed is paid for twice, and what had come back and was being written."""
    return pictures + kills * 2 * IN_FLIGHT


def test_two_workers_share_a_folder_and_pay_for_nothing_twice(dsn: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    draw_pictures(folder, 160)
    with Emulator(latency_ms=150) as emulator:
        workers = [start(dsn, emulator, "ingest", folder) for _ in range(2)]
        reports = [report_of(worker) for worker in workers]
        assert billed(emulator) == 160
    assert [report["found"] for report in reports] == [160, 160]
    assert sum(report["embedded"] for report in reports) == sum(report["calls"] for report in reports) == 160
    assert all(report["embedded"] >= 10 for report in reports), "one of them did nearly nothing"
    assert_complete(dsn, folder, FIRST)


def test_two_workers_killed_again_and_again(dsn: str, run: RunCommand, tmp_path: Path) -> None:
    folder, pictures, lives = tmp_path / "photos", 300, 5
    draw_pictures(folder, pictures)
    with Emulator(latency_ms=120) as one, Emulator(latency_ms=120) as other:
        kill_again_and_again(
            lambda emulator: start(dsn, emulator, "ingest", folder), (one, other), lives, seed=1, most_seconds=30
        )
        assert billed(one) + billed(other) > lives * IN_FLIGHT, "they were killed before they did anything"
        forget_the_dead(dsn)
        # waits for what the last two had in hand when they were killed
        last = run("ingest", folder, "--json", "--concurrency", "32", **azure(one))
        assert last.returncode == 0, last.stderr
        report = document(last)
        assert report["embedded"] + report["unchanged"] == report["found"] == pictures
        assert pictures <= billed(one) + billed(other) <= most_billed(pictures, 2 * lives)
    assert_complete(dsn, folder, FIRST)


def test_two_workers_that_backfill_killed_again_and_again(dsn: str, run: RunCommand, tmp_path: Path) -> None:
    folder, pictures, lives = tmp_path / "photos", 160, 3
    draw_pictures(folder, pictures)
    with Emulator() as emulator:
        assert document(run("ingest", folder, "--json", **azure(emulator)))["embedded"] == pictures
    with Emulator(latency_ms=120) as one, Emulator(latency_ms=120) as other:
        command = ("models", "backfill", f"azure-vision/{SECOND}")
        kill_again_and_again(
            lambda emulator: start(dsn, emulator, *command), (one, other), lives, seed=2, most_seconds=4
        )
        forget_the_dead(dsn)
        workers = [start(dsn, emulator, *command) for emulator in (one, other)]
        reports = [report_of(worker) for worker in workers]
        assert sum(report["embedded"] for report in reports) > 0
        assert pictures <= billed(one) + billed(other) <= most_billed(pictures, 2 * lives)
    assert_complete(dsn, folder, FIRST, SECOND)
