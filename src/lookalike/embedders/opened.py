"""The embedders that a library has open: one for each model that questions are asked under, and those of its runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from lookalike.config import Settings
from lookalike.embedders import Budget, Embedder, open_embedder
from lookalike.embedders.terms import INTERACTIVE, Ledger


class OpenEmbedders:
    """Opens embedders, and tells once what users of their models should know. Safe to use from several threads.

    Args:
        ledger: shares the turns at a service with other processes.
        announce: told what a person should know.
    """

    def __init__(self, settings: Settings, ledger: Ledger, announce: Callable[[str], None]) -> None:
        self._settings, self._ledger, self._announce = settings, ledger, announce
        self._open: dict[str, Embedder] = {}
        self._announced: set[str] = set()
        self._lock = threading.Lock()

    def for_questions(self, name: str) -> Embedder:
        """The embedder for questions that a person waits for, opened once.

        Raises:
            ConfigurationError: as `open_embedder`.
        """
        with self._lock:
            if name not in self._open:
                self._open[name] = open_embedder(name, self._settings, patience=INTERACTIVE, ledger=self._ledger)
            embedder = self._open[name]
        self._tell_notice(embedder)
        return embedder

    @contextlib.contextmanager
    def for_run(
        self, name: str, rate: float | None, halt: threading.Event, max_calls: int | None = None
    ) -> Iterator[Embedder]:
        """An embedder for a run of its own, which nobody watches; it is closed at the end.

        Raises:
            ConfigurationError: as `open_embedder`.
        """
        embedder = open_embedder(
            name,
            self._settings,
            rate=rate,
            stop=halt,
            ledger=self._ledger,
            budget=Budget(max_calls) if max_calls is not None else None,
        )
        with contextlib.closing(embedder):
            self._tell_notice(embedder)
            yield embedder

    def close(self) -> None:
        """Close those for questions."""
        with self._lock:
            for embedder in self._open.values():
                embedder.close()
            self._open.clear()

    def _tell_notice(self, embedder: Embedder) -> None:
        if embedder.notice and embedder.model.name not in self._announced:
            self._announced.add(embedder.model.name)
            self._announce(embedder.notice)
