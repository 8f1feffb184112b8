"""Draws the sample pictures of `lookalike demo`: landscapes, cities, flowers, fruit and patterns.

Every picture is computed from a seed, so that the demo needs neither network nor licence. A file's name says what is
drawn in it, for example ``sunset-over-sea-03.jpg``.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from lookalike.cli.demo import landscapes as land
from lookalike.cli.demo import things
from lookalike.cli.demo.canvas import PAINTS, Array, Canvas

Painter: TypeAlias = Callable[[Canvas], None]


def _pair(c: Canvas, name: str) -> tuple[Array, Array]:
    """The named colour and one that goes with it."""
    other = ((246, 242, 232), (250, 248, 244), (252, 250, 240), (40, 44, 60), (236, 220, 190))[c.rng.randint(5)]
    if name == "black":
        other = (246, 246, 244)
    return c.vary(PAINTS.get(name, (24, 24, 28)), 10), c.vary(other, 4)


def _stripes(c: Canvas, name: str, upright: bool) -> None:
    first, second = _pair(c, name)
    count = c.rng.randint(5, 14)
    wave = np.sin((c.x if upright else c.y) * np.pi * 2 * count) * (c.width if upright else c.height) / count / 6
    c.paint(1.0, second)
    c.paint(wave + 0.5, first)
    c.shade(1.0, c.noise(60, 60, 2) * 5)


def _dots(c: Canvas, name: str) -> None:
    first, second = _pair(c, name)
    step = 1 / c.rng.randint(4, 9)
    row = np.floor(c.y / step)
    u = (c.x * np.float32(c.ratio) / step + 0.5 * (row % 2)) % 1 - 0.5
    v = (c.y / step) % 1 - 0.5
    c.paint(1.0, second)
    c.paint(np.clip((c.between(0.26, 0.36) - np.hypot(u, v)) * step * c.height / 1.2 + 0.5, 0, 1), first)
    c.shade(1.0, c.noise(60, 60, 2) * 4)


def _checks(c: Canvas, name: str) -> None:
    first, second = _pair(c, name)
    step = 1 / c.rng.randint(4, 9)
    odd = (np.floor(c.y / step) + np.floor(c.x * np.float32(c.ratio) / step)) % 2
    c.paint(1.0, second)
    c.paint(odd, first)
    c.shade(1.0, c.noise(60, 60, 2) * 5)


def _tiles(c: Canvas, name: str) -> None:
    first, second = _pair(c, name)
    count = c.rng.randint(4, 8)
    size = max(c.width, c.height) // count + 1
    turned = c.rng.rand(count + 2, count + 2) < 0.5
    rows, columns = np.arange(c.height)[:, None], np.arange(c.width)[None, :]
    flip = turned[rows // size, columns // size]
    u, v = (columns % size + 0.5) / size, (rows % size + 0.5) / size
    u = np.where(flip, 1 - u, u)
    ring = np.minimum(np.abs(np.hypot(u, v) - 0.5), np.abs(np.hypot(1 - u, 1 - v) - 0.5))
    c.paint(1.0, second)
    c.paint((0.17 - ring) * size + 0.5, first)
    joint = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v)) * size < 1
    c.shade(joint, -26)
    c.shade(1.0, c.noise(60, 60, 2) * 4)


def _each(colours: str, name: str, paint: Callable[..., None], *arguments: object) -> list[tuple[str, Painter]]:
    """The same thing in several colours."""

    def in_colour(colour: str) -> Painter:
        return lambda canvas: paint(canvas, colour, *arguments)

    return [(f"{colour}-{name}", in_colour(colour)) for colour in colours.split()]


_FRUIT: list[tuple[str, Painter]] = [
    ("oranges", partial(things.fruit, colours=((240, 140, 30), (246, 156, 44)))),
    ("red-apples", partial(things.fruit, colours=((190, 36, 34), (206, 62, 40)))),
    ("lemons", partial(things.fruit, colours=((246, 218, 60), (238, 206, 44)))),
    ("limes-and-plums", partial(things.fruit, colours=((122, 172, 52), (96, 52, 104)))),
]

_KINDS: tuple[list[tuple[str, Painter]], ...] = (
    [("sunset-over-sea", land.sunset_over_sea)],
    [("green-forest", land.green_forest)],
    [("city-at-night", things.city_at_night)],
    [("snowy-mountains", land.snowy_mountains)],
    _each("blue red yellow white green pink", "house", things.house),
    [("sandy-beach", land.sandy_beach)],
    [("desert-dunes", land.desert_dunes)],
    _each("red blue green black yellow purple", "vertical-stripes", _stripes, True),
    [("night-sky", land.night_sky)],
    [("flower-meadow", land.flower_meadow)],
    _FRUIT,
    [("open-sea", land.open_sea), ("stormy-sea", land.stormy_sea)],
    [("autumn-forest", land.autumn_forest)],
    [("city-by-day", things.city_by_day)],
    [("mountain-lake", land.mountain_lake)],
    _each("red yellow pink white purple orange", "flower", things.flower),
    _each("blue red green yellow pink black", "dots", _dots),
    [("green-hills", land.green_hills)],
    [("foggy-forest", land.foggy_forest), ("pine-forest", land.pine_forest)],
    [("hot-air-balloons", things.hot_air_balloons)],
    [("sunset-over-mountains", land.sunset_over_mountains)],
    [("row-of-houses", things.row_of_houses)],
    [("lavender-field", land.lavender_field), ("rapeseed-field", land.rapeseed_field)],
    [("icebergs", land.icebergs)],
    _each("black red blue green orange purple", "checks", _checks),
    [("northern-lights", land.northern_lights), ("moon-over-sea", land.moon_over_sea)],
    [("sailing-boats", land.sailing_boats)],
    _each("orange black blue pink green red", "horizontal-stripes", _stripes, False),
    _each("blue green orange purple red black", "tiles", _tiles),
)
"""Kinds of pictures, drawn by turns; within a kind its members take turns."""


def draw_samples(folder: Path, count: int = 240, seed: int = 7) -> list[Path]:
    """Draw `count` pictures into `folder` and give their paths, in the order of their kinds.

    A picture that is there already is kept as it is, so that a second call is quick and changes nothing.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for i in range(count):
        kinds, number = _KINDS[i % len(_KINDS)], i // len(_KINDS)
        name, paint = kinds[number % len(kinds)]
        jobs.append((folder / f"{name}-{number + 1:02}.jpg", paint, zlib.crc32(f"{seed} {name} {number}".encode())))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda job: _draw(*job), jobs))


def _draw(path: Path, paint: Callable[[Canvas], None], seed: int) -> Path:
    if path.exists():
        return path
    # RandomState and not a Generator: its stream of numbers is promised to stay the same in every numpy
    canvas = Canvas(np.random.RandomState(seed))
    paint(canvas)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            canvas.finish().save(file, "JPEG", quality=88)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
