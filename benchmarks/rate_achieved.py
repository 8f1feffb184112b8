#!/usr/bin/env python3
"""How much of the allowed rate an ingest achieves, alone and with a second process beside it.

    benchmarks/rate_achieved.py [--rate 40] [--latency-ms 50] [--pictures 1000]

The emulator enforces the rate with a bucket that holds one second's worth, as Azure does; what it answers with 429 is
counted. Pictures are drawn, and everything lies in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lookalike.emulator import Emulator


def draw(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (8, 12, 3), np.uint8)).resize((96, 64)).save(folder / f"{number}.jpg")
    return folder


def ingest(folder: Path, rate: float, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lookalike", "ingest", str(folder), "--rate", str(rate), "--json"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def measured(folders: list[Path], rate: float, emulator: Emulator, environment: dict[str, str]) -> dict[str, Any]:
    before = emulator.stats()["calls"]["vectorizeImage"]
    started = time.monotonic()
    processes = [ingest(folder, rate, environment) for folder in folders]
    reports = [json.loads(process.communicate()[0]) for process in processes]
    after = emulator.stats()["calls"]["vectorizeImage"]
    calls = {status: number - before.get(status, 0) for status, number in after.items()}
    seconds = max(report["seconds"] for report in reports)
    return {
        "share": sum(report["calls"] for report in reports) / seconds / rate,
        "429": calls.get("429", 0) / sum(calls.values()),
        "seconds": seconds,
        "wall": time.monotonic() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How much of the allowed rate an ingest achieves.")
    parser.add_argument("--rate", type=float, default=40)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--pictures", type=int, default=1000)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="lookalike-rate-", dir="/var/tmp") as temporary,
        Emulator(latency_ms=given.latency_ms, rate=given.rate) as emulator,
    ):
        folder = Path(temporary)
        environment = {
            **os.environ,
            "LOOKALIKE_HOME": str(folder / "home"),
            "VISION_ENDPOINT": emulator.url,
            "VISION_KEY": "emulator",
        }
        one, *two = (draw(folder / f"pictures-{n}", given.pictures // (1 + (n > 0)), seed=n) for n in range(3))
        try:
            for name, folders in (("one process", [one]), ("two processes", two)):
                found = measured(folders, given.rate, emulator, environment)
                print(
                    f"{name:<14} {found['share']:.3f} of {given.rate:g}/s achieved, {found['429']:.2%} answered 429 "
                    f"({found['seconds']:.1f} s; {found['wall']:.1f} s with starting)"
                )
        finally:
            subprocess.run([sys.executable, "-m", "lookalike", "db", "stop"], env=environment, check=False)


if __name__ == "__main__":
    main()
