"""Where pictures come from: folders, globs, files, tables, lists on stdin, URLs and buckets; see `Sources`.

Whatever the source, it gives `Candidate`s one at a time, so that a million of them take no more memory than a few.
"""

from __future__ import annotations

import codecs
import os
import posixpath
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

from lookalike.errors import ConfigurationError, ItemError, SourceNotFound
from lookalike.ingest.sources import folders
from lookalike.ingest.sources.candidate import Candidate, looks_like_a_picture, nameable
from lookalike.ingest.sources.manifests import SUFFIXES, Table
from lookalike.ingest.spill import Lookup
from lookalike.pictures.reading import Reader
from lookalike.store.writing import COLLECTION, LONGEST_COLLECTION, Place, storable
from lookalike.uris import path_of, redacted, uri_of, without_secrets

__all__ = ["Candidate", "Sources"]

STDIN = "-"

_DEEPEST = 16


class Sources:
    """What an ingest was told to bring in. Close it, or use it in a ``with`` statement."""

    def __init__(
        self,
        names: Sequence[str | os.PathLike[str]],
        reader: Reader,
        *,
        collection: str = COLLECTION,
        uri_column: str | None = None,
        key_column: str | None = None,
        metadata: str | os.PathLike[str] | None = None,
        text_column: str | None = None,
        stdin: BinaryIO | None = None,
    ) -> None:
        """Refuse, before anything is spent, what does not exist or cannot be understood.

        Args:
            names: folders, globs, files, tables (CSV, TSV, JSON Lines, Parquet), URLs, and ``-`` for a list on stdin.
            uri_column, key_column: columns of the tables, and of `metadata`.
            metadata: a table that says more about the pictures; joined by path, file name or key.
            text_column: what pictures are embedded together with; one of the tables, if there are any, must have it.
            stdin: what ``-`` reads, by default this process's own.

        Raises:
            SourceNotFound: nothing lies there, or a glob matches nothing.
            ConfigurationError: a table cannot be read or does not have the columns; or the collection cannot have its
                name.
        """
        collection = collection_named(collection)
        if not names:
            raise SourceNotFound("Name a folder, a file, a glob, a table or a URL to ingest.")
        # a URI of a local path is a path like any other
        self.names = [_local(os.fspath(name)) for name in names]
        self.collection = collection
        self._reader = reader
        self._columns = uri_column, key_column
        self._stdin = stdin
        self._fetched: list[str] = []
        self._tables: dict[str, Table] = {}
        self._table_beside: Table | None = None
        self._beside: Lookup | None = None
        self._matched = False
        try:
            for name in self.names:
                self._check(name)
            if key_column is not None and not self._tables and metadata is None:
                raise ConfigurationError("--key-column names a column of a table, and no table is given.")
            if metadata is not None:
                self._beside = self._read_beside(os.fspath(metadata))
            if text_column is not None:
                self._check_text(text_column)
        except BaseException:
            self.close()
            raise

    @property
    def unmatched(self) -> bool:
        """Whether a table of metadata was given, and no picture was found in it."""
        return self._beside is not None and not self._matched

    def walk(self) -> Iterator[Candidate]:
        """Every file, one after another."""
        for name in self.names:
            for candidate in map(nameable, self._walk(name)):
                yield self._told(candidate) if self._beside is not None else candidate

    def count(self, stop: threading.Event) -> int | None:
        """How many files a walk comes upon; None if stopped early, and for a list, which can be read but once."""
        if STDIN in self.names:
            return None
        total = 0
        for name in self.names:
            for _ in self._tables[name].skim() if name in self._tables else self._walk(name):
                total += 1
                if stop.is_set():
                    return None
        return total

    def prune_scopes(self) -> Iterator[tuple[str, str | None]]:
        """Where files that are stored, and were not come upon, have gone: the beginning of their URIs, and the local
        folder, file or glob that covers them (None where only the walk itself can tell).

        Raises:
            ConfigurationError: it cannot be told which files belong to a source.
        """
        for name in self.names:
            if name == STDIN:
                raise ConfigurationError("--prune needs a source that can be walked again, not a list on stdin.")
            if name in self._tables:
                if self.collection == COLLECTION:
                    raise ConfigurationError(
                        f"--prune with a table removes whatever its collection holds and the table does not name: "
                        f"give {without_secrets(name)} a collection of its own (--collection NAME)."
                    )
                yield "", None
            elif self._is_elsewhere(name):
                if urlsplit(name).scheme in ("http", "https"):
                    raise ConfigurationError("--prune needs a source that can be listed, not a single URL.")
                beginning = without_secrets(name)
                if folders.is_glob(beginning):
                    raise ConfigurationError("--prune works on a whole container or folder, not on a glob in one.")
                yield beginning.rstrip("/") + "/", None
            else:
                root = folders.root_of(name)
                yield (uri_of(root).rstrip("/") + "/" if os.path.isdir(root) else uri_of(root)), name

    def close(self) -> None:
        """Remove what was fetched to be read."""
        for path in self._fetched:
            Path(path).unlink(missing_ok=True)
        if self._beside is not None:
            self._beside.close()

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what a name means ----------------------------------------------------------------------------------------

    def _is_elsewhere(self, name: str) -> bool:
        return name == STDIN or (self._reader.is_remote(name) and not os.path.lexists(name))

    def _check(self, name: str) -> None:
        if name == STDIN:
            return
        if self._is_elsewhere(name):
            if _suffix(urlsplit(name).path) in SUFFIXES:
                self._add_table(name, self._download(name))
            return
        if not folders.exists(name):
            shown = redacted(name)
            raise SourceNotFound(
                f"Nothing matches {shown!r}." if folders.is_glob(name) else f"There is no file or folder {shown!r}."
            )
        if _suffix(name) in SUFFIXES and os.path.isfile(name):
            self._add_table(name, Path(name))

    def _add_table(self, name: str, path: Path) -> None:
        uri_column, key_column = self._columns
        table = Table(path, without_secrets(name), uri_column, key_column)
        table.check()
        self._tables[name] = table

    def _check_text(self, column: str) -> None:
        tables = [*self._tables.values(), *([self._table_beside] if self._table_beside is not None else [])]
        if tables and not any(table.may_tell(column) for table in tables):
            listed = ", ".join(sorted({repr(name) for table in tables for name in table.columns}))
            raise ConfigurationError(
                f"No table has a column {column!r} of metadata to embed pictures with. There are {listed or 'none'}."
            )

    def _download(self, url: str) -> Path:
        suffix = _suffix(urlsplit(url).path)
        with tempfile.NamedTemporaryFile(prefix="lookalike-", suffix=suffix, delete=False) as copy:
            self._fetched.append(copy.name)
            try:
                with self._reader.open(url) as original:
                    shutil.copyfileobj(original, copy)
            except ItemError as error:
                raise SourceNotFound(str(error)) from None
        return Path(copy.name)

    def _read_beside(self, name: str) -> Lookup:
        elsewhere = self._reader.is_remote(name) and not os.path.lexists(name)
        if not elsewhere and not os.path.isfile(name):
            raise SourceNotFound(f"There is no file {without_secrets(name)!r} to read metadata from.")
        path = self._download(name) if elsewhere else Path(name)
        if path.suffix.lower() not in SUFFIXES:
            raise ConfigurationError(
                f"{without_secrets(name)} ends in none of {', '.join(sorted(SUFFIXES))}, the tables that can be read."
            )
        uri_column, key_column = self._columns
        # a key may be the only thing that tells which picture a row belongs to
        self._table_beside = table = Table(path, without_secrets(name), uri_column, key_column, keyed=True)
        table.check()
        return Lookup(
            (_joined(row.place), [row.key, row.metadata])
            if row.place is not None
            else (f"key:{row.key}", [None, row.metadata])
            for row in table.rows()
            if row.error is None
        )

    # -- what lies there ------------------------------------------------------------------------------------------

    def _walk(self, name: str) -> Iterator[Candidate]:
        if name == STDIN:
            for line in _lines(self._stdin or sys.stdin.buffer):
                yield self._named(line, os.getcwd())
        elif name in self._tables:
            yield from self._rows(name)
        elif not self._is_elsewhere(name):
            yield from folders.walk(name, self.collection)
        elif urlsplit(name).scheme in ("http", "https"):
            yield self._at(name)
        else:
            yield from self._listed(name)

    def _listed(self, url: str) -> Iterator[Candidate]:
        try:
            for listed in self._reader.list(url):
                place = Place(listed.uri, listed.fingerprint, self.collection)
                expected = looks_like_a_picture(unquote(listed.uri))
                yield Candidate(listed.uri, place, remote=True, expected=expected)
        except ItemError as error:
            place = Place(without_secrets(url), collection=self.collection)
            yield Candidate(url, place, remote=True, error=f"{error} ({error.code})", code="unlisted")

    def _rows(self, name: str) -> Iterator[Candidate]:
        table = self._tables[name]
        if self._is_elsewhere(name):
            base, of_table = name, without_secrets(name)
        else:
            base, of_table = str(table.path.absolute().parent), uri_of(table.path)
        for row in table.rows():
            if row.error is not None or row.place is None:
                place = Place(f"{of_table}#row-{row.number}", storable(f"row:{row.error}"), self.collection)
                yield Candidate(name, place, error=row.error, code="bad-row")
                continue
            candidate = self._named(row.place, base)
            # only what the table says itself: without further columns, what is stored stays
            place = replace(candidate.place, key=row.key, metadata=row.metadata or None)
            yield replace(candidate, place=place)

    def _named(self, name: str, base: str) -> Candidate:
        """A file that a list names: an absolute or relative path, or a URL."""
        name = _local(name)
        if self._reader.is_remote(name):
            return self._at(name)
        if self._reader.is_remote(base):
            return self._at(urljoin(base, name) if base.startswith("http") else _sibling(base, name))
        return folders.file_at(os.path.join(base, name), self.collection, expected=True)

    def _at(self, url: str) -> Candidate:
        return Candidate(url, Place(without_secrets(url), collection=self.collection), remote=True)

    def _told(self, candidate: Candidate) -> Candidate:
        """A candidate with what the table of metadata says of it."""
        assert self._beside is not None
        place = candidate.place
        path = path_of(place.uri)
        names = [place.uri]
        parts = Path(path).parts if path else Path(unquote(urlsplit(place.uri).path)).parts
        parts = tuple(part for part in parts if part != "/")[-_DEEPEST:]
        # the longest way to name it first, down to its name alone
        names += ["/" + "/".join(parts), *("/".join(parts[first:]) for first in range(len(parts)))]
        if place.key is not None:
            names.append(f"key:{place.key}")
        found = self._beside.find(names)
        if found is None:
            return candidate
        self._matched = True
        key, metadata = found
        return replace(
            candidate,
            place=replace(place, key=key or place.key, metadata={**(place.metadata or {}), **metadata}),
        )


def collection_named(name: str) -> str:
    """The name of a collection as it is stored.

    Raises:
        ConfigurationError: no collection can have it.
    """
    name = redacted(name)
    if storable(name) != name or not 0 < len(name.encode()) <= LONGEST_COLLECTION:
        raise ConfigurationError(f"--collection is no name of at most {LONGEST_COLLECTION} bytes of text.")
    return name


def _lines(stream: BinaryIO) -> Iterator[str]:
    """The entries of a list, ended by newlines, or by NUL where there are any in its first block."""
    block = stream.read1(1 << 16) if hasattr(stream, "read1") else stream.read(1 << 16)
    end = b"\0" if b"\0" in block else b"\n"
    block, rest = block.removeprefix(codecs.BOM_UTF8), b""
    while block:
        *whole, rest = (rest + block).split(end)
        yield from (os.fsdecode(line.rstrip(b"\r") if end == b"\n" else line) for line in whole if line.strip())
        block = stream.read(1 << 16)
    if rest.strip():
        yield os.fsdecode(rest.rstrip(b"\r"))


def _joined(place: str) -> str:
    """How a row's place is looked up: a URL as it is, a path without what leads nowhere."""
    if "://" in place:
        return without_secrets(place)
    return posixpath.normpath(place.replace("\\", "/"))


def _sibling(url: str, name: str) -> str:
    return name if name.startswith("/") else f"{url.rpartition('/')[0]}/{name}"


def _local(name: str) -> str:
    """The path that a ``file://`` URI names; any other name as it is."""
    return str(path_of(name) or name) if name.startswith("file://") else name


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()
