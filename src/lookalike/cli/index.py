"""`lookalike index`: how the indexes are, building them, and what they find."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lookalike.cli.output import JsonOption, ModelOption, counted, err, open_library, out, say, write_json
from lookalike.cli.progress import stop_on_signal
from lookalike.errors import ConfigurationError
from lookalike.reports import BuildProgress, IndexStatus, MetadataIndex
from lookalike.store.index import bytes_of

index = typer.Typer(no_args_is_help=True, help="The HNSW indexes, one for each model, and indexes on metadata.")

_PLAIN_SECONDS = 30.0
_MUCH_DEAD = 0.2


@index.command()
def status(
    model: Annotated[str | None, typer.Option("--model", "-m", metavar="NAME", help="Only this model.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how the index of each model is: whether searches can use it, its size, and builds under way."""
    with open_library() as images:
        found = images.index.status(model)
    if as_json:
        write_json({"indexes": [dataclasses.asdict(one) for one in found]})
        return
    if not found:
        out.print("No model has been used yet. Begin with: lookalike ingest FOLDER")
        return
    # two tables, as one with everything would break the names on a terminal of 80 columns
    names, numbers = Table(box=None), Table(box=None)
    for column in ("index", "state", "model"):
        names.add_column(column, overflow="fold")
    numbers.add_column("index", overflow="fold")
    for column in ("vectors", "dead", "table", "index size", "scans", "memory to build"):
        numbers.add_column(column, justify="right")
    for one in found:
        names.add_row(one.index, one.state, one.model)
        numbers.add_row(
            *(one.index, f"{one.rows:,}", f"{one.dead_share:.0%}"),
            *(_size(one.table_bytes), _size(one.index_bytes), f"{one.scans:,}", _size(one.graph_bytes)),
        )
    out.print(names)
    out.print()
    out.print(numbers)
    for one in found:
        for remark in _remarks(one):
            out.print(escape(f"{one.model}: {remark}"), soft_wrap=True)


@index.command()
def build(
    model: ModelOption = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="What it may use, e.g. 4GB; by default what it needs and the server has."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, max=64, metavar="N", help="Processes beside the first; by default what fits.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build an index that is missing or invalid, or build it anew; searches go on meanwhile.

    What builds that were killed have left behind is removed. Ctrl-C cancels and leaves nothing behind.
    """
    size = bytes_of(memory) if memory is not None else None
    first = "Cancelling the build, and removing what there is of it."
    second = "Press Ctrl-C once more to end at once."
    with open_library() as images, stop_on_signal(first, second) as stop, _watched() as progress:
        done = images.index.build(model, memory=size, workers=workers, progress=progress, stop=stop.event)
    if as_json:
        write_json(dataclasses.asdict(done))
    elif done.stopped is None:
        out.print(
            escape(f"{done.index} of {done.model}: {counted(done.rows, 'vector')}, {_size(done.index_bytes)}, in ")
            + f"{done.seconds:.1f} s"
        )
    for name in done.removed:
        say(f"Removed {name}, which an earlier build had left behind.")
    for note in done.notes:
        say(note)
    if not done.fits:
        say("The graph did not fit into the memory that it was given, which made the build slow. See --memory.")
    if done.stopped is not None:
        say("Cancelled. What was there before is as it was.")
        raise typer.Exit(128 + (stop.signal or 2))


@index.command()
def recall(
    model: ModelOption = None,
    queries: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="Searches; up to half of them earlier queries.")
    ] = 100,
    limit: Annotated[int, typer.Option(min=1, max=10_000, metavar="K", help="Hits of each: the k of recall@k.")] = 10,
    ef_search: Annotated[
        str, typer.Option(metavar="N,N…", help="Numbers of candidates to compare, 1 to 1000 each.")
    ] = "40,100,200,400",
    seed: Annotated[int, typer.Option(metavar="N", help="Chooses the queries; the same seed, the same ones.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare what searches by the index find with what comparing every vector finds.

    recall@10 of 0.99 says that of the ten nearest pictures 9.9 are found, on average.
    """
    candidates = _numbers(ef_search)
    first = "Ending with what has been asked so far."
    second = "Giving up; press Ctrl-C once more to end at once."
    with open_library() as images, stop_on_signal(first, second) as stop, _counted() as progress:
        found = images.index.recall(
            model, queries=queries, limit=limit, ef_search=candidates, seed=seed, progress=progress, stop=stop.event
        )
    if as_json:
        write_json(dataclasses.asdict(found))
    else:
        asked = [
            (len(found.images), "stored image"),
            (len(found.texts), "earlier text"),
            (len(found.pictures), "earlier picture"),
        ]
        kinds = ", ".join(counted(number, kind) for number, kind in asked if number)
        out.print(
            escape(f"{found.index} of {found.model}: {counted(found.rows, 'vector')}; searched with {kinds}"),
            end="\n\n",
        )
        table = Table(box=None)
        for column in ("ef_search", f"recall@{found.limit}", "median"):
            table.add_column(column, justify="right")
        for one in found.recall:
            table.add_row(str(one.ef_search), f"{one.recall:.4f}", f"{one.milliseconds:.1f} ms")
        table.add_row("exact", f"{1:.4f}", f"{found.exact_milliseconds:.1f} ms")
        out.print(table)
        out.print(f"\nA search for {found.limit} takes ef_search {found.default_ef_search} by itself.")
    if stop.signal is not None:
        raise typer.Exit(128 + stop.signal)


@index.command()
def metadata(
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="As filters write it: artist, exif.taken, '\"a.b\"'.")
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the index on this key.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make an index on a key of the metadata, which makes filters on it fast; without KEY, list them.

    It serves comparisons, ranges, beginnings, lists and `exists`. Searches and ingests go on meanwhile. Ctrl-C cancels.
    """
    if key is None:
        if drop:
            raise ConfigurationError("--drop needs to know which: lookalike index metadata KEY --drop")
        with open_library() as images:
            _list_metadata(images.index.metadata_indexes(), as_json=as_json)
    elif drop:
        with open_library() as images:
            dropped = images.index.drop_metadata(key)
        if as_json:
            write_json({"key": key, "dropped": dropped})
        else:
            say(f"Dropped {', '.join(dropped)}." if dropped else f"There is no index on {key}.")
    else:
        _build_metadata(key, as_json=as_json)


def _build_metadata(key: str, *, as_json: bool) -> None:
    first = "Cancelling the build, and removing what there is of it."
    second = "Press Ctrl-C once more to end at once."
    with open_library() as images, stop_on_signal(first, second) as stop, _watched() as progress:
        done = images.index.metadata(key, progress=progress, stop=stop.event)
    if as_json:
        write_json(dataclasses.asdict(done))
    elif done.stopped is None:
        there = "was there already" if done.was == "valid" else f"made in {done.seconds:.1f} s"
        out.print(escape(f"{done.index} on {done.key}: {_size(done.index_bytes)}, {there}"), soft_wrap=True)
    for name in done.removed:
        say(f"Removed {name}, which an earlier build had left behind.")
    for note in done.notes:
        say(note)
    if done.stopped is not None:
        say("Cancelled. What was there before is as it was.")
        raise typer.Exit(128 + (stop.signal or 2))


def _list_metadata(found: Sequence[MetadataIndex], *, as_json: bool) -> None:
    if as_json:
        write_json({"indexes": [dataclasses.asdict(one) for one in found]})
        return
    if not found:
        out.print(
            "No key of the metadata has an index of its own. Make one with: lookalike index metadata KEY",
            soft_wrap=True,
        )
        return
    table = Table(box=None)
    for column in ("key", "index", "state"):
        table.add_column(column, overflow="fold")
    for column in ("size", "scans"):
        table.add_column(column, justify="right")
    for one in found:
        share = f", {one.build.share:.0%}" if one.build and one.build.share is not None else ""
        state = f"{one.state}: {one.build.phase}{share}" if one.build else one.state
        table.add_row(escape(one.key), one.index, escape(state), _size(one.index_bytes), f"{one.scans:,}")
    out.print(table)
    for one in found:
        if one.state == "invalid":
            out.print(
                escape(f"{one.key}: left behind by a build that was killed; lookalike index metadata {one.key}"),
                soft_wrap=True,
            )


def _remarks(one: IndexStatus) -> Iterator[str]:
    """What a person should know or do about an index."""
    if one.build is not None:
        share = f", {one.build.share:.0%}" if one.build.share is not None else ""
        yield f"a build is under way: {one.build.phase}{share}"
    elif one.state != "valid":
        yield (
            f"the index is {one.state}, so that searches compare every vector. "
            f"Run: lookalike index build --model {one.model}"
        )
    if one.left_overs:
        yield f"left behind by builds that were killed: {', '.join(one.left_overs)}; index build removes them."
    if one.dead_share >= _MUCH_DEAD and one.rows:
        yield f"{one.dead_share:.0%} of the table is dead: vacuum analyze lookalike.{one.index.removesuffix('_hnsw')};"


@contextlib.contextmanager
def _watched() -> Iterator[Callable[[BuildProgress], None]]:
    """A bar for the build of an index on a terminal, a line every 30 seconds elsewhere."""
    if not err.is_terminal:
        yield _plain_lines()
        return
    columns = TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[of]}")
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None, of="")

        def show(progress: BuildProgress) -> None:
            share = progress.share
            of = f"{share:.0%}" if share is not None else ""
            bar.update(task, description=progress.phase, total=1.0 if share else None, completed=share or 0.0, of=of)

        yield show


def _plain_lines() -> Callable[[BuildProgress], None]:
    last = time.monotonic()

    def show(progress: BuildProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_SECONDS:
            last = now
            say(progress.phase + (f", {progress.share:.0%}" if progress.share is not None else ""))

    return show


@contextlib.contextmanager
def _counted() -> Iterator[Callable[[int, int], None] | None]:
    """A bar for the queries on a terminal."""
    if not err.is_terminal:
        yield None
        return
    columns = BarColumn(bar_width=None), TextColumn("{task.completed:,.0f}/{task.total:,.0f} queries")
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=1)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or not all(1 <= number <= 1000 for number in numbers):
        raise ConfigurationError(
            f"--ef-search is {text!r}; it is a list of numbers from 1 to 1000, such as 40,100,200."
        )
    return list(dict.fromkeys(numbers))


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:,.0f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"
