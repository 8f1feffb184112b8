"""What is amiss with a database, and what to do about it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

from lookalike.config import Settings
from lookalike.errors import LookalikeError
from lookalike.store import schema
from lookalike.store.database import Database
from lookalike.store.models import StoredModel, models
from lookalike.store.server_settings import Library, advice, read_settings

_SCARCE_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: all right, worth knowing, or in the way; and the remedy."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    detail: str
    remedy: str = ""


def diagnose(settings: Settings) -> list[Finding]:
    """Look at the server, the extension, the tables, the database's defaults and every index."""
    try:
        with Database.open(settings, checked=False) as database, database.transaction() as connection:
            return [
                Finding("ok", "database", f"{database.place}, {_server_version(connection)}"),
                *_tables(connection, embedded=settings.database_url is None),
                *_disk(settings),
            ]
    except LookalikeError as error:
        return [Finding("fail", "database", "cannot be used.", str(error))]


def _tables(connection: psycopg.Connection, *, embedded: bool) -> Iterator[Finding]:
    try:
        schema.check(connection)
    except LookalikeError as error:
        yield Finding("fail", "tables", "are not ready.", str(error))
        return
    version, where = schema.extension(connection) or ("?", "?")
    yield Finding("ok", "pgvector", f"{version} in schema {where}")
    yield Finding("ok", "tables", f"at revision {schema.HEAD}")
    if lacking := schema.missing(connection):
        yield Finding(
            "fail", "functions", f"{', '.join(lacking)} not there.", "As the owner, run: lookalike db upgrade"
        )
    else:
        yield Finding("ok", "functions", "and views are all there")
    yield _plain_sql(connection)
    found = models(connection)
    if found:
        yield from _server_settings(connection, found, embedded=embedded)
    for stored in found:
        subject = f"index of {stored.model.name}"
        if stored.index_ready:
            yield Finding("ok", subject, stored.index)
        else:
            yield Finding(
                "fail",
                subject,
                "is missing or invalid; searches compare every vector.",
                f"Run: lookalike index build --model {stored.model.name}",
            )


def _plain_sql(connection: psycopg.Connection) -> Finding:
    found = schema.defaults(connection)
    if found.get("hnsw.iterative_scan") not in ("strict_order", "relaxed_order"):
        lacking = list(schema.DEFAULTS)
        detail = (
            f"hnsw.iterative_scan is {found.get('hnsw.iterative_scan', 'not set')}: ORDER BY … LIMIT in plain SQL may "
            "give too few rows."
        )
    else:
        lacking = [name for name in schema.DEFAULTS if name not in found]
        detail = f"{' and '.join(lacking)} not set: ORDER BY … LIMIT with a condition may give too few rows."
    if lacking:
        remedies = [
            schema.default_statement(connection.info.dbname, name).as_string(connection) + ";"
            for name in lacking
            if found.get(name) != schema.DEFAULTS[name]
        ]
        return Finding(
            "warn",
            "plain SQL",
            f"{detail} Searches of the library, the command line and the SQL functions are not affected.",
            f"As the owner, run: {' '.join(remedies)}",
        )
    chosen = ", ".join(f"{name} = {found[name]}" for name in schema.DEFAULTS)
    return Finding("ok", "plain SQL", f"LIMIT gives as many rows as exist ({chosen})")


def _server_settings(
    connection: psycopg.Connection, found: Sequence[StoredModel], *, embedded: bool
) -> Iterator[Finding]:
    """What the server is set to, against what this library needs."""
    settings, library = read_settings(connection), Library.of(connection, found)
    name = sql.Identifier(connection.info.dbname).as_string(connection)
    fits = True
    for advised in advice(settings, library, name):
        fits = False
        restart = ", and start the server anew" if advised.restart else ""
        match advised.run_by:
            case "owner":
                remedy = f"As the owner, run: {advised.statement}"
            case "administrator":
                anew = " (lookalike db stop)" if embedded else ""
                remedy = f"If nothing else needs that memory, run as root{restart}{anew}: {advised.statement}"
            case "superuser" if embedded:
                remedy = "The private server takes what this machine has. Use a larger one, or LOOKALIKE_DATABASE_URL."
            case "superuser":
                remedy = (
                    f"If the machine has it, run as a superuser{restart}: {advised.statement} select pg_reload_conf();"
                )
        yield Finding("warn", f"server, {advised.setting}", f"is {advised.reason}", remedy)
    if fits:
        detail = f"its settings are enough for {math.ceil(library.indexes / (1 << 20)):,} MB of HNSW indexes"
        yield Finding("ok", "server", detail)


def _disk(settings: Settings) -> Iterator[Finding]:
    if settings.database_url is not None or not settings.home.exists():
        return
    free = shutil.disk_usage(settings.home).free
    detail = f"{free / (1 << 30):.1f} GiB free in {settings.home}"
    if free < _SCARCE_BYTES:
        yield Finding("warn", "disk", detail, "Make room, or set LOOKALIKE_HOME to a larger disk.")
    else:
        yield Finding("ok", "disk", detail)


def _server_version(connection: psycopg.Connection) -> str:
    version = connection.info.server_version
    return f"PostgreSQL {version // 10000}.{version % 10000}"
