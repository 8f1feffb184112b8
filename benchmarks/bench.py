"""What the chapters of one run share: the size, a folder that vanishes, the photos, a library of them, servers."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Self

import psycopg

from benchmarks.photos import Photos
from lookalike import Lookalike, Settings
from lookalike.config import Secret
from lookalike.store.database import Database
from lookalike.store.embedded import EmbeddedServer

SIZE = 50_000
"""How many vectors there are where ``BENCH_N`` does not say otherwise."""

_HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")


class Bench:
    """One run of the benchmarks. Leave it, and its servers have stopped and its files are gone.

    Args:
        count: how many vectors the chapters work with.
    """

    def __init__(self, count: int = SIZE) -> None:
        self.count = count
        self._cleaning = contextlib.ExitStack()
        self._versions: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleaning.close()

    def say(self, message: str) -> None:
        """Tell the person who waits how far it is."""
        print(f"  {time.strftime('%H:%M:%S')}  {message}", file=sys.stderr, flush=True)

    @cached_property
    def folder(self) -> Path:
        """A folder that is gone after the run."""
        folder = Path(tempfile.mkdtemp(prefix="lookalike-bench-"))
        self._cleaning.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    @cached_property
    def photos(self) -> Photos:
        """The vectors that chapters share."""
        return Photos(self.count, self.folder, queries=min(400, max(20, self.count // 20)))

    def seconds(self, usual: float) -> float:
        """How long to measure a rate: as long as usual, but not in a trial run over few vectors."""
        return usual if self.count >= 5_000 else usual / 50

    @contextlib.contextmanager
    def server(self, overrides: Mapping[str, str] | None = None) -> Iterator[EmbeddedServer]:
        """A private PostgreSQL without any data, tuned to the machine but for `overrides`; it is gone afterwards.

        It gets the huge pages that ``lookalike doctor`` asks for where this process may set them aside, as root may.
        """
        home = Path(tempfile.mkdtemp(prefix="server-", dir=self.folder))
        server = EmbeddedServer(home, overrides=overrides)
        set_aside = 0
        try:
            server.start()
            if set_aside := _set_aside_huge_pages(server):
                server.stop()
                server.start()
            if overrides is None:
                self._versions = _versions(server)
            yield server
        finally:
            server.stop()
            if set_aside:
                _HUGE_PAGES.write_text(str(int(_HUGE_PAGES.read_text()) - set_aside))
            shutil.rmtree(home, ignore_errors=True)

    @cached_property
    def library(self) -> Lookalike:
        """A library of all `photos` on a private server, with its index; chapters only read it."""
        return self._cleaning.enter_context(self.filled(self._cleaning.enter_context(self.server())))

    @contextlib.contextmanager
    def filled(self, server: EmbeddedServer) -> Iterator[Lookalike]:
        """A library of all `photos` on this server, with its index."""
        with new_library(server) as images:
            self.say(f"importing {self.count:,} photos, to be searched")
            images.import_vectors(self.photos.npz())
            if images.index.status()[0].state != "valid":
                images.index.build()
            with psycopg.connect(images.place, autocommit=True) as connection:
                connection.execute("vacuum analyze")  # else it happens by itself while something is measured
            yield images

    def facts(self) -> dict[str, str]:
        """The machine and the versions that this run measures with; nothing that says whose machine it is."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return {
            "date": time.strftime("%Y-%m-%d"),
            "cores": str(cores),
            "memory": f"{memory / (1 << 30):.0f} GiB",
            "system": f"{platform.system()} {platform.machine()}",
            **self._versions,
            "Python": platform.python_version(),
            "psycopg": importlib.metadata.version("psycopg"),
            "numpy": importlib.metadata.version("numpy"),
        }


def new_library(server: EmbeddedServer, database: str = "lookalike") -> Lookalike:
    """An empty library in a database of its own."""
    dsn = new_database(server, database)
    with Database(dsn) as opened:
        opened.upgrade()
    return Lookalike.open(Settings(database_url=Secret(dsn)), announce=lambda _: None)


def new_database(server: EmbeddedServer, name: str) -> str:
    """An empty database; returns its DSN."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
    return server.dsn_of(name)


def _set_aside_huge_pages(server: EmbeddedServer) -> int:
    """Have the system keep as many huge pages as the server would take when it starts anew; returns how many."""
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute(
            "select current_setting('huge_pages') = 'try' and current_setting('huge_pages_status') = 'off',"
            " current_setting('shared_memory_size_in_huge_pages')::int"
        ).fetchone()
    assert row is not None
    if row[0] and row[1] > 0:
        with contextlib.suppress(OSError):  # not Linux, or not for us to decide
            before = int(_HUGE_PAGES.read_text())
            _HUGE_PAGES.write_text(str(before + row[1]))
            return int(_HUGE_PAGES.read_text()) - before
    return 0


def _versions(server: EmbeddedServer) -> dict[str, str]:
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute(
            "select split_part(current_setting('server_version'), ' ', 1),"
            " (select default_version from pg_available_extensions where name = 'vector'),"
            " current_setting('huge_pages_status')"
        ).fetchone()
    assert row is not None
    return {"PostgreSQL": row[0], "pgvector": row[1], "huge pages": row[2]}
