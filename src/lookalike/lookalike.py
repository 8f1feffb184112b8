"""`Lookalike`: what users hold."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self, Unpack
from uuid import UUID

from lookalike.config import DEFAULT_MODEL, Settings
from lookalike.embedders.opened import OpenEmbedders
from lookalike.errors import ItemError, ModelMismatch, SourceNotFound
from lookalike.export import Export, exported_to
from lookalike.filters import Filter, as_where
from lookalike.index_care import IndexCare
from lookalike.ingest import Preparation, Retry, Sources, Terms, backfill, check_numbers, failures_allowed, ingest, plan
from lookalike.ingest.precomputed import Import, ImportOptions, columns_named, model_of
from lookalike.ingest.precomputed.database import DatabaseTable
from lookalike.ingest.precomputed.tables import VectorTable, open_table
from lookalike.ingest.sources import collection_named
from lookalike.pictures.copies import copy_hits
from lookalike.pictures.reading import Reader
from lookalike.reports import ExportReport, ImportReport, IngestPlan, IngestReport
from lookalike.search import ImageQuery, Part, QueryLike, Scope, Searcher, SearchOptions
from lookalike.store import reading
from lookalike.store.database import Database
from lookalike.store.models import StoredModel
from lookalike.store.pace import SharedPace
from lookalike.store.writing import COLLECTION, delete_named
from lookalike.types import Deleted, Embedding, Failure, Hit, Model, RememberedText, Result, Status
from lookalike.uris import as_uuid, uri_of, without_secrets

_MODEL_SECONDS = 1.0

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
        self._embedders = OpenEmbedders(settings, SharedPace(database), self._announce)
        self._seen_models: dict[str | None, tuple[StoredModel | None, float]] = {}

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
        collection: str = COLLECTION,
        metadata: str | os.PathLike[str] | None = None,
        uri_column: str | None = None,
        key_column: str | None = None,
        model: str | None = None,
        rate: float | None = None,
        concurrency: int | None = None,
        retry_failed: bool = False,
        code: str | None = None,
        max_calls: int | None = None,
        max_failures: int | str = 0,
        prune: bool = False,
        max_prune: float = 0.5,
        exif: bool = False,
        shrink: bool = True,
        send_urls: bool = False,
        with_text: str | None = None,
        allow_hosts: Sequence[str] = (),
        progress: Callable[[IngestReport], None] | None = None,
        stop: threading.Event | None = None,
    ) -> IngestReport:
        """Bring in every picture of the sources. What is known already costs nothing.

        Several processes may do so at once, on several machines: they split the work.

        Args:
            sources: folders (with everything below them), single files, globs such as ``photos/**/*.jpg``, tables of
                pictures (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``), ``https://`` URLs, whatever fsspec opens
                (``abfs://container/folder``), and ``-`` for a list on stdin.
            collection: the named set that the files belong to.
            metadata: a table that says more about the pictures, joined by path, file name or key.
            uri_column: the column of paths or URLs, where its name does not tell.
            key_column: the column with the owner's own ids. Every other column becomes metadata.
            model: name of the model, for example ``azure-vision/2023-04-15``.
            rate: calls a second, by default that of the settings; shared with other processes that use this database.
            concurrency: calls under way at once, by default what the rate needs.
            retry_failed: try files again that failed for good and have not changed since.
            code: the same, for failures of this code only.
            max_calls: end the run, in good order, after so many calls that are billed.
            max_failures: so many files, or such a share as ``"5%"``, may fail for the first time without the run
                counting as failed; it never stops a run.
            prune: at the end of a complete run, remove files that are gone from the sources.
            max_prune: refuse to, where more than this share (0 to 1) of the stored files would go.
            exif: store when, where and with what pictures were taken, under ``exif`` of their metadata.
            shrink: make pictures smaller that are too large for the model, rather than refuse them.
            send_urls: leave it to the service to fetch what lies at an http(s) URL.
            with_text: make one vector of each picture and the text that a column of the tables (or a key of the stored
                metadata) has for it, where the model can. That is a model of its own, ``…+with-COLUMN``; a picture
                without a text fails under it.
            allow_hosts: hosts of private networks that pictures may be fetched from.
            progress: told a few times a second how far the run is.
            stop: set it from another thread to end the run after what is under way.

        Raises:
            ValueError: a number makes no sense.
            SourceNotFound: nothing lies at one of the sources.
            ConfigurationError: a setting of the service is missing, or a table cannot be read; nothing was begun. Or
                too much would have been pruned; ``report`` says what was done before.
            ServiceError, DatabaseError: nothing more could be done; ``report`` says what was done before.
        """
        check_numbers(max_calls, max_prune, concurrency)
        name = self._model_with(model, with_text)
        terms = Terms(
            halt=threading.Event(),
            stop=stop or threading.Event(),
            retry=Retry(retry_failed or code is not None, code),
            allowed_failures=failures_allowed(max_failures),
            concurrency=concurrency,
            price=self._settings.price_of(Model(name)),
            progress=progress,
        )
        with (
            Reader(self._settings, allow_hosts=allow_hosts) as reader,
            Sources(
                sources,
                reader,
                collection=collection,
                uri_column=uri_column,
                key_column=key_column,
                metadata=metadata,
                text_column=Model(name).with_text,
            ) as opened,
            self._embedders.for_run(name, rate, terms.halt, max_calls) as embedder,
        ):
            preparation = Preparation(
                embedder.limits,
                reader,
                shrink=shrink,
                exif=exif,
                send_urls=send_urls,
                with_text=embedder.model.with_text,
            )
            most_pruned = max_prune if prune else None
            report = ingest(self._database, embedder, opened, preparation, terms, most_pruned=most_pruned)
            if opened.unmatched and report.found:
                self._announce(f"No picture was found in {metadata}: it is joined by path, file name or key.")
            return report

    def plan(
        self,
        *sources: str | os.PathLike[str],
        collection: str = COLLECTION,
        metadata: str | os.PathLike[str] | None = None,
        uri_column: str | None = None,
        key_column: str | None = None,
        model: str | None = None,
        rate: float | None = None,
        retry_failed: bool = False,
        code: str | None = None,
        prune: bool = False,
        max_prune: float = 0.5,
        shrink: bool = True,
        send_urls: bool = False,
        with_text: str | None = None,
        allow_hosts: Sequence[str] = (),
        stop: threading.Event | None = None,
    ) -> IngestPlan:
        """What `ingest` with the same arguments would do, and cost. Nothing is stored, and no service called.

        Raises:
            ValueError: a number makes no sense.
            SourceNotFound: nothing lies at one of the sources.
            ConfigurationError: a setting of the service is missing, or a table cannot be read.
        """
        check_numbers(None, max_prune, None)
        name = self._model_with(model, with_text)
        terms = Terms(
            halt=threading.Event(),
            stop=stop or threading.Event(),
            retry=Retry(retry_failed or code is not None, code),
            price=self._settings.price_of(Model(name)),
        )
        with (
            Reader(self._settings, allow_hosts=allow_hosts) as reader,
            Sources(
                sources,
                reader,
                collection=collection,
                uri_column=uri_column,
                key_column=key_column,
                metadata=metadata,
                text_column=Model(name).with_text,
            ) as opened,
            self._embedders.for_run(name, rate, terms.halt) as embedder,
        ):
            preparation = Preparation(
                embedder.limits, reader, shrink=shrink, send_urls=send_urls, with_text=embedder.model.with_text
            )
            most_pruned = max_prune if prune else None
            return plan(self._database, embedder, opened, preparation, terms, most_pruned=most_pruned)

    def backfill(
        self,
        model: str | None = None,
        *,
        rate: float | None = None,
        concurrency: int | None = None,
        max_calls: int | None = None,
        max_failures: int | str = 0,
        shrink: bool = True,
        allow_hosts: Sequence[str] = (),
        progress: Callable[[IngestReport], None] | None = None,
        stop: threading.Event | None = None,
    ) -> IngestReport:
        """Embed every stored image that a model still lacks, read from its files. The arguments are those of `ingest`.

        Several processes may do so at once, on several machines: they split the work.

        Raises:
            ConfigurationError: a setting of the service is missing; nothing was begun.
            ServiceError, DatabaseError: nothing more could be done; ``report`` says what was done before.
        """
        check_numbers(max_calls, 1.0, concurrency)
        name = self.model_name(model)
        terms = Terms(
            halt=threading.Event(),
            stop=stop or threading.Event(),
            allowed_failures=failures_allowed(max_failures),
            concurrency=concurrency,
            price=self._settings.price_of(Model(name)),
            progress=progress,
        )
        with (
            Reader(self._settings, allow_hosts=allow_hosts) as reader,
            self._embedders.for_run(name, rate, terms.halt, max_calls) as embedder,
        ):
            preparation = Preparation(embedder.limits, reader, shrink=shrink, with_text=embedder.model.with_text)
            return backfill(self._database, embedder, preparation, terms)

    def import_vectors(self, *files: str | os.PathLike[str], **options: Unpack[ImportOptions]) -> ImportReport:
        """Bring in vectors that were computed elsewhere; no service is called.

        A vector that differs from what is stored for its image and model replaces it. A row that cannot be used has
        failed, and harms no other; a file that cannot be used is refused before anything is stored.

        Args:
            files: ``.npz`` files and tables (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``): a column or array of URIs
                (``uri``, else ``files``), one of vectors (``vectors``, ``vector`` or ``embedding``), and if you like
                ``sha256`` of the pictures' bytes, ``key`` and ``model``. All others become metadata.
            options: see `ImportOptions`.

        Raises:
            SourceNotFound: one of the files is not there.
            ConfigurationError: one of them cannot be read, lacks a column, or does not say whose vectors it holds.
            ModelMismatch: one of them holds vectors of another model than the one named.
            DatabaseError: nothing more could be done; ``report`` says what was done before.
        """
        columns = columns_named(options)
        if not files:
            raise SourceNotFound("Name a file of vectors to import.")
        return self._import([open_table(file, **columns) for file in files], options)

    def import_table(self, url: str, table: str, **options: Unpack[ImportOptions]) -> ImportReport:
        """Bring in vectors from a table of anybody's PostgreSQL, as `import_vectors` does from files.

        It is read in a stream, in one read-only transaction; nothing there is changed, and the URL is kept nowhere.

        Args:
            url: of the table's database, in any spelling; it may be the one that pictures are stored in.
            table: its name as in SQL, with a schema before it or without. Its one column of the type vector or halfvec
                holds the vectors, unless ``vector_column`` says otherwise; columns of bytes are left out, and all
                others are what they are in a file.
            options: see `ImportOptions`. Relative paths begin at the working directory.

        Raises:
            SourceNotFound: there is no such table.
            ConfigurationError: the URL cannot be read, or a column is missing or of the wrong type.
            ModelMismatch: it holds vectors of another model than the one named.
            DatabaseError: one of the databases does not answer, or refuses; ``report`` says what was done before.
        """
        with DatabaseTable(url, table, **columns_named(options)) as opened:
            opened.require_apart_from(self._database)
            return self._import([opened], options)

    def _import(self, tables: Sequence[VectorTable], options: ImportOptions) -> ImportReport:
        name = options.get("model")
        run = Import(
            self._database,
            model_of(self._database, tables, name),
            tables,
            collection_named(options.get("collection", COLLECTION)),
            name is not None,
            self._reader.is_remote,
            failures_allowed(options.get("max_failures", 0)),
            self._announce,
            options.get("progress"),
            options.get("stop") or threading.Event(),
        )
        try:
            return run.rehearse() if options.get("dry_run") else run.run()
        finally:
            self._seen_models.clear()

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        model: str | None = None,
        collection: str | None = None,
        where: Filter = None,
        force: bool = False,
        progress: Callable[[ExportReport], None] | None = None,
        stop: threading.Event | None = None,
    ) -> ExportReport:
        """Write the vectors of a model, and what is known of their files, to a file that `import_vectors` takes back.

        One row for each file of an image that has a vector, in the order of collection and URI, all of one moment:
        ``uri``, ``key``, ``collection``, ``sha256`` (hexadecimal), ``metadata`` (JSON) and ``vectors`` (float16, as
        they are stored). The file is there once it is complete, and not before.

        Args:
            path: a file whose name ends in ``.npz`` or ``.parquet``.
            model: name of the model, by default ``LOOKALIKE_MODEL``, else the active one.
            collection: only the files of this named set.
            where: only the files that satisfy this filter.
            force: write in the place of a file that is there.
            progress: told after each batch how far the run is.
            stop: set it from another thread to end the run; no file is left.

        Raises:
            ImageNotFound: nothing is embedded under the model.
            InvalidFilter: `where` cannot be understood.
            ConfigurationError: the file is there already, or cannot be written.
            DatabaseError: the database does not answer, or refuses; no file is left.
        """
        target, condition = exported_to(path, force=force), as_where(where)
        run = Export(self._database, self._rooms(model), target, collection, condition, force, progress, stop)
        return run.run()

    @property
    def index(self) -> IndexCare:
        """The care of the HNSW indexes: their status, building them, and what they find."""
        return IndexCare(self._database, self._rooms)

    def _rooms(self, model: str | None) -> StoredModel:
        self._seen_models.clear()
        return self._searcher(model).require_vectors()

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
            elif reading.image_known_as(self._database, uri=without_secrets(name)):
                uris.append(without_secrets(name))
            elif reading.image_known_as(self._database, uri=uri_of(name)) or os.path.lexists(name):
                uris.append(uri_of(name))
            else:
                keys.append(name.removeprefix("key:") if not reading.images_of_key(self._database, name) else name)
        return delete_named(self._database, uris=uris, keys=keys, images=ids)

    def search(
        self,
        query: QueryLike | None = None,
        *,
        image: ImageQuery | None = None,
        **options: Unpack[SearchOptions],
    ) -> Result:
        """The images nearest to a text, a picture, a mix of both or a vector, nearest first.

        ::

            images.search("a blue house", limit=20, where={"artist": "Monet"})
            images.search([Part("beach"), Part(image="photo.jpg"), Part("people", weight=-1)])

        Args:
            query: what to look for: words, a list of weighted `Part` objects, or an `Embedding`.
            image: what to look for, as bytes, path, URL, or the URI, id or key of a stored image.
            options: see `SearchOptions`.

        Raises:
            ValueError: neither or both of `query` and `image` are given, or a number makes no sense.
            InvalidFilter: `where`, `among`, `after` or the mix cannot be understood.
            ImageNotFound: there is no such picture, or nothing is embedded under the model yet.
            ItemError: the model does not take this text or picture.
            ModelMismatch: the vector belongs to another model.
            ServiceError: the service cannot be used.
        """
        if (query is None) == (image is None):
            raise ValueError("search for either a text (or a mix, or a vector) or an image")
        return self.search_many([query if query is not None else Part(image=image)], **options)[0]

    def search_many(self, queries: Sequence[QueryLike], **options: Unpack[SearchOptions]) -> list[Result]:
        """What `search` finds for each of many queries, in their order, in few round trips to the database.

        Texts that nobody has asked before go to the service several at a time.

        Raises:
            ValueError: `after` is given, which belongs to one query. Else as `search`; one query that cannot be done
                stops all of them, and what was embedded for the others is remembered.
        """
        scope = Scope.of(**options)
        if scope.after is not None and len(queries) != 1:
            raise ValueError("after belongs to the result of one query; search for that one alone")
        named = options.get("model") or self._settings.model
        for model in (query.model.name for query in queries if isinstance(query, Embedding)):
            if named is not None and model != named:
                raise ModelMismatch(named, model)
            named = model  # a vector knows where it belongs
        searcher = self._searcher(named)
        searcher.require_vectors()  # before a call is spent on a query
        return searcher.search(searcher.queries(queries), scope)

    def similar(self, image: ImageQuery, **options: Unpack[SearchOptions]) -> Result:
        """The images nearest to a picture; ``search(image=image)`` by its other name."""
        return self.search(image=image, **options)

    def similar_many(self, images: Sequence[ImageQuery], **options: Unpack[SearchOptions]) -> list[Result]:
        """What `similar` finds for each of many pictures, in their order, in few round trips to the database."""
        return self.search_many([Part(image=image) for image in images], **options)

    def copy_hits(self, hits: Iterable[Hit], folder: str | os.PathLike[str]) -> Iterator[Path | ItemError]:
        """Copy the pictures of hits into a folder, named by rank and similarity; nothing is overwritten.

        Yields for each hit where its copy lies, or why there is none. Raises `ConfigurationError` where the folder
        cannot be made or written to.
        """
        return copy_hits(self._reader, hits, folder)

    def mix(
        self, text: str, *, plus: Sequence[str] = (), minus: Sequence[str] = (), model: str | None = None
    ) -> list[Part]:
        """A mix as people type it on the command line, for `search`: ``beach + ./photo.jpg - 2:people``.

        Args:
            text: parts with ``+`` or ``-`` between them, white space on both sides; each a text, a file, a URL or an
                image id, with a weight before it if it is not 1.
            plus, minus: further parts, taken whole.

        Raises:
            InvalidFilter: there is nothing behind a sign.
        """
        searcher = self._searcher(model)
        parts = searcher.mix(text) if text.strip() else []
        return [*parts, *(searcher.weighted(one) for one in plus), *(searcher.weighted(one, "-") for one in minus)]

    def remember(self, *texts: str, model: str | None = None) -> int:
        """Embed texts, so that SQL can search with them: ``lookalike.search_text('a blue house')``.

        Returns:
            How many of them were embedded under the model now; the others were before.

        Raises:
            ImageNotFound: nothing is embedded under the model yet, so that nothing could be found.
            DatabaseError: we may not keep them.
            ItemError, ServiceError: one of them cannot be embedded; the others are remembered.
        """
        return self._searcher(model).remember(texts)

    def remembered(self, model: str | None = None) -> Sequence[RememberedText]:
        """The texts that SQL can search with, the latest first, of one model or of all."""
        return reading.remembered_texts(self._database, Model(model).name if model else None)

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

    def status(self, collection: str | None = None) -> Status:
        """What is stored, of all or of one collection, and how far each model has come.

        Raises:
            ImageNotFound: there is no such collection.
        """
        if collection is None:
            return reading.status(self._database)
        return reading.collection_status(self._database, collection)

    def failures(self, code: str | None = None) -> Sequence[Failure]:
        """Every file that could not be done and why, or those of one code, the latest first.

        Files that are no pictures have not failed; they are listed under the code ``unsupported`` alone.
        """
        return reading.failures(self._database, code)

    def model_name(self, model: str | None = None) -> str:
        """The model that a call uses: the one named, else ``LOOKALIKE_MODEL``, the active one, or the default."""
        return self._searcher(model).model

    def _model_with(self, model: str | None, text_column: str | None) -> str:
        name = self.model_name(model)
        return name if text_column is None else Model(name).fused_with(text_column).name

    @property
    def place(self) -> str:
        """Where the pictures are stored, as a URL without password."""
        return self._database.place

    def close(self) -> None:
        """Give back connections. The private PostgreSQL goes on, for whoever comes next."""
        self._embedders.close()
        self._reader.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _searcher(self, model: str | None) -> Searcher:
        named = model or self._settings.model
        stored = self._stored(named)
        name = named or (stored.model.name if stored else DEFAULT_MODEL)
        return Searcher(
            self._database, name, stored, lambda: self._embedders.for_questions(name), self._reader, self._announce
        )

    def _stored(self, name: str | None) -> StoredModel | None:
        """The rooms of a model, as they were a second ago at most: many searches in a row ask for them once."""
        found, at = self._seen_models.get(name, (None, 0.0))
        if found is None or time.monotonic() - at > _MODEL_SECONDS:
            found = reading.model_to_search(self._database, Model(name).name if name else None)
            if found is not None and found.index_ready:  # else what is lacking may be there at any moment
                self._seen_models[name] = (found, time.monotonic())
        return found
