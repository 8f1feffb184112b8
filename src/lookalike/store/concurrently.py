"""Building and dropping indexes while everything else goes on: watched, cancelled, and cleared up after."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import psycopg
from psycopg import sql

from lookalike.errors import DatabaseError
from lookalike.reports import BuildProgress
from lookalike.store.database import Database

_TICK_SECONDS = 0.25
_CLEANING_LOCK_TIMEOUT = "3s"

_PROGRESS = """
select p.phase, p.index_relid,
       case when p.blocks_total > 0 then p.blocks_done::float8 / p.blocks_total
            when p.tuples_total > 0 then p.tuples_done::float8 / p.tuples_total end
  from pg_stat_progress_create_index p
 where p.datname = current_database() and p.relid = to_regclass(%s)
"""


class Stopped(Exception):
    """Somebody wants the build to end."""


def qualified(name: str) -> str:
    """A table or index of ours, with its schema."""
    return f"lookalike.{name}"


def owned(connection: psycopg.Connection, table: str) -> bool:
    """Whether this role may build and drop the indexes of a table."""
    row = connection.execute(
        "select pg_has_role(relowner, 'usage') and has_schema_privilege(relnamespace, 'create')"
        "  from pg_class where oid = to_regclass(%s)",
        [qualified(table)],
    ).fetchone()
    return bool(row and row[0])


def progress_of(connection: psycopg.Connection, table: str) -> tuple[BuildProgress, str | None] | None:
    """How far a build on a table is, and the name of what is being built."""
    row = connection.execute(_PROGRESS, [qualified(table)]).fetchone()
    if row is None:
        return None
    phase, index, share = row
    named = connection.execute("select relname from pg_class where oid = %s", [index]).fetchone()
    return BuildProgress(phase, None if share is None else min(share, 1.0)), named[0] if named else None


def run(
    database: Database,
    session: psycopg.Connection,
    statement: bytes | sql.Composed,
    *,
    table: str,
    unfinished: str | None,
    progress: Callable[[BuildProgress], None] | None,
    stop: threading.Event,
) -> None:
    """Execute what takes long in a thread of its own, so that it can be watched and cancelled.

    Args:
        table: whose index is built.
        unfinished: the index that is removed if nobody waits for it any more.

    Raises:
        Stopped: `stop` was set, and the statement cancelled.
    """
    failed: list[BaseException] = []

    def execute() -> None:
        try:
            session.execute(statement)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=execute, name="lookalike-index")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_TICK_SECONDS)
            if stop.is_set() and thread.is_alive():
                session.cancel_safe()
            elif progress is not None and thread.is_alive():
                with contextlib.suppress(DatabaseError), database.transaction() as connection:
                    if (found := progress_of(connection, table)) is not None:
                        progress(found[0])
    except BaseException:
        # nobody waits for it any more
        with contextlib.suppress(psycopg.Error):
            session.cancel_safe()
        thread.join()
        if unfinished is not None:
            cleared(session, unfinished)
        raise
    if failed:
        if stop.is_set() and isinstance(failed[0], psycopg.errors.QueryCanceled):
            raise Stopped
        raise failed[0]


def dropping(name: str) -> sql.Composed:
    """The statement that drops an index, once nobody uses it."""
    return sql.SQL("drop index concurrently if exists lookalike.{}").format(sql.Identifier(name))


def cleared(session: psycopg.Connection, name: str) -> bool:
    """Drop what there is of an index, unless somebody's open transaction keeps it for longer than a moment."""
    try:
        session.execute(f"set lock_timeout = '{_CLEANING_LOCK_TIMEOUT}'".encode())
        session.execute(dropping(name))
        session.execute("set lock_timeout = 0")
    except psycopg.Error:
        return False
    return True
