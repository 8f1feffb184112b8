"""`lookalike search`, `similar` and `query` as people and programs use them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from lookalike import Lookalike
from lookalike.emulator import Emulator

from ..conftest import RunCommand


@pytest.fixture
def service(emulator: Emulator, images: Lookalike, photos: Path) -> dict[str, str]:
    """Twenty pictures are stored; the variables with which a command reaches the service."""
    (photos / "picture-0-003.jpg").rename(photos / "a b\n'c'.jpg")
    images.ingest(photos)
    return {"VISION_ENDPOINT": emulator.url, "VISION_KEY": "emulator"}


def test_hits_for_programs(run: RunCommand, service: dict[str, str], photos: Path) -> None:
    document = json.loads(run("search", "a house", "-n20", "--json", **service).stdout)
    places = [hit["path"] for hit in document["hits"]]
    assert (len(places), document["exact"], document["completed"], document["after"] is None) == (
        20,
        True,
        False,
        False,
    )

    done = run("search", "a house", "-n20", "--format", "paths", **service)
    assert done.stdout == "".join(f"{place}\n" for place in places)
    assert str(photos / "a b\n'c'.jpg") in places

    rows = list(csv.DictReader(io.StringIO(run("search", "a house", "-n20", "-f", "csv", **service).stdout)))
    assert [row["image_id"] for row in rows] == [hit["image_id"] for hit in document["hits"]]
    assert [float(row["similarity"]) for row in rows] == [hit["similarity"] for hit in document["hits"]]
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 21)]


def test_hits_are_copied_and_nothing_is_overwritten(run: RunCommand, service: dict[str, str], tmp_path: Path) -> None:
    found = run("search", "a house", "-n3", "--format", "paths", "--copy-to", "found", **service)
    assert (found.returncode, "3 of 3 pictures copied to found" in found.stderr) == (0, True)
    copies = sorted((tmp_path / "found").iterdir())
    assert [copy.name[:3] for copy in copies] == ["001", "002", "003"]
    assert [copy.read_bytes() for copy in copies] == [Path(p).read_bytes() for p in found.stdout.splitlines() if p]

    copies[0].write_bytes(b"mine")
    Path(found.stdout.splitlines()[1]).unlink()
    again = run("search", "a house", "-n3", "--copy-to", "found", **service)
    assert again.returncode == 1
    assert "cannot be read" in again.stderr
    assert "2 of 3 pictures copied" in again.stderr
    assert copies[0].read_bytes() == b"mine"
    assert len(list((tmp_path / "found").iterdir())) == 4

    assert run("search", "a house", "--copy-to", "found/" + copies[0].name, **service).returncode == 2


def test_texts_are_added_for_sql(
    run: RunCommand, run_process: RunCommand, service: dict[str, str], emulator: Emulator
) -> None:
    assert json.loads(run_process("query", "add", "a house", "a  cat", "a house", "--json", **service).stdout) == {
        "model": "azure-vision/2023-04-15",
        "added": 2,
        "known": 0,
    }
    assert "0 embedded under azure-vision/2023-04-15; 2 were already" in run("query", "add", "a house", "a cat").stdout
    listed = json.loads(run_process("query", "list", "--json").stdout)["queries"]
    assert {query["text"] for query in listed} == {"a house", "a cat"}
    assert emulator.stats()["calls"]["vectorizeText"] == {"200": 2}
    refused = run("query", "add", "a dog", "word " * 71, **service)
    assert (refused.returncode, "71 words" in refused.stderr) == (2, True)
    assert "a dog\t" in run("query", "list").stdout


def test_what_cannot_be_done_is_explained(run: RunCommand, service: dict[str, str]) -> None:
    for arguments, said in (
        ([], "Say what to look for"),
        (["a house", "--where", "year => 3"], "no operator"),
        (["a house", "--where", "title=War and Peace"], "operator was expected"),
        (["a house", "--after", "x"], "go on after"),
        (["a house + "], "nothing behind +"),
        (["a house - 2: "], "nothing behind -"),
        (["a house +"], "nothing behind +"),
        (["a house + - people"], "nothing behind +"),
        (["a house", "--model", "nope/x"], "In use are: azure-vision/2023-04-15"),
        (["beach - beach"], "cancel"),
        (["beach + no-such.jpg"], "no-such.jpg"),
        (["beach + key:no-such"], "no-such"),
        (["a house", "--among", "no-such.txt"], "cannot be read"),
    ):
        done = run("search", *arguments, **service)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert said in " ".join(done.stderr.replace("│", " ").split()), done.stderr
        assert "Traceback" not in done.stderr


def test_a_model_that_reads_english_only_says_so(images: Lookalike, photos: Path) -> None:
    told: list[str] = []
    images._announce = told.append
    images.ingest(photos, model="azure-vision/2022-04-11")
    images.search("ein blaues Haus, café")
    assert not told
    for _ in range(2):  # also where it was asked before
        images.search("голубой дом")
    assert len(told) == 2
    assert "English only" in told[0]
    images.ingest(photos, model="azure-vision/2023-04-15")
    images.search("голубой дом", model="azure-vision/2023-04-15")
    assert len(told) == 2
