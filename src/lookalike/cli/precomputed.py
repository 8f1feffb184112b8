"""`lookalike import` and `lookalike export`: vectors that were computed elsewhere, and those that are stored."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import typer

from lookalike.cli.ingest import MaxFailuresOption
from lookalike.cli.output import JsonOption, ModelOption, counted, open_library, printable, say, write_json
from lookalike.cli.progress import show_progress, stop_on_signal
from lookalike.cli.search import CollectionOption, WhereOption
from lookalike.errors import LookalikeError
from lookalike.ingest import failures_allowed
from lookalike.ingest.precomputed import ImportOptions
from lookalike.reports import ImportReport

_INDEX = {
    "rebuilt": "the index was dropped for the load and built again",
    "built": "the index was missing and has been built",
}


def import_vectors(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE", help="Files of vectors: .npz, .csv, .tsv, .jsonl, .parquet.", show_default=False
        ),
    ] = None,
    from_table: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="URL TABLE",
            help="A table of vectors (pgvector's, arrays or text) in this database instead of files. It is only read.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="Whose vectors they are, where the files do not say."),
    ] = None,
    collection: Annotated[str, typer.Option(metavar="C", help="The named set that the files belong to.")] = "default",
    uri_column: Annotated[
        str | None, typer.Option(metavar="U", help="Column or array of paths or URLs; by default uri, else files …")
    ] = None,
    vector_column: Annotated[
        str | None,
        typer.Option(
            metavar="V",
            help="Column or array of vectors; by default vectors, vector or embedding, in a database the one of the "
            "type vector or halfvec.",
        ),
    ] = None,
    key_column: Annotated[
        str | None, typer.Option(metavar="K", help="Column or array with your own ids; by default key.")
    ] = None,
    max_failures: MaxFailuresOption = "0",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, and store nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring in vectors that were computed elsewhere; no service is called.

    With an array or column sha256 of the pictures' bytes, a later ingest knows the pictures and pays nothing.

    A vector that differs from the stored one replaces it.
    """
    if (from_table is None) == (not files):
        raise typer.BadParameter("Name either files to import, or a table: --from-table URL TABLE")
    first = "Storing the rows in hand; press Ctrl-C again to give them up."
    with open_library() as images, stop_on_signal(first, "Giving up; press Ctrl-C once more to end at once.") as stop:
        try:
            with show_progress() as progress:
                options = ImportOptions(
                    model=model,
                    collection=collection,
                    uri_column=uri_column,
                    vector_column=vector_column,
                    key_column=key_column,
                    max_failures=max_failures,
                    dry_run=dry_run,
                    progress=progress,
                    stop=stop.event,
                )
                if from_table is not None:
                    report = images.import_table(*from_table, **options)
                else:
                    report = images.import_vectors(*files or (), **options)
        except LookalikeError as error:
            if isinstance(error.report, ImportReport):
                _show(error.report, as_json)
            raise
        _show(report, as_json)
    if report.index == "missing":
        say("The index is missing, so that searches compare every vector. Build it with: lookalike index build")
    if stop.signal is not None:
        say("Stopped early. Run the same command again to go on.")
        raise typer.Exit(128 + stop.signal)
    if report.new_failures:
        say("See why with: lookalike failures")
    if report.new_failures > failures_allowed(max_failures)(report.found):
        raise typer.Exit(1)


def _show(report: ImportReport, as_json: bool) -> None:
    if as_json:
        write_json(dataclasses.asdict(report))
        return
    parts = [
        f"{getattr(report, name):,} {name}"
        for name in ("embedded", "unchanged", "failed", "pending")
        if getattr(report, name) or name == "embedded"
    ]
    if report.replaced:
        parts[0] += f" ({report.replaced:,} in place of others)"
    if report.new_failures:
        parts = [f"{part} ({report.new_failures:,} new)" if part.endswith(" failed") else part for part in parts]
    would = "would be " if report.dry_run else ""
    sys.stdout.write(f"{counted(report.found, 'row')} under {report.model}: {would}{', '.join(parts)}\n")
    if report.index in _INDEX:
        sys.stdout.write(f"{_INDEX[report.index]}, all in {report.seconds:.1f} s\n")


def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file to write: .npz or .parquet.")],
    model: ModelOption = None,
    collection: CollectionOption = None,
    where: WhereOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write in the place of a file that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write stored vectors, and what is known of their pictures, to a file.

    One row for each place of a picture: uri, key, collection, sha256, metadata
    and vectors, in half precision as they are stored.

    lookalike import takes the file back as it is.
    """
    said = "Ending; nothing is left of the file. Press Ctrl-C again if it takes too long."
    with open_library() as images, stop_on_signal(said, "Giving up.") as stop, show_progress() as progress:
        report = images.export(
            file,
            model=model,
            collection=collection,
            where=where,
            force=force,
            progress=progress,
            stop=stop.event,
        )
    if as_json:
        write_json(dataclasses.asdict(report))
    elif report.stopped is None:
        sys.stdout.write(
            f"{counted(report.rows, 'row')} of {counted(report.images, 'image')} under {report.model}: "
            f"{printable(file)}, {report.bytes:,} bytes\n"
        )
    if report.stopped is not None:
        say(f"Stopped early; {file} was not written.")
        raise typer.Exit(128 + stop.signal if stop.signal is not None else 2)
    if not report.rows:
        say("No file has a vector and satisfies this, so that the file holds no rows.")
