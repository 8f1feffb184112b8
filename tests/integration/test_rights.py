"""Roles of a site's own: what readers may see, what writers may do, and who may say so."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from lookalike import ConfigurationError, DatabaseError, Lookalike
from lookalike.emulator import Emulator
from lookalike.store import schema
from lookalike.store.database import Database
from lookalike.store.rights import READABLE, READERS_FUNCTIONS, grant

from ..conftest import MakeDatabase, MakeRole, RunCommand, draw_pictures, dsn_as, settings_for

ODD = 'we"ird; drop role x --'


def let(dsn: str, *, readers: tuple[str, ...] = (), writers: tuple[str, ...] = ()) -> None:
    with Database(dsn) as database, database.transaction() as connection:
        grant(connection, readers=readers, writers=writers)


def refused(connection: psycopg.Connection, statement: str) -> None:
    # views of several tables take no rows from anybody
    refusals = (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)
    with pytest.raises(refusals), connection.transaction():
        connection.execute(statement.encode())


def test_a_reader_sees_everything_but_the_vectors_of_all_models(
    images: Lookalike, emulator: Emulator, photos: Path, dsn: str, make_role: MakeRole
) -> None:
    images.ingest(photos)
    images.search("a blue house")
    reader, stranger = make_role("reader"), make_role("stranger")
    let(dsn, readers=(reader,))
    with psycopg.connect(dsn_as(dsn, reader), autocommit=True) as connection:
        for name in (*READABLE, "azure_vision_2023_04_15"):
            connection.execute(f"select * from lookalike.{name}".encode())
        assert len(connection.execute("select * from lookalike.search_text('a blue house')").fetchall()) == 10
        similar = "select * from lookalike.similar_images((select min(image_id::text)::uuid from lookalike.images))"
        assert len(connection.execute(similar).fetchall()) == 10

        for name in ("embeddings", "embeddings_1", "queries", "claims", "rates", "adaptations"):
            refused(connection, f"select * from lookalike.{name}")
        tables = connection.execute(
            "select relname, relkind from pg_class"
            " where relnamespace = 'lookalike'::regnamespace and relkind in ('r', 'p', 'v')"
        ).fetchall()
        assert len(tables) > 12
        for name, kind in tables:
            refused(connection, f"insert into lookalike.{name} default values")
            refused(connection, f"delete from lookalike.{name}")
            if kind != "v":
                refused(connection, f"truncate lookalike.{name}")
        refused(connection, "select lookalike.add_model('a/b', 'a', 'b')")
        refused(connection, "select lookalike.merge_batch('azure-vision/2023-04-15')")
        refused(connection, "create table lookalike.mine (id integer)")
    with Lookalike.open(settings_for(dsn_as(dsn, reader), emulator)) as library:
        assert library.status().images == 20
        assert [known.text for known in library.remembered()] == ["a blue house"]
        assert [status.rows for status in library.index.status()] == [20]
        assert library.index.recall(queries=10).texts == ("a blue house",)
        billed = emulator.stats()["billed"]
        with pytest.raises(DatabaseError, match="paid for in vain"):
            library.remember("a purple cow")
        assert emulator.stats()["billed"] == billed
    with psycopg.connect(dsn_as(dsn, stranger), autocommit=True) as connection:
        refused(connection, "select * from lookalike.library")
        refused(connection, "select * from lookalike.similar_images(null)")
    with psycopg.connect(dsn) as connection:
        open_to_all = connection.execute(
            "select proname from pg_proc where pronamespace = 'lookalike'::regnamespace"
            " and has_function_privilege(%s, oid, 'execute')",
            [stranger],
        ).fetchall()
        readers = connection.execute(
            "select distinct proname from pg_proc where pronamespace = 'lookalike'::regnamespace"
            " and has_function_privilege(%s, oid, 'execute')",
            [reader],
        ).fetchall()
    assert open_to_all == []
    assert {name for (name,) in readers} == set(READERS_FUNCTIONS)


def test_the_functions_trust_no_callers_names(images: Lookalike, photos: Path, dsn: str, make_role: MakeRole) -> None:
    """What runs with the owner's rights must not find operators and tables that a caller has put in its way."""
    images.ingest(photos)
    images.search("a blue house")
    reader = make_role("reader")
    let(dsn, readers=(reader,))
    trap = sql.SQL("create schema trap; grant usage on schema trap to {0}; alter schema trap owner to {0}").format(
        sql.Identifier(reader)
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(trap)
    with psycopg.connect(dsn_as(dsn, reader), autocommit=True) as connection:
        for statement in (
            "create function trap.caught(public.halfvec, public.halfvec) returns float8 language plpgsql"
            " as $$ begin raise exception 'caught'; end $$",
            "create operator trap.<=> (leftarg = public.halfvec, rightarg = public.halfvec, function = trap.caught)",
            "create function trap.l2_norm(public.halfvec) returns float8 language plpgsql"
            " as $$ begin raise exception 'caught'; end $$",
            "create temporary table models (name text)",
            "create temporary table files (uri text)",
            "set search_path = trap, pg_temp, public, pg_catalog",
        ):
            connection.execute(statement.encode())
        (image,) = connection.execute("select image_id from lookalike.images order by 1 limit 1").fetchone() or (None,)
        for call in (
            *("similar_images(%(i)s)", "similar_many(array[%(i)s]::uuid[])", "search_text('a blue house')"),
            "search_vector(lookalike.image_embedding(%(i)s), 'azure-vision/2023-04-15')",
        ):
            found = connection.execute(f"select * from lookalike.{call}".encode(), {"i": image}).fetchall()
            assert len(found) == 10
        assert connection.execute("select lookalike.cosine_similarity(%(i)s, %(i)s)", {"i": image}).fetchone() == (1.0,)


def test_a_writer_brings_in_the_first_pictures_and_readers_see_them(
    dsn: str, emulator: Emulator, run_process: RunCommand, photos: Path, tmp_path: Path, make_role: MakeRole
) -> None:
    reader, writer = make_role("reader"), make_role("writer")
    granted = run_process("db", "grant", "--reader", reader, "--writer", writer)
    assert granted.returncode == 0, granted.stderr
    assert f"{reader} may read in" in granted.stderr
    more = tmp_path / "more"
    first, second, *_ = draw_pictures(more, 4, seed=5)
    with Lookalike.open(settings_for(dsn_as(dsn, writer), emulator)) as library:
        assert library.ingest(photos).embedded == 20
        assert library.ingest(more, collection="more").embedded == 4
        assert library.backfill("azure-vision/2022-04-11").embedded == 24
        assert len(library.search("a blue house")) == 10
        assert len(library.similar(first)) == 10
        assert library.delete(str(first)).images == 1
        second.unlink()
        first.unlink()
        assert library.ingest(more, collection="more", prune=True).pruned_files == 1
        assert library.status().images == 22
    with psycopg.connect(dsn_as(dsn, reader), autocommit=True) as connection:
        for view in ("azure_vision_2023_04_15", "azure_vision_2022_04_11", "active_embeddings"):
            counted = connection.execute(f"select count(*) from lookalike.{view}".encode()).fetchone()
            assert counted == (22,)
        assert len(connection.execute("select * from lookalike.search_text('a blue house')").fetchall()) == 10
        refused(connection, "select * from lookalike.embeddings_2")
    with psycopg.connect(dsn_as(dsn, writer), autocommit=True) as connection:
        refused(connection, "update lookalike.models set state = 'dropped'")
        refused(connection, "drop view lookalike.library")


def test_an_upgrade_gives_new_functions_to_those_who_could_read(dsn: str, make_role: MakeRole) -> None:
    by_hand, reader, writer = make_role("by_hand"), make_role("reader"), make_role("writer")
    let(dsn, readers=(reader,), writers=(writer,))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL(
                "grant usage on schema lookalike to {0}; grant select on lookalike.active_embeddings to {0};"
                "drop function lookalike.cosine_similarity; grant execute on function lookalike.merge_batch to public"
            ).format(sql.Identifier(by_hand))
        )
    for _ in range(2):
        with Database(dsn) as database:
            database.upgrade()
        for role in (by_hand, reader, writer):
            with psycopg.connect(dsn_as(dsn, role), autocommit=True) as connection:
                for function in READERS_FUNCTIONS:
                    asked = connection.execute(
                        "select bool_and(has_function_privilege(oid, 'execute')) from pg_proc where proname = %s",
                        [function],
                    )
                    assert asked.fetchone() == (True,), (role, function)
                if role != writer:
                    refused(connection, "select lookalike.merge_batch('a/b')")
        # and no more than they had
        with psycopg.connect(dsn_as(dsn, by_hand), autocommit=True) as connection:
            refused(connection, "select * from lookalike.files")


def test_names_of_roles_are_only_names(dsn: str, make_role: MakeRole, run: RunCommand) -> None:
    odd = make_role(ODD)
    assert run("db", "grant", "--reader", odd, "--writer", odd, "--writer", odd).returncode == 0
    with psycopg.connect(dsn_as(dsn, odd), autocommit=True) as connection:
        assert connection.execute("select * from lookalike.library").fetchall() == []


def test_a_grant_that_cannot_be_made_is_explained_and_grants_nothing(
    dsn: str, make_role: MakeRole, run: RunCommand
) -> None:
    reader, other = make_role("reader"), make_role("other")
    nobody = run("db", "grant", "--reader", reader, "--writer", "no body")
    assert nobody.returncode == 2
    assert 'create role "no body" login' in nobody.stderr
    assert run("db", "grant").returncode == 2
    with pytest.raises(ConfigurationError, match="--reader ROLE"):
        let(dsn)
    with psycopg.connect(dsn_as(dsn, reader), autocommit=True) as connection:
        refused(connection, "select * from lookalike.library")
    let(dsn, readers=(reader,))
    with pytest.raises(DatabaseError, match=f"lookalike db grant --reader {other}") as caught:
        let(dsn_as(dsn, reader), readers=(other,))
    assert "Only the owner" in str(caught.value)


def test_an_owner_who_is_no_superuser(
    make_database: MakeDatabase, make_role: MakeRole, emulator: Emulator, photos: Path
) -> None:
    """Makes the tables, grants, searches; what only an administrator may give is named."""
    dsn = make_database()
    owner, reader, writer = make_role("owner"), make_role("reader"), make_role("writer")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create schema extensions; create extension vector schema extensions")
        connection.execute(
            sql.SQL("alter database {} owner to {}").format(
                sql.Identifier(connection.info.dbname), sql.Identifier(owner)
            )
        )
        # as strict administrators have it
        connection.execute(
            sql.SQL("revoke all on database {} from public").format(sql.Identifier(connection.info.dbname))
        )
        connection.execute(sql.SQL("grant usage on schema extensions to {}").format(sql.Identifier(owner)))
    try:
        with Database(dsn_as(dsn, owner)) as database:
            database.upgrade()
            with database.transaction() as connection:
                assert schema.defaults(connection) == schema.DEFAULTS
        with pytest.raises(DatabaseError, match="grant usage on schema") as caught:
            let(dsn_as(dsn, owner), readers=(reader,), writers=(writer,))
        (statement,) = [line for line in str(caught.value).splitlines() if line.startswith("  grant")]
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(statement.encode())
            connection.execute(statement.replace(reader, writer).encode())
        let(dsn_as(dsn, owner), readers=(reader,), writers=(writer,))
        with Lookalike.open(settings_for(dsn_as(dsn, writer), emulator)) as library:
            assert library.ingest(photos).embedded == 20
            library.search("a blue house")
        with psycopg.connect(dsn_as(dsn, reader), autocommit=True) as connection:
            found = connection.execute("select image_id from lookalike.search_text('a blue house', 5)").fetchall()
            similar = "select * from lookalike.similar_images(%s, 30)"
            assert len(found) == 5
            assert len(connection.execute(similar, found[0]).fetchall()) == 19
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for role in (owner, reader, writer):
                connection.execute(
                    sql.SQL("reassign owned by {0} to current_user; drop owned by {0}").format(sql.Identifier(role))
                )
