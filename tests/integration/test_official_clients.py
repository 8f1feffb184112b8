"""The services' own Python clients against the emulator, unchanged but for where they call: what they send is taken,
and what they get they can read. So the emulator is not merely what our own clients believe."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests

from lookalike.emulator import Emulator, expected_vector
from tests.integration.loopback import serving
from tests.integration.test_contracts import picture
from tests.integration.test_dashscope import VIDEO


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


def data_url(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def same(numbers: object, data: bytes | str, model: str, dimensions: int = 1024) -> bool:
    return np.array_equal(np.array(numbers, np.float32), expected_vector(data, model, dimensions))


# -- azure-ai-inference -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def azure(emulator: Emulator) -> Iterator[tuple[Any, Any]]:
    """Clients of pictures and of texts."""
    inference = pytest.importorskip("azure.ai.inference")
    credential = pytest.importorskip("azure.core.credentials").AzureKeyCredential("emulator")
    with (
        inference.ImageEmbeddingsClient(f"{emulator.url}models", credential) as images,
        inference.EmbeddingsClient(f"{emulator.url}models", credential) as texts,
    ):
        yield images, texts


def test_azure_pictures_and_texts(azure: tuple[Any, Any]) -> None:
    from azure.ai.inference.models import ImageEmbeddingInput

    images, texts = azure
    result = images.embed(
        input=[ImageEmbeddingInput(image=data_url(picture(colour))) for colour in ("teal", "red")],
        model="embed-v-4-0",
        dimensions=1024,
        input_type="document",
    )
    assert (result.model, result.usage.prompt_tokens, result.usage.total_tokens) == ("embed-v-4-0", 2000, 2000)
    assert [item.index for item in result.data] == [0, 1]
    assert same(result.data[1].embedding, picture("red"), "embed-v-4-0")
    result = texts.embed(input=["a blue house"], model="embed-v-4-0", dimensions=256, input_type="query")
    assert same(result.data[0].embedding, "a blue house", "embed-v-4-0", 256)
    packed = texts.embed(input=["a"], model="Cohere-embed-v3-english", encoding_format="base64").data[0].embedding
    assert same(np.frombuffer(base64.b64decode(packed), "<f4"), "a", "Cohere-embed-v3-english")


def test_azure_fuses_a_picture_with_its_text(azure: tuple[Any, Any]) -> None:
    from azure.ai.inference.models import ImageEmbeddingInput

    element = ImageEmbeddingInput(image=data_url(picture()), text="a teal card")
    (item,) = azure[0].embed(input=[element], model="embed-v-4-0", dimensions=1024).data
    for part in (picture(), "a teal card"):
        other = expected_vector(part, "embed-v-4-0")
        assert other @ item.embedding / np.linalg.norm(other) / np.linalg.norm(item.embedding) > 0.6


def test_azure_says_what_it_serves(emulator: Emulator) -> None:
    inference = pytest.importorskip("azure.ai.inference")
    from azure.core.credentials import AzureKeyCredential

    with inference.EmbeddingsClient(emulator.url.rstrip("/"), AzureKeyCredential("emulator")) as client:
        info = client.get_model_info()
    assert (info.model_name, info.model_provider_name) == ("Cohere-embed-v3-english", "Cohere")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"dimensions": 1000}, 422, "parameter_not_supported"),
        ({"model": "Cohere-embed-v3-english", "dimensions": 512}, 422, "parameter_not_supported"),
        ({"encoding_format": "int4"}, 422, "parameter_not_supported"),
        ({"input_type": "poem"}, 422, "parameter_not_supported"),
        ({"input": []}, 422, "parameter_not_supported"),
        ({"model": "embed-v-9"}, 404, "unknown_model"),
        ({"truncate": "END"}, 400, "invalid_parameter"),
    ],
)
def test_azure_refusals(azure: tuple[Any, Any], changes: dict[str, Any], status: int, code: str) -> None:
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError) as caught:
        azure[1].embed({"input": ["a"], "model": "embed-v-4-0", **changes})
    response: Any = caught.value.response
    assert (caught.value.status_code, response.json()["code"]) == (status, code)


def test_azure_extras_are_passed_through_or_dropped(emulator: Emulator, azure: tuple[Any, Any]) -> None:
    given = {"input": ["a"], "model": "embed-v-4-0"}
    extra = {"output_dimension": 512}
    assert len(azure[1].embed(**given, model_extras=extra).data[0].embedding) == 512
    # the trap: dropped in silence, and the model gives what it likes
    response = requests.post(
        f"{emulator.url}models/embeddings?api-version=2024-05-01-preview",
        json={**given, **extra},
        headers={"api-key": "emulator", "extra-parameters": "drop"},
        timeout=5,
    )
    assert len(response.json()["data"][0]["embedding"]) == 1536


def test_azure_refuses_a_wrong_key(emulator: Emulator) -> None:
    inference = pytest.importorskip("azure.ai.inference")
    from azure.core.credentials import AzureKeyCredential
    from azure.core.exceptions import ClientAuthenticationError

    with (
        inference.EmbeddingsClient(f"{emulator.url}models", AzureKeyCredential("wrong")) as client,
        pytest.raises(ClientAuthenticationError, match="Access token"),
    ):
        client.embed(input=["a"], model="embed-v-4-0")


@pytest.mark.parametrize("encoding", ["int8", "uint8", "binary", "ubinary"])
def test_azure_whole_numbers(azure: tuple[Any, Any], encoding: str) -> None:
    numbers = azure[1].embed(input=["a"], model="Cohere-embed-v3-english", encoding_format=encoding).data[0].embedding
    assert len(numbers) == (128 if "binary" in encoding else 1024)
    assert (min(numbers) < 0) == (not encoding.startswith("u"))
    assert -128 <= min(numbers) < max(numbers) <= 255


# -- dashscope ----------------------------------------------------------------------------------------------------


@pytest.fixture
def embed(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Any:
    dashscope = pytest.importorskip("dashscope")
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{emulator.url}api/v1")
    monkeypatch.setattr(dashscope, "api_key", "emulator")
    return dashscope.MultiModalEmbedding.call


def test_dashscope_pictures_texts_and_videos(embed: Any) -> None:
    with serving({"/a.mp4": VIDEO, "/a.jpg": picture("red")}) as site:
        contents = [
            {"text": "a blue house"},
            {"image": data_url(picture())},
            {"image": f"{site}/a.jpg"},
            {"video": f"{site}/a.mp4"},
        ]
        answer = embed("qwen3-vl-embedding", contents, dimension=1024, enable_fusion=False)
    assert (answer.status_code, answer.code) == (200, "")
    assert answer.request_id
    found = answer.output["embeddings"]
    assert [(one["index"], one["type"]) for one in found] == [(n, "vl") for n in range(4)]
    things: list[bytes | str] = ["a blue house", picture(), picture("red"), VIDEO]
    for one, data in zip(found, things, strict=True):
        assert same(one["embedding"], data, "qwen3-vl-embedding")
    usage = answer.usage
    assert usage["total_tokens"] == usage["input_tokens"] + usage["image_tokens"]


@pytest.mark.parametrize(
    ("model", "contents", "parameters", "types", "length"),
    [
        ("multimodal-embedding-v1", [{"text": "a"}, "b"], {}, ["text", "text"], 1024),
        ("tongyi-embedding-vision-plus", [{"multi_images": ["picture"] * 8}], {}, ["multi_images"], 1152),
        ("tongyi-embedding-vision-flash", [{"image": "picture", "factor": 1}], {}, ["image"], 768),
        (
            "tongyi-embedding-vision-plus-2026-03-06",
            [{"text": "a", "image": "picture"}],
            {"res_level": 2},
            ["fused"],
            1152,
        ),
        ("tongyi-embedding-vision-flash-2026-03-06", [{"image": "picture"}] * 9, {"dimension": 64}, ["image"] * 9, 64),
        ("qwen3-vl-embedding", [{"text": "a"}, {"image": "picture"}], {"enable_fusion": True}, ["fusion"], 2560),
        ("qwen2.5-vl-embedding", [{"text": "a"}, {"image": "picture"}], {"dimension": 512}, ["fusion"], 512),
    ],
)
def test_dashscope_models(
    embed: Any, model: str, contents: list[Any], parameters: dict[str, Any], types: list[str], length: int
) -> None:
    answer = embed(model, with_pictures(contents), **parameters)
    assert answer.status_code == 200, answer
    assert [one["type"] for one in answer.output["embeddings"]] == types
    assert {len(one["embedding"]) for one in answer.output["embeddings"]} == {length}
    assert answer.usage["input_tokens"] > 0 or answer.usage["image_tokens"] > 0


@pytest.mark.parametrize(
    ("model", "contents", "parameters", "status", "code"),
    [
        ("qwen9", [{"text": "a"}], {}, 404, "ModelNotFound"),
        ("text-embedding-v4", [{"text": "a"}], {}, 400, "InvalidParameter"),
        ("multimodal-embedding-v1", [{"text": "a"}], {"dimension": 1024}, 400, "InvalidParameter"),
        ("multimodal-embedding-v1", [{"text": "a"}], {"enable_fusion": True}, 400, "InvalidParameter"),
        ("multimodal-embedding-v1", [{"text": "a"}] * 21, {}, 400, "InvalidParameter"),
        ("multimodal-embedding-v1", [{"image": "picture"}] * 2, {}, 400, "InvalidParameter"),
        ("multimodal-embedding-v1", [{"audio": "a"}], {}, 400, "InvalidParameter"),
        ("multimodal-embedding-v1", [{"text": ""}], {}, 400, "InvalidParameter"),
        ("multimodal-embedding-v1", [{"text": "a", "image": "picture"}], {}, 400, "InvalidParameter"),
        ("multimodal-embedding-v1", [{"image": "huge"}], {}, 413, "BadRequest.TooLarge"),
        ("multimodal-embedding-v1", [{"image": "data:image/png;base64,AAAA"}], {}, 415, "UnsupportedFileFormat"),
        ("multimodal-embedding-v1", [{"image": "http://127.0.0.1:1/a.jpg"}], {}, 415, "InputDownloadFailed"),
        ("multimodal-embedding-v1", [{"video": "data:video/mp4;base64,AAAA"}], {}, 400, "InvalidURL"),
        ("qwen3-vl-embedding", [{"image": "picture"}] * 6, {}, 400, "InvalidParameter"),
        ("qwen3-vl-embedding", [{"text": "a"}], {"dimension": 1000}, 400, "InvalidParameter"),
        ("qwen3-vl-embedding", [{"text": "a"}], {"output_type": "sparse"}, 400, "InvalidParameter"),
        ("qwen3-vl-embedding", [{"text": "a"}], {"fps": 2}, 400, "InvalidParameter"),
        ("qwen3-vl-embedding", [{"text": "a"}], {"res_level": 1}, 400, "InvalidParameter"),
        ("qwen2.5-vl-embedding", [{"image": "picture"}] * 2, {}, 400, "InvalidParameter"),
        ("tongyi-embedding-vision-plus", [{"multi_images": ["picture"] * 9}], {}, 400, "InvalidParameter"),
    ],
)
def test_dashscope_refusals(
    embed: Any, model: str, contents: list[Any], parameters: dict[str, Any], status: int, code: str
) -> None:
    answer = embed(model, with_pictures(contents), **parameters)
    assert (answer.status_code, answer.code, answer.output) == (status, code, None)
    assert answer.message
    assert answer.request_id


def test_dashscope_refuses_a_wrong_key(embed: Any) -> None:
    answer = embed("qwen3-vl-embedding", [{"text": "a"}], api_key="wrong")
    assert (answer.status_code, answer.code) == (401, "InvalidApiKey")


def with_pictures(thing: Any) -> Any:
    """The same with data URLs where pictures are meant."""
    if isinstance(thing, list):
        return [with_pictures(one) for one in thing]
    if isinstance(thing, dict):
        return {name: with_pictures(value) for name, value in thing.items()}
    return {"picture": data_url(picture()), "huge": data_url(picture() + bytes(3 << 20))}.get(thing, thing)
