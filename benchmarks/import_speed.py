#!/usr/bin/env python3
"""How fast are precomputed vectors imported, with their index, and does a larger file need more memory?

    .venv/bin/python benchmarks/import_speed.py [ROWS]

Imports a tenth of ROWS (by default 20,000) and then ROWS clustered vectors as ``.npz`` and as CSV, each into a library
of its own. Prints seconds with the index, the largest resident size, and the time of importing the same file again.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.store.embedded import EmbeddedServer

MODEL = "measured/clustered-1"


def main() -> None:
    many = int(sys.argv[1].replace("_", "").replace(",", "")) if len(sys.argv) > 1 else 20_000
    print("file       rows   import              index     memory    again")
    # in a process of its own, whose memory is not taken for that of the command
    apart = multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1)
    with tempfile.TemporaryDirectory(prefix="lookalike-") as folder, apart:
        for suffix in ("npz", "csv"):
            for rows in (many // 10, many):
                path = apart.apply(vectors, (Path(folder), suffix, rows))
                home = Path(folder) / f"home-{suffix}-{rows}"
                home.mkdir()
                try:
                    report, seconds, mib = measure(path, home)
                    again, seconds_again, _ = measure(path, home)
                    assert (report["embedded"], again["unchanged"]) == (rows, rows)
                    print(
                        f"{suffix:4} {rows:10,}  {seconds:5.1f} s  {report['index']:>17}  {mib:5.0f} MiB"
                        f"  {seconds_again:5.1f} s",
                        flush=True,
                    )
                finally:
                    EmbeddedServer(home).stop()
                path.unlink()


def vectors(folder: Path, suffix: str, rows: int) -> Path:
    """A file of vectors as photos give them: some themes, and differences within each."""
    random = np.random.default_rng(0)
    themes = random.standard_normal((40, 1024), np.float32)
    matrix = np.empty((rows, 1024), np.float16)
    for first in range(0, rows, 10_000):
        part = matrix[first : first + 10_000]
        part[:] = themes[random.integers(0, 40, len(part))] + 0.7 * random.standard_normal(part.shape, np.float32)
    path = folder / f"{rows}.{suffix}"
    uris = [f"https://pictures.example/{number}.jpg" for number in range(rows)]
    if suffix == "npz":
        np.savez(path, uri=np.array(uris), vectors=matrix, model=np.array(MODEL), price=random.integers(1, 99, rows))
        return path
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "price", "model", "vector"])
        for uri, vector in zip(uris, matrix, strict=True):
            writer.writerow([uri, 5, MODEL, "[" + ",".join(map(str, vector)) + "]"])
    return path


def measure(path: Path, home: Path) -> tuple[dict[str, Any], float, float]:
    """The report, seconds, and the largest resident size in MiB of an import in a process of its own."""
    command = [sys.executable, "-m", "lookalike", "import", str(path), "--json"]
    environment = {**os.environ, "LOOKALIKE_HOME": str(home)}
    began = time.monotonic()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        document = json.loads(process.stdout.read())
        # of this child alone, unlike RUSAGE_CHILDREN
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, document
    # macOS counts bytes, the others kibibytes
    return document, time.monotonic() - began, usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main()
