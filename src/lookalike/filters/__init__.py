"""Filters: which files a search may show. A typed tree with one text form, and sets of images to search among.

A filter is judged per file: an image matches if one of its files satisfies all of it. In Python::

    where={"artist": "Monet", "year": [1872, 1873]}
    where=(field("artist") == "Monet") & (field("year") >= 1870) & ~field("tags").contains("sketch")
    where="artist=Monet and year>=1870 and not tags contains sketch"

A name is one of the file's own (`OWN`), else a key of its metadata; ``metadata.uri`` is its key ``uri``.
Dots lead into nested metadata (``exif.taken``); a name with other characters stands in quotation marks.

===========================  =====================================================================================
``artist=Monet``             equal; ``!=``, ``<``, ``<=``, ``>`` and ``>=`` likewise. Numbers compare with numbers,
                             texts with texts, character by character, which puts ISO dates in order
``year in 1870..1890``       a range, both ends included
``artist in (Monet, Manet)`` one of these
``artist exists``            there is a value, and it is not null
``tags contains sea``        the list has this member
``uri^=photos/2020/``        begins so
``and``, ``or``, ``not``     in the order that they bind from weakly to strongly: or, and, not; and parentheses
===========================  =====================================================================================

A value is a number, ``true``, ``false``, ``null`` or a text. In quotation marks, with ``\\`` before a quotation mark or
another ``\\``, it is always a text. What a file does not have equals nothing, and is neither more nor less than
anything; ``not`` and ``!=`` are the exact opposite, so they let such files pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from lookalike.errors import InvalidFilter
from lookalike.filters.among import Among, Chosen, as_chosen
from lookalike.filters.text import parse, parse_key
from lookalike.filters.tree import (
    COMPARISONS,
    DEEPEST,
    OWN,
    All,
    Compare,
    Contains,
    Either,
    Exists,
    In,
    Not,
    Prefix,
    Where,
    compare,
    field,
    name_of,
    one_of,
    storable_value,
)

__all__ = ["OWN", "Among", "Chosen", "Filter", "Where", "as_chosen", "as_where", "field", "parse", "parse_key"]


_MOST_CONDITIONS = 1000

Filter: TypeAlias = Where | str | Mapping[str, Any] | Sequence["Where | str | Mapping[str, Any]"] | None
"""A filter as it may be given: a tree, its text form, a mapping of names to values (equal; a list: one of these; a
mapping: nested), or several of them, all of which must hold."""


def as_where(given: Filter, depth: int = 0) -> Where | None:
    """A filter as a checked tree; None where everything passes.

    Raises:
        InvalidFilter: it cannot be read, names an operator that does not exist, or holds what no database can.
    """
    if depth > DEEPEST:
        raise InvalidFilter(f"The filter is nested more than {DEEPEST} deep.")
    match given:
        case None:
            return None
        case str():
            where = parse(given)
        case Where():
            where = given
        case Mapping():
            where = _of_mapping(given)
        case Sequence():
            parts = [part for one in given if (part := as_where(one, depth + 1)) is not None]
            where = parts[0] if len(parts) == 1 else All(tuple(parts))
        case _:
            raise InvalidFilter(f"A filter is a text, a mapping or made of field(…), not a {type(given).__name__}.")
    conditions = _checked(where, 0)
    if conditions > _MOST_CONDITIONS:
        raise InvalidFilter(f"The filter has {conditions:,} conditions; {_MOST_CONDITIONS:,} are the most. Use `in`.")
    return where if conditions else None


def _of_mapping(given: Mapping[str, Any], above: tuple[str, ...] = ()) -> Where:
    parts: list[Where] = []
    for key, value in given.items():
        if len(above) >= DEEPEST:
            raise InvalidFilter(f"The filter is nested more than {DEEPEST} deep.")
        path = (*above, key)
        if isinstance(value, Mapping):
            parts.append(_of_mapping(value, path))
        elif isinstance(value, list | tuple | set | frozenset):
            parts.append(one_of(name_of(path), tuple(value)))
        else:
            parts.append(compare(name_of(path), "=", value))
    return All(tuple(parts))


def _checked(where: Where, depth: int) -> int:
    """How many conditions a tree has, after a look at each of them: a tree may be built by hand."""
    if depth > DEEPEST:
        raise InvalidFilter(f"The filter is nested more than {DEEPEST} deep.")
    match where:
        case All(parts) | Either(parts):
            # an alternative without parts lets nothing pass, so it is a condition
            return sum(_checked(part, depth + 1) for part in parts) + (isinstance(where, Either) and not parts)
        case Not(part):
            return max(1, _checked(part, depth + 1))
        case Compare(name, operator, value):
            if operator not in COMPARISONS:
                raise InvalidFilter(f"{operator!r} is no operator; there are {' '.join(COMPARISONS)}.")
            if not isinstance(value, datetime):
                storable_value(name, value)
            return 1
        case In() | Exists() | Contains() | Prefix():
            return 1
    raise InvalidFilter(f"A filter is made of field(…) conditions; {type(where).__name__} is none.")
