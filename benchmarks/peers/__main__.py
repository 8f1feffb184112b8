"""One library in a process of its own: a JSON request on stdin, its answer on stdout, until stdin ends."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import MODULES, Ask, Given, Peer
from benchmarks.turns import rate


class Process:
    """Does what the other end asks for, by its name."""

    def __init__(self, name: str, given: Given, queries_path: str) -> None:
        self._queries = np.load(queries_path)
        module, _, kind = MODULES[name].partition(":")
        made: type[Peer] = getattr(importlib.import_module(f"benchmarks.peers.{module}"), kind)
        self._peer = made(given)
        self._clients: list[Ask] = []

    def versions(self) -> dict[str, str]:
        """Of its packages."""
        return {package: importlib.metadata.version(package) for package in self._peer.packages}

    def load(self) -> list[float]:
        """Seconds of taking in everything, and of building the index."""
        _ = self._peer.given.told  # which its user has at hand
        began = time.perf_counter()
        self._peer.insert()
        inserted = time.perf_counter()
        self._peer.build()
        inserted = self._peer.build_began or inserted
        return [inserted - began, time.perf_counter() - inserted]

    def ask(self, numbers: list[int]) -> list[float]:
        """Seconds of each of these queries, one after the other."""
        client = self._client(0)
        taken = []
        for number in numbers:
            began = time.perf_counter()
            client(self._queries[number])
            taken.append(time.perf_counter() - began)
        return taken

    def look_at(self, candidates: int) -> int:
        """Keep so many candidates in searches from now on; returns how many it takes, which may refuse so few."""
        self._peer.look_at(candidates)
        self._clients.clear()
        return self._peer.candidates

    def found(self, numbers: list[int]) -> list[list[int]]:
        """What each of these queries finds."""
        return [list(self._client(0)(self._queries[number])) for number in numbers]

    def rate(self, clients: int, seconds: float) -> float:
        """Queries a second by so many threads."""
        return rate([self._client(number) for number in range(clients)], self._queries, seconds)

    def disk(self) -> int | None:
        """Bytes on disk; None where they are the database's."""
        return self._peer.disk()

    def remark(self) -> str:
        """What one must know to understand its times; mostly nothing."""
        return self._peer.remark()

    def memory(self) -> int:
        """The largest resident size so far, in bytes."""
        status = Path("/proc/self/status")
        if status.exists():  # where ru_maxrss begins with the size of the process that has started this one
            return next(int(line.split()[1]) << 10 for line in status.open() if line.startswith("VmHWM:"))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def _client(self, number: int) -> Ask:
        while len(self._clients) <= number:
            self._clients.append(self._peer.client())
        return self._clients[number]


def main() -> None:
    name, queries_path = sys.argv[1:3]
    # whatever a library prints must not be taken for an answer
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    process = None
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            if process is None:
                process = Process(name, Given(**request), queries_path)
                answer: Any = process.versions()
            else:
                answer = getattr(process, request["do"])(*request["with"])
            document = {"answer": answer}
        except Exception as error:
            document = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(document) + "\n")
        answers.flush()
    # some libraries wait for threads of theirs for ever
    os._exit(0)


if __name__ == "__main__":
    main()
