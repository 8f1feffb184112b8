"""Who may read and who may write: the rights that a site's own roles have on the schema ``lookalike``.

Readers search and see everything but the tables in which the vectors of all models lie: what compares vectors goes
through a model's own view, or through functions that run with the owner's rights and check the model. Writers are
trusted with the tables themselves.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

import psycopg
from psycopg import sql

from lookalike.errors import ConfigurationError, DatabaseError

READABLE = (
    *("images", "files", "texts", "failures", "runs", "models", "alembic_version"),
    *("library", "coverage", "known_texts", "active_embeddings"),
)
"""Tables and views that readers may select from, apart from the models' own views."""

READERS_FUNCTIONS = (
    *("known_query", "query_embedding", "image_embedding", "cosine_similarity"),
    *("search_vector", "search_text", "similar_images", "similar_many"),
)
"""Functions that readers may call, whatever their arguments."""

_LATER_VIEWS = ("known_texts", "texts")
"""Views and tables that came after the first readers; whoever may read `library` may read them."""

_EVERYBODY = sql.SQL("public")


def grant(connection: psycopg.Connection, *, readers: Sequence[str] = (), writers: Sequence[str] = ()) -> None:
    """Give roles what they need to read, or to read and write, now and after later upgrades. Safe to repeat.

    Args:
        readers: roles that search, from SQL, Python and the command line.
        writers: roles that bring pictures in, and do all that readers do.

    Raises:
        ConfigurationError: no role is named, or there is none of that name; nothing was granted.
        DatabaseError: we are not the owner of the schema, or may not give what a role lacks; nothing was granted.
    """
    if not readers and not writers:
        raise ConfigurationError("No role is named. Say who may read or write: --reader ROLE, --writer ROLE")
    _require_roles(connection, [*readers, *writers])
    _require_ownership(connection, readers, writers)
    for role in [*readers, *writers]:
        _let_in(connection, role, makes_tables=role in writers)
    _grant_reading(connection, [sql.Identifier(role) for role in readers])
    _grant_writing(connection, [sql.Identifier(role) for role in writers])


def renew(connection: psycopg.Connection) -> None:
    """After an upgrade: close the functions to everybody, and open what is new to those who read or wrote before."""
    connection.execute("revoke execute on all functions in schema lookalike from public")
    _grant_functions(connection, _holders(connection, "active_embeddings", "SELECT"))
    views = [sql.Identifier("lookalike", name) for name in _LATER_VIEWS]
    _run(connection, "grant select on {names} to {roles}", _holders(connection, "library", "SELECT"), views)
    _grant_writing(connection, _holders(connection, "embeddings", "INSERT"))


def _grant_reading(connection: psycopg.Connection, roles: Sequence[sql.Composable]) -> None:
    views = connection.execute("select view_name from lookalike.models where state <> 'dropped'").fetchall()
    names = [sql.Identifier("lookalike", name) for name in (*READABLE, *(view for (view,) in views))]
    _run(connection, "grant usage on schema lookalike to {roles}", roles)
    _run(connection, "grant select on {names} to {roles}", roles, names)
    _grant_functions(connection, roles)


def _grant_functions(connection: psycopg.Connection, roles: Sequence[sql.Composable]) -> None:
    found = connection.execute(
        "select oid::regprocedure::text from pg_proc"
        " where pronamespace = 'lookalike'::regnamespace and proname = any(%s)",
        [list(READERS_FUNCTIONS)],
    ).fetchall()
    # the server itself wrote and quoted these
    names = [sql.SQL(signature) for (signature,) in found]
    _run(connection, "grant execute on function {names} to {roles}", roles, names)


def _grant_writing(connection: psycopg.Connection, roles: Sequence[sql.Composable]) -> None:
    if not roles:
        return
    _grant_reading(connection, roles)
    tables = connection.execute(
        "select relname from pg_class where relnamespace = 'lookalike'::regnamespace and relkind in ('r', 'p')"
        # models are made by a function, revisions by upgrades
        " and relname not in ('models', 'alembic_version')"
    ).fetchall()
    names = [sql.Identifier("lookalike", name) for (name,) in tables]
    _run(connection, "grant select, insert, update, delete on {names} to {roles}", roles, names)
    _run(connection, "grant execute on all functions in schema lookalike to {roles}", roles)


def _run(
    connection: psycopg.Connection,
    statement: str,
    roles: Sequence[sql.Composable],
    names: Iterable[sql.Composable] = (),
) -> None:
    if roles:
        comma = sql.SQL(", ")
        connection.execute(sql.SQL(statement).format(names=comma.join(names), roles=comma.join(roles)))


def _holders(connection: psycopg.Connection, table: str, privilege: str) -> list[sql.Composable]:
    """Who, apart from the owner, was given a right on one of our tables or views."""
    rows = connection.execute(
        "select case when grantee <> 0 then pg_get_userbyid(grantee) end"
        "  from pg_class c, aclexplode(c.relacl)"
        " where c.oid = %s::regclass and privilege_type = %s and grantee <> c.relowner",
        [f"lookalike.{table}", privilege],
    ).fetchall()
    return [_EVERYBODY if role is None else sql.Identifier(role) for (role,) in rows]


def _require_roles(connection: psycopg.Connection, roles: Sequence[str]) -> None:
    rows = connection.execute("select rolname from pg_roles where rolname = any(%s)", [list(roles)]).fetchall()
    known = {name for (name,) in rows}
    for role in roles:
        if role not in known:
            raise ConfigurationError(
                f"There is no role {role!r} in this server. Have an administrator make it first:\n"
                f"  create role {sql.Identifier(role).as_string(connection)} login password '…';"
            )


def _require_ownership(connection: psycopg.Connection, readers: Sequence[str], writers: Sequence[str]) -> None:
    row = connection.execute(
        "select pg_get_userbyid(nspowner), pg_has_role(current_user, nspowner, 'usage'), current_user"
        "  from pg_namespace where nspname = 'lookalike'"
    ).fetchone()
    if row is None or not row[1]:
        options = [f"--reader {shlex.quote(role)}" for role in readers]
        options += [f"--writer {shlex.quote(role)}" for role in writers]
        raise DatabaseError(
            f"Only the owner of the schema lookalike, {row and row[0]}, may give rights on it, and this is "
            f"{row and row[2]}. With the owner's name in LOOKALIKE_DATABASE_URL, run:\n"
            f"  lookalike db grant {' '.join(options)}"
        )


def _let_in(connection: psycopg.Connection, role: str, *, makes_tables: bool) -> None:
    """What a role needs around our schema; most databases give it to everybody.

    Raises:
        DatabaseError: it lacks something that only somebody else may give.
    """
    row = connection.execute(
        "select current_database(), nspname from pg_extension join pg_namespace n on n.oid = extnamespace"
        " where extname = 'vector'"
    ).fetchone()
    assert row is not None
    name, vector_schema = row
    needed = [
        ("connect", "database", name, "has_database_privilege"),
        ("usage", "schema", vector_schema, "has_schema_privilege"),
    ]
    if makes_tables:
        needed.append(("temporary", "database", name, "has_database_privilege"))
    for privilege, kind, thing, question in needed:
        ask = sql.SQL("select {}(%s, %s, %s)").format(sql.Identifier(question))
        statement = sql.SQL("grant {} on {} {} to {}").format(
            sql.SQL(privilege), sql.SQL(kind), sql.Identifier(thing), sql.Identifier(role)
        )
        if connection.execute(ask, [role, thing, privilege]).fetchone() == (True,):
            continue
        try:
            with connection.transaction():
                connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            pass  # where some right may be passed on and this one not, the server only warns
        if connection.execute(ask, [role, thing, privilege]).fetchone() != (True,):
            raise DatabaseError(
                f"{role!r} lacks the right {privilege} on the {kind} {thing!r}, which {_user(connection)} may not "
                f"give. Have an administrator run this first:\n  {statement.as_string(connection)};"
            )


def _user(connection: psycopg.Connection) -> str:
    row = connection.execute("select current_user").fetchone()
    return str(row and row[0])
