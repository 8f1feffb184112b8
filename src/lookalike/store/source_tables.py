"""Tables of vectors in anybody's PostgreSQL, read as one snapshot, in a stream, and never written to."""

from __future__ import annotations

import contextlib
import json
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import quote

import numpy as np
import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lookalike.errors import ConfigurationError, DatabaseError, DatabaseUnavailable, SourceNotFound
from lookalike.store.database import Database
from lookalike.store.dsn import libpq_dsn, url_of
from lookalike.uris import redacted

Kind: TypeAlias = Literal["vector", "numbers", "text", "bytes", "search", "other"]

_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("vector", "halfvec"), "vector"),
    **dict.fromkeys(("_float4", "_float8", "_int2", "_int4", "_int8", "_numeric"), "numbers"),
    **dict.fromkeys(("text", "varchar", "bpchar", "json", "jsonb"), "text"),
    **dict.fromkeys(("bytea", "_bytea"), "bytes"),
    **dict.fromkeys(("sparsevec", "bit", "varbit", "tsvector", "_vector", "_halfvec", "_sparsevec"), "search"),
}
_RAW = frozenset({"vector", "halfvec", "_float4", "_float8"})
"""Types whose binary form is read as it is; others are cast to text."""
_FLOATING = frozenset({"float4", "float8", "numeric"})
_NUMBERS = {"_float4": ">f4", "_float8": ">f8", "vector": ">f4", "halfvec": ">f2"}
_READABLE = ("r", "p", "v", "m", "f")
"""Tables, partitioned ones, views, materialized ones, foreign tables."""
_NOT_READABLE = {"i": "an index", "I": "an index", "S": "a sequence", "c": "a type", "t": "a TOAST table"}

_COLUMNS = """
with recursive base (attnum, oid, modifier) as (
    select attnum, atttypid, atttypmod from pg_attribute where attrelid = %(table)s and attnum > 0 and not attisdropped
     union all
    select b.attnum, t.typbasetype, case when b.modifier < 0 then t.typtypmod else b.modifier end
      from base b join pg_type t on t.oid = b.oid
     where t.typtype = 'd'
)
select a.attname, t.typname, format_type(a.atttypid, a.atttypmod), b.modifier
  from base b
  join pg_type t on t.oid = b.oid and t.typtype <> 'd'
  join pg_attribute a on a.attrelid = %(table)s and a.attnum = b.attnum
 order by a.attnum
"""

_WITH_VECTORS = """
select distinct format('%%I.%%I', n.nspname, c.relname)
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid and t.typname in ('vector', 'halfvec')
 where c.relkind = any(%s) and not c.relispartition
   and not (n.nspname = 'lookalike' and (c.relkind = 'v' or c.relname in ('embeddings', 'queries')))
 order by 1 limit 10
"""

# a schema of the user's own name comes first in its search path, so that tables of anybody's may lie beside ours
_OWN_LOCKS = """
select exists (
    select from pg_locks l
      left join pg_inherits i on i.inhrelid = l.relation
      join pg_class c on c.oid in (l.relation, i.inhparent)
      join pg_namespace n on n.oid = c.relnamespace
     where l.pid = pg_backend_pid() and l.locktype = 'relation'
       and l.database = (select oid from pg_database where datname = current_database())
       and n.nspname = 'lookalike' and c.relname = 'embeddings')
"""

_ADVISORY = """
select exists (
    select from pg_locks
     where locktype = 'advisory' and (classid::bigint << 32 | objid::bigint) = %s
       and database = (select oid from pg_database where datname = current_database()))
"""


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column of somebody's table.

    Attributes:
        kind: ``vector`` (vector, halfvec), ``numbers`` (an array of them), ``text``, ``bytes``, ``search`` (what was
            made for searches and says nothing to people: other vectors, bits, tsvector) or ``other``.
        type: as PostgreSQL writes it, for example ``vector(1024)``.
        base: name of the type beneath all domains.
        width: how many numbers each vector has, where the type says so.
    """

    name: str
    kind: Kind
    type: str
    base: str
    width: int | None = None


class SourceTable:
    """A table, view or foreign table that is being read. Close it, or use it in a ``with`` statement.

    Everything is read in one read-only transaction, so that it is of one moment.

    Attributes:
        name: with its schema, quoted where SQL wants that.
        uri: where it is, without user and password.
        columns: in the table's order.
    """

    def __init__(self, url: str, table: str) -> None:
        """Connect, and look at the table's columns.

        Raises:
            ConfigurationError: the URL cannot be read, or what it is asked for cannot be read like a table.
            SourceNotFound: there is no such table.
            DatabaseError: the server cannot be reached, or refuses.
        """
        if not url.strip():
            raise ConfigurationError(
                "The URL of the table's database is empty. It reads postgresql://user:password@host:5432/database"
            )
        given = conninfo_to_dict(libpq_dsn(url))
        options: dict[str, Any] = {"connect_timeout": 15, **given, "client_encoding": "utf8"}
        dsn = make_conninfo("", application_name="lookalike", **options)
        whereabouts: dict[str, Any] = {key: given.get(key) for key in ("host", "port", "dbname", "service")}
        self._place = url_of(make_conninfo("", **whereabouts), secrets=False)
        self.name = table
        with self._translated():
            # a pooler may stand in between, behind which nothing may outlive a transaction
            self._connection = psycopg.connect(dsn, prepare_threshold=None)
        try:
            with self._translated():
                self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                self._connection.read_only = True
                self._begin()
                oid, schema, relation = self._found(table)
                self._relation = sql.Identifier(schema, relation)
                self.name = self._quoted(schema, relation)
                self.uri = f"{self._place}#{quote(f'{schema}.{relation}')}"
                self.columns = self._columns_of(oid)
        except BaseException:
            self.close()
            raise

    def count(self) -> int:
        """How many rows it has.

        Raises:
            DatabaseError: it may not be read.
        """
        with self._translated():
            row = self._connection.execute(sql.SQL("select count(*) from {}").format(self._relation)).fetchone()
        return int(row[0]) if row else 0

    def distinct(self, column: SourceColumn, most: int) -> list[str | None]:
        """The texts in a column, each once; no more than `most` of them.

        Raises:
            DatabaseError: it may not be read.
        """
        query = sql.SQL("select distinct {}::text from {} limit {}").format(
            sql.Identifier(column.name), self._relation, sql.Literal(most)
        )
        with self._translated():
            return [text for (text,) in self._connection.execute(query).fetchall()]

    def is_part_of(self, database: Database) -> bool:
        """Whether it reads tables of Lookalike's own in `database`, which a writer must be able to change meanwhile;
        known once rows were counted."""
        with self._translated():
            if self._connection.execute(_OWN_LOCKS).fetchone() != (True,):
                return False
            # it may be another database, or the same one by another name: in the same one, a lock is seen
            sign = secrets.randbits(62)
            self._connection.execute("select pg_advisory_xact_lock(%s)", [sign])
        with database.transaction() as connection:
            return connection.execute(_ADVISORY, [sign]).fetchone() == (True,)

    def rows(
        self,
        vectors: SourceColumn,
        plain: Sequence[SourceColumn],
        told: Sequence[SourceColumn],
        *,
        most: int | None = None,
    ) -> Iterator[dict[str, Any] | str]:
        """Rows in the order in which they lie, as cells by name, or what is wrong with one.

        Args:
            vectors: the column whose cells are float64 ``(n,)`` arrays or, if it is of text or of integers, text.
            plain: columns whose cells are text, or bytes where they are that.
            told: columns whose cells are as in JSON.
            most: of so many rows alone. Else the snapshot ends with the last row, and who reads again gets another one.

        Raises:
            DatabaseError: they may not be read, or the connection is lost.
        """
        columns = [vectors, *plain, *told]
        chosen = [
            self._vector_cell(vectors),
            *(self._plain_cell(column) for column in plain),
            *(sql.SQL("to_json({})").format(sql.Identifier(column.name)) for column in told),
        ]
        limit = sql.SQL("" if most is None else f" limit {most}")
        query = sql.SQL("copy (select {} from {}{}) to stdout (format binary)").format(
            sql.SQL(", ").join(chosen), self._relation, limit
        )
        with self._translated():
            if self._connection.info.transaction_status == pq.TransactionStatus.IDLE:
                self._begin()  # once more, in a snapshot of another moment
            with self._connection.cursor().copy(query) as copy:
                copy.set_types(["bytea"] * len(columns))
                for row in copy.rows():
                    yield _cells(row, columns, len(plain))
            if most is None:
                # an open snapshot would hold up the building of an index in the same database
                self._connection.rollback()

    def close(self) -> None:
        """End the snapshot and the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- looking ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        settings = dict.fromkeys(("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"), "0")
        if self._connection.info.server_version >= 170000:
            settings["transaction_timeout"] = "0"
        # the same rows in the same order each time, and dates that do not depend on who asks
        settings |= {"synchronize_seqscans": "off", "max_parallel_workers_per_gather": "0", "timezone": "UTC"}
        for name, value in settings.items():
            self._connection.execute("select set_config(%s, %s, true)", [name, value])

    def _found(self, table: str) -> tuple[int, str, str]:
        """Oid, schema and name of a table that is named as in SQL, or as it is."""
        ask = (
            "select c.oid, n.nspname, c.relname, c.relkind from pg_class c"
            " join pg_namespace n on n.oid = c.relnamespace where c.oid = to_regclass({})"
        )
        whole = sql.SQL(ask).format(sql.SQL("quote_ident(%(name)s)"))
        parts = sql.SQL(ask).format(
            sql.SQL("quote_ident(split_part(%(name)s, '.', 1)) || '.' || quote_ident(split_part(%(name)s, '.', 2))")
        )
        as_it_is = parts if table.count(".") == 1 else whole
        for query in (sql.SQL(ask).format(sql.SQL("%(name)s")), whole, as_it_is):
            try:
                with self._connection.transaction():
                    row = self._connection.execute(query, {"name": table.replace("\0", "")}).fetchone()
            except psycopg.errors.InsufficientPrivilege as error:
                schema = self._connection.execute("select quote_ident((parse_ident(%s))[1])", [table]).fetchone()
                raise self._closed(f"grant usage on schema {schema[0] if schema else table}", error) from error
            except (psycopg.DataError, psycopg.ProgrammingError, psycopg.NotSupportedError):
                continue  # what cannot be read as a name in SQL may still be one
            if row is not None and row[3] in _READABLE:
                return row[0], row[1], row[2]
            if row is not None:
                raise ConfigurationError(
                    f"{table} is {_NOT_READABLE.get(row[3], 'no table')}, and no table of vectors."
                )
        others = [name for (name,) in self._connection.execute(_WITH_VECTORS, [list(_READABLE)]).fetchall()]
        hint = f" Vectors are in: {', '.join(others)}." if others else " No table there has a column of vectors."
        raise SourceNotFound(f"There is no table {table!r} in {self._place}.{hint}")

    def _columns_of(self, oid: int) -> list[SourceColumn]:
        found = []
        for name, base, written, modifier in self._connection.execute(_COLUMNS, {"table": oid}).fetchall():
            kind = _KINDS.get(base, "other")
            width = modifier if kind == "vector" and modifier > 0 else None
            found.append(SourceColumn(name, kind, written, base, width))
        return found

    def _quoted(self, schema: str, relation: str) -> str:
        row = self._connection.execute("select format('%%I.%%I', %s::text, %s::text)", [schema, relation]).fetchone()
        return str(row[0]) if row else relation

    def _vector_cell(self, column: SourceColumn) -> sql.Composable:
        return sql.SQL("{}" if column.base in _RAW else "{}::text").format(sql.Identifier(column.name))

    def _plain_cell(self, column: SourceColumn) -> sql.Composable:
        return sql.SQL("{}" if column.base == "bytea" else "{}::text").format(sql.Identifier(column.name))

    def _closed(self, grant: str, error: psycopg.Error) -> DatabaseError:
        return DatabaseError(
            f"{self.name} may not be read: {error.diag.message_primary}. Have its owner run, in {self._place}:\n"
            f"  {grant} to {self._connection.info.user};"
        )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The driver's errors as ours, which tell this database from the one that is imported into."""
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            raise self._closed(f"grant select on {self.name}", error) from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if error.sqlstate is not None and not error.sqlstate.startswith(("08", "57P", "53300")):
                raise DatabaseError(f"{self._place} refused: {error.diag.message_primary}") from error
            raise DatabaseUnavailable(
                f"The database of the table, {self._place}, cannot be reached: {redacted(str(error).strip())}\n"
                "Check the URL, and that the server runs. The password may also stand in ~/.pgpass or PGPASSWORD."
            ) from error
        except psycopg.Error as error:
            reason = error.diag.message_primary or redacted(str(error))
            raise DatabaseError(f"{self.name} cannot be read: {reason}") from error


# -- cells -----------------------------------------------------------------------------------------------------------


def _cells(row: Sequence[bytes | None], columns: Sequence[SourceColumn], plain: int) -> dict[str, Any] | str:
    cells: dict[str, Any] = {}
    for number, (column, data) in enumerate(zip(columns, row, strict=True)):
        if data is None:
            cells[column.name] = None
        elif number == 0:
            cells[column.name] = _vector(data, column.base)
        elif number <= plain:
            # a database in SQL_ASCII takes any bytes for text, and so do file systems
            cells[column.name] = data if column.base == "bytea" else data.decode("utf-8", "surrogateescape")
        else:
            try:
                value = json.loads(data.decode("utf-8", "surrogateescape"))
            except (ValueError, RecursionError):
                return f"the column {column.name} cannot be read as JSON; it is too deep, or a number too long."
            # JSON has no NaN, so that PostgreSQL writes a text
            cells[column.name] = None if column.base in _FLOATING and isinstance(value, str) else value
    return cells


def _vector(data: bytes, base: str) -> object:
    match base:
        case "vector" | "halfvec":
            (count,) = struct.unpack_from(">h", data)
            return np.frombuffer(data, _NUMBERS[base], count, 4).astype(np.float64)
        case "_float4" | "_float8":
            return _array(data, np.dtype(_NUMBERS[base]))
        case _:
            return data.decode("utf-8", "surrogateescape")


def _array(data: bytes, number: np.dtype[Any]) -> object:
    dimensions, has_null = struct.unpack_from(">ii", data)
    if dimensions != 1:
        # nothing, or rows of rows, which are no numbers
        return [[]] * dimensions
    (count,) = struct.unpack_from(">i", data, 12)
    if not has_null:
        pairs = np.frombuffer(data, np.dtype([("length", ">i4"), ("value", number)]), count, 20)
        return pairs["value"].astype(np.float64)
    values: list[float | None] = []
    place = 20
    for _ in range(count):
        (length,) = struct.unpack_from(">i", data, place)
        place += 4
        values.append(None if length < 0 else float(np.frombuffer(data, number, 1, place)[0]))
        place += max(length, 0)
    return values
