"""How a long run shows itself to a person, and how a person ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from types import FrameType
from typing import TypeAlias

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from lookalike.cli.output import counted, err, say
from lookalike.reports import BuildProgress, ExportReport, ImportReport, IngestReport

_PLAIN_SECONDS = 30.0

_Report: TypeAlias = IngestReport | ImportReport | ExportReport


@dataclasses.dataclass(slots=True)
class Stop:
    """Set once somebody wants the run to end; `signal` is the number of the signal that said so."""

    event: threading.Event
    signal: int | None = None


@contextlib.contextmanager
def stop_on_signal(
    first: str = "Finishing what is under way; press Ctrl-C again to give it up.",
    second: str = "Storing what is being answered; press Ctrl-C once more to end at once.",
) -> Iterator[Stop]:
    """Let the first SIGINT or SIGTERM end the run in good order; the second gives up whatever waits, and stores what is
    being answered, as it is paid for; the third ends the process at once.

    Args:
        first, second: what is said then.
    """
    stop = Stop(threading.Event())
    given_up = False

    def handler(number: int, _frame: FrameType | None) -> None:
        nonlocal given_up
        if given_up:
            err.show_cursor(True)  # which a progress bar hides
            os._exit(128 + number)
        if stop.signal is not None:
            given_up = True
            say(second)
            raise KeyboardInterrupt
        stop.signal = number
        stop.event.set()
        say(first)

    # a terminal that is closed is a wish to end, too
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def show_progress() -> Iterator[Callable[[_Report], None]]:
    """A bar on a terminal, a line every 30 seconds elsewhere; and, as soon as it is known, when all will be done."""
    announce = _end_announced()
    if not err.is_terminal:
        yield _plain_lines(announce)
        return
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,.0f}/{task.fields[of]}"),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
    ]
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None, of="…", failed="", counted=True)

        def show(report: _Report) -> None:
            announce(report)
            if (building := _building(report)) is not None:
                done = None if building.share is None else 100.0
                bar.update(task, description=_phase(building), completed=100 * (building.share or 0), total=done)
                bar.update(task, of="100 %" if done else "…", counted=False)
                return
            expected = _expected(report)
            bar.update(
                task,
                completed=_finished(report),
                total=expected,
                of=f"{expected:,}" if expected is not None else "…",
                failed=f"{_failed(report):,} failed" if _failed(report) else "",
            )

        yield show


def _end_announced() -> Callable[[_Report], None]:
    """Says once when the run will be done if every file that there is has to be embedded."""
    announced = False

    def announce(report: _Report) -> None:
        nonlocal announced
        if not isinstance(report, IngestReport):
            return
        # once the service has answered: before that, it may have to be said that it refuses
        if announced or not report.expected or not report.rate or not report.embedded:
            return
        announced = True
        seconds = (report.expected - _finished(report)) / report.rate
        done = datetime.now() + timedelta(seconds=seconds)
        say(
            f"{counted(report.expected, 'file')} at {report.rate:g}/s: done by {done:%Y-%m-%d %H:%M:%S}, "
            "sooner if many are known."
        )

    return announce


def _plain_lines(
    announce: Callable[[_Report], None],
) -> Callable[[_Report], None]:
    started = last = time.monotonic()

    def show(report: _Report) -> None:
        nonlocal last
        announce(report)
        now = time.monotonic()
        if now - last < _PLAIN_SECONDS:
            return
        last = now
        if (building := _building(report)) is not None:
            say(_phase(building) + ("" if building.share is None else f", {building.share:.0%}"))
            return
        finished = _finished(report)
        speed = finished / (now - started)
        of = left = ""
        if (expected := _expected(report)) is not None:
            of = f" of {expected:,}"
            if speed:
                left = f", {timedelta(seconds=round((expected - finished) / speed))} left"
        say(f"{finished:,}{of} done, {speed:.1f}/s{left}, {_failed(report):,} failed")

    return show


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed and task.fields["counted"] else "")


def _building(report: _Report) -> BuildProgress | None:
    return report.building if isinstance(report, ImportReport) else None


def _phase(building: BuildProgress) -> str:
    return f"index: {building.phase}"


def _expected(report: _Report) -> int | None:
    return report.expected if isinstance(report, IngestReport) else report.found


def _finished(report: _Report) -> int:
    return report.rows if isinstance(report, ExportReport) else report.found - report.pending


def _failed(report: _Report) -> int:
    return 0 if isinstance(report, ExportReport) else report.failed
