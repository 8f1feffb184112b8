"""Turns at a service, shared by every process that uses the same database and credential."""

from __future__ import annotations

import psycopg

from lookalike.errors import DatabaseError
from lookalike.store.database import Database

_SAVED_SECONDS = 0.5

_SLACK = 1.025
"""By so much turns lie further apart where nothing is saved up: a call that comes a little early would be refused."""


class SharedPace:
    """Hands out turns from the table ``rates``. Implements `lookalike.embedders.http.Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(self, credential: str, rate: float, count: int) -> float | None:
        """Reserve `count` turns, ``1 / rate`` seconds apart; None where the database cannot be asked now.

        Turns that nobody took within the last half second may still be taken: a service saves up a second's worth,
        and what is left to it absorbs the jitter of the network.

        Returns:
            Seconds from now to the first of them; negative if it has passed.
        """
        saved = _SAVED_SECONDS if rate * _SAVED_SECONDS >= 1 else 0.0
        if not saved:
            rate /= _SLACK
        return self._ask(
            """
            insert into lookalike.rates as r (credential, next_turn)
            values (%(credential)s, clock_timestamp() + (%(count)s / %(rate)s - %(saved)s) * interval '1 second')
                on conflict (credential) do update
               set next_turn = greatest(r.next_turn, clock_timestamp() - %(saved)s * interval '1 second')
                               + %(count)s / %(rate)s * interval '1 second'
            returning extract(epoch from next_turn - clock_timestamp())::float8 - %(count)s / %(rate)s
            """,
            {"credential": credential, "rate": float(rate), "count": float(count), "saved": saved},
        )

    def pause(self, credential: str, seconds: float) -> None:
        """Let no process through for so many seconds."""
        self._ask(
            "insert into lookalike.rates as r (credential, next_turn)"
            " values (%(credential)s, clock_timestamp() + %(seconds)s * interval '1 second')"
            " on conflict (credential) do update set next_turn = greatest(r.next_turn, excluded.next_turn)"
            " returning 0.0::float8",
            {"credential": credential, "seconds": seconds},
        )

    def _ask(self, statement: str, parameters: dict[str, object]) -> float | None:
        try:
            with self._database.transaction() as connection:
                row = connection.execute(statement.encode(), parameters).fetchone()
        except DatabaseError as error:
            # a reader's role may search, and pay for queries, where it may not write; a restart passes
            if not isinstance(error.__cause__, psycopg.Error):
                raise
            return None
        return float(row[0]) if row else None
