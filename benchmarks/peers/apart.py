"""The other end of a library's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers import MODULES, Given

REPOSITORY = Path(__file__).resolve().parents[2]
PEERS_PYTHON = REPOSITORY / ".venv-peers" / "bin" / "python"
"""The others have a virtual environment of their own, since they pin versions that we cannot live with."""

_SECONDS_TO_END = 10
_PATIENCE = 1800.0
"""Seconds until an answer must be there: whoever hangs must not keep the others waiting for ever."""


class PeerError(Exception):
    """A library cannot be measured; the message says why, in one line."""


class Apart:
    """A library in a process of its own.

    Args:
        name: one of `MODULES`.

    Raises:
        PeerError: it is not installed, or does not start.
    """

    def __init__(self, name: str, given: Given, queries_path: Path) -> None:
        ours = MODULES[name].startswith("ours:")
        python = sys.executable if ours else str(PEERS_PYTHON)
        if not Path(python).exists():
            raise PeerError("not installed: make bench")
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.peers", name, str(queries_path)],
            cwd=REPOSITORY,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "ANONYMIZED_TELEMETRY": "False", "TQDM_DISABLE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            self.versions: dict[str, str] = self._told(asdict(given))
        except PeerError:
            self.close()
            raise

    def load(self) -> tuple[float, float]:
        """Seconds of taking in everything, and of building the index."""
        insert, build = self._do("load")
        return insert, build

    def ask(self, numbers: Sequence[int]) -> list[float]:
        """Seconds of each of these queries."""
        return [float(seconds) for seconds in self._do("ask", list(numbers))]

    def found(self, numbers: Sequence[int]) -> list[list[int]]:
        """The numbers that each of these queries finds."""
        return [list(found) for found in self._do("found", list(numbers))]

    def look_at(self, candidates: int) -> int:
        """Have it keep so many candidates in searches from now on; returns how many it takes."""
        return int(self._do("look_at", candidates))

    def rate(self, clients: int, seconds: float) -> float:
        """Queries a second by so many threads."""
        return float(self._do("rate", clients, seconds))

    def disk(self) -> int | None:
        """Bytes on disk; None where they are the database's."""
        found: int | None = self._do("disk")
        return found

    def remark(self) -> str:
        """What one must know to understand its times; mostly nothing."""
        return str(self._do("remark"))

    def memory(self) -> int:
        """The largest resident size of the process so far, in bytes."""
        return int(self._do("memory"))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._process:
            self._process.stdin.close()
            try:
                self._process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, what: str, *arguments: Any) -> Any:
        return self._told({"do": what, "with": arguments})

    def _told(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        patience = threading.Timer(_PATIENCE, self._process.kill)
        patience.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            patience.cancel()
        if not line:
            raise PeerError(f"its process ended ({self._process.wait(_SECONDS_TO_END)})")
        document = json.loads(line)
        if "error" in document:
            raise PeerError(str(document["error"]).strip().splitlines()[0][:200])
        return document["answer"]
