"""Charts as SVG, written by hand: they are small, need no library, and fit a light and a dark page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.report import Bars, Lines, number

_WIDTH = 760
_LEFT, _RIGHT = 250, 70
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-size: 16px; font-weight: 600 }
.quiet { fill: #6e7781; font-size: 12px } .bar { fill: #9db4c8 } .ours { fill: #d9622b }
.grid { stroke: #d0d7de; stroke-width: 1 } .line { fill: none; stroke-width: 2.5 } .page { fill: #ffffff }
"""
_COLOURS = ("#d9622b", "#3d6f9e", "#5a8f4f", "#8a5fa3", "#b08d28", "#6e7781")


def drawn(chart: Bars | Lines) -> str:
    """The chart as an SVG document."""
    return "\n".join(_bars(chart) if isinstance(chart, Bars) else _lines(chart)) + "\n"


def _document(height: int, title: str) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img" aria-label="{escape(title)}">'
    )
    yield f"<style>{_STYLE}</style>"
    yield f'<rect class="page" width="{_WIDTH}" height="{height}" rx="8"/>'
    yield _text(title, 20, 30, 'class="title"')


def _text(text: str, x: float, y: float, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'


def _bars(chart: Bars) -> Iterator[str]:
    top, step = 66, 30
    height = top + step * len(chart.values) + 14
    largest = max(chart.values.values())
    least = min(chart.values.values())
    floor = least / 2 if chart.logarithmic else 0.0

    def length(value: float) -> float:
        room = _WIDTH - _LEFT - _RIGHT
        if chart.logarithmic:
            return room * math.log(value / floor) / math.log(largest / floor)
        return room * value / largest

    yield from _document(height, chart.title)
    scale = ", logarithmic" if chart.logarithmic else ""
    yield _text(chart.unit + scale, 20, 50, 'class="quiet"')
    for place, (label, value) in enumerate(chart.values.items()):
        y = top + step * place
        kind = "bar ours" if label in chart.highlight else "bar"
        yield _text(label, _LEFT - 12, y + 15, 'text-anchor="end"')
        yield f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{max(length(value), 1):.1f}" height="20" rx="3"/>'
        yield _text(number(value), _LEFT + length(value) + 8, y + 15)
    yield "</svg>"


def _lines(chart: Lines) -> Iterator[str]:
    left, top, right, bottom = 80, 70, 180, 54
    height = 380
    points = [point for series in chart.series.values() for point in series]
    xs = sorted({x for x, _ in points})
    ticks = _ticks(max(y for _, y in points))

    def at(x: float, y: float) -> tuple[float, float]:
        share = math.log(x / xs[0]) / math.log(xs[-1] / xs[0]) if xs[-1] > xs[0] else 0.5
        return (
            left + (_WIDTH - left - right) * share,
            height - bottom - (height - top - bottom) * y / ticks[-1],
        )

    yield from _document(height, chart.title)
    yield _text(chart.y, 20, 50, 'class="quiet"')
    for tick in ticks:
        _, y = at(xs[0], tick)
        yield f'<line class="grid" x1="{left}" x2="{_WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(number(tick), left - 10, y + 4, 'class="quiet" text-anchor="end"')
    for x in xs:
        across, _ = at(x, 0)
        yield _text(number(int(x)), across, height - bottom + 20, 'class="quiet" text-anchor="middle"')
    yield _text(chart.x, (left + _WIDTH - right) / 2, height - 14, 'class="quiet" text-anchor="middle"')
    last = {name: at(*series[-1])[1] for name, series in chart.series.items() if series}
    labels = _apart(last)
    for place, (name, series) in enumerate(chart.series.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        where = [at(x, y) for x, y in series]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
        yield f'<polyline class="line" stroke="{colour}" points="{path}"/>'
        for x, y in where:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
        if where:
            yield _text(name, _WIDTH - right + 14, labels[name] + 4, f'style="fill:{colour}"')
    yield "</svg>"


def _ticks(largest: float) -> Sequence[float]:
    """Four to six round numbers from zero to above the largest."""
    step = 10.0 ** math.floor(math.log10(largest or 1))
    for factor in (0.2, 0.5, 1.0, 2.0):
        if largest / (step * factor) <= 5:
            step *= factor
            break
    return [step * place for place in range(math.ceil(largest / step - 1e-9) + 1)]


def _apart(places: dict[str, float], least: float = 18.0) -> dict[str, float]:
    """The heights of labels, moved so that none covers another."""
    moved: dict[str, float] = {}
    for name, y in sorted(places.items(), key=lambda item: item[1]):
        moved[name] = max(y, max(moved.values(), default=-math.inf) + least)
    return moved
