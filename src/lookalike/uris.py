"""How places are named: local paths as URIs, and URIs without what is secret in them."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit


def uri_of(path: str | os.PathLike[str]) -> str:
    """A local path as the library names it: absolute, percent-encoded, ``file://``."""
    return "file://" + quote(os.fsencode(os.path.abspath(path)))


def path_of(uri: str) -> Path | None:
    """The local path that a ``file://`` URI names, or None for any other URI."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path, errors="surrogateescape")) if parts.scheme == "file" else None
