"""The one place that opens connections: a pool over the server that the settings name, or over the embedded one."""

from __future__ import annotations

import contextlib
import json
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self, TypeAlias

import orjson
import psycopg
from pgvector.psycopg.halfvec import register_halfvec_info
from psycopg import pq
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.types import TypeInfo
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from lookalike.config import Settings
from lookalike.errors import ConfigurationError, DatabaseError, DatabaseUnavailable, SchemaOutOfDate
from lookalike.store import schema
from lookalike.store.dsn import is_transaction_pooler, libpq_dsn, url_of
from lookalike.store.embedded import EmbeddedServer
from lookalike.store.round_trip import Rows, Session, Statement

EMBEDDED_DATABASE = "lookalike"

_ANY_DIGIT = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 19
NO_OPTIONS: Mapping[str, str] = MappingProxyType({})
_FRESH_SECONDS = 0.2
_SPARE_CONNECTIONS = 8
_KEPT_AT_HAND = 16

_AtHand: TypeAlias = tuple[PoolProxiedConnection, Session]

USUAL_OPTIONS = {
    "hnsw.ef_search": "100",
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.max_scan_tuples": "20000",
    "hnsw.scan_mem_multiplier": "16",
    # what a search switches off is priced so high that PostgreSQL would compile the statement
    "jit": "off",
}
"""What most searches want of the server. Each connection is set to it once, which is not for each search to pay."""

_PASSING = ("08", "53300", "57P")
"""SQLSTATEs of what passes: broken connections, too many of them, a server that stops or starts."""


class Database:
    """A pool of connections to one database whose tables have this version's shape. Thread-safe.

    Attributes:
        engine: the SQLAlchemy engine that holds the pool.
        transaction_pooler: whether nothing may outlive a transaction: prepared statements, temporary tables.
        vector_schema: the schema that pgvector lies in, quoted; known once a connection was made.
        session_options: what connections are set to; nothing behind a pooler, where they are everybody's.
    """

    vector_schema: str = "public"

    def __init__(self, dsn: str, *, transaction_pooler: bool = False) -> None:
        self._dsn = dsn
        self._server: EmbeddedServer | None = None
        self._knows_vectors = False
        self.transaction_pooler = transaction_pooler or is_transaction_pooler(dsn)
        self.session_options = {} if self.transaction_pooler else USUAL_OPTIONS
        self.engine: Engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            pool_size=8,
            max_overflow=24,
            pool_recycle=1800,
        )
        self._at_hand: list[tuple[float, _AtHand]] = []
        self._spare = threading.Semaphore(_SPARE_CONNECTIONS)
        event.listen(self.engine, "connect", self._note_session)
        event.listen(self.engine, "checkin", _note_return)
        event.listen(self.engine, "checkout", _look_whether_it_lives)

    @classmethod
    def open(
        cls, settings: Settings, *, checked: bool = True, announce: Callable[[str], None] | None = None
    ) -> Database:
        """Connect as the settings say; the embedded server is started, and brought up to date, on the way.

        Args:
            checked: refuse a server of the user's own whose tables are out of date.
            announce: told what a person should know about a server that is made or started.

        Raises:
            ConfigurationError: no database is named, and nothing says that the embedded one is wanted.
            DatabaseError: it cannot be reached, is unsupported or out of date.
        """
        if settings.database_url is None:
            return cls._open_embedded(settings, announce)
        database = cls(libpq_dsn(settings.database_url), transaction_pooler=settings.transaction_pooler)
        try:
            if checked:
                with database.transaction() as connection:
                    schema.check(connection)
                database._forget_the_ignorant()
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def _open_embedded(cls, settings: Settings, announce: Callable[[str], None] | None) -> Database:
        if not settings.home_chosen and not settings.attended:
            raise ConfigurationError(
                "No database is named, and there is no terminal: a private PostgreSQL might vanish with this machine. "
                "Set LOOKALIKE_DATABASE_URL to a server, or LOOKALIKE_HOME to the folder that is to hold the data:\n"
                f"  export LOOKALIKE_HOME={shlex.quote(str(settings.home))}"
            )
        server = EmbeddedServer(settings.home, announce=announce)
        server.start()
        with translated_errors(), psycopg.connect(server.dsn, autocommit=True) as connection:
            row = connection.execute("select from pg_database where datname = %s", [EMBEDDED_DATABASE]).fetchone()
            if row is None:
                # another process may be faster
                with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(f"create database {EMBEDDED_DATABASE}")
        database = cls(server.dsn_of(EMBEDDED_DATABASE))
        database._server = server
        try:
            with database.transaction() as connection:
                outdated = schema.revision(connection) != schema.HEAD
            if outdated:
                database.upgrade()
            database._forget_the_ignorant()
        except BaseException:
            database.close()
            raise
        return database

    @property
    def url(self) -> str:
        """Where the database is, with the password if there is one: for programs, not for logs."""
        return url_of(self._dsn, secrets=True)

    @property
    def place(self) -> str:
        """Where the database is, as a URL without password."""
        return url_of(self._dsn, secrets=False)

    def upgrade(self) -> None:
        """Bring the tables to this version's shape.

        Raises:
            UnsupportedDatabase: PostgreSQL or pgvector is missing or too old.
            SchemaOutOfDate: the database is ahead of this version of Lookalike.
        """
        with translated_errors(), self.engine.begin() as connection:
            schema.upgrade(connection)
        # the pooled connections do not know the extension's types and defaults yet
        self._forget_connections()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """A connection in a transaction of its own: committed at the end, rolled back on an error.

        Raises:
            DatabaseError: whatever the driver raises, translated.
        """
        with translated_errors():
            pooled = self.engine.raw_connection()
            try:
                connection = pooled.driver_connection
                assert isinstance(connection, psycopg.Connection)
                yield connection
                connection.commit()
            except (psycopg.OperationalError, psycopg.InterfaceError):
                pooled.invalidate()
                raise
            finally:
                pooled.close()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[psycopg.Connection]:
        """A transaction that only reads, and sees all the time what there was at its beginning, however long it takes.

        Raises:
            DatabaseError: whatever the driver raises, translated.
        """
        with self.transaction() as connection:
            connection.execute("set transaction isolation level repeatable read, read only")
            for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
                connection.execute(f"set local {setting} = 0".encode())
            if connection.info.server_version >= 170000:
                connection.execute("set local transaction_timeout = 0")
            yield connection

    @contextlib.contextmanager
    def session(self) -> Iterator[psycopg.Connection]:
        """A connection of its own, outside the pool: every statement commits by itself, however long it takes, and
        settings hold until the end.

        Raises:
            ConfigurationError: it leads through a pooler, behind which a session's settings reach somebody else.
            DatabaseError: whatever the driver raises, translated.
        """
        with translated_errors():
            connection = self._connect()
            try:
                connection.autocommit = True
                if self.transaction_pooler or not _is_direct(connection):
                    raise ConfigurationError(
                        f"{self.place} leads to PostgreSQL through a pooler, where the settings of a session do not "
                        "hold. Set LOOKALIKE_DATABASE_URL to the server itself for this command."
                    )
                for setting in ("statement_timeout = 0", "lock_timeout = 0", "idle_session_timeout = 0"):
                    connection.execute(f"set {setting}".encode())
                if connection.info.server_version >= 170000:
                    connection.execute("set transaction_timeout = 0")
                with contextlib.suppress(psycopg.errors.InvalidParameterValue):  # not every system can notice
                    connection.execute("set client_connection_check_interval = '5s'")
                yield connection
            finally:
                connection.close()

    def together(self, statements: Sequence[Statement], options: Mapping[str, str] = NO_OPTIONS) -> list[Rows]:
        """The rows of each statement; all of them travel in one round trip, and are one transaction.

        Args:
            options: settings that hold for these statements, and for no others that do not ask for the same.

        Raises:
            DatabaseError: whatever the driver raises, translated.
        """
        with translated_errors():
            pooled, session = at_hand = self._connection_at_hand()
            try:
                rows = session.exchange(statements, options)
            except BaseException:
                # whatever state it is in
                pooled.invalidate()
                pooled.close()
                raise
            if len(self._at_hand) < _KEPT_AT_HAND:
                self._at_hand.append((time.monotonic(), at_hand))
            else:
                _put_back(at_hand)
            return rows

    def _connection_at_hand(self) -> _AtHand:
        """One that the last search has just left, else one from the pool, whose book-keeping takes longer than the
        rest of a round trip."""
        while self._at_hand:
            try:
                left, at_hand = self._at_hand.pop()
            except IndexError:  # another thread was faster
                break
            if time.monotonic() - left < _FRESH_SECONDS:
                return at_hand
            about = at_hand[0].info
            _put_back(at_hand)
            about["returned"] = left  # it has lain idle since, so that the pool looks whether it lives
        pooled = self.engine.raw_connection()
        return pooled, pooled.info["session"]

    def _forget_connections(self) -> None:
        while self._at_hand:
            pooled, _ = self._at_hand.pop()[1]
            pooled.invalidate()
            pooled.close()
        self.engine.dispose()

    def _note_session(self, connection: object, record: ConnectionPoolEntry) -> None:
        assert isinstance(connection, psycopg.Connection)
        record.info["session"] = Session(
            connection,
            self.session_options,
            prepares=not self.transaction_pooler,
            keeps_settings=not self.transaction_pooler and _is_direct(connection),
        )
        connection.rollback()

    @contextlib.contextmanager
    def spare_connections(self, wanted: int) -> Iterator[int]:
        """How many connections beside the first one may be used at once: as many as wanted, unless others do so."""
        taken = 0
        try:
            while taken < wanted and self._spare.acquire(blocking=False):
                taken += 1
            yield taken
        finally:
            for _ in range(taken):
                self._spare.release()

    def revive(self) -> None:
        """Start the private server again if it has stopped; a server of the user's own is left to its owner.

        Raises:
            DatabaseError: it does not start.
        """
        if self._server is not None:
            self._server.start()

    def _forget_the_ignorant(self) -> None:
        """Let go of a connection from before the extension: another process may just have installed it."""
        if not self._knows_vectors:
            self._forget_connections()

    def close(self) -> None:
        """Close the pool. The embedded server goes on: other processes may use it."""
        self._forget_connections()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.connect(
            self._dsn,
            prepare_threshold=None if self.transaction_pooler else 5,
            application_name="lookalike",
            connect_timeout=15,
        )
        try:
            if (found := schema.extension(connection)) is not None:
                self.vector_schema = found[1]
                halfvec = TypeInfo.fetch(connection, f"{self.vector_schema}.halfvec")
                if halfvec is not None:
                    register_halfvec_info(connection, halfvec)
                    # using a type loads the library, and with it the parameters that a search sets
                    connection.execute(f"select '[1]'::{self.vector_schema}.halfvec".encode())
                    self._knows_vectors = True
                    for option in self.session_options.items():
                        connection.execute("select set_config(%s, %s, false)", option)
            connection.adapters.register_loader("jsonb", _Documents)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection


class _Documents(Loader):
    """Reads documents of the type ``jsonb`` as a search gets them, with integers of any length."""

    format = pq.Format.BINARY

    def load(self, data: Buffer) -> object:
        document = bytes(data)[1:]  # behind the version of the format
        # orjson takes a fifth of the time, for each of the many metadata of a search, but long integers for fractions
        return json.loads(document) if _LONG_NUMBER in document.translate(_ANY_DIGIT) else orjson.loads(document)


def _is_direct(connection: psycopg.Connection) -> bool:
    """Whether it leads to a process of the server; a pooler tells clients a process id of its own invention."""
    row = connection.execute("select pg_backend_pid()").fetchone()
    return row is not None and row[0] == connection.info.backend_pid


def _put_back(at_hand: _AtHand) -> None:
    """Give a connection back to the pool, for whatever it is used next."""
    pooled, session = at_hand
    try:
        session.tidy()
    except psycopg.Error:
        pooled.invalidate()
    pooled.close()


def _note_return(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["returned"] = time.monotonic()


def _look_whether_it_lives(connection: psycopg.Connection, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Ask a connection that has lain idle for a while; the server may have been restarted meanwhile.

    One that was used just now is not asked, which would cost each of many searches a round trip.
    """
    if time.monotonic() - record.info.get("returned", time.monotonic()) < _FRESH_SECONDS:
        return
    try:
        connection.execute("")
        connection.rollback()
    except psycopg.Error as error:
        raise InvalidatePoolError from error


class translated_errors:
    """A context that turns errors of the driver and of SQLAlchemy into ours."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, DBAPIError):
            raise _translated(error.orig) from error
        if isinstance(error, psycopg.Error):
            raise _translated(error) from error


def _translated(error: BaseException | None) -> DatabaseError:
    match error:
        case psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedFunction() | psycopg.errors.UndefinedColumn():
            return SchemaOutOfDate(f"{_primary(error)}. If the tables are out of date, run: lookalike db upgrade")
        case psycopg.errors.InsufficientPrivilege():
            return DatabaseError(f"PostgreSQL refused: {_primary(error)}. Ask the owner of the database for the right.")
        case psycopg.errors.QueryCanceled():
            return DatabaseError(
                f"PostgreSQL: {_primary(error)}. If it was the timeout, give this role more time: "
                "alter role … set statement_timeout = '1min'"
            )
        case psycopg.errors.ReadOnlySqlTransaction():
            return DatabaseError("The database is read-only just now (its disk is full, or it is a replica).")
        case psycopg.OperationalError() if error.sqlstate is None:
            return DatabaseUnavailable(
                f"PostgreSQL cannot be reached: {str(error).strip()}\n"
                "Check LOOKALIKE_DATABASE_URL (or DATABASE_URL, PGHOST …) and that the server runs."
            )
        case psycopg.InterfaceError():
            return DatabaseUnavailable(f"The connection to PostgreSQL was lost: {error}")
        case psycopg.Error() if (error.sqlstate or "").startswith(_PASSING):
            return DatabaseUnavailable(f"PostgreSQL is not available just now: {_primary(error)}")
        case psycopg.Error():
            return DatabaseError(f"PostgreSQL: {_primary(error)}")
        case _:
            return DatabaseError(f"PostgreSQL: {error}")


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).strip()
