"""Videos by their URLs: embedded by models that take them, found beside pictures, and told apart from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from lookalike import Lookalike
from lookalike.cli import app
from lookalike.cli.demo.contact_sheet import write_contact_sheet
from lookalike.emulator import Emulator
from lookalike.errors import ItemError
from tests.conftest import draw_pictures
from tests.integration.loopback import serving

QWEN, V1, VISION = "dashscope/qwen3-vl-embedding", "dashscope/multimodal-embedding-v1", "azure-vision/2023-04-15"
WAVES = b"\0\0\0\x18ftypmp42 waves, and a gull"
DUNES = b"\0\0\0\x18ftypisom dunes, and no gull"


@pytest.fixture
def web() -> Iterator[str]:
    """A web server with two videos, one of which does not look like one, and something that is none."""
    with serving({"/waves.mp4": WAVES, "/17": DUNES, "/text.mov": b"not at all"}) as url:
        yield url


@pytest.fixture
def beach(images: Lookalike, emulator: Emulator, web: str, tmp_path: Path) -> Path:
    """A table of five pictures and two videos, ingested under a model that takes both."""
    pictures = draw_pictures(tmp_path / "beach", 5)
    table = tmp_path / "beach.csv"
    rows = [f"{path},,{number}" for number, path in enumerate(pictures)]
    table.write_text("\n".join(["uri,media_type,n", *rows, f"{web}/waves.mp4,,5", f"{web}/17,video/webm,6", ""]))
    emulator.describe(WAVES, "waves")
    report = images.ingest(table, model=QWEN, key_column="n")
    assert (report.embedded, report.failed) == (7, 0)
    return table


def test_a_video_is_found_beside_pictures_and_shown_as_one(
    images: Lookalike, emulator: Emulator, beach: Path, web: str, tmp_path: Path
) -> None:
    assert images.plan(beach, model=QWEN, key_column="n").calls == 0
    again = images.ingest(beach, model=QWEN, key_column="n", exif=True)
    assert (again.unchanged, again.calls) == (7, 0)

    found = images.search("waves")
    assert len(found) == 7
    assert (found[0].uri, found[0].media_type, found[0].is_video) == (f"{web}/waves.mp4", "video/mp4", True)
    assert {hit.media_type for hit in found} == {"video/mp4", "video/webm", "image/jpeg"}
    videos, pictures = images.search("waves", kind="videos"), images.search("waves", kind="pictures", where="not key=4")
    assert [hit.media_type for hit in videos] == ["video/mp4", "video/webm"]
    assert sorted(hit.key or "" for hit in pictures) == ["0", "1", "2", "3"]
    with pytest.raises(ValueError, match="'pictures' or 'videos'"):
        images.search("waves", kind="films")  # type: ignore[arg-type]

    # like any other image it is a query, too, which costs nothing
    billed = emulator.stats()["billed"]
    assert len(images.similar(f"{web}/waves.mp4")) == len(images.similar("key:6")) == 6
    assert emulator.stats()["billed"] == billed
    assert images.status().videos == images.status("default").videos == 2

    copies = list(images.copy_hits(videos, tmp_path / "copies"))
    assert [path.read_bytes() for path in copies if isinstance(path, Path)] == [WAVES, DUNES]
    page = write_contact_sheet(tmp_path / "page.html", [("waves", None, found)]).read_text()
    assert page.count("<video ") == 2
    assert f'<video src="{web}/waves.mp4" controls' in page


def test_a_video_that_is_not_stored_is_a_query(images: Lookalike, emulator: Emulator, beach: Path, web: str) -> None:
    images.delete("key:5")
    emulator.describe(WAVES, "waves")
    billed = emulator.stats()["billed"]
    assert len(images.similar(f"{web}/waves.mp4?sig=secret")) == 6
    assert len(images.similar(f"{web}/waves.mp4?sig=another")) == 6
    assert emulator.stats()["billed"] == billed + 1
    draw_pictures(beach.parent / "few", 1)
    images.ingest(beach.parent / "few", model=VISION)
    with pytest.raises(ItemError, match="takes no videos") as caught:
        images.similar(f"{web}/waves.mp4", model=VISION)
    assert caught.value.code == "video-not-supported"


def test_a_model_that_takes_none_is_asked_nothing(images: Lookalike, emulator: Emulator, beach: Path) -> None:
    billed = emulator.stats()["billed"]
    plan = images.plan(beach, model=VISION)
    assert (plan.new, plan.unreadable, plan.calls) == (5, 2, 5)
    report = images.ingest(beach, model=VISION)
    assert (report.embedded, report.failed, report.calls) == (5, 2, 5)
    assert emulator.stats()["billed"] == billed + 5
    failures = images.failures()
    assert [(failure.code, failure.stage, failure.retryable) for failure in failures] == [
        ("video-not-supported", "read", False)
    ] * 2
    assert "dashscope/qwen3-vl-embedding" in failures[0].message
    again = images.ingest(beach, model=VISION)
    assert (again.unchanged, again.failed, again.new_failures) == (5, 2, 0)


@pytest.mark.usefixtures("beach")
def test_a_backfill_leaves_out_what_its_model_does_not_take(dsn: str, images: Lookalike) -> None:
    for model, embedded, unsupported in ((VISION, 5, 2), (V1, 7, 0)):
        report = images.backfill(model)
        assert (report.found, report.embedded, report.unsupported, report.calls) == (7, embedded, unsupported, embedded)
        assert (report.failed, report.new_failures) == (0, 0)
        assert images.backfill(model).found == 0
        (status,) = (status for status in images.status().models if status.model == model)
        assert (status.embedded, status.pending, status.failed, status.unsupported) == (embedded, 0, 0, unsupported)
    with psycopg.connect(dsn) as connection:
        kinds = connection.execute("select media_type, count(*) from lookalike.library group by 1 order by 1")
        assert kinds.fetchall() == [("image/jpeg", 5), ("video/mp4", 1), ("video/webm", 1)]


def test_what_cannot_be_a_video_fails_with_its_reason(images: Lookalike, tmp_path: Path, web: str) -> None:
    (tmp_path / "local.mp4").write_bytes(WAVES)
    table = tmp_path / "videos.txt.csv"
    table.write_text(f"url\n{web}/text.mov\n{web}/gone.mp4\n{tmp_path}/local.mp4\n")
    report = images.ingest(table, model=QWEN)
    assert (report.found, report.failed, report.new_failures) == (3, 3, 3)
    assert {failure.uri.rpartition("/")[2]: failure.code for failure in images.failures()} == {
        "text.mov": "unsupported-format",
        "gone.mp4": "url-not-accessible",
        "local.mp4": "video-not-by-url",
    }
    # in a folder it claims to be no picture
    (tmp_path / "folder").mkdir()
    (tmp_path / "local.mp4").rename(tmp_path / "folder" / "local.mp4")
    assert images.ingest(tmp_path / "folder", model=QWEN).unsupported == 1


def test_the_kind_of_what_was_imported_is_known_once_it_is_ingested(
    images: Lookalike, web: str, tmp_path: Path
) -> None:
    table = tmp_path / "vectors.jsonl"
    table.write_text(json.dumps({"uri": f"{web}/waves.mp4", "vector": [1.0] * 1024}))
    images.import_vectors(table, model="lab/one")
    assert len(images.search(images.embed(f"{web}/waves.mp4", model="lab/one"), kind="videos", include_self=True)) == 0
    assert images.ingest(f"{web}/waves.mp4", model=QWEN).embedded == 1
    found = images.search(images.embed(f"{web}/waves.mp4", model="lab/one"), kind="videos", include_self=True)
    assert [hit.media_type for hit in found] == ["video/mp4"]


@pytest.mark.usefixtures("beach")
def test_the_command_line_tells_videos_from_pictures(
    dsn: str, emulator: Emulator, web: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOOKALIKE_DATABASE_URL", dsn)
    monkeypatch.setenv("DASHSCOPE_API_KEY", "emulator")
    monkeypatch.setenv("DASHSCOPE_HTTP_BASE_URL", f"{emulator.url}api/v1")
    app(["search", "waves", "--kind", "videos", "--json"], standalone_mode=False)
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [(hit["uri"], hit["media_type"]) for hit in hits] == [
        (f"{web}/waves.mp4", "video/mp4"),
        (f"{web}/17", "video/webm"),
    ]
    app(["status", "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["videos"]) == (7, 2)
