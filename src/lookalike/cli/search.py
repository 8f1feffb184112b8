"""`lookalike search`, `similar`, `embed`, `similarity` and `query`."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lookalike.cli.output import (
    AllowHostOption,
    JsonOption,
    ModelOption,
    counted,
    hit_document,
    open_library,
    out,
    printable,
    say,
    short_place,
    write_json,
)
from lookalike.errors import ConfigurationError, ItemError
from lookalike.lookalike import Lookalike
from lookalike.types import Result


class Only(StrEnum):
    """What a search is limited to."""

    PICTURES = "pictures"
    VIDEOS = "videos"


class Format(StrEnum):
    """How hits are printed."""

    TABLE = "table"
    PATHS = "paths"
    CSV = "csv"
    JSON = "json"


LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Number of hits.")]
CollectionOption = Annotated[str | None, typer.Option(metavar="C", help="Only pictures of this named set.")]
KindOption = Annotated[Only | None, typer.Option("--kind", help="Only pictures, or only videos.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILTER",
        help="Only pictures with a file that satisfies this, e.g. 'artist=Monet', 'year in 1870..1890', 'tags contains "
        "sea', 'uri^=photos/2020/', 'not (key exists or media_type=image/png)'. Repeatable; all must hold.",
    ),
]
AmongOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Only the pictures that this file lists, by id or key, one a line; - is stdin."),
]
MinSimilarityOption = Annotated[
    float | None,
    typer.Option(
        min=-1,
        max=1,
        metavar="S",
        help="Leave out hits below this cosine similarity. Similarities compare the hits of one search, not of two: a "
        "text and a fitting picture may reach 0.3, two pictures of one thing 0.8.",
    ),
]
ExactOption = Annotated[bool, typer.Option("--exact", help="Compare every vector instead of using the index.")]
EfSearchOption = Annotated[
    int | None,
    typer.Option(
        min=1, max=1000, metavar="N", help="Candidates that the index keeps; by default as many as the limit needs."
    ),
]
AfterOption = Annotated[
    str | None, typer.Option(metavar="PLACE", help="Go on behind the page that ended with this `after`.")
]
FormatOption = Annotated[
    Format, typer.Option("--format", "-f", help="paths are for xargs and the like, csv and json for programs.")
]
CopyToOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Also copy the pictures there, named by rank and similarity.")
]
IncludeSelfOption = Annotated[bool, typer.Option("--include-self", help="Let a picture that was asked for be a hit.")]
PlusOption = Annotated[
    list[str] | None, typer.Option(metavar="[WEIGHT:]THING", help="Also like this; taken whole. Repeatable.")
]
MinusOption = Annotated[
    list[str] | None, typer.Option(metavar="[WEIGHT:]THING", help="Unlike this; taken whole. Repeatable.")
]


def search(
    query: Annotated[
        list[str] | None,
        typer.Argument(metavar="QUERY", help="What to look for: words, or a mix.", show_default=False),
    ] = None,
    plus: PlusOption = None,
    minus: MinusOption = None,
    limit: LimitOption = 10,
    model: ModelOption = None,
    collection: CollectionOption = None,
    kind: KindOption = None,
    where: WhereOption = None,
    among: AmongOption = None,
    min_similarity: MinSimilarityOption = None,
    exact: ExactOption = False,
    ef_search: EfSearchOption = None,
    include_self: IncludeSelfOption = False,
    after: AfterOption = None,
    allow_host: AllowHostOption = None,
    copy_to: CopyToOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Find pictures by words, or by a mix of words and pictures, nearest first.

    A mix has + or - between its parts, with spaces around:
    "beach + ./photo.jpg - 2:people" is like beach and like the photo, and
    twice as much unlike people. Parts are words, files, URLs, ids of images,
    and key:… for the picture with that key.

    Similarities compare the hits of one search, not those of two.
    """
    with open_library(allow_host or ()) as images:
        parts = images.mix(" ".join(query or ()), plus=plus or (), minus=minus or (), model=model)
        if not parts:
            raise typer.BadParameter("Say what to look for, in words or with --plus.")
        result = images.search(
            parts,
            limit=limit,
            model=model,
            collection=collection,
            kind=kind.value if kind else None,
            where=where,
            among=_listed(among),
            min_similarity=min_similarity,
            exact=exact or None,
            ef_search=ef_search,
            include_self=include_self,
            after=after,
        )
        _finish(images, result, Format.JSON if as_json else output, copy_to)


def similar(
    image: Annotated[str, typer.Argument(metavar="FILE|URL|IMAGE_ID|KEY", help="The picture to start from.")],
    limit: LimitOption = 10,
    model: ModelOption = None,
    collection: CollectionOption = None,
    kind: KindOption = None,
    where: WhereOption = None,
    among: AmongOption = None,
    min_similarity: MinSimilarityOption = None,
    exact: ExactOption = False,
    ef_search: EfSearchOption = None,
    include_self: IncludeSelfOption = False,
    after: AfterOption = None,
    allow_host: AllowHostOption = None,
    copy_to: CopyToOption = None,
    output: FormatOption = Format.TABLE,
    as_json: JsonOption = False,
) -> None:
    """Find pictures that look like another one, nearest first.

    A picture that is stored already costs no call.
    """
    with open_library(allow_host or ()) as images:
        result = images.similar(
            image,
            limit=limit,
            model=model,
            collection=collection,
            kind=kind.value if kind else None,
            where=where,
            among=_listed(among),
            min_similarity=min_similarity,
            exact=exact or None,
            ef_search=ef_search,
            include_self=include_self,
            after=after,
        )
        _finish(images, result, Format.JSON if as_json else output, copy_to)


def embed(
    thing: Annotated[str, typer.Argument(metavar="TEXT|FILE|URL|IMAGE_ID", help="What to embed.")],
    model: ModelOption = None,
    allow_host: AllowHostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the vector of a text or a picture, as pgvector reads it."""
    with open_library(allow_host or ()) as images:
        embedding = images.embed(thing, model=model)
    numbers = [float(number) for number in embedding.vector]
    if as_json:
        write_json({"model": embedding.model.name, "dimensions": len(numbers), "vector": numbers})
    else:
        sys.stdout.write("[" + ",".join(f"{number:.9g}" for number in numbers) + "]\n")


def similarity(
    a: Annotated[str, typer.Argument(metavar="A", help="A text, file, URL or image id.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    model: ModelOption = None,
    allow_host: AllowHostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the cosine similarity, -1 to 1, of any two texts or pictures."""
    with open_library(allow_host or ()) as images:
        first = images.embed(a, model=model)
        value = first.similarity(images.embed(b, model=model))
    if as_json:
        write_json({"model": first.model.name, "similarity": value})
    else:
        sys.stdout.write(f"{value:.6f}\n")


def _listed(file: Path | None) -> list[str] | None:
    """The ids and keys that a file lists."""
    if file is None:
        return None
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}."
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _finish(images: Lookalike, result: Result, output: Format, copy_to: Path | None) -> None:
    """Print the hits and copy their pictures; exit 1 if one of them could not be copied."""
    _show(result, output)
    if copy_to is None:
        return
    failed = 0
    for hit, copied in zip(result, images.copy_hits(result, copy_to), strict=True):
        if isinstance(copied, ItemError):
            failed += 1
            say(f"{short_place(hit.uri)} was not copied: {copied}")
    say(f"{len(result) - failed:,} of {counted(len(result), 'picture')} copied to {copy_to}")
    if failed:
        raise typer.Exit(1)


def _show(result: Result, output: Format) -> None:
    match output:
        case Format.JSON:
            write_json(
                {
                    "model": result.model,
                    "query": result.query,
                    "hits": [hit_document(hit) for hit in result],
                    "exact": result.exact,
                    "index": result.index,
                    "ef_search": result.ef_search,
                    "completed": result.completed,
                    "after": result.after,
                    "seconds": result.seconds,
                }
            )
        case Format.CSV:
            table = csv.writer(sys.stdout, lineterminator="\n")
            columns = ("rank", "similarity", "uri", "path", "key", "collection", "image_id", "metadata", "media_type")
            table.writerow(columns)
            for rank, hit in enumerate(result, start=1):
                metadata = json.dumps(hit.metadata, ensure_ascii=False)
                # a path that is no text is there as URI
                path = printable(str(hit.path)) if hit.path else ""
                file = hit.files[0]
                place = (hit.uri, path, file.key, file.collection, hit.image_id)
                table.writerow((rank, hit.similarity, *place, metadata, hit.media_type))
        case Format.PATHS:
            sys.stdout.flush()
            for hit in result:
                # as bytes, which need not be a text
                sys.stdout.buffer.write(os.fsencode(hit.path or hit.uri) + b"\n")
        case Format.TABLE if out.is_terminal:
            print_hits(result)
        case Format.TABLE:
            for hit in result:
                sys.stdout.write(f"{hit.similarity:.4f}\t{short_place(hit.uri)}\n")


def print_hits(result: Result) -> None:
    """Show the hits of a search to a person."""
    table = Table(box=None, pad_edge=False)
    table.add_column("#", justify="right", style="dim")
    table.add_column("similarity", justify="right")
    table.add_column("picture", overflow="fold")
    for rank, hit in enumerate(result, start=1):
        more = f"  (+{len(hit.files) - 1} more)" if len(hit.files) > 1 else ""
        kind = "  [dim](video)[/]" if hit.is_video else ""
        table.add_row(str(rank), f"{hit.similarity:.4f}", escape(short_place(hit.uri)) + kind + more)
    how = "exact" if result.exact else f"index {result.index}, ef_search {result.ef_search}"
    out.print(escape(printable(result.query)), style="bold", soft_wrap=True)
    out.print(table if result else "Nothing satisfies this.")
    out.print(f"{result.model}, {how}, {result.seconds * 1000:.0f} ms", style="dim")
    if result.completed:
        out.print("The index gave too few; the rest was found by comparing every vector.", style="dim")


query = typer.Typer(no_args_is_help=True, help="Texts that are embedded already, so that SQL can search with them.")


@query.command("add")
def add_query(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT", help="What SQL is to search with, in words.")],
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed texts for SQL: then lookalike.search_text('a blue house') works. A text that is known costs nothing."""
    with open_library() as images:
        added = images.remember(*texts, model=model)
        name = images.model_name(model)
    if as_json:
        write_json({"model": name, "added": added, "known": len(set(texts)) - added})
    else:
        out.print(f"{added:,} embedded under {escape(name)}; {counted(len(set(texts)) - added, 'was', 'were')} already")


@query.command("list")
def list_queries(model: ModelOption = None, as_json: JsonOption = False) -> None:
    """List the texts that SQL can search with, the latest first."""
    with open_library() as images:
        found = images.remembered(model)
    if as_json:
        write_json({"queries": [dataclasses.asdict(one) for one in found]})
        return
    for one in found:
        sys.stdout.write(f"{printable(one.text)}\t{one.model}\n")
    if not found:
        say("No text has been embedded yet. Begin with: lookalike query add TEXT")
