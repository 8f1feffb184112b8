"""Measuring several things beside each other, in turns, so that whatever else the machine does befalls them all."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

T = TypeVar("T")
Ask = Callable[[T], object]


@dataclass(frozen=True)
class Turns:
    """What was measured of each side, by name; the first of each belong together, and so on."""

    values: Mapping[str, Sequence[float]]

    def median(self, side: str) -> float:
        """The middle of what was measured of one side."""
        return statistics.median(self.values[side])

    def p95(self, side: str) -> float:
        """The 95th percentile of one side."""
        ordered = sorted(self.values[side])
        return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]

    def ratio(self, side: str, to: str) -> float:
        """The median of the ratios of each pair: `side` over `to`."""
        return statistics.median(a / b for a, b in zip(self.values[side], self.values[to], strict=True))


def paired(sides: Mapping[str, Ask[T]], things: Sequence[T], *, warm_up: int = 30, seed: int = 0) -> Turns:
    """Seconds that each side takes for each thing: every thing by all sides, in random order."""
    order, shuffled = list(sides), random.Random(seed)
    for ask in sides.values():
        for thing in things[:warm_up]:
            ask(thing)
    values: dict[str, list[float]] = {name: [] for name in sides}
    for thing in things:
        shuffled.shuffle(order)
        for name in order:
            began = time.perf_counter()
            sides[name](thing)
            values[name].append(time.perf_counter() - began)
    return Turns(values)


def in_turns(sides: Mapping[str, Callable[[], float]], rounds: int = 3) -> Turns:
    """What each side returns, so many rounds, each round in another order."""
    order = list(sides)
    values: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in order if turn % 2 == 0 else reversed(order):
            values[name].append(sides[name]())
    return Turns(values)


def rate(asks: Sequence[Ask[T]], things: Sequence[T], seconds: float = 2.0) -> float:
    """Things done a second by as many threads as there are `asks`, each of which asks in its own way."""
    done = [0] * len(asks)
    errors: list[Exception] = []
    start = threading.Barrier(len(asks) + 1)
    until = 0.0

    def work(number: int) -> None:
        start.wait()
        try:
            while time.perf_counter() < until:
                asks[number](things[(done[number] * len(asks) + number) % len(things)])
                done[number] += 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(asks))]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    until = began + seconds
    start.wait()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(done) / (time.perf_counter() - began)


def rates(
    sides: Mapping[str, Sequence[Ask[T]]], things: Sequence[T], *, seconds: float = 2.0, rounds: int = 3
) -> Turns:
    """`rate` of each side, in turns; each side has one `Ask` for each of its clients."""
    return in_turns({name: partial(rate, asks, things, seconds) for name, asks in sides.items()}, rounds)
