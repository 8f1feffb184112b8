"""Folders, single files and globs on this machine."""

from __future__ import annotations

import fnmatch
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lookalike.ingest.sources.candidate import Candidate, looks_like_a_picture
from lookalike.store.writing import Place
from lookalike.uris import redacted, uri_of

_ODDITIES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


def exists(name: str) -> bool:
    """Whether there is such a file or folder, or a glob matches something."""
    return os.path.lexists(name) or (is_glob(name) and next(_matches(name), None) is not None)


def walk(name: str, collection: str) -> Iterator[Candidate]:
    """A file, or every file below a folder or what a glob matches; folders in the order of their names.

    Hidden files and folders are passed over, unless they are named themselves; links to folders are not followed.
    """
    if os.path.lexists(name):
        yield from _walk_named(name, collection)
    else:
        for match in _matches(name):
            yield from _walk_named(match, collection)


def covers(name: str, path: str) -> bool:
    """Whether a walk over `name` would come upon `path`, were it there."""
    path = os.path.abspath(path)
    if os.path.lexists(name):
        root = os.path.abspath(name)
        return path == root or path.startswith(os.path.join(root, ""))
    return is_glob(name) and _fits(path.split(os.sep), os.path.abspath(name).split(os.sep))


def root_of(name: str) -> str:
    """The folder or file below which everything lies that a walk over `name` comes upon."""
    if os.path.lexists(name):
        return os.path.abspath(name)
    return os.path.abspath(Path(*itertools.takewhile(lambda part: not is_glob(part), Path(name).parts)))


def fingerprint_of(status: os.stat_result) -> str:
    """What changes when a file is written: its size in bytes and its modification time in nanoseconds."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def is_glob(name: str) -> bool:
    """Whether a name holds what globs are made of."""
    return any(character in name for character in "*?[")


def _matches(pattern: str) -> Iterator[str]:
    """What a glob matches, hidden things left out unless the pattern names them; ``**`` follows no links to folders."""
    parts = Path(pattern).parts
    fixed = list(itertools.takewhile(lambda part: not is_glob(part), parts))
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


def _fits(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return True  # what was matched is a folder, and this lies below it
    if pattern[0] == "**":
        return any(_fits(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _walk_named(name: str, collection: str) -> Iterator[Candidate]:
    if os.path.isdir(name):
        yield from _walk_folder(name, collection)
    else:
        yield file_at(name, collection)


def _walk_folder(folder: str, collection: str) -> Iterator[Candidate]:
    # what comes next stands last; folders may lie deeper in each other than Python calls itself
    ahead: list[str | os.DirEntry[str]] = [folder]
    while ahead:
        entry = ahead.pop()
        path = os.fspath(entry)
        if isinstance(entry, str) or entry.is_dir(follow_symlinks=False):
            try:
                with os.scandir(path) as listing:
                    entries = [below for below in listing if not below.name.startswith(".")]
            except OSError as error:
                # a file that cannot be read, so that a closed folder does not pass for an empty one
                reason = f"The folder cannot be listed: {error.strerror}."
                yield Candidate(path, Place(uri_of(path), collection=collection), error=reason, code="unlisted")
                continue
            entries.sort(key=lambda below: os.fsencode(below.name), reverse=True)
            ahead += entries
        elif not (entry.is_symlink() and os.path.isdir(path)):
            yield file_at(path, collection)


def file_at(path: str, collection: str, *, expected: bool = False) -> Candidate:
    """A local file as a candidate.

    Args:
        expected: whether somebody says that it is a picture, whatever its name.
    """
    expected = expected or looks_like_a_picture(path)
    try:
        status = os.stat(path)
    except OSError as error:
        # a broken or circular link, or a file that has gone since it was listed
        reason = f"The file cannot be opened: {error.strerror}."
        # where nothing lies, a URL without its https:// may be meant, and that may hold a signature
        place = Place(uri_of(redacted(path)), collection=collection)
        return Candidate(path, place, expected=expected, error=reason)
    except ValueError:
        reason = "The path holds a character that no path may hold."
        place = Place(uri_of(path.replace("\0", "\ufffd")), "name:bad-name", collection)
        return Candidate(path, place, expected=expected, error=reason, code="bad-name")
    kind = next((kind for is_kind, kind in _ODDITIES if is_kind(status.st_mode)), None)
    return Candidate(path, Place(uri_of(path), fingerprint_of(status), collection), expected=expected, oddity=kind)
