"""`lookalike ingest`."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import typer

from lookalike.cli.output import JsonOption, ModelOption, open_library, say, settings, write_json
from lookalike.cli.progress import show_progress, stop_on_signal
from lookalike.config import DEFAULT_MODEL
from lookalike.errors import ConfigurationError, LookalikeError
from lookalike.types import IngestReport


def ingest(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE…", help="Folders, files and globs.")],
    model: ModelOption = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="Calls a second; by default VISION_RATE, else 10.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="Calls under way at once; by default what fits.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try files again that failed for good and have not changed.")
    ] = False,
    code: Annotated[
        str | None, typer.Option(metavar="CODE", help="With --retry-failed: only failures of this code.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring in every picture of folders, files and globs.

    What is known already, by name and date or by content, costs nothing.

    A run that was interrupted goes on where it stopped when it is started again.
    """
    if code is not None and not retry_failed:
        raise ConfigurationError("--code goes with --retry-failed.")
    with open_library() as images, stop_on_signal() as stop, show_progress(sources, stop.event) as progress:
        try:
            report = images.ingest(
                *sources,
                model=model,
                rate=rate,
                concurrency=concurrency,
                retry_failed=retry_failed,
                code=code,
                progress=progress,
                stop=stop.event,
            )
        except LookalikeError as error:
            if isinstance(error.report, IngestReport):
                _show(error.report, as_json)
            raise
    _show(report, as_json)
    if not report.found:
        say("There are no files there.")
    given = settings()
    if report.model.startswith("local/") and given.vision_key and not (model or given.model):
        say(f"VISION_KEY is set, but this library uses {report.model}. To move on: --model {DEFAULT_MODEL}")
    if stop.signal is not None:
        say("Stopped early. Run the same command again to go on.")
        raise typer.Exit(128 + stop.signal)
    if report.new_failures:
        say("See why with: lookalike failures")
        raise typer.Exit(1)


def _show(report: IngestReport, as_json: bool) -> None:
    if as_json:
        write_json(dataclasses.asdict(report))
        return
    parts = [
        f"{getattr(report, name):,} {name}"
        for name in ("embedded", "unchanged", "failed", "unsupported", "pending")
        if getattr(report, name) or name == "embedded"
    ]
    if report.new_failures:
        parts = [f"{part} ({report.new_failures:,} new)" if part.endswith(" failed") else part for part in parts]
    sys.stdout.write(f"{report.found:,} found under {report.model}: {', '.join(parts)}\n")
    if report.calls:
        retries = f" and {report.retries:,} retries" if report.retries else ""
        speed = report.calls / max(report.seconds, 0.001)
        sys.stdout.write(f"{report.calls:,} calls{retries} in {report.seconds:.1f} s ({speed:.1f}/s)\n")
