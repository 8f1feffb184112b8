"""What happens to calls whatever they ask for: faults, a rate limit, and the counting of them all."""

from __future__ import annotations

import math
import random
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import accumulate
from types import TracebackType
from typing import Any, Self

from lookalike.errors import ConfigurationError

FAULT_KINDS = (
    "429",
    "500",
    "503",
    "timeout",
    "reset",
    "truncated-json",
    "html",
    "wrong-model",
    "wrong-length",
    "nan",
    "zero",
)
"""What can be made to go wrong.

The service does not get to see a call: ``429``, ``500``, ``503`` (answered so), ``timeout`` (not answered for two
minutes), ``reset`` (the connection is cut), ``html`` (a page of somebody else, with status 200). The call succeeds,
but its answer is damaged: ``truncated-json``, ``wrong-model``, ``wrong-length``, ``nan``, ``zero``.
"""

_SEED = 20240201


def parse_fault(text: str) -> tuple[str, float]:
    """Read ``KIND=SHARE``, for example ``429=0.2``, or ``dashscope:Arrearage=0.1``, whose service the emulator asks.

    Raises:
        ConfigurationError: the kind is unknown, or the share is no number from 0 to 1.
    """
    kind, _, share = text.partition("=")
    try:
        number = float(share)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not a fault. Faults read KIND=SHARE, for example 429=0.2; kinds are {', '.join(FAULT_KINDS)}."
        ) from None
    name = kind.strip()
    _check_fault(name, number, [name] if ":" in name else ())
    return name, number


def _check_fault(kind: str, share: float, of_services: Collection[str]) -> None:
    if kind not in FAULT_KINDS and kind not in of_services:
        alike = [known for known in of_services if known.partition(":")[0] == kind.partition(":")[0]]
        known = ", ".join(alike or FAULT_KINDS)
        raise ConfigurationError(f"{kind!r} is not a fault that the emulator knows; it knows {known}.")
    if not 0 <= share <= 1:
        raise ConfigurationError(f"The share of fault {kind} is {share:g}; it is a number from 0 to 1.")


class Faults:
    """Draws what goes wrong with each call. The same calls in the same order meet the same faults in every run."""

    def __init__(self, shares: Mapping[str, float], of_services: Collection[str] = ()) -> None:
        """Take the share, 0 to 1, of each kind of fault, and the kinds that there are besides `FAULT_KINDS`.

        Raises:
            ConfigurationError: a kind is unknown, a share is out of range, or together they exceed 1.
        """
        self._of_services = of_services
        for kind, share in shares.items():
            _check_fault(kind, share, of_services)
        self._kinds = tuple(shares)
        self._bounds = list(accumulate(shares.values()))
        # Ten times 0.1 is a little more than 1 in binary.
        if self._bounds and self._bounds[-1] > 1 + 1e-9:
            raise ConfigurationError(f"The shares of all faults add up to {self._bounds[-1]:g}, which is more than 1.")
        self._random = random.Random(_SEED)
        self._throttles = 0
        self._scripted: deque[str] = deque()
        self._lock = threading.Lock()

    def script(self, kinds: Iterable[str]) -> None:
        """The next calls meet these, one each, before anything is drawn again.

        Raises:
            ConfigurationError: a kind is unknown.
        """
        kinds = list(kinds)
        for kind in kinds:
            _check_fault(kind, 1, self._of_services)
        self._scripted += kinds

    def draw(self) -> str | None:
        """The kind of fault that this call meets, or None."""
        if self._scripted:
            with self._lock:
                if self._scripted:
                    return self._scripted.popleft()
        if not self._bounds:
            return None
        with self._lock:
            drawn = self._random.random()
        position = bisect_right(self._bounds, drawn)
        return self._kinds[position] if position < len(self._kinds) else None

    def with_retry_after(self) -> bool:
        """Whether this 429 says in a header, too, when to come back: every second one does."""
        with self._lock:
            self._throttles += 1
            return self._throttles % 2 == 0


def damaged(numbers: tuple[str, ...], fault: str | None) -> tuple[str, ...]:
    """The numbers of a vector as an answer that meets `fault` has them."""
    match fault:
        case "wrong-length":
            return numbers[:-1]
        case "nan":
            return ("NaN", *numbers[1:-1], "NaN")
        case "zero":
            return ("0.0",) * len(numbers)
        case _:
            return numbers


class TokenBucket:
    """A limit of calls a second that saves up what was not used in the last second, and no more."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the calls a second, more than 0, and a clock that counts seconds."""
        self._rate = rate
        self._capacity = max(1.0, rate)
        self._clock = clock
        self._tokens = self._capacity
        self._filled_at = clock()
        self._lock = threading.Lock()

    def take(self) -> float:
        """Take one token. Returns 0.0, or the seconds until there is one again."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._rate)
            self._filled_at = now
            if self._tokens >= 1:
                self._tokens -= 1
                return 0.0
            return (1 - self._tokens) / self._rate


class Counters:
    """How many calls were answered, how, and how many are being answered. Safe to use from many threads."""

    def __init__(self, operations: Iterable[str]) -> None:
        """Take the operations that are listed before anybody calls them; others turn up once they are called."""
        self._calls = defaultdict[str, Counter[str]](Counter, {operation: Counter() for operation in operations})
        self._billed = 0
        self._in_flight = 0
        self._peak = 0
        self._lock = threading.Lock()

    def call(self, operation: str) -> Call:
        """A call that has arrived; it is in flight while the returned context is open, or until it is answered."""
        return Call(self, operation)

    def snapshot(self) -> dict[str, Any]:
        """The numbers as they are now, in the form of ``GET /_emulator/stats``."""
        with self._lock:
            return {
                "billed": self._billed,
                "calls": {operation: dict(statuses) for operation, statuses in self._calls.items()},
                "in_flight": self._in_flight,
                "peak": self._peak,
            }

    def _arrive(self) -> None:
        with self._lock:
            self._in_flight += 1
            self._peak = max(self._peak, self._in_flight)

    def _record(self, operation: str, status: str | None, *, billed: bool, leaves: bool) -> None:
        with self._lock:
            if status is not None:
                self._calls[operation][status] += 1
            self._billed += billed
            self._in_flight -= leaves


class Call:
    """One call on its way through the emulator."""

    __slots__ = ("_counters", "_in_flight", "_operation")

    def __init__(self, counters: Counters, operation: str) -> None:
        self._counters = counters
        self._operation = operation
        self._in_flight = False

    def __enter__(self) -> Self:
        self._counters._arrive()
        self._in_flight = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._in_flight:
            self._in_flight = False
            self._counters._record(self._operation, None, billed=False, leaves=True)

    def held(self, status: str) -> None:
        """Count the call under `status` while it goes on being in flight."""
        self._counters._record(self._operation, status, billed=False, leaves=False)

    def answered(self, status: str, *, billed: bool = False) -> None:
        """Count the call under `status` and let it leave, both at once. To be called before the answer is sent."""
        self._in_flight = False
        self._counters._record(self._operation, status, billed=billed, leaves=True)


def whole_seconds(wait: float) -> int:
    """A wait as services announce it: in whole seconds, one at least."""
    return max(1, math.ceil(wait))
