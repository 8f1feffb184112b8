"""`lookalike ingest` and `lookalike models backfill`: the runs that embed pictures."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated

import typer

from lookalike.cli.output import (
    AllowHostOption,
    JsonOption,
    ModelOption,
    counted,
    open_library,
    out,
    say,
    settings,
    short_place,
    write_json,
)
from lookalike.cli.progress import show_progress, stop_on_signal
from lookalike.config import DEFAULT_MODEL
from lookalike.errors import ConfigurationError, LookalikeError
from lookalike.ingest import failures_allowed
from lookalike.reports import IngestPlan, IngestReport

RateOption = Annotated[
    float | None,
    typer.Option(
        min=0.001, metavar="N", help="Calls a second, for all processes together; by default as set, e.g. VISION_RATE."
    ),
]
ConcurrencyOption = Annotated[
    int | None, typer.Option(min=1, max=256, metavar="N", help="Calls under way at once; by default what fits.")
]
MaxCallsOption = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Stop in good order after so many calls that are billed.")
]
MaxFailuresOption = Annotated[
    str, typer.Option(metavar="N|P%", help="Exit with 0 although so many failed for the first time.")
]
NoShrinkOption = Annotated[
    bool, typer.Option("--no-shrink", help="Refuse pictures that are too large for the model, with a reason.")
]


def ingest(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Folders, files, globs; tables of pictures (.csv, .tsv, .jsonl, .parquet); https:// and abfs:// URLs; "
            "- for a list on stdin.",
        ),
    ],
    model: ModelOption = None,
    collection: Annotated[str, typer.Option(metavar="C", help="The named set that the files belong to.")] = "default",
    metadata: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A table that says more about them; joined by path, file name or key."),
    ] = None,
    uri_column: Annotated[
        str | None, typer.Option(metavar="U", help="Column of paths or URLs, where its name does not tell.")
    ] = None,
    key_column: Annotated[
        str | None, typer.Option(metavar="K", help="Column with your own ids. All others become metadata.")
    ] = None,
    exif: Annotated[
        bool, typer.Option("--exif", help="Store date, camera and GPS position under exif of the metadata.")
    ] = False,
    rate: RateOption = None,
    concurrency: ConcurrencyOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and what it would cost; do nothing.")
    ] = False,
    max_calls: MaxCallsOption = None,
    max_failures: MaxFailuresOption = "0",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try files again that failed for good and have not changed.")
    ] = False,
    code: Annotated[
        str | None, typer.Option(metavar="CODE", help="With --retry-failed: only failures of this code.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="At the end, forget files that are gone from the sources.")
    ] = False,
    max_prune: Annotated[
        str, typer.Option(metavar="P%", help="With --prune: refuse where a larger share would go.")
    ] = "50%",
    no_shrink: NoShrinkOption = False,
    send_urls: Annotated[
        bool, typer.Option("--send-urls", help="Let the service fetch http(s) URLs itself; they must be public.")
    ] = False,
    with_text: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Make one vector of each picture and its text in this column, where the model can: a model of its "
            "own, …+with-COLUMN.",
        ),
    ] = None,
    allow_host: AllowHostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring in every picture of folders, tables, lists and buckets.

    What is known already, by name and date or by content, costs nothing.

    A run that was interrupted goes on where it stopped when it is started again.
    """
    if code is not None and not retry_failed:
        raise ConfigurationError("--code goes with --retry-failed.")
    most_pruned = _share(max_prune)
    with open_library() as images, stop_on_signal() as stop:
        if dry_run:
            plan = images.plan(
                *sources,
                collection=collection,
                metadata=metadata,
                uri_column=uri_column,
                key_column=key_column,
                model=model,
                rate=rate,
                retry_failed=retry_failed,
                code=code,
                prune=prune,
                max_prune=most_pruned,
                shrink=not no_shrink,
                send_urls=send_urls,
                with_text=with_text,
                allow_hosts=allow_host or (),
                stop=stop.event,
            )
            if stop.signal is not None:
                raise typer.Exit(128 + stop.signal)
            _show_plan(plan, as_json)
            return

        def run(progress: Callable[[IngestReport], None]) -> IngestReport:
            return images.ingest(
                *sources,
                collection=collection,
                metadata=metadata,
                uri_column=uri_column,
                key_column=key_column,
                model=model,
                rate=rate,
                concurrency=concurrency,
                retry_failed=retry_failed,
                code=code,
                max_calls=max_calls,
                max_failures=max_failures,
                prune=prune,
                max_prune=most_pruned,
                exif=exif,
                shrink=not no_shrink,
                send_urls=send_urls,
                with_text=with_text,
                allow_hosts=allow_host or (),
                progress=progress,
                stop=stop.event,
            )

        report = _reported(run, as_json)
    if not report.found:
        say("There are no files there.")
    given = settings()
    if report.model.startswith("local/") and given.vision_key and not (model or given.model):
        say(f"VISION_KEY is set, but this library uses {report.model}. To move on: --model {DEFAULT_MODEL}")
    _end(report, stop.signal, max_failures)


def backfill(
    name: Annotated[str | None, typer.Argument(metavar="MODEL", help="The model; by default as --model says.")] = None,
    model: ModelOption = None,
    rate: RateOption = None,
    concurrency: ConcurrencyOption = None,
    max_calls: MaxCallsOption = None,
    max_failures: MaxFailuresOption = "0",
    no_shrink: NoShrinkOption = False,
    allow_host: AllowHostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed every stored image that a model still lacks, read from its files.

    Start it on as many machines as you like: they split the work.
    """
    if name is not None and model is not None and name != model:
        raise ConfigurationError(f"Two models are named, {name} and {model}: one at a time.")
    with open_library() as images, stop_on_signal() as stop:

        def run(progress: Callable[[IngestReport], None]) -> IngestReport:
            return images.backfill(
                name or model,
                rate=rate,
                concurrency=concurrency,
                max_calls=max_calls,
                max_failures=max_failures,
                shrink=not no_shrink,
                allow_hosts=allow_host or (),
                progress=progress,
                stop=stop.event,
            )

        report = _reported(run, as_json)
    _end(report, stop.signal, max_failures)


def _reported(run: Callable[[Callable[[IngestReport], None]], IngestReport], as_json: bool) -> IngestReport:
    """Run with a progress bar, and show the report, also of a run that an error has ended."""
    try:
        with show_progress() as progress:
            report = run(progress)
    except LookalikeError as error:
        if isinstance(error.report, IngestReport):
            _show(error.report, as_json)
        raise
    _show(report, as_json)
    return report


def _end(report: IngestReport, signal: int | None, max_failures: str) -> None:
    if signal is not None:
        say("Stopped early. Run the same command again to go on.")
        raise typer.Exit(128 + signal)
    if report.stopped is not None:
        say(f"Stopped: {report.stopped}. Run the same command again to go on.")
    if report.new_failures:
        say("See why with: lookalike failures")
    if report.new_failures > failures_allowed(max_failures)(report.found):
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
    if report.adapted:
        sys.stdout.write(f"{counted(report.adapted, 'was', 'were')} turned, converted or shrunk before sending\n")
    if report.pruned_files or report.pruned_images:
        files, gone = counted(report.pruned_files, "file"), counted(report.pruned_images, "image")
        sys.stdout.write(f"forgotten: {files} that had gone, and {gone} without any other\n")
    if report.calls:
        retries = f" and {counted(report.retries, 'retry', 'retries')}" if report.retries else ""
        cost = f", about {_money(report.price, report.currency)}" if report.price else ""
        allowed = f" of {report.rate:g}/s allowed" if report.rate else ""
        # turns that nobody took before the run make a short one look faster than it may be
        speed = f" ({report.achieved_rate:.1f}/s{allowed})" if report.seconds > 2 else ""
        sys.stdout.write(f"{counted(report.calls, 'call')}{retries} in {report.seconds:.1f} s{speed}{cost}\n")


def _show_plan(plan: IngestPlan, as_json: bool) -> None:
    if as_json:
        write_json(dataclasses.asdict(plan))
        return
    out.print(f"{counted(plan.found, 'file')}; pictures that {plan.model} takes: {plan.pictures:,}", end="\n\n")
    rows = ", ".join(counted(number, table.removesuffix("s")) for table, number in plan.rows.items())
    lines = [
        ("new", f"{plan.new:,}" + (f" ({plan.adapted:,} turned, converted or shrunk)" if plan.adapted else "")),
        ("duplicates", f"{plan.duplicates:,}"),
        ("unchanged", f"{plan.unchanged:,}"),
        ("failed before", f"{plan.failed:,}"),
        ("unreadable", f"{plan.unreadable:,}"),
        ("unsupported", f"{plan.unsupported:,}"),
        ("calls", f"{plan.calls:,}"),
        ("time", f"{timedelta(seconds=round(plan.seconds))} at {plan.rate:g}/s" if plan.rate else "as fast as it goes"),
        ("price", _price(plan)),
        ("rows", rows),
        ("disk", f"about {plan.disk_bytes / 1e6:,.1f} MB"),
    ]
    for name, value in lines:
        out.print(f"  {name:<14} {value}")
    if plan.prune_files:
        would = "refuse to forget them: see --max-prune" if plan.prune_refused else "forget them"
        out.print(
            f"\n{counted(plan.prune_files, 'stored file is', 'stored files are')} gone, and --prune would {would}:"
        )
        for uri in plan.prune_examples:
            sys.stdout.write(f"  {short_place(uri)}\n")
        if plan.prune_files > len(plan.prune_examples):
            out.print(f"  … and {plan.prune_files - len(plan.prune_examples):,} more")


def _price(plan: IngestPlan) -> str:
    if plan.price is not None:
        return _money(plan.price, plan.currency)
    return "goes by tokens, which only the service counts" if plan.currency else "not set; see LOOKALIKE_PRICES"


def _money(amount: float | None, currency: str | None) -> str:
    return f"{amount or 0.0:,.2f} {currency or ''}".rstrip()


def _share(text: str) -> float:
    try:
        share = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not text.strip().endswith("%") or not 0 <= share <= 1:
        raise ConfigurationError(f"--max-prune is {text!r}; it is a share such as 50%.")
    return share
