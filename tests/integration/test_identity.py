"""Calls as the identity that a machine has in Azure, asked for the way App Service is asked: over HTTP, here on
loopback. The service is the emulator, which takes any bearer token, or a server that takes only some."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from lookalike import ConfigurationError, CredentialsRefused, Settings
from lookalike.embedders import open_embedder
from lookalike.embedders.terms import INTERACTIVE
from lookalike.emulator import Emulator
from lookalike.errors import ItemError
from lookalike.types import Embedding

MODEL = "azure-vision/2023-04-15"


class Answering(ThreadingHTTPServer):
    """A server that answers what a function says: a status and a JSON document."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], tuple[int, object]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, document = answer(self)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class Identity:
    """The identity endpoint of an App Service: numbers its tokens."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.lifetime = 86_400.0
        self.status = 200
        self._server = Answering(self._answer)
        self.url, self.stop = f"{self._server.url}/token", self._server.stop

    def _answer(self, request: BaseHTTPRequestHandler) -> tuple[int, object]:
        assert request.headers["X-IDENTITY-HEADER"] == "header"
        self.asked.append(request.path)
        if self.status != 200:
            return self.status, {"statusCode": self.status, "message": "no identity S3CRET"}
        token = f"S3CRET-{len(self.asked)}"
        until = int(time.time() + self.lifetime)
        return 200, {"access_token": token, "expires_on": str(until), "resource": "r", "token_type": "Bearer"}


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[Identity]:
    identity = Identity()
    monkeypatch.setenv("IDENTITY_ENDPOINT", identity.url)
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    yield identity
    identity.stop()


@pytest.fixture
def service() -> Iterator[Callable[[Callable[[str], tuple[int, object]]], str]]:
    """Makes an embedding service that answers by the Authorization header; returns its URL."""
    made: list[Answering] = []

    def make(answer: Callable[[str], tuple[int, object]]) -> str:
        made.append(Answering(lambda request: answer(request.headers.get("Authorization", ""))))
        return made[-1].url

    yield make
    for server in made:
        server.stop()


def embed(endpoint: str, times: int = 1) -> list[Embedding | ItemError]:
    embedder = open_embedder(MODEL, Settings(vision_endpoint=endpoint, vision_rate=5000), patience=INTERACTIVE)
    try:
        return [embedder.embed_texts(["a house"])[0] for _ in range(times)]
    finally:
        embedder.close()


GOOD = (200, {"modelVersion": "2023-04-15", "vector": [1.0] * 1024})


def test_without_a_key_the_identity_of_the_machine_calls(identity: Identity, emulator: Emulator) -> None:
    assert all(isinstance(answer, Embedding) for answer in embed(emulator.url, times=3))
    assert len(identity.asked) == 1
    assert unquote(identity.asked[0]).endswith("resource=https://cognitiveservices.azure.com")


def test_a_key_goes_before_an_identity(identity: Identity, emulator: Emulator) -> None:
    settings = Settings.from_environment({"VISION_ENDPOINT": emulator.url, "VISION_KEY": "emulator"})
    embedder = open_embedder(MODEL, settings)
    assert isinstance(embedder.embed_texts(["a house"])[0], Embedding)
    embedder.close()
    assert identity.asked == []


def test_a_token_is_fetched_anew_before_it_expires(
    identity: Identity, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = open_embedder(MODEL, Settings(vision_endpoint=emulator.url, vision_rate=5000))
    embedder.embed_texts(["a house"])
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 86_400 - 400)
    embedder.embed_texts(["a house"])
    assert len(identity.asked) == 1
    monkeypatch.setattr(time, "time", lambda: now() + 86_400 - 200)
    assert isinstance(embedder.embed_texts(["a house"])[0], Embedding)
    assert len(identity.asked) == 2
    embedder.close()


def test_a_token_that_was_taken_back_is_fetched_anew_once(
    identity: Identity, service: Callable[[Callable[[str], tuple[int, object]]], str]
) -> None:
    seen = []

    def answer(authorization: str) -> tuple[int, object]:
        seen.append(authorization)
        return GOOD if authorization == "Bearer S3CRET-2" else (401, {"error": {"code": "401", "message": "expired"}})

    assert all(isinstance(one, Embedding) for one in embed(service(answer), times=2))
    assert seen == ["Bearer S3CRET-1", "Bearer S3CRET-2", "Bearer S3CRET-2"]
    assert len(identity.asked) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_an_identity_that_may_not_call_is_told_what_to_do(
    status: int, identity: Identity, service: Callable[[Callable[[str], tuple[int, object]]], str]
) -> None:
    def answer(authorization: str) -> tuple[int, object]:
        return status, {"error": {"code": "PermissionDenied", "message": f"{authorization} may not do that"}}

    with pytest.raises(CredentialsRefused, match="Cognitive Services User") as caught:
        embed(service(answer))
    assert all(name in str(caught.value) for name in ("VISION_KEY", "VISION_KEY_FILE", "role"))
    assert "S3CRET" not in str(caught.value)
    assert len(identity.asked) == (2 if status == 401 else 1)


def test_the_token_is_in_no_message(
    identity: Identity, service: Callable[[Callable[[str], tuple[int, object]]], str]
) -> None:
    url = service(lambda authorization: (422, {"error": {"code": "x", "message": f"you sent {authorization}"}}))
    (answer,) = embed(url)
    assert isinstance(answer, ItemError)
    assert "you sent" in str(answer)
    assert len(identity.asked) == 1
    assert "S3CRET" not in str(answer)


def test_no_identity_is_explained(identity: Identity, emulator: Emulator) -> None:
    identity.status = 400
    with pytest.raises(ConfigurationError) as caught:
        embed(emulator.url)
    assert all(name in str(caught.value) for name in ("VISION_KEY", "VISION_KEY_FILE", "az login", "managed identity"))
    assert "S3CRET" not in str(caught.value)


def test_without_azure_identity_the_key_is_what_is_missing(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(ConfigurationError, match=r"VISION_KEY_FILE.*pip install 'lookalike\[azure\]'") as caught:
        embed(emulator.url)
    assert "VISION_KEY:" in str(caught.value)
