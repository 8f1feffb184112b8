"""Deleting: what goes, what stays, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from lookalike import Deleted, ImageNotFound, Lookalike
from lookalike.emulator import Emulator
from lookalike.uris import uri_of

from ..conftest import RunCommand


@pytest.fixture
def filled(images: Lookalike, photos: Path) -> Lookalike:
    shutil.copy(sorted(photos.iterdir())[0], photos / "copy.jpg")
    images.ingest(photos)
    return images


def test_an_image_goes_with_its_last_file(filled: Lookalike, photos: Path, emulator: Emulator) -> None:
    first = sorted(photos.glob("picture*"))[0]
    assert filled.delete(first) == Deleted(files=1, images=0)
    assert [hit.path for hit in filled.similar(photos / "copy.jpg", include_self=True, limit=1)] == [
        photos / "copy.jpg"
    ]
    assert filled.delete(uri_of(photos / "copy.jpg")) == Deleted(files=1, images=1)
    status = filled.status()
    assert (status.images, status.files, status.models[0].embedded) == (19, 19, 19)
    assert first.exists()

    # gone is gone: the next run pays for it again
    assert filled.ingest(photos).embedded == 1
    assert emulator.stats()["billed"] == 21


def test_by_image_and_by_key(filled: Lookalike, photos: Path, dsn: str) -> None:
    hit = filled.similar(photos / "copy.jpg", include_self=True)[0]
    assert filled.delete(hit.image_id) == Deleted(files=2, images=1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("update lookalike.files set key = 'sku-' || right(uri, 7)")
    assert filled.delete("sku-005.jpg", key="sku-006.jpg") == Deleted(files=2, images=2)


def test_all_or_nothing(filled: Lookalike, photos: Path) -> None:
    known = sorted(photos.iterdir())[3]
    for unknown in ("no-such-key", UUID(int=7), photos / "none.jpg", "https://pictures.example/1.jpg"):
        with pytest.raises(ImageNotFound):
            filled.delete(known, unknown)
    assert filled.status().files == 21


def test_failures_of_a_deleted_file_go_too(filled: Lookalike, photos: Path) -> None:
    path = sorted(photos.iterdir())[3]
    path.write_bytes(path.read_bytes()[:200])
    filled.ingest(photos, model="azure-vision/2022-04-11")
    assert len(filled.failures()) == 1
    shutil.copy(photos / "copy.jpg", path)
    filled.ingest(photos)
    filled.delete(path)
    assert filled.failures() == []


def test_by_command(filled: Lookalike, run: RunCommand, run_process: RunCommand, photos: Path) -> None:
    done = run_process("delete", "photos/copy.jpg", str(sorted(photos.iterdir())[5]), "--json")
    assert json.loads(done.stdout) == {"files": 2, "images": 1}
    assert filled.status().files == 19
    refused = run("delete", "nothing-like-this")
    assert refused.returncode == 2
    assert "nothing-like-this" in refused.stderr
