"""Copies of pictures in a folder, named so that they sort as a search found them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lookalike.errors import ConfigurationError, ItemError
from lookalike.pictures.check import LARGEST_FILE
from lookalike.pictures.reading import Reader
from lookalike.types import Hit
from lookalike.uris import path_of

_LONGEST_NAME = 180
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|]")


def copy_hits(reader: Reader, hits: Iterable[Hit], folder: str | os.PathLike[str]) -> Iterator[Path | ItemError]:
    """Copy the pictures of hits into a folder, named by rank and similarity; nothing is overwritten.

    Yields:
        For each hit where its copy lies, or why there is none.

    Raises:
        ConfigurationError: the folder cannot be made or written to.
    """
    try:
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for rank, hit in enumerate(hits, start=1):
            try:
                uris = [file.uri for file in hit.files]
                yield copy_picture(reader, uris, target, f"{rank:03}-{hit.similarity:.3f}-")
            except ItemError as error:
                yield error
    except OSError as error:
        raise ConfigurationError(f"{os.fspath(folder)} cannot be written to: {error.strerror}.") from None


def copy_picture(reader: Reader, uris: Sequence[str], folder: Path, prefix: str) -> Path:
    """Copy a picture, from the first of its places that it can be read at; returns where to.

    Nothing is overwritten: where the name is taken by another picture, a number is added.

    Raises:
        ItemError: it can be read at none of them; the error is that of the first.
        OSError: the folder cannot be written to.
    """
    first: ItemError | None = None
    for uri in uris:
        try:
            data = _read(reader, uri)
        except ItemError as error:
            first = first or error
            continue
        return _write(data, folder, f"{prefix}{_file_name(uri)}")
    raise first or ItemError("not-found", "The picture has no place.")


def _read(reader: Reader, uri: str) -> bytes:
    path = path_of(uri)
    if path is None:
        if not reader.is_remote(uri):
            raise ItemError("not-found", f"{uri} names no place that a picture could be read at.")
        found = reader.read(uri, most=LARGEST_FILE)
        return found.data if found else b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ItemError("cannot-read", f"{path} cannot be read: {error.strerror}.") from None


def _write(data: bytes, folder: Path, name: str) -> Path:
    stem, suffix = os.path.splitext(name)
    for number in range(1, 10_000):
        path = folder / (name if number == 1 else f"{stem} ({number}){suffix}")
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            if path.is_file() and path.read_bytes() == data:
                return path
        else:
            return path
    raise ItemError("name-taken", f"{folder / name} is taken, and so are 9,999 names like it.")


def _file_name(uri: str) -> str:
    path = path_of(uri)
    name = path.name if path else unquote(urlsplit(uri).path.rpartition("/")[2])
    stem, suffix = os.path.splitext(_NOT_IN_NAMES.sub("_", name) or "picture")
    while len(os.fsencode(stem + suffix)) > _LONGEST_NAME:
        stem, suffix = (stem[:-1], suffix) if stem else (suffix[1:], "")
    return stem + suffix
