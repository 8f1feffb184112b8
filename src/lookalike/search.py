"""The query module: texts, pictures, stored images and mixes of them in, the nearest images out.

Whatever was embedded before, as a picture of the library or as an earlier query, is never sent to a service again.
"""

from __future__ import annotations

import math
import operator
import os
import re
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict
from uuid import UUID

import numpy as np

from lookalike.embedders import Embedder, doubt_about
from lookalike.errors import DatabaseError, ImageNotFound, InvalidFilter, ItemError, ModelMismatch
from lookalike.filters import Among, Chosen, Filter, Where, as_chosen, as_where, field
from lookalike.pictures.check import LARGEST_FILE, PICTURE_SUFFIXES, check_picture
from lookalike.pictures.reading import Reader
from lookalike.pictures.videos import video_type
from lookalike.store.database import Database
from lookalike.store.models import StoredModel
from lookalike.store.nearest import MOST_EF_SEARCH, Ask, nearest_to_each
from lookalike.store.reading import (
    image_exists,
    image_known_as,
    images_of_key,
    may_remember,
    models_in_use,
    remembered_queries,
    stored_embeddings,
)
from lookalike.store.writing import remember_query, storable
from lookalike.types import Embedding, ImageInput, Result
from lookalike.uris import as_uuid, path_of, redacted, uri_of, without_secrets

ImageQuery: TypeAlias = bytes | str | os.PathLike[str] | UUID
"""A picture to search with: its bytes, a path, a URL, or the URI, the id or the key of a stored image. A key that could
be mistaken for something else is written ``key:…``."""

Kind: TypeAlias = Literal["pictures", "videos"]
"""What a search can be limited to."""

_KEY = "key:"
_NOT_FOR_LACK_OF_IT = ("too-many-bytes", "forbidden-address")
_NOWHERE = 1e-4
"""Shorter than this, against the length of its parts, a mix is what rounding left of them."""

_SHORTEST_AS_IT_IS, _LONGEST_AS_IT_IS = 0.1, 1e9
"""Between these squares of its length, the larger numbers of a vector keep their precision when all are halved."""

_SIGN = re.compile(r"(?:(?<=\s)|^)([+-])(?=\s|$)")
_WEIGHT = re.compile(r"(\d{1,6}(?:\.\d{1,6})?):(?!//|\d)\s*(.*)", re.DOTALL)
"""Not `https://`, nor what is a ratio or a time of day."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a mixed query: a text, a picture or a vector, exactly one of them, and how much it counts.

    Attributes:
        weight: below 0, what is like the part is farther away. Parts have the same length before they are weighted.
    """

    text: str | None = None
    image: ImageQuery | None = None
    vector: Embedding | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if [self.text, self.image, self.vector].count(None) != 2:
            raise ValueError("a Part holds exactly one of text, image and vector")
        if not math.isfinite(self.weight):
            raise ValueError(f"the weight of a Part is {self.weight}; it is a number, below 0 for what is not wanted")


QueryLike: TypeAlias = str | Part | Sequence[Part] | Embedding
"""What may be searched for: a text, a mix, or a vector with its model. Pictures come as ``Part(image=…)``."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for, embedded.

    Attributes:
        words: the query for people: the text, or the name of the picture.
        images: the stored images that the query is, or is mixed from.
    """

    words: str
    embedding: Embedding
    images: tuple[UUID, ...] = ()


class SearchOptions(TypedDict, total=False):
    """What every search can be told.

    Keys:
        limit: number of hits, 10 by default; fewer come back only where no more images exist.
        model: name of the model to search under, by default ``LOOKALIKE_MODEL``, else the active one.
        collection: only images with files in this named set.
        kind: ``pictures`` or ``videos`` alone. What nobody has seen, as after an import, counts as a picture.
        where: only images with a file that satisfies this filter; see `lookalike.filters`.
        among: only these images: ids, keys, or a SQLAlchemy ``select`` of either over tables of your own.
        min_similarity: leave out hits below this cosine similarity, -1 to 1. Similarities compare the hits of one
            search, not of two: what is a good one depends on the query, and is lower for texts than for pictures.
        exact: True compares every vector, False always uses the index; None, the default, compares every vector where
            that is fast, and uses the index of a large library.
        ef_search: how many candidates the index keeps, 1 to 1000; by default as many as the limit needs.
        include_self: whether a stored image that is the query itself, or a part of it, may be a hit.
        after: ``Result.after`` of the page before. Images that were added meanwhile move nothing from page to page.
    """

    limit: int
    model: str | None
    collection: str | None
    kind: Kind | None
    where: Filter
    among: Among | None
    min_similarity: float | None
    exact: bool | None
    ef_search: int | None
    include_self: bool
    after: str | None


@dataclass(frozen=True, slots=True)
class Scope:
    """`SearchOptions`, checked.

    Raises:
        ValueError: a number makes no sense.
        InvalidFilter: a filter, or what to search among, cannot be understood.
    """

    limit: int
    where: Where | None
    among: Chosen | None
    min_similarity: float | None
    exact: bool | None
    ef_search: int | None
    include_self: bool
    after: str | None

    @classmethod
    def of(
        cls,
        *,
        limit: int = 10,
        model: str | None = None,  # noqa: ARG003  # chosen before
        collection: str | None = None,
        kind: Kind | None = None,
        where: Filter = None,
        among: Among | None = None,
        min_similarity: float | None = None,
        exact: bool | None = None,
        ef_search: int | None = None,
        include_self: bool = False,
        after: str | None = None,
    ) -> Scope:
        """Options as a caller gave them."""
        limit = operator.index(limit)
        if limit < 1:
            raise ValueError(f"limit is {limit}; it is the number of hits, 1 or more")
        if min_similarity is not None and not -1 <= min_similarity <= 1:
            raise ValueError(f"min_similarity is {min_similarity}; it is a cosine similarity, -1 to 1")
        if ef_search is not None and not 1 <= ef_search <= MOST_EF_SEARCH:
            raise ValueError(f"ef_search is {ef_search}; it is a number of candidates, 1 to {MOST_EF_SEARCH}")
        if kind not in (None, "pictures", "videos"):
            raise ValueError(f"kind is {kind!r}; it is 'pictures' or 'videos'")
        condition = as_where(where)
        if kind is not None:
            is_video = field("media_type").startswith("video/")
            of_kind = is_video if kind == "videos" else ~is_video
            condition = of_kind if condition is None else of_kind & condition
        if collection is not None:
            named = field("collection") == collection
            condition = named if condition is None else named & condition
        chosen = as_chosen(among)
        return cls(limit, condition, chosen, min_similarity, exact, ef_search, include_self, after)


@dataclass(frozen=True, slots=True)
class Searcher:
    """Searches the vectors of one model.

    Args:
        model: the model's name.
        stored: its rooms in the database; None while nothing is embedded under it.
        embedder: opens the model's embedder; called only when something must be embedded.
        reader: fetches pictures that are queries and lie elsewhere.
        announce: told, in a sentence, what a person should know about a query.
    """

    database: Database
    model: str
    stored: StoredModel | None
    embedder: Callable[[], Embedder]
    reader: Reader
    announce: Callable[[str], None]

    def search(self, queries: Sequence[Query], scope: Scope) -> list[Result]:
        """For each query the images nearest to it.

        Raises:
            ImageNotFound: nothing is embedded under this model yet.
            InvalidFilter: the page to go on after is not one of this query.
            ModelMismatch: a query was embedded by another model.
        """
        stored = self.require_vectors()
        for query in queries:
            if query.embedding.model.name != stored.model.name:
                raise ModelMismatch(stored.model.name, query.embedding.model.name)
        asks = [
            Ask(query.embedding.vector, () if scope.include_self else query.images, query.words) for query in queries
        ]
        return nearest_to_each(
            self.database,
            stored,
            asks,
            limit=scope.limit,
            exact=scope.exact,
            ef_search=scope.ef_search,
            where=scope.where,
            among=scope.among,
            min_similarity=scope.min_similarity,
            after=scope.after,
        )

    def require_vectors(self) -> StoredModel:
        """The model's rooms.

        Raises:
            ImageNotFound: nothing is embedded under this model yet.
        """
        if self.stored is None:
            others = models_in_use(self.database)
            if others:
                raise ImageNotFound(f"Nothing is embedded under {self.model}. In use are: {', '.join(others)}.")
            raise ImageNotFound(
                f"Nothing is embedded under {self.model} yet. Run: lookalike ingest FOLDER --model {self.model}"
            )
        return self.stored

    def queries(self, things: Sequence[QueryLike]) -> list[Query]:
        """Each thing as a query; the texts and stored images among them are looked up together.

        Raises:
            ImageNotFound: there is no such picture.
            ItemError: the model does not take one of the texts or pictures, or a mix points nowhere.
            ModelMismatch: a vector belongs to another model.
            ServiceError: the service cannot be used.
        """
        vectors = [thing for thing in things if isinstance(thing, Embedding)]
        if len(vectors) == len(things):
            return [self._vector(vector) for vector in vectors]
        mixes: list[Sequence[Part]] = []
        for thing in things:
            match thing:
                case str():
                    mixes.append([Part(text=thing)])
                case Embedding():
                    mixes.append([Part(vector=thing)])
                case Part():
                    mixes.append([thing])
                case _:
                    if not all(isinstance(part, Part) for part in thing):
                        raise TypeError("a mix is a list of Part(…); for many queries there is search_many")
                    mixes.append(thing)
        parts = [part for mix in mixes for part in mix]
        texts = iter(self._texts([part.text for part in parts if part.text is not None]))
        images = iter(self._images([part.image for part in parts if part.image is not None]))
        queries = []
        for mix in mixes:
            each = [
                next(texts)
                if part.text is not None
                else next(images)
                if part.image is not None
                else self._vector(part.vector)
                for part in mix
            ]
            queries.append(self._mixed(mix, each))
        return queries

    def remember(self, texts: Sequence[str]) -> int:
        """Embed those of the texts that were not embedded under this model before; returns how many they were.

        Raises:
            ImageNotFound: nothing is embedded under this model yet.
            ItemError: the model does not take one of the texts; the others are remembered.
            ServiceError: the service cannot be used.
        """
        stored = self.require_vectors()
        if not may_remember(self.database):
            raise DatabaseError(
                "This role may not keep texts for SQL, so they would be paid for in vain. Have a writer add them, or "
                "the owner run: lookalike db grant --writer ROLE"
            )
        digests = {sha256(" ".join(text.split()).encode(errors="replace")).digest() for text in texts}
        known = remembered_queries(self.database, stored, "text", list(digests))
        self._texts(texts)
        return len(digests - known.keys())

    def text_or_image(self, thing: ImageQuery) -> Query:
        """What a person means by a word on the command line: a file, URL or id if it is one, else a text."""
        return self.queries([self.part(thing)])[0]

    def part(self, thing: ImageQuery, weight: float = 1.0) -> Part:
        """The part of a mix that a person means: a file, URL or id if it is one, else a text."""
        if isinstance(thing, str):
            is_image = (
                as_uuid(thing) is not None
                or thing.startswith(_KEY)
                or self.reader.is_remote(thing)
                or path_of(thing) is not None
                or os.path.isfile(thing)
                # a name that was mistyped, not a text to pay for
                or os.path.splitext(thing)[1].lower() in PICTURE_SUFFIXES
            )
            return Part(image=thing, weight=weight) if is_image else Part(text=thing, weight=weight)
        return Part(image=thing, weight=weight)

    def mix(self, text: str) -> list[Part]:
        """A mix as people type it: ``beach + ./photo.jpg - 2:people``. What has no lone ``+`` or ``-`` is one part.

        Raises:
            InvalidFilter: a sign has nothing behind it.
        """
        if os.path.isfile(text) or not _SIGN.search(text):
            return [self.part(text)]
        pairs = [["+", ""]]
        for piece in _SIGN.split(text):
            if piece in ("+", "-"):
                pairs.append([piece, ""])
            else:
                pairs[-1][1] = piece
        if not pairs[0][1].strip():
            del pairs[0]  # it begins with a sign
        return [self.weighted(words, sign) for sign, words in pairs]

    def weighted(self, text: str, sign: str = "+") -> Part:
        """One part with its weight before it: ``2:people`` counts twice.

        Raises:
            InvalidFilter: there is nothing behind the sign or the weight.
        """
        match = _WEIGHT.fullmatch(text.strip())
        weight, words = (float(match[1]), match[2]) if match else (1.0, text)
        if not words.strip():
            raise InvalidFilter(f"There is nothing behind {sign}. A mix reads: beach + ./photo.jpg - 2:people")
        return self.part(words.strip(), -weight if sign == "-" else weight)

    def _vector(self, vector: Embedding | None) -> Query:
        assert vector is not None
        if vector.model.name != self.model:
            raise ModelMismatch(self.model, vector.model.name)
        numbers = np.ascontiguousarray(vector.vector, np.float32)
        dimensions = self.stored.model.dimensions if self.stored else vector.model.dimensions
        if numbers.shape != (dimensions,):
            raise ValueError(f"the vector has the shape {numbers.shape}; those of {self.model} have ({dimensions},)")
        with np.errstate(all="ignore"):  # what overflows is seen to next
            square = np.dot(numbers, numbers)
        if not _SHORTEST_AS_IT_IS < square < _LONGEST_AS_IT_IS:
            largest = float(np.abs(numbers).max())
            if not 0 < largest < math.inf:
                raise ValueError("the vector has no direction: it is zero, or holds what is no number")
            numbers = numbers / largest  # its direction is all that counts
        return Query(f"vector {zlib.crc32(numbers.data):08x}", Embedding(vector.model, numbers))

    def _mixed(self, mix: Sequence[Part], queries: Sequence[Query]) -> Query:
        if len(queries) == 1 and mix[0].weight > 0:
            return queries[0]
        if not queries:
            raise InvalidFilter("A mix needs at least one part.")
        total = sum(
            part.weight * query.embedding.vector / np.linalg.norm(query.embedding.vector)
            for part, query in zip(mix, queries, strict=True)
        )
        if not np.linalg.norm(total) > _NOWHERE * sum(abs(part.weight) for part in mix):
            raise InvalidFilter("The parts of the mix cancel each other out, so there is nothing to look for.")
        words = ""
        for part, query in zip(mix, queries, strict=True):
            size = "" if abs(part.weight) == 1 else f"{abs(part.weight):g}:"
            sign = " - " if part.weight < 0 else " + " if words else ""
            words += f"{sign if words else sign.lstrip()}{size}{query.words}"
        images = tuple(dict.fromkeys(image for query in queries for image in query.images))
        return Query(words, Embedding(queries[0].embedding.model, np.asarray(total, np.float32)), images)

    def _texts(self, texts: Sequence[str]) -> list[Query]:
        """Texts as queries; those that nobody has asked before go to the service, several at a time."""
        if not texts:
            return []
        all_words = [" ".join(text.split()) for text in texts]
        for words in all_words:
            if not words.isprintable():
                raise ItemError("not-text", "The text holds characters that are none.")
            if doubt := doubt_about(self.model, words):
                self.announce(doubt)
        digests = [sha256(words.encode()).digest() for words in all_words]
        known: dict[bytes, Embedding] = {}
        if self.stored is not None:
            known = remembered_queries(self.database, self.stored, "text", digests)
        new = {digest: words for digest, words in zip(digests, all_words, strict=True) if digest not in known}
        if new:
            embedder = self.embedder()
            unknown, most = list(new.values()), embedder.texts_per_call
            few = [unknown[first : first + most] for first in range(0, len(unknown), most)]
            # many at once, but a single call without the detour over a thread
            if len(few) == 1:
                answers = embedder.embed_texts(few[0])
            else:
                with ThreadPoolExecutor(min(embedder.concurrency, len(few))) as threads:
                    answers = [answer for some in threads.map(embedder.embed_texts, few) for answer in some]
            for (digest, words), answer in zip(new.items(), answers, strict=True):
                if isinstance(answer, Embedding):
                    known[digest] = answer
                    if self.stored is not None:
                        remember_query(self.database, "text", digest, words, answer)
            for answer in answers:
                if isinstance(answer, ItemError):
                    raise answer
        return [Query(words, known[digest]) for words, digest in zip(all_words, digests, strict=True)]

    def _images(self, images: Sequence[ImageQuery]) -> list[Query]:
        """Pictures as queries; those that are named by their ids are looked up together."""
        if not images:
            return []
        ids = [
            image if isinstance(image, UUID) else as_uuid(image) if isinstance(image, str) else None for image in images
        ]
        by_id = [image_id for image_id in ids if image_id is not None]
        known = stored_embeddings(self.database, self.stored, by_id) if self.stored is not None and by_id else {}
        queries = []
        for image, image_id in zip(images, ids, strict=True):
            if image_id is None:
                queries.append(self._image(image))
            elif image_id in known:
                queries.append(Query(str(image), known[image_id], (image_id,)))
            else:
                queries.append(self._stored_image(image_id, str(image)))
        return queries

    def _image(self, image: ImageQuery) -> Query:
        """A picture that is not named by its id.

        Raises:
            ImageNotFound: there is no such file, URL or stored image, or it cannot be fetched.
            ItemError: it is no picture that the model takes, or lies at an address that URLs may not lead to.
            ServiceError: the service cannot be used.
        """
        if isinstance(image, bytes):
            return self._picture(image, "a picture", None)
        name = str(image) if isinstance(image, UUID) else os.fspath(image)
        if name.startswith(_KEY):
            return self.of_key(name.removeprefix(_KEY))
        if self.reader.is_remote(name):
            place = without_secrets(name)
            known = image_known_as(self.database, uri=place)
            if known:
                return self._stored_image(known, place)
            if (media_type := video_type(name)) is not None:
                return self._video(name, place, media_type)
            return self._picture(self._fetched(name), place, place)
        path = path_of(name) or Path(name)
        if os.path.isfile(path):
            try:
                with path.open("rb") as file:
                    return self._picture(file.read(LARGEST_FILE + 1), name, uri_of(path))
            except OSError as error:
                raise ImageNotFound(f"{name} cannot be read: {error.strerror}.") from None
        if storable(name) == name:
            known = image_known_as(self.database, uri=name) or image_known_as(self.database, uri=uri_of(path))
            if known is not None:
                return self._stored_image(known, name)
            if of_key := images_of_key(self.database, name):
                return self._of_key(name, of_key)
        raise ImageNotFound(f"There is no file, URL, stored image or key {redacted(name)!r}.")

    def of_key(self, key: str) -> Query:
        """The stored image whose file has that key of its owner's.

        Raises:
            ImageNotFound: there is none, or more than one.
        """
        images = images_of_key(self.database, key) if storable(key) == key else []
        if not images:
            raise ImageNotFound(f"There is no stored image with the key {redacted(key)!r}.")
        return self._of_key(key, images)

    def _of_key(self, key: str, images: Sequence[UUID]) -> Query:
        if len(images) > 1:
            some = ", ".join(map(str, images[:3])) + (" …" if len(images) > 3 else "")
            raise ImageNotFound(f"{len(images):,} images have the key {key!r}; name one of them by its id: {some}")
        return self._stored_image(images[0], key)

    def _stored_image(self, image_id: UUID, words: str) -> Query:
        embedding = stored_embeddings(self.database, self.stored, [image_id]).get(image_id) if self.stored else None
        if embedding is not None:
            return Query(words, embedding, (image_id,))
        if not image_exists(self.database, image_id):
            raise ImageNotFound(f"There is no stored image {image_id}.")
        raise ImageNotFound(
            f"The image {words} is stored, but has no embedding under {self.model} yet. Ingest it first."
        )

    def _picture(self, data: bytes, words: str, source: str | None) -> Query:
        digest = sha256(data).digest()
        image_id = image_known_as(self.database, sha256=digest)
        images = () if image_id is None else (image_id,)
        if self.stored is not None:
            if image_id and (embedding := stored_embeddings(self.database, self.stored, images).get(image_id)):
                return Query(words, embedding, images)
            if known := remembered_queries(self.database, self.stored, "image", [digest]).get(digest):
                return Query(words, known, images)
        embedder = self.embedder()
        checked = check_picture(data, embedder.limits)
        image = ImageInput(data=checked.data)
        return Query(words, self._embedded(image, digest, source or f"bytes:{digest.hex()}"), images)

    def _video(self, url: str, place: str, media_type: str) -> Query:
        """A video that is not stored; like one that is, it is known by its URI."""
        digest = sha256(place.encode(errors="replace")).digest()
        known = remembered_queries(self.database, self.stored, "image", [digest]) if self.stored is not None else {}
        if digest in known:
            return Query(place, known[digest])
        if not self.embedder().limits.max_video_bytes:
            raise ItemError("video-not-supported", f"{self.model} takes no videos.")
        return Query(place, self._embedded(ImageInput(url=url, media_type=media_type), digest, place))

    def _embedded(self, image: ImageInput, digest: bytes, source: str) -> Embedding:
        (answer,) = self.embedder().embed_images([image])
        if isinstance(answer, ItemError):
            raise answer
        if self.stored is not None:
            remember_query(self.database, "image", digest, source, answer)
        return answer

    def _fetched(self, url: str) -> bytes:
        try:
            found = self.reader.read(url, most=LARGEST_FILE)
        except ItemError as error:
            if error.code in _NOT_FOR_LACK_OF_IT:
                raise
            raise ImageNotFound(str(error)) from None
        return found.data if found else b""
