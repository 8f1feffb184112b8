"""A secret, planted wherever a user can put one, is nowhere afterwards: in no table, log, error or report."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from lookalike import Lookalike, LookalikeError, Settings
from lookalike.emulator import Emulator
from lookalike.pictures import web

from ..conftest import RunCommand, draw_pictures

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


def test_a_planted_secret_is_nowhere(
    dsn: str, run: RunCommand, run_process: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_LONGEST_WAIT", 0.0)  # nobody will ever be there
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
        environment = {
            "LOOKALIKE_DATABASE_URL": f"{dsn} password={SECRET}",
            "VISION_ENDPOINT": emulator.url,
            "VISION_KEY": SECRET,
            "AZURE_STORAGE_ACCOUNT_NAME": "account",
            "AZURE_STORAGE_SAS_TOKEN": SIGNED,
        }

        def tell(start: RunCommand, *arguments: str | Path, stdin: str = "", **variables: str) -> int:
            given = tmp_path / "stdin"
            given.write_text(stdin)
            done = start(*arguments, stdin=str(given), **{**environment, **variables})
            assert "Traceback" not in done.stderr
            said.append(done.stdout + done.stderr)
            return done.returncode

        assert tell(run_process, "ingest", folder, "--metadata", beside, "--json") == 1
        assert tell(run_process, "ingest", table, "--key-column", "sku", "--exif", "-v") in (1, 2)
        assert tell(run_process, "-v", "ingest", "-", stdin="\n".join(NAMES[:5])) == 1
        assert tell(run, "ingest", folder, "--dry-run", "--prune", "--json") == 0
        assert tell(run, "ingest", "-", "--dry-run", stdin="\n".join(NAMES[:5])) == 0
        older = ("--model", "azure-vision/2022-04-11")
        for name, command in itertools.product((NAMES[0], NAMES[4]), ("ingest", "similar", "delete", "search")):
            tell(run, command, name)
        tell(run, "similarity", NAMES[0], "a house")
        tell(run, "ingest", folder, "--metadata", f"https://127.0.0.1:1/a.csv?{SIGNED}")
        tell(run, "ingest", f"https://127.0.0.1:1/a.csv?{SIGNED}")
        tell(run, "ingest", table, "--send-urls", "--retry-failed")
        tell(run, "ingest", folder, *older, VISION_KEY=f"wrong-{SECRET}")
        tell(run, "ingest", folder, *older, VISION_KEY="", VISION_KEY_FILE=str(key))
        tell(run, "ingest", folder, *older, VISION_ENDPOINT=stranger.url)
        tell(run, "ingest", folder, VISION_ENDPOINT=f"https://user:{SECRET}@vision.invalid/")
        tell(run, "ingest", folder, VISION_ENDPOINT=f"{emulator.url}?subscription-key={SECRET}")
        tell(run, "status", LOOKALIKE_DATABASE_URL=f"postgresql://u:{SECRET}@127.0.0.1:1/x?sslpassword={SECRET}")
        tell(run, "ingest", "abfs://photos", AZURE_STORAGE_CONNECTION_STRING=f"AccountName=a;AccountKey={SECRET}")
        for words in (["status"], ["failures"], ["failures", "--json"], ["doctor"]):
            tell(run, *words)
        tell(run, "models", "backfill", "azure-vision/2022-04-11")

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
