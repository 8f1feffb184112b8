"""Pictures under models of several services in one library: batches, limits of each, tokens, and nothing mixed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pytest
from PIL import Image

from lookalike import Lookalike
from lookalike.cli.library import _service as service_findings
from lookalike.config import Secret, Settings
from lookalike.emulator import Emulator, expected_vector
from lookalike.errors import ConfigurationError, CredentialsRefused, ModelMismatch
from tests.conftest import settings_for
from tests.integration.test_dashscope import V1

VISION, V4 = "azure-vision/2023-04-15", "azure-inference/embed-v-4-0"
QWEN, FLASH = "dashscope/qwen3-vl-embedding", "dashscope/tongyi-embedding-vision-flash"


@pytest.fixture
def library(dsn: str, emulator: Emulator) -> Iterator[Lookalike]:
    """An empty library over the emulator, whose calls for embed-v-4-0 hold three pictures."""
    with Lookalike.open(replace(settings_for(dsn, emulator), azure_inference_batch=3)) as images:
        yield images


def stored(dsn: str, view: str) -> dict[str, np.ndarray]:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            f"select uri, embedding::real[] from lookalike.{view} join lookalike.files using (image_id)".encode()
        )
        return {Path(uri).name: np.array(vector, np.float32) for uri, vector in found}


def test_every_model_has_its_own_vectors(dsn: str, library: Lookalike, emulator: Emulator, photos: Path) -> None:
    for model in (VISION, V4, QWEN, FLASH):
        report = library.ingest(photos, model=model)
        assert (report.embedded, report.failed) == (20, 0), report
        assert report.tokens > 0 or model == VISION
        if model in (V4, QWEN):
            assert (
                report.calls
                == emulator.stats()["calls"][{V4: "imageEmbeddings"}.get(model, "multimodalEmbedding")]["200"]
            )
            assert report.calls < 20
    views = {
        "azure_vision_2023_04_15": ("2023-04-15", 1024),
        "azure_inference_embed_v_4_0": ("embed-v-4-0", 1024),
        "dashscope_qwen3_vl_embedding": ("qwen3-vl-embedding", 1024),
        "dashscope_tongyi_embedding_vision_flash": ("tongyi-embedding-vision-flash", 768),
    }
    for view, (version, dimensions) in views.items():
        vectors = stored(dsn, view)
        assert len(vectors) == 20
        for path in photos.iterdir():
            expected = np.zeros(1024, np.float32)
            expected[:dimensions] = expected_vector(path.read_bytes(), version, dimensions)
            assert np.array_equal(vectors[path.name], expected)
    with psycopg.connect(dsn) as connection:
        runs = connection.execute("select model, calls, tokens from lookalike.runs order by run_id").fetchall()
    assert [(model, tokens > 0) for model, _, tokens in runs] == [
        (VISION, False),
        (V4, True),
        (QWEN, True),
        (FLASH, True),
    ]
    assert runs[1][2] == 20 * 1000
    # the same picture is found under each, and a vector of one is not taken for one of another
    query = next(photos.iterdir())
    found = [
        library.search(image=query.read_bytes(), model=model, include_self=True, limit=1)[0]
        for model in (VISION, V4, QWEN, FLASH)
    ]
    assert len({hit.image_id for hit in found}) == 1
    assert all(math.isclose(hit.similarity, 1, abs_tol=1e-5) for hit in found)
    with pytest.raises(ModelMismatch):
        library.search(library.embed("a blue house", model=V4), model=QWEN)


def test_what_is_too_large_for_one_model_is_shrunk_for_that_one_alone(
    dsn: str, library: Lookalike, tmp_path: Path
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1100, 960, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(noise).save(path, compress_level=1)
    data = path.read_bytes()
    assert len(data) > 3 << 20
    assert [library.ingest(path, model=model).adapted for model in (QWEN, V1)] == [0, 1]
    assert np.array_equal(
        stored(dsn, "dashscope_qwen3_vl_embedding")["noise.png"], expected_vector(data, "qwen3-vl-embedding")
    )
    assert not np.array_equal(
        stored(dsn, "dashscope_multimodal_embedding_v1")["noise.png"], expected_vector(data, "multimodal-embedding-v1")
    )


def test_too_many_pixels_are_shrunk_to_what_the_model_takes(library: Lookalike, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.new("RGB", (2001, 1001), "teal").save(path)
    report = library.ingest(path, model=V4)
    assert (report.embedded, report.adapted) == (1, 1)
    report = library.ingest(path, model="azure-inference/Cohere-embed-v3-english", shrink=False)
    assert (report.embedded, report.adapted) == (1, 0)
    library.delete(path)
    assert library.ingest(path, model=V4, shrink=False).failed == 1
    assert "2,000,000" in library.failures()[0].message


def test_a_budget_of_calls_loses_nothing_that_was_paid_for(
    library: Lookalike, emulator: Emulator, photos: Path
) -> None:
    report = library.ingest(photos, model=V4, max_calls=3, concurrency=1)
    assert report.calls == emulator.stats()["billed"] == 3
    assert 3 <= report.embedded <= 9  # no call waits until it is full
    assert report.embedded + report.pending == 20
    again = library.ingest(photos, model=V4)
    assert (again.embedded, again.unchanged) == (20 - report.embedded, report.embedded)
    assert emulator.stats()["billed"] == 3 + again.calls


def test_a_stop_in_a_batch_keeps_what_was_answered(library: Lookalike, emulator: Emulator, photos: Path) -> None:
    # the call of three is refused for one of them, and while they go one by one the key is taken back
    emulator.meet("azure-inference:413", "azure-inference:403")
    with pytest.raises(CredentialsRefused) as caught:
        library.ingest(photos, model=V4, concurrency=1)
    report = caught.value.report
    assert report.calls == report.embedded == emulator.stats()["billed"]
    assert report.embedded + report.failed + report.pending == 20


def test_a_plan_counts_calls_and_not_pictures(library: Lookalike, emulator: Emulator, photos: Path) -> None:
    plan = library.plan(photos, model=QWEN, rate=1)
    assert (plan.new, plan.calls, plan.seconds) == (20, 4, 4)
    assert (plan.price, plan.currency) == (None, "CNY")  # it goes by tokens
    assert emulator.stats()["billed"] == 0


def test_doctor_asks_for_free_what_an_endpoint_serves(
    dsn: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "LOOKALIKE_DATABASE_URL": dsn,
        "AZURE_INFERENCE_ENDPOINT": emulator.url,
        "AZURE_INFERENCE_CREDENTIAL": "emulator",
    }.items():
        monkeypatch.setenv(name, value)
    for model, level, said in (
        ("azure-inference/Cohere-embed-v3-english", "ok", "the endpoint serves Cohere-embed-v3-english"),
        (V4, "warn", "serves Cohere-embed-v3-english, and embed-v-4-0 was asked for"),
    ):
        monkeypatch.setenv("LOOKALIKE_MODEL", model)
        (finding,) = service_findings(Settings.from_environment())
        assert finding.level == level
        assert said in f"{finding.detail} {finding.remedy}"
    assert emulator.stats()["billed"] == 0


def test_urls_are_not_sent_to_a_service_that_fetches_nothing(library: Lookalike, photos: Path) -> None:
    with pytest.raises(ConfigurationError, match="--send-urls"):
        library.ingest(photos, model=V4, send_urls=True)


def test_keys_show_nowhere(dsn: str, emulator: Emulator, photos: Path) -> None:
    settings = replace(
        settings_for(dsn, emulator),
        azure_inference_credential=Secret("hush-hush"),
        dashscope_api_key=Secret("hush-hush"),
    )
    assert "hush" not in repr(settings)
    with Lookalike.open(settings) as images:
        for model in (V4, QWEN):
            with pytest.raises(CredentialsRefused) as caught:
                images.ingest(photos, model=model)
            assert "hush" not in str(caught.value)
            assert caught.value.report.pending == 20
