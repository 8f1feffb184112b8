"""Ingestion over a real database and a real HTTP service: what ends where, and what it costs."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from PIL import Image

from lookalike import (
    ConfigurationError,
    ContractBroken,
    CredentialsRefused,
    IngestReport,
    Lookalike,
    SourceNotFound,
)
from lookalike.config import Secret
from lookalike.emulator import Emulator, expected_vector
from lookalike.pictures.check import LARGEST_FILE
from lookalike.uris import uri_of

from ..conftest import draw_pictures, settings_for


def rows(dsn: str, statement: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement.encode()).fetchall()


def stored_vectors(dsn: str, view: str = "azure_vision_2023_04_15") -> dict[str, npt.NDArray[np.float16]]:
    """The stored vector of every file, by its URI."""
    found = rows(
        dsn, f"select f.uri, e.embedding::text from lookalike.{view} e join lookalike.files f using (image_id)"
    )
    return {uri: np.array(text[1:-1].split(","), np.float16) for uri, text in found}


def assert_adds_up(report: IngestReport) -> None:
    assert report.found == (report.embedded + report.unchanged + report.failed + report.unsupported + report.pending), (
        report
    )


def billed(emulator: Emulator) -> int:
    return int(emulator.stats()["billed"])


# -- the straight way ------------------------------------------------------------------------------------------------


def test_every_picture_gets_its_own_vector(images: Lookalike, emulator: Emulator, photos: Path, dsn: str) -> None:
    report = images.ingest(photos)

    assert (report.found, report.embedded, report.calls) == (20, 20, 20)
    assert report.model == "azure-vision/2023-04-15"
    assert report.seconds > 0
    assert_adds_up(report)
    assert billed(emulator) == 20
    found = stored_vectors(dsn)
    assert len(found) == 20
    for path in photos.iterdir():
        expected = expected_vector(path.read_bytes(), "2023-04-15").astype(np.float16)
        np.testing.assert_array_equal(found[uri_of(path)], expected)


def test_what_is_stored_says_what_the_picture_is(images: Lookalike, photos: Path, dsn: str) -> None:
    path = next(photos.iterdir())
    images.ingest(path)
    data = path.read_bytes()
    ((media_type, width, height, size, fingerprint),) = rows(
        dsn,
        "select media_type, width, height, byte_size, fingerprint"
        " from lookalike.images join lookalike.files using (image_id)",
    )
    assert (media_type, width, height, size) == ("image/jpeg", 96, 72, len(data))
    assert fingerprint == f"{len(data)}-{path.stat().st_mtime_ns}"


def test_a_second_run_costs_nothing(images: Lookalike, emulator: Emulator, photos: Path) -> None:
    images.ingest(photos)
    report = images.ingest(photos)
    assert (report.found, report.unchanged, report.embedded, report.calls) == (20, 20, 0, 0)
    assert billed(emulator) == 20


def test_a_run_is_recorded(images: Lookalike, photos: Path, dsn: str) -> None:
    images.ingest(photos)
    ((command, model, counts, calls, code, ended),) = rows(
        dsn, "select command, model, counts, calls, exit_code, ended_at >= started_at from lookalike.runs"
    )
    assert (command, model, calls, code, ended) == ("ingest", "azure-vision/2023-04-15", 20, 0, True)
    assert counts["embedded"] == 20


# -- what is known costs nothing -------------------------------------------------------------------------------------


def test_new_dates_and_new_places_cost_nothing(
    images: Lookalike, emulator: Emulator, photos: Path, tmp_path: Path, dsn: str
) -> None:
    images.ingest(photos)
    for path in photos.iterdir():
        os.utime(path, ns=(1, 1))
    moved = tmp_path / "elsewhere"
    shutil.copytree(photos, moved)

    again, copies = images.ingest(photos), images.ingest(moved)

    assert (again.unchanged, again.calls, copies.unchanged, copies.calls) == (20, 0, 20, 0)
    assert billed(emulator) == 20
    assert rows(dsn, "select count(*), count(distinct image_id) from lookalike.files") == [(40, 20)]
    fingerprints = rows(dsn, f"select fingerprint from lookalike.files where uri like '{uri_of(photos)}/%'")
    assert all(fingerprint.endswith("-1") for (fingerprint,) in fingerprints)


def test_copies_within_one_run_are_embedded_once(images: Lookalike, emulator: Emulator, tmp_path: Path) -> None:
    (original,) = draw_pictures(tmp_path / "one", 1)
    for number in range(60):
        shutil.copy(original, tmp_path / "one" / f"copy-{number}.jpg")

    report = images.ingest(tmp_path / "one", concurrency=8)

    assert (report.found, report.embedded, report.unchanged, report.calls) == (61, 1, 60, 1)
    assert billed(emulator) == 1
    assert len(images.similar(original, include_self=True)[0].files) == 61


def test_a_source_named_twice_is_done_once(images: Lookalike, photos: Path) -> None:
    report = images.ingest(photos, photos / "*.jpg", photos)
    assert (report.found, report.embedded, report.unchanged, report.calls) == (60, 20, 40, 20)


def test_new_bytes_at_an_old_place_become_a_new_image(
    images: Lookalike, photos: Path, tmp_path: Path, dsn: str
) -> None:
    images.ingest(photos)
    changed, other = sorted(photos.iterdir())[:2]
    (fresh,) = draw_pictures(tmp_path / "fresh", 1, seed=9)
    shutil.copy(fresh, changed)

    report = images.ingest(photos)

    assert (report.embedded, report.unchanged) == (1, 19)
    assert rows(dsn, "select count(*) from lookalike.images") == [(20,)]
    expected = expected_vector(fresh.read_bytes(), "2023-04-15").astype(np.float16)
    np.testing.assert_array_equal(stored_vectors(dsn)[uri_of(changed)], expected)
    assert uri_of(other) in stored_vectors(dsn)


# -- pictures that cannot be done ------------------------------------------------------------------------------------


def bad_pictures(folder: Path) -> dict[str, str]:
    """Writes one of each; returns their names with the code that each should get."""
    folder.mkdir(exist_ok=True)
    (whole,) = draw_pictures(folder.parent / "whole", 1, seed=5)
    Image.effect_noise((400, 300), 90).save(folder.parent / "whole" / "noise.jpg")
    (folder / "cut.jpg").write_bytes((folder.parent / "whole" / "noise.jpg").read_bytes()[:9000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("This is no picture.")
    (folder / "header-only.jpg").write_bytes(whole.read_bytes()[:30])
    Image.new("RGB", (10, 10), "red").save(folder / "tiny.png")
    Image.new("RGB", (5, 17000), "red").save(folder / "ribbon.png")
    (folder / "format.jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n")
    (folder / "drawing.jpg").write_text("<svg/>")
    with (folder / "heavy.bmp").open("wb") as heavy:
        heavy.truncate(LARGEST_FILE + 1)
    (folder / "broken-link.jpg").symlink_to(folder / "nowhere.jpg")
    return {
        "cut.jpg": "damaged-image",
        "empty.jpg": "empty-file",
        "text.jpg": "not-an-image",
        "header-only.jpg": "damaged-image",
        "tiny.png": "too-small",
        "ribbon.png": "too-large",
        "format.jxl": "unsupported-format",
        "drawing.jpg": "not-an-image",
        "heavy.bmp": "too-many-bytes",
        "broken-link.jpg": "unreadable",
    }


def test_bad_pictures_are_explained_and_cost_no_call(images: Lookalike, emulator: Emulator, photos: Path) -> None:
    expected = bad_pictures(photos)

    report = images.ingest(photos)

    assert (report.embedded, report.failed, report.new_failures) == (20, len(expected), len(expected))
    assert_adds_up(report)
    assert emulator.stats()["calls"]["vectorizeImage"] == {"200": 20}
    found = {Path(failure.uri).name: failure for failure in images.failures()}
    assert {name: failure.code for name, failure in found.items()} == expected
    assert all(failure.message and failure.attempts == 1 for failure in found.values())
    assert "5 × 17000" in found["ribbon.png"].message

    again = images.ingest(photos)
    assert (again.embedded, again.failed, again.new_failures, again.calls) == (0, len(expected), 0, 0)
    assert images.status().failures["damaged-image"] == 2


def test_a_bad_picture_that_was_mended_is_embedded(images: Lookalike, photos: Path, tmp_path: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    assert images.ingest(photos).new_failures == 1
    (fresh,) = draw_pictures(tmp_path / "fresh", 1, seed=9)
    shutil.copy(fresh, photos / "bad.jpg")

    report = images.ingest(photos)

    assert (report.embedded, report.failed) == (1, 0)
    assert images.failures() == []


def test_a_bad_picture_that_changed_and_is_still_bad_fails_anew(images: Lookalike, photos: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    images.ingest(photos)
    (photos / "bad.jpg").write_text("still no picture")
    assert images.ingest(photos).new_failures == 1
    assert [failure.attempts for failure in images.failures()] == [1]


def test_what_may_pass_is_tried_again_by_the_next_run(images: Lookalike, photos: Path, tmp_path: Path) -> None:
    (photos / "link.jpg").symlink_to(tmp_path / "later.jpg")
    assert images.ingest(photos).new_failures == 1
    again = images.ingest(photos)
    assert (again.failed, again.new_failures) == (1, 0)
    assert [(failure.attempts, failure.retryable) for failure in images.failures()] == [(2, True)]

    shutil.copy(draw_pictures(tmp_path / "fresh", 1, seed=9)[0], tmp_path / "later.jpg")
    assert images.ingest(photos).embedded == 1


def test_what_failed_for_good_is_tried_again_on_demand(images: Lookalike, photos: Path, dsn: str) -> None:
    (photos / "text.jpg").write_text("no picture")
    (photos / "empty.jpg").write_bytes(b"")
    images.ingest(photos)

    def attempts() -> dict[str, int]:
        return {failure.code: failure.attempts for failure in images.failures()}

    assert images.ingest(photos).failed == 2
    assert attempts() == {"not-an-image": 1, "empty-file": 1}
    again = images.ingest(photos, retry_failed=True)
    assert (again.failed, again.new_failures, again.calls) == (2, 0, 0)
    assert attempts() == {"not-an-image": 2, "empty-file": 2}
    images.ingest(photos, code="empty-file")
    assert attempts() == {"not-an-image": 2, "empty-file": 3}

    # as after an update that reads a format which this one could not
    with psycopg.connect(dsn, autocommit=True) as connection:
        path = sorted(photos.glob("picture*"))[0]
        connection.execute(
            "delete from lookalike.images using lookalike.files f where images.image_id = f.image_id and f.uri = %s",
            [uri_of(path)],
        )
        connection.execute(
            "update lookalike.failures set uri = %s, fingerprint = %s where code = 'not-an-image'",
            [uri_of(path), f"{path.stat().st_size}-{path.stat().st_mtime_ns}"],
        )
    assert images.ingest(photos).embedded == 0
    assert images.ingest(photos, retry_failed=True).embedded == 1


def test_other_things_in_a_folder(images: Lookalike, photos: Path, tmp_path: Path) -> None:
    (photos / "notes.txt").write_text("notes")
    (photos / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    (photos / "drawing.svg").write_text("<svg/>")
    os.mkfifo(photos / "pipe.jpg")
    (photos / ".hidden.jpg").write_text("hidden")
    (photos / ".git").mkdir()
    shutil.copy(next(photos.glob("*.jpg")), photos / ".git" / "in-hidden-folder.jpg")
    (photos / "loop").symlink_to(photos)
    shutil.copy(draw_pictures(tmp_path / "fresh", 1, seed=9)[0], photos / "picture-without-suffix")
    deep = photos / "a" / "b" / "c"
    draw_pictures(deep, 2, seed=3)

    report = images.ingest(photos)

    assert (report.embedded, report.unsupported, report.failed) == (23, 4, 0)
    assert_adds_up(report)


def test_odd_names_survive_the_journey(images: Lookalike, tmp_path: Path) -> None:
    names = [b"caf\xe9.jpg", "naïve ü.jpg".encode(), b"new\nline.jpg", b"50%20off?#.jpg", b"x" * 240 + b".jpg"]
    folder = tmp_path / "odd"
    for name, path in zip(names, draw_pictures(folder, len(names)), strict=True):
        os.rename(path, os.fsencode(folder) + b"/" + name)

    assert images.ingest(folder).embedded == len(names)
    assert images.ingest(folder).unchanged == len(names)
    for name in names:
        (hit,) = images.similar(os.fsdecode(os.fsencode(folder) + b"/" + name), limit=1, include_self=True)
        assert hit.path is not None
        assert os.fsencode(hit.path.name) == name


def test_a_path_too_long_for_the_tables_fails_alone(images: Lookalike, photos: Path) -> None:
    deep = photos
    for _ in range(5):
        deep = deep / ("ü" * 100)
    draw_pictures(deep, 1, seed=4)
    report = images.ingest(photos)
    assert (report.embedded, report.failed) == (20, 1)
    assert images.failures()[0].code == "uri-too-long"


@pytest.mark.parametrize("missing", ["no-such-folder", "*.none"])
def test_a_source_that_is_not_there_stops_before_anything(
    images: Lookalike, emulator: Emulator, photos: Path, missing: str
) -> None:
    with pytest.raises(SourceNotFound, match=r"no-such-folder|none"):
        images.ingest(photos, photos / missing)
    assert billed(emulator) == 0


def test_an_empty_folder_is_no_error(images: Lookalike, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert images.ingest(tmp_path / "empty").found == 0


# -- a service that falters ------------------------------------------------------------------------------------------


def test_passing_faults_fail_nothing(dsn: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    draw_pictures(folder, 60)
    with (
        Emulator(faults={"429": 0.1, "503": 0.1, "500": 0.05, "reset": 0.05}) as emulator,
        Lookalike.open(settings_for(dsn, emulator)) as images,
    ):
        report = images.ingest(folder)
        assert (report.embedded, report.failed, report.calls) == (60, 0, 60)
        assert report.retries > 0
        assert billed(emulator) == 60


@pytest.mark.parametrize("fault", ["wrong-model", "wrong-length"])
def test_an_answer_that_cannot_be_trusted_stops_the_run(dsn: str, photos: Path, fault: str) -> None:
    with (
        Emulator(faults={fault: 1}) as emulator,
        Lookalike.open(settings_for(dsn, emulator)) as images,
        pytest.raises(ContractBroken) as caught,
    ):
        images.ingest(photos)
    report = caught.value.report
    assert (report.embedded, report.failed) == (0, 0)
    assert report.pending == report.found > 0
    assert report.stopped
    assert rows(dsn, "select count(*) from lookalike.embeddings") == [(0,)]
    assert rows(dsn, "select exit_code from lookalike.runs") == [(2,)]


@pytest.mark.parametrize("fault", ["nan", "zero"])
def test_a_vector_that_is_none_fails_its_picture(dsn: str, photos: Path, fault: str) -> None:
    with Emulator(faults={fault: 0.3}) as emulator, Lookalike.open(settings_for(dsn, emulator)) as images:
        report = images.ingest(photos)
        assert report.failed > 0
        assert report.embedded + report.failed == 20
        assert report.calls == billed(emulator) == 20
        assert {failure.stage for failure in images.failures()} == {"embed"}


def test_a_wrong_key_stops_the_run_and_is_not_shown(dsn: str, emulator: Emulator, photos: Path) -> None:
    from dataclasses import replace

    settings = replace(settings_for(dsn, emulator), vision_key=Secret("hush-hush"))
    with Lookalike.open(settings) as images, pytest.raises(CredentialsRefused, match="VISION_KEY") as caught:
        images.ingest(photos)
    assert "hush-hush" not in str(caught.value)
    assert rows(dsn, "select count(*) from lookalike.embeddings") == [(0,)]


def test_missing_settings_are_named_before_anything(dsn: str, photos: Path) -> None:
    with Lookalike.open(settings_for(dsn)) as images, pytest.raises(ConfigurationError, match="VISION_ENDPOINT"):
        images.ingest(photos)


def test_a_rate_is_obeyed(dsn: str, photos: Path) -> None:
    # a bucket that holds one second answers 429 at once to whoever is faster
    with Emulator(rate=15) as emulator, Lookalike.open(settings_for(dsn, emulator)) as images:
        report = images.ingest(photos, rate=12)
        assert report.embedded == 20
        assert "429" not in emulator.stats()["calls"]["vectorizeImage"]


# -- stopping, going on, and company ---------------------------------------------------------------------------------


def test_a_stopped_run_reports_and_the_next_goes_on(dsn: str, photos: Path) -> None:
    with Emulator(latency_ms=50) as emulator, Lookalike.open(settings_for(dsn, emulator)) as images:
        stop = threading.Event()

        def stop_after_some(report: IngestReport) -> None:
            if report.embedded >= 3:
                stop.set()

        report = images.ingest(photos, concurrency=2, stop=stop, progress=stop_after_some)
        assert 3 <= report.embedded < 20
        assert report.stopped == "interrupted"
        assert report.calls == report.embedded == billed(emulator)
        assert_adds_up(report)

        rest = images.ingest(photos)
        assert rest.unchanged == report.embedded
        assert rest.embedded == 20 - report.embedded
        assert billed(emulator) == 20


def test_stopping_cuts_a_long_wait_short(dsn: str, photos: Path) -> None:
    # F0's bucket: one call now, the next in minutes
    with Emulator(rate=0.01) as emulator, Lookalike.open(settings_for(dsn, emulator)) as images:
        stop = threading.Event()
        threading.Timer(1.0, stop.set).start()
        report = images.ingest(photos, stop=stop)
        assert report.embedded <= 1
        assert report.failed == 0


def test_two_runs_at_once_write_every_picture_once(images: Lookalike, photos: Path, dsn: str) -> None:
    reports: list[IngestReport] = []
    threads = [threading.Thread(target=lambda: reports.append(images.ingest(photos))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.failed for report in reports] == [0, 0, 0]
    assert rows(dsn, "select count(*), count(distinct image_id) from lookalike.embeddings") == [(20, 20)]


def test_two_models_never_meet(dsn: str, emulator: Emulator, photos: Path) -> None:
    with Lookalike.open(settings_for(dsn, emulator)) as images:
        for model in ("azure-vision/2022-04-11", "azure-vision/2023-04-15"):
            assert images.ingest(photos, model=model).embedded == 20
        status = {model.model: model for model in images.status().models}
        assert {name: model.embedded for name, model in status.items()} == {
            "azure-vision/2022-04-11": 20,
            "azure-vision/2023-04-15": 20,
        }
        assert status["azure-vision/2022-04-11"].state == "active"
        assert images.status().images == 20
    for view, version in (("azure_vision_2022_04_11", "2022-04-11"), ("azure_vision_2023_04_15", "2023-04-15")):
        found = stored_vectors(dsn, view)
        for path in photos.iterdir():
            expected = expected_vector(path.read_bytes(), version).astype(np.float16)
            np.testing.assert_array_equal(found[uri_of(path)], expected)


def test_progress_never_goes_back_and_ends_at_the_report(images: Lookalike, photos: Path) -> None:
    seen: list[IngestReport] = []
    report = images.ingest(photos, progress=seen.append)
    assert seen[-1] == report
    finished = [step.found - step.pending for step in seen]
    assert finished == sorted(finished)
