"""What a run may cost, what it would do, what it did: plans, budgets, prices, coverage, pruning."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest
from PIL import Image

from lookalike import ConfigurationError, ImageNotFound, Lookalike, Settings
from lookalike.emulator import Emulator
from lookalike.types import Price
from lookalike.uris import uri_of

from ..conftest import RunCommand, draw_pictures, settings_for

MODEL = "azure-vision/2023-04-15"


def rows(dsn: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement.encode(), parameters).fetchall()


@pytest.fixture
def mixed(photos: Path) -> Path:
    """Twenty pictures, two copies of one, one damaged, one turned, a note and a drawing."""
    first, *_ = sorted(photos.iterdir())
    shutil.copy(first, photos / "copy-1.jpg")
    shutil.copy(first, photos / "copy-2.jpg")
    (photos / "damaged.jpg").write_bytes(first.read_bytes()[:400])
    turned = Image.Exif()
    turned[274] = 6
    Image.new("RGB", (60, 40), "red").save(photos / "turned.jpg", exif=turned)
    (photos / "notes.txt").write_text("These are notes.")
    (photos / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    return photos


# -- plans -----------------------------------------------------------------------------------------------------------


def test_a_plan_tells_what_the_run_then_does(images: Lookalike, dsn: str, emulator: Emulator, mixed: Path) -> None:
    plan = images.plan(mixed, rate=10)
    assert (plan.found, plan.new, plan.duplicates, plan.unreadable, plan.unsupported) == (26, 21, 2, 1, 2)
    assert (plan.pictures, plan.calls, plan.adapted, plan.unchanged) == (23, 21, 1, 0)
    assert (plan.seconds, plan.currency) == (2.1, "USD")
    assert plan.price == pytest.approx(0.0021)
    assert plan.rows == {"images": 21, "files": 23, "embeddings": 21}
    assert emulator.stats()["billed"] == 0
    assert rows(dsn, "select count(*) from lookalike.files") == [(0,)]
    assert rows(dsn, "select count(*) from lookalike.failures") == [(0,)]

    report = images.ingest(mixed)
    assert (report.embedded, report.calls, report.failed, report.unsupported) == (21, 21, 1, 2)
    after = images.plan(mixed)
    assert (after.unchanged, after.new, after.failed, after.unsupported, after.calls) == (23, 0, 1, 2, 0)


def test_a_plan_on_the_command_line(run: RunCommand, emulator: Emulator, mixed: Path) -> None:
    done = run("ingest", mixed, "--dry-run", VISION_ENDPOINT=emulator.url, VISION_KEY="emulator")
    assert done.returncode == 0, done.stderr
    for line in ("new            21 (1 turned", "duplicates     2", "calls          21", "0.00 USD"):
        assert line in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_run_says_when_it_will_be_done_and_what_was_achieved(
    run: RunCommand, emulator: Emulator, photos: Path
) -> None:
    draw_pictures(photos, 40, seed=2)
    done = run("ingest", photos, "--rate", "20", VISION_ENDPOINT=emulator.url, VISION_KEY="emulator")
    assert done.returncode == 0, done.stderr
    assert re.search(r"60 files at 20/s: done by \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", done.stderr)
    assert re.search(r"60 calls in \d\.\d s \(\d\d\.\d/s of 20/s allowed\), about 0.01 USD", done.stdout)


def test_the_price_is_a_setting(dsn: str, emulator: Emulator, photos: Path) -> None:
    given = {"LOOKALIKE_PRICES": "azure-vision=0.2EUR, azure-vision/2022-04-11=5 CHF/tokens"}
    prices = Settings.from_environment(given).prices
    assert prices["azure-vision"] == Price(0.2, "EUR", "calls")
    assert prices["azure-vision/2022-04-11"] == Price(5, "CHF", "tokens")
    settings = dataclasses.replace(settings_for(dsn, emulator), prices=prices)
    with Lookalike.open(settings) as images:
        assert images.plan(photos).price == pytest.approx(0.004)
        report = images.ingest(photos)
    assert report.price == pytest.approx(0.004)
    assert report.currency == "EUR"
    ((counts, calls, tokens, exit_code),) = rows(dsn, "select counts, calls, tokens, exit_code from lookalike.runs")
    assert (counts["price"], counts["embedded"], calls, tokens, exit_code) == (pytest.approx(0.004), 20, 20, 0, 0)


@pytest.mark.parametrize("text", ["azure-vision", "azure-vision=cheap", "azure-vision=1/pictures"])
def test_a_price_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"LOOKALIKE_PRICES.*for example"):
        Settings.from_environment({"LOOKALIKE_PRICES": text})


def test_the_rate_follows_the_tier() -> None:
    assert Settings.from_environment({"VISION_KEY": "k"}).vision_rate == 10
    assert Settings.from_environment({"VISION_TIER": "f0"}).vision_rate == pytest.approx(1 / 3)
    assert Settings.from_environment({"VISION_TIER": "F0", "VISION_RATE": "5"}).vision_rate == 5
    with pytest.raises(ConfigurationError, match="VISION_TIER"):
        Settings.from_environment({"VISION_TIER": "S9"})


# -- budgets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [{}, {"503": 0.2, "truncated-json": 0.1}])
@pytest.mark.parametrize("most", [0, 1, 7])
def test_a_run_spends_no_more_than_it_may(dsn: str, photos: Path, most: int, faults: dict[str, float]) -> None:
    with Emulator(faults=faults) as emulator, Lookalike.open(settings_for(dsn, emulator)) as images:
        report = images.ingest(photos, max_calls=most)
        assert emulator.stats()["billed"] == report.calls == most
        assert report.found == report.embedded + report.pending + report.unchanged
        assert report.stopped == "as many calls were billed as were allowed"
        assert images.ingest(photos).failed == 0
        assert images.status().models[0].embedded == 20


def test_a_spent_budget_is_no_failure(run: RunCommand, emulator: Emulator, photos: Path) -> None:
    azure = {"VISION_ENDPOINT": emulator.url, "VISION_KEY": "emulator"}
    done = run("ingest", photos, "--max-calls", "5", **azure)
    assert (done.returncode, "15 pending" in done.stdout) == (0, True)
    assert "Run the same command again" in done.stderr
    assert run("ingest", photos, "--max-calls", "100", **azure).returncode == 0


@pytest.mark.parametrize(("most", "code"), [("0", 1), ("1", 1), ("2", 0), ("5%", 1), ("10%", 0)])
def test_so_many_failures_are_no_failure(
    run: RunCommand, emulator: Emulator, photos: Path, most: str, code: int
) -> None:
    for picture in sorted(photos.iterdir())[:2]:
        picture.write_bytes(b"")
    done = run("ingest", photos, "--max-failures", most, VISION_ENDPOINT=emulator.url, VISION_KEY="emulator")
    assert done.returncode == code
    assert "18 embedded, 2 failed (2 new)" in done.stdout


@pytest.mark.parametrize("numbers", [{"max_calls": -1}, {"max_prune": 50}, {"concurrency": 0}])
def test_numbers_that_make_no_sense_are_refused(images: Lookalike, photos: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(numbers))} is"):
        images.ingest(photos, prune=True, **numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "x" * 201, "no\0nul"])
def test_a_collection_without_a_name_is_refused(images: Lookalike, emulator: Emulator, photos: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="--collection"):
        images.ingest(photos, collection=name)
    assert emulator.stats()["billed"] == 0


@pytest.mark.parametrize("most", ["some", "-1", "1.5", "101%"])
def test_a_number_of_failures_that_is_none_is_refused(images: Lookalike, photos: Path, most: str) -> None:
    with pytest.raises(ConfigurationError, match="--max-failures"):
        images.ingest(photos, max_failures=most)


# -- coverage --------------------------------------------------------------------------------------------------------


def coverage(dsn: str, model: str = MODEL) -> dict[tuple[str, str, str | None], tuple[int, int]]:
    found = rows(dsn, "select collection, state, code, images, files from lookalike.coverage where model = %s", model)
    return {(collection, state, code): (images, files) for collection, state, code, images, files in found}


def test_every_file_is_accounted_for(images: Lookalike, dsn: str, mixed: Path) -> None:
    images.ingest(mixed)
    images.ingest(mixed / "notes.txt", sorted(mixed.iterdir())[0], collection="shop")
    assert coverage(dsn) == {
        ("default", "embedded", None): (21, 23),
        ("default", "failed", "damaged-image"): (0, 1),
        ("default", "unsupported", "unsupported"): (0, 2),
        ("shop", "embedded", None): (1, 1),
        ("shop", "unsupported", "unsupported"): (0, 1),
    }
    assert rows(dsn, "select count(*) from lookalike.images") == [(21,)]
    shop = images.status("shop")
    assert (shop.images, shop.files, shop.models[0].embedded, shop.models[0].unsupported) == (1, 1, 1, 1)
    assert images.status("default").failures == {"damaged-image": 1}
    with pytest.raises(ImageNotFound, match="no collection 'shopp'"):
        images.status("shopp")
    images.ingest(mixed / "copy-1.jpg", model="azure-vision/2022-04-11")
    assert coverage(dsn, "azure-vision/2022-04-11") == {
        ("default", "embedded", None): (1, 3),
        ("default", "pending", None): (20, 20),
        ("shop", "embedded", None): (1, 1),
    }


def test_a_file_that_cannot_be_read_any_more_has_failed_and_its_image_is_embedded(
    images: Lookalike, dsn: str, photos: Path
) -> None:
    table = photos.parent / "list.csv"
    paths = sorted(photos.iterdir())[:3]
    table.write_text("path\n" + "".join(f"{path}\n" for path in paths))
    images.ingest(table)
    paths[0].unlink()
    report = images.ingest(table)
    assert (report.unchanged, report.failed) == (2, 1)
    assert coverage(dsn) == {
        ("default", "embedded", None): (3, 2),
        ("default", "failed", "unreadable"): (0, 1),
    }


def test_an_image_goes_with_the_last_of_its_bytes(images: Lookalike, dsn: str, photos: Path) -> None:
    first, second, third = sorted(photos.iterdir())[:3]
    images.ingest(photos)
    first.write_bytes(b"no picture any more")
    images.ingest(photos)
    assert images.status().images == 19
    # also where the run that came upon the change did not come to its end
    second.write_bytes(draw_pictures(photos.parent / "new", 1, seed=11)[0].read_bytes())
    third.write_bytes(draw_pictures(photos.parent / "new", 1, seed=12)[0].read_bytes())
    assert images.ingest(photos, max_calls=1).pending == 1
    images.ingest(photos)
    assert images.status().images == 19
    assert rows(dsn, "select count(*) from lookalike.images") == [(19,)]
    assert rows(dsn, "select sum(images)::int, sum(files)::int from lookalike.coverage") == [(19, 20)]


def test_what_is_no_picture_is_explained_but_has_not_failed(images: Lookalike, run: RunCommand, mixed: Path) -> None:
    images.ingest(mixed)
    assert [failure.code for failure in images.failures()] == ["damaged-image"]
    reasons = {Path(failure.uri).name: failure.message for failure in images.failures("unsupported")}
    assert reasons.keys() == {"notes.txt", "drawing.svg"}
    assert images.status().models[0].unsupported == 2
    shown = run("failures").stdout
    assert "notes.txt" not in shown
    assert "2 more are no pictures" in shown
    assert "notes.txt" in run("failures", "--code", "unsupported").stdout


def test_what_was_sent_otherwise_is_noted(images: Lookalike, dsn: str, mixed: Path) -> None:
    assert images.ingest(mixed).adapted == 1
    assert rows(
        dsn,
        "select f.uri, a.changes, i.width, i.height from lookalike.adaptations a"
        " join lookalike.files f using (image_id) join lookalike.images i using (image_id)",
    ) == [(uri_of(mixed / "turned.jpg"), ["rotated"], 40, 60)]


def test_what_is_too_large_is_refused_if_it_may_not_shrink(images: Lookalike, photos: Path) -> None:
    Image.new("L", (16_500, 40)).save(photos / "wide.png")
    assert images.ingest(photos, shrink=False).failed == 1
    (failure,) = images.failures()
    assert failure.code == "too-large"
    assert "--no-shrink" in failure.message
    assert images.ingest(photos, retry_failed=True).adapted == 1


def test_exif_is_stored_when_asked_for(images: Lookalike, dsn: str, photos: Path) -> None:
    images.ingest(photos)
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "EOS 5D"
    Image.new("RGB", (60, 40), "blue").save(photos / "canon.jpg", exif=exif)
    report = images.ingest(photos, exif=True)
    assert (report.embedded, report.calls, report.unchanged) == (1, 1, 20)
    found = dict(rows(dsn, "select uri, metadata from lookalike.files"))
    assert found[uri_of(photos / "canon.jpg")] == {"exif": {"camera": "Canon EOS 5D"}}
    assert all(metadata["exif"] == {} for uri, metadata in found.items() if "canon" not in uri)
    # once is enough, and what a table says later leaves it as it is
    table = photos.parent / "list.csv"
    table.write_text(f"path,artist\n{photos / 'canon.jpg'},Monet\n")
    images.ingest(table, exif=True)
    found = dict(rows(dsn, "select uri, metadata from lookalike.files"))
    assert found[uri_of(photos / "canon.jpg")] == {"artist": "Monet", "exif": {"camera": "Canon EOS 5D"}}


# -- pruning ---------------------------------------------------------------------------------------------------------


def test_files_that_are_gone_are_forgotten_if_asked(images: Lookalike, photos: Path) -> None:
    other = photos.parent / "other"
    draw_pictures(other, 2, seed=5)
    (photos / "damaged.jpg").write_bytes(b"")
    images.ingest(photos, other)
    gone = sorted(photos.glob("picture-*"))[:3]
    for path in [*gone, photos / "damaged.jpg", *other.iterdir()]:
        path.unlink()

    assert images.ingest(photos).pruned_files == 0
    plan = images.plan(photos, prune=True)
    assert (plan.prune_files, set(plan.prune_examples)) == (4, {uri_of(photos / "damaged.jpg"), *map(uri_of, gone)})
    report = images.ingest(photos, prune=True)
    assert (report.pruned_files, report.pruned_images) == (4, 3)
    assert images.status().images == 19  # what lay in the other folder is none of its business
    assert images.failures() == []
    assert images.ingest(photos, prune=True).pruned_files == 0


def test_too_much_is_not_pruned(images: Lookalike, run: RunCommand, photos: Path) -> None:
    images.ingest(photos)
    for path in photos.iterdir():
        path.unlink()
    with pytest.raises(ConfigurationError, match=r"20 of 20 files.*--max-prune"):
        images.ingest(photos, prune=True)
    assert images.status().images == 20
    assert images.plan(photos, prune=True).prune_refused
    done = run("ingest", photos, "--prune", "--max-prune", "100%", VISION_ENDPOINT="http://localhost:1", VISION_KEY="k")
    assert (done.returncode, images.status().images) == (0, 0)


def test_a_glob_prunes_only_what_it_would_find(images: Lookalike, photos: Path) -> None:
    Image.new("RGB", (30, 30), "green").save(photos / "green.png")
    images.ingest(photos)
    (photos / "green.png").unlink()
    sorted(photos.iterdir())[0].unlink()
    assert images.ingest(photos / "*.jpg", prune=True).pruned_files == 1
    assert images.ingest(photos, prune=True).pruned_files == 1


def test_a_table_prunes_its_own_collection(images: Lookalike, photos: Path) -> None:
    paths = sorted(photos.iterdir())
    table = photos.parent / "list.csv"
    table.write_text("path\n" + "".join(f"{path}\n" for path in paths))
    images.ingest(table, collection="shop")
    images.ingest(photos)
    paths[19].unlink()  # which is for nobody else to suffer from
    table.write_text("path\n" + "".join(f"{path}\n" for path in paths[5:]))
    with pytest.raises(ConfigurationError, match="collection of its own"):
        images.ingest(table, prune=True)
    report = images.ingest(table, prune=True, collection="shop")
    assert (report.pruned_files, report.pruned_images) == (5, 0)  # they lie in the folder's collection as well
    assert images.status().files == 35


def test_an_interrupted_run_prunes_nothing(images: Lookalike, photos: Path) -> None:
    images.ingest(photos)
    sorted(photos.iterdir())[0].unlink()
    draw_pictures(photos, 3, seed=7)
    assert images.ingest(photos, prune=True, max_calls=1).pruned_files == 0


def test_what_cannot_be_listed_again_is_not_pruned(dsn: str, emulator: Emulator) -> None:
    with Lookalike.open(settings_for(dsn, emulator)) as images:
        for source in ("-", "https://pictures.example/a.jpg"):
            with pytest.raises(ConfigurationError, match="--prune needs"):
                images.ingest(source, prune=True)
