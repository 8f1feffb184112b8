"""Lines of CSV as a reader of it takes them quickly."""

from __future__ import annotations

import codecs
import io
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import BinaryIO

BUFFER = 1 << 20
"""Bytes of a file that are looked at to learn how its lines end, so that it is best opened with as many."""


class WithoutLists:
    """Lines of CSV in which long lists in brackets are put aside, as vectors are.

    A reader of CSV looks at each character, which takes several times as long as reading the numbers. What is put aside
    holds nothing that means anything to the reader, wherever it stands.

    Args:
        lines: in UTF-8, with their ends.
    """

    _LONG = 200

    def __init__(self, lines: Iterable[bytes], delimiter: str) -> None:
        self._lines, self._delimiter = lines, delimiter.encode()
        self._aside: list[bytes] = []
        # nothing that a file could hold
        self._mark = secrets.token_hex(8)
        self._marks = re.compile(f"{self._mark}([0-9]+)x")

    def __iter__(self) -> Iterator[str]:
        begin = codecs.BOM_UTF8
        for line in self._lines:
            whole, begin = line.removeprefix(begin), b""
            yield _decoded(self._without(whole) if len(whole) > self._LONG else whole)

    def restored(self, cells: list[str], raw: int | None = None) -> list[str | bytes]:
        """The cells of the row that was read last, as they are in the file.

        Args:
            raw: the number of the cell that stays bytes, if it is one of the lists and nothing else.
        """
        whole: list[str | bytes] = [*cells]
        if self._aside:
            for n, cell in enumerate(cells):
                if self._mark in cell:
                    alone = self._marks.fullmatch(cell) if n == raw else None
                    whole[n] = self._aside[int(alone[1])] if alone else self._marks.sub(self._put_aside, cell)
            self._aside = []
        return whole

    def shortened(self, cells: list[str]) -> list[str | bytes]:
        """The cells of the row that was read last, with any text instead of what was put aside."""
        self._aside = []
        return [*cells]

    def _put_aside(self, mark: re.Match[str]) -> str:
        return _decoded(self._aside[int(mark[1])])

    def _without(self, line: bytes) -> bytes:
        kept, begin = b"", 0
        while (start := line.find(b"[", begin)) >= 0:
            end = self._end(line, start)
            if end - start < self._LONG:
                kept, begin = kept + line[begin : start + 1], start + 1
                continue
            kept += line[begin:start] + f"{self._mark}{len(self._aside)}x".encode()
            self._aside.append(line[start:end])
            begin = end
        return kept + line[begin:]

    def _end(self, line: bytes, start: int) -> int:
        """Where the list ends that begins at `start`, if it is a cell of its own; else `start`."""
        before = line[start - 1 : start]
        if before == b'"':
            end = line.find(b'"', start)
        elif before in (b"", self._delimiter):
            end = line.find(self._delimiter, start)
            end = len(line.rstrip(b"\r\n")) if end < 0 else end
        else:
            return start
        return end if line[end - 1 : end] == b"]" and line.find(b'"', start, end) < 0 else start


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file with their ends: a newline, a carriage return or both."""
    head = file.read(BUFFER)
    file.seek(0)
    if b"\n" not in head and b"\r" in head:
        # as on old Macintoshes; all of it would be one line
        yield from (line.encode("latin-1") for line in io.TextIOWrapper(file, "latin-1", newline=""))
        return
    for line in file:
        if line.find(b"\r", 0, -2) < 0:
            yield line
        else:
            yield from line.splitlines(keepends=True)
