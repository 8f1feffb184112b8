"""A secret, planted wherever a user can put one, is nowhere afterwards: in no table, log, error or report."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from lookalike import Lookalike, LookalikeError, Settings
from lookalike.emulator import Emulator

from ..conftest import command_environment, draw_pictures

SECRET = "hunter2secret"
SIGNED = f"se=2030-01-01&sp=r&sv=2024-11-04&sr=b&sig={SECRET}%3D"
AMAZON = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={SECRET}%2F20260101&X-Amz-Signature={SECRET}"

NAMES = (
    f"https://127.0.0.1:1/a.jpg?{SIGNED}",
    f"https://127.0.0.1:1/b.jpg?{AMAZON}",
    f"https://user:{SECRET}@127.0.0.1:1/c.jpg",
    f"https://127.0.0.1/d.jpg?id=4&access_token={SECRET}",
    f"nowhere/g.jpg?{SIGNED}",
    f"abfs://photos@account.dfs.core.windows.net/f.jpg?{SIGNED}",
)
"""Places with a secret in them, where nothing lies that may be read."""


def tables(dsn: str) -> str:
    """Everything that the database holds, as text."""
    with psycopg.connect(dsn) as connection:
        names = connection.execute(
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = 'lookalike' and c.relkind in ('r', 'p', 'v')"
        ).fetchall()
        assert {("files",), ("failures",), ("queries",), ("runs",), ("rates",), ("coverage",)} <= set(names)
        rows = [
            connection.execute(sql.SQL("select t::text from lookalike.{} t").format(sql.Identifier(name))).fetchall()
            for (name,) in names
        ]
    return str(rows)


def test_a_planted_secret_is_nowhere(dsn: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    first, second, *_ = draw_pictures(folder, 6)
    (folder / "damaged.jpg").write_bytes(first.read_bytes()[:300])
    table = tmp_path / "list.csv"
    lines = [f'{name},"{NAMES[0]}",{NAMES[1]}' for name in (*NAMES, str(first))]
    table.write_text("path,sku,source\n" + "\n".join(lines) + f"\n{second},AccountKey={SECRET};,Bearer {SECRET}\n")
    beside = tmp_path / "beside.jsonl"
    beside.write_text(json.dumps({"path": first.name, "origin": {"urls": list(NAMES)}, f"x?sig={SECRET}": 1}) + "\n")
    key = tmp_path / "key"
    key.write_text(SECRET)

    said: list[str] = []
    with Emulator(key=SECRET) as emulator, Emulator(key="another") as stranger:
        environment = command_environment(
            LOOKALIKE_DATABASE_URL=f"{dsn} password={SECRET}",
            VISION_ENDPOINT=emulator.url,
            VISION_KEY=SECRET,
            VISION_RATE="5000",
            AZURE_STORAGE_ACCOUNT_NAME="account",
            AZURE_STORAGE_SAS_TOKEN=SIGNED,
        )

        def run(*arguments: str | Path, stdin: str = "", **variables: str) -> int:
            done = subprocess.run(
                [sys.executable, "-m", "lookalike", *map(str, arguments)],
                env={**environment, **variables},
                cwd=tmp_path,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert "Traceback" not in done.stderr
            said.append(done.stdout + done.stderr)
            return done.returncode

        assert run("ingest", folder, "--metadata", beside, "--json") == 1
        assert run("ingest", table, "--key-column", "sku", "--exif", "-v") in (1, 2)
        assert run("-v", "ingest", "-", stdin="\n".join(NAMES[:5])) == 1
        assert run("ingest", folder, "--dry-run", "--prune", "--json") == 0
        assert run("ingest", "-", "--dry-run", stdin="\n".join(NAMES[:5])) == 0
        older = ("--model", "azure-vision/2022-04-11")
        with ThreadPoolExecutor(4) as together:  # most of them wait

            def later(*arguments: str | Path, **variables: str) -> None:
                started.append(together.submit(run, *arguments, **variables))

            started: list[Future[int]] = []
            for name, command in itertools.product((NAMES[0], NAMES[4]), ("ingest", "similar", "delete", "search")):
                later(command, name)
            later("similarity", NAMES[0], "a house")
            later("ingest", folder, "--metadata", f"https://127.0.0.1:1/a.csv?{SIGNED}")
            later("ingest", f"https://127.0.0.1:1/a.csv?{SIGNED}")
            later("ingest", table, "--send-urls", "--retry-failed")
            later("ingest", folder, *older, VISION_KEY=f"wrong-{SECRET}")
            later("ingest", folder, *older, VISION_KEY="", VISION_KEY_FILE=str(key))
            later("ingest", folder, *older, VISION_ENDPOINT=stranger.url)
            later("ingest", folder, VISION_ENDPOINT=f"https://user:{SECRET}@vision.invalid/")
            later("ingest", folder, VISION_ENDPOINT=f"{emulator.url}?subscription-key={SECRET}")
            later("status", LOOKALIKE_DATABASE_URL=f"postgresql://u:{SECRET}@127.0.0.1:1/x?sslpassword={SECRET}")
            later("ingest", "abfs://photos", AZURE_STORAGE_CONNECTION_STRING=f"AccountName=a;AccountKey={SECRET}")
            for words in (["status"], ["failures"], ["failures", "--json"], ["doctor"]):
                later(*words)
            for one in started:
                one.result()
        run("models", "backfill", "azure-vision/2022-04-11")

    assert len(said) > 25
    for text in said:
        assert SECRET not in text
    stored = tables(dsn)
    assert "127.0.0.1:1/a.jpg" in stored
    assert SECRET not in stored


@pytest.mark.parametrize("name", NAMES)
def test_no_error_of_the_library_holds_it(dsn: str, emulator: Emulator, name: str) -> None:
    settings = Settings.from_environment(
        {
            "LOOKALIKE_DATABASE_URL": dsn,
            "VISION_ENDPOINT": emulator.url,
            "VISION_KEY": "emulator",
            "AZURE_STORAGE_ACCOUNT_NAME": "account",
            "AZURE_STORAGE_ACCOUNT_KEY": SECRET,
        }
    )
    assert SECRET not in repr(settings)
    with Lookalike.open(settings) as images:
        for act in (images.ingest, images.plan, images.similar, images.delete, images.embed):
            try:
                said = repr(act(name))
            except LookalikeError as error:
                said = f"{error} {error!r} {error.report}"
            assert SECRET not in said
        assert SECRET not in repr(images.failures())
