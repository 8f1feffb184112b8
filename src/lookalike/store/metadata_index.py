"""Indexes on single keys of the metadata: what they hold, making them beside everything else, and finding them again.

Equality with few matches is answered by the index over all metadata. An index on a key answers ranges, beginnings, long
lists and whether there is a value as well, for texts and numbers alike: the conditions of a search say so in the terms
of `text_held`, `number_held` and `is_told`.

Nothing that is stored may be too long for an index, so that it holds the beginning of texts, and numbers in double
precision: a condition in its terms lets more pass than the comparison that it stands beside, never less.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Context, Decimal
from hashlib import sha256
from typing import Literal

import psycopg
from psycopg import sql

from lookalike.errors import DatabaseError
from lookalike.filters.tree import Name
from lookalike.reports import BuildProgress, MetadataIndex, MetadataIndexBuild
from lookalike.store.concurrently import Stopped, cleared, dropping, owned, progress_of, qualified, run
from lookalike.store.database import Database

CHARACTERS_HELD = 200
_LARGEST = 10**30
_DECIMALS = 30
_TABLE = "files"
_PREFIX = "files_metadata_"

_FOUND = """
select c.relname, x.indisvalid and x.indisready, pg_relation_size(c.oid),
       coalesce((select idx_scan from pg_stat_all_indexes i where i.indexrelid = c.oid), 0),
       pg_get_expr(x.indpred, x.indrelid), pg_get_indexdef(c.oid, 1, false), pg_get_indexdef(c.oid, 2, false)
  from pg_index x
  join pg_class c on c.oid = x.indexrelid
  join pg_am a on a.oid = c.relam and a.amname = 'btree'
  join pg_collation l on l.oid = x.indcollation[0] and l.collname = 'C'
 where x.indrelid = to_regclass(%s) and x.indnatts = 2 and x.indpred is not null
 order by c.relname
"""


# -- what is held ----------------------------------------------------------------------------------------------------


def text_held(value: str) -> str:
    """Of a JSON value, given as SQL: its beginning if it is a text, else null."""
    held = f"case when jsonb_typeof({value}) = 'string' then left({value} #>> '{{}}', {CHARACTERS_HELD}) end"
    return f'({held} collate "C")'


def number_held(value: str) -> str:
    """Of a JSON value, given as SQL: double precision if it is a number, else null."""
    bounded = f"greatest(least(({value})::numeric, {_LARGEST}), -{_LARGEST})"
    return f"(case when jsonb_typeof({value}) = 'number' then trunc({bounded}, {_DECIMALS})::float8 end)"


def is_told(value: str) -> str:
    """Of a JSON value, given as SQL: that there is one, other than null. Only such values are in the index."""
    return f"{value} <> 'null'::jsonb"


def float_held(number: float) -> float:
    """What `number_held` gives for a number."""
    bounded = Decimal(str(max(min(number, _LARGEST), -_LARGEST)))
    return float(bounded.quantize(Decimal(1).scaleb(-_DECIMALS), ROUND_DOWN, Context(prec=2 * _DECIMALS + 10)))


# -- making and finding ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    path: tuple[str, ...]
    name: str
    valid: bool
    size: int
    scans: int


def metadata_indexes(database: Database) -> list[MetadataIndex]:
    """The indexes on keys of the metadata, by key.

    Raises:
        DatabaseError: the database cannot be asked.
    """
    with database.transaction() as connection:
        building = progress_of(connection, _TABLE)
        listed = []
        for found in _indexes(connection):
            build = building[0] if building is not None and building[1] == found.name else None
            state: Literal["valid", "invalid", "building"] = "valid" if found.valid else "invalid"
            listed.append(
                MetadataIndex(
                    key=str(Name(found.path, own=False)),
                    index=found.name,
                    state="building" if build else state,
                    index_bytes=found.size,
                    scans=found.scans,
                    build=build,
                )
            )
    return sorted(listed, key=lambda one: (one.key, one.index))


def build_metadata_index(
    database: Database,
    key: Name,
    *,
    progress: Callable[[BuildProgress], None] | None = None,
    stop: threading.Event | None = None,
) -> MetadataIndexBuild:
    """Make an index on a key of the metadata, unless there is one; reads and writes go on meanwhile.

    What builds of it that were killed have left behind is removed.

    Args:
        progress: told a few times a second how far the build is.
        stop: once set, the build is cancelled, and what there is of it removed.

    Raises:
        ConfigurationError: the connection leads through a pooler.
        DatabaseError: the table is somebody else's, a build of this index is under way, or the database refuses.
    """
    stop = stop or threading.Event()
    began = time.monotonic()
    with database.session() as session:
        _claim(session, key)
        there = [found for found in _indexes(session) if found.path == key.path]
        valid = next((found for found in there if found.valid), None)
        left_behind = [found.name for found in there if not found.valid]
        fresh = valid.name if valid else _free_name(session, key, left_behind)
        build = MetadataIndexBuild(
            key=str(key),
            index=fresh,
            was="valid" if valid else "invalid" if left_behind else "missing",
            index_bytes=0,
            seconds=0.0,
            removed=tuple(left_behind),
        )

        def execute(statement: bytes | sql.Composed, unfinished: str | None = None) -> None:
            run(database, session, statement, table=_TABLE, unfinished=unfinished, progress=progress, stop=stop)

        try:
            for name in left_behind:
                execute(dropping(name))
            if valid is None:
                try:
                    execute(_creating(fresh, key), fresh)
                except psycopg.Error:
                    cleared(session, fresh)
                    raise
                # how many files a range lets pass is known only then
                execute(f"analyze {qualified(_TABLE)}".encode())
        except Stopped:
            if any(found.name == fresh and found.valid for found in _indexes(session)):
                note = f"{fresh} is complete, but its statistics are not collected: analyze {qualified(_TABLE)};"
                build = replace(build, notes=(note,))
            else:
                if not cleared(session, fresh):
                    note = f"Others use the table just now, so that {fresh} stays; the next build removes it."
                    build = replace(build, notes=(note,))
                return replace(build, stopped="interrupted", seconds=time.monotonic() - began)
        size = session.execute("select pg_relation_size(to_regclass(%s))", [qualified(fresh)]).fetchone()
    return replace(build, index_bytes=size[0] if size else 0, seconds=time.monotonic() - began)


def drop_metadata_index(database: Database, key: Name) -> tuple[str, ...]:
    """Drop the index on a key of the metadata, and whatever builds of it have left behind.

    Returns:
        The names of what was dropped; none where there was none.

    Raises:
        ConfigurationError: the connection leads through a pooler.
        DatabaseError: the table is somebody else's, a build of this index is under way, or the database refuses.
    """
    with database.session() as session:
        _claim(session, key)
        names = tuple(found.name for found in _indexes(session) if found.path == key.path)
        for name in names:
            session.execute(dropping(name))
    return names


def _claim(session: psycopg.Connection, key: Name) -> None:
    """Keep others from building or dropping the same index until the session ends."""
    if not owned(session, _TABLE):
        row = session.execute(
            "select pg_get_userbyid(relowner), current_user from pg_class where oid = to_regclass(%s)",
            [qualified(_TABLE)],
        ).fetchone()
        raise DatabaseError(
            f"Only the owner of the table lookalike.{_TABLE}, {row and row[0]}, may make or drop its indexes, and this "
            f"is {row and row[1]}. Run it with the owner's name in LOOKALIKE_DATABASE_URL."
        )
    claimed = session.execute(
        "select pg_try_advisory_lock(hashtextextended('lookalike.metadata_index ' || %s, 0))", [_spelled(key.path)]
    ).fetchone()
    if not (claimed and claimed[0]):
        raise DatabaseError(
            f"The index on {key} is being built or dropped by somebody else. See how far it is with: "
            "lookalike index metadata"
        )


def _creating(name: str, key: Name) -> sql.Composed:
    path = "".join(f" -> {sql.Literal(part).as_string()}::text" for part in key.path)
    value = f"(metadata{path})"
    # no part of it is a template: a key may hold braces
    held = sql.SQL(", ").join([_as_it_is(text_held(value)), _as_it_is(number_held(value))])
    return sql.SQL("create index concurrently {} on {} ({}) where ").format(
        sql.Identifier(name), _as_it_is(qualified(_TABLE)), held
    ) + _as_it_is(is_told(value))


def _as_it_is(statement: str) -> sql.Composed:
    return sql.Composed([sql.SQL(statement)])


def _free_name(session: psycopg.Connection, key: Name, ours: Sequence[str]) -> str:
    """A name that says which key it is, as far as that goes, and that nothing else has."""
    told = re.sub(r"[^a-z0-9]+", "_", "_".join(key.path).lower()).strip("_")[:25]
    digest = sha256(_spelled(key.path).encode()).hexdigest()[:8]
    base = name = f"{_PREFIX}{told}_{digest}" if told else f"{_PREFIX}{digest}"
    number = 1
    while name not in ours and _taken(session, name):
        number += 1
        name = f"{base}_{number}"
    return name


def _taken(session: psycopg.Connection, name: str) -> bool:
    row = session.execute("select to_regclass(%s) is not null", [qualified(name)]).fetchone()
    return bool(row and row[0])


def _spelled(path: Sequence[str]) -> str:
    return json.dumps(path)


# -- finding them again by what they hold ----------------------------------------------------------------------------

_PREDICATE = re.compile(r"\((?P<value>.+) <> 'null'::jsonb\)", re.DOTALL)
_STEP = re.compile(r" -> '((?:[^']|'')*)'::text\)")
_CAST = re.compile(r"::(text\[\]|text|jsonb|numeric|double precision|float8)")


def _indexes(connection: psycopg.Connection) -> list[_Found]:
    """All indexes that hold what ours do, whatever they are called and whoever made them."""
    found = []
    # PostgreSQL shows the collation elsewhere
    wanted = [_plain(held("value").replace('collate "C"', ""), "value") for held in (text_held, number_held)]
    for name, valid, size, scans, predicate, first, second in connection.execute(_FOUND, [qualified(_TABLE)]):
        match = _PREDICATE.fullmatch(predicate)
        path = match and _path(match["value"])
        if match and path and [_plain(first, match["value"]), _plain(second, match["value"])] == wanted:
            found.append(_Found(path, name, valid, size, scans))
    return found


def _path(value: str) -> tuple[str, ...] | None:
    """The path into the metadata that PostgreSQL shows so: ``((metadata -> 'exif'::text) -> 'taken'::text)``."""
    at = len(value) - len(value.lstrip("("))
    depth = at
    if not value.startswith("metadata", at):
        return None
    at += len("metadata")
    parts = []
    while match := _STEP.match(value, at):
        parts.append(match[1].replace("''", "'"))
        at = match.end()
    return tuple(parts) if at == len(value) and len(parts) == depth else None


def _plain(expression: str, value: str) -> str:
    """An expression without what PostgreSQL adds to it when it shows it."""
    bare = _CAST.sub("", expression.replace(value, "value").lower().replace("else null", ""))
    return re.sub(r"[\s()'\"]", "", bare)
