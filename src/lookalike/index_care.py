"""The care of the indexes, as users hold it: ``images.index``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lookalike.filters import parse_key
from lookalike.reports import (
    BuildProgress,
    IndexBuild,
    IndexRecall,
    IndexStatus,
    MetadataIndex,
    MetadataIndexBuild,
)
from lookalike.store import index, metadata_index
from lookalike.store.database import Database
from lookalike.store.models import StoredModel
from lookalike.store.recall import index_recall


@dataclass(frozen=True, slots=True)
class IndexCare:
    """What can be known of, and done for, the HNSW index of each model, and indexes on keys of the metadata.

    Args:
        rooms: the rooms of the model of that name, by default of the one that searches use.
    """

    database: Database
    rooms: Callable[[str | None], StoredModel]

    def status(self, model: str | None = None) -> Sequence[IndexStatus]:
        """How the HNSW index of each model is, or of the one named.

        Raises:
            ImageNotFound: nothing is embedded under that model.
        """
        return index.index_status(self.database, self.rooms(model).model.name if model is not None else None)

    def build(
        self,
        model: str | None = None,
        *,
        memory: int | None = None,
        workers: int | None = None,
        progress: Callable[[BuildProgress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> IndexBuild:
        """Build a model's HNSW index anew, while searches and writes go on with what there is.

        Args:
            model: name of the model, by default ``LOOKALIKE_MODEL``, else the active one.
            memory: bytes that the build may use, by default what it needs, as far as the server seems to have it.
            workers: processes beside the first, by default as many as the server allows.
            progress: told a few times a second how far the build is.
            stop: set it from another thread to cancel the build; nothing is left behind.

        Raises:
            ImageNotFound: nothing is embedded under the model.
            ConfigurationError: the connection leads through a pooler.
            DatabaseError: somebody else builds it just now, or the database refuses.
        """
        return index.build_index(
            self.database, self.rooms(model), memory=memory, workers=workers, progress=progress, stop=stop
        )

    def recall(
        self,
        model: str | None = None,
        *,
        queries: int = 100,
        limit: int = 10,
        ef_search: Sequence[int] = (40, 100, 200, 400),
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> IndexRecall:
        """What searches by the index find of what an exact one finds, on earlier queries and on stored images.

        Args:
            model: name of the model, by default ``LOOKALIKE_MODEL``, else the active one.
            queries: how many to search with; up to half of them earlier queries.
            limit: the k of recall@k.
            ef_search: numbers of candidates to compare, 1 to 1000 each.
            seed: which queries are chosen.
            progress: told how many queries are done, of how many.
            stop: set it from another thread to end with what has been asked so far.

        Raises:
            ValueError: a number makes no sense.
            ImageNotFound: nothing is embedded under the model.
            DatabaseError: there is no valid index to compare.
        """
        if queries < 1 or limit < 1 or not ef_search or not all(1 <= ef <= 1000 for ef in ef_search):
            raise ValueError("queries and limit are 1 or more, and each ef_search is 1 to 1000")
        return index_recall(
            self.database,
            self.rooms(model),
            queries=queries,
            limit=limit,
            ef_search=ef_search,
            seed=seed,
            progress=progress,
            stop=stop,
        )

    def metadata(
        self,
        key: str,
        *,
        progress: Callable[[BuildProgress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> MetadataIndexBuild:
        """Make an index on a key of the metadata, for filters on it, unless there is one; all else goes on meanwhile.

        Args:
            key: as filters write it: ``artist``, ``exif.taken``, ``"a.b"``.
            progress: told a few times a second how far the build is.
            stop: set it from another thread to cancel the build; nothing is left behind.

        Raises:
            InvalidFilter: it names no key of the metadata.
            ConfigurationError: the connection leads through a pooler.
            DatabaseError: this role does not own the table, somebody else builds it just now, or the database refuses.
        """
        return metadata_index.build_metadata_index(self.database, parse_key(key), progress=progress, stop=stop)

    def metadata_indexes(self) -> Sequence[MetadataIndex]:
        """The indexes on keys of the metadata, by key."""
        return metadata_index.metadata_indexes(self.database)

    def drop_metadata(self, key: str) -> Sequence[str]:
        """Drop the index on a key of the metadata; the names of what was dropped, none where there was none.

        Raises:
            InvalidFilter, ConfigurationError, DatabaseError: as `metadata` does.
        """
        return metadata_index.drop_metadata_index(self.database, parse_key(key))
