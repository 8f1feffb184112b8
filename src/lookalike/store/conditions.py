"""Filters as SQL: a condition on one file, every value and every key of it bound."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.expression import CompoundSelect
from sqlalchemy.types import Integer, String, Uuid

from lookalike.errors import InvalidFilter
from lookalike.filters import Chosen, Where
from lookalike.filters.tree import COMPARISONS, All, Compare, Contains, Either, Exists, In, Name, Not, Prefix
from lookalike.store.metadata_index import CHARACTERS_HELD, float_held, is_told, number_held, text_held

_COLUMNS = {
    "uri": "f.uri",
    "key": "f.key",
    "collection": "f.collection",
    "media_type": "(select i.media_type from lookalike.images i where i.image_id = f.image_id)",
    "created_at": "(select i.created_at from lookalike.images i where i.image_id = f.image_id)",
    "seen_at": "f.seen_at",
}
_COLLATED = {"key", "collection", "media_type"}
"""Texts that are in the database's own order, which is not everybody's. Equality takes them as their indexes do."""
_PLACEHOLDER = re.compile(r"%%|%\((.*?)\)s")
_OPERATORS = {operator: operator for operator in COMPARISONS}
"""No other text becomes an operator."""
_FEW = 32
"""So many values are worth a look each into the index over metadata; more, one into the index on the key, or at
every file where it has none."""


class Conditions:
    """What a file must satisfy, as SQL over ``lookalike.files f``, together with what it binds.

    Attributes:
        sql: the condition; empty where every file passes. Unknown (null) counts as false.
        check: the same in fewer terms, for files that are found otherwise than by an index on what it asks for.
        tables: the beginning of a ``with`` list that the condition reads from, each followed by a comma.
        parameters: what is bound, by name.
        has_own_query: whether a query of the caller's own is part of it.
        equality: whether it asks for nothing but what is equal, for which one plan is best whatever the values.
    """

    def __init__(self, where: Where | None, chosen: Chosen | None) -> None:
        self.parameters: dict[str, Any] = {}
        self.tables = ""
        self._checks: dict[str, str] = {}
        self.has_own_query = chosen is not None and chosen.select is not None
        self.equality = chosen is None and (where is None or _is_equality(where))
        parts = []
        if chosen is not None:
            parts.append(self._among(chosen))
        if where is not None:
            parts.append(self._sql(where))
        self.sql = self.check = " and ".join(parts)
        for indexed, plain in self._checks.items():
            self.check = self.check.replace(indexed, plain)

    def _bind(self, value: object) -> str:
        name = f"w{len(self.parameters)}"
        self.parameters[name] = value
        return f"%({name})s"

    def _sql(self, where: Where) -> str:
        match where:
            case All(parts):
                return f"({' and '.join(map(self._sql, parts)) or 'true'})"
            case Either(parts):
                return f"({' or '.join(map(self._sql, parts)) or 'false'})"
            case Not(part):
                return f"(({self._sql(part)}) is not true)"
            case Compare(name, operator, value) if name.own:
                cast = "timestamptz" if isinstance(value, datetime) else "text"
                column = _COLUMNS[name.path[0]] if operator == "=" else _in_order(name)
                return f"({column} {_OPERATORS[operator]} {self._bind(value)}::{cast})"
            case Compare(name, "=", value):
                return self._holds(name, value)
            case Compare(name, operator, str(value)):
                text = (
                    f"({self._value(name)} #>> '{{}}') collate \"C\" {_OPERATORS[operator]} {self._bind(value)}::text"
                )
                return self._compared(text, name, operator, (value,))
            case Compare(name, operator, value):
                number = f"{self._value(name)} {_OPERATORS[operator]} {self._bind(Jsonb(value))}"
                return self._compared(number, name, operator, (value,))
            case In(name, values) if name.own:
                return f"({_COLUMNS[name.path[0]]} = any({self._bind(list(values))}::text[]))"
            case In(name, values) if len(values) <= _FEW:
                return f"({' or '.join(self._holds(name, value) for value in values) or 'false'})"
            case In(name, values):
                one = f"{self._value(name)} = any({self._bind([Jsonb(value) for value in values])}::jsonb[])"
                return self._compared(one, name, "=", values)
            case Exists(name) if name.own:
                return f"({_COLUMNS[name.path[0]]} is not null)"
            case Exists(name):
                return f"({is_told(self._value(name))})"
            case Contains(name, value):
                return self._holds(name, [value])
            case Prefix(name, text) if name.own:
                return f"starts_with({_in_order(name)}, {self._bind(text)}::text)"
            case Prefix(name, text):
                begins = f"starts_with({self._value(name)} #>> '{{}}', {self._bind(text)}::text)"
                return self._compared(begins, name, "^=", (text,))
        raise InvalidFilter(f"A filter is made of field(…) conditions; {type(where).__name__} is none.")

    def _holds(self, name: Name, value: object) -> str:
        """That the metadata contain a value, which the index over them answers."""
        for part in reversed(name.path):
            value = {part: value}
        return f"(f.metadata @> {self._bind(Jsonb(value))})"

    def _value(self, name: Name) -> str:
        # step by step, as a path would take `0` for a place in a list, which containment does not
        return f"(f.metadata{''.join(f' -> {self._bind(part)}::text' for part in name.path)})"

    def _compared(self, plain: str, name: Name, operator: str, values: tuple[Any, ...]) -> str:
        """A comparison that an index on the key answers, if there is one, and as a `check`."""
        indexed = self._indexed(name, operator, values)
        if not indexed:
            return f"({plain})"
        kind = "string" if isinstance(values[0], str) else "number"
        self._checks[f"({plain}{indexed})"] = f"({plain} and jsonb_typeof({self._value(name)}) = '{kind}')"
        return f"({plain}{indexed})"

    def _indexed(self, name: Name, operator: str, values: tuple[Any, ...]) -> str:
        """What follows from a comparison with texts, or with numbers, in the terms that an index on the key answers.

        Only values of the same kind satisfy it; it is empty where the kinds are mixed, or neither.
        """
        value = self._value(name)
        if all(isinstance(one, str) for one in values):
            held = text_held(value)
            bound = self._bind([one[:CHARACTERS_HELD] for one in values]) + "::text[]"
            also = ""
        elif all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
            held = number_held(value)
            bound = self._bind([float_held(one) for one in values]) + "::float8[]"
            also = f" and {text_held(value)} is null"
        else:
            return ""
        if operator == "^=":
            follows = f"starts_with({held}, ({bound})[1])"
        else:
            # what is held is cut off, so that what is more may be held as equal
            loose = {"<": "<=", ">": ">="}.get(operator, operator)
            follows = f"{held} = any ({bound})" if operator == "=" else f"{held} {loose} ({bound})[1]"
        return f" and {follows}{also} and {is_told(value)}"

    def _among(self, chosen: Chosen) -> str:
        if chosen.select is not None:
            column = self._own_query(chosen.select)
            return f"f.{column} in (select item from among)"
        by_id, by_key = "f.image_id in (select item from among)", "f.key in (select item from among_keys)"
        self.tables = f"among as materialized (select unnest({self._bind(list(chosen.ids))}::uuid[]) as item), "
        if not chosen.keys:
            return by_id
        keys = f"select unnest({self._bind(list(chosen.keys))}::text[]) as item"
        self.tables += f"among_keys as materialized ({keys}), "
        return f"({by_id} or {by_key})" if chosen.ids else by_key

    def _own_query(self, select: Select[Any] | CompoundSelect[Any]) -> str:
        """Take over a query of the caller's own as a table; returns the column of files that it selects by."""
        kind = next(iter(select.selected_columns)).type
        if isinstance(kind, Uuid):
            column, cast = "image_id", "uuid"
        elif isinstance(kind, String | Integer):
            column, cast = "key", "text"
        else:
            raise InvalidFilter(
                "A select to search among gives image ids (a column of type Uuid) or keys (text or integer), not "
                f"{kind!r}. Say which it is: select(cast(column, Uuid)) or select(cast(column, String))."
            )
        # takes a while to load, which no other search should wait for
        from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect

        dialect = psycopg_dialect()  # type: ignore[no-untyped-call]
        try:
            compiled = select.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
            values = compiled.construct_params()
        except SQLAlchemyError as error:
            raise InvalidFilter(f"The select to search among cannot be read: {error}") from None
        names = {escaped: name for name, escaped in compiled.escaped_bind_names.items()}
        for name, value in values.items():
            original = names.get(name, name)
            # the members of an `in` list are bound one by one, under the list's name and a number; those of tuples,
            # under two, are as they are
            bound = compiled.binds.get(original, compiled.binds.get(original.rpartition("_")[0]))
            process = bound.type.dialect_impl(dialect).bind_processor(dialect) if bound is not None else None
            self.parameters[f"own_{name}"] = process(value) if process else value
        text = _PLACEHOLDER.sub(lambda match: f"%(own_{match[1]})s" if match[1] else match[0], str(compiled))
        self.tables = f"among as materialized (select item::{cast} from ({text}) as own (item)), "
        return column


def _in_order(name: Name) -> str:
    """A column of the file, compared character by character."""
    return _COLUMNS[name.path[0]] + (' collate "C"' if name.path[0] in _COLLATED else "")


def _is_equality(where: Where) -> bool:
    match where:
        case All(parts) | Either(parts):
            return all(map(_is_equality, parts))
        case Not(part):
            return _is_equality(part)
        case Compare(_, operator, _):
            return operator == "="
        case In(name, values):
            return name.own or len(values) <= _FEW
    return isinstance(where, Contains)
