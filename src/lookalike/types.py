"""The values that travel between the rooms: models, pictures, vectors, hits and reports.

All of them are frozen. A vector never travels without its model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt

from lookalike.errors import ConfigurationError, ModelMismatch
from lookalike.uris import path_of

if TYPE_CHECKING:
    import pandas

DIMENSIONS = 1024
"""Length of every stored vector; models that give fewer numbers are zero-padded."""

Vector: TypeAlias = npt.NDArray[np.float32]
"""A one-dimensional float32 array, ``(dimensions,)`` as the model gives it, not normalised."""

_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(\+[A-Za-z0-9._-]+)*")


@dataclass(frozen=True, slots=True)
class Model:
    """One vector space: provider, version and whatever else fixes it.

    Attributes:
        name: ``provider/version``, with ``+variant`` where parameters differ.
        dimensions: how many numbers the service gives, 1 to 1024.
        parameters: what else fixes the space.
    """

    name: str
    dimensions: int = DIMENSIONS
    parameters: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not _MODEL_NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"{self.name!r} is not the name of a model. Names read provider/version, "
                "for example azure-vision/2023-04-15."
            )
        if self.version.lower() == "latest":
            raise ConfigurationError(
                f"{self.name} does not say which model it is: what 'latest' means changes, and vectors of two "
                "models cannot be compared. Name a version, for example azure-vision/2023-04-15."
            )

    @property
    def provider(self) -> str:
        """The part before the slash: who computes the vectors."""
        return self.name.partition("/")[0]

    @property
    def version(self) -> str:
        """The part behind the slash, without variants: as the service names it."""
        return self.name.partition("/")[2].partition("+")[0]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The numbers of one picture or text under one model.

    Attributes:
        model: the vector space that the numbers belong to.
        vector: float32, shape ``(model.dimensions,)``, as the service gave it (not unit length).
    """

    model: Model
    vector: Vector

    def similarity(self, other: Embedding) -> float:
        """Cosine similarity, -1 to 1, of two embeddings of one model.

        Raises:
            ModelMismatch: the two belong to different models.
        """
        if other.model.name != self.model.name:
            raise ModelMismatch(self.model.name, other.model.name)
        a, b = self.vector.astype(np.float64), other.vector.astype(np.float64)
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@dataclass(frozen=True, slots=True)
class ImageInput:
    """One picture to embed: its bytes, or a URL that the service itself can fetch. Exactly one of the two."""

    data: bytes | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ValueError("an ImageInput holds either data or url")


@dataclass(frozen=True, slots=True)
class Content:
    """What a picture's bytes say of it.

    Attributes:
        sha256: digest of the bytes, 32 bytes long.
        media_type: for example ``image/jpeg``.
        width, height: in pixels.
        byte_size: in bytes.
    """

    sha256: bytes
    media_type: str
    width: int
    height: int
    byte_size: int

    @property
    def image_id(self) -> UUID:
        """The id of an image whose bytes are known: the first half of their digest."""
        return UUID(bytes=self.sha256[:16])


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model accepts, checked before a call is spent.

    Attributes:
        max_bytes: largest file, in bytes.
        min_side: shortest side that is accepted, in pixels.
        max_side: longest side that is accepted, in pixels.
        media_types: what may be sent as it is.
        max_words: longest text, in words; None where the model has no such limit.
    """

    max_bytes: int
    min_side: int
    max_side: int
    media_types: frozenset[str]
    max_words: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was spent at a service.

    Attributes:
        calls: calls that were answered with success, and so are billed.
        retries: attempts beyond the first one, which are not.
        tokens: what the service said it counted, where it bills by tokens.
    """

    calls: int = 0
    retries: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class File:
    """A place where an image is found."""

    uri: str
    key: str | None
    collection: str
    metadata: Mapping[str, Any]

    @property
    def path(self) -> Path | None:
        """The local path, for ``file://`` URIs."""
        return path_of(self.uri)


@dataclass(frozen=True, slots=True)
class Hit:
    """One image that a search found.

    Attributes:
        image_id: the image, which never changes its id.
        similarity: cosine similarity to the query, -1 to 1; larger is nearer. Comparable within one
            search, not across searches.
        files: where the image lies; the first one is the one that the hit shows.
    """

    image_id: UUID
    similarity: float
    files: tuple[File, ...]

    @property
    def uri(self) -> str:
        """Where the image lies: the first of its files."""
        return self.files[0].uri

    @property
    def path(self) -> Path | None:
        """The local path of the first file, if it has one."""
        return self.files[0].path

    @property
    def key(self) -> str | None:
        """The owner's own id of the first file."""
        return self.files[0].key

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Metadata of the first file."""
        return self.files[0].metadata


@dataclass(frozen=True, slots=True)
class Result:
    """What a search found, nearest first, and how it was found. Iterates over its hits.

    Attributes:
        model: name of the model whose vectors were searched.
        query: what was searched for, in words.
        hits: at most as many as were asked for; fewer only where no more exist.
        exact: whether every vector was compared, so that nothing can have been missed.
        index: the HNSW index that was used, None for an exact search.
        ef_search: how many candidates the index scan kept, None for an exact search.
        completed: whether the index gave too few and an exact scan supplied the rest.
        seconds: time spent in the database; of a search for many, each one's share.
        after: where the next page begins, for ``search(after=…)``, of a result that was cut at its limit; None where
            nothing more can follow.
    """

    model: str
    query: str
    hits: tuple[Hit, ...]
    exact: bool
    index: str | None
    ef_search: int | None
    completed: bool
    seconds: float
    after: str | None = None

    def to_pandas(self) -> pandas.DataFrame:
        """The hits as a table: rank, similarity, uri, path, key, collection, image_id, and a column for each key of
        the metadata (``metadata.uri`` where the name is taken).

        Raises:
            ConfigurationError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ConfigurationError("A table needs pandas: pip install 'lookalike[pandas]'") from None
        columns = ("rank", "similarity", "uri", "path", "key", "collection", "image_id")
        rows = []
        for rank, hit in enumerate(self.hits, start=1):
            file = hit.files[0]
            values = (rank, hit.similarity, file.uri, file.path, file.key, file.collection, hit.image_id)
            metadata = {f"metadata.{name}" if name in columns else name: value for name, value in file.metadata.items()}
            rows.append({**dict(zip(columns, values, strict=True)), **metadata})
        return pandas.DataFrame(rows) if rows else pandas.DataFrame(columns=list(columns))

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, position: int) -> Hit:
        return self.hits[position]


@dataclass(frozen=True, slots=True)
class RememberedText:
    """A text that was embedded before, so that it costs nothing to search with it, also from SQL."""

    text: str
    model: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """One file that could not be done under one model, and why.

    Attributes:
        stage: where it ended: ``read``, ``check`` or ``embed``.
        code: short, stable name of the reason.
        retryable: whether the next run tries it again by itself.
        attempts: in how many runs it has failed.
        request_id: the service's own name for the last call.
    """

    uri: str
    model: str
    stage: str
    code: str
    message: str
    retryable: bool
    attempts: int
    request_id: str | None
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model and how far it has come."""

    model: str
    state: str
    dimensions: int
    view: str
    embedded: int
    pending: int
    failed: int
    unsupported: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """What is stored.

    Attributes:
        database: where, without any password.
        failures: number of failed files by code.
    """

    database: str
    images: int
    files: int
    models: tuple[ModelStatus, ...]
    failures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion removed: files, and the images, with all their embeddings, that had no other file."""

    files: int
    images: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a service asks.

    Attributes:
        amount: per thousand of `unit`.
        currency: as its owner writes it, for example ``USD``.
        unit: ``calls`` or ``tokens``.
    """

    amount: float
    currency: str = "USD"
    unit: Literal["calls", "tokens"] = "calls"

    def of(self, usage: Usage) -> float:
        """What so much use costs."""
        return self.amount * (usage.calls if self.unit == "calls" else usage.tokens) / 1000


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What an ingest would do: nothing is stored, and no service called.
    ``found = new + duplicates + unchanged + failed + unreadable + unsupported``.

    Attributes:
        found: files that were looked at.
        pictures: those that are pictures which the model takes, new or not.
        new: pictures that would be embedded. Remote files count as new where their fingerprint is; they are not read.
        duplicates: files that hold the same bytes as another one, or as an image that is stored already.
        unchanged: files that are known and have not changed.
        failed: files that failed for good in an earlier run, and would not be tried again.
        unreadable: files that would fail now.
        unsupported: files that are no pictures.
        adapted: new pictures that would be turned, converted or shrunk before they are sent.
        calls: what would be billed.
        rate: calls a second.
        seconds: what that takes at least.
        price: what the calls would cost, None where no price is set or it goes by tokens.
        rows: rows that would be written, by table.
        disk_bytes: what the rows and their indexes take, roughly.
        prune_files: stored files that are gone, and that ``prune`` would remove.
        prune_examples: the first of them.
        prune_refused: whether they are more than may go.
    """

    model: str
    found: int
    pictures: int
    new: int
    duplicates: int
    unchanged: int
    failed: int
    unreadable: int
    unsupported: int
    adapted: int
    calls: int
    rate: float | None
    seconds: float
    price: float | None
    currency: str | None
    rows: Mapping[str, int]
    disk_bytes: int
    prune_files: int = 0
    prune_examples: tuple[str, ...] = ()
    prune_refused: bool = False
    dry_run: Literal[True] = True


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest did. ``found = embedded + unchanged + failed + unsupported + pending``.

    Attributes:
        found: files that were looked at.
        expected: files that there are to look at; None while they are being counted, or if they cannot be.
        embedded: files whose picture was embedded in this run.
        unchanged: files whose picture was known already, by fingerprint or by content.
        failed: files that cannot be embedded, in this run or an earlier one.
        unsupported: files that are no pictures, and never claimed to be any.
        pending: files that were found but not finished, because the run was stopped.
        new_failures: those of `failed` that failed for the first time.
        calls: calls to the service that were answered with success, and so are billed.
        retries: further attempts, which are not.
        tokens: what the service said it counted.
        adapted: those of `embedded` that were turned, converted or shrunk before they were sent.
        pruned_files, pruned_images: what was removed because it was gone from the source.
        rate: calls a second that were allowed, None where nothing limits them.
        achieved_rate: calls a second that there were.
        price: what the calls cost, None where no price is set.
        seconds: from the first picture read to the last commit.
        stopped: why the run ended early, None if it did not.
    """

    model: str
    found: int = 0
    expected: int | None = None
    embedded: int = 0
    unchanged: int = 0
    failed: int = 0
    unsupported: int = 0
    pending: int = 0
    new_failures: int = 0
    calls: int = 0
    retries: int = 0
    tokens: int = 0
    adapted: int = 0
    pruned_files: int = 0
    pruned_images: int = 0
    rate: float | None = None
    achieved_rate: float = 0.0
    price: float | None = None
    currency: str | None = None
    seconds: float = 0.0
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import of precomputed vectors did. ``found = embedded + unchanged + failed + pending``.

    Attributes:
        collection: the named set that the files belong to.
        found: rows that the files hold.
        embedded: rows whose vector was stored in this run, or would be by a dry run.
        replaced: those of `embedded` whose image had other numbers before.
        unchanged: rows whose image has this vector already.
        failed: rows that cannot be stored.
        pending: rows that were not come to, because the run was stopped.
        new_failures: those of `failed` that failed for the first time.
        seconds: from the first row read to the last commit, and to the index where that was built.
        index: what became of the HNSW index: ``kept``, ``rebuilt`` (dropped for the load), ``built`` (it was missing)
            or ``missing`` (searches compare every vector until ``index build``); None where nothing was stored.
        stopped: why the run ended early, None if it did not.
        dry_run: whether nothing was stored.
    """

    model: str
    collection: str
    found: int = 0
    embedded: int = 0
    replaced: int = 0
    unchanged: int = 0
    failed: int = 0
    pending: int = 0
    new_failures: int = 0
    seconds: float = 0.0
    index: Literal["kept", "rebuilt", "built", "missing"] | None = None
    stopped: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How far the build of an index is.

    Attributes:
        phase: in PostgreSQL's words.
        share: how much of this phase is done, 0 to 1; None where PostgreSQL does not say.
    """

    phase: str
    share: float | None


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The HNSW index of one model.

    Attributes:
        index: its name, in the schema ``lookalike``.
        state: ``missing`` and ``invalid`` mean that searches compare every vector, ``building`` that they do for now.
        rows: vectors that are stored.
        dead_share: share of the table's row versions that are dead, 0 to 1, as PostgreSQL's statistics have it.
        table_bytes, index_bytes: on disk.
        scans: how often the index was used since the statistics began.
        left_overs: names of what builds that were killed have left behind; ``index build`` removes them.
        build: how far a build is that is under way, also one that is to replace a valid index.
        graph_bytes: memory that building it takes, roughly.
        maintenance_work_mem: bytes that the server gives a build by default.
        fits: whether the first fits into the second.
    """

    model: str
    index: str
    state: Literal["valid", "invalid", "missing", "building"]
    rows: int
    dead_share: float
    table_bytes: int
    index_bytes: int
    scans: int
    left_overs: tuple[str, ...]
    build: BuildProgress | None
    graph_bytes: int
    maintenance_work_mem: int
    fits: bool


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """What building an index took.

    Attributes:
        was: what was there before.
        rows: vectors that it holds.
        memory: bytes that the build was allowed.
        workers: processes that were allowed beside the first.
        fits: whether the graph fitted into memory until it was done.
        index_bytes: on disk.
        removed: names of left-overs that were removed.
        notes: what was done otherwise than asked or needed, and why, in sentences.
        stopped: why it is not built, None if it is.
    """

    model: str
    index: str
    was: Literal["valid", "invalid", "missing"]
    rows: int
    memory: int
    workers: int
    fits: bool
    index_bytes: int
    seconds: float
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class RecallAt:
    """How good and how fast the index is with so many candidates.

    Attributes:
        recall: share of the exact neighbours that were found, 0 to 1, mean over the queries.
        milliseconds: median time of a search in the database.
    """

    ef_search: int
    recall: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """What the index finds, compared with every vector.

    Attributes:
        limit: the k of recall@k.
        images: ids of the stored images that were searched with; each is left out of its own hits.
        texts, pictures: sources of the remembered queries, texts and pictures, that were searched with.
        default_ef_search: candidates that a search for so many hits keeps by itself.
        exact_milliseconds: median time of comparing every vector.
    """

    model: str
    index: str
    rows: int
    limit: int
    seed: int
    images: tuple[UUID, ...]
    texts: tuple[str, ...]
    pictures: tuple[str, ...]
    recall: tuple[RecallAt, ...]
    default_ef_search: int
    exact_milliseconds: float
