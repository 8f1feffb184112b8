"""Models as the database knows them: which there are, which one is active, how large each one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from lookalike.errors import ModelMismatch
from lookalike.types import Model


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model with its rooms in the database.

    Attributes:
        state: ``filling``, ``ready`` or ``active``.
        view: name of its view, without schema.
        bytes: size of the table that holds its vectors, without indexes.
        index_ready: whether its HNSW index is there and complete.
    """

    model: Model
    model_id: int
    state: str
    view: str
    bytes: int
    index_ready: bool

    @property
    def partition(self) -> str:
        """Name of the table that holds its vectors, without schema."""
        return f"embeddings_{self.model_id}"

    @property
    def vectors(self) -> str:
        """Its view as SQL names it, which readers may read as well."""
        return f'lookalike."{self.view}"'

    @property
    def index(self) -> str:
        """Name of its HNSW index, without schema."""
        return f"embeddings_{self.model_id}_hnsw"


_SELECT = """
select model_id, name, dimensions, parameters, state, view_name,
       coalesce(pg_relation_size(to_regclass('lookalike.embeddings_' || model_id)), 0),
       coalesce((select indisvalid from pg_index
                  where indexrelid = to_regclass('lookalike.embeddings_' || model_id || '_hnsw')), false)
  from lookalike.models
 where state <> 'dropped'
"""


def models(connection: psycopg.Connection) -> list[StoredModel]:
    """Every model that has vectors, by name."""
    return [_stored(row) for row in connection.execute(f"{_SELECT} order by name".encode())]


def model_named(connection: psycopg.Connection, name: str) -> StoredModel | None:
    """The model of that name, None if it was never used."""
    row = connection.execute(f"{_SELECT} and name = %s".encode(), [name]).fetchone()
    return _stored(row) if row else None


def active_model(connection: psycopg.Connection) -> StoredModel | None:
    """The model that searches use where none is named, None if there is none yet."""
    row = connection.execute(f"{_SELECT} and state = 'active'".encode()).fetchone()
    return _stored(row) if row else None


def add_model(connection: psycopg.Connection, model: Model) -> None:
    """Make a model's partition, index and view, where they are not there yet.

    Raises:
        ModelMismatch: the name is taken by a model of other dimensions or parameters.
    """
    connection.execute(
        "select lookalike.add_model(%s, %s, %s, %s, %s)",
        [model.name, model.provider, model.version, model.dimensions, Jsonb(dict(model.parameters))],
    )
    stored = model_named(connection, model.name)
    if stored is None or (stored.model.dimensions, dict(stored.model.parameters)) != (
        model.dimensions,
        dict(model.parameters),
    ):
        raise ModelMismatch(
            model.name, model.name, f"{model.name} is stored with other dimensions or parameters than it has now."
        )


def _stored(row: tuple[Any, ...]) -> StoredModel:
    model_id, name, dimensions, parameters, state, view, size, index_ready = row
    return StoredModel(Model(name, dimensions, parameters), model_id, state, view, size, index_ready)
