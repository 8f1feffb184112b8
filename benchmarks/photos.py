"""Made-up embeddings that lie as those of real photos do, and the exact neighbours to judge an answer by.

A mixture around one mean, in three steps: scenes, such as streets or forests, some common and some rare; themes in each
of them; and photos around each theme. Scenes lie along 256 directions, of which the first matter most; within a scene
the same directions matter in an order of its own, so that near photos differ in fewer ways than any two do.

The shares are fitted to 149 real photos under azure-vision/2022-04-11, in what makes the walk through an index long or
short; ``python -m benchmarks.photos REAL.npz`` says how near they come to real ones.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

DIMENSIONS = 1024
MODEL = "measured/photos-1"
"""The name under which these vectors are imported."""

CHUNK = 10_000
"""Vectors that are drawn at a time; memory does not grow with their number."""

_SCENES, _THEMES, _DIRECTIONS = 20, 2_000, 256
_SHARES = {"mean": 0.46, "scenes": 0.19, "themes": 0.14, "within": 0.205, "noise": 0.005}
_RARITY_OF_SCENES = 1.2
_DECAY, _DECAY_WITHIN = 0.45, 0.55
_QUERIES_SEED = 1 << 30
_EXACT_ROWS = 20_000

Vectors: TypeAlias = npt.NDArray[np.float16]
Queries: TypeAlias = npt.NDArray[np.float32]
Numbers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Mixture:
    """What vectors are drawn from, float32.

    Attributes:
        mean: ``(1024,)``.
        directions: ``(256, 1024)``.
        themes: the middle of each theme, along the directions, ``(2000, 256)``.
        spread: how far the photos of each theme lie around it, along the directions, ``(2000, 256)``.
    """

    mean: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float32]
    themes: npt.NDArray[np.float32]
    spread: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Photos:
    """So many vectors, always the same for the same seed; nothing is drawn before it is asked for.

    Attributes:
        count: how many vectors there are.
        folder: where they are kept once they are drawn, for this process and others.
        queries: how many queries, which are drawn like the vectors but are none of them.
    """

    count: int
    folder: Path
    queries: int = 400
    seed: int = 0

    @cached_property
    def _mixture(self) -> _Mixture:
        random = np.random.default_rng([self.seed, 0])
        directions = random.standard_normal((_DIRECTIONS, DIMENSIONS), np.float32)
        shares = np.arange(1, _SCENES + 1) ** -_RARITY_OF_SCENES
        scene = random.choice(_SCENES, _THEMES, p=shares / shares.sum())
        scenes = random.standard_normal((_SCENES, _DIRECTIONS), np.float32) * _falling(_DECAY)
        spread = np.stack([random.permutation(_falling(_DECAY_WITHIN)) for _ in range(_SCENES)])[scene]
        themes = random.standard_normal((_THEMES, _DIRECTIONS), np.float32) * spread
        return _Mixture(
            mean=math.sqrt(_SHARES["mean"]) * random.standard_normal(DIMENSIONS, np.float32),
            directions=directions,
            themes=math.sqrt(_SHARES["scenes"]) * scenes[scene] + math.sqrt(_SHARES["themes"]) * themes,
            spread=np.float32(math.sqrt(_SHARES["within"])) * spread,
        )

    def _themes(self, number: int, seed: int) -> Numbers:
        shares = 1 / np.arange(1, _THEMES + 1)
        return np.random.default_rng([self.seed, 3, seed]).choice(_THEMES, number, p=shares / shares.sum())

    def _drawn(self, number: int, seed: int) -> tuple[Vectors, Numbers]:
        random = np.random.default_rng([self.seed, 1, seed])
        mixture, theme = self._mixture, self._themes(number, seed)
        within = random.standard_normal((number, _DIRECTIONS), np.float32) * mixture.spread[theme]
        noise = math.sqrt(_SHARES["noise"]) * random.standard_normal((number, DIMENSIONS), np.float32)
        vectors = mixture.mean + (mixture.themes[theme] + within) @ mixture.directions + noise
        return vectors.astype(np.float16), theme

    def chunks(self) -> Iterator[tuple[int, Vectors, Numbers]]:
        """The number of the first of each chunk, its vectors float16 ``(≤ 10,000, 1024)``, and the theme of each."""
        for first in range(0, self.count, CHUNK):
            yield first, *self._drawn(min(CHUNK, self.count - first), first)

    @cached_property
    def path(self) -> Path:
        """A ``.npy`` file of all vectors, float16 ``(count, 1024)``."""
        path = self.folder / f"vectors-{self.count}.npy"
        matrix = np.lib.format.open_memmap(path, "w+", np.float16, (self.count, DIMENSIONS))
        for first, vectors, _ in self.chunks():
            matrix[first : first + len(vectors)] = vectors
        matrix.flush()
        return path

    @cached_property
    def vectors(self) -> Vectors:
        """All vectors, float16 ``(count, 1024)``, mapped from the file."""
        mapped: Vectors = np.load(self.path, mmap_mode="r")
        return mapped

    @cached_property
    def asked(self) -> Queries:
        """The queries, float32 ``(queries, 1024)``; each number is one that half precision holds."""
        return self._drawn(self.queries, _QUERIES_SEED)[0].astype(np.float32)

    @cached_property
    def queries_path(self) -> Path:
        """A ``.npy`` file of the queries, float32 ``(queries, 1024)``."""
        path = self.folder / f"queries-{self.queries}.npy"
        np.save(path, self.asked)
        return path

    @cached_property
    def nearest(self) -> Numbers:
        """The numbers of the ten nearest to each of the first 100 queries, by comparing all, ``(≤ 100, 10)``."""
        return self.nearest_of(self.asked[:100])

    def nearest_of(self, queries: Queries, limit: int = 10, among: npt.NDArray[np.bool_] | None = None) -> Numbers:
        """The numbers of the `limit` nearest to each query by cosine, by comparing all, int64 ``(queries, limit)``.

        Args:
            among: which of the photos may be found, ``(count,)``; fewer than `limit` of them leave places of -1.
        """
        unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        best = np.full((len(queries), limit), -np.inf, np.float32)
        numbers = np.full((len(queries), limit), -1, np.int64)
        for first in range(0, self.count, _EXACT_ROWS):
            part = self.vectors[first : first + _EXACT_ROWS].astype(np.float32)
            part /= np.linalg.norm(part, axis=1, keepdims=True)
            cosines = unit @ part.T
            if among is not None:
                cosines[:, ~among[first : first + _EXACT_ROWS]] = -np.inf
            cosines = np.concatenate([best, cosines], axis=1)
            theirs = np.broadcast_to(np.arange(first, first + len(part)), (len(queries), len(part)))
            candidates = np.concatenate([numbers, theirs], axis=1)
            order = np.argsort(-cosines, axis=1, kind="stable")[:, :limit]
            best, numbers = np.take_along_axis(cosines, order, 1), np.take_along_axis(candidates, order, 1)
        numbers[~np.isfinite(best)] = -1
        return numbers

    def told(self, first: int, themes: Numbers) -> dict[str, npt.NDArray[Any]]:
        """What is known of each photo of a chunk, by column: uri, key, theme, price, artist and ``chance``.

        ``chance`` is even over 0 to 1 and has nothing to do with the vectors. ``theme`` has, and the higher its number,
        the fewer photos have it.
        """
        random = np.random.default_rng([self.seed, 2, first])
        numbers = range(first, first + len(themes))
        return {
            "uri": np.array([uri(number) for number in numbers]),
            "key": np.array([f"sku-{number}" for number in numbers]),
            "theme": themes,
            "price": random.integers(1, 99, CHUNK)[: len(themes)],
            "artist": np.array(["Monet", "Manet", "Klee"])[random.integers(0, 3, CHUNK)[: len(themes)]],
            "chance": random.random(CHUNK)[: len(themes)],
        }

    @cached_property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """`told` of all photos."""
        starts = range(0, self.count, CHUNK)
        parts = [self.told(first, self._themes(min(CHUNK, self.count - first), first)) for first in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @cached_property
    def told_path(self) -> Path:
        """A file of JSON lines, one for each photo: the columns, and its ``number``."""
        path = self.folder / f"told-{self.count}.jsonl"
        columns = {name: values.tolist() for name, values in self.columns.items()}
        with path.open("w") as file:
            for number in range(self.count):
                row = {"number": number} | {name: values[number] for name, values in columns.items()}
                file.write(json.dumps(row) + "\n")
        return path

    def npz(self, **more: npt.NDArray[Any]) -> Path:
        """A new file of vectors and columns for ``lookalike import``, with `more` columns if you like."""
        path = self.folder / f"photos-{self.count}.npz"
        arrays: dict[str, Any] = {"vectors": self.vectors, "model": np.array(MODEL), **self.columns, **more}
        np.savez(path, **arrays)
        return path

    def rows(self) -> Iterator[tuple[str, str, str, Vectors]]:
        """URI, key, metadata as JSON, and vector of each photo, in order."""
        for first, vectors, themes in self.chunks():
            columns = {name: values.tolist() for name, values in self.told(first, themes).items()}
            uris, keys = columns.pop("uri"), columns.pop("key")
            for n, vector in enumerate(vectors):
                yield uris[n], keys[n], json.dumps({name: values[n] for name, values in columns.items()}), vector


def _falling(decay: float) -> npt.NDArray[np.float32]:
    """How much each direction matters, falling from the first to the last; the squares' sum is 1, ``(256,)``."""
    scales = np.arange(1, _DIRECTIONS + 1, dtype=np.float32) ** -decay
    fallen: npt.NDArray[np.float32] = scales / np.linalg.norm(scales)
    return fallen


def uri(number: int) -> str:
    """The URI of a photo."""
    return f"https://pictures.example/{number}.jpg"


def number_of(uri: str) -> int:
    """The number of the photo that has this URI."""
    return int(uri.rpartition("/")[2].removesuffix(".jpg"))


def recall(found: Sequence[Sequence[int]], right: Numbers) -> float:
    """The mean share of what each query should have found, ``(queries, limit)``, that it has."""
    shares = []
    for numbers, truth in zip(found, right, strict=True):
        wanted = set(truth[truth >= 0].tolist())
        shares.append(len(wanted.intersection(numbers)) / len(wanted) if wanted else 1.0)
    return float(np.mean(shares))


def _likeness(vectors: Vectors) -> dict[str, float]:
    """What tells how hard vectors are for an index: cosines, distances to neighbours, and dimensions."""
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit.T
    pairs = cosines[np.triu_indices(len(unit), 1)]
    neighbours = 1 - np.sort(cosines - 9 * np.eye(len(unit)), axis=1)[:, ::-1]
    near = np.sqrt(np.maximum(neighbours[:, :20], 1e-12))
    variances = np.linalg.svd(unit - unit.mean(0), compute_uv=False) ** 2
    return {
        **{f"cosine of two, {share:.0%}": float(np.quantile(pairs, share)) for share in (0.01, 0.1, 0.5, 0.9, 0.99)},
        **{f"distance to neighbour {k}": float(np.median(neighbours[:, k - 1])) for k in (1, 2, 5, 10, 20, 50)},
        "dimensions": float(variances.sum() ** 2 / (variances**2).sum()),
        # Levina and Bickel 2004, by the nearest 20
        "dimensions among near ones": float(np.median(-1 / np.log(near[:, :-1] / near[:, -1:]).mean(axis=1))),
    }


def compare(real: Path) -> None:
    """Print how near these come to the ``vectors`` of a ``.npz`` file, by as many of them, the median of six draws."""
    vectors = np.load(real)["vectors"]
    photos = Photos(6 * len(vectors), Path())
    drawn = np.array_split(np.concatenate([chunk for _, chunk, _ in photos.chunks()]), 6)
    theirs, ours = _likeness(vectors), [_likeness(some) for some in drawn]
    print(f"{'':28}{'real':>8}{'these':>8}")
    for name, value in theirs.items():
        print(f"{name:28}{value:8.3g}{np.median([each[name] for each in ours]):8.3g}")


if __name__ == "__main__":
    compare(Path(sys.argv[1]))
