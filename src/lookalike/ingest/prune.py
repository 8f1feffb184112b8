"""Files that are stored, and are gone from the source they came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from lookalike.errors import ConfigurationError
from lookalike.ingest.sources import Candidate, folders
from lookalike.ingest.sources.candidate import is_cut
from lookalike.ingest.spill import Seen
from lookalike.store.database import Database
from lookalike.store.writing import forget_files, stored_uris
from lookalike.types import Deleted
from lookalike.uris import path_of

_INCOMPLETE = "lookalike:incomplete"
"""What is noted among the files seen when a part of a source could not be listed."""

_PAGE = 1000


def noting(
    candidates: Iterator[Candidate], scopes: Sequence[tuple[str, str | None]], seen: Seen
) -> Iterator[Candidate]:
    """The candidates, noted as seen where the walk alone can tell; what could not be listed leaves a note of that."""
    everything = any(cover is None for _, cover in scopes)
    for candidate in candidates:
        if everything and candidate.hides_others:
            seen.add(_INCOMPLETE)
        if everything or is_cut(candidate.place.uri):
            seen.add(candidate.place.uri)
        yield candidate


def prune_gone(
    database: Database,
    collection: str,
    scopes: Sequence[tuple[str, str | None]],
    seen: Seen,
    most: float,
) -> Deleted:
    """Delete the files of `scopes` that are gone, and the images that have no file left.

    Args:
        scopes: as `Sources.prune_scopes` gives them.
        seen: the URIs that a complete walk came upon, for scopes that only a walk can tell; and those that had to be
            cut, whatever the scope.
        most: the share of the stored files, 0 to 1, that may go.

    Raises:
        ConfigurationError: more would go, or a part of a source could not be listed; nothing is deleted.
    """
    stored = gone = 0
    for _, is_gone in gone_files(database, collection, scopes, seen):
        stored += 1
        gone += is_gone
    if gone > most * stored:
        raise ConfigurationError(
            f"{gone:,} of {stored:,} files are gone, which is more than --max-prune allows ({most:.0%}): is a disk "
            "or a share not mounted? Look with --prune --dry-run; then raise --max-prune. Nothing was pruned."
        )
    files = images = 0
    page: list[str] = []
    for uri, is_gone in gone_files(database, collection, scopes, seen):
        if is_gone:
            page.append(uri)
        if len(page) == _PAGE:
            forgotten = forget_files(database, collection, page)
            files, images, page = files + forgotten.files, images + forgotten.images, []
    if page:
        forgotten = forget_files(database, collection, page)
        files, images = files + forgotten.files, images + forgotten.images
    return Deleted(files, images)


def gone_files(
    database: Database, collection: str, scopes: Sequence[tuple[str, str | None]], seen: Seen
) -> Iterator[tuple[str, bool]]:
    """The stored files of `scopes`, in order, each with whether it is gone.

    Raises:
        ConfigurationError: a part of a source could not be listed.
    """
    for beginning, cover in scopes:
        if cover is None and _INCOMPLETE in seen:
            raise ConfigurationError(
                "A part of the source, or a row of a table, could not be read, so what is gone cannot be told. See "
                "why with: lookalike failures"
            )
        after = ""
        while page := stored_uris(database, collection, beginning, after, _PAGE):
            after = page[-1]
            for uri in page:
                if cover is None or is_cut(uri):
                    yield uri, uri not in seen
                elif (path := path_of(uri)) is not None and folders.covers(cover, str(path)):
                    yield uri, _is_gone(str(path))


def _is_gone(path: str) -> bool:
    """Whether nothing lies at `path`; what cannot be looked at has not gone."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False
