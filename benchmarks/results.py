"""Where results are kept: for each size a page, the same as JSON, and the charts as SVG."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.chapters import CHAPTERS, ONLY_WHEN_NAMED
from benchmarks.charts import drawn
from benchmarks.report import Asked, Chapter, Figure, Table, number


class Results:
    """The results of one size, of this run and of those before.

    Args:
        folder: made if it is not there.
        count: the size.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._document = folder / f"{count}.json"
        self._chapters: dict[str, dict[str, Any]] = {}
        if self._document.exists():
            self._chapters = json.loads(self._document.read_text())["chapters"]
        self.kept: list[Path] = []
        """What was written by now."""

    def keep(self, name: str, found: Chapter, *, seconds: float, facts: Mapping[str, str]) -> None:
        """Write what a chapter has found, in the place of what it had found before; the others stay."""
        self._folder.mkdir(parents=True, exist_ok=True)
        charts = {}
        for chart in found.charts:
            charts[chart.title] = f"{self._count}-{name}-{chart.name}.svg"
            self._write(self._folder / charts[chart.title], drawn(chart))
        figures = [
            {**asdict(figure), "asked": _asked(figure.asked) or None, "met": _met(figure), "shown": str(figure)}
            for figure in found.figures
        ]
        self._chapters[name] = {
            "title": found.title,
            "facts": {**facts, **found.versions},
            "seconds": round(seconds, 1),
            "figures": figures,
            "tables": [asdict(table) for table in found.tables],
            "charts": charts,
            "page": shown(found, charts),
        }
        document = {"vectors": self._count, "chapters": self._in_order()}
        self._write(self._document, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        self._write(self._folder / f"{self._count}.md", self._page())

    def _in_order(self) -> dict[str, dict[str, Any]]:
        every = [*CHAPTERS, *ONLY_WHEN_NAMED]
        known = [name for name in every if name in self._chapters]
        return {name: self._chapters[name] for name in known}

    def _page(self) -> str:
        chapters = self._in_order()
        asked = [
            (name, figure)
            for name, kept in chapters.items()
            for figure in kept["figures"]
            if figure["asked"] is not None
        ]
        parts = [
            f"# Measured with {self._count:,} vectors",
            "Written by `make bench`; [docs/benchmarks.md](../../docs/benchmarks.md) says what is measured, and how.",
        ]
        if asked:
            summary = Table(
                ("chapter", "figure", "measured", "asked", ""),
                [
                    (
                        name,
                        figure["name"],
                        figure["shown"],
                        figure["asked"],
                        figure["met"],
                    )
                    for name, figure in asked
                ],
                "What was asked for",
            )
            parts.append(_table(summary, level=2))
        for kept in chapters.values():
            told = ", ".join(f"{name} {value}" for name, value in kept["facts"].items())
            parts += [kept["page"], f"*{told}. Took {kept['seconds'] / 60:.1f} minutes.*"]
        return "\n\n".join(parts) + "\n"

    def _write(self, path: Path, text: str) -> None:
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(text)
        os.replace(beside, path)
        if path not in self.kept:
            self.kept.append(path)


def shown(found: Chapter, charts: Mapping[str, str] | None = None) -> str:
    """A chapter as Markdown, with its charts by title where their files are given."""
    parts = [f"## {found.title}", found.shows]
    if found.figures:
        rows = [(figure.name, str(figure), _asked(figure.asked), _met(figure), figure.note) for figure in found.figures]
        parts.append(_table(Table(("figure", "measured", "asked", "", ""), rows)))
    parts += [_table(table) for table in found.tables]
    parts += [f"![{title}]({file})" for title, file in (charts or {}).items()]
    return "\n\n".join([*parts, *found.notes])


def _asked(asked: Asked | None) -> str:
    return "" if asked is None else str(asked)


def _met(figure: Figure) -> str:
    if figure.asked is None:
        return ""
    return "met" if figure.asked.met_by(figure.value) else "**missed**"


def _table(table: Table, level: int = 3) -> str:
    """A table in Markdown, aligned for those who read it as text."""
    cells = [list(table.columns), *([number(value) for value in row] for row in table.rows)]
    numeric = [
        all(isinstance(row[place], int | float) for row in table.rows) and bool(table.rows)
        for place in range(len(table.columns))
    ]
    widths = [max(3, *(len(row[place]) for row in cells)) for place in range(len(table.columns))]

    def line(row: list[str]) -> str:
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        return f"| {' | '.join(aligned)} |"

    rule = "|".join(
        ("-" * (width + 1) + ":") if right else "-" * (width + 2) for width, right in zip(widths, numeric, strict=True)
    )
    title = [f"{'#' * level} {table.title}", ""] if table.title else []
    return "\n".join([*title, line(cells[0]), f"|{rule}|", *map(line, cells[1:])])
