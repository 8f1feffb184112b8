"""What a server is set to, against what this library of pictures needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psycopg

from lookalike.store import schema
from lookalike.store.index import build_memory, graph_bytes
from lookalike.store.models import StoredModel
from lookalike.store.nearest import EXACT_BELOW_BYTES

_MIB = 1 << 20
_GIB = 1 << 30
_FLASH = 1.1
"""random_page_cost of disks without moving parts."""
_WORTH_TWO_CORES = 10_000
_WORTH_HUGE_PAGES = 256 * _MIB
_ENOUGH_LOG = 4 * _GIB

_SETTINGS = """
select name,
       case when vartype <> 'integer' then reset_val
            else (reset_val::numeric * case unit when '8kB' then 8192 when 'kB' then 1024 when 'MB' then 1048576
                                                 else 1 end)::text
       end
  from pg_settings
 where name in ('shared_buffers', 'effective_cache_size', 'maintenance_work_mem', 'max_wal_size', 'autovacuum', 'jit',
                'jit_above_cost', 'max_parallel_workers', 'max_worker_processes', 'random_page_cost',
                'huge_pages_status', 'shared_memory_size_in_huge_pages')
"""


@dataclass(frozen=True, slots=True)
class Library:
    """What of a library of pictures a server must hold.

    Attributes:
        indexes: bytes of all HNSW indexes; they hold the vectors, too, so that searches read little else.
        vectors: bytes of the tables that they are made of.
        graph: bytes that building the largest one takes in memory.
        rows: vectors of the largest model.
        cost: what the planner reckons for the ten nearest in plain SQL, of the largest model.
        uses_index: whether it would use the HNSW index for that.
    """

    indexes: int
    vectors: int
    graph: int
    rows: int
    cost: float
    uses_index: bool

    @classmethod
    def of(cls, connection: psycopg.Connection, stored: Sequence[StoredModel]) -> Library:
        """Measure one.

        Args:
            stored: its models, at least one.
        """
        indexes = 0
        for one in stored:
            row = connection.execute(
                "select coalesce(pg_relation_size(to_regclass(%s)), 0)", [f"lookalike.{one.index}"]
            ).fetchone()
            indexes += row[0] if row else 0
        largest = max(stored, key=lambda one: one.bytes)
        row = connection.execute(
            "select greatest(reltuples, 0)::bigint from pg_class where oid = to_regclass(%s)",
            [f"lookalike.{largest.partition}"],
        ).fetchone()
        rows = max(row[0] if row else 0, largest.bytes * 3 // 8192)
        plan = _plan(connection, largest)
        return cls(
            indexes=indexes,
            vectors=sum(one.bytes for one in stored),
            graph=graph_bytes(rows),
            rows=rows,
            cost=float(plan["Total Cost"]),
            uses_index=largest.bytes <= EXACT_BELOW_BYTES or not largest.index_ready or _names(plan, largest.index),
        )


@dataclass(frozen=True, slots=True)
class Advice:
    """One setting that should be another.

    Attributes:
        reason: what it is, and what comes of that.
        statement: SQL that changes it, or a command of the system that the server runs on.
        run_by: who may do so: the owner of the database, a superuser of the server, or the system's administrator.
        restart: whether the server must be started anew for it.
    """

    setting: str
    reason: str
    statement: str
    run_by: Literal["owner", "superuser", "administrator"] = "superuser"
    restart: bool = False


def read_settings(connection: psycopg.Connection) -> dict[str, str]:
    """Settings of the server as a new session finds them; sizes in bytes."""
    return dict(connection.execute(_SETTINGS.encode()).fetchall())


def advice(settings: Mapping[str, str], library: Library, database: str) -> Iterator[Advice]:
    """What should be set otherwise, for a library of this size.

    Args:
        settings: as `read_settings` gives them.
        database: name of the database as SQL writes it.
    """
    size = {
        name: int(settings[name])
        for name in ("shared_buffers", "effective_cache_size", "maintenance_work_mem", "max_wal_size")
    }
    if size["shared_buffers"] < library.indexes:
        yield Advice(
            "shared_buffers",
            f"{_size(size['shared_buffers'])} for {_size(library.indexes)} of HNSW indexes: searches fetch what does "
            "not fit again and again. A quarter of the machine's memory is usual.",
            _system("shared_buffers", library.indexes * 5 // 4),
            restart=True,
        )
    if size["effective_cache_size"] < library.indexes + library.vectors:
        yield Advice(
            "effective_cache_size",
            f"{_size(size['effective_cache_size'])}: the planner believes that the indexes do not fit into memory, and "
            "may compare every vector. Three quarters of the machine's memory is usual.",
            _system("effective_cache_size", library.indexes + library.vectors),
        )
    # versions before 17 do not tell, other systems have none, and managed services see to it themselves
    pages = int(settings.get("shared_memory_size_in_huge_pages", -1))
    if settings.get("huge_pages_status") == "off" and pages > 0 and library.indexes >= _WORTH_HUGE_PAGES:
        yield Advice(
            "huge_pages",
            "without effect, as the system has none to give: a walk through an index jumps about in memory, and with "
            "small pages the processor spends a fifth of a search and more on finding its way.",
            f"sysctl vm.nr_hugepages={pages}",
            run_by="administrator",
            restart=True,
        )
    most = build_memory(size["shared_buffers"], size["maintenance_work_mem"])
    if most < library.graph:
        yield Advice(
            "maintenance_work_mem",
            f"{_size(size['maintenance_work_mem'])}: a build takes {_size(library.graph)}, and would get "
            f"{_size(most)}, which makes it several times slower. --memory of index build gives one build more.",
            _system("maintenance_work_mem", library.graph),
        )
    workers = min(int(settings["max_parallel_workers"]), int(settings["max_worker_processes"]))
    if workers < 2 and library.rows >= _WORTH_TWO_CORES:
        yield Advice(
            "max_parallel_workers",
            f"{workers}: an index is built by one core alone.",
            "alter system set max_worker_processes = 8; alter system set max_parallel_workers = 8;",
            restart=True,
        )
    log = min(library.vectors + library.indexes, _ENOUGH_LOG)
    if size["max_wal_size"] < log:
        yield Advice(
            "max_wal_size",
            f"{_size(size['max_wal_size'])}: large imports and builds wait for checkpoints.",
            _system("max_wal_size", log),
        )
    if not library.uses_index:
        yield Advice(
            "random_page_cost",
            f"{settings['random_page_cost']}: plain SQL compares every vector, as the planner believes that to be "
            "cheaper than the index. Searches of the library, the command line and the SQL functions are not affected.",
            f"alter database {database} set random_page_cost = {_FLASH};",
            run_by="owner",
        )
    if settings["jit"] == "on" and library.cost > float(settings["jit_above_cost"]) >= 0:
        yield Advice(
            "jit",
            "on: plain SQL is compiled before it searches, which takes longer than the search.",
            f"alter database {database} set jit = off;",
            run_by="owner",
        )
    if settings["autovacuum"] == "off":
        yield Advice(
            "autovacuum",
            "off: nobody removes dead rows from the indexes, nor tells the planner what is in the tables.",
            "alter system set autovacuum = on;",
        )


def _plan(connection: psycopg.Connection, stored: StoredModel) -> Mapping[str, Any]:
    """How the ten nearest would be found in plain SQL; nothing is searched."""
    _, where = schema.extension(connection) or ("", "public")
    row = connection.execute(
        f"explain (format json) select image_id from {stored.vectors} order by embedding operator({where}.<=>)"
        f" (select embedding from {stored.vectors} limit 1) limit 10".encode()
    ).fetchone()
    plan: Mapping[str, Any] = row[0][0]["Plan"] if row else {}
    return plan


def _names(plan: Mapping[str, Any], index: str) -> bool:
    return plan.get("Index Name") == index or any(_names(part, index) for part in plan.get("Plans", ()))


def _system(setting: str, size: int) -> str:
    return f"alter system set {setting} = '{max(-(-size // _MIB), 1)}MB';"


def _size(size: int) -> str:
    return f"{size / _GIB:,.1f} GB" if size >= _GIB else f"{size / _MIB:,.0f} MB"
