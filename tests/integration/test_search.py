"""Searches, held against numpy."""

from __future__ import annotations

import dataclasses
import functools
import io
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import fsspec
import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from PIL import Image
from psycopg.types.json import Jsonb

from lookalike import ImageNotFound, ItemError, Lookalike, ModelMismatch, Result, field
from lookalike.embedders.azure_vision import LIMITS
from lookalike.emulator import Emulator, expected_vector
from lookalike.pictures.check import check_picture
from lookalike.store.database import Database
from lookalike.store.models import StoredModel, add_model
from lookalike.store.nearest import Ask, nearest, nearest_to_each
from lookalike.store.reading import model_to_search
from lookalike.store.rights import grant
from lookalike.store.round_trip import Statement
from lookalike.store.writing import NewFile, Place, write_files
from lookalike.types import Content, Embedding, Model

from ..conftest import draw_pictures, settings_for

Matrix = npt.NDArray[np.float32]

MODEL = Model("azure-vision/2023-04-15")


def write_vectors(database: Database, vectors: Matrix, model: Model = MODEL) -> list[UUID]:
    """Store made-up vectors under made-up digests; returns their images' ids in order."""
    contents = [Content(np.random.default_rng(n).bytes(32), "image/jpeg", 9, 9, 9) for n in range(len(vectors))]
    files = [
        NewFile(Place(f"https://pictures.example/{n}.jpg"), content.image_id, content, Embedding(model, vector))
        for n, (content, vector) in enumerate(zip(contents, vectors, strict=True))
    ]
    for start in range(0, len(files), 500):
        write_files(database, model, files[start : start + 500])
    return [content.image_id for content in contents]


def clustered(count: int, seed: int = 0) -> Matrix:
    """Vectors as photos give them: some themes, and differences within each."""
    random = np.random.default_rng(seed)
    themes = random.standard_normal((40, 1024))
    found = themes[random.integers(0, 40, count)] + 0.7 * random.standard_normal((count, 1024))
    return found.astype(np.float16).astype(np.float32)


def many_vectors(database: Database) -> tuple[Matrix, list[UUID], StoredModel]:
    """Store as many as are searched by their index; returns them, their images' ids, and their model."""
    vectors = clustered(3000)
    ids = write_vectors(database, vectors)
    stored = model_to_search(database, None)
    assert stored is not None
    return vectors, ids, stored


def by_cosine(vectors: Matrix, query: Matrix) -> npt.NDArray[np.float64]:
    a, b = vectors.astype(np.float64), query.astype(np.float64)
    similarities: npt.NDArray[np.float64] = a @ b / np.linalg.norm(a, axis=1) / np.linalg.norm(b)
    return similarities


@pytest.fixture
def filled(images: Lookalike, photos: Path) -> Lookalike:
    images.ingest(photos)
    return images


# -- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [None, True, False])
def test_the_nearest_are_numpys_nearest(database: Database, exact: bool | None) -> None:
    vectors = clustered(400)
    ids = write_vectors(database, vectors)
    stored = model_to_search(database, MODEL.name)
    assert stored is not None
    for number in range(0, 400, 40):
        similarities = by_cosine(vectors, vectors[number])
        expected = np.argsort(-similarities, kind="stable")[:10]
        found = nearest(database, stored, vectors[number], limit=10, exact=exact)
        assert [hit.image_id for hit in found.hits] == [ids[n] for n in expected]
        np.testing.assert_allclose([hit.similarity for hit in found.hits], similarities[expected], atol=5e-4)
        assert found.exact is (exact is not False)
        assert found.index == ("embeddings_1_hnsw" if exact is False else None)


@pytest.mark.parametrize("limit", [1, 41, 150, 399, 400, 2000])
def test_as_many_come_back_as_exist(database: Database, limit: int) -> None:
    write_vectors(database, clustered(400))
    stored = model_to_search(database, None)
    assert stored is not None
    found = nearest(database, stored, clustered(1, seed=5)[0], limit=limit, exact=False)
    assert len(found.hits) == min(limit, 400)
    similarities = [hit.similarity for hit in found.hits]
    assert similarities == sorted(similarities, reverse=True)


def test_a_large_library_is_searched_by_its_index(database: Database) -> None:
    vectors, ids, stored = many_vectors(database)
    with database.transaction() as connection:
        before = connection.execute(
            "select idx_scan from pg_stat_user_indexes where indexrelname = 'embeddings_1_hnsw'"
        )
        scans = before.fetchone()
    hits = recalled = 0
    noise = np.random.default_rng(7).standard_normal((30, 1024)).astype(np.float32)
    for query in vectors[::100] + 0.5 * noise:
        found = nearest(database, stored, query, limit=10)
        assert not found.exact
        assert found.index == stored.index
        expected = {ids[n] for n in np.argsort(-by_cosine(vectors, query))[:10]}
        recalled += len(expected & {hit.image_id for hit in found.hits})
        hits += 10
    assert recalled / hits >= 0.95
    database.together([("select pg_stat_force_next_flush()", {})])  # by the connection that searched
    with database.transaction() as connection:
        after = connection.execute("select idx_scan from pg_stat_user_indexes where indexrelname = 'embeddings_1_hnsw'")
        assert after.fetchone() != scans


@pytest.mark.parametrize(("orphans", "completed"), [(5, False), (30, True)])
def test_images_without_files_take_nobodys_place(database: Database, orphans: int, completed: bool) -> None:
    vectors, ids, stored = many_vectors(database)
    order = np.argsort(-by_cosine(vectors, vectors[7]), kind="stable")
    with database.transaction() as connection:
        connection.execute("delete from lookalike.files where image_id = any(%s)", [[ids[n] for n in order[:orphans]]])
    found = nearest(database, stored, vectors[7], limit=10)
    assert (found.exact, found.completed, found.index) == (completed, completed, stored.index)
    assert [hit.image_id for hit in found.hits] == [ids[n] for n in order[orphans : orphans + 10]]


def test_a_walk_goes_on_past_what_was_deleted(database: Database) -> None:
    vectors, ids, stored = many_vectors(database)
    order = np.argsort(-by_cosine(vectors, vectors[7]), kind="stable")
    with database.transaction() as connection:
        gone = [ids[n] for n in order[:150]]  # more than a walk keeps candidates
        connection.execute("delete from lookalike.embeddings where image_id = any(%s)", [gone])
    found = nearest(database, stored, vectors[7], limit=10)
    assert (found.exact, found.completed) == (False, False)
    expected = {ids[n] for n in order[150:160]}
    assert len(found.hits) == 10
    assert len(expected & {hit.image_id for hit in found.hits}) >= 8


def test_a_filter_that_kept_few_may_keep_many_by_now(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, ids, stored = many_vectors(database)
    some = ids[::150]
    with database.transaction() as connection:
        connection.execute(
            """update lookalike.files set metadata = '{"year": 1900}' where image_id = any(%s)""", [some]
        )
    asked: list[str] = []
    together = database.together

    def noted(statements: Sequence[Statement], *options: Any) -> Any:
        asked.extend(text for text, _ in statements)
        return together(statements, *options)

    monkeypatch.setattr(database, "together", noted)

    def found() -> Result:
        asked.clear()
        [result] = nearest_to_each(database, stored, [Ask(vectors[7])], limit=10, where=field("year") < 1950)
        return result

    first = found()
    whole = list(asked)
    second = found()
    assert (len(asked), len(whole)) == (1, 1)
    assert ["sample" in text for text in (*whole, *asked)] == [True, False]  # which is for those that are not known yet
    similarities = by_cosine(vectors[::150], vectors[7])
    expected = [some[n] for n in np.argsort(-similarities, kind="stable")[:10]]
    for result in (first, second):
        assert (result.exact, result.completed) == (True, False)
        assert [hit.image_id for hit in result.hits] == expected
    with database.transaction() as connection:
        connection.execute("""update lookalike.files set metadata = '{"year": 1900}'""")
    nearest_of_all = {ids[n] for n in np.argsort(-by_cosine(vectors, vectors[7]), kind="stable")[:10]}
    for round_trips in (2, 1):
        result = found()
        assert len(asked) == round_trips
        assert (result.exact, result.index) == (False, stored.index)
        assert len(nearest_of_all & {hit.image_id for hit in result.hits}) >= 8


def test_a_missing_index_means_an_exact_search(database: Database) -> None:
    vectors = clustered(50)
    write_vectors(database, vectors)
    with database.transaction() as connection:
        connection.execute("drop index lookalike.embeddings_1_hnsw")
    stored = model_to_search(database, None)
    assert stored is not None
    found = nearest(database, stored, vectors[0], limit=5, exact=False)
    assert (found.exact, found.index, len(found.hits)) == (True, None, 5)


def test_the_scan_options_of_a_search_do_not_stay(database: Database) -> None:
    write_vectors(database, clustered(50))
    stored = model_to_search(database, None)
    assert stored is not None
    names = ("hnsw.ef_search", "hnsw.max_scan_tuples", "enable_seqscan", "enable_sort", "plan_cache_mode")
    statements: list[Statement] = [(f"select current_setting('{name}'), pg_backend_pid()", {}) for name in names]

    def shown() -> list[list[tuple[Any, ...]]]:
        return [list(rows) for rows in database.together(statements)]

    before = shown()
    nearest(database, stored, clustered(1)[0], limit=5, exact=False, ef_search=77)
    assert shown() == before  # of the same connection
    nearest(database, stored, clustered(1)[0], limit=40_000, exact=False)
    assert shown() == before


def test_the_pool_gets_its_connections_back_as_they_were(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    write_vectors(database, clustered(50))
    stored = model_to_search(database, None)
    assert stored is not None
    monkeypatch.setattr("lookalike.store.database._KEPT_AT_HAND", 0)
    settings = "select current_setting('enable_seqscan'), current_setting('hnsw.ef_search'), pg_backend_pid()"

    def shown() -> Any:
        with database.transaction() as connection:
            return connection.execute(settings).fetchone()

    before = shown()
    nearest(database, stored, clustered(1)[0], limit=5, exact=False, ef_search=77)
    assert shown() == before


def test_numbers_in_metadata_of_any_length(database: Database) -> None:
    told = {"long": 2**70 + 1, "digits": "1" * 30, "fraction": 0.1234567890123456789, "short": 7}
    vectors = clustered(1)
    write_vectors(database, vectors)
    with database.transaction() as connection:
        connection.execute("update lookalike.files set metadata = %s", [Jsonb(told)])
    stored = model_to_search(database, None)
    assert stored is not None
    assert nearest(database, stored, vectors[0], limit=1).hits[0].metadata == told


def test_connections_and_statements_that_were_lost_meanwhile(database: Database) -> None:
    vectors = clustered(200)
    write_vectors(database, vectors)
    stored = model_to_search(database, None)
    assert stored is not None
    found = nearest(database, stored, vectors[0], limit=5, exact=False)
    database.together([("deallocate all", {})])
    assert nearest(database, stored, vectors[0], limit=5, exact=False).hits == found.hits

    many = [Ask(vector) for vector in vectors]
    together = nearest_to_each(database, stored, many, limit=5, exact=False)  # over several connections
    assert [result.hits[0].similarity > 0.999 for result in together] == [True] * len(many)
    with database.session() as connection:
        lost = connection.execute(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        ).fetchone()
    assert lost is not None
    assert lost[0] > 2
    time.sleep(0.25)
    assert nearest_to_each(database, stored, many, limit=5, exact=False)[0].hits == found.hits


def test_equal_distances_come_in_the_order_of_their_ids(database: Database) -> None:
    one = clustered(1)[0]
    ids = write_vectors(database, np.stack([one] * 20))
    stored = model_to_search(database, None)
    assert stored is not None
    found = nearest(database, stored, one, limit=20, exact=True)
    assert [hit.image_id for hit in found.hits] == sorted(ids)


def test_a_model_of_fewer_numbers_is_padded(database: Database) -> None:
    small = Model("4th-test/small", 256)  # whose view begins with a digit
    random = np.random.default_rng(3).standard_normal((20, 256)).astype(np.float32)
    ids = write_vectors(database, random, small)
    stored = model_to_search(database, "4th-test/small")
    assert stored is not None
    assert stored.model.dimensions == 256
    found = nearest(database, stored, random[3], limit=5)
    expected = np.argsort(-by_cosine(random, random[3]))[:5]
    assert [hit.image_id for hit in found.hits] == [ids[n] for n in expected]


def test_a_model_whose_length_changed_is_refused(database: Database) -> None:
    with database.transaction() as connection:
        add_model(connection, Model("test/small", 256))
    with database.transaction() as connection, pytest.raises(ModelMismatch, match="other dimensions"):
        add_model(connection, Model("test/small", 512))


# -- what one can search with ----------------------------------------------------------------------------------------


def test_every_form_of_a_stored_picture_finds_the_same_for_nothing(
    filled: Lookalike, emulator: Emulator, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sorted(photos.iterdir())[3]
    before = emulator.stats()["billed"]
    by_path = filled.similar(path)
    itself = filled.similar(path, include_self=True)[0]
    monkeypatch.chdir(photos)
    others = [
        filled.similar(path.name),
        filled.similar(str(path)),
        filled.similar(path.read_bytes()),
        filled.similar(path.as_uri()),
        filled.similar(itself.image_id),
        filled.similar(str(itself.image_id)),
        filled.search(image=path),
    ]
    path.unlink()
    others.append(filled.similar(path))

    assert itself.path == path
    assert itself.similarity == pytest.approx(1.0, abs=1e-6)
    assert all(hit.image_id != itself.image_id for hit in by_path)
    assert len(by_path) == 10
    for other in others:
        assert [hit.image_id for hit in other] == [hit.image_id for hit in by_path]
    assert emulator.stats()["billed"] == before


def test_a_new_picture_is_sent_once(filled: Lookalike, emulator: Emulator, tmp_path: Path) -> None:
    (fresh,) = draw_pictures(tmp_path / "fresh", 1, seed=9)
    first, second = filled.similar(fresh), filled.similar(fresh.read_bytes())
    assert [hit.image_id for hit in first] == [hit.image_id for hit in second]
    assert emulator.stats()["billed"] == 21
    assert filled.status().images == 20


def test_a_query_picture_is_sent_as_the_model_takes_it(filled: Lookalike, emulator: Emulator) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((60, 40), 90).convert("CMYK").save(buffer, "TIFF")
    data = buffer.getvalue()
    sent = check_picture(data, LIMITS).data
    found = filled.similar(data)
    assert filled.similar(data).hits == found.hits
    assert emulator.stats()["billed"] == 21
    assert filled.similar(sent).hits == found.hits
    assert emulator.stats()["billed"] == 22


def test_a_text_is_sent_once(filled: Lookalike, emulator: Emulator) -> None:
    first = filled.search("a blue house")
    again = filled.search("  a blue\thouse ")
    assert [hit.image_id for hit in first] == [hit.image_id for hit in again]
    assert emulator.stats()["calls"]["vectorizeText"] == {"200": 1}
    vector = filled.embed("a blue house").vector
    np.testing.assert_array_equal(vector, expected_vector("a blue house", "2023-04-15").astype(np.float16))
    assert emulator.stats()["calls"]["vectorizeText"] == {"200": 1}


@pytest.fixture
def web(photos: Path) -> Iterator[str]:
    """The photos on a web server; its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(photos)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_url_is_fetched_and_known_by_its_bytes(filled: Lookalike, emulator: Emulator, photos: Path, web: str) -> None:
    path = sorted(photos.iterdir())[3]
    found = filled.similar(f"{web}/{path.name}?sig=secret")
    assert [hit.image_id for hit in found] == [hit.image_id for hit in filled.similar(path)]
    assert emulator.stats()["billed"] == 20


def test_a_url_that_is_none_is_explained_without_its_signature(filled: Lookalike, web: str) -> None:
    for url in (f"{web}/none.jpg?sig=secret", "http://127.0.0.1:1/x.jpg?sig=secret", "https://?sig=secret"):
        with pytest.raises(ImageNotFound) as caught:
            filled.similar(url)
        assert "secret" not in str(caught.value)


def test_a_url_may_not_lead_inside_unless_it_is_allowed(
    filled: Lookalike, dsn: str, emulator: Emulator, web: str, photos: Path
) -> None:
    filled.similar(url := f"{web}/{sorted(photos.iterdir())[3].name}?sig=secret")
    with Lookalike.open(dataclasses.replace(settings_for(dsn, emulator), allow_hosts=())) as strict:
        for inside in (url, "http://169.254.169.254/metadata?sig=secret", url.replace("127.0.0.1", "localhost")):
            with pytest.raises(ItemError, match="--allow-host") as caught:
                strict.similar(inside)
            assert caught.value.code == "forbidden-address"
            assert "secret" not in str(caught.value)


def test_a_query_is_remembered_without_its_secrets(
    filled: Lookalike, dsn: str, web: str, photos: Path, emulator: Emulator
) -> None:
    (fresh,) = draw_pictures(photos, 1, seed=9)
    found = filled.similar(f"{web.replace('//', '//user:secret@')}/{fresh.name}?id=1&sv=1&sig=secret#secret")
    assert found.query == f"{web}/{fresh.name}?id=1"
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select q::text from lookalike.queries q").fetchall()
    assert any(f"{web}/{fresh.name}?id=1" in row[0] for row in rows)
    assert not any("secret" in row[0] for row in rows)
    assert emulator.stats()["billed"] == 21


def test_a_query_may_lie_in_an_object_store(filled: Lookalike, photos: Path) -> None:
    path = sorted(photos.iterdir())[3]
    fsspec.filesystem("memory").pipe_file("/queries/a.jpg", path.read_bytes())
    found = filled.similar("memory://queries/a.jpg")
    assert [hit.image_id for hit in found] == [hit.image_id for hit in filled.similar(path)]
    assert filled.embed("memory://queries/a.jpg").similarity(filled.embed(path)) > 0.999
    with pytest.raises(ImageNotFound, match="not there"):
        filled.similar("memory://queries/none.jpg")


@pytest.mark.parametrize("missing", ["no-such-file.jpg", str(UUID(int=7)), UUID(int=7), "file:///no/such.jpg"])
def test_what_is_not_there_is_explained(filled: Lookalike, missing: str | UUID) -> None:
    with pytest.raises(ImageNotFound, match="There is no"):
        filled.similar(missing)


def test_a_bad_query_picture_is_refused_before_a_call(filled: Lookalike, emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    with pytest.raises(ItemError, match="no picture"):
        filled.similar(tmp_path / "bad.jpg")
    assert emulator.stats()["billed"] == 20


def test_a_text_that_is_too_long_is_refused_before_a_call(filled: Lookalike, emulator: Emulator) -> None:
    with pytest.raises(ItemError, match="70"):
        filled.search("word " * 71)
    assert "vectorizeText" not in [name for name, n in emulator.stats()["calls"].items() if n]


def test_searching_before_anything_is_embedded_costs_nothing(images: Lookalike, emulator: Emulator) -> None:
    with pytest.raises(ImageNotFound, match="lookalike ingest"):
        images.search("a blue house")
    assert emulator.stats()["billed"] == 0


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(filled: Lookalike, limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        filled.search("a blue house", limit=limit)


def test_either_a_text_or_an_image(filled: Lookalike) -> None:
    with pytest.raises(ValueError, match="either"):
        filled.search()
    with pytest.raises(ValueError, match="either"):
        filled.search("text", image=b"image")


# -- models ----------------------------------------------------------------------------------------------------------


def test_a_search_sees_its_own_model_only(dsn: str, emulator: Emulator, photos: Path) -> None:
    with Lookalike.open(settings_for(dsn, emulator)) as images:
        images.ingest(photos, model="azure-vision/2022-04-11")
        some = sorted(photos.iterdir())[:5]
        images.ingest(*some, model="azure-vision/2023-04-15")

        assert images.search("x").model == "azure-vision/2022-04-11"
        assert len(images.search("x", limit=50)) == 20
        found = images.search("x", limit=50, model="azure-vision/2023-04-15")
        assert {hit.path for hit in found} == set(some)
        missing = next(hit.image_id for hit in images.search("x", limit=50) if hit.path not in some)
        with pytest.raises(ImageNotFound, match=r"no embedding under azure-vision/2023-04-15"):
            images.similar(missing, model="azure-vision/2023-04-15")


def test_a_vector_of_another_model_is_refused_before_any_sql(filled: Lookalike) -> None:
    other = Embedding(Model("azure-vision/2022-04-11"), clustered(1)[0])
    filled._database.engine.dispose()
    with pytest.raises(ModelMismatch) as caught:
        filled.search(other, model=MODEL.name)
    assert (caught.value.expected, caught.value.found) == (MODEL.name, "azure-vision/2022-04-11")
    assert filled._database.engine.pool.checkedin() == 0  # type: ignore[attr-defined]


def test_similarity_of_texts_and_pictures(filled: Lookalike, photos: Path) -> None:
    path = sorted(photos.iterdir())[0]
    assert filled.similarity(path, path) == pytest.approx(1)
    a, b = filled.embed("a blue house"), filled.embed(path)
    expected = float(by_cosine(a.vector[None], b.vector)[0])
    assert filled.similarity("a blue house", str(path)) == pytest.approx(expected, abs=1e-6)
    assert a.vector.dtype == np.float32
    assert (a.vector.shape, a.model) == ((1024,), MODEL)


def test_two_embeddings_of_two_models_are_not_compared() -> None:
    a = Embedding(Model("a/1"), clustered(1)[0])
    with pytest.raises(ModelMismatch):
        a.similarity(Embedding(Model("a/2"), a.vector))


def test_many_threads_share_one_library(filled: Lookalike, photos: Path) -> None:
    paths = sorted(photos.iterdir())
    alone = [[hit.image_id for hit in filled.similar(path)] for path in paths]
    together: dict[int, list[UUID]] = {}

    def look(number: int) -> None:
        together[number] = [hit.image_id for hit in filled.similar(paths[number])]

    threads = [threading.Thread(target=look, args=(number,)) for number in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(len(paths))] == alone


@pytest.mark.usefixtures("filled")
def test_a_reader_without_the_right_to_write_can_still_search(dsn: str, emulator: Emulator) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        role = f"reader_{connection.info.dbname}"
        connection.execute(f"create role {role} login".encode())
        grant(connection, readers=[role])
    try:
        with Lookalike.open(settings_for(f"{dsn} user={role}", emulator)) as images:
            assert len(images.search("a blue house")) == 10
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"drop owned by {role}".encode())
            connection.execute(f"drop role {role}".encode())


def test_the_signature_of_a_url_is_kept_nowhere(filled: Lookalike, web: str, photos: Path, dsn: str) -> None:
    draw_pictures(photos, 1, seed=77)
    result = filled.similar(f"{web}/picture-77-000.jpg?sv=1&sig=TOPSECRET")
    assert "TOPSECRET" not in result.query
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select source from lookalike.queries").fetchall()
    assert rows == [(f"{web}/picture-77-000.jpg",)]


def test_a_long_text_is_a_text(filled: Lookalike, emulator: Emulator) -> None:
    text = "antidisestablishmentarianism " * 12
    assert filled.embed(text).vector.shape == (1024,)
    assert emulator.stats()["calls"]["vectorizeText"] == {"200": 1}
    with pytest.raises(ItemError, match="characters"):
        filled.search("\udcff")


def test_a_mistyped_file_is_no_text_to_pay_for(filled: Lookalike, emulator: Emulator) -> None:
    for name in ("holidy.jpg", "photos/nope.PNG"):
        with pytest.raises(ImageNotFound, match="There is no file"):
            filled.embed(name)
    assert emulator.stats()["billed"] == 20


def test_a_limit_beyond_all_bounds(filled: Lookalike) -> None:
    for exact in (True, False):
        assert len(filled.search("x", limit=1 << 62, exact=exact)) == 20
