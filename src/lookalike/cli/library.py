"""`lookalike status`, `failures`, `delete`, `models` and `doctor`: what is stored, and whether all is well."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import textwrap
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lookalike.cli.ingest import backfill
from lookalike.cli.output import JsonOption, counted, open_library, out, printable, settings, short_place, write_json
from lookalike.config import DEFAULT_MODEL, Settings
from lookalike.embedders import open_embedder
from lookalike.embedders.terms import INTERACTIVE
from lookalike.errors import LookalikeError
from lookalike.store.diagnosis import Finding, diagnose
from lookalike.types import ModelStatus

models = typer.Typer(no_args_is_help=True, help="The models that pictures are embedded under.")
models.command()(backfill)

_MARKS = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[red]✗[/]"}
_NO_MODEL = "No model has been used yet. Begin with: lookalike ingest FOLDER"


def status(
    collection: Annotated[str | None, typer.Option(metavar="C", help="Only what belongs to this named set.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is stored and how far each model has come."""
    with open_library() as images:
        found = images.status(collection)
    if as_json:
        write_json(dataclasses.asdict(found))
        return
    videos = f" (videos: {found.videos:,})" if found.videos else ""
    out.print(f"{counted(found.images, 'image')}{videos} in {counted(found.files, 'file')}", end="\n\n")
    if found.models:
        out.print(_table(found.models, "model", "state", "embedded", "pending", "failed", "unsupported"))
    else:
        out.print(_NO_MODEL)
    if found.failures:
        out.print()
        for code, number in found.failures.items():
            out.print(f"{number:>8,} failed: {escape(code)}")
    out.print(f"\n{escape(found.database)}", style="dim", soft_wrap=True)


def failures(
    code: Annotated[str | None, typer.Option(metavar="CODE", help="Only those of this code.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List every file that could not be done, and why; the latest first.

    Files that are no pictures have not failed: see them with --code unsupported.
    """
    with open_library() as images:
        found = images.failures(code)
        others = images.failures("unsupported") if code is None else ()
    if as_json:
        document = {"failures": found, "unsupported": others} if code is None else {"failures": found}
        write_json({name: [dataclasses.asdict(one) for one in each] for name, each in document.items()})
        return
    # what all have in common goes without saying
    models, collections = {failure.model for failure in found}, {failure.collection for failure in found}
    for failure in found:
        model = f"under {failure.model}" if len(models) > 1 else ""
        collection = f"in the collection {printable(failure.collection)}" if len(collections) > 1 else ""
        again = f"tried {failure.attempts} times" if failure.attempts > 1 else ""
        later = "will be tried again" if failure.retryable else ""
        notes = "; ".join(note for note in (model, collection, again, later) if note)
        request = f" [{printable(failure.request_id)}]" if failure.request_id else ""
        sys.stdout.write(f"{short_place(failure.uri)}\n    {failure.code}: {printable(failure.message)}{request}")
        sys.stdout.write(f" ({notes})\n" if notes else "\n")
    if not found:
        out.print("Nothing has failed." if code is None else f"Nothing has failed with the code {escape(code)}.")
    if others:
        more = counted(len(others), "more is no picture", "more are no pictures")
        out.print(f"{more}; list with: lookalike failures --code unsupported", soft_wrap=True)


def delete(
    things: Annotated[
        list[str], typer.Argument(metavar="PATH|URI|KEY|IMAGE_ID", help="What to forget; all of it or nothing.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Forget files; an image goes, with its embeddings, when its last file does.

    The pictures themselves are not touched.
    """
    with open_library() as images:
        gone = images.delete(*things)
    if as_json:
        write_json(dataclasses.asdict(gone))
    else:
        out.print(f"{counted(gone.files, 'file')} deleted, and {counted(gone.images, 'image')} that had no other")


@models.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List the models in use: their state, their view for SQL, and how many images they hold."""
    with open_library() as images:
        found = images.status().models
    if as_json:
        write_json({"models": [dataclasses.asdict(model) for model in found]})
    elif found:
        out.print(_table(found, "model", "state", "embedded", "view"))
        out.print("\nViews lie in the schema lookalike.", style="dim")
    else:
        out.print(_NO_MODEL)


def doctor(as_json: JsonOption = False) -> None:
    """Check database, extension, tables, indexes and settings, and say what to do about what is amiss."""
    given = settings()
    findings = [*diagnose(given), *_service(given)]
    if as_json:
        write_json({"findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            # the terminal wraps: a line feed within a URL would be copied, too
            mark = _MARKS[finding.level]
            out.print(f"{mark} [bold]{finding.subject}[/]: {escape(finding.detail)}", soft_wrap=True)
            if finding.remedy:
                out.print(escape(textwrap.indent(finding.remedy, "    ")), soft_wrap=True)
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(2)


def _service(given: Settings) -> list[Finding]:
    """Whether the model's embedder can be opened; the service is asked nothing that might be billed."""
    try:
        with open_library() as images:
            name = images.model_name()
    except LookalikeError:
        name = given.model or DEFAULT_MODEL
    try:
        with contextlib.closing(open_embedder(name, given, patience=INTERACTIVE)) as embedder:
            told = embedder.inquire()
    except LookalikeError as error:
        return [Finding("warn", "service", f"{name} cannot embed anything new yet.", str(error))]
    return [Finding("ok", "service", f"{name} has the settings that it needs ({told or 'it was not called'}).")]


def _table(found: Sequence[ModelStatus], *columns: str) -> Table:
    table = Table(box=None)
    for column in columns:
        is_number = column in ("embedded", "pending", "failed", "unsupported")
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for model in found:
        values = (getattr(model, column) for column in columns)
        table.add_row(*(f"{value:,}" if isinstance(value, int) else value for value in values))
    return table
