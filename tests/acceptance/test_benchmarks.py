"""``make bench`` in small: what it measures is not judged here, only that it measures, and keeps what it has found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from benchmarks.photos import Photos, recall
from benchmarks.report import Bars, Chapter, Figure, Lines, at_least, at_most
from benchmarks.results import Results
from benchmarks.turns import Turns

from tests.conftest import REPOSITORY, command_environment


def bench(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        env=command_environment(**variables),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_chapter_is_measured_and_kept_and_leaves_nothing_behind(tmp_path: Path) -> None:
    results = tmp_path / "results"
    # a socket's path must be short
    with tempfile.TemporaryDirectory(prefix="lookalike-") as temporary:
        done = bench("search", "--results", results, BENCH_N="1200", TMPDIR=temporary)
        assert done.returncode == 0, done.stderr
        assert os.listdir(temporary) == []
    chapter = json.loads((results / "1200.json").read_text())["chapters"]["search"]
    figures = {figure["name"]: figure for figure in chapter["figures"]}
    assert figures["recall@10"]["value"] > 0.9
    assert figures["p50 of a search by vector"]["value"] > 0
    assert figures["p50 of a search by vector"]["asked"] == "≤ 1.25"
    assert figures["queries a second, 8 threads"]["value"] > 0
    assert figures["queries a second, search_many of 100"]["value"] > 0
    page = (results / "1200.md").read_text()
    assert all(name in page and name in done.stdout for name in figures)
    assert "PostgreSQL 18" in page


@pytest.mark.parametrize(
    ("arguments", "size", "message"),
    [(["serch"], "1000", "there is no chapter 'serch'"), ([], "many", "BENCH_N is 'many'"), ([], "7", "100 at least")],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], size: str, message: str) -> None:
    done = bench(*arguments, BENCH_N=size)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_results_of_other_chapters_and_sizes_stay(tmp_path: Path) -> None:
    charts: list[Bars | Lines] = [
        Bars("bars", "Some bars & more", "ms", {"a": 1.0, "b": 20.0}, ["a"], logarithmic=True),
        Lines("lines", "Some lines", "rows", "ms", {"one": [(10, 1.0), (1000, 2.0)], "other": [(10, 1.1)]}),
    ]
    met = Figure("a figure", 1.25, asked=at_most(1.25))
    assert [str(figure) for figure in (met, Figure("", 1.254, asked=at_most(1.25)))] == ["1.25 ×", "1.254 ×"]
    missed = Figure("another", 0.5, asked=at_least(0.9), note="over by hand")
    Results(tmp_path, 500).keep("search", Chapter("First", "", [met]), seconds=1, facts={"cores": "2"})
    Results(tmp_path, 500).keep("peers", Chapter("Second", "", [missed], charts=charts), seconds=1, facts={})
    Results(tmp_path, 900).keep("peers", Chapter("Third", "", [met]), seconds=1, facts={})
    page = (tmp_path / "500.md").read_text()
    assert page.index("## First") < page.index("## Second")
    assert "Third" not in page
    assert [line.split("|")[-2].strip() for line in page.splitlines() if "| peers" in line or "| search" in line] == [
        "met",
        "**missed**",
    ]
    for name in ("500-peers-bars.svg", "500-peers-lines.svg"):
        assert f"]({name})" in page
        assert (tmp_path / name).read_text().startswith("<svg")
    assert sorted(os.listdir(tmp_path)) == [
        "500-peers-bars.svg",
        "500-peers-lines.svg",
        "500.json",
        "500.md",
        "900.json",
        "900.md",
    ]


def test_the_photos_are_always_the_same_and_their_neighbours_exact(tmp_path: Path) -> None:
    photos = Photos(300, tmp_path, queries=5)
    np.testing.assert_array_equal(
        np.concatenate([vectors for _, vectors, _ in Photos(300, tmp_path).chunks()]), photos.vectors
    )
    vectors, queries = photos.vectors.astype(np.float64), photos.asked.astype(np.float64)
    cosines = queries @ vectors.T / np.linalg.norm(vectors, axis=1)
    right = np.argsort(-cosines, axis=1)[:, :10]
    np.testing.assert_array_equal(photos.nearest, right)
    few = np.arange(300) % 60 == 7
    found = photos.nearest_of(photos.asked, 10, few)
    assert [sorted(row[row >= 0]) for row in found] == [[7, 67, 127, 187, 247]] * 5
    assert recall(right.tolist(), photos.nearest) == 1
    assert recall([row[:5] for row in right.tolist()], photos.nearest) == 0.5
    assert recall([[7, 67, 127, 187]] * 5, found) == 0.8


def test_ratios_are_of_pairs() -> None:
    turns = Turns({"ours": [2.0, 30.0, 6.0], "theirs": [1.0, 20.0, 1.0]})
    assert turns.ratio("ours", "theirs") == 2.0
    assert (turns.median("ours"), turns.p95("ours")) == (6.0, 30.0)
