"""Tables, lists and tables beside: what they name is found, and what they say is stored as it was meant."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike import ConfigurationError, Lookalike, SourceNotFound
from lookalike.emulator import Emulator
from lookalike.ingest import Sources
from lookalike.ingest.sources.manifests import Table
from lookalike.pictures.reading import Reader
from lookalike.uris import uri_of

from ..conftest import draw_pictures, settings_for


def stored(dsn: str, collection: str = "default") -> dict[str, tuple[str | None, dict[str, Any]]]:
    """Key and metadata of each file, by its URI."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select uri, key, metadata from lookalike.files where collection = %s", [collection]
        ).fetchall()
    return {uri: (key, metadata) for uri, key, metadata in rows}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures: a.jpg, b.jpg and sub/c.jpg."""
    folder = tmp_path / "photos"
    first, second, third = draw_pictures(folder, 3)
    (folder / "sub").mkdir()
    first.rename(folder / "a.jpg")
    second.rename(folder / "b.jpg")
    third.rename(folder / "sub" / "c.jpg")
    return folder


ROWS = [
    {"path": "photos/a.jpg", "sku": "0017", "year": 1870, "price": 3.5, "artist": "Monet", "sold": True},
    {"path": "photos/b.jpg", "sku": "0018", "year": 1871, "price": 4.0, "artist": "Renoir", "sold": False},
    {"path": "photos/sub/c.jpg", "sku": "0019", "year": 1872, "price": 4.25, "artist": "", "sold": True},
]


def as_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the path's suffix names."""
    match path.suffix:
        case ".jsonl":
            return write(path, "".join(json.dumps(row) + "\n" for row in rows))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
            return path
        case suffix:
            mark = "\t" if suffix == ".tsv" else ","
            lines = [mark.join(rows[0]), *(mark.join(str(value) for value in row.values()) for row in rows)]
            return write(path, "\n".join(lines) + "\n")


# -- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_names_pictures_and_says_what_they_are(images: Lookalike, dsn: str, folder: Path, kind: str) -> None:
    table = as_table(folder.parent / f"list.{kind}", ROWS)
    report = images.ingest(table, key_column="sku", collection="shop")
    assert (report.found, report.embedded, report.calls) == (3, 3, 3)

    found = stored(dsn, "shop")
    assert found[uri_of(folder / "a.jpg")] == (
        "0017",
        {"year": 1870, "price": 3.5, "artist": "Monet", "sold": True},
    )
    key, metadata = found[uri_of(folder / "sub" / "c.jpg")]
    assert (key, metadata["price"], metadata.get("artist", "")) == ("0019", 4.25, "")


def test_what_a_table_says_anew_is_stored_without_a_call(images: Lookalike, dsn: str, folder: Path) -> None:
    table = as_table(folder.parent / "list.jsonl", ROWS)
    images.ingest(table, key_column="sku")
    changed = [{**row, "artist": "Anonymous", "sku": f"new-{row['sku']}"} for row in ROWS]
    as_table(table, changed)
    report = images.ingest(table, key_column="sku")
    assert (report.found, report.unchanged, report.calls) == (3, 3, 0)
    assert stored(dsn)[uri_of(folder / "a.jpg")] == (
        "new-0017",
        {"year": 1870, "price": 3.5, "artist": "Anonymous", "sold": True},
    )


def test_a_column_that_is_gone_is_gone(images: Lookalike, dsn: str, folder: Path) -> None:
    table = as_table(folder.parent / "list.jsonl", ROWS)
    images.ingest(table)
    as_table(table, [{"path": row["path"], "year": row["year"]} for row in ROWS])
    images.ingest(table)
    assert stored(dsn)[uri_of(folder / "a.jpg")] == (None, {"year": 1870})


def test_a_source_that_says_nothing_changes_nothing(images: Lookalike, dsn: str, folder: Path) -> None:
    images.ingest(as_table(folder.parent / "list.jsonl", ROWS), key_column="sku")
    before = stored(dsn)
    images.ingest(folder)
    assert stored(dsn) == before
    # also where the picture itself has changed
    (folder / "a.jpg").write_bytes(draw_pictures(folder.parent / "other", 1, seed=9)[0].read_bytes())
    assert images.ingest(folder).embedded == 1
    assert stored(dsn) == before


def test_columns_of_numbers_are_numbers_and_others_text(images: Lookalike, dsn: str, folder: Path) -> None:
    table = write(
        folder.parent / "list.csv",
        "file,count,part,code,mixed,flag\n"
        "photos/a.jpg,1,0.5,007,1,TRUE\n"
        "photos/b.jpg,-2,1e3,12,x,false\n"
        "photos/sub/c.jpg,,3,13,2,\n",
    )
    images.ingest(table)
    found = stored(dsn)
    assert found[uri_of(folder / "a.jpg")][1] == {"count": 1, "part": 0.5, "code": "007", "mixed": "1", "flag": True}
    assert found[uri_of(folder / "b.jpg")][1] == {"count": -2, "part": 1000, "code": "12", "mixed": "x", "flag": False}
    assert found[uri_of(folder / "sub" / "c.jpg")][1] == {"part": 3, "code": "13", "mixed": "2"}


def test_parquet_keeps_what_json_can_hold(images: Lookalike, dsn: str, folder: Path) -> None:
    import datetime

    day = datetime.date(2024, 2, 29)
    row = {
        "uri": str(folder / "a.jpg"),
        "day": day,
        "cost": Decimal("12.50"),
        "price": Decimal("2.00"),
        "tags": ["x", "y"],
        "inner": {"deep": 1, "nan": float("nan")},
        "text": "no\0nul",
    }
    pq.write_table(pa.Table.from_pylist([row]), folder.parent / "list.parquet")
    images.ingest(folder.parent / "list.parquet")
    assert stored(dsn)[uri_of(folder / "a.jpg")][1] == {
        "day": "2024-02-29",
        "cost": 12.5,
        "price": 2.0,
        "tags": ["x", "y"],
        "inner": {"deep": 1, "nan": None},
        "text": "nonul",
    }


def test_rows_that_cannot_be_used_are_explained_and_harm_no_other(
    images: Lookalike, emulator: Emulator, folder: Path
) -> None:
    table = write(
        folder.parent / "list.csv",
        "file,year\nphotos/a.jpg,1\n,2\nphotos/missing.jpg,3\nphotos/b.jpg,4,5,6\nphotos,6\nphotos/sub/c.jpg,5\n",
    )
    report = images.ingest(table)
    assert (report.found, report.embedded, report.failed, report.unsupported) == (6, 2, 3, 1)
    assert emulator.stats()["billed"] == 2
    messages = {failure.code: failure.message for failure in images.failures()}
    assert set(messages) == {"bad-row", "unreadable"}
    again = images.ingest(table)
    assert (again.failed, again.new_failures, again.calls) == (3, 0, 0)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("year,artist\n1,2\n", {}, "--uri-column"),
        ("path,year\na,1\n", {"uri_column": "picture"}, "'picture'.*'path', 'year'"),
        ("path,year\na,1\n", {"key_column": "sku"}, "'sku'"),
        ("path,path\na,1\n", {}, "two columns"),
        ("", {}, "empty"),
    ],
)
def test_a_table_without_its_columns_is_refused(
    images: Lookalike, emulator: Emulator, tmp_path: Path, text: str, columns: dict[str, str], message: str
) -> None:
    table = write(tmp_path / "list.csv", text)
    with pytest.raises(ConfigurationError, match=message):
        images.ingest(table, **columns)  # type: ignore[arg-type]
    assert emulator.stats()["billed"] == 0


def test_semicolons_marks_and_other_encodings(images: Lookalike, dsn: str, folder: Path) -> None:
    (folder.parent / "list.csv").write_bytes(
        b'\xef\xbb\xbfPath;Artist\r\nphotos/a.jpg;"Mon\xe9t; C."\r\nphotos/b.jpg;"two\nlines"\r\n'
    )
    report = images.ingest(folder.parent / "list.csv")
    assert report.embedded == 2
    found = stored(dsn)
    assert found[uri_of(folder / "a.jpg")][1] == {"Artist": "Mon�t; C."}
    assert found[uri_of(folder / "b.jpg")][1] == {"Artist": "two\nlines"}


def test_the_same_file_many_times_is_paid_for_once(images: Lookalike, emulator: Emulator, folder: Path) -> None:
    table = write(folder.parent / "list.csv", "path\n" + "photos/a.jpg\nphotos/b.jpg\n" * 2000)
    report = images.ingest(table)
    assert (report.found, report.embedded, report.unchanged, report.pending) == (4000, 2, 3998, 0)
    assert emulator.stats()["billed"] == 2


def test_the_last_row_counts(images: Lookalike, dsn: str, folder: Path) -> None:
    table = write(folder.parent / "list.csv", "path,a\n" + "".join(f"photos/a.jpg,{n}\n" for n in range(5)))
    for _ in range(2):
        images.ingest(table)
        assert stored(dsn)[uri_of(folder / "a.jpg")] == (None, {"a": 4})


def test_a_table_that_changes_while_it_is_read_is_read_as_it_is(folder: Path) -> None:
    table = Table(write(folder.parent / "list.csv", "path,flag,n\na,true,1\nb,false,2\n"), "list.csv")
    table.check()
    write(table.path, "path,flag,n\na,maybe,one\n")
    assert [row.metadata for row in table.rows()] == [{"flag": "maybe", "n": "one"}]


# -- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_a_list_on_stdin(dsn: str, folder: Path, end: str) -> None:
    awkward = folder / "two\nlines.jpg" if end == "\0" else folder / "b.jpg"
    (folder / "b.jpg").rename(awkward)
    names = [str(folder / "a.jpg"), uri_of(folder / "sub" / "c.jpg"), str(awkward), ""]
    given = io.BytesIO(end.join(names).encode())
    with Reader(settings_for(dsn)) as reader, Sources(["-"], reader, stdin=given) as sources:
        found = [candidate.place.uri for candidate in sources.walk()]
    assert found == [uri_of(folder / "a.jpg"), uri_of(folder / "sub" / "c.jpg"), uri_of(awkward)]


# -- a table beside --------------------------------------------------------------------------------------------------


def test_a_table_beside_is_joined_by_path_or_name(images: Lookalike, dsn: str, folder: Path) -> None:
    beside = write(
        folder.parent / "meta.csv",
        f"file,sku,artist\na.jpg,1,Monet\n{folder / 'b.jpg'},2,Renoir\n./sub/c.jpg,3,Degas\nnobody.jpg,4,Nobody\n",
    )
    report = images.ingest(folder, metadata=beside, key_column="sku")
    assert report.embedded == 3
    assert stored(dsn) == {
        uri_of(folder / "a.jpg"): ("1", {"artist": "Monet"}),
        uri_of(folder / "b.jpg"): ("2", {"artist": "Renoir"}),
        uri_of(folder / "sub" / "c.jpg"): ("3", {"artist": "Degas"}),
    }
    write(beside, "file,artist\na.jpg,Manet\n")
    assert images.ingest(folder, metadata=beside).calls == 0
    assert stored(dsn)[uri_of(folder / "a.jpg")] == ("1", {"artist": "Manet"})
    assert stored(dsn)[uri_of(folder / "b.jpg")] == ("2", {"artist": "Renoir"})


def test_a_table_beside_is_joined_by_key(images: Lookalike, dsn: str, folder: Path) -> None:
    table = write(folder.parent / "list.csv", "path,sku\nphotos/a.jpg,A1\nphotos/b.jpg,B2\n")
    beside = write(folder.parent / "prices.csv", "sku,price\nA1,12\nB2,13\n")
    images.ingest(table, metadata=beside, key_column="SKU")
    assert stored(dsn)[uri_of(folder / "a.jpg")] == ("A1", {"price": 12})


def test_a_table_beside_that_fits_nothing_is_told(dsn: str, emulator: Emulator, folder: Path) -> None:
    said: list[str] = []
    beside = write(folder.parent / "meta.csv", "file,artist\nx.jpg,Monet\n")
    with Lookalike.open(settings_for(dsn, emulator), announce=said.append) as images:
        images.ingest(folder, metadata=beside)
    assert any("No picture was found in" in sentence for sentence in said)


def test_a_table_beside_that_is_none_is_refused(images: Lookalike, folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\.jpg ends in none of"):
        images.ingest(folder, metadata=folder / "a.jpg")
    with pytest.raises(SourceNotFound, match="nowhere"):
        images.ingest(folder, metadata="nowhere.csv")
    with pytest.raises(ConfigurationError, match="no table is given"):
        images.ingest(folder, key_column="sku")
