"""Azure AI Model Inference: what is sent, what is read, and what is refused before a call is spent."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lookalike.config import Secret, Settings
from lookalike.embedders import dimensions_of, open_embedder
from lookalike.embedders.azure_inference import AzureInference
from lookalike.emulator import Emulator, expected_vector
from lookalike.errors import ConfigurationError, ContractBroken, CredentialsRefused, Interrupted, ItemError
from lookalike.identity import Tokens
from lookalike.types import Embedding, ImageInput, Model, Usage
from tests.conftest import settings_for
from tests.integration.scripted import Reply, Scripted
from tests.integration.test_contracts import GOOD, JUNK, picture

pytestmark = pytest.mark.usefixtures("own_pace")

V4, V3 = "azure-inference/embed-v-4-0", "azure-inference/Cohere-embed-v3-english"
Serve = Callable[..., Scripted]
Opened = Callable[..., AzureInference]


@pytest.fixture
def opened() -> Iterator[Opened]:
    made: list[AzureInference] = []

    def opened(endpoint: str, model: str = V4, **changes: Any) -> AzureInference:
        settings = Settings(
            azure_inference_endpoint=endpoint,
            azure_inference_credential=Secret("emulator"),
            azure_inference_rate=5000,
        )
        embedder = open_embedder(model, replace(settings, **changes))
        assert isinstance(embedder, AzureInference)
        made.append(embedder)
        return embedder

    yield opened
    for embedder in made:
        embedder.close()


def answer(*vectors: object, model: object = "embed-v-4-0", indices: list[int] | None = None) -> Reply:
    rows = [
        {"index": index, "object": "embedding", "embedding": vector}
        for index, vector in zip(indices or range(len(vectors)), vectors, strict=True)
    ]
    return Reply(200, {"model": model, "data": rows, "usage": {"prompt_tokens": 9, "total_tokens": 9}})


def floats(first: float = 0.5, length: int = 1024) -> list[float]:
    return [first, *np.linspace(-1, 1, length - 1).round(3).tolist()]


# -- the wire format ----------------------------------------------------------------------------------------------


def test_pictures_go_as_data_urls_and_are_documents(serve: Serve, opened: Opened) -> None:
    server = serve(answer(floats()))
    embedder = opened(f"{server.url}/models/")
    (embedding,) = embedder.embed_images([GOOD])
    (call,) = server.calls
    assert (call.path, call.query) == ("/models/images/embeddings", {"api-version": ["2024-05-01-preview"]})
    assert (call.headers["api-key"], call.headers["Authorization"]) == ("emulator", "Bearer emulator")
    assert call.headers["extra-parameters"] == "error"
    assert GOOD.data is not None
    assert json.loads(call.body) == {
        "model": "embed-v-4-0",
        "input": [{"image": f"data:image/jpeg;base64,{base64.b64encode(GOOD.data).decode()}"}],
        "dimensions": 1024,
        "encoding_format": "float",
        "input_type": "document",
    }
    assert isinstance(embedding, Embedding)
    assert embedding.vector.shape == (1024,)
    assert embedder.usage == Usage(calls=1, tokens=9)


def test_texts_are_queries_and_go_together(serve: Serve, opened: Opened) -> None:
    server = serve(answer(floats(0.25), floats(0.125), indices=[1, 0]))
    first, empty, second = opened(server.url).embed_texts(["ein Häuschen", " ", "b"])
    (call,) = server.calls
    assert call.path == "/embeddings"
    assert json.loads(call.body)["input"] == ["ein Häuschen", "b"]
    assert json.loads(call.body)["input_type"] == "query"
    assert isinstance(first, Embedding)
    assert isinstance(second, Embedding)
    assert (first.vector[0], second.vector[0]) == (0.125, 0.25)
    assert isinstance(empty, ItemError)


@pytest.mark.parametrize(
    ("model", "changes", "asked", "length"),
    [
        (V4, {}, 1024, 1024),
        (f"{V4}+512", {}, 512, 512),
        (V3, {}, None, 1024),
        ("azure-inference/mine", {}, 1024, 1024),
        ("azure-inference/mine+768", {}, 768, 768),
        ("azure-inference/mine", {"azure_inference_dimensions": 768}, None, 768),
    ],
)
def test_dimensions_are_asked_for_where_the_model_has_a_choice(
    serve: Serve, opened: Opened, model: str, changes: dict[str, Any], asked: int | None, length: int
) -> None:
    server = serve(answer(floats(length=length), model=Model(model).version.upper()))
    embedder = opened(server.url, model, **changes)
    (embedding,) = embedder.embed_images([GOOD])
    assert json.loads(server.calls[0].body).get("dimensions") == asked
    assert isinstance(embedding, Embedding)
    assert (embedding.model.name, embedding.model.dimensions, len(embedding.vector)) == (model, length, length)


def test_another_server_has_a_name_of_its_own_for_the_model(serve: Serve, opened: Opened) -> None:
    server = serve(answer(floats(), model="somebody/clip-large"))
    embedder = opened(server.url, "azure-inference/clip", azure_inference_deployment="somebody/clip-large")
    assert isinstance(embedder.embed_images([GOOD])[0], Embedding)
    assert json.loads(server.calls[0].body)["model"] == "somebody/clip-large"


@pytest.mark.parametrize(
    ("endpoint", "base"),
    [
        ("https://r.services.ai.azure.com", "https://r.services.ai.azure.com/models"),
        ("https://r.services.ai.azure.com/models/", "https://r.services.ai.azure.com/models"),
        (
            "https://r.services.ai.azure.com/models/images/embeddings?api-version=1",
            "https://r.services.ai.azure.com/models",
        ),
        ("https://d.eastus.inference.ai.azure.com/", "https://d.eastus.inference.ai.azure.com"),
        ("http://localhost:8000/v1/embeddings", "http://localhost:8000/v1"),
        ("http://localhost:8000/information", "http://localhost:8000/information"),
    ],
)
def test_endpoints_may_be_pasted_in_every_form(opened: Opened, endpoint: str, base: str) -> None:
    assert opened(endpoint)._endpoint == base


# -- what comes back ----------------------------------------------------------------------------------------------


def test_base64_is_decoded(serve: Serve, opened: Opened) -> None:
    packed = base64.b64encode(np.array(floats(0.25), "<f4").tobytes()).decode()
    (embedding,) = opened(serve(answer(packed)).url).embed_images([GOOD])
    assert isinstance(embedding, Embedding)
    assert np.array_equal(embedding.vector, np.array(floats(0.25), np.float32))


@pytest.mark.parametrize(
    ("vector", "named"),
    [
        ([-3, *[5] * 1023], "int8"),
        ([200] * 1024, "uint8"),
        ([-3] * 128, "binary"),
        ([3] * 128, "ubinary"),
        ("not base64", "no list of numbers"),
        (base64.b64encode(bytes(4096 + 4)).decode(), "1025"),
        (floats(length=1536), "1536"),
    ],
)
def test_vectors_in_other_forms_stop_the_run_by_name(serve: Serve, opened: Opened, vector: object, named: str) -> None:
    with pytest.raises(ContractBroken, match=named):
        opened(serve(answer(vector)).url).embed_images([GOOD])


@pytest.mark.parametrize(
    "body",
    [
        {"model": "embed-v-4-0"},
        {"model": "embed-v-4-0", "data": {}},
        {"model": "embed-v-4-0", "data": ["x"]},
        {"model": "embed-v-4-0", "data": []},
        {"model": "embed-v-4-0", "data": [{"index": 1, "embedding": floats()}]},
        {"data": [{"index": 0, "embedding": floats()}]},
        {"model": "Cohere-embed-v3-english", "data": [{"index": 0, "embedding": floats()}]},
    ],
)
def test_answers_that_are_not_to_the_question_stop_the_run(serve: Serve, opened: Opened, body: object) -> None:
    with pytest.raises(ContractBroken):
        opened(serve(Reply(200, body)).url).embed_images([GOOD])


# -- many in a call -----------------------------------------------------------------------------------------------


def test_one_bad_picture_among_many_harms_no_other(opened: Opened) -> None:
    pictures = [ImageInput(data=picture(colour)) for colour in ("red", "green", "blue", "white")]
    with Emulator() as emulator:
        embedder = opened(emulator.url, azure_inference_batch=3)
        assert embedder.pictures_per_call == 3
        outcomes = embedder.embed_images([pictures[0], JUNK, *pictures[1:]])
        stats = emulator.stats()
    assert [getattr(outcome, "code", None) for outcome in outcomes] == [None, "refused-input", None, None, None]
    for given, outcome in zip(pictures, [outcomes[0], *outcomes[2:]], strict=True):
        assert isinstance(outcome, Embedding)
        assert given.data is not None
        assert np.array_equal(outcome.vector, expected_vector(given.data, "embed-v-4-0"))
    # the first three together, each by itself, and the last two together
    assert stats["calls"]["imageEmbeddings"] == {"200": 3, "422": 2}
    assert embedder.usage.calls == stats["billed"] == 3


def test_models_that_take_one_picture_get_one(opened: Opened) -> None:
    with Emulator() as emulator:
        embedder = opened(emulator.url, V3, azure_inference_batch=8)
        assert embedder.pictures_per_call == 1
        assert all(isinstance(one, Embedding) for one in embedder.embed_images([GOOD] * 3))
        assert emulator.stats()["calls"]["imageEmbeddings"] == {"200": 3}


def test_what_was_answered_before_a_stop_is_handed_over(opened: Opened) -> None:
    with Emulator(faults={"azure-inference:403": 0}) as emulator:
        embedder = opened(emulator.url, azure_inference_batch=2)
        emulator.meet("nan", "azure-inference:403")
        with pytest.raises(CredentialsRefused) as caught:
            embedder.embed_images([GOOD] * 5)
    assert [getattr(outcome, "code", None) for outcome in caught.value.answered[:2]] == ["not-finite", "not-finite"]
    assert list(caught.value.answered[2:]) == [None, None, None]


# -- what is refused before a call ----------------------------------------------------------------------------------


def test_inputs_beyond_the_limits_cost_no_call(serve: Serve, opened: Opened) -> None:
    server = serve(answer(floats()))
    embedder = opened(server.url)
    images = [
        ImageInput(data=b""),
        ImageInput(data=bytes(5_000_001)),
        ImageInput(url="https://pictures.example/a.jpg"),
        ImageInput(url="https://pictures.example/a.mp4", media_type="video/mp4"),
    ]
    outcomes = [*embedder.embed_images(images), *embedder.embed_texts(["\n", " data:image/png;base64,AAAA"])]
    assert [getattr(outcome, "code", None) for outcome in outcomes] == [
        *("empty-file", "too-many-bytes", "url-not-supported", "video-not-supported"),
        *("empty-text", "not-text"),
    ]
    assert server.calls == []
    assert not embedder.limits.urls


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (f"{V4}+1536", "1024 or 512 or 256"),
        (f"{V4}+title", "1024 or 512 or 256"),
        (f"{V3}+512", "always gives 1024"),
        ("azure-inference/mine+2048", "1 to 1024"),
        ("azure-inference/EMBED-V-4-0", V4),
        *((f"{V4}+{encoding}", encoding) for encoding in ("int8", "uint8", "binary", "ubinary")),
    ],
)
def test_models_that_cannot_be_are_refused(opened: Opened, model: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        opened("http://localhost", model)
    with pytest.raises(ConfigurationError, match=named):
        dimensions_of(Model(model))


def test_missing_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="AZURE_INFERENCE_ENDPOINT and AZURE_INFERENCE_CREDENTIAL"):
        open_embedder(V4, Settings())

    def nobody(_: Tokens) -> str:
        raise ConfigurationError("No identity of this machine gives a token.")

    monkeypatch.setattr(Tokens, "get", nobody)
    with pytest.raises(ConfigurationError, match="needs AZURE_INFERENCE_CREDENTIAL"):
        open_embedder(V4, Settings(azure_inference_endpoint="http://localhost"))


# -- as an identity, and what the endpoint says of itself -------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "scope"),
    [
        ("https://r.services.ai.azure.com", "https://cognitiveservices.azure.com/.default"),
        ("https://d.eastus.inference.ai.azure.com", "https://ml.azure.com/.default"),
        ("http://localhost:1", "https://cognitiveservices.azure.com/.default"),
    ],
)
def test_tokens_are_for_the_kind_of_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str, scope: str) -> None:
    monkeypatch.setattr(Tokens, "get", lambda self: self._scope)
    open_embedder(V4, Settings(azure_inference_endpoint=endpoint)).close()
    embedder = open_embedder(V4, Settings(azure_inference_endpoint=endpoint))
    assert isinstance(embedder, AzureInference)
    assert embedder._tokens is not None
    assert embedder._tokens.get() == scope
    embedder.close()


def test_a_token_that_is_refused_is_fetched_once_more(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = ["token-0"]
    monkeypatch.setattr(Tokens, "get", lambda _: tokens[-1])
    monkeypatch.setattr(Tokens, "forget", lambda _, token: tokens.append(token.replace("0", "1")))
    denied = Reply(401, {"error": {"code": "Unauthorized", "message": "expired token-0"}})
    server = serve(denied, answer(floats()), denied)
    embedder = open_embedder(V4, Settings(azure_inference_endpoint=server.url, azure_inference_rate=5000))
    assert isinstance(embedder.embed_images([GOOD])[0], Embedding)
    assert [call.headers["Authorization"] for call in server.calls] == ["Bearer token-0", "Bearer token-1"]
    assert not any("api-key" in call.headers for call in server.calls)
    with pytest.raises(CredentialsRefused, match="Cognitive Services User") as caught:
        embedder.embed_images([GOOD])
    assert len(server.calls) == 4
    assert "token-" not in caplog.text + str(caught.value)
    embedder.close()


def test_the_endpoint_is_asked_what_it_serves_for_free(opened: Opened) -> None:
    with Emulator() as emulator:
        serverless, foundry = opened(emulator.url, V3), opened(f"{emulator.url}models", V3)
        assert serverless.inquire() == "the endpoint serves Cohere-embed-v3-english"
        assert foundry.inquire() is None
        with pytest.raises(ContractBroken, match=r"serves Cohere-embed-v3-english, and embed-v-4-0 was asked for"):
            opened(emulator.url, V4).inquire()
        with pytest.raises(CredentialsRefused):
            opened(emulator.url, V3, azure_inference_credential=Secret("wrong")).inquire()
        assert serverless.usage == Usage()
        assert emulator.stats()["billed"] == 0


def test_a_stop_is_heard() -> None:
    stop = threading.Event()
    stop.set()
    with Emulator() as emulator:
        embedder = open_embedder(V4, settings_for("", emulator), stop=stop)
        with pytest.raises(Interrupted):
            embedder.embed_images([GOOD])
        embedder.close()
