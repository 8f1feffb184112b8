"""The values that travel between the rooms: models, pictures, vectors, hits and reports.

All of them are frozen. A vector never travels without its model.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping
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

StoredVector: TypeAlias = npt.NDArray[np.float16]
"""The same as the tables hold it, ``(dimensions,)``: each number rounded once to half precision."""

_MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(\+[A-Za-z0-9._-]+)*")

_WITH = "with-"
_LONGEST_WITH = 100
_PLAIN = frozenset(string.ascii_letters + string.digits + "_-")
_ESCAPED = re.compile(rb"\.([0-9A-F]{2})")


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
        fused = [part for part in self.name.split("+") if part.startswith(_WITH)]
        if fused and (
            fused != [self.name.rpartition("+")[2]] or _with(self.with_text or "") != fused[0] or fused == [_WITH]
        ):
            raise ConfigurationError(
                f"{self.name!r} is not the name of a model. Have --with-text COLUMN write what stands behind +{_WITH}"
            )

    @property
    def provider(self) -> str:
        """The part before the slash: who computes the vectors."""
        return self.name.partition("/")[0]

    @property
    def version(self) -> str:
        """The part behind the slash, without variants: as the service names it."""
        return self.name.partition("/")[2].partition("+")[0]

    @property
    def with_text(self) -> str | None:
        """The column, or key of the metadata, whose text makes one vector with each picture; None without any."""
        last = self.name.rpartition("+")[2]
        return _column(last) if last.startswith(_WITH) else None

    @property
    def variants(self) -> tuple[str, ...]:
        """What stands behind the version, without the text."""
        return tuple(part for part in self.name.split("+")[1:] if not part.startswith(_WITH))

    def fused_with(self, column: str) -> Model:
        """The model that embeds each picture together with the text of a column: a vector space of its own.

        Raises:
            ConfigurationError: it does so already with another one, or the column cannot be part of a name.
        """
        if self.with_text == column:
            return self
        if self.with_text is not None:
            raise ConfigurationError(
                f"{self.name} embeds pictures with the text of {self.with_text!r}, and --with-text names {column!r}. "
                f"Name the model itself: --model {self.name.rpartition('+')[0]}"
            )
        if not 0 < len(_with(column)) <= _LONGEST_WITH or not column.strip():
            raise ConfigurationError(f"--with-text is {column[:80]!r}; it is the name of a column, and a short one.")
        return Model(f"{self.name}+{_with(column)}", self.dimensions, self.parameters)

    def __str__(self) -> str:
        return self.name


def _with(column: str) -> str:
    """A column as part of a model's name: what no name may hold as ``.`` and two hexadecimal digits for each byte."""
    data = column.encode("utf-8", "surrogateescape")
    return _WITH + "".join(chr(byte) if chr(byte) in _PLAIN else f".{byte:02X}" for byte in data)


def _column(variant: str) -> str:
    """The column that `_with` made part of a name."""
    data = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), variant.removeprefix(_WITH).encode())
    return data.decode("utf-8", "surrogateescape")


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
    """One picture to embed: its bytes, or a URL that the service itself can fetch. Exactly one of the two.

    Attributes:
        media_type: of what lies at the URL, where that matters: ``video/…`` makes it a video.
        text: what makes one vector with the picture, under models that are made for it.
    """

    data: bytes | None = None
    url: str | None = None
    media_type: str | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if (self.data is None) == (self.url is None):
            raise ValueError("an ImageInput holds either data or url")

    @property
    def is_video(self) -> bool:
        """Whether it is a video, which only some services take, and only by its URL."""
        return (self.media_type or "").startswith("video/")


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
        max_pixels: width times height that is accepted; None where the model has no such limit.
        urls: whether the service fetches pictures by their URLs.
        max_video_bytes: largest video, in bytes, that the service fetches by its URL; 0 where it takes none.
    """

    max_bytes: int
    min_side: int
    max_side: int
    media_types: frozenset[str]
    max_words: int | None = None
    max_pixels: int | None = None
    urls: bool = True
    max_video_bytes: int = 0


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
        media_type: what it is, for example ``image/jpeg`` or ``video/mp4``; None where nobody has seen it.
    """

    image_id: UUID
    similarity: float
    files: tuple[File, ...]
    media_type: str | None = None

    @property
    def is_video(self) -> bool:
        """Whether it is a video, and no picture."""
        return (self.media_type or "").startswith("video/")

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
    """

    model: str
    query: str
    hits: tuple[Hit, ...]
    exact: bool
    index: str | None
    ef_search: int | None
    completed: bool
    seconds: float
    _after: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    @property
    def after(self) -> str | None:
        """Where the next page begins, for ``search(after=…)``, of a result that was cut at its limit; None where
        nothing more can follow."""
        return None if self._after is None else self._after()  # made for those who ask, which most do not

    def to_pandas(self) -> pandas.DataFrame:
        """The hits as a table: rank, similarity, uri, path, key, collection, image_id, media_type, and a column for
        each key of the metadata (``metadata.uri`` where the name is taken).

        Raises:
            ConfigurationError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ConfigurationError("A table needs pandas: pip install 'lookalike[pandas]'") from None
        columns = ("rank", "similarity", "uri", "path", "key", "collection", "image_id", "media_type")
        rows = []
        for rank, hit in enumerate(self.hits, start=1):
            file = hit.files[0]
            place = (file.uri, file.path, file.key, file.collection, hit.image_id)
            values = (rank, hit.similarity, *place, hit.media_type)
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
        collection: the named set that the file belongs to: the same file may have failed in several.
        stage: where it ended: ``read``, ``check`` or ``embed``.
        code: short, stable name of the reason.
        retryable: whether the next run tries it again by itself.
        attempts: in how many runs it has failed.
        request_id: the service's own name for the last call.
    """

    uri: str
    model: str
    collection: str
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
        videos: how many of the images are videos.
    """

    database: str
    images: int
    files: int
    models: tuple[ModelStatus, ...]
    failures: Mapping[str, int]
    videos: int = 0


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
