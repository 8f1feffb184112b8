#!/usr/bin/env python3
"""Does an ingest of a huge table need more memory than one of a small table?

    .venv/bin/python -m benchmarks.manifest_memory [ROWS]

The rows, by default a million, repeat 2,000 pictures that are known already. Prints the largest resident size and the
time of a dry run and of a real one over 10,000 rows and over ROWS, and their ratio.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.memory import measured
from lookalike import Lookalike, Settings
from lookalike.config import Secret
from lookalike.emulator import Emulator
from lookalike.store.embedded import EmbeddedServer

PICTURES, FEW = 2_000, 10_000


def main() -> None:
    many = int(sys.argv[1].replace("_", "").replace(",", "")) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder, Emulator() as emulator:
        home = Path(folder)
        variables = {"LOOKALIKE_HOME": folder, "VISION_ENDPOINT": emulator.url, "VISION_KEY": "emulator"}
        try:
            draw(home / "pictures")
            settings = Settings(
                home=home,
                home_chosen=True,
                vision_endpoint=emulator.url,
                vision_key=Secret("emulator"),
                vision_rate=5000.0,
            )
            with Lookalike.open(settings) as images:
                images.ingest(home / "pictures")
            print(f"table  run      {FEW:,} rows     {many:,} rows  memory  rows/s")
            for suffix in ("csv", "jsonl"):
                small, large = (table(home, suffix, rows) for rows in (FEW, many))
                # once, so that both find what the table says stored already
                measure(small, variables)
                for name, options in (("dry", ["--dry-run"]), ("real", [])):
                    few_mib, few_seconds = measure(small, variables, *options)
                    mib, seconds = measure(large, variables, *options)
                    few = f"{few_mib:5.0f} MiB {few_seconds:4.1f} s"
                    print(
                        f"{suffix:5}  {name:4}  {few}  {mib:5.0f} MiB {seconds:4.0f} s  {mib / few_mib:6.3f}"
                        f"  {many / seconds:6,.0f}",
                        flush=True,
                    )
        finally:
            EmbeddedServer(home).stop()


def draw(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{number:04}.png")


def table(home: Path, suffix: str, rows: int) -> Path:
    """A table of the pictures, over and over again."""
    path = home / f"{rows}.{suffix}"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        if suffix == "csv":
            writer.writerow(["path", "title", "price"])
        for number in range(rows):
            picture = number % PICTURES
            row = {"path": f"pictures/{picture:04}.png", "title": f"Picture {picture}", "price": picture / 4}
            if suffix == "csv":
                writer.writerow(row.values())
            else:
                file.write(json.dumps(row) + "\n")
    return path


def measure(source: Path, variables: dict[str, str], *options: str) -> tuple[float, float]:
    """Largest resident size in MiB, and seconds, of an ingest in a process of its own."""
    done = measured("ingest", source, *options, environment=variables)
    assert done.document["unchanged"] == done.document["found"]
    return done.memory / (1 << 20), done.seconds


if __name__ == "__main__":
    main()
