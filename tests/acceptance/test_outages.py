"""What happens in the middle of a run: the database goes away and comes back, and people lose their patience."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from lookalike.emulator import Emulator
from lookalike.store.database import Database
from lookalike.store.embedded import EmbeddedServer

from ..conftest import draw_pictures
from ..integration.test_ingest import billed
from .test_workers import FIRST, IN_FLIGHT, assert_complete, report_of, start

Eventually = Callable[[Callable[[], bool]], None]


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """A server that may be stopped and killed; its folder has a short path, as sockets want it."""
    with tempfile.TemporaryDirectory(prefix="lookalike-", ignore_cleanup_errors=True) as home:
        server = EmbeddedServer(Path(home), overrides={"fsync": "off"})
        server.start()
        yield server
        server.stop()


@pytest.fixture
def own_dsn(own_server: EmbeddedServer) -> str:
    with psycopg.connect(own_server.dsn, autocommit=True) as connection:
        connection.execute("create database pictures")
    dsn = own_server.dsn_of("pictures")
    with Database(dsn) as database:
        database.upgrade()
    return dsn


def kill(server: EmbeddedServer) -> None:
    os.kill(int((server.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


def test_an_ingest_outlives_restarts_of_the_database(
    own_server: EmbeddedServer, own_dsn: str, tmp_path: Path, eventually: Eventually
) -> None:
    folder, pictures = tmp_path / "photos", 400
    draw_pictures(folder, pictures)
    with Emulator(latency_ms=40) as emulator:
        process = start(own_dsn, emulator, "ingest", folder)

        def until_billed(calls: int) -> None:
            eventually(lambda: billed(emulator) >= calls or process.poll() is not None)
            assert process.poll() is None, process.communicate()

        until_billed(40)
        own_server.stop()
        own_server.start()
        until_billed(140)
        kill(own_server)
        own_server.start()
        until_billed(240)
        own_server.stop()
        time.sleep(5)
        own_server.start()

        report = report_of(process)
        assert (report["found"], report["embedded"]) == (pictures, pictures)
        # what was answered while nothing could be written was kept until it could
        assert report["calls"] == billed(emulator) == pictures
    assert_complete(own_dsn, folder, FIRST)


def test_a_person_who_insists_is_obeyed_at_once(dsn: str, tmp_path: Path, eventually: Eventually) -> None:
    draw_pictures(tmp_path / "photos", 20)
    with Emulator(latency_ms=30_000) as emulator:
        process = start(dsn, emulator, "ingest", tmp_path / "photos")
        eventually(lambda: emulator.stats()["in_flight"] == IN_FLIGHT)
        began = time.monotonic()
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        _, stderr = process.communicate(timeout=10)
        assert time.monotonic() - began < 5
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "once more" in stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_service_makes_everybody_wait(
    dsn: str, tmp_path: Path, eventually: Eventually, number: signal.Signals
) -> None:
    draw_pictures(tmp_path / "photos", 20)
    with Emulator(faults={"429": 1}) as emulator:
        process = start(dsn, emulator, "ingest", tmp_path / "photos")
        eventually(lambda: emulator.stats()["calls"]["vectorizeImage"].get("429", 0) > 3)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=10)
    assert process.returncode == 128 + number, stderr
    assert json.loads(stdout)["pending"] == 20


def test_a_signal_while_the_database_is_away(
    own_server: EmbeddedServer, own_dsn: str, tmp_path: Path, eventually: Eventually
) -> None:
    draw_pictures(tmp_path / "photos", 100)
    with Emulator(latency_ms=40) as emulator:
        process = start(own_dsn, emulator, "ingest", tmp_path / "photos")
        eventually(lambda: billed(emulator) >= 20)
        own_server.stop()
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        own_server.start()
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 143, stderr
        # what was paid for is written as soon as it can be
        report = json.loads(stdout)
        assert report["embedded"] == report["calls"] == billed(emulator) < 100
    with psycopg.connect(own_dsn) as connection:
        assert connection.execute("select count(*) from lookalike.embeddings").fetchone() == (report["embedded"],)
