"""Turns that processes share: what one has taken, no other gets; what one is told to wait, all wait."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from lookalike.store.database import Database
from lookalike.store.pace import SharedPace


@pytest.fixture
def two(dsn: str) -> Iterator[tuple[SharedPace, SharedPace]]:
    """Two processes' views of one database."""
    with Database(dsn) as one, Database(dsn) as another:
        yield SharedPace(one), SharedPace(another)


def test_turns_are_handed_out_once(two: tuple[SharedPace, SharedPace]) -> None:
    first, second = two
    # at one call in ten seconds, what passes between the two statements does not count
    assert first.reserve("key", 0.1, 2) == pytest.approx(0, abs=1)
    assert second.reserve("key", 0.1, 1) == pytest.approx(20.5, abs=1)
    assert first.reserve("key", 0.1, 1) == pytest.approx(30.75, abs=1)
    assert second.reserve("another key", 0.1, 1) == pytest.approx(0, abs=1)


def test_a_pause_is_everybodys(two: tuple[SharedPace, SharedPace]) -> None:
    first, second = two
    first.reserve("key", 100, 1)
    first.pause("key", 60)
    assert second.reserve("key", 100, 1) == pytest.approx(60, abs=2)
    second.pause("key", 5)  # the longer one counts
    assert first.reserve("key", 100, 1) == pytest.approx(60, abs=2)


def test_slow_turns_lie_a_little_further_apart(two: tuple[SharedPace, SharedPace]) -> None:
    first, second = two
    first.reserve("key", 0.01, 1)
    assert second.reserve("key", 0.01, 1) == pytest.approx(102.5, abs=1)


def test_half_a_second_of_turns_is_saved_up(two: tuple[SharedPace, SharedPace]) -> None:
    assert two[0].reserve("key", 100, 1) == pytest.approx(-0.5, abs=0.05)
    assert two[1].reserve("slow key", 1, 1) == pytest.approx(0, abs=0.05)


def test_whoever_may_not_write_keeps_to_its_own_pace(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("do $$ begin create role pace_reader login; exception when duplicate_object then end $$")
        connection.execute("grant usage on schema lookalike to pace_reader")
    with Database(f"{dsn} options='-c role=pace_reader'") as database:
        assert SharedPace(database).reserve("key", 10, 1) is None
        SharedPace(database).pause("key", 10)
