"""Vectors on their way out: what a file holds, that an import takes it back as it is, and that no half file is left."""

from __future__ import annotations

import errno
import json
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from lookalike import ConfigurationError, ExportReport, ImageNotFound, InvalidFilter, Lookalike, field
from lookalike.store.database import Database
from lookalike.store.rights import grant

from ..conftest import Crowd, MakeDatabase, MakeRole, RunCommand, dsn_as, settings_for
from .test_import import MODEL, npz, stored, table, vectors
from .test_ingest import rows

SUFFIXES = ("npz", "parquet")
DIGEST = sha256(b"one picture").hexdigest()
TOLD: list[dict[str, Any]] = [
    {"key": "sku-1", "artist": "Cézanne 🌅", "nested": {"a": [1, None, {"b": True}], "ü": 0.1}, "big": 2**60},
    {
        "key": "sku-2",
        "uri": "not the place",
        "metadata": {"x": 1},
        "collection": "spring",
        "model": "T",
        "text": '"\\\n',
    },
    {},
    {"sha256": "none of ours", "vectors": [1, 2], "key": "none of ours"},
]


@pytest.fixture
def library(dsn: str) -> Iterator[Lookalike]:
    """Vectors of 256 numbers: an image with two files, others without digest, keys and collections of all kinds."""
    with Lookalike.open(settings_for(dsn)) as images:
        yield images


def populate(images: Lookalike, folder: Path) -> None:
    wanted = vectors(4, 256).astype(float)
    uris = ("https://pictures.example/ü/1.jpg?id=7", "b/2 ö.jpg", "file:///c/3%20.jpg", "s3://bucket/4.jpg")
    for collection, numbers in (("default", (0, 1, 2)), ("Ünique", (3, 0))):
        lines = [
            {
                "place": uris[n],
                "number": TOLD[n].get("key") if n < 2 else None,
                "embedding": wanted[0 if n == 3 else n].tolist(),
                # the same bytes at two places
                "sha256": DIGEST if n in (0, 3) else None,
                "metadata": {name: value for name, value in TOLD[n].items() if n > 1 or name != "key"},
            }
            for n in numbers
        ]
        path = folder / "source.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in lines))
        columns = {"uri_column": "place", "key_column": "number"}
        report = images.import_vectors(path, model=MODEL, collection=collection, **columns)  # type: ignore[arg-type]
        assert report.failed == 0


def content(path: Path) -> list[dict[str, Any]]:
    """The rows of an exported file; vectors as bytes."""
    if path.suffix == ".npz":
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive}
        assert arrays["model"].shape == ()
        names = ("uri", "key", "collection", "sha256")
        found = [
            {
                **{name: arrays[name][n].item() or None for name in names},
                "model": arrays["model"].item(),
                "metadata": json.loads(arrays["metadata"][n]),
                "vectors": arrays["vectors"][n],
            }
            for n in range(len(arrays["uri"]))
        ]
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        found = [
            {**row, "metadata": json.loads(row["metadata"]), "vectors": np.array(row["vectors"], np.float16)}
            for row in parquet.read_table(path).to_pylist()
        ]
    for row in found:
        assert row["vectors"].dtype == np.float16
        row["width"], row["vectors"] = len(row["vectors"]), row["vectors"].tobytes()
    return found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_comes_back_as_it_was(
    library: Lookalike, make_database: MakeDatabase, template: str, tmp_path: Path, suffix: str
) -> None:
    populate(library, tmp_path)
    first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
    report = library.export(first)
    assert (report.model, report.found, report.rows, report.images, report.dimensions) == (MODEL, 5, 5, 3, 256)
    assert (report.path, report.bytes, report.stopped) == (str(first), first.stat().st_size, None)
    found = content(first)
    assert [(row["collection"], row["uri"]) for row in found] == rows_in_order(library)
    wanted = vectors(4, 256)
    by_uri = {row["uri"]: row for row in found}
    remote = by_uri["https://pictures.example/ü/1.jpg?id=7"]
    assert (remote["key"], remote["sha256"], remote["model"], remote["width"]) == ("sku-1", DIGEST, MODEL, 256)
    assert remote["metadata"] == {name: value for name, value in TOLD[0].items() if name != "key"}
    assert remote["vectors"] == by_uri["s3://bucket/4.jpg"]["vectors"] == wanted[0].tobytes()
    assert by_uri["s3://bucket/4.jpg"]["metadata"] == TOLD[3]
    assert by_uri["file:///c/3%20.jpg"]["sha256"] is None
    assert by_uri["file:///c/3%20.jpg"]["vectors"] == wanted[2].tobytes()
    with Lookalike.open(settings_for(make_database(template))) as another:
        for collection in ("Ünique", "default"):
            part = tmp_path / f"part.{suffix}"
            library.export(part, collection=collection, force=True)
            imported = another.import_vectors(part, collection=collection)
            assert (imported.failed, imported.model) == (0, MODEL)
        another.export(second)
        assert content(second) == found
        # into a collection of the caller's choice, where a place can be only once
        whole = another.import_vectors(first, collection="all")
        assert (whole.found, whole.failed, whole.unchanged) == (5, 0, 5)
        another.export(second, collection="all", force=True)
        by_place = {row["uri"]: {**row, "collection": "all"} for row in found}
        assert content(second) == [by_place[uri] for uri in sorted(by_place, key=str.encode)]


def rows_in_order(images: Lookalike) -> list[tuple[str, str]]:
    with psycopg.connect(images._database.url) as connection:
        return connection.execute("select collection, uri from lookalike.files order by collection, uri").fetchall()


def test_the_real_vectors_come_back(
    library: Lookalike, dsn: str, make_database: MakeDatabase, template: str, real: Path, tmp_path: Path
) -> None:
    library.import_vectors(real / "azure-vision-2022-04-11.npz")
    for suffix in SUFFIXES:
        path, copy = tmp_path / f"x.{suffix}", make_database(template)
        assert library.export(path).rows == 149
        with Lookalike.open(settings_for(copy)) as another:
            assert another.import_vectors(path).embedded == 149
        expected, found = stored(dsn, "azure-vision/2022-04-11"), stored(copy, "azure-vision/2022-04-11")
        assert expected.keys() == found.keys()
        for uri, vector in expected.items():
            np.testing.assert_array_equal(found[uri], vector)
        digests = "select image_id, sha256 from lookalike.images order by 1"
        assert rows(copy, digests) == rows(dsn, digests)


def test_filters_choose_rows_and_may_leave_none(
    library: Lookalike, make_database: MakeDatabase, template: str, tmp_path: Path
) -> None:
    populate(library, tmp_path)
    path = tmp_path / "x.npz"

    def uris(**options: Any) -> list[str]:
        library.export(path, force=True, **options)
        return [row["uri"] for row in content(path)]

    assert uris(where="artist exists", collection="default") == ["https://pictures.example/ü/1.jpg?id=7"]
    assert uris(where=[field("uri").startswith("s3:"), {"key": "none of ours"}]) == []
    assert uris(where={"sha256": "none of ours"}) == ["s3://bucket/4.jpg"]
    assert uris(collection="missing") == []
    with pytest.raises(InvalidFilter):
        library.export(path, force=True, where="and")
    with pytest.raises(ImageNotFound):
        library.export(tmp_path / "y.npz", model="elsewhere/unknown")
    for suffix in SUFFIXES:
        empty = tmp_path / f"empty.{suffix}"
        report = library.export(empty, collection="missing")
        assert (report.found, report.rows, report.images) == (0, 0, 0)
        assert content(empty) == []
        with Lookalike.open(settings_for(make_database(template))) as another:
            imported = another.import_vectors(empty)
            assert (imported.found, imported.failed, imported.model) == (0, 0, MODEL)
    assert {entry.name for entry in tmp_path.iterdir()} == {"source.jsonl", "x.npz", "empty.npz", "empty.parquet"}


def test_an_export_is_of_one_moment_and_of_any_length(crowd: Crowd, tmp_path: Path) -> None:
    with Lookalike.open(settings_for(crowd.dsn)) as images:
        seen: list[ExportReport] = []
        tracemalloc.start()
        report = images.export(tmp_path / "x.npz", where="n < 3000", progress=seen.append)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        images.export(tmp_path / "x.parquet", where="n < 3000")
    assert (report.rows, report.images) == (3000, 3000)
    assert (seen[0].found, seen[0].rows, seen[-1].rows) == (3000, 0, 3000)
    assert peak < 5_000_000  # the vectors take 6 MB, and the texts more than 1 MB
    for suffix in SUFFIXES:
        found = content(tmp_path / f"x.{suffix}")
        assert [row["key"] for row in found] == [f"sku-{n}" for n in range(3000)]
        assert [row["metadata"]["n"] for row in found] == list(range(3000))
        assert [row["vectors"] for row in found] == [v.astype(np.float16).tobytes() for v in crowd.vectors[:3000]]


def test_what_is_written_meanwhile_is_not_seen(library: Lookalike, dsn: str, tmp_path: Path) -> None:
    count = 1100
    uris = np.array([f"https://pictures.example/{n:04}.jpg" for n in range(count)])
    library.import_vectors(npz(tmp_path / "x.npz", uri=uris, vectors=vectors(count)))

    def progress(report: ExportReport) -> None:
        if report.rows == 0:
            with psycopg.connect(dsn) as connection:
                connection.execute("delete from lookalike.files where uri > 'https://pictures.example/05'")

    report = library.export(tmp_path / "y.npz", progress=progress)
    assert (report.found, report.rows) == (count, count)
    found = content(tmp_path / "y.npz")
    assert [row["uri"] for row in found] == uris.tolist()
    assert [row["vectors"] for row in found] == [vector.tobytes() for vector in vectors(count)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_export_that_ends_early_leaves_nothing(library: Lookalike, tmp_path: Path, suffix: str) -> None:
    populate(library, tmp_path)
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / f"x.{suffix}"
    stop = threading.Event()
    stop.set()
    report = library.export(path, stop=stop)
    assert (report.stopped, report.found, report.rows, report.bytes) == ("interrupted", 5, 0, 0)

    def fail(report: ExportReport) -> None:
        if report.rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.export(path, progress=fail)
    assert list(path.parent.iterdir()) == []
    path.write_bytes(b"mine")
    assert library.export(path, force=True, stop=stop).stopped == "interrupted"
    with pytest.raises(KeyboardInterrupt):
        library.export(path, force=True, progress=fail)
    assert path.read_bytes() == b"mine"

    def take_the_name(_: ExportReport) -> None:
        path.write_bytes(b"another's")

    path.unlink()
    with pytest.raises(ConfigurationError, match="Meanwhile"):
        library.export(path, progress=take_the_name)
    assert path.read_bytes() == b"another's"
    assert len(list(path.parent.iterdir())) == 1


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "x.csv": (lambda path: path, "neither .npz nor .parquet"),
    "x": (lambda path: path, "neither .npz nor .parquet"),
    "there.npz": (lambda path: path.write_bytes(b"mine"), "--force"),
    "folder.npz": (lambda path: path.mkdir(), "is a folder"),
    "missing/x.npz": (lambda path: path, "no folder"),
    f"{'x' * 300}.npz": (lambda path: path, "cannot be|too long"),
    "pipe.parquet": (os.mkfifo, "pipe or a device"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_written_is_refused(module_images: Lookalike, tmp_path: Path, name: str) -> None:
    make, reason = REFUSED[name]
    make(tmp_path / name)
    if module_images.status().images == 0:
        module_images.import_vectors(npz(tmp_path / "source.npz", uri=np.array(["a"]), vectors=vectors(1)))
    with pytest.raises(ConfigurationError, match=reason):
        module_images.export(tmp_path / name)
    if name == "pipe.parquet":
        # whoever waits at its other end would wait for ever
        with pytest.raises(ConfigurationError, match=reason):
            module_images.export(tmp_path / name, force=True)
        assert (tmp_path / name).is_fifo()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_takes_nothing_is_told(
    library: Lookalike, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(library, tmp_path)

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("zipfile.ZipFile", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ConfigurationError, match="Read-only file system"):
        library.export(tmp_path / f"out.{suffix}")


def test_a_link_is_followed_and_others_may_read_the_file(library: Lookalike, tmp_path: Path) -> None:
    populate(library, tmp_path)
    target, link = tmp_path / "target.npz", tmp_path / "link.npz"
    target.write_bytes(b"old")
    link.symlink_to(target)
    library.export(link, force=True)
    assert link.is_symlink()
    assert len(content(target)) == 5
    (tmp_path / "plain").write_bytes(b"")
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_readers_may_export(library: Lookalike, dsn: str, make_role: MakeRole, tmp_path: Path) -> None:
    populate(library, tmp_path)
    reader = make_role("reader")
    with Database(dsn) as database, database.transaction() as connection:
        grant(connection, readers=(reader,))
    with Lookalike.open(settings_for(dsn_as(dsn, reader))) as images:
        assert images.export(tmp_path / "x.npz").rows == 5


def test_columns_called_metadata_are_unfolded_and_collections_of_others_are_metadata(
    library: Lookalike, dsn: str, tmp_path: Path
) -> None:
    vector = str(vectors(1)[0].tolist())
    told = '{"artist": "Monet", "nested": {"a": [1]}, "title": "inner"}'
    lines = [
        {"uri": "1.jpg", "vector": vector, "metadata": told, "collection": "spring", "title": "outer"},
        {"uri": "2.jpg", "vector": vector, "metadata": "a note", "collection": "", "title": ""},
        {"uri": "3.jpg", "vector": vector, "metadata": "[1]", "collection": "", "title": ""},
    ]
    library.import_vectors(table(tmp_path / "x.csv", *lines), model=MODEL)
    assert rows(dsn, "select metadata from lookalike.files order by uri") == [
        ({"artist": "Monet", "nested": {"a": [1]}, "title": "outer", "collection": "spring"},),
        ({"metadata": "a note"},),
        ({"metadata": "[1]"},),
    ]


def test_the_command(library: Lookalike, run: RunCommand, run_process: RunCommand, tmp_path: Path) -> None:
    populate(library, tmp_path)
    done = run_process("export", "x.npz", "--where", "artist exists", "--collection", "default", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    keys = ("model", "found", "rows", "images", "dimensions", "stopped")
    assert [document[key] for key in keys] == [MODEL, 1, 1, 1, 256, None]
    assert document["bytes"] == (tmp_path / "x.npz").stat().st_size
    refused = run("export", "x.npz")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--force" in refused.stderr
    again = run("export", "x.npz", "--force", "--model", MODEL)
    size = (tmp_path / "x.npz").stat().st_size
    assert again.stdout == f"5 rows of 3 images under {MODEL}: x.npz, {size:,} bytes\n"
    assert len(content(tmp_path / "x.npz")) == 5
