"""Runs the chapters and writes what they found: ``make bench``, ``make bench CHAPTERS="search peers"``.

``BENCH_N`` sets how many vectors there are, by default 50,000. What was found with other sizes, and by chapters that
are not run now, stays.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType

from benchmarks.bench import SIZE, Bench
from benchmarks.chapters import CHAPTERS, ONLY_WHEN_NAMED, chapter
from benchmarks.results import Results, shown

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    given = _arguments()
    # servers stop and files go, whoever ends the run
    signal.signal(signal.SIGTERM, _interrupt)
    results = Results(given.results, given.count)
    failed = []
    with Bench(given.count) as bench:
        for name in given.chapters or CHAPTERS:
            bench.say(f"{name}: {({**CHAPTERS, **ONLY_WHEN_NAMED})[name]}")
            began = time.monotonic()
            try:
                found = chapter(name)(bench)
            except Exception:
                traceback.print_exc()
                failed.append(name)
                continue
            print(shown(found), flush=True)
            results.keep(name, found, seconds=time.monotonic() - began, facts=bench.facts())
    if results.kept:
        print(f"Written: {', '.join(map(str, results.kept))}", file=sys.stderr)
    if failed:
        print(f"Not measured, for the reasons above: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    every = {**CHAPTERS, **ONLY_WHEN_NAMED}
    listed = "\n".join(f"  {name:8}  {what}" for name, what in every.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure, and write what was found.",
        epilog=f"chapters:\n{listed}\n\nOnly when named: {', '.join(ONLY_WHEN_NAMED) or 'none'}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="by default all but those said below")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where results go")
    given = parser.parse_args()
    if unknown := [name for name in given.chapters if name not in every]:
        parser.error(f"there is no chapter {unknown[0]!r}; there are {', '.join(every)}")
    try:
        given.count = int(os.environ.get("BENCH_N", str(SIZE)).replace(",", "").replace("_", ""))
    except ValueError:
        given.count = 0
    if given.count < 100:
        parser.error(f"BENCH_N is {os.environ['BENCH_N']!r}; it is a number of vectors, 100 at least")
    return given


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("Interrupted; what was measured before is kept.", file=sys.stderr)
        sys.exit(130)
