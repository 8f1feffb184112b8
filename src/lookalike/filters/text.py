"""The text form of a filter."""

from __future__ import annotations

import re

from lookalike.errors import InvalidFilter
from lookalike.filters.tree import (
    ANY_OPERATOR,
    DEEPEST,
    All,
    Either,
    Name,
    Not,
    Scalar,
    Where,
    compare,
    field,
    meaning,
    name_of,
)

_NAME_PART = re.compile(r"[\w-]+")
_OPERATOR = re.compile(r"!=|<=|>=|\^=|=|<|>")
_CONDITION = re.compile(r"\s[\w.-]+\s*[=<>!^]|\s[\w.-]+\s+(?:in\b|contains\s|exists\b)|\snot\s", re.IGNORECASE)
_DANGLING = re.compile(r"\s(?:and|or|not)$", re.IGNORECASE)
_NUMBERS = re.compile(r"[-+.\d]*\d\.\.+[-+.\d]*\d")
_WORD = re.compile(r"\s*(in|exists|contains|IN|EXISTS|CONTAINS)(?=[\s(]|$|\))")
_JOINER = re.compile(r"\s*(and|or|AND|OR)(?=[\s(])")
_NOT = re.compile(r"\s*(?:not|NOT)(?=[\s(])")
_SPACE = re.compile(r"\s*")


def parse(text: str) -> Where:
    """The tree of a filter in its text form.

    Raises:
        InvalidFilter: it cannot be read; the message says where.
    """
    return _Parser(text).whole()


def parse_key(text: str) -> Name:
    """The key of the metadata that a text names as in a filter: ``artist``, ``exif.taken``, ``"a.b"``.

    Raises:
        InvalidFilter: it cannot be read, or names what every file has.
    """
    name = _Parser(text).name()
    if name.own:
        raise InvalidFilter(
            f"{name} is no key of the metadata but a column that every file has. The metadata's own is metadata.{name}."
        )
    return name


class _Parser:
    """Reads one filter from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Where:
        where = self._either()
        if self._rest():
            raise self._error(
                "and, or, or the end was expected. A value with such words in it stands in quotation marks"
            )
        return where

    def name(self) -> Name:
        name = name_of(self._path())
        if self._rest():
            raise self._error("the end of the name was expected. Other characters stand in quotation marks")
        return name

    def _either(self) -> Where:
        parts = [self._all()]
        while self._joiner("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _all(self) -> Where:
        parts = [self._one()]
        while self._joiner("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self) -> Where:
        self._depth += 1
        if self._depth > DEEPEST:
            raise InvalidFilter(f"The filter is nested more than {DEEPEST} deep.")
        try:
            if match := _NOT.match(self._text, self._at):
                self._at = match.end()
                return Not(self._one())
            if self._rest().startswith("("):
                self._at += 1
                inner = self._either()
                self._expect(")")
                return inner
            return self._condition()
        finally:
            self._depth -= 1

    def _condition(self) -> Where:
        subject = field(*self._path())
        if match := _WORD.match(self._text, self._at):
            self._at = match.end()
            match match[1].lower():
                case "exists":
                    return subject.exists()
                case "contains":
                    return subject.contains(self._value(subject))
                case _:
                    return self._one_of(subject)
        self._rest()
        found = ANY_OPERATOR.match(self._text, self._at)
        operator = found[0] if found else ""
        if not _OPERATOR.fullmatch(operator):
            what = f"{operator} is no operator" if operator else "an operator was expected"
            raise self._error(f"{what}: there are = != < <= > >= ^= in contains exists")
        self._at += len(operator)
        if operator == "^=":
            return subject.startswith(self._text_value())
        value = self._value(subject)
        match operator:
            case "!=":
                return subject != value
            case "=" | "<" | "<=" | ">" | ">=":
                return compare(subject.name, operator, value)
        raise AssertionError(operator)

    def _one_of(self, subject: field) -> Where:
        if not self._rest().startswith("("):
            begin = self._at
            first = self._value(subject, "..")
            self._expect("..")
            last = self._value(subject)
            kinds = {isinstance(value, int | float) for value in (first, last)}
            if len(kinds) > 1 or (isinstance(last, str) and last.startswith(".")):
                self._at = begin
                raise self._error("a range is of two numbers or of two texts, such as 1870..1890")
            if kinds == {True} and first > last:  # type: ignore[operator]
                self._at = begin
                raise self._error("a range begins with the smaller number")
            return subject.between(first, last)
        self._at += 1
        values = [self._value(subject, ",")]
        while self._rest().startswith(","):
            self._at += 1
            values.append(self._value(subject, ","))
        self._expect(")")
        return subject.in_(values)

    def _path(self) -> list[str]:
        parts = []
        while True:
            self._rest()
            if self._text[self._at : self._at + 1] in ("'", '"'):
                parts.append(self._quotation())
            elif match := _NAME_PART.match(self._text, self._at):
                self._at = match.end()
                parts.append(match[0])
            else:
                raise self._error("a name was expected")
            if self._text[self._at : self._at + 1] != ".":
                return parts
            self._at += 1

    def _value(self, subject: field, end: str = "") -> Scalar:
        """A value; without quotation marks it may be a number or a word with a meaning, but not of a name in `OWN`."""
        is_text = self._rest()[:1] in ("'", '"') or subject.name.own
        text = self._text_value(end)
        return text if is_text else meaning(text)

    def _text_value(self, end: str = "") -> str:
        """A value as a text; without quotation marks it goes on to `end`, a joining word or a closing parenthesis."""
        if self._rest()[:1] in ("'", '"'):
            return self._quotation()
        begin, depth = self._at, 0
        while self._at < len(self._text):
            character = self._text[self._at]
            if not depth and (end and self._text.startswith(end, self._at)):
                break
            if character == ")" and not depth:
                break
            if character.isspace() and not depth and _JOINER.match(self._text, self._at):
                break
            depth += (character == "(") - (character == ")")
            self._at += 1
        bare = self._text[begin : self._at].strip()
        if not bare:
            raise self._error("a value was expected")
        if ANY_OPERATOR.match(bare):
            self._at = begin
            raise self._error(f"{bare[0]} begins no value; put it in quotation marks, or mend the operator before it")
        if _CONDITION.search(bare):
            self._at = begin
            raise self._error("this reads like two conditions; put `and` between them, or the value in quotation marks")
        if _DANGLING.search(bare):
            raise self._error("a condition was expected; a value that ends so stands in quotation marks")
        if not end and _NUMBERS.fullmatch(bare):
            self._at = begin
            raise self._error("a range reads `year in 1870..1890`; a text of this form stands in quotation marks")
        return bare

    def _quotation(self) -> str:
        mark, begin = self._text[self._at], self._at
        self._at += 1
        found: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            self._at += 1
            if character == mark:
                return "".join(found)
            if character == "\\" and self._text[self._at : self._at + 1] in ("\\", mark):
                character = self._text[self._at]
                self._at += 1
            found.append(character)
        self._at = begin
        raise self._error("a quotation mark is not closed")

    def _joiner(self, word: str) -> bool:
        match = _JOINER.match(self._text, self._at)
        if match and match[1].lower() == word:
            self._at = match.end()
            return True
        return False

    def _rest(self) -> str:
        """What comes next, after white space."""
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 2]

    def _expect(self, text: str) -> None:
        self._rest()
        if not self._text.startswith(text, self._at):
            raise self._error(f"{text} was expected")
        self._at += len(text)

    def _error(self, what: str) -> InvalidFilter:
        before, after = self._text[max(0, self._at - 30) : self._at], self._text[self._at : self._at + 30]
        return InvalidFilter(f"The filter cannot be read at {before}⟨here⟩{after}: {what}.")
