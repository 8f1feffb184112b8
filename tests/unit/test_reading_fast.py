"""What is read in a faster way reads as it would in the plain one."""

from __future__ import annotations

import codecs
import csv
import io
import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lookalike.ingest.ahead import ahead
from lookalike.ingest.precomputed.tables import stored_forms, vector_of
from lookalike.ingest.sources.manifests import _lines, _WithoutLists, row_of, rows_of
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
            lines = _WithoutLists(_lines(io.BytesIO(data)), delimiter)
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
        assert seen.add_all([b"x", b"y", b"x"]) == [True, True, False]
        assert seen.add_all([b"y", b"z"]) == [False, True]
