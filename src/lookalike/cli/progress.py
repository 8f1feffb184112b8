"""How a long run shows itself to a person, and how a person ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from types import FrameType

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from lookalike.cli.output import err, say
from lookalike.ingest import count_files
from lookalike.types import IngestReport

_PLAIN_SECONDS = 30.0


@dataclasses.dataclass(slots=True)
class Stop:
    """Set once somebody wants the run to end; `signal` is the number of the signal that said so."""

    event: threading.Event
    signal: int | None = None


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Let the first SIGINT or SIGTERM end the run in good order; the second ends it at once."""
    stop = Stop(threading.Event())

    def handler(number: int, _frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = number
        stop.event.set()
        say("Finishing what is under way; press Ctrl-C again to give it up.")

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def show_progress(sources: Sequence[str], stop: threading.Event) -> Iterator[Callable[[IngestReport], None]]:
    """A bar on a terminal, a line every 30 seconds elsewhere."""
    total = _Total(sources, stop)
    if not err.is_terminal:
        yield _plain_lines(total)
        return
    columns: list[ProgressColumn] = [
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,.0f}/{task.fields[of]}"),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}", style="red"),
    ]
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=None, of="…", failed="")

        def show(report: IngestReport) -> None:
            bar.update(
                task,
                completed=_finished(report),
                total=total.number,
                of=f"{total.number:,}" if total.number is not None else "…",
                failed=f"{report.failed:,} failed" if report.failed else "",
            )

        yield show


def _plain_lines(total: _Total) -> Callable[[IngestReport], None]:
    started = last = time.monotonic()

    def show(report: IngestReport) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _PLAIN_SECONDS:
            return
        last = now
        finished = _finished(report)
        speed = finished / (now - started)
        of = left = ""
        if total.number is not None:
            of = f" of {total.number:,}"
            if speed:
                left = f", {timedelta(seconds=round((total.number - finished) / speed))} left"
        say(f"{finished:,}{of} done, {speed:.1f}/s{left}, {report.failed:,} failed")

    return show


class _Total:
    """Counts the files in the background, so that a bar can tell how far there is to go."""

    def __init__(self, sources: Sequence[str], stop: threading.Event) -> None:
        self.number: int | None = None
        threading.Thread(target=self._count, args=(sources, stop), daemon=True).start()

    def _count(self, sources: Sequence[str], stop: threading.Event) -> None:
        with contextlib.suppress(Exception):  # the run itself reports what is wrong with a source
            self.number = count_files(sources, stop)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def _finished(report: IngestReport) -> int:
    return report.found - report.pending
