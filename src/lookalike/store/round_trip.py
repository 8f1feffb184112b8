"""Several statements in one round trip, which is a transaction of its own: neither begin nor commit is sent.

psycopg's pipeline mode does the same in twice the time, which its client spends on waiting for each step by itself; a
search by the index is so short that this mattered, and every call in Python, too, as the processor's caches are full of
vectors by the time of an answer (docs/decisions/0011).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Generator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, TypeAlias

import psycopg
from psycopg import generators, pq
from psycopg.adapt import PyFormat, Transformer

Rows: TypeAlias = list[tuple[Any, ...]]
"""Rows of a result, in Python's own types."""

Statement: TypeAlias = tuple[str, Mapping[str, Any]]
"""SQL with placeholders such as ``%(name)s``, and what they stand for."""

_MOST_PREPARED = 100
_PLACEHOLDER = re.compile(r"%%|%\((.*?)\)s")
_BINARY = 1


class Session:
    """What round trips leave behind on a connection for the next ones: settings, and what is prepared.

    Args:
        connection: outside a transaction, whenever something is exchanged.
        usual: what it was set to when it was made.
        prepares: whether statements may be prepared; behind a transaction pooler nothing outlives a transaction.
        keeps_settings: whether nobody else can come upon what is set. Else settings last for one round trip.
    """

    def __init__(
        self, connection: psycopg.Connection, usual: Mapping[str, str], *, prepares: bool, keeps_settings: bool
    ) -> None:
        self._connection = connection
        self._adapted = Transformer(connection)
        self._usual = usual
        self._prepared = _Prepared() if prepares else None
        self._keeps_settings = keeps_settings
        self._set: dict[str, str] = {}
        self._asked: Mapping[str, str] | None = None

    def exchange(self, statements: Sequence[Statement], options: Mapping[str, str]) -> list[Rows]:
        """The rows of each statement, everything in binary.

        After an error, what the connection has prepared and set is not known any more: close it.

        Args:
            options: settings that hold for these statements, and for no others that do not ask for the same. What is
                handed over twice must not have been changed meanwhile.

        Raises:
            psycopg.Error: the database refuses one of them; all of them are rolled back.
        """
        if options is self._asked:  # as of most searches in a row
            return self._exchange(statements)
        wanted = {name: value for name, value in options.items() if self._usual.get(name) != value}
        if wanted == self._set:
            self._asked = options
            return self._exchange(statements)
        changes = {name: self._usual.get(name) for name in self._set} | wanted
        is_local = not self._keeps_settings
        each = ", ".join(f"set_config('{name}', %({name})s, {is_local})" for name in sorted(changes))
        rows = self._exchange([(f"select {each}", changes), *statements])[1:]
        if self._keeps_settings:
            self._set, self._asked = wanted, options
        return rows

    def tidy(self) -> None:
        """Set everything back to what is usual, before others use the connection.

        Raises:
            psycopg.Error: the connection is lost.
        """
        if self._set:
            self.exchange([], {})

    def _exchange(self, statements: Sequence[Statement]) -> list[Rows]:
        try:
            return self._once(statements)
        except psycopg.errors.InvalidSqlStatementName:
            # psycopg, or a pooler that cleans up, has deallocated everything
            if self._prepared is None:
                raise
            self._prepared.forget()
            return self._once(statements)

    def _once(self, statements: Sequence[Statement]) -> list[Rows]:
        server = self._connection.pgconn
        commands = []
        for text, values in statements:
            query, names = _numbered(text)
            encoded = self._adapted.dump_sequence([values[name] for name in names], [PyFormat.AUTO] * len(names))
            types, formats = self._adapted.types or (), self._adapted.formats
            if self._prepared is None:
                commands.append(partial(server.send_query_params, query, encoded, types, formats, _BINARY))
                continue
            name, is_new = self._prepared.name(query, types)
            if is_new:
                commands.append(partial(server.send_prepare, name, query, types))
                for old in self._prepared.superfluous():
                    commands.append(partial(server.send_query_params, b"deallocate " + old, None))
            commands.append(partial(server.send_query_prepared, name, encoded, formats, _BINARY))
        if len(commands) == 1:
            commands[0]()
            results = self._connection.wait(generators.execute(server))
        else:
            server.enter_pipeline_mode()
            results = self._connection.wait(_together(server, commands))
            server.exit_pipeline_mode()
        return [rows for result in results if (rows := self._rows(result)) is not None]

    def _rows(self, result: pq.abc.PGresult) -> Rows | None:
        if result.status == pq.ExecStatus.TUPLES_OK:
            self._adapted.set_pgresult(result)
            return self._adapted.load_rows(0, result.ntuples, tuple)
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result, self._connection.info.encoding)
        return None


class _Prepared:
    """The statements that one connection has prepared, the latest used last."""

    def __init__(self) -> None:
        self._names: OrderedDict[tuple[bytes, tuple[int, ...]], bytes] = OrderedDict()
        self._made = 0

    def name(self, query: bytes, types: tuple[int, ...]) -> tuple[bytes, bool]:
        """The name of a statement, and whether it has yet to be prepared under it."""
        found = self._names.get((query, types))
        if found is not None:
            self._names.move_to_end((query, types))
            return found, False
        self._made += 1
        name = self._names[query, types] = b"lookalike_%d" % self._made
        return name, True

    def forget(self) -> None:
        """Know of none any more; names are not used again."""
        self._names.clear()

    def superfluous(self) -> list[bytes]:
        """The names of those that have not been used for longest, which are forgotten."""
        return [self._names.popitem(last=False)[1] for _ in range(len(self._names) - _MOST_PREPARED)]


@lru_cache(256)
def _numbered(text: str) -> tuple[bytes, tuple[str, ...]]:
    """SQL as the protocol has it: ``$1`` for the first name."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return "%" if match[1] is None else f"${names.setdefault(match[1], len(names) + 1)}"

    return _PLACEHOLDER.sub(number, text).encode(), tuple(names)


def _together(server: pq.abc.PGconn, commands: Sequence[partial[None]]) -> Generator[Any, Any, list[pq.abc.PGresult]]:
    """Send everything, and then read everything; what is answered meanwhile is not left to fill the network."""
    for command in commands:
        command()
    server.pipeline_sync()
    yield from generators.send(server)
    results: list[pq.abc.PGresult] = []
    for _ in commands:
        results += yield from generators.fetch_many(server)
    yield from generators.fetch_many(server)
    return results
