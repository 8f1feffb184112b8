"""Libraries for the same job, each in a process of its own, so that none disturbs or takes down another.

Each is used as its documentation says, with its calls for many vectors at a time, and an HNSW index with the parameters
that pgvector has by default, as far as they can be chosen: 16 neighbours, and 64 candidates while building.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 16
CANDIDATES_BUILDING = 64
CANDIDATES = 40
"""In a search, until `Peer.look_at` says otherwise: pgvector's own ``ef_search``."""
LIMIT = 10
BATCH = 1000
"""Vectors that are handed over at a time, where that is for the caller to say."""

Ask: TypeAlias = Callable[[npt.NDArray[np.float32]], Sequence[int]]

MODULES = {
    "Lookalike": "ours:Ours",
    "Lookalike, as it comes": "ours:OursAsItComes",
    "psycopg": "ours:ByHand",
    "psycopg, default server": "ours:ByHand",
    "psycopg, vector": "ours:ByHandVector",
    "psycopg, vector, default server": "ours:ByHandVector",
    "vecs": "postgres:Vecs",
    "langchain-postgres": "postgres:Langchain",
    "llama-index": "postgres:LlamaIndex",
    "chromadb": "others:Chroma",
    "lancedb": "others:Lance",
    "faiss": "others:Faiss",
    "hnswlib": "others:Hnswlib",
}
"""Where each of them is: module and class."""


@dataclass(frozen=True)
class Given:
    """What everybody works with.

    Attributes:
        vectors_path: ``.npy``, float16 ``(count, 1024)``.
        told_path: a JSON document for each photo, in the same order: ``uri`` and some metadata.
        npz_path: the same, as one file.
        folder: an empty folder for what one keeps.
        url: of an empty database on the tuned server.
    """

    vectors_path: str
    told_path: str
    npz_path: str
    folder: str
    url: str

    @cached_property
    def vectors(self) -> npt.NDArray[np.float16]:
        """All vectors, mapped from the file."""
        mapped: npt.NDArray[np.float16] = np.load(self.vectors_path, mmap_mode="r")
        return mapped

    @cached_property
    def told(self) -> list[dict[str, Any]]:
        """What is known of each photo."""
        with open(self.told_path) as lines:
            return [json.loads(line) for line in lines]

    def batches(self, size: int = BATCH) -> Iterator[tuple[range, npt.NDArray[np.float32], list[dict[str, Any]]]]:
        """Numbers, vectors in float32 and what is known, so many at a time."""
        for first in range(0, len(self.vectors), size):
            numbers = range(first, min(first + size, len(self.vectors)))
            yield numbers, self.vectors[first : numbers.stop].astype(np.float32), self.told[first : numbers.stop]


class Peer(ABC):
    """One of them."""

    packages: Sequence[str] = ()
    """What is installed for it, by the names of the packages."""

    candidates = CANDIDATES
    """How many are kept in a search."""

    build_began: float | None = None
    """When `insert` has begun to build the index, by ``time.perf_counter``; None where it does not."""

    def __init__(self, given: Given) -> None:
        self.given = given

    @abstractmethod
    def insert(self) -> None:
        """Take in everything that is given."""

    def build(self) -> None:
        """Build the index, where that is another step."""
        return None

    def look_at(self, candidates: int) -> None:
        """Keep so many candidates in the searches of all clients that are made from now on."""
        self.candidates = candidates

    @abstractmethod
    def client(self) -> Ask:
        """Something to be asked, by one thread at a time, for the numbers of the ten nearest, with their metadata."""

    def remark(self) -> str:
        """What one must know to understand its times, in a sentence; by default nothing."""
        return ""

    def disk(self) -> int | None:
        """Bytes on disk; None where they are the database's."""
        return sum(path.stat().st_size for path in Path(self.given.folder).rglob("*") if path.is_file())
