"""Reads pictures, and lists of them, wherever they lie that is not this machine's disk."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from lookalike.config import Settings
from lookalike.uris import without_secrets

if TYPE_CHECKING:
    from lookalike.pictures.storage import Listed, Storage
    from lookalike.pictures.web import Download, Web

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_LARGEST_FILE = 1 << 40


class Reader:
    """Reads from wherever pictures lie. Safe to use from several threads; close it, or use it in ``with``.

    Nothing is opened, nor any of the libraries loaded, before the first URL that needs them.
    """

    def __init__(self, settings: Settings, *, allow_hosts: Collection[str] = ()) -> None:
        """Args:
        allow_hosts: hosts inside our network that URLs may lead to, on top of those in the settings.
        """
        self._settings = settings
        self._allow_hosts = (*settings.allow_hosts, *allow_hosts)
        self._lock = threading.Lock()
        self._opened_web: Web | None = None
        self._opened_storage: Storage | None = None

    def read(self, url: str, *, most: int, known: str | None = None) -> Download | None:
        """What lies at `url`, or None if that is still what `known`, a fingerprint given earlier, stands for.

        Args:
            most: bytes, also after decompression.

        Raises:
            ItemError: why not; see ``Web.read`` and ``Storage.read`` for the codes.
            ConfigurationError: a package or credentials are missing, or are refused.
        """
        if self._storage.handles(url):
            return self._storage.read(url, most=most, known=known)
        return self._web.read(url, most=most, known=known)

    def list(self, url: str) -> Iterator[Listed]:
        """Every file at or below `url`; of the web, which cannot be listed, `url` itself, not looked at yet.

        Raises:
            SourceNotFound, ConfigurationError, ItemError: as ``Storage.list``, while iterating.
        """
        if self._storage.handles(url):
            yield from self._storage.list(url)
            return
        from lookalike.pictures.storage import Listed

        yield Listed(without_secrets(url), None, None)

    def open(self, url: str) -> BinaryIO:
        """What lies at `url`, to be read and sought in, for lists of pictures; close it.

        Raises:
            ItemError, ConfigurationError: as for `read`.
        """
        if self._storage.handles(url):
            return self._storage.open(url)
        return self._web.open(url, most=_LARGEST_FILE)

    def is_remote(self, name: str) -> bool:
        """Whether `name` is a URL for this class, and not a path, a ``file://`` URI or just a word."""
        match = _SCHEME.match(name)
        if match is None:
            return False
        scheme = match[1].lower()
        if scheme in ("http", "https"):
            return True
        from lookalike.pictures.storage import is_known_scheme

        return scheme not in ("file", "local") and is_known_scheme(scheme) and "::" not in name

    def close(self) -> None:
        """Close connections, and end waits."""
        with self._lock:
            for each in (self._opened_web, self._opened_storage):
                if each is not None:
                    each.close()
            self._opened_web = self._opened_storage = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _web(self) -> Web:
        from lookalike.pictures.web import Web

        with self._lock:
            if self._opened_web is None:
                self._opened_web = Web(allow_hosts=self._allow_hosts)
            return self._opened_web

    @property
    def _storage(self) -> Storage:
        from lookalike.pictures.storage import Storage

        with self._lock:
            if self._opened_storage is None:
                self._opened_storage = Storage(self._settings)
            return self._opened_storage
