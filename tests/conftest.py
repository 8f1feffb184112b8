"""A real PostgreSQL and a real emulator for every test that wants one.

One private server per test process; the tables are made once, in a template, and every test gets a clone of it, so
that tests may commit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from unittest import mock
from uuid import UUID

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from PIL import Image, ImageDraw
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from lookalike import Lookalike, Model, Settings
from lookalike.cli import main
from lookalike.config import Secret
from lookalike.embedders import http
from lookalike.emulator import Emulator
from lookalike.store import schema
from lookalike.store.database import Database
from lookalike.store.embedded import EmbeddedServer
from lookalike.store.models import add_model
from lookalike.store.writing import half_vector

REPOSITORY = Path(__file__).resolve().parents[1]
IN_CI = bool(os.environ.get("LOOKALIKE_CI"))
TEMPLATE = "lookalike_template"

_OURS = ("LOOKALIKE_", "VISION_", "DASHSCOPE_", "DATABASE_URL", "PG", "AZURE_", "IDENTITY_", "MSI_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-expected", action="store_true", help="write the files of tests/expected anew")
    parser.addoption("--through-pooler", action="store_true", help="put PgBouncer before the database")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith(_OURS) and name != "LOOKALIKE_CI":
            monkeypatch.delenv(name)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Embedders' waits take no time; they are remembered."""
    waits, passed = list[float](), [0.0]

    def sleep(seconds: float, stop: threading.Event | None) -> None:
        assert stop is None
        if seconds > 0:
            waits.append(seconds)
            passed[0] += seconds + 1e-6

    monkeypatch.setattr(http, "_now", lambda: time.monotonic() + passed[0])
    monkeypatch.setattr(http, "_sleep", sleep)
    return waits


@pytest.fixture
def own_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services' turns of one's own, for ports are used again."""
    monkeypatch.setattr(http, "_buckets", {})


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """A private PostgreSQL for this test process, quick and forgetful."""
    home = Path(tempfile.mkdtemp(prefix="lookalike-tests-"))
    server = EmbeddedServer(home, overrides={"fsync": "off", "shared_buffers": "256MB", "autovacuum": "off"})
    server.start()
    yield server
    server.stop()
    shutil.rmtree(home)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short path, as sockets want it, whose server is stopped at the end.

    Not in pytest's folder, which every further run of pytest shuts to the user that the server runs as.
    """
    with tempfile.TemporaryDirectory(prefix="lookalike-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
        EmbeddedServer(Path(folder)).stop()


@pytest.fixture(scope="session")
def template(server: EmbeddedServer) -> str:
    """A database with this version's tables, to be cloned."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"create database {TEMPLATE}".encode())
    with Database(server.dsn_of(TEMPLATE)) as database:
        database.upgrade()
    return TEMPLATE


class MakeDatabase(Protocol):
    """Makes a database of its own for a test; returns its DSN."""

    def __call__(self, template: str | None = None) -> str: ...


@pytest.fixture
def make_database(server: EmbeddedServer) -> Iterator[MakeDatabase]:
    """Databases that vanish with the test."""
    made = []

    def make(template: str | None = None) -> str:
        name = f"t_{uuid.uuid4().hex}"
        statement = f"create database {name}" + (f" template {template}" if template else "")
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(statement.encode())
            if template is not None:
                # a clone carries the tables, but not the defaults that belong to the database itself
                for parameter in schema.DEFAULTS:
                    connection.execute(schema.default_statement(name, parameter))
        made.append(name)
        return server.dsn_of(name)

    yield make
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for name in made:
            connection.execute(f"drop database {name} with (force)".encode())


@dataclass(frozen=True)
class Crowd:
    """Many made-up vectors in a database that nobody writes to, as photos give them: some themes, and differences.

    Attributes:
        ids: the images, in the order of `vectors`, float16 ``(6000, 1024)`` as they are stored.
        chance: a number from 0 to 1 for each; the files' metadata tell in which share of all files they are.
    """

    dsn: str
    model: Model
    ids: list[UUID]
    vectors: npt.NDArray[np.float32]
    chance: npt.NDArray[np.float64]

    def by_cosine(self, query: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """The cosine similarity of each vector to `query`."""
        a, b = self.vectors.astype(np.float64), query.astype(np.float16).astype(np.float64)
        similarities: npt.NDArray[np.float64] = a @ b / np.linalg.norm(a, axis=1) / np.linalg.norm(b)
        return similarities


@pytest.fixture(scope="session")
def crowd(server: EmbeddedServer, template: str) -> Iterator[Crowd]:
    """6,000 images, searched by their index unless something says otherwise."""
    count = 6000
    random = np.random.default_rng(11)
    themes = random.standard_normal((60, 1024))
    theme = random.integers(0, 60, count)
    vectors = (themes[theme] + 0.8 * random.standard_normal((count, 1024))).astype(np.float16).astype(np.float32)
    chance = random.permutation(count) / count
    model = Model("azure-vision/2023-04-15")
    ids = [UUID(bytes=random.bytes(16)) for _ in range(count)]
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"create database crowd template {template}".encode())
        connection.execute("alter database crowd set hnsw.iterative_scan = 'strict_order'")
    with Database(server.dsn_of("crowd")) as database:
        with database.transaction() as connection:
            add_model(connection, model)
            connection.execute("drop index lookalike.embeddings_1_hnsw")
            with connection.cursor().copy("copy lookalike.images (image_id) from stdin") as copy:
                for image_id in ids:
                    copy.write_row([image_id])
            with connection.cursor().copy("copy lookalike.files (image_id, uri, key, metadata) from stdin") as copy:
                for n, image_id in enumerate(ids):
                    shares = [share for share in (50, 20, 4, 1, 0.1) if chance[n] < share / 100]
                    told = {"n": n, "theme": int(theme[n]), "chance": float(chance[n]), "shares": shares}
                    told |= {"seven": "yes"} if n % 857 == 3 else {}
                    copy.write_row([image_id, f"https://crowd.example/{n:05}.jpg", f"sku-{n}", Jsonb(told)])
            statement = "copy lookalike.embeddings_1 (image_id, model_id, embedding) from stdin (format binary)"
            with connection.cursor().copy(statement) as copy:
                copy.set_types(["uuid", "int4", "halfvec"])
                for image_id, vector in zip(ids, vectors, strict=True):
                    copy.write_row([image_id, 1, half_vector(vector)])
            connection.execute(
                "create index embeddings_1_hnsw on lookalike.embeddings_1 using hnsw (embedding halfvec_cosine_ops)"
            )
        with psycopg.connect(server.dsn_of("crowd"), autocommit=True) as vacuum:
            vacuum.execute("vacuum analyze")
    yield Crowd(server.dsn_of("crowd"), model, ids, vectors, chance)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("drop database crowd with (force)")


@pytest.fixture(scope="module")
def module_dsn(server: EmbeddedServer, template: str) -> Iterator[str]:
    """A database with tables that the tests of a module share."""
    name = f"t_{uuid.uuid4().hex}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}".encode())
        yield server.dsn_of(name)
        connection.execute(f"drop database {name} with (force)".encode())


@pytest.fixture(scope="module")
def module_images(module_dsn: str) -> Iterator[Lookalike]:
    """A library without any service that the tests of a module share."""
    with Lookalike.open(settings_for(module_dsn)) as library:
        yield library


@pytest.fixture
def dsn(make_database: MakeDatabase, template: str) -> str:
    """A database of its own, with tables."""
    return make_database(template)


MakeRole = Callable[[str], str]


@pytest.fixture
def make_role(dsn: str) -> Iterator[MakeRole]:
    """Roles that vanish with the test, with whatever they have in its database."""
    made = []

    def make(beginning: str) -> str:
        name = f"{beginning}_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
        made.append(name)
        return name

    yield make
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("drop owned by {0} cascade; drop role {0}").format(sql.Identifier(name)))


def dsn_as(dsn: str, role: str) -> str:
    """The same database, as somebody else."""
    return make_conninfo(dsn, user=role)


@pytest.fixture
def database(dsn: str) -> Iterator[Database]:
    """A pool over a database of its own."""
    with Database(dsn) as database:
        yield database


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Azure AI Vision, emulated, without faults."""
    with Emulator() as service:
        yield service


@pytest.fixture(scope="session", autouse=True)
def _pooler(request: pytest.FixtureRequest) -> Iterator[None]:
    """PgBouncer in transaction mode between every `Lookalike` and the server, where that is asked for."""
    if not request.config.getoption("--through-pooler"):
        yield
        return
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") or pytest.fail(
        "--through-pooler needs PgBouncer: apt install pgbouncer"
    )
    server: EmbeddedServer = request.getfixturevalue("server")
    place = conninfo_to_dict(server.dsn)
    folder = Path(tempfile.mkdtemp(prefix="lookalike-pooler-"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={place['host']} port={place['port']} user={place['user']}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
        # few, so that two clients often get each other's session
        "pool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 200\n"
    )
    folder.chmod(0o755)
    # it refuses to run as root, and must reach the server's socket
    as_whom = ["-u", Path(str(place["host"])).owner()] if os.geteuid() == 0 else []
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, *as_whom, str(folder / "pgbouncer.ini")], stdout=log, stderr=log)
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        time.sleep(0.05)
    assert process.poll() is None, (folder / "log").read_text()
    _POOLER.append(f"host=127.0.0.1 port={port}")
    yield
    _POOLER.clear()
    process.terminate()
    process.wait(20)
    shutil.rmtree(folder)


_POOLER: list[str] = []


def settings_for(dsn: str, emulator: Emulator | None = None, model: str | None = None) -> Settings:
    """Settings that reach a test's database, emulator and web server, and do not wait for anybody's rate."""
    return Settings(
        database_url=Secret(make_conninfo(dsn, **conninfo_to_dict(_POOLER[0])) if _POOLER else dsn),
        transaction_pooler=bool(_POOLER),
        model=model,
        vision_endpoint=emulator.url if emulator else None,
        vision_key=Secret("emulator") if emulator else None,
        vision_rate=5000.0,
        azure_inference_endpoint=f"{emulator.url}models" if emulator else None,
        azure_inference_credential=Secret("emulator") if emulator else None,
        azure_inference_rate=5000.0,
        dashscope_api_key=Secret("emulator") if emulator else None,
        dashscope_endpoint=f"{emulator.url}api/v1" if emulator else "http://localhost",
        dashscope_rate=5000.0,
        allow_hosts=("127.0.0.1",),
    )


@pytest.fixture
def images(dsn: str, emulator: Emulator) -> Iterator[Lookalike]:
    """An empty library over the emulator."""
    with Lookalike.open(settings_for(dsn, emulator)) as library:
        yield library


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twenty small pictures, no two alike."""
    folder = tmp_path / "photos"
    draw_pictures(folder, 20)
    return folder


def draw_pictures(folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """Draw `count` small JPEGs, no two alike, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        colours = [tuple(int(value) for value in random.integers(0, 256, 3)) for _ in range(4)]
        image = Image.new("RGB", (96, 72), colours[0])
        draw = ImageDraw.Draw(image)
        for colour in colours[1:]:
            x, y, width, height = (int(value) for value in random.integers(5, 60, 4))
            draw.rectangle((x, y, x + width, y + height), fill=colour)
        path = folder / f"picture-{seed}-{number:03}.jpg"
        image.save(path, quality=85)
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def real() -> Path:
    """The real photos and their real vectors, which lie outside the repository."""
    folder = REPOSITORY.parent / "shared" / "real"
    if not (folder / "images").is_dir():
        pytest.skip("the real photos are not here: ../shared/real")
    return folder


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Azure's own storage emulator, without blobs; its connection string."""
    named = os.environ.get("AZURITE")
    local = REPOSITORY / "node_modules" / ".bin" / "azurite-blob"
    program = named or shutil.which("azurite-blob") or (str(local) if local.exists() else None)
    if program is None:
        reason = "azurite-blob is not here: npm install --no-save azurite, or say in AZURITE where it is"
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    folder = tmp_path_factory.mktemp("azurite")
    options = ["--silent", "--location", str(folder), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, *options, "--skipApiVersionCheck"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "azurite-blob does not answer"
                time.sleep(0.1)
        # the account and the key that Azurite has always had
        yield (
            "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT5"
            f"0uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
    finally:
        process.terminate()
        process.wait(20)


class RunCommand(Protocol):
    """Runs ``lookalike`` with arguments, and the file named `stdin` there; extra variables go to its environment."""

    def __call__(
        self, *arguments: str | Path, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]: ...


def command_environment(**variables: str) -> dict[str, str]:
    """The environment of a command: this one's, without anybody's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "COLUMNS": "80", **variables}


@pytest.fixture
def run(dsn: str, tmp_path: Path) -> RunCommand:
    """The command line over the test's database, in this process, for starting Python takes longer than most commands.

    It has streams, an environment, a working directory and manners of logging of its own, and ends by raising what
    makes Python exit. Not for several threads at once.
    """

    def run(*arguments: str | Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        command = ["lookalike", *map(str, arguments)]
        environment = command_environment(**{"LOOKALIKE_DATABASE_URL": dsn, "VISION_RATE": "5000", **variables})
        with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory(prefix="lookalike-said-") as said:
            stdout, stderr = Path(said, "stdout"), Path(said, "stderr")
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            stack.enter_context(contextlib.chdir(tmp_path))
            stack.enter_context(mock.patch.dict(os.environ, environment, clear=True))
            stack.enter_context(_logging_as_it_begins())
            # files, as a process of its own would have them: with a number, and no terminal
            patch.setattr(sys, "stdin", stack.enter_context(open(stdin or os.devnull, encoding="utf-8")))
            patch.setattr(sys, "stdout", stack.enter_context(stdout.open("w", encoding="utf-8")))
            patch.setattr(
                sys, "stderr", stack.enter_context(stderr.open("w", encoding="utf-8", errors="backslashreplace"))
            )
            patch.setattr(sys, "argv", command)
            patch.setattr(http, "_buckets", {})
            with pytest.raises(SystemExit) as ended:
                main()
            sys.stdout.flush()
            sys.stderr.flush()
            code = ended.value.code
            assert isinstance(code, int)
            return subprocess.CompletedProcess(command, code, stdout.read_text("utf-8"), stderr.read_text("utf-8"))

    return run


@contextlib.contextmanager
def _logging_as_it_begins() -> Iterator[None]:
    """No handlers and no levels, and afterwards those that there were."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    for logger in loggers:
        logger.handlers = []
    try:
        yield
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers = handlers


@pytest.fixture
def run_process(dsn: str, tmp_path: Path) -> RunCommand:
    """The command line as people meet it, a process of its own, over the test's database."""

    def run(*arguments: str | Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"LOOKALIKE_DATABASE_URL": dsn, "VISION_RATE": "5000", **variables}
        with open(stdin or os.devnull, "rb") as given:
            return subprocess.run(
                [sys.executable, "-m", "lookalike", *map(str, arguments)],
                env=command_environment(**environment),
                cwd=tmp_path,
                stdin=given,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

    return run


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until something is so, or fails."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "it did not come to pass within 20 seconds"
            time.sleep(0.02)

    return wait
