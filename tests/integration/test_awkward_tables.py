"""Tables and lists as people really have them: no row stops an ingest, and every row is explained."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lookalike import ConfigurationError, Lookalike
from lookalike.emulator import Emulator
from lookalike.ingest.sources.manifests import Table

from ..conftest import RunCommand, draw_pictures
from .test_ingest import assert_adds_up, billed, rows


@pytest.fixture
def five(tmp_path: Path) -> list[str]:
    """Five pictures, as a table beside their folder names them."""
    return [f"photos/{path.name}" for path in draw_pictures(tmp_path / "photos", 5)]


def codes(images: Lookalike) -> list[str]:
    return sorted(failure.code for failure in images.failures())


def test_spreadsheets_of_another_country(images: Lookalike, five: list[str], tmp_path: Path, dsn: str) -> None:
    table = tmp_path / "mark and semicolons.csv"
    table.write_text("\ufeffpath;title\r\n" + "".join(f"{name};schön, oder\r\n" for name in five))
    assert images.ingest(table).embedded == 5
    assert rows(dsn, "select distinct metadata->>'title' from lookalike.files") == [("schön, oder",)]

    (tmp_path / "unicode text.csv").write_bytes(f"path,title\n{five[0]},x\n".encode("utf-16"))
    with pytest.raises(ConfigurationError, match="UTF-8"):
        images.ingest(tmp_path / "unicode text.csv")


def test_broken_rows_are_explained_once(images: Lookalike, five: list[str], tmp_path: Path) -> None:
    table = tmp_path / "broken.csv"
    table.write_text(
        f"path,n\n{five[0]},1\n{five[0]},2\n\n,3\nphotos,4\n{five[1]}\n{five[1]},5,6\nnowhere.jpg,1\nnowhere.jpg,2\n"
    )
    plan, report = images.plan(table), images.ingest(table)
    assert_adds_up(report)
    assert (report.found, report.embedded, report.unchanged, report.failed, report.unsupported) == (8, 2, 1, 4, 1)
    assert (plan.new, plan.duplicates, plan.unreadable, plan.unsupported) == (2, 1, 4, 1)
    assert codes(images) == ["bad-row", "bad-row", "unreadable"]
    assert {failure.attempts for failure in images.failures()} == {1}
    again = images.ingest(table)
    assert (again.unchanged, again.failed, again.unsupported, again.new_failures, again.calls) == (3, 4, 1, 0, 0)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_what_json_allows_and_nobody_expects(images: Lookalike, five: list[str], tmp_path: Path, dsn: str) -> None:
    lines: list[Any] = [
        {"path": five[0], "half": "\ud800", "\ud83d": 1, "none": float("nan"), "large": 10**400},
        {"path": "\ud800.jpg"},
        "[1]",
        "nonsense",
        {"path": 5},
        {"path": None},
        f'{{"path": "{five[1]}", "deep": {nested(400)}}}',
        f'{{"path": "{five[2]}", "deep": {nested(5000)}}}',
        f'{{"path": "{five[3]}", "digits": 1{"0" * 5000}}}',
        {"path": "a" * 70_000},
        {"path": "a\0b.jpg"},
        {"path": "file:///%00.jpg"},
        {"path": "file://[x"},
        {"path": "https://localhost/" + "ü" * 1500},
        {"path": "https://localhost/\0\ud800.jpg"},
    ]
    table = tmp_path / "odd.jsonl"
    table.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    plan, report = images.plan(table), images.ingest(table)
    assert_adds_up(report)
    assert (report.found, report.embedded, report.failed) == (len(lines), 2, len(lines) - 2)
    assert (plan.new, plan.unreadable) == (2, len(lines) - 2)
    expected = {"bad-row": 8, "bad-name": 2, "unreadable": 2, "uri-too-long": 1}
    assert codes(images) == sorted(code for code, number in expected.items() for _ in range(number))
    assert images.ingest(table).new_failures == 0
    ((metadata,),) = rows(dsn, "select metadata from lookalike.files where metadata ? 'half'")
    assert metadata == {"half": "\ufffd", "\ufffd": 1, "none": None, "large": 10**400}


def test_what_the_tables_cannot_hold_is_refused_row_by_row(images: Lookalike, five: list[str], tmp_path: Path) -> None:
    words = " ".join(f"a{number}/b{number}.c{number}-d" for number in range(200_000))
    table = tmp_path / "large.csv"
    table.write_text(f"path,k,m\n{five[0]},{'k' * 3000},\n{five[1]},1,{words}\n{five[2]},2,{words[:240_000]}\n")
    report = images.ingest(table, key_column="k")
    assert (report.embedded, report.failed) == (1, 2)
    said = " ".join(failure.message for failure in images.failures())
    assert "2,000 bytes" in said
    assert "250,000" in said
    for collection in ("x" * 201, "ü" * 101, "\udce9", "a\0b"):
        with pytest.raises(ConfigurationError, match="--collection"):
            images.ingest(tmp_path / "photos", collection=collection)


def test_a_hundred_thousand_columns(images: Lookalike, five: list[str], tmp_path: Path) -> None:
    names = ",".join(f"c{number}" for number in range(100_000))
    (tmp_path / "wide.csv").write_text(f"path,{names}\n{five[0]},1\n")
    assert images.ingest(tmp_path / "wide.csv").embedded == 1


def test_a_table_or_folder_named_by_its_uri(images: Lookalike, five: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path\n" + "\n".join(five))
    assert images.ingest((tmp_path / "t.csv").as_uri()).embedded == 5
    (tmp_path / five[0]).unlink()
    assert images.ingest((tmp_path / "photos").as_uri(), prune=True).pruned_files == 1


def test_a_list_with_a_byte_order_mark(run: RunCommand, emulator: Emulator, five: list[str], tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(five).encode())
    variables = {"VISION_ENDPOINT": emulator.url, "VISION_KEY": "emulator"}
    done = run("ingest", "-", "--json", stdin=str(tmp_path / "list"), **variables)
    assert json.loads(done.stdout)["embedded"] == 5


def test_a_failure_goes_with_its_reason(images: Lookalike, emulator: Emulator, five: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    images.ingest(folder)
    path = tmp_path / five[0]
    shutil.move(path, tmp_path / "aside.jpg")  # as when a disk is not mounted
    path.symlink_to("nowhere.jpg")
    assert images.ingest(folder).failed == 1
    path.unlink()
    shutil.move(tmp_path / "aside.jpg", path)

    assert images.ingest(folder).unchanged == 5
    assert images.failures() == []
    assert billed(emulator) == 5


def test_what_had_to_be_cut_is_pruned_once_it_is_gone(images: Lookalike, five: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    deep = folder
    for _ in range(5):
        deep = deep / ("ü" * 100)
    (path,) = draw_pictures(deep, 1, seed=1)
    assert images.ingest(folder, prune=True).new_failures == 1
    again = images.ingest(folder, prune=True)
    assert (again.failed, again.new_failures, again.pruned_files) == (1, 0, 0)
    assert images.plan(folder, prune=True).prune_files == 0
    os.unlink(path)
    assert images.ingest(folder, prune=True).pruned_files == 1
    assert images.failures() == []
    assert len(five) == images.status().files


def test_rows_are_counted_as_they_are_read(five: list[str], tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"path": five}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text('path,n\n\na.jpg,1\n"b\nc.jpg",2\n"",3\nd,4,5\n')
    (tmp_path / "t.jsonl").write_text('{"path": "a.jpg"}\n\n \nnonsense\n{"path": 5}')
    for name, expected in (("t.parquet", 5), ("t.csv", 4), ("t.jsonl", 3)):
        table = Table(tmp_path / name, name)
        assert len(list(table.skim())) == len(list(table.rows())) == expected
