"""The tables' shape: checked when a database is opened, changed by `upgrade` alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import Connection

from lookalike.errors import SchemaOutOfDate, UnsupportedDatabase
from lookalike.store import rights

HEAD = "0004"
"""The revision that this version of Lookalike works with."""

LEAST_POSTGRESQL = 15
LEAST_PGVECTOR = (0, 8, 0)

DEFAULTS = {
    "hnsw.iterative_scan": "strict_order",
    "hnsw.max_scan_tuples": "2147483647",
    "hnsw.scan_mem_multiplier": "16",
}
"""What a database is told so that plain ``ORDER BY … LIMIT`` is complete: docs/decisions/0008."""

_UPGRADE_LOCK = "lookalike.upgrade"

_REMEDIES = """\
  Debian, Ubuntu   apt install postgresql-{major}-pgvector (from PostgreSQL's own package archive)
  Docker           use the image pgvector/pgvector:pg{major}
  Azure            add VECTOR to the server parameter azure.extensions, then run this again
  Amazon RDS, Google Cloud SQL, Supabase, Neon   upgrade the instance to a minor release that carries pgvector 0.8"""


def upgrade(connection: Connection) -> None:
    """Bring a database up to date: extension, pending revisions, then every repeatable SQL file, rights and defaults.

    Runs in the caller's transaction. Safe to call from several processes at once, and again at any time.

    Raises:
        UnsupportedDatabase: PostgreSQL or pgvector is missing or too old.
        SchemaOutOfDate: the database is ahead of this version of Lookalike.
    """
    # not needed by `check`, which every start runs through
    from alembic import command
    from alembic.config import Config

    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    driver.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [_UPGRADE_LOCK])
    vector_schema = _ensure_extension(driver)
    found = revision(driver)
    if found is not None and found > HEAD:
        raise _ahead(found)
    config = Config()
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    # a function may be told to set parameters of the library, once that is loaded
    driver.execute(f"select '[1]'::{vector_schema}.halfvec".encode())
    for path in repeatable_files():
        # straight through the driver and without parameters, so that '%' in PL/pgSQL stays what it is
        driver.execute(path.read_text(encoding="utf-8").replace("@extschema:vector@", vector_schema).encode())
    rights.renew(driver)
    let_plain_sql_tell_the_truth(driver)


def check(connection: psycopg.Connection) -> None:
    """Refuse a database that `upgrade` has not brought to this version's shape.

    Raises:
        UnsupportedDatabase: PostgreSQL or pgvector is missing or too old.
        SchemaOutOfDate: the tables are missing, older or newer; the message names the command to run.
    """
    _check_server(connection)
    found = revision(connection)
    if found is None:
        raise SchemaOutOfDate("This database has no Lookalike tables yet. Make them with: lookalike db upgrade")
    if found > HEAD:
        raise _ahead(found)
    if found != HEAD:
        raise SchemaOutOfDate(
            f"The tables are at revision {found}, this Lookalike works with {HEAD}. Run: lookalike db upgrade"
        )
    _check_extension(connection)


def revision(connection: psycopg.Connection) -> str | None:
    """The revision that the database is at, None where it has no tables of ours."""
    row = connection.execute("select to_regclass('lookalike.alembic_version') is not null").fetchone()
    if row is None or not row[0]:
        return None
    row = connection.execute("select max(version_num) from lookalike.alembic_version").fetchone()
    return str(row[0]) if row and row[0] is not None else None


def extension(connection: psycopg.Connection) -> tuple[str, str] | None:
    """Version of pgvector and the schema that it lies in, quoted; None where it is not installed."""
    row = connection.execute(
        "select extversion, quote_ident(nspname) from pg_extension join pg_namespace n on n.oid = extnamespace"
        " where extname = 'vector'"
    ).fetchone()
    return (row[0], row[1]) if row else None


def defaults(connection: psycopg.Connection) -> Mapping[str, str]:
    """The database's own defaults of pgvector's parameters, by name; those that it has."""
    rows = connection.execute(
        "select split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1) from pg_db_role_setting s"
        " cross join unnest(setconfig) setting"
        " where setrole = 0 and setting like 'hnsw.%%'"
        "   and setdatabase = (select oid from pg_database where datname = current_database())",
        [],
    )
    return dict(rows.fetchall())


def let_plain_sql_tell_the_truth(connection: psycopg.Connection) -> None:
    """Make plain ``ORDER BY … LIMIT`` complete by default: pgvector otherwise stops at 40 rows, or at 20,000 visited.

    A value that somebody set for this database stays, also ``off``. Where we may not set it, `doctor` says so.
    """
    _, vector_schema = extension(connection) or ("", "public")
    missing = DEFAULTS.keys() - defaults(connection).keys()
    try:
        with connection.transaction():
            # the parameters exist in a session once the library is loaded, which using a type does
            connection.execute(f"select '[1]'::{vector_schema}.halfvec".encode())
            for name in sorted(missing):
                connection.execute(default_statement(connection.info.dbname, name))
    except psycopg.errors.InsufficientPrivilege:
        return  # only the database's owner may


def default_statement(database: str, name: str) -> sql.Composed:
    """The statement that sets one of `DEFAULTS` for a database."""
    value = sql.Literal(DEFAULTS[name])
    return sql.SQL("alter database {} set {} = {}").format(sql.Identifier(database), sql.SQL(name), value)


def missing(connection: psycopg.Connection) -> list[str]:
    """The functions and views that every upgrade makes and that are not there, as after a restore that met errors."""
    made = re.compile(r"^create or replace (function|view) lookalike\.(\w+)", re.MULTILINE)
    wanted = {match for path in repeatable_files() for match in made.findall(path.read_text(encoding="utf-8"))}
    found = connection.execute(
        "select 'function', proname from pg_proc where pronamespace = 'lookalike'::regnamespace union all"
        " select 'view', relname from pg_class where relnamespace = 'lookalike'::regnamespace and relkind = 'v'"
    ).fetchall()
    return sorted(f"lookalike.{name}" for _, name in wanted - set(found))


def repeatable_files() -> list[Path]:
    """The SQL files that are applied after every upgrade, in order."""
    folder = resources.files("lookalike") / "sql"
    assert isinstance(folder, Path)
    return sorted(folder.glob("*.sql"))


def _migrations() -> Path:
    package = Path(__file__).parents[1]
    inside_wheel = package / "migrations"
    return inside_wheel if inside_wheel.exists() else package.parents[1] / "migrations"


def _ahead(found: str) -> SchemaOutOfDate:
    return SchemaOutOfDate(
        f"The tables are at revision {found}, made by a newer Lookalike; this one knows {HEAD}. "
        "Upgrade the package: pip install --upgrade lookalike"
    )


def _check_server(connection: psycopg.Connection) -> None:
    major = connection.info.server_version // 10000
    if major < LEAST_POSTGRESQL:
        raise UnsupportedDatabase(
            f"This server is PostgreSQL {major}; Lookalike needs {LEAST_POSTGRESQL} or newer. Upgrade the server, or "
            "leave the database URL out to use the private PostgreSQL (pip install 'lookalike[embedded]')."
        )


def _check_extension(connection: psycopg.Connection) -> str:
    """The schema that pgvector lies in, quoted; refuses a server without pgvector or with an old one."""
    found = extension(connection)
    major = connection.info.server_version // 10000
    least = ".".join(map(str, LEAST_PGVECTOR))
    if found is None:
        raise UnsupportedDatabase(
            f"The extension pgvector is not installed in this database. PostgreSQL {major} needs pgvector {least} "
            f"or newer:\n{_REMEDIES.format(major=major)}\nThen run: lookalike db upgrade"
        )
    version, schema = found
    if tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) < LEAST_PGVECTOR:
        row = connection.execute("select default_version from pg_available_extensions where name = 'vector'").fetchone()
        available = row[0] if row else "none"
        raise UnsupportedDatabase(
            f"pgvector {version} is too old; Lookalike needs {least} or newer, and the server offers {available}. "
            f"If that is new enough, run in this database: alter extension vector update;  Otherwise:\n"
            f"{_REMEDIES.format(major=major)}"
        )
    return schema


def _ensure_extension(connection: psycopg.Connection) -> str:
    _check_server(connection)
    if extension(connection) is None:
        row = connection.execute("select to_regnamespace('public') is not null").fetchone()
        where = sql.SQL(" schema public") if row and row[0] else sql.SQL("")
        try:
            with connection.transaction():
                connection.execute(sql.SQL("create extension if not exists vector") + where)
        except psycopg.Error as error:
            _create_as_azure_does(connection, error)
    return _check_extension(connection)


def _create_as_azure_does(connection: psycopg.Connection, refused: psycopg.Error) -> None:
    """Azure's managed Citus refuses ``create extension`` and offers a function of that name instead."""
    row = connection.execute("select exists (select from pg_proc where proname = 'create_extension')").fetchone()
    if isinstance(refused, psycopg.errors.InsufficientPrivilege) and row and row[0]:
        try:
            with connection.transaction():
                connection.execute("select create_extension('vector')")
        except psycopg.Error as error:
            refused = error
        else:
            return
    major = connection.info.server_version // 10000
    raise UnsupportedDatabase(
        f"pgvector could not be installed in this database: {refused.diag.message_primary or refused}.\n"
        f"Have an administrator run: create extension vector;  If the server does not carry it:\n"
        f"{_REMEDIES.format(major=major)}"
    ) from refused
