"""The tree of a filter, and what conditions are built with."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, TypeAlias
from uuid import UUID

import numpy as np

from lookalike.errors import InvalidFilter
from lookalike.uris import uri_of, without_secrets

Scalar: TypeAlias = str | int | float | bool | date | None
"""What a condition compares with; dates in metadata are texts in ISO form."""

Comparison: TypeAlias = Literal["=", "<", "<=", ">", ">="]
COMPARISONS: tuple[Comparison, ...] = ("=", "<", "<=", ">", ">=")

OWN = frozenset({"uri", "key", "collection", "media_type", "created_at", "seen_at"})
"""What every file has beside its metadata. ``created_at`` is when its image was first stored, ``seen_at`` when the file
was; a time without zone is UTC, and a date without time the whole day."""

_TIMES = frozenset({"created_at", "seen_at"})
DEEPEST = 50
_LARGEST_NUMBER = 10**300


_PLAIN_NAME = re.compile(r"(?!(?:and|or|not|in|exists|contains)\Z)[\w-]+")
ANY_OPERATOR = re.compile(r"[=<>!~^]+")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_WORDS: Mapping[str, Scalar] = {"true": True, "false": False, "null": None}


class Where:
    """A filter. Combine filters with ``&``, ``|`` and ``~``; as text they read as `parse` understands them."""

    __slots__ = ()

    def __and__(self, other: Where) -> Where:
        return All((*(self.parts if isinstance(self, All) else (self,)), other))

    def __or__(self, other: Where) -> Where:
        return Either((*(self.parts if isinstance(self, Either) else (self,)), other))

    def __invert__(self) -> Where:
        return Not(self)

    def __bool__(self) -> bool:
        # `a and b`, or `1 < field("x") < 2`, would silently drop a condition
        raise TypeError("a filter is neither true nor false; combine filters with &, | and ~")


@dataclass(frozen=True, slots=True)
class Name:
    """What a condition is about: a column of the file (`own`), or a path into its metadata."""

    path: tuple[str, ...]
    own: bool

    def __str__(self) -> str:
        plain = ".".join(part if _PLAIN_NAME.fullmatch(part) else quoted(part) for part in self.path)
        return plain if self.own or self.path[0] not in {*OWN, "metadata"} else f"metadata.{plain}"


@dataclass(frozen=True, slots=True)
class Compare(Where):
    """The value is equal, less or more. Numbers compare with numbers, texts with texts."""

    name: Name
    operator: Comparison
    value: Any

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{shown(self.value)}"


@dataclass(frozen=True, slots=True)
class In(Where):
    """The value is one of these."""

    name: Name
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.name} in ({', '.join(map(shown, self.values))})"


@dataclass(frozen=True, slots=True)
class Exists(Where):
    """There is a value other than null."""

    name: Name

    def __str__(self) -> str:
        return f"{self.name} exists"


@dataclass(frozen=True, slots=True)
class Contains(Where):
    """The value is a list with this member."""

    name: Name
    value: Any

    def __str__(self) -> str:
        return f"{self.name} contains {shown(self.value)}"


@dataclass(frozen=True, slots=True)
class Prefix(Where):
    """The value is a text that begins so."""

    name: Name
    text: str

    def __str__(self) -> str:
        return f"{self.name}^={shown(self.text)}"


@dataclass(frozen=True, slots=True)
class All(Where):
    """Every part holds; without parts, anything does."""

    parts: tuple[Where, ...]

    def __str__(self) -> str:
        return " and ".join(f"({part})" if isinstance(part, All | Either) else str(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Either(Where):
    """At least one part holds."""

    parts: tuple[Where, ...]

    def __str__(self) -> str:
        return " or ".join(f"({part})" if isinstance(part, All | Either) else str(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not(Where):
    """The part does not hold."""

    part: Where

    def __str__(self) -> str:
        return f"not ({self.part})" if isinstance(self.part, All | Either) else f"not {self.part}"


class field:  # reads as a word in an expression
    """Something of a file, to build conditions with: ``field("year") >= 1870``, ``field("exif", "taken").exists()``.

    Args:
        path: a name of `OWN`, or a key of the metadata and, for what is nested, keys within it, each taken literally.
            ``field("metadata", "uri")`` is the key ``uri`` of the metadata.

    Raises:
        InvalidFilter: no database can hold such a name or value; also from every method.
    """

    __slots__ = ("name",)
    __hash__ = None  # type: ignore[assignment]  # comparing makes conditions

    def __init__(self, *path: str) -> None:
        self.name = name_of(path)

    def __eq__(self, value: object) -> Where:  # type: ignore[override]
        return compare(self.name, "=", value)

    def __ne__(self, value: object) -> Where:  # type: ignore[override]
        return Not(compare(self.name, "=", value))

    def __lt__(self, value: Scalar) -> Where:
        return compare(self.name, "<", value)

    def __le__(self, value: Scalar) -> Where:
        return compare(self.name, "<=", value)

    def __gt__(self, value: Scalar) -> Where:
        return compare(self.name, ">", value)

    def __ge__(self, value: Scalar) -> Where:
        return compare(self.name, ">=", value)

    def in_(self, values: Iterable[Scalar]) -> Where:
        """One of these."""
        if isinstance(values, str):
            raise InvalidFilter(f"{self.name} in: one text was given instead of a list of values.")
        return one_of(self.name, tuple(values))

    def between(self, first: Scalar, last: Scalar) -> Where:
        """A range, both ends included."""
        return All((compare(self.name, ">=", first), compare(self.name, "<=", last)))

    def exists(self) -> Where:
        """There is a value other than null."""
        return Exists(self.name)

    def contains(self, member: Scalar) -> Where:
        """The value is a list with this member."""
        if self.name.own:
            raise InvalidFilter(f"{self.name} is no list, so it contains nothing. Compare it by = or ^=.")
        return Contains(self.name, storable_value(self.name, member))

    def startswith(self, text: str | os.PathLike[str]) -> Where:
        """The value is a text that begins so; for ``uri``, also a path."""
        if self.name.own and self.name.path[0] in _TIMES:
            raise InvalidFilter(f"{self.name} is a time, which has no beginning. Compare it by < and >=.")
        return Prefix(self.name, text_value(self.name, text))


def name_of(path: Sequence[str]) -> Name:
    if not path or not all(isinstance(part, str) for part in path):
        raise InvalidFilter("A condition needs a name, such as artist or exif.taken.")
    if not all(map(is_storable, path)):
        raise InvalidFilter("The name of a condition holds a character that PostgreSQL cannot store.")
    if len(path) > DEEPEST:
        raise InvalidFilter(f"The name of a condition has {len(path)} parts; {DEEPEST} are the most.")
    if len(path) == 1 and path[0] in OWN:
        return Name(tuple(path), own=True)
    if len(path) > 1 and path[0] == "metadata":
        return Name(tuple(path[1:]), own=False)
    return Name(tuple(path), own=False)


def compare(name: Name, operator: Comparison, value: object) -> Where:
    if name.own and name.path[0] in _TIMES:
        return _compare_times(name, operator, value)
    if name.own:
        return Compare(name, operator, text_value(name, value))
    checked = storable_value(name, value)
    if operator != "=" and (checked is None or isinstance(checked, bool)):
        raise InvalidFilter(f"{name} {operator} {shown(checked)}: only numbers, texts and dates are less or more.")
    return Compare(name, operator, checked)


def _compare_times(name: Name, operator: Comparison, value: object) -> Where:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
    try:
        if isinstance(value, datetime):
            return Compare(name, operator, value if value.tzinfo else value.replace(tzinfo=UTC))
        if isinstance(value, date):
            begins = datetime.combine(value, time(), UTC)
            ends = begins + timedelta(days=1)
            match operator:
                case "=":
                    return All((Compare(name, ">=", begins), Compare(name, "<", ends)))
                case "<" | ">=":
                    return Compare(name, operator, begins)
                case "<=":
                    return Compare(name, "<", ends)
                case ">":
                    return Compare(name, ">=", ends)
    except OverflowError:
        pass
    raise InvalidFilter(f"{name} compares with a date or time such as 2026-11-20 or 2026-11-20T08:30+01:00.")


def one_of(name: Name, values: tuple[object, ...]) -> Where:
    if name.own and name.path[0] in _TIMES:
        return Either(tuple(_compare_times(name, "=", value) for value in values))
    checked = text_value if name.own else storable_value
    return In(name, tuple(checked(name, value) for value in values))


def storable_value(name: Name, value: object) -> Any:
    """A value as JSON can hold it in PostgreSQL."""
    if isinstance(value, np.generic):
        value = value.item()
    match value:
        case None | bool():
            return value
        case int():
            if abs(value) <= _LARGEST_NUMBER:
                return value
            raise InvalidFilter(f"{name}: the number is larger than any that is stored.")
        case float():
            if math.isfinite(value):
                return value
            raise InvalidFilter(f"{name}: {value} is no number that anything could be compared with.")
        case str():
            return text_value(name, value)
        case date():
            return value.isoformat()
        case UUID():
            return str(value)
    raise InvalidFilter(f"{name}: a {type(value).__name__} cannot be compared; give a text, a number or a date.")


def text_value(name: Name, value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if name.own and isinstance(value, int | float | UUID) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise InvalidFilter(
            f"{name} compares with a text, not with {'null' if value is None else type(value).__name__}."
        )
    if not is_storable(value):
        raise InvalidFilter(f"{name}: the text holds a character that PostgreSQL cannot store.")
    return _as_uri(value) if name.own and name.path[0] == "uri" else value


def _as_uri(text: str) -> str:
    """A URI, or its beginning, from what may be a local path."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        return without_secrets(text)
    slash = "/" if text.endswith("/") else ""
    return uri_of(text).rstrip("/") + slash


def is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def meaning(bare: str) -> Scalar:
    if bare in _WORDS:
        return _WORDS[bare]
    if not _NUMBER.fullmatch(bare) or len(bare) > 1000:
        return bare
    return int(bare) if bare.removeprefix("-").isdigit() else float(bare)


def shown(value: object) -> str:
    if isinstance(value, str):
        plain = (
            value == value.strip()
            and meaning(value) == value
            and not re.search(r"[(),'\"]|\.\.|\b(and|or|not|in|contains|exists)\b", value, re.I)
        )
        return value if plain and value and not ANY_OPERATOR.match(value) else quoted(value)
    return value.isoformat() if isinstance(value, datetime) else json.dumps(value)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
