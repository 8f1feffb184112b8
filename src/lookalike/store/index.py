"""Care of the HNSW indexes: how they are, building and replacing them while searches go on, and doing without one."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import psycopg
from psycopg import sql

from lookalike.errors import ConfigurationError, DatabaseError, DatabaseUnavailable
from lookalike.reports import BuildProgress, IndexBuild, IndexStatus
from lookalike.store.concurrently import Stopped, cleared, dropping, owned, progress_of, qualified, run
from lookalike.store.database import Database
from lookalike.store.models import StoredModel, models

_MIB = 1 << 20
_LEAST_MEMORY = 64 * _MIB
"""With less, PostgreSQL gives a build no further worker."""
_MOST_MEMORY = 2047 << 30

_SWAP_LOCK_TIMEOUT = "1s"
_SWAP_SECONDS = 300.0
_SWAP_PAUSE = 0.5
_ROWS_PER_WORKER = 5_000
_UNITS = {"kb": 1 << 10, "mb": _MIB, "gb": 1 << 30, "tb": 1 << 40}

_DEFAULT_OPTIONS = ("m=16", "ef_construction=64")

_HAD = "The index is missing because of a large load. It was built with "
"""What a table is noted to have had, should the load be interrupted; the parameters follow."""

_INDEXES = """
select c.relname, x.indisvalid and x.indisready, coalesce(c.reloptions, '{}')
  from pg_index x
  join pg_class c on c.oid = x.indexrelid
  join pg_am a on a.oid = c.relam and a.amname = 'hnsw'
 where x.indrelid = to_regclass(%s)
 order by c.relname
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """The HNSW indexes of one model's table.

    Attributes:
        state: of the one that searches use.
        options: its parameters, or those it would be built with.
        left_overs: names of all others, and whether each is valid.
    """

    state: Literal["valid", "invalid", "missing"]
    options: tuple[str, ...]
    left_overs: dict[str, bool]


def index_status(database: Database, name: str | None = None) -> list[IndexStatus]:
    """How the index of each model is, or of the one named.

    Raises:
        DatabaseError: the database cannot be asked.
    """
    with database.transaction() as connection:
        return [_status(connection, stored) for stored in models(connection) if name in (None, stored.model.name)]


def build_index(
    database: Database,
    stored: StoredModel,
    *,
    memory: int | None = None,
    workers: int | None = None,
    options: tuple[str, ...] | None = None,
    progress: Callable[[BuildProgress], None] | None = None,
    stop: threading.Event | None = None,
) -> IndexBuild:
    """Build a model's index anew and put it into the place of what was there; reads and writes go on meanwhile.

    What killed builds have left behind is removed. A complete index that only failed to take its place takes it now.

    Args:
        memory: bytes that the build may use, by default what its graph needs, as far as the server seems to have it.
        workers: processes beside the first, by default as many as the server allows a build.
        options: parameters of the index such as ``m=16``, by default those of the one that is there.
        progress: told a few times a second how far the build is.
        stop: once set, the build is cancelled, and what there is of it removed.

    Raises:
        ConfigurationError: the connection leads through a pooler.
        DatabaseError: another build of this index is under way, or the database refuses.
    """
    stop = stop or threading.Event()
    began = time.monotonic()
    with database.session() as session:
        _claim(session, stored)
        before = _indexes(session, stored)
        build = _plan(session, stored, before, memory, workers)
        fresh = f"{stored.index}_new"
        adopted = before.left_overs.get(fresh, False)
        removed = [name for name in before.left_overs if not (adopted and name == fresh)]
        build = replace(build, removed=tuple(removed))
        try:
            for name in removed:
                run(
                    database, session, dropping(name), table=stored.partition, unfinished=None, progress=None, stop=stop
                )
            if adopted:
                note = "It was complete already, but had not taken the place of the one before."
                build = replace(build, notes=(*build.notes, note))
            else:
                chosen = options or before.options
                build = _build(database, session, stored, fresh, chosen, build, progress, stop)
            _swap(session, stored, fresh, stop)
        except Stopped:
            notes = build.notes
            if not cleared(session, fresh):
                notes = (*notes, f"Others use the table just now, so that {fresh} stays; the next build removes it.")
            return replace(build, notes=notes, stopped="interrupted", seconds=time.monotonic() - began)
        size = session.execute("select pg_relation_size(to_regclass(%s))", [qualified(stored.index)]).fetchone()
    return replace(build, index_bytes=size[0] if size else 0, seconds=time.monotonic() - began)


def drop_index(database: Database, stored: StoredModel) -> tuple[str, ...] | None:
    """Do without the index for the time of a large load; searches compare every vector meanwhile.

    Returns:
        The parameters that it had, for `build_index`; None where it stays, because others use the table just now,
        somebody else is building it, or it is not ours.
    """
    try:
        with database.session() as session:
            _claim(session, stored)
            found = _indexes(session, stored)
            if found.state == "missing" or not owned(session, stored.partition):
                return None
            with session.transaction():
                session.execute(f"set local lock_timeout = '{_SWAP_LOCK_TIMEOUT}'".encode())
                session.execute(sql.SQL("drop index lookalike.{}").format(sql.Identifier(stored.index)))
                _note(session, stored, _HAD + ", ".join(found.options))
            return found.options
    except DatabaseUnavailable:
        raise
    except (ConfigurationError, DatabaseError):
        return None


def may_build(database: Database, stored: StoredModel) -> bool:
    """Whether this role may build the model's index."""
    with database.transaction() as connection:
        return owned(connection, stored.partition)


def collect_statistics(database: Database, stored: StoredModel) -> None:
    """Tell the planner what is in the tables, as autovacuum does some time after a large load, if it is on.

    Joins of an analyst's own know no better until then. Tables that are not ours are left to their owner.
    """
    with database.transaction() as connection:
        connection.execute("set local statement_timeout = 0")
        connection.execute(f"analyze lookalike.images, lookalike.files, {qualified(stored.partition)}".encode())


def graph_bytes(rows: int, m: int = 16) -> int:
    """Memory that the graph of so many half vectors takes while it is built, with a margin.

    Measured with pgvector 0.8.5: 2,765 bytes a vector at m = 16, 12,141 of them in 32 MiB.
    """
    return rows * (2_250 + 34 * m) * 103 // 100 + 8 * _MIB


def build_memory(shared_buffers: int, maintenance_work_mem: int) -> int:
    """Bytes that a build takes at most, as far as can be told of a server's memory from its settings."""
    # shared_buffers is a quarter of the memory where anybody has thought about it
    return min(max(2 * shared_buffers, maintenance_work_mem), _MOST_MEMORY)


def bytes_of(size: str) -> int:
    """A size such as ``512MB`` or ``2 GB`` in bytes, as PostgreSQL counts them.

    Raises:
        ConfigurationError: it is none, or PostgreSQL takes no such setting.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([kmgt]b)", size.strip().lower())
    number = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if not _MIB <= number <= _MOST_MEMORY:
        raise ConfigurationError(f"--memory is {size!r}; it is a size from 1MB to 2047GB, such as 512MB or 4GB.")
    return number


# -- how it is -------------------------------------------------------------------------------------------------------


def _status(connection: psycopg.Connection, stored: StoredModel) -> IndexStatus:
    table = qualified(stored.partition)
    found = _indexes(connection, stored)
    # by the view, which readers may read
    row = connection.execute(f"select count(*) from {stored.vectors}".encode()).fetchone()
    rows = row[0] if row else 0
    numbers = connection.execute(
        """
        select coalesce(t.n_dead_tup::float8 / nullif(t.n_dead_tup + t.n_live_tup, 0), 0),
               pg_table_size(to_regclass(%(table)s)),
               coalesce(pg_relation_size(to_regclass(%(index)s)), 0),
               coalesce((select idx_scan from pg_stat_all_indexes i where i.indexrelid = to_regclass(%(index)s)), 0),
               (select setting::bigint * 1024 from pg_settings where name = 'maintenance_work_mem')
          from pg_stat_all_tables t
         where t.relid = to_regclass(%(table)s)
        """,
        {"table": table, "index": qualified(stored.index)},
    ).fetchone()
    assert numbers is not None
    dead_share, table_bytes, index_bytes, scans, memory = numbers
    building = progress_of(connection, stored.partition)
    state: Literal["valid", "invalid", "missing", "building"] = found.state
    if building is not None and state != "valid":
        state = "building"
    needed = graph_bytes(rows, _m(found.options))
    return IndexStatus(
        model=stored.model.name,
        index=stored.index,
        state=state,
        rows=rows,
        dead_share=dead_share,
        table_bytes=table_bytes,
        index_bytes=index_bytes,
        scans=scans,
        left_overs=tuple(name for name in found.left_overs if building is None or name != building[1]),
        build=building[0] if building else None,
        graph_bytes=needed,
        maintenance_work_mem=memory,
        fits=needed <= memory,
    )


def _indexes(connection: psycopg.Connection, stored: StoredModel) -> _Found:
    state: Literal["valid", "invalid", "missing"] = "missing"
    options: tuple[str, ...] = _DEFAULT_OPTIONS
    left_overs: dict[str, bool] = {}
    for name, valid, given in connection.execute(_INDEXES, [qualified(stored.partition)]).fetchall():
        if name == stored.index:
            state = "valid" if valid else "invalid"
            options = tuple(given) or _DEFAULT_OPTIONS
        # an index of the owner's own has a name of its own, and stays
        elif name.startswith(f"{stored.index}_"):
            left_overs[name] = bool(valid)
    if state == "missing":
        options = _noted(connection, stored) or options
    return _Found(state, options, left_overs)


def _note(session: psycopg.Connection, stored: StoredModel, note: str | None) -> None:
    session.execute(
        sql.SQL("comment on table lookalike.{} is {}").format(sql.Identifier(stored.partition), sql.Literal(note))
    )


def _noted(connection: psycopg.Connection, stored: StoredModel) -> tuple[str, ...]:
    """The parameters of an index that was dropped for a load which has not ended; nothing where there was none."""
    row = connection.execute(
        "select obj_description(to_regclass(%s), 'pg_class')", [qualified(stored.partition)]
    ).fetchone()
    note = row[0] if row else None
    return tuple(re.findall(r"\b(?:m|ef_construction)=[0-9]+", note)) if note and note.startswith(_HAD) else ()


# -- building --------------------------------------------------------------------------------------------------------


def _claim(session: psycopg.Connection, stored: StoredModel) -> None:
    """Keep others from building or dropping the same index until the session ends."""
    row = session.execute(
        "select pg_try_advisory_lock(hashtextextended('lookalike.index', %s))", [stored.model_id]
    ).fetchone()
    if not (row and row[0]):
        raise DatabaseError(
            f"The index of {stored.model.name} is being built by somebody else. See how far it is with: "
            "lookalike index status"
        )


def _plan(
    session: psycopg.Connection, stored: StoredModel, found: _Found, memory: int | None, workers: int | None
) -> IndexBuild:
    """How much memory and how many workers a build gets, not built yet."""
    row = session.execute(f"select count(*) from {qualified(stored.partition)}".encode()).fetchone()
    rows = row[0] if row else 0
    settings: dict[str, Any] = dict(
        session.execute(
            "select name, setting::bigint * case unit when '8kB' then 8192 when 'kB' then 1024 else 1 end"
            "  from pg_settings where name in ('shared_buffers', 'maintenance_work_mem', 'max_parallel_workers',"
            "                                  'max_parallel_maintenance_workers')"
        ).fetchall()
    )
    notes: list[str] = []
    needed = max(graph_bytes(rows, _m(found.options)), _LEAST_MEMORY)
    if memory is None:
        most = build_memory(settings["shared_buffers"], settings["maintenance_work_mem"])
        memory = min(needed, most)
        if memory < needed:
            notes.append(
                f"The graph takes about {_megabytes(needed)}, and the server seems to have {_megabytes(most)} to "
                "spare: the build slows down once that is full. If there is more, name it with --memory."
            )
    elif memory < needed:
        notes.append(f"The graph takes about {_megabytes(needed)}: beyond {_megabytes(memory)} the build slows down.")
    if workers is None:
        allowed = max(settings["max_parallel_maintenance_workers"], settings["max_parallel_workers"] // 2)
        workers = min(allowed, rows // _ROWS_PER_WORKER)
    return IndexBuild(
        model=stored.model.name,
        index=stored.index,
        was=found.state,
        rows=rows,
        memory=memory,
        workers=workers,
        fits=True,
        index_bytes=0,
        seconds=0.0,
        notes=tuple(notes),
    )


def _build(
    database: Database,
    session: psycopg.Connection,
    stored: StoredModel,
    fresh: str,
    options: tuple[str, ...],
    build: IndexBuild,
    progress: Callable[[BuildProgress], None] | None,
    stop: threading.Event,
) -> IndexBuild:
    overflowed = threading.Event()

    def noticed(notice: psycopg.errors.Diagnostic) -> None:
        if "no longer fits into maintenance_work_mem" in (notice.message_primary or ""):
            overflowed.set()

    session.add_notice_handler(noticed)
    session.execute("set client_min_messages = notice")
    session.execute("select set_config('maintenance_work_mem', %s, false)", [f"{build.memory >> 10}kB"])
    statement = (
        f"create index concurrently {fresh} on {qualified(stored.partition)}"
        f" using hnsw (embedding {database.vector_schema}.halfvec_cosine_ops) with ({', '.join(options)})"
    ).encode()

    def build_it() -> None:
        run(database, session, statement, table=stored.partition, unfinished=fresh, progress=progress, stop=stop)

    try:
        _limit_workers(session, build.workers)
        build_it()
    except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory, psycopg.errors.InsufficientResources) as error:
        cleared(session, fresh)
        # the segment's name stands in the message in whatever language
        if build.workers == 0 or not re.search(r"shared memory|PostgreSQL\.[0-9]|pg_dynshmem", str(error)):
            raise
        note = "The server has too little shared memory (/dev/shm) for several workers, so one process built it alone."
        build = replace(build, workers=0, notes=(*build.notes, note))
        overflowed.clear()
        _limit_workers(session, 0)
        build_it()
    except psycopg.Error:
        cleared(session, fresh)
        raise
    return replace(build, fits=not overflowed.is_set())


def _swap(session: psycopg.Connection, stored: StoredModel, fresh: str, stop: threading.Event) -> None:
    """Put the new index into the old one's place as soon as nobody is in the way; others wait for a second at most."""
    began = time.monotonic()
    while True:
        try:
            with session.transaction():
                session.execute(f"set local lock_timeout = '{_SWAP_LOCK_TIMEOUT}'".encode())
                session.execute(sql.SQL("drop index if exists lookalike.{}").format(sql.Identifier(stored.index)))
                session.execute(
                    sql.SQL("alter index lookalike.{} rename to {}").format(
                        sql.Identifier(fresh), sql.Identifier(stored.index)
                    )
                )
                _note(session, stored, None)
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if stop.is_set():
                raise Stopped from None
            if time.monotonic() - began > _SWAP_SECONDS:
                raise DatabaseError(
                    f"The new index of {stored.model.name} is complete, but somebody uses the old one without a pause. "
                    "Run the same command again, which only puts it into its place."
                ) from error
            stop.wait(_SWAP_PAUSE)


def _limit_workers(session: psycopg.Connection, workers: int) -> None:
    session.execute("select set_config('max_parallel_maintenance_workers', %s, false)", [str(workers)])


def _m(options: tuple[str, ...]) -> int:
    return next((int(option[2:]) for option in options if option.startswith("m=")), 16)


def _megabytes(size: int) -> str:
    return f"{size / _MIB:,.0f} MB"
