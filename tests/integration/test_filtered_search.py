"""Searches among a part of the library: as many hits as there are, the right ones, whatever the filter."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, Uuid, select
from sqlalchemy.sql.expression import bindparam, column, func, table, text, tuple_, union

from lookalike import Embedding, Hit, InvalidFilter, Lookalike, LookalikeError, Part, Result, field
from lookalike.filters import Filter
from lookalike.store.database import Database
from lookalike.store.round_trip import Statement
from lookalike.store.writing import NewFile, Place, write_files
from lookalike.types import Content

from ..conftest import Crowd, settings_for

Vector = npt.NDArray[np.float32]


@pytest.fixture
def library(crowd: Crowd) -> Iterator[Lookalike]:
    with Lookalike.open(settings_for(crowd.dsn)) as images:
        yield images


def queries(crowd: Crowd, count: int = 12) -> list[Vector]:
    noise = np.random.default_rng(3).standard_normal((count, 1024)).astype(np.float32)
    return list(crowd.vectors[:: len(crowd.vectors) // count][:count] + 0.5 * noise)


def expected(crowd: Crowd, query: Vector, passes: npt.NDArray[np.bool_], limit: int) -> list[UUID]:
    similarities = np.where(passes, crowd.by_cosine(query), -2)
    return [crowd.ids[n] for n in np.argsort(-similarities, kind="stable")[: min(limit, int(passes.sum()))]]


def recall(crowd: Crowd, found: Result, query: Vector, passes: npt.NDArray[np.bool_], limit: int) -> float:
    right = expected(crowd, query, passes, limit)
    assert len(found) == len(right)
    assert [hit.similarity for hit in found] == sorted((hit.similarity for hit in found), reverse=True)
    return len({hit.image_id for hit in found} & set(right)) / len(right)


@pytest.mark.parametrize("limit", [10, 200])
@pytest.mark.parametrize("share", [50, 20, 4, 1, 0.1])
def test_a_filter_never_costs_hits(crowd: Crowd, library: Lookalike, share: float, limit: int) -> None:
    passes = crowd.chance < share / 100
    found = [library.search(Embedding(crowd.model, q), limit=limit, where={"shares": share}) for q in queries(crowd)]
    assert all(len(result) == 0 for result in found)  # a list equals none of its members
    where = f"shares contains {share}"
    found = [library.search(Embedding(crowd.model, q), limit=limit, where=where) for q in queries(crowd)]
    each = [recall(crowd, result, query, passes, limit) for result, query in zip(found, queries(crowd), strict=True)]
    assert np.mean(each) >= 0.95
    if share <= 4:
        assert all(result.exact and result.index is None for result in found)
        assert each == [1] * len(each)
    if (share, limit) == (50, 10):
        assert all(result.index == "embeddings_1_hnsw" and not result.exact for result in found)


@pytest.mark.parametrize("limit", [10, 200, 1000, 5000])
def test_a_limit_never_costs_hits(crowd: Crowd, library: Lookalike, limit: int) -> None:
    everything = np.ones(len(crowd.ids), bool)
    for query in queries(crowd, 3):
        found = library.search(Embedding(crowd.model, query), limit=limit)
        assert recall(crowd, found, query, everything, limit) >= 0.9
        assert found.index == "embeddings_1_hnsw"
        assert not found.exact or found.completed
        assert found.ef_search == min(1000, max(100, 3 * (limit + max(10, limit // 10))))


def test_a_filter_that_fits_seven_finds_these_seven(crowd: Crowd, library: Lookalike) -> None:
    for query in queries(crowd, 3):
        found = library.search(Embedding(crowd.model, query), limit=50, where="seven=yes")
        passes = np.arange(len(crowd.ids)) % 857 == 3
        assert [hit.image_id for hit in found] == expected(crowd, query, passes, 50)
        assert (len(found), found.exact, found.after) == (7, True, None)


def test_a_filter_against_the_grain_of_the_query(crowd: Crowd, library: Lookalike) -> None:
    """What passes lies nowhere near the query, so that a walk from there would find nothing."""
    query = crowd.vectors[0]
    own = next(iter(library.search(Embedding(crowd.model, query), limit=1))).metadata["theme"]
    found = library.search(Embedding(crowd.model, query), limit=300, where=field("theme") != own)
    assert len(found) == 300
    assert all(hit.metadata["theme"] != own for hit in found)
    right = expected(
        crowd, query, np.array([hit.metadata["theme"] for hit in everything_of(library, crowd)]) != own, 300
    )
    assert len(set(right) & {hit.image_id for hit in found}) >= 285


def everything_of(library: Lookalike, crowd: Crowd) -> list[Hit]:
    """A hit for each image, in the order of the crowd."""
    found = library.search(Embedding(crowd.model, crowd.vectors[0]), limit=len(crowd.ids), exact=True)
    return sorted(found, key=lambda hit: hit.metadata["n"])


def test_a_filter_that_only_far_away_images_satisfy(crowd: Crowd, library: Lookalike) -> None:
    """Four in ten match, none of them near: a walk would accept the first that it meets."""
    theme = np.array([hit.metadata["theme"] for hit in everything_of(library, crowd)])
    each = []
    for number in range(0, 600, 30):
        own = int(theme[number])
        far = [(own + step) % 60 for step in range(20, 45)]
        found = library.search(Embedding(crowd.model, crowd.vectors[number]), where=field("theme").in_(far))
        each.append(recall(crowd, found, crowd.vectors[number], np.isin(theme, far), 10))
    assert np.mean(each) >= 0.95


def test_a_filter_finds_nothing_where_no_file_is_left(gallery: Lookalike, crowd: Crowd, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("delete from lookalike.files")
    assert found_by(gallery, crowd, "artist exists") == found_by(gallery, crowd, "not artist exists") == ""


# -- what conditions mean ---------------------------------------------------------------------------------------------

TOLD: list[dict[str, Any]] = [
    {"artist": "Monet", "year": 1872, "tags": ["sea", "sun"], "exif": {"camera": "Leica", "taken": "2020-05-01T10:00"}},
    {"artist": "Monet", "year": 1899.5, "tags": ["garden"], "a.b": 1},
    {"artist": "Manet", "year": "1863", "tags": "sea", "sold": True},
    {"artist": None, "year": 0, "tags": [], "sold": False},
    {},
]


@pytest.fixture
def gallery(dsn: str, crowd: Crowd) -> Iterator[Lookalike]:
    """Five images that tell different things, ``a.jpg`` to ``e.jpg``; the third lies in another collection as well."""
    with Database(dsn) as database:
        files = []
        for n, told in enumerate(TOLD):
            content = Content(bytes([n]) * 32, ("image/jpeg", "image/png")[n % 2], 9, 9, 9)
            place = Place(f"file:///gallery/{'abcde'[n]}.jpg", collection="east", key=f"0{n}", metadata=told)
            embedding = Embedding(crowd.model, crowd.vectors[n])
            files.append(NewFile(place, content.image_id, content, embedding))
            if n == 2:
                other = Place("https://x.example/c.jpg", collection="west", metadata={"artist": "Klee", "year": 1930})
                files.append(NewFile(other, content.image_id, content))
        write_files(database, crowd.model, files)
    with Lookalike.open(settings_for(dsn)) as images:
        yield images


def found_by(gallery: Lookalike, crowd: Crowd, where: Filter = None, **options: Any) -> str:
    """The letters of the images that a search finds."""
    names = set()
    for exact in (True, None, False):
        result = gallery.search(Embedding(crowd.model, crowd.vectors[0]), where=where, exact=exact, **options)
        names.add("".join(sorted("abcde"[hit.image_id.bytes[0]] for hit in result)))
    (letters,) = names
    return letters


@pytest.mark.parametrize(
    ("where", "letters"),
    [
        ("artist=Monet", "ab"),
        ("artist!=Monet", "cde"),
        ("not artist=Monet", "cde"),
        ("artist in (Monet, Klee)", "abc"),
        ("artist=null", "d"),
        ("artist exists", "abc"),
        ("not artist exists", "de"),
        ("year>=1872", "abc"),
        ("year>=1872 and year<1900", "ab"),
        ("year in 1872..1899.5", "ab"),
        ("year='1863'", "c"),
        ("year=1863", ""),
        ("year<'2'", "c"),
        ("year=1872.0", "a"),
        ("not year>=0", "ce"),
        ("sold=true", "c"),
        ("sold in (true, false)", "cd"),
        ("tags contains sea", "a"),
        ("tags=sea", "c"),
        ("exif.camera=Leica", "a"),
        ("exif.taken>=2020-05-01 and exif.taken<2020-05-02", "a"),
        ("exif.taken^=2020-05", "a"),
        ('"a.b"=1', "b"),
        ("a.b=1", ""),
        ("tags.0=sea", ""),
        ("tags.0 exists", ""),
        ("tags.0>=a", ""),
        ("uri^=file:///gallery/", "abcde"),
        ("uri^=/gallery/a", "a"),
        ("uri=/gallery/b.jpg", "b"),
        ("uri^=https:", "c"),
        ("key=03", "d"),
        ("key in (03, 04, x)", "de"),
        ("key>=03", "de"),
        ("not key exists", "c"),
        ("collection=west", "c"),
        ("collection in (west, east)", "abcde"),
        ("media_type=image/png", "bd"),
        ("media_type^=image/", "abcde"),
        ("created_at>2020-01-01 and seen_at>2020-01-01", "abcde"),
        ("created_at<2020-01-01 or seen_at<2020-01-01", ""),
        ("artist=Klee and year=1863", ""),  # of two different files
        ("(artist=Klee or year=1863) and not sold=false", "c"),
        (None, "abcde"),
        ({"artist": "Monet", "tags": ["x"]}, ""),
        ({"exif": {"camera": "Leica"}}, "a"),
        ({"artist": []}, ""),
        (field("n").in_(range(100)), ""),
        (field("year").in_([*range(1872, 1972)]), "ac"),
    ],
)
def test_what_a_condition_lets_pass(gallery: Lookalike, crowd: Crowd, where: Filter, letters: str) -> None:
    assert found_by(gallery, crowd, where) == letters


def test_a_hit_shows_the_file_that_matched(gallery: Lookalike, crowd: Crowd) -> None:
    vector = Embedding(crowd.model, crowd.vectors[2])
    assert gallery.search(vector)[0].uri == "file:///gallery/c.jpg"
    each: list[dict[str, Any]] = [{"where": "artist=Klee"}, {"collection": "west"}]
    for options in each:
        hit = gallery.search(vector, **options)[0]
        assert (hit.uri, hit.metadata["artist"]) == ("https://x.example/c.jpg", "Klee")
        assert [file.uri for file in hit.files] == ["https://x.example/c.jpg", "file:///gallery/c.jpg"]
    assert found_by(gallery, crowd, "artist=Monet", collection="west") == ""


NASTY = [
    *("'", '"', "''", "%", "%s", "%(w0)s", "%%", "\\", "$", "$$", "$1", "{}", "{0}", "[]", "*", "@>", "?|", "#>>", ";"),
    *(
        "--",
        "/*",
        "'); drop table lookalike.images; --",
        "'::jsonb",
        "a'b\"c",
        "\u202e",
        "é",
        "日本",
        "\U0001f600",
        "\n",
    ),
    *("\t", " ", "", "null", "true", "NaN", "-0", "1e999", "\0", "\x7f", "\ud800", "a\0b", "\x1b[31m", "$.a ? (@ > 1)"),
    *(
        "ARRAY[1]",
        "x" * 5000,
        "among",
        "matching",
        "w0",
        "own_x",
        "lookalike.embeddings",
        "../..",
        "file://",
        "http://[",
    ),
]


def test_hostile_filters_change_nothing_and_raise_only_our_errors(gallery: Lookalike, crowd: Crowd, dsn: str) -> None:
    random.seed(7)
    vector = Embedding(crowd.model, crowd.vectors[0])
    with psycopg.connect(dsn, autocommit=True) as connection:

        def everything() -> list[tuple[object, ...]]:
            tables = ("images", "files", "embeddings", "models", "failures", "queries")
            return [r for t in tables for r in connection.execute(f"select x::text from lookalike.{t} x").fetchall()]

        before = everything()
        raised = answered = 0
        for _ in range(500):
            key, nested, value = ("".join(random.choices(NASTY, k=random.randint(1, 2))) for _ in range(3))
            given: list[Any] = [
                {key: value},
                {key: {nested: [value, 1]}},
                f"{key}={value}",
                f'"{key}" {random.choice(["in", "contains", "exists", "^=", "<", "~", "; --"])} {value}',
                [{key: value}, f"{nested}>={value}"],
            ]
            try:
                subject = field("metadata", key, nested)
                given += [
                    subject.contains(value),
                    subject < value,
                    subject.startswith(value),
                    ~subject.in_([value] * 40),
                ]
            except InvalidFilter:
                raised += 1
            for where in random.sample(given, 2):
                try:
                    result = gallery.search(
                        vector, where=where, among=[key, value, *map(str, range(3))][: random.randint(2, 5)]
                    )
                    assert len(result) <= 5
                    answered += 1
                except LookalikeError:
                    raised += 1
            try:
                gallery.search(vector, collection=value, after=key)
            except LookalikeError:
                raised += 1
        assert raised > 100
        assert answered > 100
        assert everything() == before


# -- among ------------------------------------------------------------------------------------------------------------


def test_among_ids_and_keys_is_complete_and_exact(crowd: Crowd, library: Lookalike) -> None:
    chosen = [*range(0, 6000, 300)]
    passes = np.isin(np.arange(6000), chosen)
    by_id = [crowd.ids[n] for n in chosen]
    for query in queries(crowd, 3):
        vector = Embedding(crowd.model, query)
        right = expected(crowd, query, passes, 15)
        for among in (
            by_id,
            [str(i) for i in by_id],
            [f"sku-{n}" for n in chosen],
            [*by_id[:9], *(f"sku-{n}" for n in chosen[9:])],
        ):
            found = library.search(vector, limit=15, among=among)
            assert [hit.image_id for hit in found] == right
            assert found.exact
        assert [h.image_id for h in library.search(vector, among=by_id, where="chance<0.5", limit=20)] == expected(
            crowd, query, passes & (crowd.chance < 0.5), 20
        )
    assert len(library.search(vector, among=[])) == 0
    assert len(library.search(vector, among=[UUID(int=0), "nobody's"])) == 0


def test_among_half_the_library_is_searched_by_the_index(crowd: Crowd, library: Lookalike) -> None:
    half = [*range(0, 6000, 2)]
    passes = np.isin(np.arange(6000), half)
    each = []
    for query in queries(crowd):
        found = library.search(Embedding(crowd.model, query), among=[crowd.ids[n] for n in half])
        assert not found.exact
        each.append(recall(crowd, found, query, passes, 10))
    assert np.mean(each) >= 0.95


PRODUCTS = Table(
    "prod%ucts",
    MetaData(),
    Column("sku", String),
    Column("image", Uuid),
    Column("price", Integer),
    Column("odd %(w0)s", String),
)


def test_among_what_a_query_over_own_tables_selects(gallery: Lookalike, crowd: Crowd, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute('create table "prod%%ucts" (sku text, image uuid, price integer, "odd %%(w0)s" text)', [])
        for n in range(5):
            image = UUID(bytes=bytes([n]) * 16)
            connection.execute('insert into "prod%%ucts" values (%s, %s, %s, %s)', [f"0{n}", image, n * 10, "it's"])
    cheap = PRODUCTS.c.price < 25
    assert found_by(gallery, crowd, among=select(PRODUCTS.c.sku).where(cheap)) == "abc"
    assert found_by(gallery, crowd, among=select(PRODUCTS.c.image).where(cheap)) == "abc"
    assert found_by(gallery, crowd, "artist=Monet", among=select(PRODUCTS.c.image).where(cheap)) == "ab"
    listed = select(PRODUCTS.c.sku).where(PRODUCTS.c.sku.in_(["03", "04"]), PRODUCTS.c["odd %(w0)s"] == "it's")
    assert found_by(gallery, crowd, among=listed) == "de"
    assert found_by(gallery, crowd, among=union(listed, select(PRODUCTS.c.sku).where(PRODUCTS.c.price == 0))) == "ade"
    assert found_by(gallery, crowd, among=select(PRODUCTS.c.sku).order_by(PRODUCTS.c.price.desc()).limit(1)) == "e"
    pairs = tuple_(PRODUCTS.c.sku, PRODUCTS.c.price).in_([("01", 10), ("02", 0)])
    assert found_by(gallery, crowd, among=select(PRODUCTS.c.sku).where(pairs)) == "b"
    odd = select(PRODUCTS.c.sku).where(PRODUCTS.c.price == bindparam("my.p%x (1)", value=10))
    assert found_by(gallery, crowd, among=odd) == "b"
    own = select(PRODUCTS.c.sku).where(PRODUCTS.c.price == bindparam("w0", value=10))
    assert found_by(gallery, crowd, "artist=Monet", among=own) == "b"
    assert found_by(gallery, crowd, among=select(func.max(PRODUCTS.c.sku))) == "e"


def test_pages_among_what_a_query_selects_follow_on_each_other(crowd: Crowd, library: Lookalike) -> None:
    files = table("files", column("key", String), schema="lookalike")

    def page(before: str, after: str | None) -> Result:
        # made anew, as in another request
        among = select(files.c.key).where(files.c.key < before)
        return library.search(Embedding(crowd.model, crowd.vectors[0]), limit=40, among=among, after=after)

    first = page("sku-2", None)
    second = page("sku-2", first.after)
    assert len({hit.image_id for hit in (*first, *second)}) == 80
    with pytest.raises(InvalidFilter, match="another search"):
        library.search(Embedding(crowd.model, crowd.vectors[0]), among=crowd.ids[:50], after=first.after)


def test_a_select_that_cannot_be_searched_among_is_explained(gallery: Lookalike, crowd: Crowd) -> None:
    vector = Embedding(crowd.model, crowd.vectors[0])
    for query, what in (
        (select(column("x")).select_from(table("products")), "Uuid"),
        (select(PRODUCTS.c.sku).where(PRODUCTS.c.price == bindparam("missing")), "missing"),
    ):
        with pytest.raises(InvalidFilter, match=what):
            gallery.search(vector, among=query)
    with pytest.raises(InvalidFilter, match="no_such_table"):
        gallery.search(vector, among=select(func.max(text("sku"), type_=String)).select_from(text("no_such_table")))


# -- thresholds and pages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [None, "chance<0.5", "chance<0.02"])
def test_a_threshold_only_leaves_hits_out(crowd: Crowd, library: Lookalike, where: str | None) -> None:
    for query in queries(crowd, 3):
        vector = Embedding(crowd.model, query)
        everything = library.search(vector, limit=30, where=where)
        edge = everything[11].similarity
        found = library.search(vector, limit=30, where=where, min_similarity=edge)
        assert found.hits == everything.hits[:12]
        assert (found.exact, found.completed, found.after) == (everything.exact, everything.completed, None)
        none = library.search(vector, limit=30, where=where, min_similarity=0.9999)
        assert (len(none), none.completed) == (0, everything.completed)


@pytest.mark.parametrize("where", [None, "chance<0.6", "chance<0.02"])
@pytest.mark.parametrize("exact", [True, None])
def test_pages_follow_on_each_other(crowd: Crowd, library: Lookalike, where: str | None, exact: bool | None) -> None:
    vector = Embedding(crowd.model, queries(crowd, 3)[1])
    pages, after = [], None
    for _ in range(5):
        page = library.search(vector, limit=40, where=where, exact=exact, after=after)
        pages.append([(hit.similarity, hit.image_id) for hit in page])
        if (after := page.after) is None:
            break
    everything = [hit for page in pages for hit in page]
    assert len(set(everything)) == len(everything)
    assert everything == sorted(everything, key=lambda hit: (-hit[0], hit[1]))
    if where == "chance<0.02":
        assert [len(page) for page in pages] == [40, 40, 40, 0]
    else:
        at_once = {hit.image_id for hit in library.search(vector, limit=200, where=where, exact=exact)}
        assert len(at_once & {image_id for _, image_id in everything}) >= (200 if exact else 190)


def test_pages_to_the_end_show_everything_once(crowd: Crowd, library: Lookalike) -> None:
    """Also what the walks of the first pages have missed, and although the first copies lie among the rest."""
    vector = Embedding(crowd.model, crowd.vectors[3])
    shown: list[UUID] = []
    after = None
    kinds = set()
    for limit in (60, 60, 60, *[950] * 10):
        page = library.search(vector, limit=limit, after=after)
        shown += [hit.image_id for hit in page]
        kinds.add(page.exact)
        if (after := page.after) is None:
            break
    assert len(shown) == len(set(shown)) == len(crowd.ids)
    assert kinds == {True, False}


def test_pages_stay_as_they_are_while_images_are_added(gallery: Lookalike, crowd: Crowd, dsn: str) -> None:
    vector = Embedding(crowd.model, crowd.vectors[0])
    before = [hit.image_id for hit in gallery.search(vector)]
    first = gallery.search(vector, limit=2)
    with Database(dsn) as database:
        new = []
        for n in range(100, 120):
            content = Content(bytes([n]) * 32, "image/jpeg", 9, 9, 9)
            near = crowd.vectors[0] + 0.01 * n * crowd.vectors[7]
            new.append(NewFile(Place(f"file:///new/{n}.jpg"), content.image_id, content, Embedding(crowd.model, near)))
        write_files(database, crowd.model, new)
    second = gallery.search(vector, limit=100, after=first.after)
    known = [hit.image_id for hit in second if hit.image_id in before]
    assert [*(hit.image_id for hit in first), *known] == before


def test_a_place_belongs_to_its_own_search(crowd: Crowd, library: Lookalike) -> None:
    first = library.search(Embedding(crowd.model, crowd.vectors[0]), limit=2)
    assert first.after is not None
    assert pickle.loads(pickle.dumps(first)).after == first.after
    tokens = ("", "x", "1~2~3~4", f"{first.after}0", f"-{first.after}", first.after.replace("~~", "~nan~x~"), "\0", 5)
    for after in tokens:
        with pytest.raises(InvalidFilter, match="go on after"):
            library.search(Embedding(crowd.model, crowd.vectors[0]), after=after)  # type: ignore[arg-type]
    with pytest.raises(InvalidFilter, match="another search"):
        library.search(Embedding(crowd.model, crowd.vectors[0]), where="chance<0.5", after=first.after)
    with pytest.raises(InvalidFilter, match="another search"):
        library.search(Embedding(crowd.model, crowd.vectors[1]), after=first.after)
    with pytest.raises(InvalidFilter, match="another search"):
        library.similar(crowd.ids[0], after=first.after)
    with pytest.raises(ValueError, match="one query"):
        library.search_many([Embedding(crowd.model, v) for v in crowd.vectors[:2]], after=first.after)


# -- many at once, and the index --------------------------------------------------------------------------------------


def test_many_at_once_find_what_each_finds_alone(crowd: Crowd, library: Lookalike) -> None:
    vectors = [Embedding(crowd.model, query) for query in queries(crowd)]
    every: list[dict[str, Any]] = [
        {},
        {"where": "chance<0.5"},
        {"where": "seven=yes"},
        {"exact": True},
        {"min_similarity": 0.3},
    ]
    for options in every:
        together = library.search_many(vectors, **options)
        assert [result.hits for result in together] == [library.search(v, **options).hits for v in vectors]
    some = crowd.ids[:5]
    together = library.similar_many([*some, "https://crowd.example/00007.jpg", "sku-9"])
    alone = [library.similar(image) for image in (*some, crowd.ids[7], crowd.ids[9])]
    assert [result.hits for result in together] == [result.hits for result in alone]
    assert library.search_many([]) == []


def test_each_form_of_search_uses_the_index_and_leaves_no_setting_behind(crowd: Crowd, library: Lookalike) -> None:
    vector = Embedding(crowd.model, crowd.vectors[0])
    first = library.search(vector)
    forms: list[Callable[[], Result]] = [
        lambda: library.search(vector),
        lambda: library.similar(crowd.ids[5]),
        lambda: library.similar("https://crowd.example/00007.jpg"),
        lambda: library.similar("sku-9"),
        lambda: library.search([Part(vector=vector), Part(image=crowd.ids[3], weight=-0.5)]),
        lambda: library.search(vector, where="chance<0.5"),
        lambda: library.search(vector, min_similarity=0.2),
        lambda: library.search(vector, after=first.after),
        lambda: library.search_many([vector])[0],
        lambda: library.similar_many([crowd.ids[1]])[0],
    ]
    with psycopg.connect(crowd.dsn, autocommit=True) as connection:
        connection.execute("select '[1]'::halfvec")

        def scans() -> dict[str, int]:
            library._database.together([("select pg_stat_force_next_flush()", {})])  # by the connection that searched
            rows = connection.execute(
                "select indexrelname, idx_scan from pg_stat_user_indexes where indexrelname ~ 'hnsw'"
            )
            return {name: count for name, count in rows}

        for number, form in enumerate(forms):
            before = scans()
            assert form().index == "embeddings_1_hnsw", number
            assert scans() == {name: count + 1 for name, count in before.items()}, number
        names = ("enable_seqscan", "enable_sort", "plan_cache_mode")
        statements: list[Statement] = [(f"select current_setting('{name}')", {}) for name in names]
        for name, [(left,)] in zip(names, library._database.together(statements), strict=True):
            assert connection.execute(f"show {name}".encode()).fetchone() == (left,), name


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-25, 1e30])
def test_only_the_direction_of_a_vector_counts(crowd: Crowd, library: Lookalike, scale: float) -> None:
    usual = library.search(Embedding(crowd.model, crowd.vectors[0]), limit=5, exact=True)
    scaled = np.asarray(crowd.vectors[0] * np.float32(scale), np.float32)
    found = library.search(Embedding(crowd.model, scaled), limit=5, exact=True)
    assert [hit.image_id for hit in found] == [hit.image_id for hit in usual]


def test_a_table_of_the_hits(gallery: Lookalike, crowd: Crowd) -> None:
    table = gallery.search(Embedding(crowd.model, crowd.vectors[1]), limit=3).to_pandas()
    assert list(table["rank"]) == [1, 2, 3]
    assert (table["uri"][0], table["artist"][0], table["a.b"][0]) == ("file:///gallery/b.jpg", "Monet", 1)
    assert table["similarity"].is_monotonic_decreasing
    empty = gallery.search(Embedding(crowd.model, crowd.vectors[1]), where="artist=Nobody").to_pandas()
    assert list(empty.columns) == [
        *("rank", "similarity", "uri", "path", "key", "collection", "image_id", "media_type")
    ]
