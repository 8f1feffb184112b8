"""Filters: how they read, what they refuse, and that every form of one means the same."""

from __future__ import annotations

import math
import random
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Column, Integer, MetaData, Select, String, Table, select

from lookalike import InvalidFilter
from lookalike.filters import Filter, Where, as_chosen, as_where, field, parse
from lookalike.filters.tree import Compare, Name, Scalar


@pytest.mark.parametrize(
    ("text", "built"),
    [
        ("artist=Monet", field("artist") == "Monet"),
        (" artist = Claude Monet ", field("artist") == "Claude Monet"),
        ("artist='1870'", field("artist") == "1870"),
        ("year>=1870", field("year") >= 1870),
        ("x<-1.5e3", field("x") < -1500.0),
        ("id=007", field("id") == "007"),
        ("a!=true", field("a") != True),  # noqa: E712
        ("a=null", field("a") == None),  # noqa: E711
        ("exif.taken>=2020-01-01", field("exif", "taken") >= date(2020, 1, 1)),
        ('"a.b"."c d"=1', field("a.b", "c d") == 1),
        ("metadata.uri=x", field("metadata", "uri") == "x"),
        ("year in 1870..1890", field("year").between(1870, 1890)),
        ("artist in (Monet, 'Van Gogh', 3)", field("artist").in_(["Monet", "Van Gogh", 3])),
        ("artist exists", field("artist").exists()),
        ("tags contains sea", field("tags").contains("sea")),
        ("uri^=https://x.example/a", field("uri").startswith("https://x.example/a")),
        ("key=1.50", field("key") == "1.50"),
        ("created_at<2026-11-20T08:30+00:00", field("created_at") < datetime(2026, 11, 20, 8, 30, tzinfo=UTC)),
        ("a=1 and b=2 or c=3", ((field("a") == 1) & (field("b") == 2)) | (field("c") == 3)),
        ("a=1 AND (b=2 OR NOT c=3)", (field("a") == 1) & ((field("b") == 2) | ~(field("c") == 3))),
        ("title=Foo (bar), baz and b=1", (field("title") == "Foo (bar), baz") & (field("b") == 1)),
        ('q="say \\"and\\" \\\\"', field("q") == 'say "and" \\'),
        ("größe=3", field("größe") == 3),
        ("title='A Man in Black'", field("title") == "A Man in Black"),
    ],
)
def test_the_text_form_reads_as_the_tree_and_back(text: str, built: Where) -> None:
    assert parse(text) == built
    assert parse(str(built)) == built


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "name"),
        ("artist", "operator"),
        ("artist~Monet", "no operator"),
        ("artist=>Monet", "no operator"),
        ("artist==Monet", "no operator"),
        ("a<>3", "no operator"),
        ("a=", "value"),
        ("a=~b", "no operator"),
        ("a= ~b", "quotation marks"),
        ("a=1 b=2", "two conditions"),
        ("a=x b in 1..5", "two conditions"),
        ("a=x tags exists", "two conditions"),
        ("a=x not b contains y", "two conditions"),
        ("a=x and", "condition was expected"),
        ("a=x y not", "condition was expected"),
        ("year=1870..1890", "1870..1890"),
        ("year in 1...5", "two numbers"),
        ("year in 1..x", "two numbers"),
        ("year in 5..1", "smaller"),
        ("title=War and Peace", "operator"),
        ('a="open', "not closed"),
        ("(a=1", r"\) was expected"),
        ("a=1)", "end was expected"),
        ("a in ()", "value"),
        ("a in (1", r"\)"),
        ("a in 1", r"\.\."),
        ("a.=1", "name"),
        ("a<true", "less or more"),
        ("key contains x", "no list"),
        ("created_at=yesterday", "2026-11-20"),
        ("created_at^=2026", "no beginning"),
        ("created_at<=9999-12-31", "2026-11-20"),
        ("a=x\0", "cannot store"),
        ("(" * 60 + "a=1" + ")" * 60, "50 deep"),
        ("not " * 2000 + "a=1", "50 deep"),
        (" or ".join(["a=1"] * 1001), "1,001 conditions"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_place(text: str, what: str) -> None:
    with pytest.raises(InvalidFilter, match=what):
        as_where(text)


@pytest.mark.parametrize(
    "given",
    [
        {"a": math.nan},
        {"a": math.inf},
        {"a": 10**400},
        {"a": object()},
        {"a": b"bytes"},
        {"a\0": 1},
        {"a": "\ud800"},
        {"a": {"b": {"c": "x\0"}}},
        {1: 2},
        {"key": None},
        42,
        [42],
        b"a=1",
        Compare(Name(("a",), own=False), "; drop table", 1),  # type: ignore[arg-type]
        Where(),
    ],
)
def test_what_no_database_can_hold_is_refused(given: Filter) -> None:
    with pytest.raises(InvalidFilter):
        as_where(given)


def test_a_mapping_means_equal_one_of_or_nested() -> None:
    where = as_where({"artist": "Monet", "year": [1870, 1871], "exif": {"camera": "Leica"}, "collection": "a"})
    text = "artist=Monet and year in (1870, 1871) and (exif.camera=Leica) and collection=a"
    assert str(where) == text
    assert as_where(["artist=Monet", {"year": 3}]) == (field("artist") == "Monet") & as_where({"year": 3})  # type: ignore[operator]
    assert as_where([]) is as_where({}) is as_where(None) is None


def test_a_day_is_all_of_it() -> None:
    assert parse("seen_at=2026-11-20") == parse("seen_at>=2026-11-20T00:00Z and seen_at<2026-11-21T00:00Z")
    assert parse("seen_at<=2026-11-20") == parse("seen_at<2026-11-21T00:00Z")
    assert parse("seen_at>2026-11-20") == parse("seen_at>=2026-11-21T00:00Z")


def test_paths_and_uris_are_taken_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("uri=a b.jpg") == (field("uri") == (tmp_path / "a b.jpg").as_uri())
    assert parse("uri^=photos/") == field("uri").startswith((tmp_path / "photos").as_uri() + "/")
    assert field("uri").startswith(tmp_path) == field("uri").startswith(tmp_path.as_uri())
    assert "secret" not in str(parse("uri='https://x.example/a.jpg?sig=secret'"))


def test_conditions_are_not_combined_by_and_or_not() -> None:
    for combine in (
        lambda: (field("a") == 1) and (field("b") == 2),
        lambda: not field("a").exists(),
        lambda: 1 < field("a") < 3,
    ):
        with pytest.raises(TypeError, match="&"):
            combine()


def test_a_list_within_itself_is_refused() -> None:
    endless: list[Any] = ["a=1"]
    endless.append(endless)
    with pytest.raises(InvalidFilter, match="deep"):
        as_where(endless)


def test_long_chains_are_flat() -> None:
    where = field("a") == 0
    for number in range(1, 200):
        where = where | (field("a") == number)
    assert as_where(where) == where


def test_random_trees_read_back_as_they_were() -> None:
    random.seed(5)
    names = ["a", "b.c", "and", "not", "x y", '"', "é", "metadata", "uri", "in"]
    values: list[Scalar] = [
        "x",
        " x ",
        "and",
        "a or b",
        "1",
        "true",
        "",
        "(",
        "a, b",
        "..",
        "'",
        '"',
        "\\",
        "<",
        1,
        -2.5,
        True,
        None,
    ]

    def tree(depth: int) -> Where:
        kind = random.randrange(7 if depth else 4)
        subject = field("metadata", *random.choices(names, k=random.randint(1, 2)))
        if kind == 0:
            return subject == random.choice(values)
        if kind == 1:
            return subject.in_(random.choices(values, k=2))
        if kind == 2:
            return subject.contains(random.choice(values))
        if kind == 3:
            return subject.startswith(str(random.choice(values)))
        if kind == 4:
            return ~tree(depth - 1)
        a, b = tree(depth - 1), tree(depth - 1)
        return a & b if kind == 5 else a | b

    for _ in range(300):
        where = tree(3)
        assert str(parse(str(where))) == str(where)


PRODUCTS = Table("products", MetaData(), Column("sku", String), Column("price", Integer))


def test_what_to_search_among_is_ids_keys_or_a_query() -> None:
    image_id = UUID(int=7)
    chosen = as_chosen([image_id, str(image_id), "sku-1", "no\0key"])
    assert chosen is not None
    assert (chosen.ids, chosen.keys) == ((image_id, image_id), ("sku-1",))
    query: Select[tuple[str]] = select(PRODUCTS.c.sku)
    chosen = as_chosen(query)
    assert chosen is not None
    assert chosen.select is query
    assert as_chosen(None) is None


@pytest.mark.parametrize("given", ["sku-1", b"x", 3, [3], [None], select(PRODUCTS.c.sku, PRODUCTS.c.price)])
def test_what_is_neither_is_refused(given: object) -> None:
    with pytest.raises(InvalidFilter):
        as_chosen(given)  # type: ignore[arg-type]
