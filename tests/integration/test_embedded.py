"""The private server: started on demand, shared, and surviving whatever is done to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg
import pytest

from lookalike import ConfigurationError, DatabaseError, Lookalike, Settings
from lookalike.store.embedded import EmbeddedServer, tuned_settings

from ..conftest import command_environment

GIB = 1 << 30


def ask(server: EmbeddedServer, question: str) -> object:
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute(question.encode()).fetchone()
        assert row is not None
        return row[0]


def postmaster(server: EmbeddedServer) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def test_it_starts_keeps_its_data_and_stops(home: Path) -> None:
    told: list[str] = []
    server = EmbeddedServer(home, announce=told.append)
    assert not server.running()

    server.start()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("create table kept (n integer)")
    assert str(home) in "".join(told)
    assert server.stop()
    assert not server.running()
    assert not server.stop()

    server.start()
    assert ask(server, "select count(*) from kept") == 0
    assert len([line for line in told if "Made a private PostgreSQL" in line]) == 1


def test_it_listens_on_a_socket_that_only_its_owner_can_reach(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start()
    assert ask(server, "show listen_addresses") == ""
    (folder,) = str(ask(server, "show unix_socket_directories")).split(",")
    assert Path(folder).stat().st_mode & 0o077 == 0
    assert server.data.stat().st_mode & 0o077 == 0


def test_the_configuration_can_be_overridden_and_is_tuned(home: Path) -> None:
    server = EmbeddedServer(home, overrides={"work_mem": "11MB"})
    server.start()
    assert ask(server, "show work_mem") == "11MB"
    assert ask(server, "show random_page_cost") == "1.1"
    assert ask(server, "show jit") == "off"


def test_ones_own_tables_lie_beside_those_of_the_library(home: Path) -> None:
    settings = Settings.from_environment({"LOOKALIKE_HOME": str(home)})
    with Lookalike.open(settings) as images, psycopg.connect(images.place) as connection:
        connection.execute("create table photos as select 1 as number")
        found = connection.execute("select relnamespace::regnamespace::text from pg_class where relname = 'photos'")
        assert found.fetchall() == [("public",)]


def test_settings_follow_the_machine() -> None:
    small, large = tuned_settings(1 * GIB, 1), tuned_settings(64 * GIB, 16)
    assert small["shared_buffers"] == "256MB"
    assert small["max_parallel_maintenance_workers"] == "1"
    assert large["shared_buffers"] == "8192MB"
    assert large["maintenance_work_mem"] == "1024MB"
    assert large["max_parallel_maintenance_workers"] == "16"
    assert tuned_settings(64 << 20, 1)["shared_buffers"] == "64MB"


def test_many_threads_start_one_server(home: Path) -> None:
    servers = [EmbeddedServer(home) for _ in range(6)]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({postmaster(server) for server in servers}) == 1
    assert all(server.running() for server in servers)


def test_a_long_home_gets_its_socket_elsewhere(home: Path) -> None:
    server = EmbeddedServer(home / ("x" * 60) / ("y" * 60))
    server.start()
    assert server.running()
    server.stop()


def test_where_no_socket_fits_a_sentence_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = home / ("z" * 100)
    temporary.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(ConfigurationError, match="Set TMPDIR to a short one"):
        EmbeddedServer(home / ("x" * 60) / ("y" * 60)).start()


def test_a_home_with_odd_characters_works(home: Path) -> None:
    server = EmbeddedServer(home / "it's a 'home' %41 ü")
    server.start()
    assert ask(server, "select 1") == 1
    server.stop()


def test_a_killed_server_is_started_again(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start()
    os.kill(postmaster(server), signal.SIGKILL)
    server.start()
    assert ask(server, "select 1") == 1


def test_a_pid_file_that_names_another_process_is_seen_through(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start()
    server.stop()
    (server.data / "postmaster.pid").write_text(f"{os.getpid()}\n{server.data}\n0\n5432\n\n\n0\nready\n")
    assert not server.running()
    server.start()
    assert server.running()


def test_a_home_that_vanished_is_made_anew(home: Path) -> None:
    import shutil

    server = EmbeddedServer(home / "inner")
    server.start()
    pid = postmaster(server)
    shutil.rmtree(home / "inner")
    assert not server.running()
    server.start()
    assert postmaster(server) != pid
    server.stop()
    os.kill(pid, signal.SIGQUIT)  # the orphan


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start()
    server.stop()
    with (server.data / "postgresql.conf").open("a") as file:
        file.write("\nno_such_setting = 1\n")
    with pytest.raises(DatabaseError, match="no_such_setting"):
        server.start()


def test_a_home_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="LOOKALIKE_HOME"):
        EmbeddedServer(tmp_path / "file" / "home").start()


def test_a_kill_at_any_moment_of_the_first_start_does_no_lasting_harm(
    home: Path,
) -> None:
    command = [sys.executable, "-m", "lookalike", "status", "--json"]
    environment = command_environment(LOOKALIKE_HOME=str(home))
    for delay in (0.3, 0.5, 0.7, 0.9, 1.1, 1.4):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(delay)
        process.kill()
        process.communicate()

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"images": 0' in done.stdout


def test_a_job_without_a_terminal_must_choose() -> None:
    with pytest.raises(ConfigurationError, match=r"LOOKALIKE_DATABASE_URL.*LOOKALIKE_HOME"):
        Lookalike.open(Settings(home=Path("/nowhere"), home_chosen=False, attended=False))


def test_two_processes_share_it(home: Path) -> None:
    environment = command_environment(LOOKALIKE_HOME=str(home))
    command = [sys.executable, "-m", "lookalike", "status"]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    assert EmbeddedServer(home).running()


def test_a_stale_pid_file_is_no_death_sentence_for_a_stranger(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start()
    server.stop()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (server.data / "postmaster.pid").write_text(f"{stranger.pid}\n{server.data}\n0\n5432\n\n\n0\nready\n")
        assert not server.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_another_temporary_folder_finds_the_same_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedServer(home / "with a space")
    server.start()
    (home / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home / "tmp"))
    assert EmbeddedServer(home / "with a space").running()
    server.stop()


def test_a_borrowed_server_stops_with_its_last_borrower(home: Path) -> None:
    server = EmbeddedServer(home)
    with server.borrowed():
        server.start()
        command = [
            *(sys.executable, "-c"),
            "import sys; from pathlib import Path; from lookalike.store.embedded import EmbeddedServer\n"
            "with EmbeddedServer(Path(sys.argv[1])).borrowed(): pass",
            str(home),
        ]
        subprocess.run(command, check=True)
        assert server.running()
    assert not server.running()
