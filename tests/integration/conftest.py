from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import pytest

from tests.integration.scripted import Reply, Scripted


@pytest.fixture
def serve() -> Iterator[Callable[..., Scripted]]:
    """Starts servers that answer from a script."""
    started: list[Scripted] = []

    def serve(*script: Reply, tls: ssl.SSLContext | None = None) -> Scripted:
        started.append(Scripted(*script, tls=tls))
        return started[-1]

    yield serve
    for server in started:
        server.stop()
