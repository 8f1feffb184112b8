"""DashScope: what is sent to each model, what is read, and what is refused before a call is spent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lookalike.config import Secret, Settings
from lookalike.embedders import dimensions_of, http, open_embedder
from lookalike.embedders.dashscope import MODELS, DashScope
from lookalike.emulator import Emulator, expected_vector
from lookalike.errors import ConfigurationError, ContractBroken, ItemError
from lookalike.types import Embedding, ImageInput, Model, Usage
from tests.integration.loopback import serving
from tests.integration.scripted import Reply, Scripted
from tests.integration.test_contracts import GOOD, JUNK, picture

pytestmark = pytest.mark.usefixtures("own_pace")

V1, QWEN3, QWEN2 = (
    f"dashscope/{name}" for name in ("multimodal-embedding-v1", "qwen3-vl-embedding", "qwen2.5-vl-embedding")
)
PLUS = "dashscope/tongyi-embedding-vision-plus-2026-03-06"
FLASH = "dashscope/tongyi-embedding-vision-flash"
PATH = "/services/embeddings/multimodal-embedding/multimodal-embedding"
VIDEO = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20
MB = 1 << 20
Serve = Callable[..., Scripted]
Opened = Callable[..., DashScope]


@pytest.fixture
def opened() -> Iterator[Opened]:
    made: list[DashScope] = []

    def opened(endpoint: str, model: str = QWEN3, **changes: Any) -> DashScope:
        settings = Settings(dashscope_api_key=Secret("emulator"), dashscope_endpoint=endpoint, dashscope_rate=5000)
        embedder = open_embedder(model, replace(settings, **changes))
        assert isinstance(embedder, DashScope)
        made.append(embedder)
        return embedder

    yield opened
    for embedder in made:
        embedder.close()


def answer(*vectors: list[float], usage: dict[str, int] | None = None) -> Reply:
    rows = [{"index": index, "type": "vl", "embedding": vector} for index, vector in enumerate(vectors)]
    return Reply(200, {"output": {"embeddings": rows}, "usage": usage or {}, "request_id": "id-200"})


def floats(length: int = 1024) -> list[float]:
    return np.linspace(-1, 1, length).round(3).tolist()  # type: ignore[no-any-return]


# -- the wire format ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "parameters", "length"),
    [
        (V1, None, 1024),
        (QWEN3, {"dimension": 1024, "enable_fusion": False}, 1024),
        (f"{QWEN3}+256", {"dimension": 256, "enable_fusion": False}, 256),
        (QWEN2, {"dimension": 1024}, 1024),
        (PLUS, {"dimension": 1024}, 1024),
        (f"{PLUS}+64", {"dimension": 64}, 64),
        (FLASH, None, 768),
        (f"{FLASH}-2026-03-06", {"dimension": 768}, 768),
        ("dashscope/one-of-tomorrow", {"dimension": 1024}, 1024),
    ],
)
def test_every_model_is_asked_for_what_it_can_give(
    serve: Serve, opened: Opened, model: str, parameters: object, length: int
) -> None:
    server = serve(answer(floats(length)))
    embedder = opened(f"{server.url}/api/v1/", model)
    (embedding,) = embedder.embed_texts(["ein Häuschen"])
    (call,) = server.calls
    assert (call.path, call.headers["Authorization"]) == (f"/api/v1{PATH}", "Bearer emulator")
    body = json.loads(call.body)
    assert body.pop("parameters", None) == parameters
    assert body == {"model": Model(model).version, "input": {"contents": [{"text": "ein Häuschen"}]}}
    assert isinstance(embedding, Embedding)
    assert len(embedding.vector) == embedding.model.dimensions == length


def test_pictures_go_as_data_urls_and_videos_by_their_urls(serve: Serve, opened: Opened) -> None:
    server = serve(answer(floats()))
    images = [
        ImageInput(data=picture(format="PNG")),
        ImageInput(url="https://pictures.example/a.jpg"),
        ImageInput(url="https://pictures.example/a.mp4", media_type="video/mp4"),
    ]
    opened(server.url, dashscope_batch=1).embed_images(images)
    contents = [json.loads(call.body)["input"]["contents"] for call in server.calls]
    assert contents[0][0]["image"].startswith("data:image/png;base64,iVBOR")
    assert contents[1:] == [[{"image": images[1].url}], [{"video": images[2].url}]]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"input_tokens": 3, "image_tokens": 620, "image_count": 1, "duration": 0}, 623),
        ({"input_tokens": 43, "image_tokens": 620, "total_tokens": 663}, 663),
        ({"input_tokens": 402, "output_tokens": 1, "total_tokens": 403}, 403),
    ],
)
def test_tokens_are_counted_in_every_form(serve: Serve, opened: Opened, usage: dict[str, int], tokens: int) -> None:
    embedder = opened(serve(answer(floats(), usage=usage)).url)
    embedder.embed_images([GOOD])
    assert embedder.usage == Usage(calls=1, tokens=tokens)


@pytest.mark.parametrize(
    "body",
    [
        {"output": {}},
        {"output": None},
        {"output": {"embeddings": ["x"]}},
        {"output": {"embeddings": [{"index": 0, "embedding": floats()}, {"index": 1, "embedding": floats()}]}},
        {"output": {"embeddings": [{"index": 0, "embedding": floats(1152)}]}},
    ],
)
def test_answers_that_are_not_to_the_question_stop_the_run(serve: Serve, opened: Opened, body: object) -> None:
    with pytest.raises(ContractBroken):
        opened(serve(Reply(200, body)).url).embed_images([GOOD])


def test_an_error_that_says_msg_is_understood(serve: Serve, opened: Opened) -> None:
    reply = Reply(400, {"code": "DataInspectionFailed", "msg": "Not this one.", "request_id": "id-400"})
    (error,) = opened(serve(reply).url).embed_images([GOOD])
    assert isinstance(error, ItemError)
    assert (error.code, error.request_id) == ("refused-content", "id-400")
    assert "Not this one." in str(error)


@pytest.mark.parametrize(
    ("status", "message", "code", "calls"),
    [
        (400, "The image is damaged.", "refused-input", 1),
        (400, "Failed to download the thing.", "url-not-accessible", 1),
        (400, "Something else.", "refused", 1),
        (500, "An image was lost inside.", "service-unavailable", 8),
    ],
)
@pytest.mark.usefixtures("no_waiting")
def test_internal_errors_are_told_apart_by_status_and_words(
    serve: Serve, opened: Opened, status: int, message: str, code: str, calls: int
) -> None:
    server = serve(Reply(status, {"code": "InternalError.Algo", "message": message}))
    (error,) = opened(server.url).embed_images([GOOD])
    assert isinstance(error, ItemError)
    assert error.code == code
    assert len(server.calls) >= calls
    assert (len(server.calls) == 1) == (calls == 1)


def test_unknown_refusals_fail_their_input_until_there_are_ten_alike(serve: Serve, opened: Opened) -> None:
    for status in (400, 200):
        server = serve(Reply(status, {"code": "Unheard", "message": "Of."}))
        embedder = opened(server.url)
        errors = [embedder.embed_images([GOOD])[0] for _ in range(9)]
        assert {error.code for error in errors if isinstance(error, ItemError)} == {"refused"}
        with pytest.raises(ContractBroken, match="10 times in a row"):
            embedder.embed_images([GOOD])
        assert embedder.usage.calls == 0


# -- over the emulator --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_every_model_embeds_pictures_texts_and_videos(opened: Opened, model: str) -> None:
    with Emulator() as emulator, serving({"/a.mp4": VIDEO, "/a.jpg": picture("red")}) as site:
        embedder = opened(f"{emulator.url}api/v1", model)
        given: list[tuple[ImageInput, bytes]] = [
            *((ImageInput(data=picture(colour)), picture(colour)) for colour in ("teal", "blue")),
            (ImageInput(url=f"{site}/a.jpg"), picture("red")),
            (ImageInput(url=f"{site}/a.mp4", media_type="video/mp4"), VIDEO),
            (ImageInput(data=picture("white")), picture("white")),
        ]
        outcomes = embedder.embed_images([image for image, _ in given])
        texts = embedder.embed_texts(["a blue house", "a red one"])
        calls = emulator.stats()["calls"]["multimodalEmbedding"]
    version, dimensions = embedder.model.version, embedder.model.dimensions
    everything: list[bytes | str] = [*(data for _, data in given), "a blue house", "a red one"]
    expected = [expected_vector(data, version, dimensions) for data in everything]
    for outcome, vector in zip([*outcomes, *texts], expected, strict=True):
        assert isinstance(outcome, Embedding)
        assert np.array_equal(outcome.vector, vector)
    assert embedder.usage.tokens > 0
    assert calls.keys() == {"200"}
    # pictures up to the video, the video, the picture behind it
    pictures = {1: 5, 5: 3, 20: 3}[embedder.pictures_per_call]
    assert calls["200"] == pictures + (2 if model == QWEN2 else 1)


def test_a_bad_picture_among_many_harms_no_other(opened: Opened) -> None:
    with Emulator() as emulator:
        embedder = opened(f"{emulator.url}api/v1")
        outcomes = embedder.embed_images([GOOD, JUNK, GOOD, ImageInput(data=b"")])
        assert [getattr(one, "code", None) for one in outcomes] == [None, "unsupported-format", None, "empty-file"]
        assert embedder.usage.calls == emulator.stats()["billed"] == 2


def test_a_text_finds_the_video_that_it_was_said_to_describe(opened: Opened) -> None:
    with Emulator() as emulator, serving({"/a.mp4": VIDEO}) as site:
        emulator.describe(VIDEO, "waves on a beach")
        embedder = opened(f"{emulator.url}api/v1", V1)
        video, other = embedder.embed_images([ImageInput(url=f"{site}/a.mp4", media_type="video/mp4"), GOOD])
        said, unsaid = embedder.embed_texts(["waves on a beach", "a mountain"])
    assert all(isinstance(one, Embedding) for one in (video, other, said, unsaid))
    assert said.similarity(video) > 0.8  # type: ignore[union-attr, arg-type]
    assert abs(said.similarity(other)) < 0.2  # type: ignore[union-attr, arg-type]
    assert abs(unsaid.similarity(video)) < 0.2  # type: ignore[union-attr, arg-type]


def test_models_are_where_they_are(opened: Opened) -> None:
    with Emulator(region="ap-southeast-1") as emulator:
        with pytest.raises(ContractBroken, match="DASHSCOPE_API_REGION"):
            opened(f"{emulator.url}api/v1", V1).embed_images([GOOD])
        assert isinstance(opened(f"{emulator.url}api/v1", FLASH).embed_images([GOOD])[0], Embedding)


# -- limits and pace ----------------------------------------------------------------------------------------------


def test_every_model_has_its_limits(opened: Opened) -> None:
    limits = {model: opened("http://localhost", model).limits for model in MODELS}
    assert {model: limit.max_bytes // MB for model, limit in limits.items()} == {
        V1: 3,
        QWEN2: 5,
        QWEN3: 10,
        PLUS: 5,
        f"{FLASH}-2026-03-06": 5,
        FLASH: 3,
    }
    assert (limits[V1].max_video_bytes, limits[QWEN3].max_video_bytes) == (10 * MB, 50 * MB)
    assert limits[V1].media_types == {"image/jpeg", "image/png", "image/bmp"}
    (error,) = opened("http://localhost", V1).embed_images([ImageInput(data=bytes(3 * MB + 1))])
    assert isinstance(error, ItemError)
    assert error.code == "too-many-bytes"


def test_the_pace_is_the_models_and_the_accounts(opened: Opened) -> None:
    rates = {model: opened("http://localhost", model, dashscope_rate=None).rate for model in (V1, PLUS, QWEN3)}
    assert rates == {V1: 2, PLUS: 10, QWEN3: 20}
    assert opened("http://localhost", V1, dashscope_rate=7).rate == 7
    assert len(http._buckets) == 3
    opened("http://localhost", V1, dashscope_api_key=Secret("another-key-of-the-same-account"))
    assert len(http._buckets) == 3
    opened("http://localhost", V1, dashscope_account="another")
    assert len(http._buckets) == 4


def test_threads_with_two_keys_keep_to_the_rate_of_one_account(opened: Opened, no_waiting: list[float]) -> None:
    with Emulator() as emulator:
        embedders = [
            opened(f"{emulator.url}api/v1", V1, dashscope_rate=2, dashscope_api_key=Secret(key))
            for key in ("emulator", " emulator ")
        ]
        threads = [threading.Thread(target=embedder.embed_images, args=([GOOD] * 4,)) for embedder in embedders]
        for thread in threads:
            thread.start()
            thread.join()
        assert emulator.stats()["billed"] == 8
    assert sum(no_waiting) >= 2.9  # eight calls at two a second, of which two were saved up


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("house " * 256, "house " * 256),
        ("house " * 400, "house " * 255 + "house"),
        ("房" * 512, "房" * 512),
        ("房" * 513, "房" * 512),
        ("房" * 300 + " " + "屋" * 300, "房" * 300 + " " + "屋" * 212),
        ("!" * 600, "!" * 512),
        ("x" * 5000, "x" * 1536),
    ],
)
def test_texts_that_are_too_long_are_cut(serve: Serve, opened: Opened, text: str, taken: str) -> None:
    server = serve(answer(floats()))
    opened(server.url, V1).embed_texts([text])
    sent = json.loads(server.calls[0].body)["input"]["contents"][0]["text"]
    assert sent == taken


# -- what is refused before a call ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("dashscope/tongyi-embedding-vision-plus", "1,152 numbers"),
        (f"{QWEN3}+2560", "1024 or 768 or 512 or 256"),
        (f"{QWEN3}+multi_images", "multi_images"),
        (f"{FLASH}+multi_images", "multi_images"),
        (f"{V1}+512", "1024 numbers"),
        (f"{PLUS}+title", "1024 or 512"),
        ("dashscope/one-of-tomorrow+2048", "cannot be"),
    ],
)
def test_models_that_do_not_fit_are_refused_with_those_that_do(opened: Opened, model: str, named: str) -> None:
    for attempt in (lambda: opened("http://localhost", model), lambda: dimensions_of(Model(model))):
        with pytest.raises(ConfigurationError, match=named) as caught:
            attempt()
        assert all(fitting in str(caught.value) for fitting in MODELS)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigurationError, match="DASHSCOPE_API_KEY"):
        open_embedder(V1, Settings())


def test_inputs_that_cannot_be_sent_cost_no_call(serve: Serve, opened: Opened) -> None:
    server = serve(answer(floats()))
    embedder = opened(server.url)
    outcomes = [
        *embedder.embed_images([ImageInput(data=VIDEO, media_type="video/mp4"), ImageInput(data=b"")]),
        *embedder.embed_texts([" \n"]),
    ]
    codes = [getattr(outcome, "code", None) for outcome in outcomes]
    assert codes == ["video-not-supported", "empty-file", "empty-text"]
    assert server.calls == []


# -- where it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ({}, "https://dashscope.aliyuncs.com/api/v1"),
        (
            {"DASHSCOPE_API_REGION": "cn-beijing", "DASHSCOPE_WORKSPACE_ID": "ws"},
            "https://dashscope.aliyuncs.com/api/v1",
        ),
        ({"DASHSCOPE_API_REGION": "ap-southeast-1"}, "https://dashscope-intl.aliyuncs.com/api/v1"),
        (
            {"DASHSCOPE_API_REGION": "eu-central-1", "DASHSCOPE_WORKSPACE_ID": "ws-1"},
            "https://ws-1.eu-central-1.maas.aliyuncs.com/api/v1",
        ),
        ({"DASHSCOPE_HTTP_BASE_URL": "https://proxy.example/api/v1"}, "https://proxy.example/api/v1"),
    ],
)
def test_regions(given: dict[str, str], endpoint: str) -> None:
    assert Settings.from_environment({"PATH": "x", **given}).dashscope_endpoint == endpoint


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"DASHSCOPE_API_REGION": "us-east-1"}, "DASHSCOPE_WORKSPACE_ID"),
        ({"DASHSCOPE_API_REGION": "evil.example/"}, "DASHSCOPE_API_REGION"),
        ({"DASHSCOPE_API_REGION": "us-east-1", "DASHSCOPE_WORKSPACE_ID": "a.evil/"}, "DASHSCOPE_WORKSPACE_ID"),
        ({"DASHSCOPE_RATE": "fast"}, "DASHSCOPE_RATE"),
        ({"DASHSCOPE_BATCH": "0"}, "DASHSCOPE_BATCH"),
        ({"AZURE_INFERENCE_RATE": "0"}, "AZURE_INFERENCE_RATE"),
        ({"AZURE_INFERENCE_BATCH": "some"}, "AZURE_INFERENCE_BATCH"),
        ({"AZURE_INFERENCE_DIMENSIONS": "1536"}, "AZURE_INFERENCE_DIMENSIONS"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Settings.from_environment(given)
