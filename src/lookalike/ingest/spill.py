"""Sets and look-up tables of millions of entries that do not stay in memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from typing import Any, Literal, Self

from lookalike.errors import ConfigurationError


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of the temporary file as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"A temporary file cannot be written or read: {error}. Make room in the folder for such files, or name "
            "another one in TMPDIR."
        ) from error


class Seen:
    """A set of strings or bytes that lies in a temporary file; holds digests of 16 bytes. One thread at a time."""

    def __init__(self) -> None:
        # the empty name is a private file, deleted when it is closed
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute("create table seen (digest blob primary key) without rowid")

    @_translated()
    def add(self, thing: str | bytes) -> bool:
        """Add a thing; returns whether it is new."""
        return self._database.execute("insert or ignore into seen values (?)", [_digest(thing)]).rowcount > 0

    @_translated()
    def __contains__(self, thing: str | bytes) -> bool:
        with closing(self._database.execute("select 1 from seen where digest = ?", [_digest(thing)])) as found:
            return found.fetchone() is not None

    def close(self) -> None:
        """Give the file back."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Firsts:
    """For each name the first thing that was noted of it, in a temporary file, as digests. One thread at a time.

    Names are told apart for certain, things but for one chance in 2⁶⁴, as they may be large and nobody means them to
    be mistaken.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute("create table firsts (name blob primary key, thing integer) without rowid")

    @_translated()
    def note_all(self, entries: Iterable[tuple[str | bytes, bytes]]) -> list[Literal["new", "same", "other"]]:
        """Note things by name; returns for each whether it is the first one, or the same as the first one."""
        rows = [(_digest(name), hash(thing)) for name, thing in entries]
        new = _inserted(self._database, "insert or ignore into firsts values (?, ?)", rows)
        return ["new" if is_new else self._compared(*row) for is_new, row in zip(new, rows, strict=True)]

    def _compared(self, name: bytes, thing: int) -> Literal["same", "other"]:
        first = self._database.execute("select thing from firsts where name = ?", [name]).fetchall()
        return "same" if first == [(thing,)] else "other"

    @_translated()
    def __contains__(self, name: str | bytes) -> bool:
        return bool(self._database.execute("select 1 from firsts where name = ?", [_digest(name)]).fetchall())

    def close(self) -> None:
        """Give the file back."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Lookup:
    """A mapping from names to JSON documents that lies in a temporary file. One thread at a time."""

    @_translated()
    def __init__(self, entries: Iterable[tuple[str, Any]]) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute("create table entries (name text primary key, document text) without rowid")
        self._database.execute("begin")
        self._database.executemany(
            "insert or replace into entries values (?, ?)",
            ((_plain(name), json.dumps(document)) for name, document in entries),
        )
        self._database.execute("commit")

    @_translated()
    def find(self, names: Sequence[str]) -> Any:
        """The document of the first of `names` that has one, or None."""
        plain = [_plain(name) for name in names]
        marks = ",".join("?" * len(plain))
        with closing(
            self._database.execute(f"select name, document from entries where name in ({marks})", plain)
        ) as rows:
            found: Mapping[str, str] = dict(rows.fetchall())
        first = next((name for name in plain if name in found), None)
        return json.loads(found[first]) if first is not None else None

    def close(self) -> None:
        """Give the file back."""
        self._database.close()


def _inserted(database: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> list[bool]:
    """Insert rows in a transaction; returns for each whether it was not there yet."""
    database.execute("begin")
    before = database.total_changes
    database.executemany(statement, rows)
    if database.total_changes - before == len(rows):
        new = [True] * len(rows)  # as nearly always: to ask after each of them takes twice as long
    else:
        database.execute("rollback")
        database.execute("begin")
        new = [database.execute(statement, row).rowcount > 0 for row in rows]
    database.execute("commit")
    return new


def _plain(name: str) -> str:
    """SQLite takes no lone surrogates, which stand for undecodable bytes of paths."""
    return name.encode("utf-8", "surrogateescape").decode("latin-1") if not name.isascii() else name


def _digest(thing: str | bytes) -> bytes:
    data = thing if isinstance(thing, bytes) else thing.encode("utf-8", "surrogateescape")
    return blake2b(data, digest_size=16).digest()
