"""The query module: a text, a picture or a stored image in, the nearest images out.

Whatever was embedded before, as a picture of the library or as an earlier query, is never sent to a service again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

from lookalike.embedders import Embedder
from lookalike.errors import ImageNotFound, ItemError, ModelMismatch
from lookalike.pictures.check import LARGEST_FILE, PICTURE_SUFFIXES, check_picture
from lookalike.pictures.reading import Reader
from lookalike.store.database import Database
from lookalike.store.models import StoredModel
from lookalike.store.nearest import nearest
from lookalike.store.reading import image_exists, image_known_as, remembered_query, stored_embedding
from lookalike.store.writing import remember_query
from lookalike.types import Embedding, ImageInput, Result
from lookalike.uris import as_uuid, path_of, redacted, uri_of, without_secrets

ImageQuery: TypeAlias = bytes | str | os.PathLike[str] | UUID
"""A picture to search with: its bytes, a path, a URL, the URI or the id of a stored image."""

_NOT_FOR_LACK_OF_IT = ("too-many-bytes", "forbidden-address")


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for, embedded.

    Attributes:
        words: the query for people: the text, or the name of the picture.
        image_id: the stored image that the query is, if it is one.
    """

    words: str
    embedding: Embedding
    image_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Searcher:
    """Searches the vectors of one model.

    Args:
        model: the model's name.
        stored: its rooms in the database; None while nothing is embedded under it.
        embedder: opens the model's embedder; called only when something must be embedded.
        reader: fetches pictures that are queries and lie elsewhere.
    """

    database: Database
    model: str
    stored: StoredModel | None
    embedder: Callable[[], Embedder]
    reader: Reader

    def search(self, query: Query, *, limit: int, exact: bool | None, include_self: bool = False) -> Result:
        """The `limit` images nearest to `query`.

        Raises:
            ImageNotFound: nothing is embedded under this model yet.
            ModelMismatch: the query was embedded by another model.
        """
        stored = self.require_vectors()
        if query.embedding.model.name != stored.model.name:
            raise ModelMismatch(stored.model.name, query.embedding.model.name)
        leave_out = None if include_self else query.image_id
        return nearest(
            self.database,
            stored,
            query.embedding.vector,
            limit=limit,
            exact=exact,
            leave_out=leave_out,
            query=query.words,
        )

    def require_vectors(self) -> StoredModel:
        """The model's rooms.

        Raises:
            ImageNotFound: nothing is embedded under this model yet.
        """
        if self.stored is None:
            raise ImageNotFound(
                f"Nothing is embedded under {self.model} yet. Run: lookalike ingest FOLDER --model {self.model}"
            )
        return self.stored

    def text(self, text: str) -> Query:
        """A text as a query.

        Raises:
            ItemError: the model does not take this text.
            ServiceError: the service cannot be used.
        """
        words = " ".join(text.split())
        if not words.isprintable():
            raise ItemError("not-text", "The text holds characters that are none.")
        digest = sha256(words.encode()).digest()
        if self.stored is not None and (known := remembered_query(self.database, self.stored, "text", digest)):
            return Query(words, known)
        (answer,) = self.embedder().embed_texts([words])
        if isinstance(answer, ItemError):
            raise answer
        if self.stored is not None:
            remember_query(self.database, "text", digest, words, answer)
        return Query(words, answer)

    def image(self, image: ImageQuery) -> Query:
        """A picture as a query.

        Raises:
            ImageNotFound: there is no such file, URL or stored image, or it cannot be fetched.
            ItemError: it is no picture that the model takes, or lies at an address that URLs may not lead to.
            ServiceError: the service cannot be used.
        """
        if isinstance(image, bytes):
            return self._picture(image, "a picture", None)
        if isinstance(image, UUID):
            return self._stored_image(image, str(image))
        name = os.fspath(image)
        if (image_id := as_uuid(name)) is not None:
            return self._stored_image(image_id, name)
        if self.reader.is_remote(name):
            place = without_secrets(name)
            known = image_known_as(self.database, uri=place)
            if known:
                return self._stored_image(known, place)
            return self._picture(self._fetched(name), place, place)
        path = path_of(name) or Path(name)
        if os.path.isfile(path):
            try:
                with path.open("rb") as file:
                    return self._picture(file.read(LARGEST_FILE + 1), name, uri_of(path))
            except OSError as error:
                raise ImageNotFound(f"{name} cannot be read: {error.strerror}.") from None
        known = image_known_as(self.database, uri=name) or image_known_as(self.database, uri=uri_of(path))
        if known is None:
            raise ImageNotFound(f"There is no file, URL or stored image {redacted(name)!r}.")
        return self._stored_image(known, name)

    def text_or_image(self, thing: ImageQuery) -> Query:
        """What a person means by a word on the command line: a file, URL or id if it is one, else a text."""
        if isinstance(thing, str):
            is_image = (
                as_uuid(thing) is not None
                or self.reader.is_remote(thing)
                or path_of(thing) is not None
                or os.path.isfile(thing)
                # a name that was mistyped, not a text to pay for
                or os.path.splitext(thing)[1].lower() in PICTURE_SUFFIXES
            )
            return self.image(thing) if is_image else self.text(thing)
        return self.image(thing)

    def _stored_image(self, image_id: UUID, words: str) -> Query:
        embedding = stored_embedding(self.database, self.stored, image_id) if self.stored else None
        if embedding is not None:
            return Query(words, embedding, image_id)
        if not image_exists(self.database, image_id):
            raise ImageNotFound(f"There is no stored image {image_id}.")
        raise ImageNotFound(
            f"The image {words} is stored, but has no embedding under {self.model} yet. Ingest it first."
        )

    def _picture(self, data: bytes, words: str, source: str | None) -> Query:
        digest = sha256(data).digest()
        image_id = image_known_as(self.database, sha256=digest)
        if self.stored is not None:
            if image_id and (embedding := stored_embedding(self.database, self.stored, image_id)):
                return Query(words, embedding, image_id)
            if known := remembered_query(self.database, self.stored, "image", digest):
                return Query(words, known, image_id)
        embedder = self.embedder()
        checked = check_picture(data, embedder.limits)
        (answer,) = embedder.embed_images([ImageInput(data=checked.data)])
        if isinstance(answer, ItemError):
            raise answer
        if self.stored is not None:
            remember_query(self.database, "image", digest, source or f"bytes:{digest.hex()}", answer)
        return Query(words, answer, image_id)

    def _fetched(self, url: str) -> bytes:
        try:
            found = self.reader.read(url, most=LARGEST_FILE)
        except ItemError as error:
            if error.code in _NOT_FOR_LACK_OF_IT:
                raise
            raise ImageNotFound(str(error)) from None
        return found.data if found else b""
