"""Vectors that lie in somebody's table: what is read of it, what is refused, and that it is only read."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import psycopg
import pytest
from psycopg import sql

from lookalike import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailable,
    ImportReport,
    Lookalike,
    LookalikeError,
    ModelMismatch,
    SourceNotFound,
)
from lookalike.ingest import precomputed
from lookalike.ingest.precomputed.database import DatabaseTable
from lookalike.uris import uri_of

from ..conftest import MakeDatabase, MakeRole, RunCommand, dsn_as, settings_for
from .test_import import MODEL, assert_adds_up, stored, vectors
from .test_ingest import rows


@pytest.fixture
def elsewhere(make_database: MakeDatabase) -> str:
    """Somebody's own database, with pgvector in a schema of its own."""
    dsn = make_database()
    execute(dsn, "create schema extensions", "create extension vector schema extensions")
    return f"{dsn} options='-c search_path=public,extensions'"


@pytest.fixture
def plain_images(dsn: str) -> Iterator[Lookalike]:
    """An empty library without any service."""
    with Lookalike.open(settings_for(dsn)) as library:
        yield library


def execute(dsn: str, *statements: str, values: list[Any] | None = None) -> None:
    with psycopg.connect(dsn) as connection:
        for statement in statements:
            connection.execute(statement.encode(), values)


def fill(dsn: str, table: str, count: int, width: int = 8) -> Any:
    """A table of `count` made-up vectors, at addresses that are numbered; returns the vectors."""
    wanted = vectors(count, width)
    with psycopg.connect(dsn) as connection:
        connection.execute(f"create table {table} (uri text, embedding vector({width}))".encode())
        with connection.cursor().copy(f"copy {table} from stdin".encode()) as copy:
            for n, vector in enumerate(wanted):
                copy.write_row([f"https://pictures.example/{n}.jpg", str(vector.astype(float).tolist())])
    return wanted


# -- what is read ----------------------------------------------------------------------------------------------------


def test_every_type_of_vector_and_of_metadata(plain_images: Lookalike, elsewhere: str, dsn: str) -> None:
    table = 'My "Shop"; drop'
    execute(
        elsewhere,
        "create domain features as halfvec(8)",
        """
        create table "My ""Shop""; drop" (
            "Bild %s" text, "id?" bigint, v vector(8), h features, r real[], d double precision[], t text, j jsonb,
            whole integer default 3, fraction numeric default 1.25, odd double precision default 'NaN',
            sold boolean default true, taken date default '2024-05-01',
            at timestamptz default '2024-05-01 10:00+02', nested jsonb default '{"a": {"b": [1, null, "ü"]}}',
            raw json default '{"x": "\\u0000y"}', tags text[] default '{a,b}',
            ident uuid default '9f3e0000-0000-4000-8000-000000000000', nothing text,
            "metadata" jsonb default '{"artist": "Cézanne", "whole": 4}', thumbnail bytea default '\\x00ff')
        """,
    )
    wanted = vectors(2)
    for n, vector in enumerate(wanted):
        text = str(vector.astype(float).tolist())
        array = text.replace("[", "{").replace("]", "}")
        execute(
            elsewhere,
            'insert into "My ""Shop""; drop" ("Bild %%s", "id?", v, h, r, d, t, j)'
            " values (%s, %s, %s, %s, %s::text::real[], %s::text::float8[], %s, %s)",
            values=[f"file:///photos/{n} 🌅.jpg", n + 7, text, text, array, array, text, text],
        )
    options: dict[str, Any] = {"uri_column": "Bild %s", "key_column": "id?", "model": MODEL}
    for number, column in enumerate("vhrdtj"):
        named = table if number % 2 else 'public."My ""Shop""; drop"'
        report = plain_images.import_table(elsewhere, named, vector_column=column, **options)
        assert_adds_up(report)
        assert (report.found, report.embedded, report.unchanged) == ((2, 2, 0) if number == 0 else (2, 0, 2)), column
        found = stored(dsn)
        uris = [uri_of(f"/photos/{n} 🌅.jpg") for n in range(2)]
        np.testing.assert_array_equal([found[uri] for uri in uris], wanted)
    ((key, metadata),) = rows(dsn, "select key, metadata from lookalike.files order by uri limit 1")
    assert key == "7"
    columns = {name: metadata.pop(name) for name in "rdtj"}  # what an import does not mention stays
    assert columns["d"] == wanted[0].astype(float).tolist()
    assert metadata == {
        "whole": 3,
        "fraction": 1.25,
        "odd": None,
        "sold": True,
        "taken": "2024-05-01",
        "at": "2024-05-01T08:00:00+00:00",
        "nested": {"a": {"b": [1, None, "ü"]}},
        "raw": {"x": "y"},
        "tags": ["a", "b"],
        "ident": "9f3e0000-0000-4000-8000-000000000000",
        "nothing": None,
        "artist": "Cézanne",
    }


def test_what_the_columns_usual_names_say(plain_images: Lookalike, elsewhere: str, dsn: str, tmp_path: Path) -> None:
    wanted = vectors(3)
    digests = [sha256(bytes([n])) for n in range(3)]
    execute(
        elsewhere,
        "create schema shop",
        "create table shop.photos (path text, key text, sha256 bytea, model text, embedding halfvec(8), title text)",
        "create view shop.hexadecimal as select path, encode(sha256, 'hex') sha256, embedding from shop.photos",
    )
    for n, vector in enumerate(wanted):
        execute(
            elsewhere,
            "insert into shop.photos values (%s, %s, %s, %s, %s, 'one')",
            values=[f"photos/{n}.jpg", f"sku-{n}", digests[n].digest(), MODEL, str(vector.astype(float).tolist())],
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert plain_images.import_table(elsewhere, "shop.photos", dry_run=True).embedded == 3
        assert rows(dsn, "select from lookalike.models") == []
        assert plain_images.import_table(elsewhere, "shop.photos", collection="shop").embedded == 3
        by_view = plain_images.import_table(elsewhere, "shop.hexadecimal", collection="shop", model=MODEL)
    assert (by_view.embedded, by_view.unchanged) == (0, 3)
    np.testing.assert_array_equal(
        [stored(dsn)[uri_of(tmp_path / "photos" / f"{n}.jpg")] for n in range(3)],
        wanted,
    )
    assert rows(dsn, "select distinct collection, metadata from lookalike.files") == [("shop", {"title": "one"})]
    assert sorted(rows(dsn, "select key from lookalike.files")) == [("sku-0",), ("sku-1",), ("sku-2",)]
    assert {digest for (digest,) in rows(dsn, "select sha256 from lookalike.images")} == {d.digest() for d in digests}


def test_bad_rows_are_explained_and_harm_no_other(plain_images: Lookalike, elsewhere: str) -> None:
    good = vectors(1)[0].astype(float).tolist()
    bad: list[tuple[str, Any, Any]] = [
        ("no-vector", None, None),
        ("no-vector", "[]", None),
        ("wrong-length", "[1,2,3]", None),
        ("not-numbers", "[[1,2],[3,4]]", None),
        ("not-finite", f"[{'null,' * 7}1]", None),
        ("not-finite", f"[{'1,' * 7}Infinity]", None),
        ("out-of-range", f"[{'1,' * 7}70000]", None),
        ("zero-vector", f"[{'0,' * 7}0]", None),
        ("bad-sha256", str(good), "abc"),
    ]
    execute(elsewhere, 'create table "Mixed" (uri text, embedding real[], sha256 text)')
    listed = [*bad, *((None, str(good), None) for _ in range(12))]
    for n, (_, vector, digest) in enumerate(listed):
        array = vector and vector.replace("[", "{").replace("]", "}")
        statement = 'insert into "Mixed" values (%s, %s::text::real[], %s)'
        execute(elsewhere, statement, values=[f"https://pictures.example/{n}.jpg", array, digest])
    execute(elsewhere, 'insert into "Mixed" (embedding) select embedding from "Mixed" limit 1')
    report = plain_images.import_table(elsewhere, "Mixed", vector_column="embedding", model=MODEL)
    assert_adds_up(report)
    assert (report.found, report.embedded, report.failed, report.new_failures) == (22, 12, 10, 10)
    codes = sorted(failure.code for failure in plain_images.failures())
    assert codes == sorted([*(code for code, _, _ in bad), "bad-row"])
    nameless = [failure.uri for failure in plain_images.failures("bad-row")]
    assert nameless[0].startswith("postgresql://")
    assert nameless[0].endswith("#public.Mixed#row-22")
    execute(elsewhere, 'delete from "Mixed" where uri is null')
    again = plain_images.import_table(elsewhere, "Mixed", vector_column="embedding", model=MODEL)
    assert (again.unchanged, again.failed, again.new_failures) == (12, 9, 0)
    assert plain_images.failures("bad-row") == []


# -- what is not -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_refused_with_a_way_out(
    plain_images: Lookalike, elsewhere: str, dsn: str, make_database: MakeDatabase
) -> None:
    without = make_database()
    execute(without, "create table arrays (uri text, numbers real[], price integer)")
    execute(
        elsewhere,
        "create table two (uri text, big vector(8), small halfvec(4), n integer)",
        "create table wide (uri text, embedding vector(1025))",
        "create table nowhere (embedding vector(8), thumbnail bytea)",
        "create table several (uri text, embedding vector(8), model text)",
        "insert into wide values ('a', array_fill(1, array[1025])::vector)",
        "insert into several values ('a', '[1,1,1,1,1,1,1,1]', 'a/1'), ('b', '[1,1,1,1,1,1,1,1]', 'b/2')",
        "create index nowhere_hnsw on nowhere using hnsw (embedding vector_l2_ops)",
    )
    refused: list[tuple[str, str, dict[str, Any], type[LookalikeError], str]] = [
        (elsewhere, "missing", {}, SourceNotFound, r"no table 'missing'.*public\.two"),
        (elsewhere, "missing.two", {}, SourceNotFound, "no table"),
        (elsewhere, "two; drop table two", {}, SourceNotFound, "no table"),
        (elsewhere, "a.b.c.d", {}, SourceNotFound, "no table"),
        (elsewhere, "", {}, SourceNotFound, "no table"),
        (elsewhere, "nowhere_hnsw", {}, ConfigurationError, "an index"),
        (without, "arrays", {}, ConfigurationError, r"--vector-column: uri \(text\), numbers \(real\[\]\)"),
        (without, "arrays", {"vector_column": "price"}, ConfigurationError, r"price \(integer\).*holds no vectors"),
        (without, "arrays", {"vector_column": "x"}, ConfigurationError, "no column 'x'. It has 'uri', 'numbers'"),
        (elsewhere, "two", {}, ConfigurationError, r"several.*big \(vector\(8\)\), small \(halfvec\(4\)\)"),
        (elsewhere, "two", {"vector_column": "big", "key_column": "x"}, ConfigurationError, "no column 'x'"),
        (elsewhere, "wide", {}, ConfigurationError, "1,025 numbers"),
        (elsewhere, "nowhere", {}, ConfigurationError, "--uri-column"),
        (elsewhere, "several", {}, ModelMismatch, "a/1|b/2"),
        ("", "two", {}, ConfigurationError, "is empty"),
        ("mysql://u:hunter2@host/db", "two", {}, ConfigurationError, "not PostgreSQL"),
        ("postgresql://u:hunter2@127.0.0.1:1/db", "two", {}, DatabaseUnavailable, "cannot be reached"),
    ]
    for url, table, columns, kind, reason in refused:
        with pytest.raises(kind, match=f"(?s){reason}") as error:
            plain_images.import_table(url, table, model=MODEL, **columns)
        assert "hunter2" not in str(error.value)
    with pytest.raises(TypeError, match="colection"):
        plain_images.import_table(elsewhere, "two", colection="x")  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="several models"):
        plain_images.import_table(elsewhere, "several")
    with pytest.raises(ConfigurationError, match="--model"):
        plain_images.import_table(elsewhere, "two", vector_column="big")
    assert rows(dsn, "select from lookalike.models union all select from lookalike.runs") == []


def test_vectors_of_another_length_are_of_another_model(plain_images: Lookalike, elsewhere: str, dsn: str) -> None:
    fill(elsewhere, "first", 2)
    fill(elsewhere, "second", 2, width=16)
    execute(elsewhere, "alter table second alter embedding type vector")
    plain_images.import_table(elsewhere, "first", model=MODEL)
    with pytest.raises(ConfigurationError, match="16 numbers"):
        plain_images.import_table(elsewhere, "second", model=MODEL)
    assert len(stored(dsn)) == 2


def test_a_table_that_may_not_be_read(plain_images: Lookalike, dsn: str, make_role: MakeRole) -> None:
    execute(dsn, "create schema closed")
    fill(dsn, "closed.photos", 2)
    nobody = make_role("nobody")
    with pytest.raises(DatabaseError, match=rf"(?s)may not be read.*grant usage on schema closed to {nobody}"):
        plain_images.import_table(dsn_as(dsn, nobody), "closed.photos", model=MODEL)
    execute(dsn, f"grant usage on schema closed to {nobody}")
    with pytest.raises(DatabaseError, match=rf"(?s)may not be read.*grant select on closed\.photos to {nobody}"):
        plain_images.import_table(dsn_as(dsn, nobody), "closed.photos", model=MODEL)
    execute(dsn, f"grant select on closed.photos to {nobody}")
    assert plain_images.import_table(dsn_as(dsn, nobody), "closed.photos", model=MODEL).embedded == 2


def test_arrays_are_texts_where_texts_are_wanted(plain_images: Lookalike, elsewhere: str, dsn: str) -> None:
    execute(elsewhere, "create table odd (uri text, key real[], embedding real[])")
    execute(elsewhere, "insert into odd values ('https://x.example/a', '{1,2.5}', '{1,2}')")
    plain_images.import_table(elsewhere, "odd", vector_column="embedding", model=MODEL)
    assert rows(dsn, "select key from lookalike.files") == [("{1,2.5}",)]


# -- streams ---------------------------------------------------------------------------------------------------------


def test_a_large_table_beside_the_library_itself(plain_images: Lookalike, dsn: str) -> None:
    wanted = fill(dsn, "photos", 3000)
    before = rows(dsn, "select count(*), max(xmin::text), min(ctid::text) from photos")
    seen: list[ImportReport] = []
    report = plain_images.import_table(dsn, "photos", model=MODEL, progress=seen.append)
    # which an open snapshot in the same database would hold up
    assert (report.embedded, report.index, report.building) == (3000, "rebuilt", None)
    known = "select count(*) from pg_stats where schemaname = 'lookalike' and tablename = 'files' and attname = 'uri'"
    assert rows(dsn, known) == [(1,)]
    assert any(so_far.building is not None and so_far.embedded == 3000 for so_far in seen)
    found = stored(dsn)
    np.testing.assert_array_equal([found[f"https://pictures.example/{n}.jpg"] for n in range(3000)], wanted)
    assert rows(dsn, "select count(*), max(xmin::text), min(ctid::text) from photos") == before


def test_the_librarys_own_tables_are_no_source_for_it(
    plain_images: Lookalike, dsn: str, make_database: MakeDatabase, template: str
) -> None:
    fill(dsn, "photos", 3)
    plain_images.import_table(dsn, "photos", model=MODEL)
    statement = (
        "create view mine as select f.uri, e.embedding from lookalike.files f"
        " join lookalike.elsewhere_model_1 e using (image_id)"
    )
    execute(dsn, statement)
    with pytest.raises(ConfigurationError, match="lookalike export"):
        plain_images.import_table(dsn, "mine", model="elsewhere/copy")
    with Lookalike.open(settings_for(make_database(template))) as another:
        report = another.import_table(dsn, "mine", model="elsewhere/copy")
        assert (report.embedded, another.status().models[0].dimensions) == (3, 1024)


def test_a_run_that_is_stopped_adds_up_and_goes_on(plain_images: Lookalike, elsewhere: str) -> None:
    fill(elsewhere, "photos", 2700)
    stop = threading.Event()

    def progress(report: ImportReport) -> None:
        if report.embedded:
            stop.set()

    report = plain_images.import_table(elsewhere, "photos", model=MODEL, progress=progress, stop=stop)
    assert (report.stopped, report.found, report.embedded, report.pending) == ("interrupted", 2700, 10, 2690)
    again = plain_images.import_table(elsewhere, "photos", model=MODEL)
    assert (again.embedded, again.unchanged, again.stopped) == (2690, 10, None)


def test_what_is_read_once_more_after_a_crash_is_as_it_was(
    plain_images: Lookalike, elsewhere: str, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(elsewhere, "create table moments (uri text, taken timestamptz, embedding extensions.vector(2))")
    execute(elsewhere, "insert into moments values ('https://x.example/a', '2026-01-02 03:04:05+00', '[1,2]')")
    crashes = iter(range(2))
    # the library's server crashes once, while rows are read
    monkeypatch.setattr(precomputed, "reach_disk", lambda *_: next(crashes, 1))
    there = elsewhere.removesuffix("'") + " -c TimeZone=Asia/Tokyo'"
    plain_images.import_table(there, "moments", model=MODEL)
    assert rows(dsn, "select metadata->>'taken' from lookalike.files") == [("2026-01-02T03:04:05+00:00",)]


def test_a_connection_that_breaks_is_told_with_what_was_done(plain_images: Lookalike, elsewhere: str) -> None:
    fill(elsewhere, "photos", 10)

    def progress(report: ImportReport) -> None:
        if report.pending:
            execute(
                elsewhere,
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()",
            )

    with pytest.raises(DatabaseUnavailable, match="database of the table") as error:
        plain_images.import_table(elsewhere, "photos", model=MODEL, progress=progress)
    report = error.value.report
    assert_adds_up(report)
    assert (report.found, report.embedded, report.pending) == (10, 0, 10)
    assert "database of the table" in report.stopped
    assert plain_images.import_table(elsewhere, "photos", model=MODEL).embedded == 10


def test_memory_does_not_grow_with_the_table(elsewhere: str) -> None:
    fill(elsewhere, "photos", 3000, width=256)
    tracemalloc.start()
    try:
        with DatabaseTable(elsewhere, "photos") as table:
            assert (table.count, table.width) == (3000, 256)
            assert sum(row.vector is not None for row in table.rows()) == 3000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_500_000  # all of them take 6 MB


# -- the command line ------------------------------------------------------------------------------------------------


def test_the_command(run: RunCommand, elsewhere: str, dsn: str) -> None:
    fill(elsewhere, '"Photos"', 3)
    place = psycopg.conninfo.conninfo_to_dict(elsewhere)
    url = (
        f"postgres+asyncpg://{place['user']}:hunter2secret@/{place['dbname']}?host={quote(str(place['host']))}"
        f"&port={place['port']}&options={quote(str(place['options']))}"
    )
    done = run("import", "--from-table", url, "Photos", "--model", MODEL, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    keys = ("model", "found", "embedded", "unchanged", "failed", "index")
    assert [document[key] for key in keys] == [MODEL, 3, 3, 0, 0, "kept"]
    execute(elsewhere, 'insert into "Photos" (uri) values (null)')
    again = run("import", "--from-table", url, "Photos", "--model", MODEL)
    assert (again.returncode, again.stdout) == (1, f"4 rows under {MODEL}: 0 embedded, 3 unchanged, 1 failed (1 new)\n")
    wrong = [
        run("import", "--from-table", url, "nowhere", "--model", MODEL),
        run("import", "--from-table", url, "Photos", "x.npz"),
    ]
    assert [process.returncode for process in wrong] == [2, 2]
    assert "There is no table 'nowhere'" in wrong[0].stderr
    said = [text for process in (done, again, *wrong) for text in (process.stdout, process.stderr)]
    with psycopg.connect(dsn) as connection:
        names = connection.execute("select relname from pg_class where relnamespace = 'lookalike'::regnamespace")
        for (name,) in names.fetchall():
            if name in ("failures", "runs", "files", "images"):
                query = sql.SQL("select t::text from lookalike.{} t").format(sql.Identifier(name))
                said += [text for (text,) in connection.execute(query).fetchall()]
    assert "hunter2" not in "".join(said)
