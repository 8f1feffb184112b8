"""Sets of images to search among."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.sql.expression import CompoundSelect

from lookalike.errors import InvalidFilter
from lookalike.filters.tree import is_storable
from lookalike.uris import as_uuid

Among: TypeAlias = Iterable[UUID | str] | Select[Any] | CompoundSelect[Any]
"""Images to search among: their ids or their files' keys, or a SQLAlchemy ``select`` of one column of either."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Images to search among: those of the ids, those with files of the keys, or those that a query of the caller's own
    selects, by id or by key."""

    ids: tuple[UUID, ...] = ()
    keys: tuple[str, ...] = ()
    select: Select[Any] | CompoundSelect[Any] | None = None


def as_chosen(given: Among | None) -> Chosen | None:
    """What to search among, checked; None for everything.

    Args:
        given: a text that reads like an id is taken for one, any other for a key.

    Raises:
        InvalidFilter: it holds something that is neither an id nor a key.
    """
    if given is None:
        return None
    if isinstance(given, Select | CompoundSelect):
        if (columns := len(given.selected_columns)) != 1:
            raise InvalidFilter(
                f"A select to search among gives one column, image ids or keys; this one gives {columns}."
            )
        return Chosen(select=given)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidFilter("To search among images, give a list of ids or keys, or a SQLAlchemy select.")
    ids: list[UUID] = []
    keys: list[str] = []
    for one in given:
        if isinstance(one, UUID):
            ids.append(one)
        elif not isinstance(one, str):
            raise InvalidFilter(f"Searched among are ids and keys; a {type(one).__name__} is neither.")
        elif (image_id := as_uuid(one)) is not None:
            ids.append(image_id)
        elif is_storable(one):
            keys.append(one)
        # else no file can have such a key
    return Chosen(tuple(ids), tuple(keys))
