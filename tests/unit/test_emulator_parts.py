"""The emulator's parts by themselves: faults, token bucket, recordings and settings."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.emulator import FAULT_KINDS, Emulator, expected_vector, parse_fault
from lookalike.emulator.recordings import Vectors
from lookalike.emulator.traffic import Counters, Faults, TokenBucket, whole_seconds
from lookalike.errors import ConfigurationError

MODEL = "azure-vision/2022-04-11"


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parsed"), [("429=0.2", ("429", 0.2)), ("nan=1", ("nan", 1.0)), (" zero = 0 ", ("zero", 0.0))]
)
def test_parse_fault(text: str, parsed: tuple[str, float]) -> None:
    assert parse_fault(text) == parsed


@pytest.mark.parametrize("text", ["", "429", "429=", "429=often", "404=0.1", "=0.1", "429=1.5", "429=-1", "429=nan"])
def test_parse_fault_refuses(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_fault(text)


@pytest.mark.parametrize("text", ["404=0.1", "truncated"])
def test_parse_fault_names_what_it_knows(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_fault(text)
    assert all(kind in str(caught.value) for kind in FAULT_KINDS)


def test_faults_are_drawn_by_their_shares() -> None:
    faults = Faults({"429": 0.1, "nan": 0.3})
    drawn = Counter(faults.draw() for _ in range(10_000))
    assert drawn.keys() == {"429", "nan", None}
    assert drawn["429"] == pytest.approx(1000, rel=0.15)
    assert drawn["nan"] == pytest.approx(3000, rel=0.1)


def test_faults_are_the_same_in_every_run() -> None:
    runs = [Faults({"500": 0.5}) for _ in range(2)]
    first, second = ([run.draw() for _ in range(50)] for run in runs)
    assert first == second


def test_faults_may_fill_everything_up() -> None:
    faults = Faults(dict.fromkeys(FAULT_KINDS[:10], 0.1))
    assert None not in {faults.draw() for _ in range(1000)}
    certain = Faults({"zero": 1})
    assert {certain.draw() for _ in range(100)} == {"zero"}
    assert Faults({}).draw() is None
    never = Faults({"zero": 0})
    assert {never.draw() for _ in range(100)} == {None}


@pytest.mark.parametrize("shares", [{"429": 0.6, "500": 0.6}, {"404": 0.1}, {"429": -0.1}, {"429": float("nan")}])
def test_faults_refuse(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        Faults(shares)


# --- rate ------------------------------------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(bucket: TokenBucket, attempts: int) -> int:
    return sum(bucket.take() == 0 for _ in range(attempts))


def test_bucket_holds_one_second() -> None:
    clock = Clock()
    bucket = TokenBucket(10, clock)
    assert taken(bucket, 30) == 10
    clock.now += 0.35
    assert taken(bucket, 30) == 3
    clock.now += 60
    assert taken(bucket, 30) == 10


def test_bucket_says_how_long_to_wait() -> None:
    clock = Clock()
    bucket = TokenBucket(0.25, clock)
    assert bucket.take() == 0
    assert bucket.take() == pytest.approx(4)
    clock.now += 3
    assert bucket.take() == pytest.approx(1)
    clock.now += 1.001
    assert bucket.take() == 0


def test_bucket_below_one_holds_one_token() -> None:
    clock = Clock()
    bucket = TokenBucket(1.5, clock)
    assert taken(bucket, 5) == 1
    clock.now += 100
    assert taken(TokenBucket(0.1, clock), 5) == 1


@pytest.mark.parametrize(("wait", "said"), [(0.01, 1), (1.0, 1), (1.01, 2), (39.5, 40)])
def test_whole_seconds(wait: float, said: int) -> None:
    assert whole_seconds(wait) == said


# --- counting --------------------------------------------------------------------------------------------------------


def test_a_call_that_fails_is_not_counted_but_leaves() -> None:
    counters = Counters(["paint"])

    def call_and_fail() -> None:
        with counters.call("paint"):
            assert counters.snapshot()["in_flight"] == 1
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        call_and_fail()
    assert counters.snapshot() == {"billed": 0, "calls": {"paint": {}}, "in_flight": 0, "peak": 1}


def test_a_call_leaves_once() -> None:
    counters = Counters(["paint"])
    with counters.call("paint") as call:
        call.answered("200", billed=True)
        assert counters.snapshot()["in_flight"] == 0
    assert counters.snapshot() == {"billed": 1, "calls": {"paint": {"200": 1}}, "in_flight": 0, "peak": 1}


# --- vectors ---------------------------------------------------------------------------------------------------------


def test_computed_vectors_look_like_real_ones() -> None:
    vectors = np.stack([expected_vector(str(number), "2023-04-15") for number in range(200)])
    assert vectors.dtype == np.float32
    assert vectors.shape == (200, 1024)
    norms = np.linalg.norm(vectors, axis=1)
    assert norms.min() > 80
    assert norms.max() < 105
    assert norms.mean() == pytest.approx(92, abs=1)
    np.testing.assert_array_equal(vectors, vectors.astype(np.float16))


def test_computed_vectors_are_the_same_everywhere() -> None:
    """Stored vectors and recorded results depend on these numbers, so they are pinned."""
    image, text = expected_vector(b"picture", "2023-04-15"), expected_vector("a blue house", "2022-04-11")
    assert (
        hashlib.sha256(image.astype("<f4").tobytes()).hexdigest()
        == "7f77fbe68d3f5a5a634d2e9d9035f255a5f765f0f712769218b42e205f08d985"
    )
    assert (
        hashlib.sha256(text.astype("<f4").tobytes()).hexdigest()
        == "4ec4bc56e69f559a75849934f570d6cf33734b0e2d077ab4bb6e0318618535c3"
    )


def test_bytes_and_text_are_two_inputs() -> None:
    assert not np.array_equal(expected_vector(b"a", "2023-04-15"), expected_vector("a", "2023-04-15"))


def test_json_numbers_are_exact() -> None:
    numbers = Vectors().numbers("a", "azure-vision/2023-04-15")
    np.testing.assert_array_equal(np.array(numbers, dtype=np.float32), expected_vector("a", "2023-04-15"))


# --- recordings ------------------------------------------------------------------------------------------------------


def recording(path: Path, **changes: Any) -> Path:
    arrays = {
        "files": np.array(["a.jpg", "b.jpg"]),
        "sha256": np.array([hashlib.sha256(data).hexdigest() for data in (b"a", b"b")]),
        "vectors": np.random.default_rng(7).normal(size=(2, 1024)).astype(np.float32),
        "model": np.array(MODEL),
    }
    kept = {name: array for name, array in (arrays | changes).items() if array is not None}
    np.savez(path, allow_pickle=True, **kept)
    return path


def test_recorded_vectors(tmp_path: Path) -> None:
    path = recording(tmp_path / "recorded.npz", files=None)
    with np.load(path) as archive:
        recorded = archive["vectors"]
    vectors = Vectors(path)
    assert vectors.recorded_model == MODEL
    for _ in range(2):
        np.testing.assert_array_equal(np.array(vectors.numbers(b"b", MODEL), np.float32), recorded[1])
    for data, model in ((b"b", "azure-vision/2023-04-15"), (b"c", MODEL), ("b", MODEL)):
        np.testing.assert_array_equal(
            np.array(vectors.numbers(data, model), np.float32), expected_vector(data, model.partition("/")[2])
        )


def test_model_may_be_named_for_every_vector(tmp_path: Path) -> None:
    assert Vectors(recording(tmp_path / "r.npz", model=np.array([MODEL, MODEL]))).recorded_model == MODEL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": None}, "lack: sha256"),
        ({"model": None, "vectors": None}, "lack: model, vectors"),
        ({"vectors": np.zeros((2, 1023), np.float32)}, r"shape \(2, 1023\)"),
        ({"vectors": np.zeros(1024, np.float32)}, r"shape \(1024,\)"),
        ({"vectors": np.zeros((2, 1024), np.int8)}, "int8"),
        ({"vectors": np.full((2, 1024), np.nan)}, "not finite"),
        ({"vectors": np.zeros((3, 1024))}, "3 vectors, but 2"),
        ({"sha256": np.array(["not", "hex"])}, "hex digests"),
        ({"model": np.array([MODEL, "azure-vision/2023-04-15"])}, "names 2"),
        ({"model": np.array([MODEL, None], dtype=object)}, "cannot be read"),
        ({"model": np.array("dashscope/multimodal-embedding-v2")}, "does not serve"),
    ],
)
def test_recordings_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = recording(tmp_path / "recorded.npz", **changes)
    with pytest.raises(ConfigurationError, match=message):
        Emulator(recordings=path)


def test_recordings_that_are_no_npz_file(tmp_path: Path) -> None:
    whole = recording(tmp_path / "whole.npz").read_bytes()
    for content in (b"", b"junk", whole[: len(whole) // 2], whole.replace(b"NUMPY", b"NUMPX")):
        path = tmp_path / "recorded.npz"
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"recorded\.npz"):
            Emulator(recordings=path)
    with (tmp_path / "single.npy").open("wb") as file:
        np.save(file, np.zeros((2, 1024)))
    for name, message in (("single.npy", "single array"), ("missing.npz", "no file"), ("", "cannot be read")):
        with pytest.raises(ConfigurationError, match=message):
            Emulator(recordings=tmp_path / name)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"port": 70_000},
        {"port": -1},
        {"latency_ms": -1},
        {"latency_ms": float("nan")},
        {"latency_ms": float("inf")},
        {"rate": 0},
        {"rate": -5},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"key": ""},
        {"faults": {"404": 0.1}},
        {"faults": {"429": 0.7, "500": 0.7}},
    ],
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Emulator(**settings)
