"""Lookalike itself, and what somebody writes by hand, beside the others."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.peers import Ask, Given, Peer
from benchmarks.photos import MODEL, number_of
from benchmarks.rival import Kind, Table
from lookalike import Embedding, Lookalike, Model, Settings
from lookalike.config import Secret
from lookalike.reports import ImportReport
from lookalike.store.database import Database


class Ours(Peer):
    """Lookalike: one call brings in the file and builds the index."""

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        with Database(given.url) as database:
            database.upgrade()
        self._images = Lookalike.open(Settings(database_url=Secret(given.url)), announce=lambda _: None)
        self._model = Model(MODEL)

    def insert(self) -> None:
        def note(report: ImportReport) -> None:
            if report.building is not None and self.build_began is None:
                self.build_began = time.perf_counter()

        self._images.import_vectors(self.given.npz_path, progress=note)

    def client(self) -> Ask:
        def ask(query: Any) -> list[int]:
            found = self._images.search(Embedding(self._model, query), ef_search=self._ef_search())
            return [number_of(hit.uri) for hit in found]

        return ask

    def disk(self) -> None:
        return None

    def _ef_search(self) -> int | None:
        return self.candidates


class OursAsItComes(Ours):
    """The same library, where a search keeps as many candidates as it does by itself."""

    def _ef_search(self) -> None:
        return None


class ByHand(Peer):
    """psycopg by hand, half vectors."""

    kind: Kind = "halfvec"

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._table = Table(given.url, self.kind)

    def insert(self) -> None:
        self._table.insert(
            (told["uri"], told, vector) for told, vector in zip(self.given.told, self.given.vectors, strict=True)
        )

    def build(self) -> None:
        self._table.build()

    def client(self) -> Ask:
        rival = self._table.search(ef_search=self.candidates)
        return lambda query: [row[0] for row in rival.search(query)]

    def remark(self) -> str:
        with self._table.search(ef_search=self.candidates) as rival:
            plan = rival.plan(self.given.vectors[0].astype(np.float32))
        return "" if "Index Scan" in plan else "The planner compares every vector here and leaves the index alone."

    def disk(self) -> None:
        return None


class ByHandVector(ByHand):
    """The same with pgvector's ordinary vectors."""

    kind = "vector"
