"""Indexes on keys of the metadata: what they answer, what they must not break, and how they come and go."""

from __future__ import annotations

import contextlib
import json
import operator
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from lookalike import (
    BuildProgress,
    ConfigurationError,
    DatabaseError,
    InvalidFilter,
    Lookalike,
    MetadataIndexBuild,
    field,
)
from lookalike.filters import Filter, as_where, parse_key
from lookalike.store.conditions import Conditions
from lookalike.store.database import Database
from lookalike.store.metadata_index import build_metadata_index, metadata_indexes

from ..conftest import MakeDatabase, MakeRole, RunCommand, dsn_as, settings_for
from .test_index_care import held
from .test_ingest import rows

COUNT = 1500
HUGE = "9" * 5000
ODD: list[Any] = [None, True, False, [], [1900], {}, {"a": 1}, "", "1900", -0.5, 0, 1e-31, 10**40, -(10**40), 1.5e300]

Eventually = Callable[[Callable[[], bool]], None]


def long_text(number: int) -> str:
    """A text that no index could hold, and that does not compress."""
    return "z" * 199 + "".join(random.Random(number).choices("abcdefghijklmnop0123456789", k=50_000))


@pytest.fixture(scope="module")
def told() -> list[dict[str, Any]]:
    """The metadata of each file."""
    year = [{"year": 1000 + n} for n in range(COUNT)]
    artists = [one | {"artist": f"painter {n % 400:03}"} for n, one in enumerate(year)]
    taken = [one | {"exif": {"taken": f"2020-{1 + n % 12:02}-{1 + n % 28:02}"}} for n, one in enumerate(artists)]
    rare = [one | ({"rare": n} if n % 500 == 0 else {}) for n, one in enumerate(taken)]
    mixed = [one | {"mixed": ODD[n % len(ODD)]} for n, one in enumerate(rare)]
    return [one if n % 500 else one | {"mixed": long_text(n)} for n, one in enumerate(mixed)]


def add_files(dsn: str, told: list[dict[str, Any]], prefix: str = "a") -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "with f as materialized (select gen_random_uuid() as image_id, metadata, n"
            " from unnest(%s::jsonb[]) with ordinality as told (metadata, n)),"
            " i as (insert into lookalike.images (image_id) select image_id from f)"
            " insert into lookalike.files (image_id, uri, key, metadata)"
            " select image_id, 'x:' || %s || n - 1, 'k' || n - 1, metadata from f",
            [[Jsonb(one) for one in told], prefix],
        )


@pytest.fixture(scope="module")
def library(module_images: Lookalike, module_dsn: str, told: list[dict[str, Any]]) -> Lookalike:
    """Some thousand files, and indexes on five keys."""
    add_files(module_dsn, told)
    for key in ("year", "artist", "exif.taken", "rare", "mixed"):
        assert module_images.index.metadata(key).was == "missing"
    return module_images


def asked(dsn: str, where: Filter, *, by_index: bool = True) -> tuple[set[int], str]:
    """The numbers of the files that a filter keeps, by either form of it, and the plan by which they are found."""
    conditions = Conditions(as_where(where), None)
    statement = f"select f.uri from lookalike.files f where {conditions.sql}"
    with psycopg.connect(dsn) as connection:
        connection.execute("set plan_cache_mode = force_custom_plan")
        avoided = ("enable_seqscan",) if by_index else ("enable_indexscan", "enable_bitmapscan")
        for name in avoided:
            connection.execute(f"set {name} = off".encode())
        found = connection.execute(statement.encode(), conditions.parameters).fetchall()
        plan = connection.execute(f"explain {statement}".encode(), conditions.parameters).fetchall()
        checked = f"select f.uri from lookalike.files f where {conditions.check}".encode()
        assert set(connection.execute(checked, conditions.parameters)) == set(found)
    return {int(uri[3:]) for (uri,) in found}, "\n".join(line for (line,) in plan)


# -- what they answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ("year>=2490", "files_metadata_year"),
        ("year in 1100..1105", "files_metadata_year"),
        ("year<1003.5", "files_metadata_year"),
        ("exif.taken>=2020-12-27", "files_metadata_exif_taken"),
        ("artist^='painter 39'", "files_metadata_artist"),
        ("artist<'painter 002'", "files_metadata_artist"),
        ("rare exists", "files_metadata_rare"),
        (field("year").in_(range(1500, 1540)), "files_metadata_year"),
        (field("artist").in_([f"painter {n:03}" for n in range(40)]), "files_metadata_artist"),
        ("key=k17", "files_key"),
        ("key in (k17, k18)", "files_key"),
        # the index over all metadata is faster at what equals
        ("artist='painter 017'", "files_metadata "),
        ("year=1872", "files_metadata "),
        ("year in (1872, 1873)", "files_metadata "),
    ],
)
def test_a_condition_is_answered_by_an_index(
    library: Lookalike,  # noqa: ARG001
    module_dsn: str,
    where: Filter,
    index: str,
) -> None:
    found, plan = asked(module_dsn, where)
    assert index in plan
    assert "Seq Scan" not in plan
    assert found == asked(module_dsn, where, by_index=False)[0] != set()


def test_how_many_a_range_keeps_is_known_at_once(library: Lookalike, module_dsn: str) -> None:  # noqa: ARG001
    estimated = rows(
        module_dsn,
        "select stanullfrac from pg_statistic s join pg_class c on c.oid = starelid"
        " where c.relname like 'files_metadata_year%' and staattnum = 2",
    )
    assert estimated == [(0.0,)]


def test_an_index_changes_no_answer(library: Lookalike, module_dsn: str, told: list[dict[str, Any]]) -> None:  # noqa: ARG001
    """Numbers compare with numbers and texts with texts, however long; nothing else is more or less."""
    long = long_text(500)
    values: list[Any] = [0, -0.5, 1e-31, 1.5e300, 10**40, 10**41, 1900, "", "1900", "z", long, long[:200], long[:300]]
    mixed = {n: one["mixed"] for n, one in enumerate(told)}
    for value in values:
        kind = str if isinstance(value, str) else int | float
        alike = {n: one for n, one in mixed.items() if isinstance(one, kind) and not isinstance(one, bool)}

        def passes(test: Callable[[Any, Any], bool], alike: dict[int, Any] = alike, value: Any = value) -> set[int]:
            return {n for n, one in alike.items() if test(one, value)}

        subject = field("mixed")
        expected = [
            (subject < value, passes(operator.lt)),
            (subject <= value, passes(operator.le)),
            (subject > value, passes(operator.gt)),
            (subject >= value, passes(operator.ge)),
            (subject.in_([value] * 40), passes(operator.eq)),
        ]
        if isinstance(value, str):
            expected.append((subject.startswith(value), passes(str.startswith)))
        for where, right in expected:
            assert asked(module_dsn, where)[0] == right, str(where)[:100]
            assert asked(module_dsn, ~where)[0] == mixed.keys() - right, str(where)[:100]
    assert asked(module_dsn, "mixed exists")[0] == {n for n, one in mixed.items() if one is not None}


# -- what they must not break ----------------------------------------------------------------------------------------


def test_nothing_is_too_long_to_be_stored(images: Lookalike, dsn: str) -> None:
    images.index.metadata("told")
    words = "".join(random.Random(1).choices("αβγδεζηθ", k=100_000))
    add_files(dsn, [{"told": words}, {"told": {"deep": words}}, {"told": [words]}, {"told": {words[:9000]: 1}}])
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "update lookalike.files set metadata = %s::jsonb where uri = 'x:a2'", [f'{{"told": {HUGE}}}']
        )
        connection.execute(
            "update lookalike.files set metadata = %s::jsonb where uri = 'x:a3'", [f'{{"told": -0.{HUGE}}}']
        )
    assert asked(dsn, field("told") > 1e300)[0] == {2}
    assert asked(dsn, field("told") < -0.5)[0] == {3}
    assert asked(dsn, field("told").startswith(words[:5000]))[0] == {0}
    assert asked(dsn, "told exists")[0] == {0, 1, 2, 3}


KEYS = [
    *("a", "A", "a b", "a'b", 'a"b', "a\\b", "a''b", "'::text) -> 'x", "{}", "%s", "%(w0)s", ") <> 'null'::jsonb"),
    *(
        "日本",
        "\U0001f600",
        "\n\t",
        " ",
        "x" * 500,
        "x" * 501,
        "value",
        "metadata",
        "uri",
        "-> 'a'::text",
        "$1",
        "e\\'f",
    ),
]


def test_any_key_can_have_an_index_and_is_found_again(images: Lookalike, dsn: str) -> None:
    with Database(dsn) as database:
        keys = [field("metadata", *path).name for path in [*((key,) for key in KEYS), ("a", "b"), ("a.b",), ("", "")]]
        for key in keys:
            build_metadata_index(database, key)
        found = metadata_indexes(database)
        assert {one.key for one in found} == set(map(str, keys))
        assert len({one.index for one in found}) == len(keys)
        assert all(len(one.index.encode()) <= 63 for one in found)
        assert all(parse_key(one.key) in keys for one in found)
        assert build_metadata_index(database, keys[2]).was == "valid"
    for one in found:
        images.index.drop_metadata(one.key)
    assert images.index.metadata_indexes() == []


def test_an_index_is_known_by_what_it_holds(
    images: Lookalike, dsn: str, make_database: MakeDatabase, template: str
) -> None:
    made = images.index.metadata("exif.taken").index
    ((definition,),) = rows(dsn, f"select pg_get_indexdef('lookalike.{made}'::regclass)")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("alter index lookalike.{} rename to another").format(sql.Identifier(made)))
        # others' indexes stay theirs
        connection.execute("create index files_metadata_year on lookalike.files ((metadata ->> 'year'))")
        connection.execute(
            "create index on lookalike.files ((metadata ->> 'a'), (metadata ->> 'b'))"
            " where (metadata -> 'year'::text) <> 'null'::jsonb"
        )
        connection.execute(sql.SQL("create index {} on lookalike.images (width)").format(sql.Identifier(made)))
    assert [(one.key, one.index) for one in images.index.metadata_indexes()] == [("exif.taken", "another")]
    assert images.index.metadata("exif.taken").was == "valid"
    assert images.index.drop_metadata("exif.taken") == ("another",)
    again = images.index.metadata("exif.taken").index
    assert again == f"{made}_2"
    # as a dump and restore makes it
    other = make_database(template)
    with psycopg.connect(other, autocommit=True) as connection:
        connection.execute(definition.encode())
    with Lookalike.open(settings_for(other)) as restored:
        assert [(one.key, one.index) for one in restored.index.metadata_indexes()] == [("exif.taken", made)]


def test_what_is_no_key_is_refused(images: Lookalike) -> None:
    for key in ("", "a b", "uri", "created_at", "a..b", "'a", "a=1"):
        with pytest.raises(InvalidFilter):
            images.index.metadata(key)
    assert images.index.metadata("metadata.uri").key == "metadata.uri"


# -- how they come and go --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def building(images: Lookalike, key: str, **options: Any) -> Iterator[list[MetadataIndexBuild]]:
    """A build in a thread of its own."""
    done: list[MetadataIndexBuild] = []

    def build() -> None:
        with contextlib.suppress(DatabaseError):
            done.append(images.index.metadata(key, **options))

    thread = threading.Thread(target=build)
    thread.start()
    yield done
    thread.join()


def test_a_build_keeps_nobody_waiting_and_can_be_cancelled(images: Lookalike, dsn: str, eventually: Eventually) -> None:
    stop, seen = threading.Event(), list[BuildProgress]()
    add_files(dsn, [{"year": n} for n in range(10)])
    with (
        held(dsn, "lock table lookalike.files in row exclusive mode") as other,
        building(images, "year", stop=stop, progress=seen.append) as done,
    ):
        eventually(lambda: bool(seen))
        assert [one.state for one in images.index.metadata_indexes()] == ["building"]
        with pytest.raises(DatabaseError, match="somebody else"):
            images.index.metadata("year")
        add_files(dsn, [{"year": n} for n in range(10)], "b")
        stop.set()
        eventually(lambda: rows(dsn, "select pid from pg_stat_progress_create_index") == [])
        other.commit()
    assert done[0].stopped == "interrupted"
    assert images.index.metadata_indexes() == []
    assert images.index.metadata("year").was == "missing"


def test_what_a_killed_build_leaves_behind_is_replaced(images: Lookalike, dsn: str, eventually: Eventually) -> None:
    with held(dsn, "lock table lookalike.files in row exclusive mode"), building(images, "year") as done:
        eventually(lambda: any(one.build is not None for one in images.index.metadata_indexes()))
        rows(dsn, "select pg_terminate_backend(pid) from pg_stat_progress_create_index")
    assert done == []
    (left,) = images.index.metadata_indexes()
    assert (left.key, left.state) == ("year", "invalid")
    built = images.index.metadata("year")
    assert (built.was, built.removed, built.index) == ("invalid", (left.index,), left.index)
    assert [one.state for one in images.index.metadata_indexes()] == ["valid"]


def test_who_may_not_is_told_so(images: Lookalike, dsn: str, make_role: MakeRole) -> None:
    role = make_role("writer")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("grant usage on schema lookalike to {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("grant all on all tables in schema lookalike to {}").format(sql.Identifier(role)))
    images.index.metadata("year")
    with Database(dsn_as(dsn, role)) as database:
        assert [one.key for one in metadata_indexes(database)] == ["year"]
        with pytest.raises(DatabaseError, match=f"owner of the table .* {role}"):
            build_metadata_index(database, parse_key("artist"))
    with Database(dsn, transaction_pooler=True) as pooled, pytest.raises(ConfigurationError, match="pooler"):
        build_metadata_index(pooled, parse_key("artist"))


def test_the_command(dsn: str, run: RunCommand, run_process: RunCommand) -> None:
    add_files(dsn, [{"exif": {"year": n}} for n in range(10)])
    built = json.loads(run_process("index", "metadata", "exif.year", "--json").stdout)
    assert (built["key"], built["was"], built["stopped"]) == ("exif.year", "missing", None)
    listed = run("index", "metadata")
    assert built["index"] in listed.stdout
    assert "valid" in listed.stdout
    assert json.loads(run("index", "metadata", "exif.year", "--drop", "--json").stdout)["dropped"] == [built["index"]]
