"""Where pictures come from: folders, single files and globs on this machine."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lookalike.errors import SourceNotFound
from lookalike.pictures.check import PICTURE_SUFFIXES
from lookalike.store.writing import Place
from lookalike.uris import uri_of


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that a walk came upon.

    Attributes:
        expected: whether it claims to be a picture by its name.
        regular: whether it is a file at all, and not a pipe, a socket or a device.
        error: why it cannot be read, where that is known already.
    """

    path: str
    place: Place
    expected: bool = True
    regular: bool = True
    error: str | None = None


def check_sources(sources: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Refuse sources that do not exist before anything is spent.

    Raises:
        SourceNotFound: nothing lies there, or a glob matches nothing.
    """
    if not sources:
        raise SourceNotFound("Name a folder, a file or a glob to ingest.")
    names = [os.fspath(source) for source in sources]
    for name in names:
        if os.path.lexists(name):
            continue
        if not _is_glob(name):
            raise SourceNotFound(f"There is no file or folder {name!r}.")
        if next(_matches(name), None) is None:
            raise SourceNotFound(f"Nothing matches {name!r}.")
    return names


def walk(sources: Sequence[str]) -> Iterator[Candidate]:
    """Every file below `sources`, one after another, folders in the order of their names.

    Hidden files and folders are passed over, unless they are named themselves; links to folders are not followed.
    """
    for name in sources:
        if os.path.lexists(name):
            yield from _walk_named(name)
        else:
            for match in _matches(name):
                yield from _walk_named(match)


def fingerprint_of(status: os.stat_result) -> str:
    """What changes when a file is written: its size in bytes and its modification time in nanoseconds."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _is_glob(name: str) -> bool:
    return any(character in name for character in "*?[")


def _matches(pattern: str) -> Iterator[str]:
    """What a glob matches, hidden things left out unless the pattern names them; ``**`` follows no links to folders."""
    parts = Path(pattern).parts
    fixed = list(itertools.takewhile(lambda part: not _is_glob(part), parts))
    rest = list(parts[len(fixed) :])
    if rest[-1] == "**":
        del rest[-1]  # everything below, which is what a folder means anyway
    base = Path(*fixed)
    if not rest:
        if base.is_dir():
            yield str(base)
        return
    hidden = any(part.startswith(".") for part in rest)
    for match in base.glob(str(Path(*rest))):
        if not hidden and any(part.startswith(".") for part in match.relative_to(base).parts):
            continue
        # `**` lists what lies in a folder beside the folder itself
        if "**" not in rest or not match.is_dir():
            yield str(match)


def _walk_named(name: str) -> Iterator[Candidate]:
    if os.path.isdir(name):
        yield from _walk_folder(name)
    else:
        yield _candidate(name)


def _walk_folder(folder: str) -> Iterator[Candidate]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        # a file that cannot be read, so that a closed folder does not pass for an empty one
        yield Candidate(folder, Place(uri_of(folder)), error=f"The folder cannot be listed: {error.strerror}.")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk_folder(entry.path)
        elif not (entry.is_symlink() and os.path.isdir(entry.path)):
            yield _candidate(entry.path)


def _candidate(path: str) -> Candidate:
    expected = Path(path).suffix.lower() in PICTURE_SUFFIXES
    try:
        status = os.stat(path)
    except OSError as error:
        # a broken or circular link, or a file that has gone since it was listed
        return Candidate(path, Place(uri_of(path)), expected, error=f"The file cannot be opened: {error.strerror}.")
    return Candidate(path, Place(uri_of(path), fingerprint_of(status)), expected, regular=stat.S_ISREG(status.st_mode))
