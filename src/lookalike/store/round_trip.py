"""Several statements in one round trip, which is a transaction of its own: neither begin nor commit is sent.

psycopg's pipeline mode does the same in twice the time, which its client spends on waiting for each step by itself; a
search by the index is so short that this mattered (docs/decisions/0011).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, TypeAlias

import psycopg
from psycopg import pq, waiting
from psycopg.adapt import PyFormat, Transformer

Rows: TypeAlias = Iterator[tuple[Any, ...]]
"""Rows of a result, turned into Python's own types as they are asked for."""

Statement: TypeAlias = tuple[str, Mapping[str, Any]]
"""SQL with placeholders such as ``%(name)s``, and what they stand for."""

_MOST_PREPARED = 100
_PLACEHOLDER = re.compile(r"%%|%\((.*?)\)s")
_BINARY = 1


class Prepared:
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


def exchange(connection: psycopg.Connection, statements: Sequence[Statement], prepared: Prepared | None) -> list[Rows]:
    """The rows of each statement, everything in binary.

    Args:
        connection: outside a transaction. After an error, what it has prepared is not known any more: close it.
        prepared: what the connection has prepared; None where nothing may outlive a transaction.

    Raises:
        psycopg.Error: the database refuses one of them; all of them are rolled back.
    """
    try:
        return _exchange(connection, statements, prepared)
    except psycopg.errors.InvalidSqlStatementName:
        # psycopg, or a pooler that cleans up, has deallocated everything
        if prepared is None:
            raise
        prepared.forget()
        return _exchange(connection, statements, prepared)


def _exchange(connection: psycopg.Connection, statements: Sequence[Statement], prepared: Prepared | None) -> list[Rows]:
    server = connection.pgconn
    commands = []
    for text, values in statements:
        query, names = _numbered(text)
        bound = Transformer(connection)
        encoded = bound.dump_sequence([values[name] for name in names], [PyFormat.AUTO] * len(names))
        types, formats = bound.types or (), bound.formats
        if prepared is None:
            commands.append(partial(server.send_query_params, query, encoded, types, formats, _BINARY))
            continue
        name, is_new = prepared.name(query, types)
        if is_new:
            commands.append(partial(server.send_prepare, name, query, types))
        commands.append(partial(server.send_query_prepared, name, encoded, formats, _BINARY))
    if prepared is not None:
        for name in prepared.superfluous():
            commands.append(partial(server.send_query_params, b"deallocate " + name, None))
    server.enter_pipeline_mode()
    results = connection.wait(_together(server, commands))
    server.exit_pipeline_mode()
    rows = []
    for result in results:
        if result.status == pq.ExecStatus.TUPLES_OK:
            rows.append(_rows(connection, result))
        elif result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result, connection.info.encoding)
    return rows


def _rows(connection: psycopg.Connection, result: pq.abc.PGresult) -> Rows:
    loaded = Transformer(connection)
    loaded.set_pgresult(result)
    for number in range(result.ntuples):
        if (row := loaded.load_row(number, tuple)) is not None:
            yield row


@lru_cache(256)
def _numbered(text: str) -> tuple[bytes, tuple[str, ...]]:
    """SQL as the protocol has it: ``$1`` for the first name."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return "%" if match[1] is None else f"${names.setdefault(match[1], len(names) + 1)}"

    return _PLACEHOLDER.sub(number, text).encode(), tuple(names)


def _together(server: pq.abc.PGconn, commands: Sequence[partial[None]]) -> Generator[Any, Any, list[pq.abc.PGresult]]:
    """Send everything and read everything, in whichever order the network takes and brings it."""
    for command in commands:
        command()
    server.pipeline_sync()
    results: list[pq.abc.PGresult] = []
    while True:
        unsent = server.flush()
        ready = yield waiting.Wait.RW if unsent else waiting.Wait.R
        if not ready & waiting.Ready.R:
            continue
        server.consume_input()
        while not server.is_busy():
            result = server.get_result()
            if result is None:
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return results
            results.append(result)
