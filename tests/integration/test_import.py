"""Vectors that were computed elsewhere: what is stored of them, what is refused, and what survives a kill."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg
import pytest

from lookalike import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailable,
    ImportReport,
    Lookalike,
    LookalikeError,
    ModelMismatch,
    Settings,
    SourceNotFound,
)
from lookalike.emulator import Emulator
from lookalike.ingest import precomputed
from lookalike.ingest.precomputed.tables import open_table
from lookalike.store.embedded import EmbeddedServer
from lookalike.uris import uri_of

from ..conftest import RunCommand, command_environment, draw_pictures, settings_for
from .test_ingest import billed, rows
from .test_search import clustered

MODEL = "elsewhere/model-1"

Array = npt.NDArray[Any]


def vectors(count: int, width: int = 8, seed: int = 0) -> Array:
    """Made-up vectors that are half-precision numbers."""
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float16)


def npz(path: Path, **arrays: Any) -> Path:
    """A file of vectors; of `model` unless told otherwise."""
    np.savez(path, **{"model": np.array(MODEL), **arrays})
    return path


def table(path: Path, *lines: dict[str, Any]) -> Path:
    """The same as CSV, with the columns of the first line."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def stored(dsn: str, model: str = MODEL) -> dict[str, Array]:
    """By URI the vectors under a model, without what they are padded with."""
    found = rows(
        dsn,
        "select f.uri, e.embedding::text from lookalike.files f join lookalike.embeddings e using (image_id)"
        f" join lookalike.models m using (model_id) where m.name = '{model}'",
    )
    return {uri: np.trim_zeros(np.array(json.loads(text), np.float16), "b") for uri, text in found}


def assert_adds_up(report: ImportReport) -> None:
    assert report.found == report.embedded + report.unchanged + report.failed + report.pending


# -- what is stored --------------------------------------------------------------------------------------------------


def test_the_real_vectors_are_paid_for_already(dsn: str, real: Path) -> None:
    recorded = real / "azure-vision-2022-04-11.npz"
    with Emulator() as emulator, Lookalike.open(settings_for(dsn, emulator)) as images:
        assert images.import_vectors(recorded, dry_run=True).embedded == 149
        assert rows(dsn, "select * from lookalike.models") == []
        report = images.import_vectors(recorded)
        assert (report.model, report.found, report.embedded) == ("azure-vision/2022-04-11", 149, 149)
        with np.load(recorded) as archive:
            expected = {
                uri_of(real / name): vector for name, vector in zip(archive["files"], archive["vectors"], strict=True)
            }
        for uri, vector in stored(dsn, report.model).items():
            np.testing.assert_array_equal(vector, expected[uri])
        for again in (images.import_vectors(recorded), images.import_vectors(recorded, dry_run=True)):
            assert (again.embedded, again.unchanged, again.failed) == (0, 149, 0)
        ingested = images.ingest(real / "images", model="azure-vision/2022-04-11")
        assert (ingested.unchanged, ingested.calls) == (149, 0)
        assert emulator.stats()["billed"] == 0
    # what only the bytes tell is known by now
    assert rows(dsn, "select count(*), count(width) from lookalike.images") == [(149, 149)]


def test_arrays_become_keys_and_metadata(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    path = npz(
        tmp_path / "all kinds.npz",
        uri=np.array(["a.jpg", "https://u:p@pictures.example/b.jpg?sig=secret&id=7", "/absolute/c ü.jpg"]),
        embedding=vectors(3).astype(">f8"),
        key=np.array([7, 8, 9]),
        price=np.array([1.5, np.nan, 3.0]),
        share=np.array([0.1, 0.2, 0.3], np.float32),
        artist=np.array([b"Monet", "Cézanne".encode(), b""]),
        sold=np.array([True, False, True]),
        taken=np.array(["2024-05-01", "NaT", "1999-12-31T12:30"], "datetime64[s]"),
        size=np.array([[1, 2], [3, 4], [5, 6]], np.uint16),
        source=np.array("a scan"),
    )
    assert images.import_vectors(path).embedded == 3
    found = {uri: (key, metadata) for uri, key, metadata in rows(dsn, "select uri, key, metadata from lookalike.files")}
    a, b, c = (
        uri_of(tmp_path / "a.jpg"),
        "https://pictures.example/b.jpg?id=7",
        uri_of("/absolute/c ü.jpg"),
    )
    assert found[a] == (
        "7",
        {
            "price": 1.5,
            "share": 0.1,
            "artist": "Monet",
            "sold": True,
            "taken": "2024-05-01T00:00:00",
            "size": [1, 2],
            "source": "a scan",
        },
    )
    assert (found[b][1]["price"], found[b][1]["taken"], found[b][1]["artist"]) == (None, None, "Cézanne")
    assert found[c][0] == "9"
    np.testing.assert_array_equal([stored(dsn)[uri] for uri in (a, b, c)], vectors(3))
    assert rows(dsn, "select dimensions from lookalike.models") == [(8,)]
    assert rows(dsn, "select image_id::text from lookalike.files where key = '7'") == [
        (str(UUID(bytes=sha256(a.encode()).digest()[:16])),)
    ]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_tables_say_the_same_in_every_form(images: Lookalike, dsn: str, tmp_path: Path, suffix: str) -> None:
    wanted = vectors(4)
    texts = [str(wanted[0].tolist()), " ".join(map(str, wanted[1])), "{" + ",".join(map(str, wanted[2])) + "}"]
    digest = sha256(b"a picture").hexdigest()
    lines = [
        {"uri": f"{n}.jpg", "vector": texts[n], "sha256": digest if n == 0 else "", "price": n + 0.5, "model": MODEL}
        for n in range(3)
    ]
    path = tmp_path / f"vectors.{suffix}"
    if suffix == "csv":
        table(path, *lines)
    elif suffix == "tsv":
        path.write_text("\n".join("\t".join(map(str, line)) for line in (list(lines[0]), *(d.values() for d in lines))))
    elif suffix == "jsonl":
        lines[1]["vector"] = wanted[1].tolist()
        path.write_text("\n".join(map(json.dumps, lines)))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        lines = [{**line, "vector": wanted[n].astype(float).tolist()} for n, line in enumerate(lines)]
        parquet.write_table(pyarrow.Table.from_pylist(lines), path)
    report = images.import_vectors(path)
    assert (report.found, report.embedded, report.failed) == (3, 3, 0)
    found = stored(dsn)
    for n in range(3):
        np.testing.assert_array_equal(found[uri_of(tmp_path / f"{n}.jpg")], wanted[n])
    assert rows(dsn, "select count(*) from lookalike.files where metadata ? 'price' and not metadata ? 'vector'") == [
        (3,)
    ]
    assert rows(dsn, "select encode(sha256, 'hex') from lookalike.images where sha256 is not null") == [(digest,)]
    assert images.import_vectors(path).unchanged == 3


def test_columns_by_name_and_models_that_are_named(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", where=np.array(["a", "b"]), numbers=vectors(2), sku=np.array(["k", "l"]))
    report = images.import_vectors(
        path, uri_column="WHERE", vector_column="numbers", key_column="sku", collection="shop", model=MODEL
    )
    assert (report.embedded, report.collection) == (2, "shop")
    assert rows(dsn, "select key, collection from lookalike.files order by 1") == [("k", "shop"), ("l", "shop")]
    plain = table(tmp_path / "y.csv", {"uri": "c", "vector": vectors(1)[0].tolist(), "model": ""})
    with pytest.raises(ConfigurationError, match="--model"):
        images.import_vectors(plain)
    assert images.import_vectors(plain, model=MODEL).embedded == 1


def test_digests_in_every_form(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    # NumPy takes the zero at the end for padding
    digests = [sha256(b"a").digest()[:31] + b"\0", sha256(b"b").digest()]
    forms: list[Array] = [
        np.array(digests),
        np.array([digest.hex().upper() for digest in digests]),
        np.array([digest.hex().encode() for digest in digests]),
        np.frombuffer(b"".join(digests), np.uint8).reshape(2, 32),
    ]
    for number, form in enumerate(forms):
        uris = np.array([f"https://pictures.example/{number}-{n}.jpg" for n in range(2)])
        images.import_vectors(npz(tmp_path / f"{number}.npz", uri=uris, vectors=vectors(2), sha256=form))
    assert sorted(rows(dsn, "select sha256 from lookalike.images")) == sorted((digest,) for digest in digests)
    assert rows(dsn, "select count(*) from lookalike.files") == [(8,)]


def test_a_vector_that_differs_takes_the_place_of_the_stored_one(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    uris = np.array([f"https://pictures.example/{n}.jpg" for n in range(3)])
    first, second = vectors(3), vectors(3)
    second[1] *= 2
    images.import_vectors(npz(tmp_path / "1.npz", uri=uris, vectors=first, title=np.array(["x", "y", "z"])))
    changed = npz(tmp_path / "2.npz", uri=uris, vectors=second)
    for dry_run in (True, False):
        report = images.import_vectors(changed, dry_run=dry_run)
        assert (report.embedded, report.replaced, report.unchanged) == (1, 1, 2)
    np.testing.assert_array_equal([stored(dsn)[uri] for uri in uris], second)
    # what the second file does not speak of stays
    assert rows(dsn, "select metadata->>'title' from lookalike.files order by 1") == [("x",), ("y",), ("z",)]
    assert [status.rows for status in images.index.status()] == [3]


def test_vectors_by_uri_are_of_the_images_that_lie_there(images: Lookalike, dsn: str, photos: Path) -> None:
    images.ingest(photos)
    names = sorted(path.name for path in photos.iterdir())
    before = rows(dsn, "select uri, image_id, fingerprint from lookalike.files order by uri")
    report = images.import_vectors(npz(photos / "x.npz", files=np.array(names), vectors=vectors(20)))
    assert report.embedded == 20
    assert rows(dsn, "select uri, image_id, fingerprint from lookalike.files order by uri") == before
    assert rows(dsn, "select count(*) from lookalike.images") == [(20,)]
    assert rows(dsn, "select count(*) from lookalike.embeddings") == [(40,)]


def test_a_picture_that_has_moved_on_keeps_its_vector(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    """What lies at its old place now is another picture, although that place once gave it its id."""
    folder = tmp_path / "photos"
    first, other = draw_pictures(folder, 2)
    model, wide = images.model_name(), vectors(2, 1024)
    told = {"uri": np.array([uri_of(first)]), "model": np.array(model)}
    images.import_vectors(npz(tmp_path / "1.npz", vectors=wide[:1], **told))
    images.ingest(first)  # now its bytes are known
    moved = first.rename(folder / "moved.jpg")
    images.ingest(folder, prune=True)
    first.write_bytes(other.read_bytes()[:-2] + b"\xff\xd9")
    before = rows(dsn, "select image_id from lookalike.files where uri like '%/moved.jpg'")
    report = images.import_vectors(npz(tmp_path / "2.npz", vectors=wide[1:], **told))
    assert (report.embedded, report.replaced) == (1, 0)
    found = stored(dsn, model)
    np.testing.assert_array_equal(found[uri_of(moved)], wide[0])
    np.testing.assert_array_equal(found[uri_of(first)], wide[1])
    assert rows(dsn, "select image_id from lookalike.files where uri like '%/moved.jpg'") == before
    assert images.import_vectors(tmp_path / "2.npz").unchanged == 1


def test_a_place_is_one_image_in_every_collection(images: Lookalike, dsn: str, photos: Path) -> None:
    images.ingest(photos)
    names = sorted(path.name for path in photos.iterdir())
    images.import_vectors(npz(photos / "x.npz", files=np.array(names), vectors=vectors(20)), collection="shop")
    assert rows(dsn, "select count(*) from lookalike.images") == [(20,)]
    assert rows(dsn, "select collection, count(*) from lookalike.files group by 1 order by 1") == [
        ("default", 20),
        ("shop", 20),
    ]


def test_metadata_that_an_import_does_not_mention_stay(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    names = {"uri": np.array(["https://x.example/1.jpg", "https://x.example/2.jpg"]), "vectors": vectors(2)}
    images.import_vectors(
        npz(tmp_path / "1.npz", artist=np.array(["a", "b"]), year=np.array([1, 2]), key=np.array(["k", "l"]), **names)
    )
    images.import_vectors(npz(tmp_path / "2.npz", year=np.array([3, 4]), tag=np.array(["x", "y"]), **names))
    assert rows(dsn, "select key, metadata from lookalike.files order by uri") == [
        ("k", {"artist": "a", "year": 3, "tag": "x"}),
        ("l", {"artist": "b", "year": 4, "tag": "y"}),
    ]


def test_an_ingest_leaves_imported_vectors_alone(
    images: Lookalike, emulator: Emulator, dsn: str, tmp_path: Path
) -> None:
    paths = draw_pictures(tmp_path, 4)
    model = images.model_name()
    digests = np.array([sha256(path.read_bytes()).hexdigest() for path in paths[:3]])
    wide = vectors(3, 1024)
    path = npz(
        tmp_path / "x.npz",
        uri=np.array([uri_of(path) for path in paths[:3]]),
        vectors=wide,
        sha256=digests,
        model=np.array(model),
    )
    images.import_vectors(path)
    report = images.ingest(tmp_path)
    assert (report.embedded, report.unchanged, billed(emulator)) == (1, 3, 1)
    found = stored(dsn, model)
    np.testing.assert_array_equal([found[uri_of(path)] for path in paths[:3]], wide)


def test_two_that_import_the_same_at_once_store_it_once(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    count = 600
    digests = np.array([sha256(str(n % 500).encode()).hexdigest() for n in range(count)])
    uris = np.array([f"https://pictures.example/{n}.jpg" for n in range(count)])
    path = npz(tmp_path / "x.npz", uri=uris, vectors=vectors(count), sha256=digests, price=np.arange(count))
    with ThreadPoolExecutor(3) as threads:
        reports = list(threads.map(lambda _: images.import_vectors(path), range(3)))
    assert [report.failed for report in reports] == [0, 0, 0]
    assert rows(dsn, "select count(*), count(distinct image_id) from lookalike.files") == [(count, 500)]
    assert rows(dsn, "select count(*) from lookalike.embeddings") == [(500,)]
    assert images.import_vectors(path).unchanged == count


def test_digests_that_begin_alike_cost_the_later_row_alone(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    """An id is the first half of a digest, and a file may say anything."""
    digests = np.array(["ab" * 32, "ab" * 16 + "cd" * 16, "ab" * 32, "cd" * 32])
    uris = np.array(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    path = npz(tmp_path / "x.npz", uri=uris, vectors=vectors(4), sha256=digests)
    for dry_run in (True, False):
        report = images.import_vectors(path, dry_run=dry_run)
        assert (report.embedded, report.unchanged, report.failed) == (2, 1, 1)
    (failure,) = images.failures()
    assert (failure.code, failure.uri.endswith("/b.jpg")) == ("bad-sha256", True)
    assert rows(dsn, "select count(*), count(distinct image_id) from lookalike.files") == [(3, 2)]
    # of what another import has brought nobody keeps a list
    images.import_vectors(npz(tmp_path / "y.npz", uri=uris[1:2], vectors=vectors(1), sha256=digests[1:2]))
    assert rows(dsn, "select count(distinct image_id) from lookalike.files") == [(2,)]


def test_what_had_failed_and_is_stored_now_has_not_failed(images: Lookalike, tmp_path: Path) -> None:
    uris = np.array(["https://x.example/1.jpg", "https://x.example/2.jpg"])
    broken = vectors(2)
    broken[1] = 0
    assert images.import_vectors(
        npz(tmp_path / "x.npz", uri=uris[1:], vectors=broken[1:], model=np.array(MODEL))
    ).failed
    assert [failure.uri for failure in images.failures()] == ["https://x.example/2.jpg"]
    assert images.import_vectors(npz(tmp_path / "x.npz", uri=uris, vectors=vectors(2))).embedded == 2
    assert images.failures() == []


# -- what is not -----------------------------------------------------------------------------------------------------


def test_bad_rows_are_explained_and_harm_no_other(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    good = vectors(1)[0].tolist()
    bad: dict[str, Any] = {
        "wrong-length": [1, 2, 3],
        "not-finite": [*good[:7], "nan"],
        "out-of-range": [*good[:7], 65520],
        "zero-vector": [1e-9] * 8,
        "no-vector": "",
        "not-numbers": "one two",
    }
    lines: list[dict[str, Any]] = [
        {"uri": f"{code}.jpg", "vector": str(vector), "sha256": ""} for code, vector in bad.items()
    ]
    for line in lines:
        line["vector"] = line["vector"].replace("'", "")
    lines += [
        {"uri": "good.jpg", "vector": good, "sha256": ""},
        {"uri": "", "vector": good, "sha256": ""},
        {"uri": "digest.jpg", "vector": good, "sha256": "abc"},
        {"uri": "https://x.example/" + "a" * 2000, "vector": good, "sha256": ""},
        {"uri": "good.jpg", "vector": good, "sha256": ""},
        {"uri": "good.jpg", "vector": [*good[:7], 5.0], "sha256": ""},
        {"uri": "good.jpg", "vector": [1, 2], "sha256": ""},
    ]
    # the first rows teach how long a vector is
    path = table(tmp_path / "x.csv", *({**line, "uri": f"{n}.jpg"} for n in range(9) for line in lines[6:7]), *lines)
    report = images.import_vectors(path, model=MODEL)
    assert_adds_up(report)
    assert (report.found, report.embedded, report.unchanged, report.failed) == (22, 10, 1, 11)
    assert report.new_failures == 11
    found = sorted(failure.code for failure in images.failures())
    others = ["bad-row", "bad-sha256", "duplicate-uri", "uri-too-long", "wrong-length"]
    assert found == sorted([*bad, *others])
    np.testing.assert_array_equal(stored(dsn)[uri_of(tmp_path / "good.jpg")], np.float16(good))
    assert images.import_vectors(path, model=MODEL).new_failures == 0
    assert_adds_up(images.import_vectors(path, model=MODEL, dry_run=True))

    # mended, so that nothing is left to explain but what names a file that the table no longer has
    mended = [{"uri": f"{code}.jpg", "vector": good, "sha256": ""} for code in [*bad, "digest"]]
    table(path, *mended)
    assert images.import_vectors(path, model=MODEL).failed == 0
    assert [failure.code for failure in images.failures()] == ["uri-too-long"]


def object_array() -> Array:
    found = np.empty(2, object)
    found[:] = ["a", "b"]
    return found


URIS = np.array(["a.jpg", "b.jpg"])
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing.npz": (lambda path: path.parent, "no file"),
    "text.npz": (lambda path: path.write_text("nonsense"), "no .npz"),
    "empty.npz": (lambda path: path.write_bytes(b""), "no .npz"),
    "alone.npy": (lambda path: np.save(path, vectors(2)), r"\.npy"),
    "picture.jpg": (lambda path: path.write_bytes(b"x"), "none of"),
    "objects.npz": (lambda path: npz(path, uri=object_array(), vectors=vectors(2)), "never unpickled"),
    "columns.npz": (lambda path: npz(path, uri=URIS, vectors=np.asfortranarray(vectors(2))), "ascontiguousarray"),
    "flat.npz": (lambda path: npz(path, uri=URIS, vectors=vectors(2)[0]), "rows, dimensions"),
    "texts.npz": (lambda path: npz(path, uri=URIS, vectors=URIS), "rows, dimensions"),
    "lengths.npz": (lambda path: npz(path, uri=URIS, vectors=vectors(3)), "has 2 rows"),
    "wide.npz": (lambda path: npz(path, uri=URIS, vectors=vectors(2, 1025)), "1 to 1,024"),
    "narrow.npz": (lambda path: npz(path, uri=URIS, vectors=vectors(2), model=np.array("local/classic-1")), "1,024"),
    "nowhere.npz": (lambda path: npz(path, vectors=vectors(2)), "--uri-column"),
    "numbers.npz": (lambda path: npz(path, uri=np.arange(2), vectors=vectors(2)), "--uri-column"),
    "without.npz": (lambda path: npz(path, uri=URIS), "--vector-column"),
    "nobody.npz": (lambda path: npz(path, uri=URIS, vectors=vectors(2), model=np.array("")), "--model"),
    "latest.npz": (lambda path: npz(path, uri=URIS, vectors=vectors(2), model=np.array("a/latest")), "latest"),
    "several.npz": (lambda path: npz(path, uri=URIS, vectors=vectors(2), model=np.array(["a/1", "b/2"])), "several"),
    "cut.npz": (lambda path: path.write_bytes(npz(path, uri=URIS, vectors=vectors(2)).read_bytes()[:-60]), "no .npz"),
    "utf-16.csv": (lambda path: path.write_text("uri,vector\na,[1]", encoding="utf-16"), "UTF-8"),
    "no mark.csv": (lambda path: path.write_text("uri,vector\na,[1]", encoding="utf-16-le"), "UTF-8"),
    "no mark.tsv": (lambda path: path.write_text("uri\tvector\na\t[1]", encoding="utf-32-be"), "UTF-8"),
    "utf-16.jsonl": (lambda path: path.write_text('{"uri": "a", "vector": [1]}', encoding="utf-16"), "UTF-8"),
    "nothing.jsonl": (lambda path: path.write_text(""), "no JSON objects"),
    "unclosed.csv": (lambda path: path.write_text('uri,vector\n"a,[1]\n' + "b,[1]\n" * 2_000_000), "quotation mark"),
    "nothing.csv": (lambda path: path.write_text(""), "empty"),
    "lacking.csv": (lambda path: path.write_text("uri,title\na,b\n"), "--vector-column"),
    "models.csv": (lambda path: path.write_text("uri,vector,model\na,[1],a/1\nb,[2],b/2\n"), "several"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_before_anything_is_stored(
    module_images: Lookalike, module_dsn: str, tmp_path: Path, name: str
) -> None:
    make, reason = REFUSED[name]
    make(tmp_path / name)
    good = npz(tmp_path / "good.npz", uri=URIS, vectors=vectors(2))
    files = [good, tmp_path / name] if name not in ("nobody.npz", "wide.npz", "narrow.npz") else [tmp_path / name]
    with pytest.raises((ConfigurationError, SourceNotFound), match=reason):
        module_images.import_vectors(*files)
    assert rows(module_dsn, "select from lookalike.models union all select from lookalike.runs") == []


def test_vectors_of_another_model_are_refused(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", uri=URIS, vectors=vectors(2))
    with pytest.raises(ModelMismatch, match=MODEL):
        images.import_vectors(path, model="elsewhere/model-2")
    images.import_vectors(path)
    with pytest.raises(ConfigurationError, match="16 numbers"):
        images.import_vectors(npz(tmp_path / "y.npz", uri=URIS, vectors=vectors(2, 16)))
    assert len(stored(dsn)) == 2


def member(shape: str, descr: str = "'<f2'", data: bytes = b"") -> bytes:
    """An array as a file, with whatever header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "array",
    [
        member("(1000000000000, 1024)"),
        member("(2, -8)"),
        member("(2, 8)", data=b"short"),
        member("(2,)", "'<U2000000000'"),
        member("(2, 8)", "'|O'", b"cos\nsystem\n(S'touch /tmp/unpickled'\ntR."),
        member("(2,)", "[('a', '<f2')]", b"1234"),
        member("(2, 8", data=b"x"),
        member("(" * 500 + "2" + ")" * 500),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_hostile_arrays_are_refused(tmp_path: Path, array: bytes) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("uri.npy", member("(2,)", "'<U1'", "ab".encode("utf-32-le")))
        archive.writestr("vectors.npy", array)
    with pytest.raises(ConfigurationError):
        open_table(path)


def test_damage_anywhere_raises_nothing_but_our_errors(tmp_path: Path) -> None:
    memory = io.BytesIO()
    np.savez_compressed(memory, uri=URIS, vectors=vectors(2), price=np.arange(2), model=np.array(MODEL))
    whole, random = memory.getvalue(), np.random.default_rng(0)
    path, refused = tmp_path / "x.npz", 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 4)):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged[: random.integers(1, len(whole) + 200)])
        try:
            found = open_table(path)
            assert found.count == len(list(found.rows()))
        except LookalikeError:
            refused += 1
    assert refused > 200


# -- stopping and large loads ----------------------------------------------------------------------------------------


def test_damage_in_parquet_shows_before_anything_is_stored(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    count = 9_000
    uris = np.array([f"https://x.example/{n}.jpg" for n in range(count)])
    images.import_vectors(npz(tmp_path / "x.npz", uri=uris, vectors=vectors(count)))
    images.export(tmp_path / "x.parquet")
    whole, about = (tmp_path / "x.parquet").read_bytes(), parquet.ParquetFile(tmp_path / "x.parquet").metadata
    assert about.num_row_groups > 1
    path = tmp_path / "damaged.parquet"
    for column in range(about.num_columns):
        # a bit within the data of the last rows, where any number could stand
        last = about.row_group(about.num_row_groups - 1).column(column)
        damaged = bytearray(whole)
        damaged[last.data_page_offset + last.total_compressed_size // 2 + 20] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ConfigurationError, match="damaged"):
            images.import_vectors(path, collection="damaged")
    assert rows(dsn, "select distinct collection from lookalike.files") == [("default",)]


def test_parquet_with_a_row_that_python_cannot_read(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    numbers = vectors(4)
    days = pyarrow.array([0, (1 << 31) - 1, None, 1], pyarrow.date32())
    taken = pyarrow.array([[0], [], None, [1 << 62]], pyarrow.list_(pyarrow.timestamp("us")))
    columns = {"uri": pyarrow.array(["a", "b", "c", "d"]), "vector": pyarrow.array(list(numbers)), "day": days}
    parquet.write_table(pyarrow.table({**columns, "taken": taken}), tmp_path / "x.parquet")
    report = images.import_vectors(tmp_path / "x.parquet", model=MODEL)
    assert (report.embedded, report.failed) == (2, 2)
    found = dict(rows(dsn, "select uri, metadata->>'day' from lookalike.files"))
    assert found == {uri_of(tmp_path / "a"): "1970-01-01", uri_of(tmp_path / "c"): None}
    told = sorted((failure.uri[-6:], failure.code, failure.message) for failure in images.failures())
    assert [(row, code) for row, code, _ in told] == [("#row-2", "bad-row"), ("#row-4", "bad-row")]
    assert "column day" in told[0][2]
    assert "column taken" in told[1][2]


def test_what_is_no_name_and_no_key(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    one, nan = vectors(1)[0].tolist(), float("nan")
    lines = [{"uri": f"{n}.jpg", "key": key, "vector": one} for n, key in enumerate([7.0, nan, 0.5, None])]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in [*lines, {"uri": 17, "vector": one}, {"vector": one}]))
    assert images.import_vectors(path, model=MODEL).failed == 2
    assert rows(dsn, "select key from lookalike.files order by uri") == [("7",), (None,), ("0.5",), (None,)]
    assert ["holds 17" in failure.message for failure in sorted(images.failures(), key=lambda each: each.uri)] == [
        True,
        False,
    ]


def test_two_columns_of_one_name_are_told_apart_by_nobody(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    arrays = [pyarrow.array(["a"]), pyarrow.array(["b"]), pyarrow.array([[1.0]])]
    parquet.write_table(pyarrow.Table.from_arrays(arrays, ["uri", "uri", "vector"]), tmp_path / "x.parquet")
    with pytest.raises(ConfigurationError, match="two columns"):
        open_table(tmp_path / "x.parquet")


def test_a_run_that_is_stopped_adds_up_and_goes_on(images: Lookalike, dsn: str, tmp_path: Path) -> None:
    uris = np.array([f"https://pictures.example/{n}.jpg" for n in range(3000)])
    path = npz(tmp_path / "x.npz", uri=uris, vectors=vectors(3000))
    stop = threading.Event()
    seen: list[ImportReport] = []

    def progress(report: ImportReport) -> None:
        seen.append(report)
        if report.embedded:
            stop.set()

    report = images.import_vectors(path, progress=progress, stop=stop)
    assert (report.stopped, report.found, report.embedded, report.pending) == ("interrupted", 3000, 10, 2990)
    assert seen[0].pending == 3000
    again = images.import_vectors(path)
    assert (again.embedded, again.unchanged, again.pending, again.index) == (2990, 10, 0, "built")
    runs = rows(dsn, "select command, model, exit_code, counts->>'embedded' from lookalike.runs order by run_id")
    assert runs == [("import", MODEL, 130, "10"), ("import", MODEL, 0, "2990")]


def test_a_killed_load_is_completed_by_the_next(
    dsn: str, tmp_path: Path, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    count = 4000
    uris = np.array([f"https://pictures.example/{n}.jpg" for n in range(count)])
    wanted = clustered(count)[:, :32]
    path = npz(tmp_path / "x.npz", uri=uris, vectors=wanted)
    environment = command_environment(LOOKALIKE_DATABASE_URL=dsn)
    with subprocess.Popen([sys.executable, "-m", "lookalike", "import", str(path)], env=environment) as process:
        with psycopg.connect(dsn, autocommit=True) as connection:

            def loading() -> bool:
                row = connection.execute(
                    "select exists (select from lookalike.models)"
                    " and to_regclass('lookalike.embeddings_1_hnsw') is null"
                ).fetchone()
                return bool(row and row[0])

            eventually(loading)
        process.send_signal(signal.SIGKILL)
    with Lookalike.open(settings_for(dsn)) as images:
        assert [status.state for status in images.index.status()] == ["missing"]
        before = rows(dsn, "select count(*) from lookalike.embeddings")[0][0]
        assert 0 < before < count
        report = images.import_vectors(path)
        assert (report.embedded, report.unchanged, report.index) == (count - before, before, "built")
        (status,) = images.index.status()
        assert (status.state, status.rows, status.left_overs) == ("valid", count, ())


def test_a_failure_is_told_at_once_though_the_server_is_gone(
    images: Lookalike, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise DatabaseUnavailable("gone")

    def fail(_: ImportReport) -> None:
        raise DatabaseError("the disk is full")

    monkeypatch.setattr(precomputed, "end_run", gone)
    began = time.monotonic()
    with pytest.raises(DatabaseError, match="the disk is full"):
        images.import_vectors(npz(tmp_path / "x.npz", uri=URIS, vectors=vectors(2)), progress=fail)
    assert time.monotonic() - began < 10


def test_an_index_keeps_its_parameters_though_its_load_was_interrupted(
    images: Lookalike, dsn: str, tmp_path: Path
) -> None:
    images.import_vectors(npz(tmp_path / "x.npz", uri=URIS, vectors=vectors(2)))

    def made_with() -> list[Any]:
        return rows(dsn, "select reloptions from pg_class where relname = 'embeddings_1_hnsw'")

    def note() -> list[Any]:
        return rows(dsn, "select obj_description('lookalike.embeddings_1'::regclass)")

    with psycopg.connect(dsn) as connection:
        connection.execute("drop index lookalike.embeddings_1_hnsw")
        connection.execute(
            "create index embeddings_1_hnsw on lookalike.embeddings_1 using hnsw (embedding halfvec_cosine_ops)"
            " with (m = 24, ef_construction = 80)"
        )
    path = npz(tmp_path / "y.npz", uri=np.array([f"{n}.jpg" for n in range(3_000)]), vectors=vectors(3_000, seed=1))
    stop = threading.Event()
    images.import_vectors(path, progress=lambda report: stop.set() if report.embedded > 10 else None, stop=stop)
    assert made_with() == []
    assert "m=24" in note()[0][0]
    assert images.import_vectors(path).index == "built"
    assert made_with() == [(["m=24", "ef_construction=80"],)]
    assert note() == [(None,)]

    with psycopg.connect(dsn) as connection:
        connection.execute("drop index lookalike.embeddings_1_hnsw")
        # as people write it
        connection.execute(
            "create index embeddings_1_hnsw on lookalike.embeddings_1 using hnsw (embedding halfvec_cosine_ops)"
        )
    images.index.build(MODEL)
    assert made_with() == [(["m=16", "ef_construction=64"],)]


def test_what_a_crashed_server_forgets_is_stored_once_more(home: Path, tmp_path: Path) -> None:
    """Whoever writes the server's log is so slow that a part of it is in memory only when the server crashes."""
    count = 12_510
    wanted = vectors(count)
    uris = np.array([f"https://x.example/{n}.jpg" for n in range(count)])
    path = npz(tmp_path / "x.npz", uri=uris, vectors=wanted)
    server = EmbeddedServer(home, overrides={"wal_buffers": "64MB"})
    server.start()
    log_writer = "select pid from pg_stat_activity where backend_type = 'walwriter'"
    remembered: list[int] = []
    said: list[str] = []

    def crash(report: ImportReport) -> None:
        if report.pending == 5_000 and not remembered:
            os.kill(writer, signal.SIGKILL)
            while not remembered:
                with contextlib.suppress(psycopg.OperationalError):
                    if rows(images.place, f"{log_writer} and pid <> {writer}"):
                        remembered.append(rows(images.place, "select count(*) from lookalike.files")[0][0])

    with Lookalike.open(Settings(home=home, home_chosen=True), announce=said.append) as images:
        writer = rows(images.place, log_writer)[0][0]
        os.kill(writer, signal.SIGSTOP)
        try:
            report = images.import_vectors(path, progress=crash)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(writer, signal.SIGKILL)
        found = stored(images.place)
    assert remembered < [count - 5_000]
    assert (report.found, report.embedded, report.unchanged) == (count, count, 0)
    assert len(found) == count
    assert all(np.array_equal(found[uri], vector) for uri, vector in zip(uris.tolist(), wanted, strict=True))
    assert any(f"{count - 5_000 - remembered[0]:,} of them had been forgotten" in each for each in said)


# -- the command line ------------------------------------------------------------------------------------------------


def test_the_command(run: RunCommand, run_process: RunCommand, tmp_path: Path) -> None:
    lines = [{"uri": f"{n}.jpg", "vector": vectors(3)[n].tolist()} for n in range(3)]
    path = table(tmp_path / "x.csv", *lines, {"uri": "4.jpg", "vector": "[1,2]"})
    done = run_process("import", path, "--model", MODEL, "--json")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    keys = ("model", "collection", "found", "embedded", "unchanged", "failed", "pending", "new_failures", "index")
    assert [document[key] for key in keys] == [MODEL, "default", 4, 3, 0, 1, 0, 1, "kept"]
    assert "lookalike failures" in done.stderr
    again = run("import", path, "--model", MODEL)
    assert (again.returncode, again.stdout) == (0, f"4 rows under {MODEL}: 0 embedded, 3 unchanged, 1 failed\n")
    refused = run("import", path, "nowhere.npz", "--model", MODEL)
    assert refused.returncode == 2
    assert refused.stderr.startswith("lookalike: There is no file")
