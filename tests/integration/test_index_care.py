"""Indexes that are looked at, built beside searches, repaired after a kill, and measured against numpy."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from uuid import UUID

import numpy as np
import psycopg
import pytest

from lookalike import BuildProgress, ConfigurationError, DatabaseError, ImageNotFound, IndexBuild, Lookalike
from lookalike.store.database import Database
from lookalike.store.index import build_index, bytes_of, graph_bytes
from lookalike.store.models import StoredModel
from lookalike.store.nearest import nearest
from lookalike.store.reading import model_to_search
from lookalike.store.writing import remember_query
from lookalike.types import Embedding

from ..conftest import RunCommand, command_environment
from .test_ingest import rows
from .test_search import Matrix, by_cosine, clustered

MODEL = "elsewhere/clustered-1"
COUNT = 3300
INDEX = "embeddings_1_hnsw"

Eventually = Callable[[Callable[[], bool]], None]


@pytest.fixture(scope="module")
def vectors() -> Matrix:
    return clustered(COUNT)


@pytest.fixture(scope="module")
def library(module_images: Lookalike, vectors: Matrix, tmp_path_factory: pytest.TempPathFactory) -> Lookalike:
    """Some thousand vectors with an index."""
    path = tmp_path_factory.mktemp("vectors") / "x.npz"
    uris = np.array([f"https://pictures.example/{n}.jpg" for n in range(COUNT)])
    digests = np.array([sha256(uri.encode()).hexdigest() for uri in uris])
    np.savez(path, uri=uris, vectors=vectors.astype(np.float16), sha256=digests, model=np.array(MODEL))
    report = module_images.import_vectors(path)
    assert (report.embedded, report.index) == (COUNT, "rebuilt")
    assert module_images.import_vectors(path).index == "kept"
    return module_images


@pytest.fixture
def pool(library: Lookalike, module_dsn: str) -> Iterator[Database]:  # noqa: ARG001
    with Database(module_dsn) as database:
        yield database


def rooms(pool: Database) -> StoredModel:
    found = model_to_search(pool, MODEL)
    assert found is not None
    return found


def indexes(dsn: str) -> list[tuple[str, bool]]:
    return rows(
        dsn,
        "select relname, indisvalid from pg_index join pg_class c on c.oid = indexrelid"
        " where relname like 'embeddings_1_hnsw%' order by 1",
    )


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(statement.encode())


@contextlib.contextmanager
def held(dsn: str, statement: str) -> Iterator[psycopg.Connection]:
    """Somebody's transaction that stays open."""
    with psycopg.connect(dsn) as connection:
        connection.execute(statement.encode())
        yield connection


# -- what there is ---------------------------------------------------------------------------------------------------


def test_the_state_of_an_index(library: Lookalike, pool: Database, vectors: Matrix) -> None:
    (before,) = library.index.status()
    assert (before.model, before.index, before.state, before.rows) == (MODEL, INDEX, "valid", COUNT)
    assert (before.left_overs, before.build, before.fits) == ((), None, True)
    assert before.index_bytes > COUNT * 2048
    assert before.table_bytes > COUNT * 2048
    nearest(pool, rooms(pool), vectors[0], limit=10, exact=False)
    pool.together([("select pg_stat_force_next_flush()", {})])  # by the connection that searched
    assert library.index.status(MODEL)[0].scans == before.scans + 1
    with pytest.raises(ImageNotFound):
        library.index.status("elsewhere/unknown-1")


def test_recall_agrees_with_numpy(library: Lookalike, pool: Database, vectors: Matrix) -> None:
    found = library.index.recall(MODEL, queries=40, ef_search=(15, 100), seed=3)
    assert len(found.images) == 40
    again = library.index.recall(MODEL, queries=20, ef_search=(15,), seed=3)
    assert again.images == found.images[:20]
    ids = [UUID(bytes=sha256(f"https://pictures.example/{n}.jpg".encode()).digest()[:16]) for n in range(COUNT)]
    numbers = {image_id: number for number, image_id in enumerate(ids)}
    for measured in found.recall:
        shares = []
        for image_id in found.images:
            number = numbers[image_id]
            similarities = by_cosine(vectors, vectors[number])
            similarities[number] = -2
            exact = set(np.argsort(-similarities, kind="stable")[:10])
            hits = nearest(
                pool,
                rooms(pool),
                vectors[number],
                limit=10,
                exact=False,
                ef_search=measured.ef_search,
                leave_out=image_id,
            )
            shares.append(len(exact & {numbers[hit.image_id] for hit in hits}) / 10)
        assert abs(measured.recall - float(np.mean(shares))) <= 0.005
    assert found.recall[1].recall >= 0.95
    assert found.default_ef_search >= 100


def test_recall_asks_what_was_asked_before(library: Lookalike, pool: Database, vectors: Matrix) -> None:
    model = rooms(pool).model
    for number in range(3):
        digest = sha256(bytes([number])).digest()
        remember_query(pool, "text", digest, f"a text {number}", Embedding(model, vectors[number] + 0.1))
    found = library.index.recall(MODEL, queries=10, ef_search=(100,))
    assert sorted(found.texts) == ["a text 0", "a text 1", "a text 2"]
    assert (len(found.images), found.pictures) == (7, ())
    assert library.index.recall(MODEL, queries=10, ef_search=(100,), seed=1).images != found.images
    execute(pool.url, "delete from lookalike.queries")
    with pytest.raises(ValueError, match="1000"):
        library.index.recall(MODEL, ef_search=(0,))


# -- building --------------------------------------------------------------------------------------------------------


def test_building_replaces_what_is_there_while_somebody_reads(
    library: Lookalike, module_dsn: str, eventually: Eventually
) -> None:
    before = rows(module_dsn, f"select oid from pg_class where relname = '{INDEX}'")
    done: list[IndexBuild] = []
    with held(module_dsn, "select count(*) from lookalike.embeddings_1") as reader:
        reader.execute("lock table lookalike.embeddings_1 in access share mode")
        build = threading.Thread(target=lambda: done.append(library.index.build(MODEL)))
        build.start()
        # complete, but the old one is being read
        eventually(lambda: (f"{INDEX}_new", True) in indexes(module_dsn))
        assert (INDEX, True) in indexes(module_dsn)
    build.join()
    (built,) = done
    assert (built.was, built.rows, built.stopped, built.fits, built.removed) == ("valid", COUNT, None, True, ())
    assert indexes(module_dsn) == [(INDEX, True)]
    assert rows(module_dsn, f"select oid from pg_class where relname = '{INDEX}'") != before


def test_a_build_shows_itself_keeps_others_out_and_can_be_cancelled(library: Lookalike, module_dsn: str) -> None:
    stop, seen, refused = threading.Event(), [], []

    def progress(found: BuildProgress) -> None:
        seen.append(found)
        if "waiting" in found.phase and not stop.is_set():
            (status,) = library.index.status(MODEL)
            assert status.state == "valid"
            assert status.build is not None
            assert status.left_overs == ()
            with pytest.raises(DatabaseError, match="somebody else") as caught:
                library.index.build(MODEL)
            refused.append(caught.value)
            stop.set()
            blocker.commit()

    with held(module_dsn, "lock table lookalike.embeddings_1 in row exclusive mode") as blocker:
        built = library.index.build(MODEL, progress=progress, stop=stop)
    assert built.stopped == "interrupted"
    assert seen
    assert refused
    assert indexes(module_dsn) == [(INDEX, True)]


def build_in_vain(library: Lookalike) -> None:
    with pytest.raises(DatabaseError):
        library.index.build(MODEL)


def test_what_killed_builds_leave_behind_is_found_and_replaced(
    library: Lookalike, module_dsn: str, eventually: Eventually
) -> None:
    with held(module_dsn, "lock table lookalike.embeddings_1 in row exclusive mode"):
        build = threading.Thread(target=build_in_vain, args=(library,))
        build.start()
        eventually(lambda: (f"{INDEX}_new", False) in indexes(module_dsn))
        rows(module_dsn, "select pg_terminate_backend(pid) from pg_stat_progress_create_index")
        build.join()
    execute(module_dsn, f"alter index lookalike.{INDEX} rename to {INDEX}_ccold")
    (status,) = library.index.status(MODEL)
    assert (status.state, status.left_overs) == ("missing", (f"{INDEX}_ccold", f"{INDEX}_new"))
    with pytest.raises(DatabaseError, match="index build"):
        library.index.recall(MODEL)
    built = library.index.build(MODEL, workers=0)
    assert (built.was, built.removed, built.workers) == ("missing", (f"{INDEX}_ccold", f"{INDEX}_new"), 0)
    assert indexes(module_dsn) == [(INDEX, True)]


def test_a_client_that_is_killed_leaves_nothing_that_the_next_build_does_not_mend(
    library: Lookalike, module_dsn: str, eventually: Eventually
) -> None:
    command = [sys.executable, "-m", "lookalike", "index", "build", "--model", MODEL]
    environment = command_environment(LOOKALIKE_DATABASE_URL=module_dsn)
    with (
        held(module_dsn, "lock table lookalike.embeddings_1 in row exclusive mode"),
        subprocess.Popen(command, env=environment) as process,
    ):
        eventually(lambda: (f"{INDEX}_new", False) in indexes(module_dsn))
        process.send_signal(signal.SIGKILL)
    # the server may complete what nobody waits for any more
    eventually(lambda: rows(module_dsn, "select pid from pg_stat_progress_create_index") == [])
    eventually(lambda: rows(module_dsn, "select pid from pg_locks where locktype = 'advisory'") == [])
    assert library.index.build(MODEL).stopped is None
    assert indexes(module_dsn) == [(INDEX, True)]


def test_too_little_memory_is_said_and_too_little_shared_memory_is_done_without(
    library: Lookalike, pool: Database, module_dsn: str
) -> None:
    small = library.index.build(MODEL, memory=bytes_of("4 MB"))
    assert not small.fits
    assert any("4 MB" in note for note in small.notes)
    if rows(module_dsn, "show dynamic_shared_memory_type") != [("posix",)]:
        pytest.skip("shared memory lies on the disk here")
    alone = build_index(pool, rooms(pool), memory=bytes_of("2047GB"), workers=2, options=("m=8", "ef_construction=32"))
    assert (alone.workers, alone.fits) == (0, True)
    assert any("/dev/shm" in note for note in alone.notes)
    # and what it was built with stays
    library.index.build(MODEL)
    assert rows(module_dsn, f"select reloptions from pg_class where relname = '{INDEX}'") == [
        (["m=8", "ef_construction=32"],)
    ]
    build_index(pool, rooms(pool), options=("m=16", "ef_construction=64"))


def test_sizes(library: Lookalike) -> None:  # noqa: ARG001
    assert [bytes_of(text) for text in ("1MB", "512 mb", "1.5GB")] == [1 << 20, 512 << 20, 1536 << 20]
    for text in ("", "4", "lots", "-1GB", "1kB", "4000TB"):
        with pytest.raises(ConfigurationError, match="--memory"):
            bytes_of(text)
    # measured: 12,141 fit into 32 MiB, 24,273 into 64 MiB
    assert graph_bytes(24_273) > 64 << 20
    assert graph_bytes(24_273) < 80 << 20


def test_behind_a_pooler_nothing_is_built(library: Lookalike, module_dsn: str) -> None:  # noqa: ARG001
    with Database(module_dsn, transaction_pooler=True) as pooled, pytest.raises(ConfigurationError, match="pooler"):
        build_index(pooled, rooms(pooled))


@pytest.mark.usefixtures("library")
def test_the_commands(module_dsn: str, run: RunCommand, run_process: RunCommand) -> None:
    variables = {"LOOKALIKE_DATABASE_URL": module_dsn}
    (status,) = json.loads(run_process("index", "status", "--json", **variables).stdout)["indexes"]
    assert (status["model"], status["state"], status["left_overs"]) == (MODEL, "valid", [])
    recall = json.loads(
        run_process("index", "recall", "--queries", "5", "--ef-search", "40,200", "--json", **variables).stdout
    )
    assert [one["ef_search"] for one in recall["recall"]] == [40, 200]
    assert len(recall["images"]) + len(recall["texts"]) == 5
    refused = run("index", "recall", "--ef-search", "0", **variables)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("lookalike: --ef-search")
    execute(module_dsn, f"drop index lookalike.{INDEX}")
    missing = run("index", "recall", **variables)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "lookalike index build" in missing.stderr
    shown = run("index", "status", **variables)
    assert INDEX in shown.stdout
    assert "the index is missing" in shown.stdout
    built = json.loads(run("index", "build", "--json", **variables).stdout)
    assert (built["was"], built["rows"], built["stopped"]) == ("missing", COUNT, None)
