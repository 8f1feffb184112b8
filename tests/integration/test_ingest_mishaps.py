"""Ingestion where things happen at an awkward time: beside each other, half done, or because we are at fault."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lookalike import (
    ConfigurationError,
    ContractBroken,
    IngestReport,
    ItemError,
    Lookalike,
    SourceNotFound,
)
from lookalike.emulator import Emulator
from lookalike.pictures.check import check_picture
from lookalike.types import Embedding, ImageInput
from lookalike.uris import uri_of

from ..conftest import draw_pictures, settings_for
from .test_ingest import assert_adds_up, billed, rows


def test_renumbering_a_folder_costs_only_what_is_new(images: Lookalike, emulator: Emulator, tmp_path: Path) -> None:
    folder = tmp_path / "numbered"
    for number, path in enumerate(draw_pictures(folder, 600)):
        path.rename(folder / f"{number:04}.jpg")
    images.ingest(folder)
    for number in reversed(range(600)):
        (folder / f"{number:04}.jpg").rename(folder / f"{number + 1:04}.jpg")
    shutil.copy(draw_pictures(tmp_path / "fresh", 1, seed=9)[0], folder / "0000.jpg")

    report = images.ingest(folder)

    assert (report.embedded, report.unchanged, report.calls) == (1, 600, 1)
    status = images.status()
    assert (status.images, status.files, status.models[0].embedded) == (601, 601, 601)
    assert billed(emulator) == 601


def test_an_image_without_files_is_no_hit_and_is_found_again_for_nothing(
    images: Lookalike, emulator: Emulator, photos: Path, dsn: str
) -> None:
    images.ingest(photos)
    path = sorted(photos.iterdir())[0]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("delete from lookalike.files where uri = %s", [uri_of(path)])
    for exact in (True, False):
        hits = images.search("anything", limit=50, exact=exact)
        assert len(hits) == 19
        assert path not in [hit.path for hit in hits]
    report = images.ingest(photos)
    assert (report.unchanged, report.calls) == (20, 0)
    assert len(images.search("anything", limit=50)) == 20
    assert billed(emulator) == 21


def test_a_picture_that_was_spoilt_is_no_hit_any_more(images: Lookalike, photos: Path) -> None:
    images.ingest(photos)
    path = sorted(photos.iterdir())[0]
    path.write_bytes(path.read_bytes()[:300])
    assert images.ingest(photos).new_failures == 1
    assert path not in [hit.path for hit in images.search("anything", limit=50)]


def test_failing_runs_side_by_side_do_not_lock_each_other_out(images: Lookalike, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number}.jpg").write_text(f"no picture {number}")
    names = sorted(str(path) for path in folder.iterdir())
    outcomes: list[object] = []

    def run(order: list[str]) -> None:
        try:
            outcomes.append(images.ingest(*order).failed)
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=(order,)) for order in (names, names[::-1], names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [300, 300, 300]


def test_what_was_paid_for_is_written_even_if_the_callers_callback_fails(
    images: Lookalike, emulator: Emulator, photos: Path
) -> None:
    def progress(report: IngestReport) -> None:
        if report.embedded:
            raise RuntimeError("a callback of the caller's")

    with pytest.raises(RuntimeError, match="caller's"):
        images.ingest(photos, progress=progress)
    assert images.status().models[0].embedded == billed(emulator) > 0


def test_too_many_threads_are_an_error_and_not_the_end(
    images: Lookalike, emulator: Emulator, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "lookalike-embed-3":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ConfigurationError, match="--concurrency"):
        images.ingest(photos, concurrency=8)
    assert billed(emulator) == 0


def test_our_own_trouble_does_not_set_the_callers_event(dsn: str, photos: Path) -> None:
    stop = threading.Event()
    with (
        Emulator(faults={"wrong-model": 1}) as emulator,
        Lookalike.open(settings_for(dsn, emulator)) as images,
        pytest.raises(ContractBroken),
    ):
        images.ingest(photos, stop=stop)
    assert not stop.is_set()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*", 6), ("20*", 4), ("**/*.jpg", 6), ("**", 6), ("2024/*.jpg", 2), ("*/a?.jpg", 0), ("**/*", 6)],
)
def test_globs(images: Lookalike, tmp_path: Path, pattern: str, expected: int) -> None:
    folder = tmp_path / "g"
    for seed, name in enumerate(("2023", "2024", "other")):
        draw_pictures(folder / name, 2, seed=seed)
        (folder / name / "up").symlink_to(folder)
    (folder / ".hidden").mkdir()
    shutil.copy(next((folder / "2023").glob("*.jpg")), folder / ".hidden" / "x.jpg")
    if expected:
        assert images.ingest(folder / pattern).found == expected
    else:
        with pytest.raises(SourceNotFound):
            images.ingest(folder / pattern)


def test_a_fault_of_ours_fails_one_picture_only(
    images: Lookalike, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lookalike.embedders.azure_vision import AzureVision

    embed = AzureVision.embed_images
    unlucky = sorted(photos.iterdir())[0].read_bytes()

    def stumble(self: AzureVision, pictures: Sequence[ImageInput]) -> list[Embedding | ItemError]:
        if pictures[0].data == unlucky:
            raise ZeroDivisionError("float division")
        return embed(self, pictures)

    monkeypatch.setattr(AzureVision, "embed_images", stumble)
    report = images.ingest(photos)
    assert (report.embedded, report.failed) == (19, 1)
    assert [(failure.code, failure.retryable) for failure in images.failures()] == [("unexpected", True)]
    monkeypatch.undo()
    assert images.ingest(photos).embedded == 1


def test_a_fault_of_ours_before_the_call_fails_one_picture_only(
    images: Lookalike, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky = sorted(photos.iterdir())[0].read_bytes()

    def stumble(data: bytes, *arguments: Any, **options: Any) -> Any:
        if data == unlucky:
            raise ZeroDivisionError("float division")
        return check_picture(data, *arguments, **options)

    monkeypatch.setattr("lookalike.ingest.prepare.check_picture", stumble)
    plan, report = images.plan(photos), images.ingest(photos)
    assert (plan.new, plan.unreadable, report.embedded, report.failed) == (19, 1, 19, 1)
    assert [(failure.code, failure.retryable) for failure in images.failures()] == [("unexpected", True)]
    monkeypatch.undo()
    assert images.ingest(photos).embedded == 1


@pytest.mark.parametrize("calls", [0, 1, 7])
def test_no_more_is_billed_than_was_allowed_whatever_goes_wrong(dsn: str, photos: Path, calls: int) -> None:
    with (
        Emulator(latency_ms=5, faults={"503": 0.3, "truncated-json": 0.2}) as emulator,
        Lookalike.open(settings_for(dsn, emulator)) as images,
    ):
        report = images.ingest(photos, max_calls=calls)
        assert report.calls == billed(emulator) == calls
        assert (report.found, report.stopped) == (20, "as many calls were billed as were allowed")
        assert_adds_up(report)


def test_deleting_beside_an_ingest_harms_neither(dsn: str, photos: Path) -> None:
    for path in sorted(photos.iterdir()):
        shutil.copy(path, photos / f"second {path.name}")
    finished = threading.Event()
    with (
        Emulator(latency_ms=20) as emulator,
        Lookalike.open(settings_for(dsn, emulator)) as images,
        ThreadPoolExecutor() as pool,
    ):

        def delete() -> int:
            deleted = 0
            while not finished.is_set():
                for (uri,) in rows(dsn, "select uri from lookalike.files order by random() limit 2"):
                    deleted += images.delete(uri).files
            return deleted

        deleting = pool.submit(delete)
        report = images.ingest(photos, concurrency=2)
        finished.set()
        assert deleting.result() > 0
        assert_adds_up(report)
        assert report.failed == 0
        again = images.ingest(photos)
        assert again.embedded + again.unchanged == again.found == 40
    assert rows(dsn, "select sum(files)::int from lookalike.coverage where state = 'embedded'") == [(40,)]
    assert rows(dsn, "select count(*) from lookalike.claims") == [(0,)]
