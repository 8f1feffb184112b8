"""The command line as people and programs meet it: its output and its exit code; every command once as a process."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lookalike.cli import app
from lookalike.emulator import Emulator

from ..conftest import RunCommand, command_environment, draw_pictures
from ..integration.test_ingest import bad_pictures


def azure(emulator: Emulator, key: str = "emulator") -> dict[str, str]:
    return {"VISION_ENDPOINT": emulator.url, "VISION_KEY": key}


def on_terminal(*arguments: str, **variables: str) -> list[str]:
    """The lines that a command prints on a terminal of 80 columns."""
    shown, stdout = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "lookalike", *arguments],
        env=command_environment(**variables, COLUMNS="80", TERM="dumb"),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
    )
    os.close(stdout)
    text = b""
    # Linux says with an error that nobody writes any longer
    with contextlib.suppress(OSError):
        while part := os.read(shown, 65536):
            text += part
    os.close(shown)
    assert done.wait() == 0
    return text.decode().splitlines()


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON document that a command printed, and nothing but it."""
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def assert_explained(done: subprocess.CompletedProcess[str], code: int = 2) -> None:
    """Refused in a line or two, without a traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("lookalike: ")


# -- ingest ----------------------------------------------------------------------------------------------------------


def test_ingest_search_and_the_rest(run: RunCommand, run_process: RunCommand, emulator: Emulator, photos: Path) -> None:
    first = run_process("ingest", photos, "--json", **azure(emulator))
    assert first.returncode == 0, first.stderr
    report = document(first)
    assert {name: report[name] for name in ("model", "found", "embedded", "unchanged", "failed", "calls")} == {
        "model": "azure-vision/2023-04-15",
        "found": 20,
        "embedded": 20,
        "unchanged": 0,
        "failed": 0,
        "calls": 20,
    }
    again = document(run("ingest", photos, "--json", **azure(emulator)))
    assert (again["unchanged"], again["calls"]) == (20, 0)

    path = sorted(photos.iterdir())[0]
    found = document(run_process("similar", path, "--limit", "3", "--json"))
    assert found["model"] == "azure-vision/2023-04-15"
    assert set(found) >= {"model", "query", "hits", "exact", "index", "ef_search", "completed"}
    assert len(found["hits"]) == 3
    assert set(found["hits"][0]) >= {"image_id", "uri", "similarity", "key", "metadata", "files"}
    assert set(found["hits"][0]["files"][0]) >= {"uri", "key", "collection", "metadata"}
    by_id = document(run("similar", found["hits"][0]["image_id"], "--include-self", "-n", "1", "--json"))
    assert by_id["hits"][0]["uri"] == found["hits"][0]["uri"]

    lines = run_process("search", "a blue house", "-n", "4", **azure(emulator)).stdout.splitlines()
    assert len(lines) == 4
    assert all(re.fullmatch(r"-?0\.\d{4}\tphotos/picture-0-\d{3}\.jpg", line) for line in lines)
    assert document(run("search", "a blue house", "--exact", "--json"))["exact"] is True

    vector = json.loads(run_process("embed", path).stdout)
    assert len(vector) == 1024
    assert document(run("embed", "a blue house", "--json"))["dimensions"] == 1024
    assert float(run_process("similarity", path, path).stdout) == pytest.approx(1)
    assert document(run("similarity", path, "a blue house", "--json"))["model"] == "azure-vision/2023-04-15"
    assert emulator.stats()["billed"] == 21

    status = document(run_process("status", "--json"))
    assert (status["images"], status["files"], status["models"][0]["embedded"]) == (20, 20, 20)
    assert "20 images in 20 files" in run("status").stdout
    assert document(run("models", "list", "--json"))["models"][0]["state"] == "active"
    assert "azure-vision/2023-04-15" in run_process("models", "list").stdout


def test_one_thing_is_not_called_several(run: RunCommand, emulator: Emulator, tmp_path: Path) -> None:
    draw_pictures(tmp_path / "one", 1)
    (tmp_path / "one" / "notes.txt").write_text("no picture")
    commands = (
        ("ingest", tmp_path / "one", "--dry-run"),
        ("ingest", tmp_path / "one"),
        ("status",),
        ("failures",),
        ("query", "add", "a house"),
        ("query", "add", "a house"),
        ("search", "a house", "--copy-to", "found"),
        ("index", "build"),
        ("index", "recall"),
        ("export", "one.npz"),
        ("import", "one.npz"),
        ("delete", next((tmp_path / "one").glob("*.jpg"))),
    )
    said = ""
    for command in commands:
        done = run(*command, **azure(emulator))
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    several = (
        r"\b1 (were|are|more are|((stored|earlier) )?(files|images|embeddings|calls|texts|vectors|rows|pictures))\b"
    )
    assert not re.search(several, said), said
    for singular in ("1 call ", "1 image in 1 file", "1 more is no picture", "1 row of 1 image", "1 file deleted"):
        assert singular in said


def test_bad_pictures_are_exit_code_1_once(
    run: RunCommand, run_process: RunCommand, emulator: Emulator, photos: Path
) -> None:
    expected = bad_pictures(photos)
    first = run_process("ingest", photos, **azure(emulator))
    assert first.returncode == 1
    assert f"{len(expected)} failed ({len(expected)} new)" in first.stdout
    assert "lookalike failures" in first.stderr

    failures = document(run_process("failures", "--json"))["failures"]
    assert {Path(failure["uri"]).name: failure["code"] for failure in failures} == expected
    keys = {"uri", "model", "collection", "stage", "code", "message", "retryable", "attempts"}
    assert all(keys <= set(failure) for failure in failures)
    shown = run("failures").stdout
    assert all(code in shown for code in expected.values())

    assert "under azure-vision" not in shown

    assert run("ingest", photos, **azure(emulator)).returncode == 0
    assert emulator.stats()["billed"] == 20

    # the same file, once more: listed so that the two can be told apart
    run("ingest", photos, "--collection", "shop", "--model", "azure-vision/2022-04-11", **azure(emulator))
    shown = run("failures").stdout
    for place in ("azure-vision/2023-04-15; in the collection default", "2022-04-11; in the collection shop"):
        assert shown.count(place) == len(expected)


def test_a_wrong_key_is_two_lines_that_do_not_show_it(
    run: RunCommand, run_process: RunCommand, emulator: Emulator, photos: Path
) -> None:
    done = run_process("ingest", photos, **azure(emulator, "hush-hush-secret"))
    assert_explained(done)
    assert "VISION_KEY" in done.stderr
    assert "hush-hush" not in done.stderr + done.stdout
    assert len(done.stderr.strip().splitlines()) <= 3
    assert document(run("status", "--json"))["models"] == []


def test_a_run_that_stops_reports_what_was_done(run: RunCommand, photos: Path) -> None:
    with Emulator(faults={"wrong-model": 1}) as emulator:
        done = run("ingest", photos, "--json", **azure(emulator))
    assert_explained(done)
    report = document(done)
    assert (report["embedded"], report["pending"]) == (0, 20)
    assert "2023-04-15" in report["stopped"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_in_good_order(
    dsn: str,
    run: RunCommand,
    photos: Path,
    number: int,
    code: int,
    eventually: Callable[[Callable[[], bool]], None],
) -> None:
    with Emulator(latency_ms=150) as emulator:
        variables = {"LOOKALIKE_DATABASE_URL": dsn, **azure(emulator)}
        process = subprocess.Popen(
            [sys.executable, "-m", "lookalike", "ingest", str(photos), "--concurrency", "1", "--json"],
            env=command_environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        eventually(lambda: emulator.stats()["billed"] >= 2)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)
        assert process.returncode == code, stderr
        assert "Run the same command again" in stderr
        report = json.loads(stdout)
        assert report["stopped"]
        assert 0 < report["embedded"] == report["calls"] == emulator.stats()["billed"] < 20
        assert "Traceback" not in stderr

        rest = document(run("ingest", photos, "--json", **azure(emulator)))
        assert rest["embedded"] + report["embedded"] == 20
        assert emulator.stats()["billed"] == 20


def test_ctrl_c_while_the_program_is_still_read_shows_no_traceback() -> None:
    while_reading = """
        import os, signal, sys
        import lookalike_command

        class Interrupting:
            def find_spec(self, name, path=None, target=None):
                if name == "lookalike.store":
                    os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.meta_path.insert(0, Interrupting())
        sys.argv = ["lookalike", "--version"]
        lookalike_command.main()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(while_reading)],
        env=command_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "lookalike: interrupted\n")


def forget_the_dead(dsn: str) -> None:
    """Whoever was killed loses its claims in a second, and not in as many as it had asked for."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "update lookalike.claims set expires_at = least(expires_at, clock_timestamp() + interval '1 second')"
        )


def test_killed_again_and_again_it_pays_for_little_twice(
    dsn: str, run: RunCommand, tmp_path: Path, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    folder = tmp_path / "photos"
    draw_pictures(folder, 80)
    in_flight, kills = 4, 4
    # a call takes longer than a commit, also on a busy machine: what comes back during one is what was in flight
    with Emulator(latency_ms=150) as emulator:
        variables = {"LOOKALIKE_DATABASE_URL": dsn, "VISION_RATE": "5000", **azure(emulator)}
        for kill in range(1, kills + 1):
            process = subprocess.Popen(
                [sys.executable, "-m", "lookalike", "ingest", str(folder), "--concurrency", str(in_flight)],
                env=command_environment(**variables),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            eventually(lambda kill=kill: emulator.stats()["billed"] >= 13 * kill)  # type: ignore[misc]
            process.kill()
            process.wait()
        forget_the_dead(dsn)
        assert document(run("ingest", folder, "--json", **azure(emulator)))["failed"] == 0
        assert document(run("status", "--json"))["models"][0]["embedded"] == 80
        # what was under way, and what had come back while the last commit was being made
        assert emulator.stats()["billed"] <= 80 + kills * (in_flight + in_flight)


# -- what is refused, and how ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (["ingest", "nowhere"], {}, "nowhere"),
        (["search", "x"], {}, "lookalike ingest"),
        (["similar", "nowhere.jpg"], {}, "lookalike ingest"),
        (["ingest", "."], {}, "VISION_ENDPOINT"),
        (["ingest", "."], {"VISION_ENDPOINT": "nonsense", "VISION_KEY": "k"}, "VISION_ENDPOINT"),
        (["ingest", ".", "--model", "nonsense"], {}, "provider/version"),
        (["ingest", ".", "--model", "nobody/1"], {}, "azure-vision"),
        (["ingest", ".", "--model", "azure-vision/latest"], {}, "latest"),
        (["ingest", ".", "--model", "azure-vision/2023"], {"VISION_ENDPOINT": "https://x", "VISION_KEY": "k"}, "2023"),
        (["status"], {"LOOKALIKE_DATABASE_URL": "mysql://x:hidden@y/z"}, "not PostgreSQL"),
        (["status"], {"LOOKALIKE_DATABASE_URL": "postgresql://x:hidden@127.0.0.1:1/z"}, "LOOKALIKE_DATABASE_URL"),
        (["status"], {"LOOKALIKE_DATABASE_URL": ""}, "LOOKALIKE_HOME"),
        (["ingest", "."], {"VISION_RATE": "fast"}, "VISION_RATE"),
        (["emulator", "--fault", "gremlins=1"], {}, "truncated-json"),
        (["emulator", "--recordings", "nowhere.npz"], {}, "nowhere.npz"),
        (["db", "start"], {}, "yours"),
    ],
)
def test_refusals_say_what_to_do(
    run: RunCommand, arguments: list[str], variables: dict[str, str], message: str
) -> None:
    done = run(*arguments, **variables)
    assert_explained(done)
    assert message in done.stderr
    assert "hidden" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [["serach", "x"], ["search"], ["search", "x", "--limit", "0"], ["search", "x", "--limt", "3"], ["ingest"]],
)
def test_a_mistyped_command_shows_its_usage(run: RunCommand, arguments: list[str]) -> None:
    assert_usage_shown(run(*arguments))


def assert_usage_shown(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 2
    assert "Usage:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_that_refuses_says_why_and_no_more(run_process: RunCommand) -> None:
    assert_usage_shown(run_process("serach", "x"))
    refused = run_process("status", LOOKALIKE_DATABASE_URL="postgresql://x:hidden@127.0.0.1:1/z")
    assert_explained(refused)
    assert "hidden" not in refused.stderr
    assert refused.stdout == ""


def test_whoever_stops_reading_gets_no_complaint(dsn: str, run: RunCommand, emulator: Emulator, photos: Path) -> None:
    run("ingest", photos, **azure(emulator))
    command = f"{sys.executable} -m lookalike embed {next(photos.iterdir())} --json | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command],
        env=command_environment(LOOKALIKE_DATABASE_URL=dsn),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_every_command_and_option_has_help() -> None:
    import typer

    def walk(command: Any, path: str) -> None:
        assert command.help, path
        for parameter in command.params:
            if parameter.name != "help":
                assert getattr(parameter, "help", None), f"{path} {parameter.name}"
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{path} {name}")

    walk(typer.main.get_command(app), "lookalike")


def test_version_and_help(run_process: RunCommand) -> None:
    assert re.fullmatch(r"lookalike \d+\.\d+\.\d+\n", run_process("--version").stdout)
    assert "lookalike demo" in run_process("--help").stdout


# -- databases -------------------------------------------------------------------------------------------------------


def test_a_server_of_ones_own_is_upgraded_by_command(
    run: RunCommand, run_process: RunCommand, make_database: Callable[[], str]
) -> None:
    dsn = make_database()
    refused = run_process("status", LOOKALIKE_DATABASE_URL=dsn)
    assert_explained(refused)
    assert "lookalike db upgrade" in refused.stderr

    assert run_process("db", "upgrade", LOOKALIKE_DATABASE_URL=dsn).returncode == 0
    assert run("db", "upgrade", LOOKALIKE_DATABASE_URL=dsn).returncode == 0
    assert run("status", LOOKALIKE_DATABASE_URL=dsn).returncode == 0
    url = run("db", "url", LOOKALIKE_DATABASE_URL=dsn).stdout.strip()
    assert url.startswith("postgresql://")
    assert run("status", LOOKALIKE_DATABASE_URL=url).returncode == 0


def test_the_private_server_by_command(run: RunCommand, run_process: RunCommand, home: Path) -> None:
    variables = {"LOOKALIKE_DATABASE_URL": "", "LOOKALIKE_HOME": str(home)}
    try:
        started = run_process("db", "start", **variables)
        assert started.returncode == 0, started.stderr
        assert str(home) in started.stderr
        url = run_process("db", "url", **variables).stdout.strip()
        assert run("status", LOOKALIKE_DATABASE_URL=url).returncode == 0
    finally:
        assert run_process("db", "stop", **variables).returncode == 0
    assert "No private PostgreSQL runs" in run("db", "stop", **variables).stderr
    assert_explained(run("status", LOOKALIKE_DATABASE_URL=url))


def test_doctor_finds_nothing_amiss_or_says_what(
    dsn: str,
    run: RunCommand,
    run_process: RunCommand,
    emulator: Emulator,
    make_database: Callable[[], str],
    photos: Path,
) -> None:
    run("ingest", photos, **azure(emulator))
    well = run_process("doctor", "--json", **azure(emulator))
    assert well.returncode == 0, well.stdout
    amiss = [finding["subject"] for finding in document(well)["findings"] if finding["level"] != "ok"]
    assert amiss == ["server, autovacuum"]  # as the tests' server is set

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("drop index lookalike.embeddings_1_hnsw")
        connection.execute("drop function lookalike.cosine_similarity")
        connection.execute(f"alter database {connection.info.dbname} reset hnsw.iterative_scan".encode())
    ill = run("doctor")
    assert ill.returncode == 2
    assert "lookalike index build --model" in ill.stdout
    assert "alter database" in ill.stdout
    with psycopg.connect(dsn, autocommit=True) as connection:
        for remedy in re.findall(r"(?:run|Run): (.*;)", ill.stdout):
            connection.execute(remedy.encode())
    assert run_process("index", "build").returncode == 0
    assert "lookalike.cosine_similarity not there" in " ".join(ill.stdout.split())
    assert run("db", "upgrade").returncode == 0
    assert document(run("doctor", "--json", **azure(emulator)))["findings"][-2]["level"] == "ok"

    assert run("doctor", LOOKALIKE_DATABASE_URL=make_database()).returncode == 2


def test_what_a_terminal_of_80_columns_shows(dsn: str, run: RunCommand, emulator: Emulator, photos: Path) -> None:
    variables = {"LOOKALIKE_DATABASE_URL": dsn, **azure(emulator)}
    assert "No model has been used yet" in "".join(on_terminal("status", **variables))
    run("ingest", photos, **azure(emulator))

    shown = on_terminal("index", "status", **variables)
    assert max(map(len, shown)) <= 80
    for name in ("azure-vision/2023-04-15", "embeddings_1_hnsw"):
        assert any(name in line.split() for line in shown)
    # to be copied
    assert any(
        re.search(r"database: postgresql://\S+, PostgreSQL", line) for line in on_terminal("doctor", **variables)
    )

    nothing = on_terminal("search", "a house", "--where", "artist exists", **variables)
    assert nothing[:2] == ["a house", "Nothing satisfies this."]
    for command in ("ingest", "delete", "import", "query add", "models backfill", "demo"):
        usage = "".join(on_terminal(*command.split(), "--help")).split("│")[0]
        assert not re.search(r"…|\[\[", usage), usage


# -- the emulator ----------------------------------------------------------------------------------------------------


def test_the_emulator_by_command(tmp_path: Path, photos: Path, run: RunCommand) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lookalike", "emulator", "--port", "0", "--fault", "503=0.2"],
        env=command_environment(),
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        match = re.search(r"VISION_ENDPOINT=(http://127\.0\.0\.1:\d+/) VISION_KEY=emulator", line)
        assert match, line
        report = document(run("ingest", photos, "--json", VISION_ENDPOINT=match[1], VISION_KEY="emulator"))
        assert report["embedded"] == 20
    finally:
        process.terminate()
        rest = process.stderr.read()
        assert process.wait(timeout=10) == 0, rest
        process.stderr.close()
    assert "Traceback" not in rest


def test_scripts_do_what_they_say(dsn: str, emulator: Emulator, photos: Path, tmp_path: Path) -> None:
    scripts = Path(__file__).parents[2] / "scripts"
    (tmp_path / ".env").write_text(f"VISION_ENDPOINT={emulator.url}\nVISION_KEY=emulator\nVISION_RATE=5000\n")

    def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, scripts / name, *arguments],
            env=command_environment(LOOKALIKE_DATABASE_URL=dsn),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    (photos / "bad.jpg").write_text("no picture")
    ingested = script("ingest_folder.py", "photos")
    assert ingested.returncode == 1
    assert "20 embedded, 0 unchanged, 1 failed" in ingested.stdout
    assert "bad.jpg" in ingested.stderr
    assert script("ingest_folder.py", "photos").returncode == 0
    assert len(script("search.py", "a blue house", "--limit", "3").stdout.splitlines()) == 3
    assert "picture-0-" in script("search.py", "--image", str(next(photos.glob("*.jpg")))).stdout
    assert script("search.py", "--image", "nowhere.jpg").returncode == 1
    assert all(len(path.read_text().splitlines()) <= 50 for path in scripts.glob("*.py"))


def test_plain_lines_without_a_terminal(run: RunCommand, emulator: Emulator, photos: Path) -> None:
    done = run("ingest", photos, **azure(emulator))
    assert "\x1b" not in done.stderr + done.stdout
    assert "20 found under azure-vision/2023-04-15: 20 embedded" in done.stdout


def test_a_run_that_does_less_than_one_may_expect_says_so(
    run: RunCommand, emulator: Emulator, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert "no files there" in run("ingest", "empty", **azure(emulator)).stderr
    done = run("ingest", photos, "--model", "local/classic-1")
    assert done.returncode == 0
    assert "does not recognise things" in done.stderr
    assert "--model azure-vision/2023-04-15" in run("ingest", photos, **azure(emulator)).stderr


def test_a_url_leads_inside_only_where_it_is_allowed(run: RunCommand, run_process: RunCommand, photos: Path) -> None:
    run("ingest", photos, "--model", "local/classic-1")
    url = "http://127.0.0.1:9/a.jpg?sig=S3CRET"
    done = run("similar", url, "--model", "local/classic-1")
    assert done.returncode == 2
    assert "--allow-host 127.0.0.1" in done.stderr
    with ThreadPoolExecutor(3) as together:  # they wait for somebody who may yet answer
        allowed = [
            together.submit(run_process, "similar", url, "--model", "local/classic-1", "--allow-host", "127.0.0.1"),
            together.submit(run_process, "similar", url, "--allow-host", "x", "--allow-host", "127.0.0.1:9"),
            together.submit(run_process, "embed", url, LOOKALIKE_ALLOW_HOSTS="x, 127.0.0.1"),
        ]
    for each in allowed:
        done = each.result()
        assert "refused" in done.stderr
        assert "S3CRET" not in done.stdout + done.stderr
