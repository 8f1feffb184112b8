"""Pictures in object stores: Azure's by Azure's own library, and whatever else fsspec opens."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from lookalike.config import Settings
from lookalike.errors import ConfigurationError, ItemError, LookalikeError, SourceNotFound
from lookalike.pictures.azure_blobs import SCHEMES as AZURE_SCHEMES
from lookalike.pictures.azure_blobs import AzureBlobs
from lookalike.pictures.globs import Pattern, is_hidden
from lookalike.pictures.web import Download, same_fingerprint
from lookalike.uris import redacted, without_secrets

# These are no places, or lead on to other ones, past what guards the web.
_NO_PLACES = frozenset(
    {
        *("http", "https", "data", "dir", "generic", "reference", "jupyter", "jlab", "pyscript", "dask", "root"),
        *("blockcache", "cached", "filecache", "simplecache", "async_wrapper", "asyncwrapper", "asynclocal"),
        *("zip", "tar", "libarchive"),
    }
)
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "oss": "ossfs", "sftp": "paramiko"}
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Listed:
    """A file that a listing came upon.

    Attributes:
        uri: its whole URL, without secrets.
        fingerprint: tells its content from what may lie there later; the same as `Storage.read` gives.
        size: in bytes.
    """

    uri: str
    fingerprint: str | None
    size: int | None


class Storage:
    """Reads from object stores and whatever else has a scheme. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is opened yet."""
        self._azure = AzureBlobs(settings.azure_storage)
        self._lock = threading.Lock()
        self._systems: dict[str, Any] = {}

    def handles(self, url: str) -> bool:
        """Whether `url` is for this class: its scheme is one of fsspec's, or it is the ``https`` URL of a blob that
        there are credentials for, without a signature of its own."""
        scheme, separator, _ = url.partition("://")
        scheme = scheme.lower()
        if not separator:
            return False
        if scheme in ("http", "https"):
            with contextlib.suppress(ValueError):
                return self._azure.place(url) is not None
            return False
        return is_known_scheme(scheme) and "::" not in url

    def list(self, url: str) -> Iterator[Listed]:
        """Every file below a container, a prefix or a folder, those that match a glob, or a single one, in any order.

        Azure is asked page by page, everything else folder by folder, so that memory holds no more than one of those.
        Names that begin with a dot are passed over, with what lies below them, unless `url` itself names them.

        Raises:
            SourceNotFound: nothing lies there.
            ConfigurationError: a package or credentials are missing, or do not open it.
            ItemError: it cannot be reached; code ``unreachable``, for another time.
        """
        place = self._azure.place(url)
        if place is not None:
            for blob in self._azure.list(place):
                yield Listed(without_secrets(place.url(blob.name)), blob.fingerprint, blob.size)
            return
        with _translated(url, whole=True):
            system, name = self._system(url)
            info = _info(system, name)
        if info is not None and info.get("type") != "directory":
            yield Listed(without_secrets(url), _fingerprint(info), info.get("size"))
            return
        if info is not None:
            yield from self._below(url, system, name, None)
            return
        pattern = Pattern.of(name)
        found = False
        if pattern is not None:
            in_url = Pattern.of(url)
            for listed in self._below(in_url.folder if in_url else url, system, pattern.folder, pattern):
                found = True
                yield listed
        if not found:
            raise SourceNotFound(f"Nothing lies at {without_secrets(url)}.")

    def read(self, url: str, *, most: int, known: str | None = None) -> Download | None:
        """What lies at `url`, or None, without reading it, if that is still what `known`, a fingerprint, stands for.

        Args:
            most: bytes.

        Raises:
            ItemError: codes ``not-found`` and ``too-many-bytes``; and, for another time, ``access-refused``,
                ``unreachable`` and ``refused-by-host``.
            ConfigurationError: a package or credentials are missing, or are refused.
        """
        place = self._azure.place(url)
        if place is not None:
            return self._azure.read(place, most=most, known=known)
        too_many = ItemError("too-many-bytes", f"{without_secrets(url)} has more than {most:,} bytes.")
        with _translated(url):
            system, name = self._system(url)
            info = system.info(name)
            if info.get("type") == "directory":
                raise IsADirectoryError
            fingerprint = _fingerprint(info)
            if same_fingerprint(fingerprint, known):
                return None
            if (info.get("size") or 0) > most:
                raise too_many
            with system.open(name, "rb", block_size=_PIECE) as file:
                data = file.read(most + 1)
        if len(data) > most:
            raise too_many
        return Download(bytes(data), fingerprint)

    def open(self, url: str) -> BinaryIO:
        """What lies at `url`, to be read and sought in; close it.

        Raises:
            ItemError, ConfigurationError: as for `read`.
        """
        place = self._azure.place(url)
        if place is not None:
            return self._azure.open(place)
        with contextlib.ExitStack() as undo, _translated(url):
            system, name = self._system(url)
            copy = undo.enter_context(tempfile.TemporaryFile(prefix="lookalike-"))
            with system.open(name, "rb") as file:
                while piece := file.read(_PIECE):
                    copy.write(piece)
            copy.seek(0)
            undo.pop_all()
        return cast(BinaryIO, copy)

    def close(self) -> None:
        """Close connections."""
        self._azure.close()
        with self._lock:
            # what fsspec opened closes itself when nobody holds it any longer
            self._systems.clear()

    def _system(self, url: str) -> tuple[Any, str]:
        """fsspec's file system for `url`, without the listings that it would remember, and the name within it."""
        import fsspec

        scheme = url.partition("://")[0].lower()
        authority = urlsplit(url).netloc if scheme in ("ftp", "sftp", "ssh", "smb", "webhdfs", "hdfs", "webdav") else ""
        with self._lock:
            if (system := self._systems.get(f"{scheme}://{authority}")) is None:
                system, _ = fsspec.core.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
                self._systems[f"{scheme}://{authority}"] = system
        return system, str(system._strip_protocol(url))

    def _below(self, url: str, system: Any, root: str, pattern: Pattern | None) -> Iterator[Listed]:
        """Files below `root`, which `url` names, folder by folder."""
        base = url if url.endswith("/") else f"{url}/"
        root = root.rstrip("/")
        folders = [root]
        while folders:
            folder = folders.pop()
            with _translated(url, whole=True):
                entries = _entries(system, folder)
            for entry in entries:
                name = str(entry["name"]).rstrip("/")
                below = name.removeprefix(root).lstrip("/")
                if not below or name == folder or is_hidden(below):
                    continue
                if entry.get("type") == "directory":
                    if not entry.get("islink"):
                        folders.append(name)
                elif pattern is None or pattern.matches(name):
                    yield Listed(without_secrets(base + below), _fingerprint(entry), entry.get("size"))


def is_known_scheme(scheme: str) -> bool:
    """Whether fsspec knows a file system by this name, in lower case, that is a place of its own."""
    if scheme in AZURE_SCHEMES:
        return True
    from fsspec.registry import known_implementations, registry

    return scheme not in _NO_PLACES and (scheme in known_implementations or scheme in registry)


def _info(system: Any, name: str) -> Mapping[str, Any] | None:
    try:
        return cast(Mapping[str, Any], system.info(name))
    except FileNotFoundError:
        return None


def _entries(system: Any, folder: str) -> list[Mapping[str, Any]]:
    try:
        return list(system.ls(folder, detail=True))
    except (FileNotFoundError, NotADirectoryError):  # gone while we walked
        return []


def _fingerprint(info: Mapping[str, Any]) -> str | None:
    """The ETag that a file system gives, else size and time of the last change."""
    etag = info.get("ETag") or info.get("etag")
    if etag:
        return "etag:" + str(etag).replace('"', "")
    times = (info.get(key) for key in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"))
    changed = next((time for time in times if time), None)
    if changed is None or info.get("size") is None:
        return None
    return f"{info['size']}-{changed.timestamp() if isinstance(changed, datetime) else changed}"


@contextlib.contextmanager
def _translated(url: str, *, whole: bool = False) -> Iterator[None]:
    """What file systems raise, as ours.

    Args:
        whole: whether a bucket or folder is asked for, and not one of many pictures.
    """
    place, scheme = without_secrets(url), url.partition("://")[0].lower()
    try:
        yield
    except LookalikeError:
        raise
    except ImportError:
        package = _PACKAGES.get(scheme)
        advice = f"pip install {package}" if package else f"install the package that gives fsspec {scheme}://"
        raise ConfigurationError(f"{place} needs a package: {advice}") from None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        if whole:
            raise SourceNotFound(f"Nothing lies at {place}.") from None
        raise ItemError("not-found", f"{place} is not there.") from None
    except PermissionError:
        if whole:
            raise ConfigurationError(f"{place} may not be read with the credentials of {scheme}:// here.") from None
        raise ItemError("access-refused", f"{place} may not be read by us.", retryable=True) from None
    except Exception as error:
        # each file system raises what its own library does
        if "Credentials" in type(error).__name__:
            raise ConfigurationError(f"{place} needs credentials for {scheme}://, and there are none.") from None
        said = " ".join(redacted(str(error)).split())[:200]
        raise ItemError(
            "unreachable", f"{place} cannot be read ({type(error).__name__}: {said}).", retryable=True
        ) from None
