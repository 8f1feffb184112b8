"""Models as the database knows them: which there are, which one is active, how large each one is."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.types.json import Jsonb

from lookalike.errors import ModelMismatch
from lookalike.types import Model


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model with its rooms in the database.

    Attributes:
        partition: name of the table that holds its vectors, without schema.
        index: name of its HNSW index, without schema.
        bytes: size of that table's heap.
    """

    model: Model
    model_id: int
    state: str
    view: str
    bytes: int

    @property
    def partition(self) -> str:
        return f"embeddings_{self.model_id}"

    @property
    def index(self) -> str:
        return f"embeddings_{self.model_id}_hnsw"


_SELECT = """
select model_id, name, dimensions, parameters, state, view_name,
       pg_relation_size(to_regclass('lookalike.embeddings_' || model_id))
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


def _stored(row: tuple[object, ...]) -> StoredModel:
    model_id, name, dimensions, parameters, state, view, size = row
    assert isinstance(model_id, int)
    assert isinstance(dimensions, int)
    assert isinstance(parameters, dict)
    return StoredModel(
        model=Model(str(name), dimensions, parameters),
        model_id=model_id,
        state=str(state),
        view=str(view),
        bytes=size if isinstance(size, int) else 0,
    )
