"""Draws rough sketches of what a text says, so that local/classic-1 can describe them as it describes pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from lookalike.embedders.local.text import Layer

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Mask: TypeAlias = npt.NDArray[np.bool_]

_HEIGHT, _WIDTH = 112, 146
_COUNT = 6

_Y: Array = np.repeat((np.arange(_HEIGHT, dtype=np.float32)[:, None] + 0.5) / _HEIGHT, _WIDTH, axis=1)
_X: Array = np.repeat((np.arange(_WIDTH, dtype=np.float32)[None, :] + 0.5) / _WIDTH, _HEIGHT, axis=0)
_SQUARE_X = _X * np.float32(_WIDTH / _HEIGHT)


@dataclass(frozen=True, slots=True)
class Sketch:
    """One picture of what a text says.

    Attributes:
        pixels: uint8, shape (height, width, 3).
        coloured: float32, shape (height, width): how much is said of the colour there, 0 to 1.
        textured: the same for texture.
    """

    pixels: npt.NDArray[np.uint8]
    coloured: Array
    textured: Array


def draw_sketches(layers: Sequence[Layer]) -> Iterator[Sketch]:
    """Draw some sketches, which differ in whatever the text leaves open. The same layers give the same sketches."""
    ordered = sorted(layers, key=lambda layer: list(PLACES).index(layer.place))
    places = {layer.place for layer in ordered}
    for number in range(_COUNT):
        # RandomState and not a Generator: its stream of numbers is promised to stay the same in every numpy
        chance = _Chance(np.random.RandomState(number), number, places)
        pixels = np.full((_HEIGHT, _WIDTH, 3), 128, np.float32)
        coloured, textured = np.zeros((_HEIGHT, _WIDTH), np.float32), np.zeros((_HEIGHT, _WIDTH), np.float32)
        for layer in ordered:
            mask = PLACES[layer.place](chance)
            rows = np.flatnonzero(mask.any(1))
            depth = np.clip((_Y - rows[0] / _HEIGHT) * _HEIGHT / max(1, rows[-1] - rows[0]), 0, 1)
            palette = layer.palette or _ANY[chance.number % len(_ANY)]
            values = np.clip(TEXTURES[layer.texture or "patches"](chance, _Spot(depth, len(palette))), 0, 1)
            colours = _look_up(palette, values)
            if layer.texture != "plain":
                colours += 7 * chance.noise(12, 9, 2)[..., None]
            pixels[mask] = colours[mask]
            named = _look_up([(_UNNAMED if i < layer.unnamed else 1.0,) for i in range(len(palette))], values)[..., 0]
            coloured[mask] = layer.weight * named[mask] if layer.palette else 0
            textured[mask] = layer.weight * (_FIRM if layer.texture in _REGULAR else _LOOSE) if layer.texture else 0
        yield Sketch(np.clip(pixels, 0, 255).astype(np.uint8), coloured, textured)


_UNNAMED = 0.2
"""How much the colours of a thing count that are not those that were named."""

_FIRM, _LOOSE = 0.6, 0.3
"""How much textures count: those that are always much the same, and those that differ from scene to scene."""

_REGULAR = frozenset(
    {
        "stripes",
        "upright stripes",
        "level stripes",
        "slanting stripes",
        "dots",
        "checks",
        "tiles",
        "bricks",
        "facade",
        "plain",
    }
)

_ANY = tuple(tuple((float(value),) * 3 for value in values) for values in ((30, 230), (90, 250), (20, 150), (250, 130)))
"""Colours where none are said: they are not described, but textures need some."""


@dataclass(frozen=True, slots=True)
class _Chance:
    """What differs from sketch to sketch."""

    rng: np.random.RandomState
    number: int
    places: set[str]

    @property
    def horizon(self) -> float:
        return 0.42 + 0.035 * self.number

    @property
    def grounded(self) -> bool:
        return bool(self.places & {"water", "ground"})

    def noise(self, across: float, down: float, octaves: int = 3) -> Array:
        """Cloudy noise, about -1 to 1, with so many lumps across and down; shape (height, width)."""
        total = np.zeros((_HEIGHT, _WIDTH), np.float32)
        for octave in range(octaves):
            shape = (round(down * 2**octave) + 2, round(across * 2**octave) + 2)
            lumps = Image.fromarray(self.rng.standard_normal(shape).astype(np.float32))
            total += 0.6**octave * np.asarray(lumps.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC))
        return total * np.float32(0.6)


def _look_up(palette: Sequence[Sequence[float]], values: Array) -> Array:
    """What lies at `values` of the way through a palette; shape (height, width, as many as a colour has)."""
    at = np.linspace(0, 1, len(palette)) if len(palette) > 1 else np.zeros(1)
    return np.stack([np.interp(values, at, plane) for plane in zip(*palette, strict=True)], -1).astype(np.float32)


# --- where


def _sky(chance: _Chance) -> Mask:
    if chance.places <= {"sky"}:
        return _above(0.8)
    return _above(chance.horizon if chance.places & {"water", "ground", "whole"} else chance.horizon + 0.2)


def _far(chance: _Chance) -> Mask:
    ridge = chance.horizon - 0.22 + 0.14 * chance.noise(3, 0.01, 4)[:1]
    return _below(ridge) & _above(chance.horizon + 0.14 if chance.grounded else 0.94)


def _tall(chance: _Chance) -> Mask:
    roofs = chance.rng.uniform(0.15, 0.5, 12)[(_X[0] * 12).astype(int)]
    return _below(roofs) & _above(chance.horizon + 0.2 if chance.grounded else 1.0)


def _water(chance: _Chance) -> Mask:
    top = chance.horizon + (0.1 if chance.places & {"far", "tall"} else 0.0)
    return _below(top) & _above(0.5 * (top + 1) if "ground" in chance.places else 1.0)


def _ground(chance: _Chance) -> Mask:
    line = chance.horizon
    if "water" in chance.places:
        line = 0.5 * (line + 1)
    elif chance.places & {"far", "tall", "whole"}:
        line += 0.14
    return _below(line + 0.03 * chance.noise(2, 0.01, 2)[:1])


def _object(_: _Chance) -> Mask:
    """A house with a roof."""
    aside = abs(_X - 0.5)
    return (_below(0.25) & _above(0.45) & (aside < 0.3 - 0.5 * (0.45 - _Y))) | (
        _below(0.45) & _above(0.86) & (aside < 0.28)
    )


def _above(line: float) -> Mask:
    return np.less(_Y, line)


def _below(line: Array | float) -> Mask:
    return np.greater_equal(_Y, line)


PLACES: dict[str, Callable[[_Chance], Mask]] = {
    "whole": lambda _: _below(0.0),
    "sky": _sky,
    "far": _far,
    "tall": _tall,
    "water": _water,
    "ground": _ground,
    "object": _object,
    "top": lambda _: _above(0.5),
    "bottom": lambda _: _below(0.5),
    "left": lambda _: np.asarray(_X < 0.5),
    "right": lambda _: np.asarray(_X >= 0.5),
    "middle": lambda _: np.asarray((abs(_X - 0.5) < 0.25) & (abs(_Y - 0.5) < 0.25)),
}
"""What is where; later ones hide earlier ones."""


# --- what it is like


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a texture goes.

    Attributes:
        depth: 0 at the upper end of the place to 1 at its lower end, shape (height, width).
        colours: how many there are.
    """

    depth: Array
    colours: int


def _trunks(chance: _Chance, _: _Spot) -> Array:
    leaves = 0.55 + 0.4 * chance.noise(16, 13, 3)
    trunk = chance.noise(18, 0.01, 2) + 0.12 * chance.noise(8, 4, 2)
    return np.where((trunk > 0.28) & (_Y > 0.15), 0.1 + 0.1 * leaves, leaves)


def _facade(chance: _Chance, _: _Spot) -> Array:
    columns, rows = 10 + 2 * chance.number, 9 + 2 * chance.number
    window = ((_X * columns) % 1 > 0.5) & ((_Y * rows) % 1 > 0.45)
    wall = 0.65 + 0.35 * chance.rng.uniform(-1, 1, 6)[(_X * 6).astype(int)]
    return np.where(window, 0, wall)


def _front(chance: _Chance, _: _Spot) -> Array:
    window = (((_X - 0.22) * 9) % 1 > 0.45) & ((_Y * 5.5) % 1 > 0.5) & (_Y > 0.48) & (_Y < 0.82)
    return np.where(window | (_Y < 0.45), 0, chance.rng.uniform(0.35, 1, 6)[(_X * 6).astype(int)])


def _blobs(chance: _Chance, _: _Spot) -> Array:
    bloom = chance.noise(9, 7, 2)
    return np.where(bloom > 0.35, 0.6 + 0.5 * chance.noise(4, 4, 1), 0.16 + 0.2 * chance.noise(24, 20, 2))


def _bricks(chance: _Chance, _: _Spot) -> Array:
    rows = 12 + 2 * chance.number
    shift = 0.5 * (np.floor(_Y * rows) % 2)
    joint = ((_Y * rows) % 1 < 0.18) | ((_X * rows * 0.6 + shift) % 1 < 0.1)
    return np.where(joint, 1, 0.25 + 0.3 * chance.noise(20, 20, 1))


def _stripes(along: Array, chance: _Chance, spot: _Spot) -> Array:
    count = 2 * (5 + 2 * chance.number)
    return _taking_turns(np.floor(along * count), spot.colours)


def _taking_turns(numbers: Array, colours: int) -> Array:
    return np.asarray((numbers % colours) / max(1, colours - 1), np.float32)


def _dots(chance: _Chance, spot: _Spot) -> Array:
    row = np.floor(_Y * (4 + chance.number))
    across = _SQUARE_X * (4 + chance.number) + 0.5 * (row % 2)
    dot = np.hypot(across % 1 - 0.5, (_Y * (4 + chance.number)) % 1 - 0.5) < 0.31
    # the first colour is that of the ground
    turns = (row + np.floor(across)) % max(1, spot.colours - 1)
    return np.where(dot, (1 + turns) / max(1, spot.colours - 1), 0)


def _checks(chance: _Chance, spot: _Spot) -> Array:
    rows = 4 + chance.number
    return _taking_turns(np.floor(_Y * rows) + np.floor(_SQUARE_X * rows), spot.colours)


def _tiles(chance: _Chance, spot: _Spot) -> Array:
    rows = 4 + chance.number
    row, column = np.floor(_Y * rows).astype(int), np.floor(_SQUARE_X * rows).astype(int)
    across, down = (_SQUARE_X * rows) % 1, (_Y * rows) % 1
    across = np.where(chance.rng.rand(rows, 2 * rows)[row, column] < 0.5, 1 - across, across)
    ring = np.minimum(abs(np.hypot(across, down) - 0.5), abs(np.hypot(1 - across, 1 - down) - 0.5)) < 0.17
    return np.where(ring, (1 + (row + column) % max(1, spot.colours - 1)) / max(1, spot.colours - 1), 0)


TEXTURES: dict[str, Callable[[_Chance, _Spot], Array]] = {
    "patches": lambda chance, _: 0.5 + 0.7 * chance.noise(3, 3, 2),
    "plain": lambda chance, _: np.full((_HEIGHT, _WIDTH), chance.number / (_COUNT - 1), np.float32),
    "smooth": lambda chance, spot: spot.depth + 0.12 * chance.noise(2, 2, 1),
    "clouds": lambda chance, spot: 0.5 + 0.25 * spot.depth + 0.6 * chance.noise(3, 5, 4),
    # the last colour of a starry palette is that of the stars
    "stars": lambda chance, spot: np.where(chance.rng.rand(_HEIGHT, _WIDTH) > 0.995, 1, 0.6 * spot.depth),
    "streaks": lambda chance, _: 0.4 + 0.7 * chance.noise(12, 2, 3),
    "waves": lambda chance, spot: spot.depth + 0.35 * chance.noise(5, 34, 3),
    "grain": lambda chance, spot: 0.7 * spot.depth + 0.15 + 0.3 * chance.noise(36, 36, 2),
    "dunes": lambda chance, _: 0.5 + 0.5 * chance.noise(1.5, 4, 3),
    "ridge": lambda chance, _: 0.5 + 0.55 * chance.noise(7, 7, 4),
    "trunks": _trunks,
    "facade": _facade,
    "front": _front,
    "blobs": _blobs,
    "bricks": _bricks,
    "stripes": lambda chance, spot: _stripes(_X if chance.number % 2 else _Y, chance, spot),
    "upright stripes": lambda chance, spot: _stripes(_X, chance, spot),
    "level stripes": lambda chance, spot: _stripes(_Y, chance, spot),
    "slanting stripes": lambda chance, spot: _stripes(
        0.7 * (_X + _Y if chance.number % 2 else _X - _Y + 1), chance, spot
    ),
    "dots": _dots,
    "checks": _checks,
    "tiles": _tiles,
}
"""What things are like: values from 0 to 1, which stand for the colours of a palette."""
