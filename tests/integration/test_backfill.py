"""What a model still lacks is embedded from its files; nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import psycopg
import pytest

from lookalike import Lookalike
from lookalike.emulator import Emulator, expected_vector
from lookalike.uris import uri_of

from ..conftest import RunCommand, draw_pictures

MODEL, OTHER = "azure-vision/2023-04-15", "azure-vision/2022-04-11"


@pytest.fixture
def filled(images: Lookalike, photos: Path) -> Lookalike:
    """Twenty pictures under the first model."""
    assert images.ingest(photos).embedded == 20
    return images


def vectors(dsn: str) -> dict[str, list[float]]:
    """The vectors of the second model, by URI."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select f.uri, e.embedding::real[] from lookalike.azure_vision_2022_04_11 e"
            " join lookalike.files f using (image_id)"
        ).fetchall()
    return dict(rows)


def test_every_image_gets_its_vector(filled: Lookalike, dsn: str, emulator: Emulator, photos: Path) -> None:
    report = filled.backfill(OTHER)
    assert (report.model, report.found, report.embedded, report.calls) == (OTHER, 20, 20, 20)
    found = vectors(dsn)
    for path in photos.iterdir():
        expected = expected_vector(path.read_bytes(), "2022-04-11").astype(np.float16)
        np.testing.assert_array_equal(np.array(found[uri_of(path)], np.float16), expected)
    again = filled.backfill(OTHER)
    assert (again.found, again.calls) == (0, 0)
    assert emulator.stats()["billed"] == 40


def test_a_budget_is_for_a_backfill_too(
    filled: Lookalike, run: RunCommand, run_process: RunCommand, emulator: Emulator
) -> None:
    azure = {"VISION_ENDPOINT": emulator.url, "VISION_KEY": "emulator"}
    done = run_process("models", "backfill", OTHER, "--max-calls", "5", "--json", **azure)
    assert (done.returncode, json.loads(done.stdout)["embedded"]) == (0, 5)
    assert run("models", "backfill", "--model", OTHER, **azure).returncode == 0
    assert [model.embedded for model in filled.status().models] == [20, 20]
    assert run("models", "backfill", OTHER, "--model", MODEL, **azure).returncode == 2


def test_a_copy_serves_where_a_file_has_gone(filled: Lookalike, photos: Path) -> None:
    first, second, *_ = sorted(photos.iterdir())
    shutil.copy(first, photos / "zz-copy.jpg")
    filled.ingest(photos)
    first.unlink()
    second.unlink()
    report = filled.backfill(OTHER)
    assert (report.found, report.embedded, report.failed, report.new_failures) == (20, 19, 1, 1)
    (failure,) = filled.failures()
    assert (failure.uri, failure.code, failure.retryable) == (uri_of(second), "unreadable", True)


@pytest.mark.parametrize("now", ["another picture", "no picture"])
def test_a_file_that_has_become_something_else_costs_no_call_and_no_image(
    filled: Lookalike, emulator: Emulator, photos: Path, now: str
) -> None:
    first, *_ = sorted(photos.iterdir())
    other = draw_pictures(photos.parent / "other", 1, seed=3)[0].read_bytes()
    first.write_bytes(other if now == "another picture" else b"no picture")
    report = filled.backfill(OTHER)
    assert (report.embedded, report.failed, emulator.stats()["billed"]) == (19, 1, 39)
    (failure,) = filled.failures()
    assert (failure.code, failure.retryable) == ("changed", True)
    assert "Ingest it again" in failure.message
    assert {model.model: model.embedded for model in filled.status().models} == {MODEL: 20, OTHER: 19}
    assert filled.status().files == 20


def test_each_image_is_tried_once_a_run(photos: Path, run: RunCommand) -> None:
    with Emulator() as emulator:
        azure = {"VISION_ENDPOINT": emulator.url, "VISION_KEY": "emulator"}
        run("ingest", photos, **azure)
    with Emulator(faults={"nan": 1.0}) as emulator:
        azure = {"VISION_ENDPOINT": emulator.url, "VISION_KEY": "emulator"}
        done = run("models", "backfill", OTHER, "--json", **azure)
        report = json.loads(done.stdout)
        # what may pass is for the next run
        assert (done.returncode, report["found"], report["failed"], report["calls"]) == (1, 20, 20, 20)
