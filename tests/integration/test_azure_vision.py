"""Azure AI Vision over real HTTP: against a server that answers from a script, and against the emulator."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from PIL import Image

from lookalike.config import Secret, Settings
from lookalike.embedders import http, open_embedder
from lookalike.embedders.azure_vision import AzureVision
from lookalike.embedders.terms import BATCH, INTERACTIVE, Patience
from lookalike.emulator import Emulator, expected_vector
from lookalike.errors import (
    ConfigurationError,
    ContractBroken,
    CredentialsRefused,
    Interrupted,
    ItemError,
    LookalikeError,
    ServiceError,
)
from lookalike.types import Embedding, ImageInput, Model, Usage
from tests.integration.scripted import Reply, Scripted

pytestmark = pytest.mark.usefixtures("own_pace")

KEY = "0123456789abcdef0123456789ABCDEF"
NEWER, OLDER = "azure-vision/2023-04-15", "azure-vision/2022-04-11"
PICTURE = ImageInput(data=b"the bytes of a picture")
IMAGE_PATH = "/computervision/retrieval:vectorizeImage"
TEXT_PATH = "/computervision/retrieval:vectorizeText"


def good(version: str = "2023-04-15", *, first: float = 0.5, length: int = 1024) -> Reply:
    vector = np.linspace(-1, 1, length).round(3).tolist()
    return Reply(200, {"vector": [first, *vector[1:]], "modelVersion": version}, {"apim-request-id": "id-200"})


def refused(status: int, code: str, message: str, inner: str | None = None, **headers: str) -> Reply:
    error: dict[str, object] = {"code": code, "message": message}
    if inner is not None:
        error["innererror"] = {"code": inner, "message": message}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"error": error}, {"apim-request-id": "id-refused", **names})


GOOD = good()


class Open(Protocol):
    """Makes an embedder for an endpoint."""

    def __call__(
        self,
        endpoint: str,
        model: str = NEWER,
        *,
        key: str = KEY,
        rate: float = 5000,
        patience: Patience = BATCH,
        stop: threading.Event | None = None,
    ) -> AzureVision: ...


@pytest.fixture
def opened() -> Iterator[Open]:
    """Makes embedders, and closes them."""
    made: list[AzureVision] = []

    def opened(
        endpoint: str,
        model: str = NEWER,
        *,
        key: str = KEY,
        rate: float = 5000,
        patience: Patience = BATCH,
        stop: threading.Event | None = None,
    ) -> AzureVision:
        settings = Settings(vision_endpoint=endpoint, vision_key=Secret(key))
        made.append(AzureVision(Model(model), settings, patience=patience, rate=rate, stop=stop))
        return made[-1]

    yield opened
    for embedder in made:
        embedder.close()


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no certificates of whoever runs the tests."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name)


Serve = Callable[..., Scripted]


def image_error(embedder: AzureVision) -> ItemError:
    (error,) = embedder.embed_images([PICTURE])
    assert isinstance(error, ItemError)
    return error


def text_embedding(embedder: AzureVision, text: str = "a blue house") -> Embedding:
    (embedding,) = embedder.embed_texts([text])
    assert isinstance(embedding, Embedding), embedding
    return embedding


# -- the wire format ----------------------------------------------------------------------------------------------


def test_a_picture_goes_as_it_is(serve: Serve, opened: Open) -> None:
    server = serve(GOOD)
    (embedding,) = opened(server.url).embed_images([PICTURE])
    (call,) = server.calls
    assert call.path == IMAGE_PATH
    assert call.query == {"api-version": ["2024-02-01"], "model-version": ["2023-04-15"]}
    assert call.headers["Ocp-Apim-Subscription-Key"] == KEY
    assert call.headers["Content-Type"] == "application/octet-stream"
    assert call.body == PICTURE.data
    assert isinstance(embedding, Embedding)
    assert embedding.model.name == NEWER
    assert embedding.vector.dtype == np.float32
    assert embedding.vector.shape == (1024,)


def test_a_picture_that_azure_fetches_goes_as_json(serve: Serve, opened: Open) -> None:
    server = serve(GOOD)
    opened(server.url).embed_images([ImageInput(url="https://blobs.example.net/a ü.jpg?sig=x")])
    (call,) = server.calls
    assert (call.path, call.headers["Content-Type"]) == (IMAGE_PATH, "application/json")
    assert json.loads(call.body) == {"url": "https://blobs.example.net/a ü.jpg?sig=x"}


def test_a_text_goes_as_json(serve: Serve, opened: Open) -> None:
    server = serve(good("2022-04-11"))
    text_embedding(opened(server.url, OLDER), 'ein "blaues" Häuschen')
    (call,) = server.calls
    assert (call.path, call.headers["Content-Type"]) == (TEXT_PATH, "application/json")
    assert call.query["model-version"] == ["2022-04-11"]
    assert json.loads(call.body) == {"text": 'ein "blaues" Häuschen'}


def test_many_inputs_go_one_by_one_and_come_back_in_order(serve: Serve, opened: Open) -> None:
    bad = refused(400, "InvalidRequest", "Image format is not valid.", "InvalidImageFormat")
    server = serve(good(first=0.125), bad, good(first=0.25))
    embedder = opened(server.url)
    first, error, second = embedder.embed_images([PICTURE] * 3)
    assert isinstance(first, Embedding)
    assert isinstance(second, Embedding)
    assert (first.vector[0], second.vector[0]) == (0.125, 0.25)
    assert isinstance(error, ItemError)
    assert embedder.usage == Usage(calls=2, retries=0)
    assert embedder.embed_images([]) == []
    assert embedder.embed_texts([]) == []


def test_connections_are_used_again(serve: Serve, opened: Open) -> None:
    server = serve(GOOD, refused(400, "InvalidRequest", "Image format is not valid.", "InvalidImageFormat"), GOOD)
    embedder = opened(server.url)
    for _ in range(20):
        embedder.embed_images([PICTURE])
    assert server.connections == 1
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: embedder.embed_images([PICTURE]), range(200)))
    assert server.connections <= 9


def test_answers_may_come_compressed(serve: Serve, opened: Open) -> None:
    packed = Reply(body=gzip.compress(json.dumps(GOOD.body).encode()), headers={"Content-Encoding": "gzip"})
    server = serve(packed, GOOD)
    embedder = opened(server.url)
    assert text_embedding(embedder).vector.tolist() == text_embedding(embedder).vector.tolist()
    assert "gzip" in server.calls[0].headers["Accept-Encoding"]


@pytest.mark.parametrize(
    "ending", ["", "/", "//", "/computervision", "/computervision/", IMAGE_PATH + "?api-version=1"]
)
def test_endpoints_may_be_pasted_in_every_form(serve: Serve, opened: Open, ending: str) -> None:
    server = serve(GOOD)
    text_embedding(opened(f" {server.url}{ending} "))
    assert server.calls[0].path == TEXT_PATH


def test_a_gateway_may_have_a_path_of_its_own(serve: Serve, opened: Open) -> None:
    server = serve(GOOD)
    text_embedding(opened(f"{server.url}/gateway/computervision/"))
    assert server.calls[0].path == f"/gateway{TEXT_PATH}"


# -- what is refused before a call ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "key", "named", "unnamed"),
    [
        (None, None, ["VISION_ENDPOINT", "VISION_KEY"], []),
        (" ", KEY, ["VISION_ENDPOINT"], ["VISION_KEY"]),
        ("https://x.cognitiveservices.azure.com", None, ["VISION_KEY"], ["VISION_ENDPOINT"]),
    ],
)
def test_missing_settings_are_named_with_the_place_to_find_them(
    endpoint: str | None, key: str | None, named: list[str], unnamed: list[str]
) -> None:
    settings = Settings(vision_endpoint=endpoint, vision_key=Secret(key) if key else None)
    with pytest.raises(ConfigurationError) as caught:
        open_embedder(NEWER, settings)
    message = str(caught.value)
    assert all(name in message for name in [*named, "az cognitiveservices account keys list", "lookalike demo"])
    assert not any(name in message for name in unnamed)


@pytest.mark.parametrize(
    "endpoint",
    [
        "myvision.cognitiveservices.azure.com",
        "ftp://myvision.cognitiveservices.azure.com",
        "https://",
        "https:///computervision",
        "https://host:port/",
        "https://[::1/",
        "https://somebody:hush@myvision.cognitiveservices.azure.com",
        "http://myvision.cognitiveservices.azure.com",
        "http://10.0.0.7:8081",
    ],
)
def test_an_endpoint_that_cannot_be_right_is_refused(opened: Open, endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="VISION_ENDPOINT") as caught:
        opened(endpoint)
    assert "hush" not in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint", ["http://localhost:8081", "http://[::1]:8081/", "http://127.0.0.9", "http://emulator:8081"]
)
def test_the_key_may_go_unencrypted_to_this_machine_and_its_neighbours(opened: Open, endpoint: str) -> None:
    opened(endpoint)


@pytest.mark.parametrize("key", ["two words", "smart “quotes”", "line\nbreak"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(opened: Open, key: str) -> None:
    with pytest.raises(ConfigurationError, match="VISION_KEY") as caught:
        opened("http://localhost", key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "version", ["2023-13-45", "20230415", "2023-04", "v1", "2023-04-15+small", "2023-04-15-preview"]
)
def test_versions_are_dates(opened: Open, version: str) -> None:
    with pytest.raises(ConfigurationError, match="azure-vision/2023-04-15"):
        opened("http://localhost", f"azure-vision/{version}")


def test_a_version_of_the_future_is_asked_for_as_it_is(serve: Serve, opened: Open) -> None:
    server = serve(good("2031-01-31"))
    text_embedding(opened(server.url, "azure-vision/2031-01-31"))
    assert server.calls[0].query["model-version"] == ["2031-01-31"]


def test_a_rate_must_be_above_nothing(opened: Open) -> None:
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="rate"):
            opened("http://localhost", rate=rate)


def test_inputs_beyond_the_limits_cost_no_call(serve: Serve, opened: Open) -> None:
    server = serve(GOOD)
    embedder = opened(server.url)
    texts = ["", " \n ", "word " * 71, "word " * 70]
    images = [ImageInput(data=b""), ImageInput(data=bytes(20_971_521)), ImageInput(data=bytes(20_971_520))]
    codes = [
        answer.code if isinstance(answer, ItemError) else None
        for answer in [*embedder.embed_texts(texts), *embedder.embed_images(images)]
    ]
    assert codes == ["empty-text", "empty-text", "too-many-words", None, "empty-file", "too-many-bytes", None]
    assert len(server.calls) == 2


def test_the_embedder_says_what_it_takes_and_how_fast(opened: Open) -> None:
    newer = opened("http://localhost")
    assert (newer.model.name, newer.model.dimensions) == (NEWER, 1024)
    assert (newer.limits.max_bytes, newer.limits.min_side, newer.limits.max_side) == (20_971_520, 11, 15_999)
    assert newer.limits.max_words == 70
    kinds = ("jpeg", "png", "gif", "bmp", "webp", "x-icon", "tiff", "mpo")
    assert {f"image/{kind}" for kind in kinds} <= newer.limits.media_types
    assert [opened("http://localhost", rate=rate).concurrency for rate in (1 / 3, 10, 12.5, 500)] == [4, 10, 13, 64]
    assert newer.notice is None


# -- what refusals mean ---------------------------------------------------------------------------------------------

ONE_ITEM = [
    (refused(400, "InvalidRequest", "Image format is not valid.", "InvalidImageFormat"), "unsupported-format", False),
    (
        refused(
            *(400, "InvalidRequest"),
            "The image dimension is not allowed to be smaller than 10 and larger than 16000.",
            "InvalidImageSize",
        ),
        "wrong-dimensions",
        False,
    ),
    (
        refused(400, "InvalidRequest", "The image size is not allowed to be zero or larger than 20971520 bytes."),
        "wrong-byte-size",
        False,
    ),
    (refused(400, "InvalidRequest", "Image URL is badly formatted or not accessible."), "url-not-accessible", True),
    (refused(400, "InvalidRequest", "The provided image url is not accessible."), "url-not-accessible", True),
    (refused(400, "NotSupportedImage", "The image is not supported."), "refused-content", False),
    (refused(400, "InvalidRequest", "The text must have 1 to 70 words.", "BadArgument"), "refused-text", False),
    (refused(400, "Unheard", "Of."), "refused", False),
    (refused(413, "413", "Too large."), "too-many-bytes", False),
    (refused(422, "Unheard", "Of."), "refused", False),
]


@pytest.mark.parametrize(("answer", "code", "retryable"), ONE_ITEM)
def test_refusals_that_concern_one_input(serve: Serve, opened: Open, answer: Reply, code: str, retryable: bool) -> None:
    server = serve(answer, GOOD)
    embedder = opened(server.url)
    error, after = embedder.embed_images([PICTURE, PICTURE])
    assert isinstance(error, ItemError)
    assert (error.code, error.retryable, error.request_id) == (code, retryable, "id-refused")
    assert isinstance(answer.body, dict)
    assert answer.body["error"]["message"] in str(error)
    assert isinstance(after, Embedding)
    assert embedder.usage == Usage(calls=1, retries=0)


THE_RUN = [
    (refused(400, "InvalidRequest", "The provided image content type 'x' is not supported."), ContractBroken, []),
    (refused(400, "InvalidRequest", "This operation is not enabled in this region."), ServiceError, ["West Europe"]),
    (refused(400, "InvalidRequest", "The feature is not supported in this region."), ServiceError, ["West Europe"]),
    (
        refused(400, "InvalidRequest", "The model version '2023-04-15' is not supported.", "BadArgument"),
        ContractBroken,
        [],
    ),
    (
        refused(400, "BadRequest", "Please provide a custom subdomain for token authentication."),
        CredentialsRefused,
        ["custom subdomain"],
    ),
    (
        refused(401, "401", "Access denied due to invalid subscription key or wrong API endpoint. Make sure to …"),
        CredentialsRefused,
        ["VISION_KEY", "VISION_ENDPOINT", "az cognitiveservices account keys list"],
    ),
    (refused(401, "PermissionDenied", "Access denied."), CredentialsRefused, ["VISION_KEY"]),
    (refused(403, "403", "Access denied due to Virtual Network/Firewall rules."), CredentialsRefused, ["Firewall"]),
    (
        refused(403, "AuthenticationTypeDisabled", "Key based authentication is disabled."),
        CredentialsRefused,
        ["disabled"],
    ),
    (
        Reply(403, {"statusCode": 403, "message": "Out of call volume quota."}, {"apim-request-id": "id-refused"}),
        CredentialsRefused,
        ["quota"],
    ),
    (refused(404, "404", "Resource not found"), ContractBroken, ["West Europe", "Resource not found"]),
    (refused(410, "Gone", "Computer Vision 2024-02-01 has been deprecated."), ContractBroken, ["2024-02-01"]),
    (refused(415, "UnsupportedMediaType", "Unsupported."), ContractBroken, []),
]


@pytest.mark.parametrize(("answer", "kind", "named"), THE_RUN)
def test_refusals_that_concern_the_run(
    serve: Serve, opened: Open, answer: Reply, kind: type[ServiceError], named: list[str]
) -> None:
    server = serve(answer)
    embedder = opened(server.url)
    with pytest.raises(kind) as caught:
        embedder.embed_images([PICTURE, PICTURE])
    assert type(caught.value) is kind
    assert caught.value.request_id == "id-refused"
    assert all(name in str(caught.value) for name in [server.url, *named])
    assert KEY not in str(caught.value)
    assert len(server.calls) == 1
    assert embedder.usage == Usage(calls=0, retries=0)


PASSING = [
    *(
        refused(500, code, "Oops.")
        for code in ("InternalServerError", "FailedToProcess", "Timeout", "StorageException")
    ),
    refused(502, "BadGateway", "Oops."),
    refused(503, "ServiceUnavailable", "Oops."),
    refused(504, "GatewayTimeout", "Oops."),
    refused(408, "Timeout", "Oops."),
    refused(429, "429", "Please retry after 40 seconds."),
    refused(429, "429", "No hint at all."),
    refused(429, "429", "With a header.", Retry_After="3"),
    Reply(200, b"<html>Please log in</html>", {"Content-Type": "text/html"}),
    Reply(200, b'{"modelVersion": "2023-04-15", "vector": [0.1, 0.2'),
    Reply(502, b"<html>Bad gateway</html>", {"Content-Type": "text/html"}),
    Reply(instead="reset"),
    Reply(200, GOOD.body, instead="break off"),
    Reply(instead="break off chunks"),
]


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("answer", PASSING, ids=lambda answer: f"{answer.status} {answer.instead or answer.body}"[:60])
def test_troubles_that_pass_are_waited_out(serve: Serve, opened: Open, answer: Reply) -> None:
    server = serve(answer, answer, GOOD)
    embedder = opened(server.url)
    text_embedding(embedder)
    assert embedder.usage.retries == 2
    assert [call.body for call in server.calls] == [b'{"text": "a blue house"}'] * 3


def test_the_seconds_in_azures_message_are_waited(serve: Serve, opened: Open, no_waiting: list[float]) -> None:
    text_embedding(
        opened(serve(refused(429, "429", "… F0 pricing tier. Please retry after 40 seconds. To …"), GOOD).url)
    )
    assert 40 <= sum(no_waiting) <= 42.1


def test_a_service_that_does_not_answer_is_tried_again(serve: Serve, opened: Open) -> None:
    server = serve(Reply(instead="hang"), GOOD)
    text_embedding(opened(server.url, patience=Patience(deadline=30, read_timeout=0.2, longest_wait=0.1)))
    assert len(server.calls) == 2


def test_a_service_that_is_down_is_named_in_the_end(opened: Open, no_waiting: list[float]) -> None:
    server = Scripted(GOOD)
    server.stop()
    error = image_error(opened(server.url))
    assert (error.code, error.retryable) == ("connection", True)
    assert f"127.0.0.1:{server.server_port}: the connection was refused" in str(error)
    assert sum(no_waiting) >= 295


@pytest.mark.usefixtures("no_waiting")
def test_a_name_that_does_not_resolve_is_named_in_the_end(opened: Open) -> None:
    error = image_error(opened("https://myvision.invalid", patience=INTERACTIVE))
    assert error.code == "connection"
    assert "myvision.invalid: the name does not resolve" in str(error)


def test_a_wait_ends_when_somebody_says_stop(serve: Serve, opened: Open) -> None:
    stop = threading.Event()
    embedder = opened(serve(refused(429, "429", "Please retry after 40 seconds.")).url, stop=stop)
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        embedder.embed_images([PICTURE])
    assert time.monotonic() - began < 1


# -- what is in an answer -------------------------------------------------------------------------------------------


def vector_of(number: object) -> Reply:
    return Reply(200, {"modelVersion": "2023-04-15", "vector": [number] * 1024}, {"apim-request-id": "id-200"})


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (vector_of(0.0), "zero-vector"),
        (vector_of(1e-10), "zero-vector"),
        (vector_of(float("nan")), "not-finite"),
        (vector_of(70000.0), "not-finite"),
        (Reply(200, {"modelVersion": "2023-04-15"}, {"apim-request-id": "id-200"}), "no-vector"),
    ],
)
def test_a_damaged_vector_fails_its_input_and_is_billed(serve: Serve, opened: Open, answer: Reply, code: str) -> None:
    server = serve(answer)
    embedder = opened(server.url)
    error = image_error(embedder)
    assert (error.code, error.retryable, error.request_id) == (code, True, "id-200")
    assert len(server.calls) == 1
    assert embedder.usage == Usage(calls=1, retries=0)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (good("2022-04-11"), ["2022-04-11", "2023-04-15"]),
        (good("latest"), ["latest", "2023-04-15"]),
        (Reply(200, {"vector": [0.5] * 1024}), ["None", "2023-04-15"]),
        (good(length=1023), ["1023", "1024"]),
        (Reply(200, {"modelVersion": "2023-04-15", "vector": "AACAPg=="}), ["no list of numbers"]),
    ],
)
def test_an_answer_of_another_model_stops_the_run(serve: Serve, opened: Open, answer: Reply, named: list[str]) -> None:
    embedder = opened(serve(answer).url)
    with pytest.raises(ContractBroken) as caught:
        embedder.embed_texts(["a blue house"])
    assert all(name in str(caught.value) for name in named)
    assert embedder.usage.calls == 1


# -- the key, and the network in between ----------------------------------------------------------------------------


def test_the_key_does_not_follow_a_redirect(serve: Serve, opened: Open) -> None:
    elsewhere = serve(GOOD)
    server = serve(Reply(307, b"", {"Location": f"{elsewhere.url}/login?token=hush"}))
    with pytest.raises(ContractBroken, match="the key must not go") as caught:
        opened(server.url).embed_images([PICTURE])
    assert elsewhere.calls == []
    assert "hush" not in str(caught.value)


@pytest.mark.usefixtures("no_waiting")
def test_a_key_that_the_service_echoes_does_not_show(
    serve: Serve, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = f"Key {KEY} and https://blob.example.net/a.jpg?sig=hush"
    errors: list[LookalikeError] = []
    for status in (400, 401, 403, 404, 410, 415, 422, 429, 500):
        embedder = opened(serve(refused(status, KEY, said)).url, patience=INTERACTIVE)
        try:
            errors.append(image_error(embedder))
        except ServiceError as error:
            errors.append(error)
        assert KEY not in repr(embedder)
    shown = [str(error) + repr(error) + repr(vars(error)) for error in errors] + [caplog.text]
    assert len(errors) == 9
    assert not any(secret in text for text in shown for secret in (KEY, "hush"))


def test_proxies_are_used(serve: Serve, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve(GOOD)
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//somebody:password@"))
    text_embedding(opened("http://vision:8081"))
    (call,) = proxy.calls
    assert call.target.startswith(f"http://vision:8081{TEXT_PATH}?")
    assert call.headers["Proxy-Authorization"].startswith("Basic ")


def test_proxies_can_be_passed_by(serve: Serve, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = serve(Reply(500)), serve(GOOD)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    text_embedding(opened(server.url))
    assert proxy.calls == []


def test_a_proxy_that_wants_a_password_stops_the_run(
    serve: Serve, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(Reply(407, b""))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    for endpoint in ("https://myvision.invalid", "http://vision:8081"):
        with pytest.raises(CredentialsRefused, match="HTTPS_PROXY"):
            opened(endpoint).embed_images([PICTURE])


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("proxy", ["http://proxy.invalid:3128", "http://127.0.0.1:9"])
def test_a_proxy_that_is_not_there_is_named_in_the_end(
    opened: Open, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    error = image_error(opened("https://myvision.invalid", patience=INTERACTIVE))
    assert error.code == "connection"
    assert "HTTPS_PROXY" in str(error)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of this machine that nobody trusts, with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here")
    path = tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", path.with_suffix(".crt")),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


def test_certificates_are_checked_and_can_be_given(
    serve: Serve, opened: Open, certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = serve(GOOD, tls=tls)
    (tmp_path / "nonsense.pem").write_text("no certificate")
    for bundle in (None, tmp_path / "missing.pem", tmp_path / "nonsense.pem"):
        if bundle is not None:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        with pytest.raises(ServiceError, match="REQUESTS_CA_BUNDLE") as caught:
            opened(server.url).embed_images([PICTURE])
        assert type(caught.value) is ServiceError
    assert server.calls == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.with_suffix(".crt")))
    text_embedding(opened(server.url))


# -- end to end -----------------------------------------------------------------------------------------------------


def jpeg(colour: str) -> bytes:
    out = BytesIO()
    Image.new("RGB", (64, 48), colour).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize("model", [NEWER, OLDER])
def test_the_emulator_gives_the_vectors_of_the_model(opened: Open, model: str) -> None:
    with Emulator() as emulator:
        embedder = opened(emulator.url, model, key="emulator")
        picture = jpeg("teal")
        (image,) = embedder.embed_images([ImageInput(data=picture)])
        text = text_embedding(embedder)
        (error,) = embedder.embed_images([ImageInput(data=b"no picture")])
    assert isinstance(image, Embedding)
    assert np.array_equal(image.vector, expected_vector(picture, Model(model).version))
    assert np.array_equal(text.vector, expected_vector("a blue house", Model(model).version))
    assert isinstance(error, ItemError)
    assert error.code == "unsupported-format"
    assert embedder.usage == Usage(calls=2, retries=0)
    assert emulator.stats()["billed"] == 2


def test_the_emulator_refuses_a_wrong_key_and_an_unknown_version(opened: Open) -> None:
    with Emulator() as emulator:
        with pytest.raises(CredentialsRefused, match="VISION_KEY"):
            opened(emulator.url, key="wrong").embed_texts(["a blue house"])
        with pytest.raises(ContractBroken, match="version"):
            opened(emulator.url, "azure-vision/2031-01-31", key="emulator").embed_texts(["a blue house"])
        with pytest.raises(ContractBroken, match="West Europe"):
            opened(f"{emulator.url}gateway", key="emulator").embed_texts(["a blue house"])


def test_whatever_goes_wrong_in_the_emulator_every_picture_gets_its_vector(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a hundredth of each wait is enough here
    sleep = http._sleep
    monkeypatch.setattr(http, "_sleep", lambda seconds, stop: sleep(seconds / 100, stop))
    faults = {"500": 0.1, "503": 0.1, "reset": 0.1, "html": 0.1, "truncated-json": 0.1}
    with Emulator(faults=faults) as emulator, ThreadPoolExecutor(4) as pool:
        embedder = opened(emulator.url, key="emulator", patience=Patience(deadline=60, tries=30, longest_wait=2))
        texts = [f"house number {number}" for number in range(60)]
        vectors = list(pool.map(lambda text: text_embedding(embedder, text).vector, texts))
    for text, vector in zip(texts, vectors, strict=True):
        assert np.array_equal(vector, expected_vector(text, Model(NEWER).version))
    stats = emulator.stats()
    assert embedder.usage.calls == stats["billed"]
    assert embedder.usage.retries == sum(stats["calls"]["vectorizeText"].values()) - len(texts)


def test_threads_keep_the_rate_that_the_emulator_grants(opened: Open) -> None:
    with Emulator(rate=30, latency_ms=20) as emulator, ThreadPoolExecutor(16) as pool:
        embedders = [opened(emulator.url, key="emulator", rate=29) for _ in range(2)]
        began = time.monotonic()
        list(pool.map(lambda number: text_embedding(embedders[number % 2]), range(58)))
        seconds = time.monotonic() - began
    assert emulator.stats()["calls"]["vectorizeText"] == {"200": 58}
    assert seconds >= 0.99
