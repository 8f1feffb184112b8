"""What a chapter has found: its figures, with what was asked of them, its tables and its charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Asked:
    """What a figure is to be: at most, or at least, so much."""

    bound: float
    direction: Literal["at most", "at least"]

    def met_by(self, value: float) -> bool:
        """Whether a figure is as it should be."""
        return value <= self.bound if self.direction == "at most" else value >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.direction == 'at most' else '≥'} {number(self.bound)}"


@dataclass(frozen=True)
class Figure:
    """One number that says something.

    Attributes:
        unit: what it counts; a ratio has ``×``.
        asked: what it is to be, None where it only informs.
        note: what else one should know, such as what it is a ratio to.
    """

    name: str
    value: float
    unit: str = "×"
    asked: Asked | None = None
    note: str = ""

    def __str__(self) -> str:
        shown = number(self.value)
        if self.asked is not None and shown == number(self.asked.bound) and not self.asked.met_by(self.value):
            shown = f"{self.value:.4g}"  # else it seems to be met
        return f"{shown} {self.unit}".strip()


@dataclass(frozen=True)
class Table:
    """Rows of what belongs together; numbers are written with three significant figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""


@dataclass(frozen=True)
class Bars:
    """A chart of horizontal bars, one for each label."""

    name: str
    title: str
    unit: str
    values: Mapping[str, float]
    highlight: Sequence[str] = ()
    logarithmic: bool = False


@dataclass(frozen=True)
class Lines:
    """A chart of lines over a logarithmic x."""

    name: str
    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Chapter:
    """What one chapter has found.

    Attributes:
        title: what it is about.
        shows: what was measured against what, in a few sentences.
        notes: what else is to be known, a paragraph each.
        versions: of whatever else was measured.
    """

    title: str
    shows: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Bars | Lines] = ()
    notes: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def at_most(bound: float) -> Asked:
    """A figure is to be no larger."""
    return Asked(bound, "at most")


def at_least(bound: float) -> Asked:
    """A figure is to be no smaller."""
    return Asked(bound, "at least")


def number(value: Any) -> str:
    """A number as tables show it: three significant figures, thousands apart."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if value == 0:
        return "0"
    digits = 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"
