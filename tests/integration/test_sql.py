"""The analysts' functions and views on 20,000 vectors, held against numpy; everything is asked by a reader."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector

from lookalike import Lookalike
from lookalike.store import schema
from lookalike.store.embedded import EmbeddedServer
from lookalike.store.rights import grant

COUNT = 20_000
MODEL, SMALL_MODEL = "test/large", "test/small"
SHARES = {"half": 2, "p5": 20, "p4": 25, "p1": 100, "p01": 1000}
TEXT = "a blue house"
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Big:
    """A database of many vectors that nobody writes to.

    Attributes:
        owner, reader: how to connect as either.
        vectors: the stored halves, (20,000, 1024); of the small model there are the first 2,000 rows of 512 numbers.
        query: what `TEXT` is embedded as.
    """

    owner: str
    reader: str
    ids: Sequence[UUID]
    vectors: npt.NDArray[np.float64]
    query: npt.NDArray[np.float64]

    @functools.cached_property
    def numbers(self) -> dict[UUID, int]:
        """The rows of `vectors` by image."""
        return {image: number for number, image in enumerate(self.ids)}

    @functools.cached_property
    def lengths(self) -> npt.NDArray[np.float64]:
        """Of every vector."""
        return np.asarray(np.linalg.norm(self.vectors, axis=1))

    def similarities(self, query: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of every image to `query`, in the order of `ids`."""
        return np.asarray(self.vectors @ query / (self.lengths * np.linalg.norm(query)))

    def check(self, found: Sequence[tuple[Any, ...]], query: npt.NDArray[np.float64], wanted: Sequence[int]) -> float:
        """Check ids and similarities, best first, of some of the `wanted` images; returns their recall."""
        similarities = self.similarities(query)
        numbers = [self.numbers[row[0]] for row in found]
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) <= set(wanted)
        given = [row[1] for row in found]
        assert np.allclose(given, similarities[numbers], atol=TOLERANCE)
        assert given == sorted(given, reverse=True)
        best = sorted(similarities[list(wanted)], reverse=True)[: len(found)]
        return float(np.mean(np.array(given) >= best[-1] - TOLERANCE)) if found else 1.0


@pytest.fixture(scope="module")
def big(server: EmbeddedServer, template: str) -> Iterator[Big]:
    """20,000 clustered vectors under one model, 2,000 under another; six attributes of the files."""
    name, reader = f"big_{uuid.uuid4().hex}", f"reader_{uuid.uuid4().hex}"
    random = np.random.default_rng(20)
    themes = random.standard_normal((40, 1024), np.float32)
    halves = themes[random.integers(0, 40, COUNT)]
    halves = (halves + np.float32(0.7) * random.standard_normal((COUNT, 1024), np.float32)).astype(np.float16)
    query = (themes[0] + 0.7 * random.standard_normal(1024)).astype(np.float16)
    ids = [UUID(bytes=random.bytes(16)) for _ in range(COUNT)]
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}".encode())
        connection.execute(f"create role {reader} login".encode())
    owner = server.dsn_of(name)
    with psycopg.connect(owner) as connection:
        schema.let_plain_sql_tell_the_truth(connection)
        connection.execute("select lookalike.add_model(%s, 'test', 'large')", [MODEL])
        connection.execute("select lookalike.add_model(%s, 'test', 'small', 512)", [SMALL_MODEL])
        connection.execute("drop index lookalike.embeddings_1_hnsw, lookalike.embeddings_2_hnsw")
        register_vector(connection)
        grant(connection, readers=[reader])
        with connection.cursor().copy("copy lookalike.images (image_id) from stdin") as copy:
            for image in ids:
                copy.write_row((image,))
        with connection.cursor().copy("copy lookalike.files (image_id, uri, key, metadata) from stdin") as copy:
            for number, image in enumerate(ids):
                attributes = {share: number % every == 0 for share, every in SHARES.items()}
                metadata = json.dumps({**attributes, "seven": number < 7, "price": number % 100})
                copy.write_row((image, f"https://pictures.example/{number:05}.jpg", f"sku-{number}", metadata))
            # the attributes of two files of an image do not add up
            copy.write_row((ids[1], "https://pictures.example/again.jpg", None, '{"left": 1, "both": true}'))
            copy.write_row((ids[1], "https://pictures.example/more.jpg", None, '{"right": 1, "both": true}'))
        for model, rows in ((1, halves), (2, np.pad(halves[:2000, :512], ((0, 0), (0, 512))))):
            with connection.cursor().copy(
                f"copy lookalike.embeddings_{model} (image_id, model_id, embedding) from stdin (format binary)".encode()
            ) as copy:
                copy.set_types(["uuid", "int4", "halfvec"])
                for image, row in zip(ids, rows, strict=False):
                    copy.write_row((image, model, HalfVector(row)))
        connection.execute(
            "insert into lookalike.queries (model_id, kind, digest, source, embedding)"
            " values (1, 'text', %s, %s, %s::text::halfvec)",
            [sha256(TEXT.encode()).digest(), TEXT, str(query.tolist())],
        )
        connection.execute("set local maintenance_work_mem = '256MB'")
        for model in (1, 2):
            connection.execute(
                f"create index embeddings_{model}_hnsw on lookalike.embeddings_{model}"
                " using hnsw (embedding halfvec_cosine_ops) with (m = 16, ef_construction = 64)".encode()
            )
        connection.execute("analyze")
    yield Big(owner, f"{owner} user={reader}", ids, halves.astype(np.float64), query.astype(np.float64))
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"drop database {name} with (force)".encode())
        connection.execute(f"drop role {reader}".encode())


@pytest.fixture
def reader(big: Big) -> Iterator[psycopg.Connection]:
    """A reader's own, new connection, in autocommit."""
    with psycopg.connect(big.reader, autocommit=True) as connection:
        yield connection


def rows(connection: psycopg.Connection, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    return connection.execute(statement.encode(), parameters or None).fetchall()


def everybody_but(*left_out: int) -> list[int]:
    return [number for number in range(COUNT) if number not in left_out]


# -- what is found ---------------------------------------------------------------------------------------------------


def test_similar_images_are_the_nearest_ones(big: Big, reader: psycopg.Connection) -> None:
    recalls = []
    for number in (0, 17, 4242, 19_999):
        for exact in (True, None):
            found = rows(
                reader,
                "select * from lookalike.similar_images(%s, 10, exact => %s)",
                *(big.ids[number], exact),
            )
            recall = big.check(found, big.vectors[number], everybody_but(number))
            assert len(found) == 10
            assert exact is None or recall == 1
            recalls.append(recall)
        _, _, uri, key, collection, metadata = found[0]
        nearest = big.numbers[found[0][0]]
        assert (key, collection, metadata["price"]) == (f"sku-{nearest}", "default", nearest % 100)
        assert uri == f"https://pictures.example/{nearest:05}.jpg"
    assert np.mean(recalls) >= 0.95
    itself = rows(reader, "select * from lookalike.similar_images(%s, 1, include_self => true)", big.ids[5])
    assert itself[0][0] == big.ids[5]
    assert itself[0][1] == pytest.approx(1)


@pytest.mark.parametrize("k", [200, 1000])
def test_as_many_rows_as_are_asked_for(big: Big, reader: psycopg.Connection, k: int) -> None:
    for condition in (None, '{"half": true}', '{"p5": true}'):
        wanted = [n for n in everybody_but(0) if condition is None or n % (2 if "half" in condition else 20) == 0]
        found = rows(
            reader, "select * from lookalike.similar_images(%s, %s, filter => %s::jsonb)", big.ids[0], k, condition
        )
        assert len(found) == min(k, len(wanted))
        assert big.check(found, big.vectors[0], wanted) >= 0.95


@pytest.mark.parametrize("share", SHARES)
def test_a_filter_never_costs_rows(big: Big, reader: psycopg.Connection, share: str) -> None:
    recalls = []
    for number in range(1, 9):
        wanted = [n for n in everybody_but(number) if n % SHARES[share] == 0]
        found = rows(
            reader,
            "select * from lookalike.similar_images(%s, 10, filter => %s::jsonb)",
            *(big.ids[number], json.dumps({share: True})),
        )
        assert len(found) == 10
        recalls.append(big.check(found, big.vectors[number], wanted))
    assert np.mean(recalls) >= 0.95


def test_a_filter_that_fits_seven_finds_seven(big: Big, reader: psycopg.Connection) -> None:
    for exact in (None, True, False):
        found = rows(
            reader,
            "select * from lookalike.search_text(%s, 10, filter => '{\"seven\": true}', exact => %s)",
            *(TEXT, exact),
        )
        assert big.check(found, big.query, range(7)) == 1
        assert len(found) == 7


def test_a_filter_is_judged_per_file_and_the_file_that_matched_is_shown(big: Big, reader: psycopg.Connection) -> None:
    def found(condition: str) -> list[str]:
        statement = "select uri from lookalike.similar_images(%s, 5, filter => %s::jsonb)"
        return [row[0] for row in rows(reader, statement, big.ids[0], condition)]

    assert found('{"right": 1}') == ["https://pictures.example/more.jpg"]
    assert found('{"both": true}') == ["https://pictures.example/again.jpg"]
    assert found('{"left": 1, "right": 1}') == []
    assert len(found("{}")) == 5


@pytest.mark.parametrize("count", [3, 900, 9000])
def test_among_a_set_of_images(big: Big, reader: psycopg.Connection, count: int) -> None:
    wanted = list(range(0, 2 * count, 2))
    among = [big.ids[number] for number in wanted] + [None, uuid.uuid4(), big.ids[0]]
    found = rows(reader, "select * from lookalike.similar_images(%s, 10, among => %s::uuid[])", big.ids[1], among)
    assert len(found) == min(10, count)
    assert big.check(found, big.vectors[1], wanted) >= 0.9

    both = [number for number in wanted if number % 20 == 0]
    found = rows(
        reader,
        "select * from lookalike.similar_images(%s, 10, among => %s::uuid[], filter => '{\"p5\": true}')",
        *(big.ids[1], among),
    )
    assert len(found) == min(10, len(both))
    assert big.check(found, big.vectors[1], both) == 1
    assert rows(reader, "select * from lookalike.similar_images(%s, among => '{}')", big.ids[1]) == []


def test_many_images_at_once(big: Big, reader: psycopg.Connection) -> None:
    asked = [big.ids[number] for number in (3, 9, 3)]
    found = rows(
        reader, "select * from lookalike.similar_many(%s::uuid[], 4, filter => '{\"p1\": true}')", [*asked, None]
    )
    one = "select * from lookalike.similar_images(%s, 4, filter => '{\"p1\": true}')"
    expected = [(image, rank, *row) for image in asked for rank, row in enumerate(rows(reader, one, image), start=1)]
    assert found == expected
    assert len(found) == 12


@pytest.mark.parametrize(
    "spelling",
    [
        *("%s", "%s::halfvec", "%s::vector", "%s::real[]", "%s::double precision[]", "%s::numeric[]"),
        "%s::halfvec(1024)",
    ],
)
def test_a_vector_in_any_spelling(big: Big, reader: psycopg.Connection, spelling: str) -> None:
    values = big.query.tolist()
    given = values if spelling.endswith("]") else str(values)
    found = rows(reader, f"select * from lookalike.search_vector({spelling}, '{MODEL}', 5)", given)
    assert found == rows(reader, "select * from lookalike.search_text(%s, 5)", TEXT)
    literal = "'{" + str(values)[1:-1] + "}'" if spelling.endswith("]") else f"'{values}'"
    assert found == rows(
        reader, f"select * from lookalike.search_vector({spelling.replace('%s', literal)}, model => '{MODEL}', k => 5)"
    )


def test_vectors_of_drivers(big: Big, reader: psycopg.Connection) -> None:
    register_vector(reader)
    expected = rows(reader, "select * from lookalike.search_text(%s, 5)", TEXT)
    for value in (Vector(big.query), HalfVector(big.query), big.query.tolist(), big.query.astype(np.float32)):
        assert rows(reader, "select * from lookalike.search_vector(%s, %s, 5)", value, MODEL) == expected


def test_a_model_of_fewer_dimensions(big: Big, reader: psycopg.Connection) -> None:
    own = big.vectors[3, :512]
    similarities = big.vectors[:2000, :512] @ own / np.linalg.norm(big.vectors[:2000, :512], axis=1)
    best = [big.ids[number] for number in np.argsort(-similarities)[:5]]
    for given in (own.tolist(), [*own.tolist(), *[0.0] * 512]):
        found = rows(
            reader,
            "select image_id from lookalike.search_vector(%s::float8[], %s, 5, exact => true)",
            *(given, SMALL_MODEL),
        )
        assert [row[0] for row in found] == best
    found = rows(
        reader,
        "select image_id from lookalike.similar_images(%s, 4, model => %s, exact => true)",
        *(big.ids[3], SMALL_MODEL),
    )
    assert [row[0] for row in found] == best[1:]


def test_two_images_compared(big: Big, reader: psycopg.Connection) -> None:
    ((similarity, vector),) = rows(
        reader,
        "select lookalike.cosine_similarity(%s, %s), lookalike.image_embedding(%s)::real[]",
        *(big.ids[1], big.ids[2], big.ids[1]),
    )
    assert similarity == pytest.approx(big.similarities(big.vectors[1])[2], abs=TOLERANCE)
    assert np.array_equal(np.float32(vector), np.float32(big.vectors[1]))


def test_null_finds_nothing_and_complains_of_nothing(reader: psycopg.Connection) -> None:
    for call in (
        *("similar_images(null)", "similar_many(null)", "similar_many(array[null::uuid])", "search_text(null)"),
        *(f"search_vector(null, '{MODEL}')", f"search_vector(null::halfvec, '{MODEL}')"),
    ):
        assert rows(reader, f"select * from lookalike.{call}") == []
    for call in (
        *("image_embedding(null)", "query_embedding(null)", "known_query(null, null, null)"),
        f"known_query('{MODEL}', 'text', 'x')",
        *("cosine_similarity(null, null)", "cosine_similarity(null, gen_random_uuid())"),
    ):
        assert rows(reader, f"select lookalike.{call}") == [(None,)]


# -- texts -----------------------------------------------------------------------------------------------------------


def test_a_text_is_found_however_it_is_spaced(reader: psycopg.Connection) -> None:
    # whatever Python takes for white space, and so does not count when a text is remembered
    spaces = "".join(character for character in map(chr, range(1, 0x3001)) if character.isspace())
    assert len(spaces) > 20
    for space in spaces:
        spaced = f"{space}a{space}{space}blue house{space}"
        assert " ".join(spaced.split()) == TEXT
        assert rows(reader, "select lookalike.query_embedding(%s) is not null", spaced) == [(True,)], hex(ord(space))
    for other in ("a blue\u200bhouse", "A blue house", "a bluehouse"):
        with pytest.raises(psycopg.Error, match="has no embedding"):
            rows(reader, "select lookalike.query_embedding(%s)", other)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a red house", 'lookalike query add "a red house"'),
        ("it's", 'lookalike query add "it\'s"'),
        ('a "big" house', "lookalike query add 'a \"big\" house'"),
        ("$HOME `x` it's", "lookalike query add '$HOME `x` it'\\''s'"),
        ("100 % %s", 'lookalike query add "100 % %s"'),
    ],
)
def test_a_text_that_nobody_has_embedded(reader: psycopg.Connection, text: str, hint: str) -> None:
    for model, suffix in ((None, ""), (SMALL_MODEL, f" --model {SMALL_MODEL}")):
        with pytest.raises(psycopg.errors.NoDataFound) as caught:
            rows(reader, "select * from lookalike.search_text(%s, model => %s)", text, model)
        assert caught.value.diag.message_hint == f"Run: {hint}{suffix}"


# -- what is refused -------------------------------------------------------------------------------------------------


ONE = "[" + ",".join(["1"] * 1024) + "]"
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("call", "complaint", "hint"),
    [
        (f"search_text('{TEXT}', 0)", "k is 0", "how many"),
        (f"search_text('{TEXT}', null)", "k is null", "how many"),
        (f"search_text('{TEXT}', filter => '[]')", "JSON array, it must be an object", "artist"),
        (f"search_text('{TEXT}', filter => 'null')", "JSON null", "artist"),
        (f"search_text('{TEXT}', model => 'test/none')", 'no model "test/none"', "There are: test/large, test/small."),
        (f"similar_images('{NOBODY}')", "there is no image", "lookalike.library"),
        (f"similar_many(array['{NOBODY}'::uuid])", "there is no image", "lookalike.library"),
        ("search_vector('[1,2,3]', 'test/large')", "3 numbers, a vector of test/large has 1024", "lookalike embed"),
        ("search_vector(array[1,2,3], 'test/small')", "3 numbers, a vector of test/small has 512", "lookalike embed"),
        (f"search_vector('{ONE}', 'test/small')", "more than the 512 numbers", "lookalike embed"),
        (f"search_vector('{ONE.replace('1', '0')}', 'test/large')", "all zero", "length"),
        (f"search_vector('{ONE.replace('[1', '[NaN', 1)}', 'test/large')", "NaN not allowed", None),
        (f"search_vector('{ONE.replace('[1', '[Infinity', 1)}', 'test/large')", "nfinit", None),
        ("search_vector(array[1e9], 'test/large')", "out of range", None),
        ("search_vector('a blue house', 'test/large')", "a vector reads", "search_text"),
        (f"search_vector('{ONE}', null)", "model must be given", "two models"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(
    reader: psycopg.Connection, call: str, complaint: str, hint: str | None
) -> None:
    with pytest.raises(psycopg.Error, match=complaint) as caught:
        rows(reader, f"select * from lookalike.{call}")
    assert hint is None or hint in (caught.value.diag.message_hint or "")


def test_two_models_are_never_compared(big: Big, reader: psycopg.Connection) -> None:
    inside, outside = big.ids[0], big.ids[5000]
    for call in (
        f"lookalike.cosine_similarity('{inside}', '{outside}', '{SMALL_MODEL}')",
        f"lookalike.image_embedding('{outside}', '{SMALL_MODEL}')",
        f"lookalike.similar_images('{outside}', model => '{SMALL_MODEL}')",
    ):
        with pytest.raises(psycopg.errors.DataException, match=f"{MODEL}, not under {SMALL_MODEL}") as caught:
            rows(reader, f"select {call}")
        assert f"backfill {SMALL_MODEL}" in (caught.value.diag.message_hint or "")


# -- plans and settings ----------------------------------------------------------------------------------------------


def scans(connection: psycopg.Connection) -> dict[str, int]:
    """How often each HNSW index was scanned so far."""
    rows(connection, "select pg_stat_force_next_flush()")
    return dict(
        rows(
            connection,
            "select indexrelname, idx_scan from pg_stat_user_indexes where indexrelname like 'embeddings%hnsw'",
        )
    )


@pytest.mark.parametrize(
    "statement",
    [
        "select * from lookalike.similar_images('{image}')",
        "select * from lookalike.similar_images('{image}', 100, filter => '{{\"half\": true}}')",
        "select * from lookalike.similar_images('{image}', filter => '{{\"p4\": true}}', exact => false)",
        "select * from lookalike.similar_many(array['{image}'::uuid])",
        "select * from lookalike.search_text('a blue house')",
        "select * from lookalike.search_vector(lookalike.query_embedding('a blue house'), 'test/large')",
        "select * from lookalike.search_vector(lookalike.image_embedding('{image}')::real[], 'test/large')",
        "select image_id from lookalike.test_large order by embedding <=> lookalike.query_embedding('a blue house')"
        " limit 10",
        "select image_id, 1 - (embedding <=> lookalike.image_embedding('{image}')) from lookalike.active_embeddings"
        " order by embedding <=> lookalike.image_embedding('{image}') limit 10",
        "select image_id from lookalike.test_large"
        " order by embedding <=> (select embedding from lookalike.test_large where image_id = '{image}') limit 10",
    ],
)
def test_one_index_is_scanned_once(big: Big, reader: psycopg.Connection, statement: str) -> None:
    before = scans(reader)
    found = rows(reader, statement.format(image=big.ids[77]))
    assert len(found) in (10, 100)
    after = scans(reader)
    assert {name: after[name] - before[name] for name in after} == {"embeddings_1_hnsw": 1, "embeddings_2_hnsw": 0}


def test_exact_searches_and_selective_ones_leave_the_index_alone(big: Big, reader: psycopg.Connection) -> None:
    before = scans(reader)
    for options in ("exact => true", "filter => '{\"p1\": true}'", f"among => array['{big.ids[9]}'::uuid]"):
        rows(reader, f"select * from lookalike.search_text('{TEXT}', {options})")
    assert scans(reader) == before


OPTIONS = (
    *("hnsw.ef_search", "hnsw.iterative_scan", "hnsw.max_scan_tuples", "hnsw.scan_mem_multiplier"),
    *("enable_seqscan", "enable_sort", "jit", "search_path"),
)


def options(connection: psycopg.Connection) -> list[str]:
    return [rows(connection, f"show {name}")[0][0] for name in OPTIONS]


def test_a_new_session_may_begin_with_any_function_and_keeps_its_settings(big: Big) -> None:
    with psycopg.connect(big.reader, autocommit=True) as connection:
        rows(connection, "select '[1]'::halfvec")
        expected = options(connection)
    for call in (f"similar_images('{big.ids[0]}', 300)", f"search_text('{TEXT}')", "similar_images(null)"):
        with psycopg.connect(big.reader, autocommit=True) as connection:
            rows(connection, f"select * from lookalike.{call}")
            rows(connection, "select '[1]'::halfvec")
            assert options(connection) == expected


def test_the_callers_settings_are_as_before(big: Big, reader: psycopg.Connection) -> None:
    own = ["33", "off", "12345", "3", "off", "off", "on", "public"]
    for scope in ("", "local "):
        with reader.transaction():
            rows(reader, "select '[1]'::halfvec")
            for name, value in zip(OPTIONS, own, strict=True):
                reader.execute(f"set {scope}{name} = {value}".encode())
            before = options(reader)
            assert len(rows(reader, "select * from lookalike.similar_images(%s, 100)", big.ids[0])) == 100
            assert options(reader) == before
            with pytest.raises(psycopg.Error), reader.transaction():
                rows(reader, "select * from lookalike.similar_images(%s, -1)", big.ids[0])
            assert options(reader) == before


# -- in statements of one's own --------------------------------------------------------------------------------------


def test_plain_sql_is_complete(big: Big, reader: psycopg.Connection) -> None:
    query = f"lookalike.image_embedding('{big.ids[8]}')"
    for limit in (200, 1000):
        found = rows(
            reader,
            f"select image_id, 1 - (embedding <=> {query}) from lookalike.test_large"
            f" order by embedding <=> {query} limit {limit}",
        )
        assert len(found) == limit
        similarities = [row[1] for row in found]
        # in the order of the index, whose rounded vectors may swap what is closer than this
        assert np.all(np.diff(similarities) < 2e-4)

    reader.execute("create temporary table products as select key as sku, metadata from lookalike.files")
    reader.execute("create index on products (sku)")
    reader.execute("analyze products")
    for settings in ((), ("enable_seqscan = off", "enable_sort = off")):
        for setting in settings:
            reader.execute(f"set {setting}".encode())
        for share, every in (("p5", 20), ("p1", 100), ("p01", 1000)):
            found = rows(
                reader,
                f"select image_id, 1 - (embedding <=> {query}) from lookalike.test_large"
                " join lookalike.files using (image_id) join products on sku = key"
                f" where products.metadata @> '{{\"{share}\": true}}' order by embedding <=> {query} limit 10",
            )
            assert len(found) == 10, (share, settings)
            assert big.check(found, big.vectors[8], range(0, COUNT, every)) >= 0.9 or settings


def test_lateral_joins_and_the_users_own_tables(big: Big, reader: psycopg.Connection) -> None:
    reader.execute(
        "create temporary table mine as select image_id, key from lookalike.files where metadata @> '{\"p1\": true}'"
    )
    found = rows(
        reader,
        "select image_id, similarity  from lookalike.similar_images(%s, 10, among => array(select image_id from mine))",
        big.ids[1],
    )
    assert len(found) == 10
    assert big.check(found, big.vectors[1], range(0, COUNT, 100)) == 1
    found = rows(
        reader,
        "select m.key, s.image_id from (select * from mine order by key limit 5) m"
        " left join lateral lookalike.similar_images(m.image_id, 3) s on true",
    )
    assert len(found) == 15


def test_materialized_views(big: Big) -> None:
    with psycopg.connect(big.owner, autocommit=True) as connection:
        connection.execute(
            "create materialized view public.neighbours as select query_id, rank, image_id, similarity"
            "  from lookalike.similar_many("
            "       array(select image_id from lookalike.files where metadata @> '{\"p01\": true}'), 3)"
        )
        first = rows(connection, "select * from public.neighbours order by 1, 2")
        connection.execute("refresh materialized view public.neighbours")
        assert rows(connection, "select * from public.neighbours order by 1, 2") == first
        assert len(first) == 60
        connection.execute("drop materialized view public.neighbours")


def test_without_an_index_or_without_files(images: Lookalike, photos: Path, dsn: str) -> None:
    """A missing index costs time and not rows; an image that lies nowhere is not shown."""
    images.ingest(photos)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("delete from lookalike.files where uri like '%-007.jpg'")
        for preparation in ("select 1", "drop index lookalike.embeddings_1_hnsw"):
            connection.execute(preparation.encode())
            for exact in (None, True, False):
                found = rows(
                    connection,
                    "select uri from lookalike.similar_images("
                    "(select image_id from lookalike.files order by uri limit 1), 30, exact => %s)",
                    exact,
                )
                assert len(found) == 18
                assert not [uri for (uri,) in found if uri.endswith("-007.jpg")]
