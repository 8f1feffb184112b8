"""`Lookalike`: what users hold."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self
from uuid import UUID

from lookalike.config import DEFAULT_MODEL, Settings
from lookalike.embedders import Embedder, open_embedder
from lookalike.embedders.http import INTERACTIVE
from lookalike.ingest import Retry, check_sources, ingest
from lookalike.pictures.reading import Reader
from lookalike.search import ImageQuery, Searcher, as_uuid
from lookalike.store import reading
from lookalike.store.database import Database
from lookalike.store.writing import delete_named
from lookalike.types import Deleted, Embedding, Failure, IngestReport, Model, Result, Status
from lookalike.uris import uri_of

_log = logging.getLogger("lookalike")


class Lookalike:
    """A library of pictures in a PostgreSQL database, and the searches over it.

    Safe to use from several threads. Close it, or use it in a ``with`` statement::

        with Lookalike.open() as images:
            images.ingest("photos/")
            for hit in images.search("a blue house"):
                print(hit.similarity, hit.path)
    """

    def __init__(
        self, settings: Settings, database: Database, *, announce: Callable[[str], None] | None = None
    ) -> None:
        self._settings = settings
        self._database = database
        self._announce = announce or _log.warning
        self._reader = Reader(settings)
        self._embedders: dict[str, Embedder] = {}
        self._announced: set[str] = set()
        self._lock = threading.Lock()

    @classmethod
    def open(cls, settings: Settings | None = None, *, announce: Callable[[str], None] | None = None) -> Self:
        """Connect as the settings say, by default those of the environment.

        Without a database URL, the private PostgreSQL under ``LOOKALIKE_HOME`` is started.

        Args:
            announce: told, in a sentence, what a person should know: where data lies, what a model can do.
                By default it is logged.

        Raises:
            ConfigurationError: a setting is missing or cannot be understood.
            DatabaseError: the database cannot be reached, is unsupported or out of date.
        """
        settings = settings or Settings.from_environment()
        return cls(settings, Database.open(settings, announce=announce or _log.warning), announce=announce)

    def ingest(
        self,
        *sources: str | os.PathLike[str],
        model: str | None = None,
        rate: float | None = None,
        concurrency: int | None = None,
        retry_failed: bool = False,
        code: str | None = None,
        progress: Callable[[IngestReport], None] | None = None,
        stop: threading.Event | None = None,
    ) -> IngestReport:
        """Bring in every picture of folders, files and globs. What is known already costs nothing.

        Args:
            sources: folders (with everything below them), single files, and globs such as ``photos/**/*.jpg``.
            model: name of the model, for example ``azure-vision/2023-04-15``.
            rate: calls a second, by default ``VISION_RATE``.
            concurrency: calls under way at once, by default what the rate needs.
            retry_failed: try files again that failed for good and have not changed since.
            code: the same, for failures of this code only.
            progress: told a few times a second how far the run is.
            stop: set it from another thread to end the run after what is under way.

        Raises:
            SourceNotFound: nothing lies at one of the sources.
            ConfigurationError: a setting of the service is missing; nothing was begun.
            ServiceError, DatabaseError: nothing more could be done; ``report`` says what was done before.
        """
        names = check_sources(sources)
        halt = threading.Event()
        embedder = open_embedder(self.model_name(model), self._settings, rate=rate, stop=halt)
        try:
            self._tell_notice(embedder)
            return ingest(
                self._database,
                embedder,
                names,
                halt=halt,
                stop=stop or threading.Event(),
                retry=Retry(retry_failed or code is not None, code),
                concurrency=concurrency,
                progress=progress,
            )
        finally:
            embedder.close()

    def delete(self, *things: str | os.PathLike[str] | UUID, key: str | None = None) -> Deleted:
        """Delete files by path, URI, key or image id; an image goes, with its embeddings, when its last file does.

        The pictures themselves are not touched.

        Args:
            things: paths, URIs, the owner's keys or image ids; what is none of the others is taken for a key.
            key: a key that could be mistaken for something else.

        Raises:
            ImageNotFound: one of them is not stored; nothing is deleted.
        """
        uris, keys, ids = [], [] if key is None else [key], []
        for thing in things:
            name = os.fspath(thing) if not isinstance(thing, UUID) else str(thing)
            if (image_id := as_uuid(name)) is not None:
                ids.append(image_id)
            elif reading.image_known_as(self._database, uri=name):
                uris.append(name)
            elif reading.image_known_as(self._database, uri=uri_of(name)) or os.path.lexists(name):
                uris.append(uri_of(name))
            else:
                keys.append(name)
        return delete_named(self._database, uris=uris, keys=keys, images=ids)

    def search(
        self,
        text: str | None = None,
        *,
        image: ImageQuery | None = None,
        limit: int = 10,
        exact: bool | None = None,
        include_self: bool = False,
        model: str | None = None,
    ) -> Result:
        """The images nearest to a text or to a picture, nearest first.

        Args:
            text: what to look for, in words.
            image: what to look for, as bytes, path, URL, or the URI or id of a stored image.
            limit: number of hits; fewer come back only where no more images exist.
            exact: True compares every vector, False always uses the index; None, the default, compares every
                vector of a small library and uses the index of a large one.
            include_self: whether a stored image that is the query itself may be a hit.
            model: name of the model to search under, by default ``LOOKALIKE_MODEL``, else the active one.

        Raises:
            ValueError: neither or both of `text` and `image` are given, or `limit` is less than 1.
            ImageNotFound: there is no such picture, or nothing is embedded under the model yet.
            ItemError: the model does not take this text or picture.
            ServiceError: the service cannot be used.
        """
        if (text is None) == (image is None):
            raise ValueError("search for either a text or an image")
        if limit < 1:
            raise ValueError(f"limit is {limit}; it is the number of hits, 1 or more")
        searcher = self._searcher(model)
        searcher.require_vectors()  # before a call is spent on the query
        query = searcher.image(image) if image is not None else searcher.text(text or "")
        return searcher.search(query, limit=limit, exact=exact, include_self=include_self)

    def similar(
        self,
        image: ImageQuery,
        *,
        limit: int = 10,
        exact: bool | None = None,
        include_self: bool = False,
        model: str | None = None,
    ) -> Result:
        """The images nearest to a picture; ``search(image=image)`` by its other name."""
        return self.search(image=image, limit=limit, exact=exact, include_self=include_self, model=model)

    def embed(self, thing: ImageQuery, *, model: str | None = None) -> Embedding:
        """The embedding of a text or a picture: float32 numbers with their model.

        A string is a picture if it is the path of a file, a URL or the id of a stored image; else it is a text.

        Raises:
            ImageNotFound: there is no such picture.
            ItemError: the model does not take this text or picture.
            ServiceError: the service cannot be used.
        """
        return self._searcher(model).text_or_image(thing).embedding

    def similarity(self, a: ImageQuery, b: ImageQuery, *, model: str | None = None) -> float:
        """Cosine similarity, -1 to 1, of any two texts or pictures; they are understood as `embed` does."""
        return self.embed(a, model=model).similarity(self.embed(b, model=model))

    def status(self) -> Status:
        """What is stored, and how far each model has come."""
        return reading.status(self._database)

    def failures(self) -> Sequence[Failure]:
        """Every file that could not be done and why, the latest first."""
        return reading.failures(self._database)

    def model_name(self, model: str | None = None) -> str:
        """The model that a call uses: the one named, else ``LOOKALIKE_MODEL``, the active one, or the default."""
        return self._searcher(model).model

    @property
    def place(self) -> str:
        """Where the pictures are stored, as a URL without password."""
        return self._database.place

    def close(self) -> None:
        """Give back connections. The private PostgreSQL goes on, for whoever comes next."""
        with self._lock:
            for embedder in self._embedders.values():
                embedder.close()
            self._embedders.clear()
        self._reader.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _searcher(self, model: str | None) -> Searcher:
        named = model or self._settings.model
        stored = reading.model_to_search(self._database, Model(named).name if named else None)
        name = named or (stored.model.name if stored else DEFAULT_MODEL)
        return Searcher(self._database, name, stored, lambda: self._embedder(name), self._reader)

    def _embedder(self, name: str) -> Embedder:
        """The embedder for questions that a person waits for, opened once."""
        with self._lock:
            if name not in self._embedders:
                self._embedders[name] = open_embedder(name, self._settings, patience=INTERACTIVE)
            embedder = self._embedders[name]
        self._tell_notice(embedder)
        return embedder

    def _tell_notice(self, embedder: Embedder) -> None:
        if embedder.notice and embedder.model.name not in self._announced:
            self._announced.add(embedder.model.name)
            self._announce(embedder.notice)
