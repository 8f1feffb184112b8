"""How much memory processes have needed, on Linux and macOS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg

from lookalike.store.embedded import EmbeddedServer

_TICK_SECONDS = 0.25

_LAUNCHER = """
import os, sys
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""
"""A small process between: on Linux, what a process held before it became another counts for the other."""


@dataclass(frozen=True)
class Command:
    """What became of a command.

    Attributes:
        document: the JSON that it has printed.
        seconds: from its start to its end.
        memory: its largest resident size, in bytes.
    """

    document: Any
    seconds: float
    memory: int


def measured(*arguments: str | Path, environment: Mapping[str, str]) -> Command:
    """Run ``lookalike`` with these arguments and ``--json``, in a process of its own.

    Args:
        environment: variables beside those of this process, of which Lookalike's own are left out.

    Raises:
        RuntimeError: it has failed.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOOKALIKE_", "VISION_", "PG"))}
    command = [sys.executable, "-m", "lookalike", *map(str, arguments), "--json"]
    with tempfile.NamedTemporaryFile("r") as size:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-S", "-c", _LAUNCHER, size.name, *command],
            env={**kept, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"lookalike {arguments[0]} has failed ({done.returncode}): {done.stderr.strip()[-500:]}")
        # macOS counts bytes, the others kibibytes
        memory = int(size.read()) << (0 if sys.platform == "darwin" else 10)
    return Command(json.loads(done.stdout), seconds, memory)


class Watch:
    """Watches a server while something is done with one of its databases: its memory, and builds of indexes.

    Attributes:
        memory: the most that its processes held together, in bytes, what they share counted once; 0 where the system
            does not tell. Up to ``shared_buffers`` of it is cache.
        build_memory: the same, while an index was being built.
        build_seconds: how long an index was being built.
    """

    def __init__(self, server: EmbeddedServer, dsn: str) -> None:
        self.memory = self.build_memory = 0
        self.build_seconds = 0.0
        self._server = server
        self._dsn = dsn
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        postmaster = int((self._server.data / "postmaster.pid").read_text().split()[0])
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            before = time.perf_counter()
            while not self._done.wait(_TICK_SECONDS):
                now = time.perf_counter()
                held = _held_together(postmaster)
                self.memory = max(self.memory, held)
                (building,) = connection.execute(
                    "select count(*) from pg_stat_progress_create_index where datname = current_database()"
                ).fetchone() or (0,)
                if building:
                    self.build_seconds += now - before
                    self.build_memory = max(self.build_memory, held)
                before = now


def _held_together(postmaster: int) -> int:
    """Bytes that a server's processes hold, each page divided among those that share it."""
    held = 0
    try:
        processes = [psutil.Process(postmaster), *psutil.Process(postmaster).children()]
    except psutil.Error:
        return 0
    for process in processes:
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        held += next((int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return held
