"""What is read in a faster way reads as it would in the plain one."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from lookalike.errors import ConfigurationError
from lookalike.ingest.ahead import ahead
from lookalike.ingest.precomputed import number_reader
from lookalike.ingest.precomputed.readers_beside import Halves, ReadersBeside
from lookalike.ingest.precomputed.tables import open_table, stored_forms, vector_of
from lookalike.ingest.sources.csv_lines import WithoutLists, lines_of
from lookalike.ingest.sources.manifests import row_of, rows_of
from lookalike.ingest.spill import Firsts, Seen

LONG = "[" + ", ".join(f"{n}.5" for n in range(80)) + "]"
CELLS = [
    *("", "plain", "a,b;c\td|e", 'said "[so]"', "two\nlines", "\0" + "0\0", "[1, 2]", "[", "]", "[]"),
    *(
        LONG,
        LONG + "x",
        "x" + LONG,
        LONG.replace("5", '"'),
        LONG + "\n" + LONG,
        LONG[:-1],
        f"{LONG},{LONG}",
        f'"{LONG}"',
    ),
    *(LONG.replace(",", ""), LONG.replace(",", ";"), "\0" + LONG, LONG.replace(",", "\r")),
    *("caf\u00e9.jpg", "caf\udce9.jpg", "\ufeff"),
]


@pytest.mark.parametrize("delimiter", ",;\t|")
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_lists_that_were_put_aside_come_back(delimiter: str, end: str) -> None:
    random = np.random.default_rng(ord(delimiter))
    for cells in (CELLS, [cell for cell in CELLS if "\n" not in cell]):
        rows = [[cells[n] for n in random.integers(0, len(cells), random.integers(1, 6))] for _ in range(200)]
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
            file = io.StringIO(newline="")
            csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)
            plain = list(csv.reader(io.StringIO(file.getvalue(), newline=""), delimiter=delimiter))
            data = codecs.BOM_UTF8 + file.getvalue().encode("utf-8", "surrogateescape")
            lines = WithoutLists(lines_of(io.BytesIO(data)), delimiter)
            assert list(map(lines.restored, csv.reader(lines, delimiter=delimiter))) == plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, -2.5e1, 3]", [1, -25, 3]),
        ("[1 2\t3]", [1, 2, 3]),
        ("{1,2}", [1, 2]),
        ("1;2", [1, 2]),
        ("[nan, 1]", [np.nan, 1]),
        ("[1e999, 1]", [np.inf, 1]),
        ("[123456789012345678901234567890, 1]", [123456789012345678901234567890, 1]),
        ("[true, 1]", "not-numbers"),
        ('["1", 2]', "not-numbers"),
        ("[null, 1]", "not-numbers"),
        ("[[1], [2]]", "not-numbers"),
        ("[1, 2", "not-numbers"),
        ("[1_0, 2]", "not-numbers"),
        ("[{}, 1]", "not-numbers"),
        ("[]", "not-numbers"),
    ],
)
def test_texts_are_vectors_or_are_not(text: str, expected: list[float] | str) -> None:
    vector, error = vector_of(text)
    if isinstance(expected, str):
        assert vector is None
        assert error is not None
        assert error[0] in (expected, "no-vector")
    else:
        np.testing.assert_array_equal(np.asarray(vector, np.float64), np.array(expected, np.float64))


def readers_started() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if number_reader.__file__ in child.cmdline()]


def read_beside(texts: list[bytes | None], *, kill_after: int | None = None) -> list[Halves | None]:
    """What processes have read of the texts, from when they could; asked for one after the other, as they come."""
    with ReadersBeside() as readers:
        deadline = time.monotonic() + 20
        while next(readers.vectors([b"[1]"], lambda text: text))[1] is None:
            assert time.monotonic() < deadline
        found = []
        for number, (index, numbers) in enumerate(readers.vectors(range(len(texts)), texts.__getitem__)):
            assert index == number
            found.append(numbers)
            if number == kill_after:
                for child in readers_started():
                    child.kill()
    return found


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes beside, where they would not pay, too."""
    monkeypatch.setattr("lookalike.ingest.precomputed.readers_beside._can_start", lambda: True)


@pytest.mark.usefixtures("two_cores")
def test_processes_beside_read_the_same_numbers_and_vanish() -> None:
    numbers = np.random.default_rng(3).standard_normal((3_000, 300)) * np.float64(10.0) ** np.arange(-9, 3).repeat(25)
    texts: list[bytes | None] = [json.dumps(row.tolist()).encode() for row in numbers]
    odd = [
        None,
        b"",
        b"[]",
        b"[1, 2",
        b'["1"]',
        b"[null]",
        b"[true]",
        b"[[1]]",
        b"[1 2]",
        b"[nan]",
        b"\xff",
        b"[65520, 1]",
    ]
    texts[100:100] = odd
    found = read_beside(texts)
    assert found[100 : 100 + len(odd)] == [None] * len(odd)
    read = [halves for halves in found if halves is not None]
    np.testing.assert_array_equal(np.array(read), numbers.astype(np.float16))
    assert read_beside([b"[1, -2.5e1]", b"[" + b"1," * (1 << 20) + b"1]", b"[3]"])[1] is None  # more than has room
    assert not readers_started()


@pytest.mark.usefixtures("two_cores")
def test_what_killed_processes_have_not_read_is_left_to_the_caller() -> None:
    texts: list[bytes | None] = [json.dumps([n, 0.5] + [0] * 3_000).encode() for n in range(3_000)]
    found = read_beside(texts, kill_after=500)
    assert found[-1] is None
    for n, halves in enumerate(found):
        assert halves is None or (halves[0], halves[1], len(halves)) == (np.float16(n), 0.5, 3_002)
    assert sum(halves is not None for halves in found) > 400


@pytest.mark.usefixtures("two_cores")
def test_a_large_table_is_what_a_small_one_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[Any] = np.random.default_rng(4).standard_normal((4_000, 300)).tolist()
    for n in range(3, 4_000, 9):  # all along, as the first rows are read before anybody else can
        numbers[n] = [[0.0] * 300, [70_000.0] * 300, [math.nan] * 300, ["x"] * 300, [1.0] * 299, "", None][n % 7]
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["vector", "uri", "said"], *([row, "a.jpg", LONG] for row in numbers)])
    opened = open_table(tmp_path / "x.csv")
    small = list(opened.rows())
    monkeypatch.setattr("lookalike.ingest.precomputed.tables._MUCH_TEXT", 0)
    large = list(opened.rows())
    assert any(row.vector is not None and row.vector.dtype == np.float16 for row in large)
    assert [row.row.metadata for row in large] == [{"said": LONG}] * 4_000
    assert [row.error for row in large] == [row.error for row in small]
    forms = [stored_forms([row.vector for row in rows], 300) for rows in (small, large)]
    for one, other in zip(*forms, strict=True):
        assert type(one) is type(other)
        assert np.array_equal(one, other)
    assert {form[0] for form in forms[1] if isinstance(form, tuple)} == {
        *("zero-vector", "out-of-range", "not-finite", "wrong-length", "no-vector")
    }
    next(some := opened.rows())
    some.close()
    assert not readers_started()


def test_vectors_of_several_types_are_judged_each_by_itself() -> None:
    given = [np.ones(4, np.float16), None, np.ones(3), np.array([1, 2, 3, 4]), np.array([np.inf, 0, 0, 0])]
    given += [np.array([65520.0, 0, 0, 0]), np.full(4, 1e-9, np.float32), np.array([65519.0, 0.1, 0, 0], ">f8")]
    found = stored_forms(given, 4)
    codes = [form[0] if isinstance(form, tuple) else "" for form in found]
    assert codes == ["", "no-vector", "wrong-length", "", "not-finite", "out-of-range", "zero-vector", ""]
    for form, vector in zip(found, given, strict=True):
        if not isinstance(form, tuple) and vector is not None:
            assert form.dtype == np.float16
            np.testing.assert_array_equal(form, vector.astype(np.float16))
    assert stored_forms([], 4) == []


@pytest.mark.parametrize(
    "odd",
    [
        *(
            "plain",
            "",
            "\0",
            "caf\u00e9",
            "\ud83d",
            "https://x.example/?sig=secret",
            "bearer 1234",
            "y" * 501,
            "z" * 30_000,
        ),
        *(17, 10**400, 2.5, math.nan, -math.inf, True, None, [1, math.nan], {"token": "a\0b"}),
    ],
)
def test_rows_of_columns_are_what_each_row_would_be(odd: object) -> None:
    ordinary: dict[str, list[Any]] = {
        "uri": ["a.jpg", "b.jpg"],
        "key": ["1", "2"],
        "price": [1, 2],
        "artist": ["M", "K"],
    }
    for column in ordinary:
        for place in (0, 1):
            columns = {name: list(values) for name, values in ordinary.items()}
            columns[column][place] = odd
            for key, unfolded in (("key", None), (None, None), ("key", "artist")):
                one_by_one = [
                    row_of("t", 7 + n, dict(zip(columns, cells, strict=True)), "uri", key, (), unfolded)
                    for n, cells in enumerate(zip(*columns.values(), strict=True))
                ]
                assert list(rows_of("t", 7, columns, "uri", key, unfolded)) == one_by_one


def test_reading_ahead_keeps_order_and_passes_errors_on() -> None:
    def failing() -> Iterator[int]:
        yield from range(5)
        raise ValueError("no more")

    assert list(ahead(iter(range(100)))) == list(range(100))
    found: list[int] = []
    with pytest.raises(ValueError, match="no more"):
        found.extend(ahead(failing()))
    assert found == list(range(5))


def test_nothing_is_read_ahead_for_somebody_who_has_gone() -> None:
    made = []

    def endless() -> Iterator[int]:
        number = 0
        while True:
            made.append(number)
            yield number
            number += 1

    things = ahead(endless())
    assert [next(things), next(things)] == [0, 1]
    things.close()
    assert not any(thread.name == "lookalike-ahead" for thread in threading.enumerate())
    assert len(made) < 6


def test_the_first_thing_of_a_name_counts() -> None:
    with Firsts() as firsts, Seen() as seen:
        assert firsts.note_all([("a", b"1"), ("b", b"1"), ("a", b"1"), ("a", b"2")]) == ["new", "new", "same", "other"]
        assert firsts.note_all([("a", b"2"), ("b", b"1"), ("c", b"3")]) == ["other", "same", "new"]
        assert "c" in firsts
        assert "d" not in firsts
        assert [seen.add(thing) for thing in (b"x", b"y", b"x")] == [True, True, False]


def test_a_full_folder_for_temporary_files_is_told_with_a_way_out() -> None:
    with Firsts() as firsts, Seen() as seen:
        for spilling in (firsts, seen):
            spilling._database.execute("pragma max_page_count = 20")
        many = [str(number) for number in range(10_000)]
        with pytest.raises(ConfigurationError, match="TMPDIR"):
            firsts.note_all((name, b"1") for name in many)
        with pytest.raises(ConfigurationError, match="TMPDIR"):
            all(map(seen.add, many))
