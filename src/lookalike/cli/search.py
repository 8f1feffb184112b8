"""`lookalike search`, `similar`, `embed` and `similarity`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lookalike.cli.output import (
    AllowHostOption,
    JsonOption,
    ModelOption,
    hit_document,
    open_library,
    out,
    printable,
    short_place,
    write_json,
)
from lookalike.types import Result

LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="Number of hits.")]
ExactOption = Annotated[bool, typer.Option("--exact", help="Compare every vector instead of using the index.")]


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for, in words.")],
    limit: LimitOption = 10,
    model: ModelOption = None,
    exact: ExactOption = False,
    allow_host: AllowHostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find pictures by a text, nearest first.

    Similarities compare the hits of one search; they do not compare across searches.
    """
    with open_library(allow_host or ()) as images:
        _show(images.search(text, limit=limit, exact=exact or None, model=model), as_json)


def similar(
    image: Annotated[str, typer.Argument(metavar="FILE|URL|IMAGE_ID", help="The picture to start from.")],
    limit: LimitOption = 10,
    model: ModelOption = None,
    exact: ExactOption = False,
    include_self: Annotated[bool, typer.Option("--include-self", help="Let the picture itself be a hit.")] = False,
    allow_host: AllowHostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find pictures that look like another one, nearest first.

    A picture that is stored already costs no call.
    """
    with open_library(allow_host or ()) as images:
        result = images.similar(image, limit=limit, exact=exact or None, include_self=include_self, model=model)
        _show(result, as_json)


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


def _show(result: Result, as_json: bool) -> None:
    if as_json:
        write_json(
            {
                "model": result.model,
                "query": result.query,
                "hits": [hit_document(hit) for hit in result],
                "exact": result.exact,
                "index": result.index,
                "ef_search": result.ef_search,
                "completed": result.completed,
                "seconds": result.seconds,
            }
        )
    elif out.is_terminal:
        print_hits(result)
    else:
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
        table.add_row(str(rank), f"{hit.similarity:.4f}", escape(short_place(hit.uri)) + more)
    how = "every vector compared" if result.exact else f"index {result.index}, ef_search {result.ef_search}"
    out.print(escape(printable(result.query)), style="bold", soft_wrap=True)
    out.print(table)
    out.print(f"{result.model}, {how}, {result.seconds * 1000:.0f} ms", style="dim")
