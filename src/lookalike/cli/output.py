"""What commands share in talking to people and to programs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.text import Text

from lookalike.config import Settings, read_environment
from lookalike.lookalike import Lookalike
from lookalike.types import Hit
from lookalike.uris import path_of, redacted

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="Model to use, e.g. azure-vision/2023-04-15 or local/classic-1. "
        "By default LOOKALIKE_MODEL, else the active model.",
    ),
]
AllowHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="HOST",
        help="Let URLs lead to this host inside your network (name, address, or either with :port); repeatable.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]

err = Console(stderr=True, highlight=False, soft_wrap=True)
# a program that reads a table wants it whole
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def say(message: str) -> None:
    """Tell a person something, on stderr."""
    # whatever a message quotes, a URL in it may hold a signature
    err.print(Text(printable(redacted(message))))


def settings() -> Settings:
    """The settings of this command: the environment over the ``.env`` of the working directory."""
    return Settings.from_environment(read_environment())


def open_library(allow_hosts: Sequence[str] = ()) -> Lookalike:
    """The library that the settings name; URLs may lead to `allow_hosts` as well."""
    given = settings()
    return Lookalike.open(dataclasses.replace(given, allow_hosts=(*given.allow_hosts, *allow_hosts)), announce=say)


def write_json(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, default=_plain, indent=2) + "\n")


def hit_document(hit: Hit) -> dict[str, Any]:
    """A hit as the JSON output shows it."""
    return {
        "image_id": hit.image_id,
        "uri": hit.uri,
        "path": hit.path,
        "similarity": hit.similarity,
        "media_type": hit.media_type,
        "key": hit.key,
        "metadata": hit.metadata,
        "files": [dataclasses.asdict(file) for file in hit.files],
    }


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: 1 file, 2 files."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def short_place(uri: str) -> str:
    """A URI as a person likes to read it, on one line: a path where it is one, relative where that is shorter."""
    path = path_of(uri)
    with contextlib.suppress(ValueError):
        path = path and path.relative_to(Path.cwd())
    return printable(os.fspath(path or uri)).translate({ord("\n"): "�", ord("\t"): "�"})


def printable(text: str) -> str:
    """Text without what a terminal would obey or cannot show."""
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(character if character.isprintable() or character in "\n\t" else "�" for character in shown)


def _plain(value: object) -> object:
    match value:
        case UUID() | Path():
            return str(value)
        case datetime():
            return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
