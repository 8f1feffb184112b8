"""The main job on the real photos, with the vectors that Azure really gave for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pytest

from lookalike import Lookalike
from lookalike.emulator import Emulator
from lookalike.errors import ModelMismatch
from lookalike.uris import uri_of

from ..conftest import settings_for

MODEL = "azure-vision/2022-04-11"


@pytest.fixture
def recordings(real: Path) -> Path:
    return real / "azure-vision-2022-04-11.npz"


def test_the_real_photos_end_to_end(dsn: str, real: Path, recordings: Path) -> None:
    recorded = np.load(recordings)
    names = [str(name) for name in recorded["files"]]
    vectors = recorded["vectors"].astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarities = unit @ unit.T
    with (
        Emulator(recordings=recordings, faults={"429": 0.05, "503": 0.05, "reset": 0.02}) as emulator,
        Lookalike.open(settings_for(dsn, emulator, MODEL)) as images,
    ):
        report = images.ingest(real / "images")
        assert (report.embedded, report.failed, report.calls) == (149, 0, 149)
        again = images.ingest(real / "images")
        assert (again.unchanged, again.calls) == (149, 0)

        recalled = 0
        for number, name in enumerate(names):
            path = real / "images" / name
            nearest = np.argsort(-np.delete(similarities[number], number), kind="stable")[:10]
            expected = [other if other < number else other + 1 for other in nearest]
            for exact in (None, True):
                found = images.similar(path, limit=10, exact=exact)
                got = [names.index(hit.path.name) for hit in found if hit.path is not None]
                assert len(got) == 10
                np.testing.assert_allclose(
                    [hit.similarity for hit in found], similarities[number][got], atol=5e-4, rtol=0
                )
                # neighbours closer than 1e-4 may swap
                np.testing.assert_allclose(similarities[number][got], similarities[number][expected], atol=1e-4, rtol=0)
            approximate = {hit.path.name for hit in images.similar(path, limit=10, exact=False) if hit.path}
            recalled += len(approximate & {names[other] for other in expected})
        assert recalled / 1490 >= 0.99
        assert emulator.stats()["billed"] == 149

        with psycopg.connect(dsn) as connection:
            stored: dict[str, str] = dict(
                connection.execute(
                    "select f.uri, e.embedding::text from lookalike.azure_vision_2022_04_11 e"
                    " join lookalike.files f using (image_id)"
                ).fetchall()
            )
            for name, vector in zip(names, recorded["vectors"], strict=True):
                text = stored[uri_of(real / "images" / name)]
                np.testing.assert_array_equal(np.array(text[1:-1].split(","), np.float16), vector)


def test_plain_sql_uses_the_models_own_index_and_is_complete(dsn: str, real: Path, recordings: Path) -> None:
    with Emulator(recordings=recordings) as emulator, Lookalike.open(settings_for(dsn, emulator)) as images:
        for model in (MODEL, "azure-vision/2023-04-15"):
            assert images.ingest(real / "images", model=model).embedded == 149
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set enable_seqscan = off")
        connection.execute("set enable_sort = off")
        query = (
            "select image_id from lookalike.azure_vision_2022_04_11"
            " order by embedding <=> (select embedding from lookalike.azure_vision_2022_04_11 limit 1) limit {}"
        )
        plan = "\n".join(row[0] for row in connection.execute(f"explain {query.format(10)}".encode()))
        assert "Index Scan using embeddings_1_hnsw" in plan
        assert "embeddings_2" not in plan
        assert len(connection.execute(query.format(100).encode()).fetchall()) == 100


def test_five_models_in_one_database_never_meet(dsn: str, real: Path, recordings: Path) -> None:
    models = (
        *(MODEL, "azure-inference/embed-v-4-0", "local/classic-1"),
        *("dashscope/multimodal-embedding-v1", "dashscope/qwen3-vl-embedding"),
    )
    with (
        Emulator(recordings=recordings) as emulator,
        Lookalike.open(replace(settings_for(dsn, emulator), azure_inference_batch=32)) as images,
    ):
        for model in models:
            report = images.ingest(real / "images", model=model)
            assert (report.embedded, report.failed) == (149, 0), model
        billed = emulator.stats()["billed"]
        query = real / "images" / "scene-1.jpg"
        found, vectors = {}, {model: images.embed(str(query), model=model) for model in models}
        for model in models:
            result = images.similar(query, model=model, limit=148)
            assert (result.model, len(result)) == (model, 148)
            found[model] = [hit.image_id for hit in result]
            own = images.search(vectors[model], limit=1)
            assert (own.model, own[0].path) == (model, query)
            for other in models:
                if other != model:
                    with pytest.raises(ModelMismatch):
                        images.search(vectors[model], model=other)
                    with pytest.raises(ModelMismatch):
                        vectors[model].similarity(vectors[other])
        assert len(set(map(tuple, found.values()))) == len(models)
        assert emulator.stats()["billed"] == billed
        status = images.status()
        assert {told.model: (told.embedded, told.pending) for told in status.models} == dict.fromkeys(models, (149, 0))
    with psycopg.connect(dsn) as connection:
        partitions = connection.execute("select tableoid, count(*) from lookalike.embeddings group by 1").fetchall()
        assert [count for _, count in partitions] == [149] * 5
        for room in range(1, 6):
            # nor does the database take a vector of one model for one of another
            with pytest.raises(psycopg.errors.CheckViolation), connection.transaction():
                connection.execute(
                    f"insert into lookalike.embeddings_{room} select * from lookalike.embeddings"
                    f" where model_id <> {room} limit 1".encode()
                )
