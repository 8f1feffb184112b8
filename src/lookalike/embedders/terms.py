"""On which terms a service is called: how patiently, in whose turn, and for how much."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

from lookalike.errors import BudgetSpent, Interrupted

_GLANCE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on when a service falters, in seconds.

    Attributes:
        deadline: after so long a call is given up whatever the reason; a 429 is waited out until then.
        tries, duration: what may pass is tried at least so often *and* for so long, as far as the deadline allows.
        longest_wait: between two tries, where the service itself names no time.
        connect_timeout, read_timeout: of a single try.
    """

    deadline: float
    tries: int = 8
    duration: float = 0.0
    longest_wait: float = 60.0
    connect_timeout: float = 10.0
    read_timeout: float = 60.0


BATCH = Patience(deadline=12 * 3600.0, duration=300.0)
"""For runs that nobody watches."""

INTERACTIVE = Patience(deadline=30.0, longest_wait=4.0, connect_timeout=5.0, read_timeout=10.0)
"""For questions that somebody waits for; eight tries fit in before the deadline."""


class Ledger(Protocol):
    """Turns that several processes share, for example in a database."""

    def reserve(self, credential: str, rate: float, count: int) -> float | None:
        """Reserve `count` turns, ``1 / rate`` seconds apart; seconds from now to the first, None if it cannot tell."""

    def pause(self, credential: str, seconds: float) -> None:
        """Let nobody through for so many seconds."""


class Budget:
    """So many calls may be billed, and no more. Thread-safe."""

    def __init__(self, calls: int) -> None:
        self._left = calls
        self._under_way = 0
        self._changed = threading.Condition()

    def take(self, stop: threading.Event | None) -> None:
        """Take a call out of the budget; wait where all that is left is under way, as it may turn out unbilled.

        Raises:
            BudgetSpent: nothing is left.
            Interrupted: `stop` was set.
        """
        with self._changed:
            while self._left <= 0:
                if self._under_way == 0:
                    raise BudgetSpent("As many calls were billed as were allowed.")
                self._changed.wait(_GLANCE_SECONDS)
                if stop is not None and stop.is_set():
                    raise Interrupted("Stopped while waiting for the embedding service.")
            self._left -= 1
            self._under_way += 1

    def settle(self, *, billed: bool) -> None:
        """Give back a call that was not billed."""
        with self._changed:
            self._under_way -= 1
            self._left += not billed
            self._changed.notify_all()
