"""The emulator's Azure AI Model Inference and DashScope on the wire: what official clients and ours never do, too."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests

from lookalike.emulator import SERVICE_FAULTS, Emulator, expected_vector, parse_fault
from lookalike.errors import ConfigurationError
from tests.integration.test_contracts import picture

IMAGES, TEXTS = "models/images/embeddings", "models/embeddings"
DASHSCOPE = "api/v1/services/embeddings/multimodal-embedding/multimodal-embedding"
KEY = {"api-key": "emulator", "Authorization": "Bearer emulator"}
VERSION = {"api-version": "2024-05-01-preview"}
DATA_URL = f"data:image/jpeg;base64,{base64.b64encode(picture()).decode()}"
PICTURE = {"model": "embed-v-4-0", "input": [{"image": DATA_URL}], "dimensions": 1024}


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


def post(emulator: Emulator, path: str, body: Any, *, params: Any = VERSION, headers: Any = KEY) -> requests.Response:
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    return requests.post(emulator.url + path, params=params, headers=headers, data=data, timeout=20)


# -- Azure AI Model Inference --------------------------------------------------------------------------------------


def test_a_serverless_deployment_needs_no_model(emulator: Emulator) -> None:
    answer = post(emulator, "images/embeddings", {"input": [{"image": DATA_URL}]}).json()
    assert answer["model"] == "Cohere-embed-v3-english"
    expected = expected_vector(picture(), "Cohere-embed-v3-english")
    assert np.array_equal(np.array(answer["data"][0]["embedding"], np.float32), expected)
    assert post(emulator, IMAGES, {"input": [{"image": DATA_URL}]}).json()["code"] == "no_model_name"


@pytest.mark.parametrize("headers", [{"api-key": "emulator"}, {"Authorization": "Bearer some.token"}])
def test_key_or_token(emulator: Emulator, headers: dict[str, str]) -> None:
    assert post(emulator, IMAGES, PICTURE, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("params", "headers", "status"),
    [
        ({}, {}, 400),
        ({"api-version": "2023-05-01"}, {}, 400),
        (VERSION, {}, 401),
        (VERSION, {**KEY, "api-key": "wrong"}, 401),
        (VERSION, {"Authorization": "Basic emulator"}, 401),
    ],
)
def test_the_gateway_comes_first(emulator: Emulator, params: Any, headers: Any, status: int) -> None:
    response = post(emulator, IMAGES, "no json", params=params, headers=headers)
    error = response.json()["error"]
    assert (response.status_code, response.headers["x-ms-error-code"]) == (status, error["code"])
    assert error.keys() == {"code", "message", "target", "details", "innererror"}


@pytest.mark.parametrize(
    ("path", "body", "status", "place"),
    [
        (IMAGES, "no json", 400, ["body"]),
        (IMAGES, [], 400, ["body"]),
        (IMAGES, {**PICTURE, "output_dimension": 1024}, 400, ["body", "output_dimension"]),
        (IMAGES, {**PICTURE, "model": "text-embedding-3-small"}, 404, ["body", "model"]),
        (IMAGES, {**PICTURE, "input": []}, 422, ["body", "input"]),
        (IMAGES, {**PICTURE, "input": ["text"]}, 422, ["body", "input", 0, "image"]),
        (
            IMAGES,
            {**PICTURE, "input": [{"image": "https://pictures.example/a.jpg"}]},
            422,
            ["body", "input", 0, "image"],
        ),
        (IMAGES, {**PICTURE, "input": [{"image": DATA_URL, "text": 3}]}, 422, ["body", "input", 0, "text"]),
        (IMAGES, {**PICTURE, "dimensions": 3}, 422, ["body", "dimensions"]),
        (IMAGES, {"model": "Cohere-embed-v3-english", "input": [{"image": DATA_URL}] * 2}, 422, ["body", "input"]),
        (TEXTS, {"model": "embed-v-4-0", "input": ["a"] * 97}, 422, ["body", "input"]),
        (TEXTS, {"model": "embed-v-4-0", "input": ["a", ""]}, 422, ["body", "input", 1]),
    ],
)
def test_what_is_wrong_is_named_by_its_place(
    emulator: Emulator, path: str, body: Any, status: int, place: list[Any]
) -> None:
    response = post(emulator, path, body)
    assert response.status_code == status, response.text
    answer = response.json()
    assert answer["status"] == status
    detail = answer["detail"]
    assert (detail[0] if isinstance(detail, list) else detail)["loc"] == place
    # the reference has an object there, its samples a list: both occur
    assert isinstance(detail, list) == ("input" in place)


def test_bodies_have_a_limit(emulator: Emulator) -> None:
    assert post(emulator, IMAGES, b" " * (33 << 20)).status_code == 413


def test_info_is_only_at_the_root_and_costs_nothing(emulator: Emulator) -> None:
    before = emulator.stats()["billed"]
    assert requests.get(f"{emulator.url}info", params=VERSION, headers=KEY, timeout=5).status_code == 200
    response = requests.get(f"{emulator.url}models/info", params=VERSION, headers=KEY, timeout=5)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "NotFound")
    assert emulator.stats()["billed"] == before


# -- DashScope ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "code"),
    [
        ("api/v1/services/embeddings/text-embedding/text-embedding", KEY, {}, 404, "NotFound"),
        ("api/v1/compatible-mode/v1/embeddings", KEY, {}, 404, "NotFound"),
        (DASHSCOPE, {}, {}, 401, "InvalidApiKey"),
        (DASHSCOPE, {"Authorization": "Bearer wrong"}, {}, 401, "InvalidApiKey"),
        (DASHSCOPE, KEY, "no json", 400, "InvalidParameter"),
        (DASHSCOPE, KEY, {}, 400, "BadRequest.EmptyModel"),
        (DASHSCOPE, KEY, {"model": "qwen3-vl-embedding"}, 400, "BadRequest.EmptyInput"),
        (DASHSCOPE, KEY, {"model": "qwen3-vl-embedding", "input": {"contents": []}}, 400, "BadRequest.EmptyInput"),
        (
            DASHSCOPE,
            KEY,
            {"model": "qwen3-vl-embedding", "input": {"contents": ["a"]}, "parameters": {"size": 1}},
            400,
            "InvalidParameter",
        ),
    ],
)
def test_flat_errors(emulator: Emulator, path: str, headers: Any, body: Any, status: int, code: str) -> None:
    response = post(emulator, path, body, params={}, headers=headers)
    assert response.status_code == status
    answer = response.json()
    assert answer.keys() == {"code", "message", "request_id"}
    assert answer["code"] == code


def test_each_service_has_a_rate_of_its_own() -> None:
    texts = {"model": "qwen3-vl-embedding", "input": {"contents": ["a"]}}
    with Emulator(rate=1) as emulator:
        assert [post(emulator, IMAGES, PICTURE).status_code for _ in range(2)] == [200, 429]
        assert post(emulator, DASHSCOPE, texts).status_code == 200
        limited = post(emulator, DASHSCOPE, texts)
        assert (limited.status_code, limited.json()["code"]) == (429, "Throttling.RateQuota")
        assert "Retry-After" not in limited.headers


# -- what all have in common ----------------------------------------------------------------------------------------


def test_a_described_picture_is_near_its_text_under_every_model() -> None:
    with Emulator() as emulator:
        emulator.describe(picture(), "a teal card")
        texts = {"model": "embed-v-4-0", "input": ["a teal card", "a mountain"], "dimensions": 1024}
        near, far = (np.array(row["embedding"]) for row in post(emulator, TEXTS, texts).json()["data"])
        contents = {"model": "multimodal-embedding-v1", "input": {"contents": ["a teal card"]}}
        other = np.array(post(emulator, DASHSCOPE, contents).json()["output"]["embeddings"][0]["embedding"])
    shown = expected_vector(picture(), "embed-v-4-0")
    assert shown @ near / np.linalg.norm(shown) / np.linalg.norm(near) > 0.85
    assert abs(shown @ far / np.linalg.norm(shown) / np.linalg.norm(far)) < 0.2
    shown = expected_vector(picture(), "multimodal-embedding-v1")
    assert shown @ other / np.linalg.norm(shown) / np.linalg.norm(other) > 0.85


def test_faults_of_one_service_are_drawn_and_do_not_touch_the_others() -> None:
    with Emulator(faults={"dashscope:Arrearage": 1}) as emulator:
        assert post(emulator, IMAGES, PICTURE).status_code == 200
        assert post(emulator, DASHSCOPE, {}).json()["code"] == "Arrearage"
        emulator.meet("500")
        assert [post(emulator, IMAGES, PICTURE).status_code for _ in range(2)] == [500, 200]


def test_faults_that_nobody_knows_are_refused() -> None:
    assert parse_fault("dashscope:Arrearage=0.1") == ("dashscope:Arrearage", 0.1)
    with pytest.raises(ConfigurationError, match="dashscope:Arrearage"):
        Emulator(faults={"dashscope:Unheard": 0.1})
    with pytest.raises(ConfigurationError, match="truncated-json"):
        Emulator().meet("unheard")
    assert len(set(SERVICE_FAULTS)) == len(SERVICE_FAULTS)
