"""What ran, what it did and what it cost."""

from __future__ import annotations

import dataclasses

from psycopg.types.json import Jsonb

from lookalike.reports import ImportReport, IngestReport
from lookalike.store.database import Database
from lookalike.types import Model
from lookalike.uris import redacted


def begin_run(database: Database, command: str, model: Model) -> int:
    """Note that a command has started; returns the id of the run."""
    with database.transaction() as connection:
        row = connection.execute(
            "insert into lookalike.runs (command, model) values (%s, %s) returning run_id", [command, model.name]
        ).fetchone()
    assert row is not None
    return int(row[0])


def end_run(database: Database, run_id: int, report: IngestReport | ImportReport, exit_code: int) -> None:
    """Note what a run did, what it cost and how it ended."""
    counts = dataclasses.asdict(report)
    counts["stopped"] = report.stopped and redacted(report.stopped)
    del counts["model"]
    calls, tokens = counts.pop("calls", 0), counts.pop("tokens", 0)
    with database.transaction() as connection:
        connection.execute(
            "update lookalike.runs"
            "   set ended_at = clock_timestamp(), counts = %s, calls = %s, tokens = %s, exit_code = %s"
            " where run_id = %s",
            [Jsonb(counts), calls, tokens, exit_code, run_id],
        )
