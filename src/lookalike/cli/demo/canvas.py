"""What the sample pictures are painted on and with: colours under masks, noise, lines of hills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Colour: TypeAlias = Sequence[float] | Array
"""Red, green and blue, 0 to 255."""

_SIZES = ((480, 360), (480, 360), (480, 320), (512, 342), (400, 400), (360, 480), (560, 350))

PAINTS: dict[str, Colour] = {
    "red": (196, 50, 44),
    "blue": (58, 104, 176),
    "yellow": (240, 200, 70),
    "green": (92, 150, 84),
    "white": (240, 238, 230),
    "pink": (234, 150, 166),
    "orange": (230, 132, 54),
    "purple": (132, 88, 160),
}
"""Colours that pictures are named after."""


def rgb(colour: Colour) -> Array:
    """A colour that can be reckoned with."""
    return np.asarray(colour, np.float32)


def mix(first: Colour, second: Colour, share: Array | float) -> Array:
    """A colour between the two; `share` is that of the second one."""
    return rgb(first) * (1 - share) + rgb(second) * share


class Canvas:
    """A picture in the making. Places are fractions of the width (x, to the right) and of the height (y, downwards).

    Attributes:
        pixels: float32, shape (height, width, 3), 0 to 255.
        x, y: the places of the pixels, shapes (1, width) and (height, 1).
        ratio: width divided by height.
        rng: where chance comes from.
    """

    def __init__(self, rng: np.random.RandomState, size: tuple[int, int] | None = None) -> None:
        self.rng = rng
        self.width, self.height = size or _SIZES[rng.randint(len(_SIZES))]
        self.ratio = self.width / self.height
        self.pixels: Array = np.zeros((self.height, self.width, 3), np.float32)
        self.x: Array = ((np.arange(self.width, dtype=np.float32) + 0.5) / self.width)[None, :]
        self.y: Array = ((np.arange(self.height, dtype=np.float32) + 0.5) / self.height)[:, None]

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def vary(self, colour: Colour, amount: float = 12) -> Array:
        """A colour near `colour`."""
        return np.clip(rgb(colour) + self.rng.uniform(-amount, amount, 3), 0, 255).astype(np.float32)

    def paint(self, mask: Array | npt.NDArray[np.bool_] | float, colour: Colour) -> None:
        """Lay `colour`, one or one for each pixel, over the picture; `mask` is its opacity, cut to 0 … 1."""
        self.pixels += np.clip(np.asarray(mask, np.float32), 0, 1)[..., None] * (rgb(colour) - self.pixels)

    def shade(self, mask: Array | npt.NDArray[np.bool_] | float, amount: Array | float) -> None:
        """Make what lies under `mask` lighter (amount above 0) or darker."""
        self.pixels += np.asarray(np.clip(mask, 0, 1) * amount, np.float32)[..., None]

    def gradient(self, *colours: Colour, top: float = 0.0, bottom: float = 1.0) -> Array:
        """Colours from `top` to `bottom`, shape (height, 1, 3)."""
        stops = np.linspace(top, bottom, len(colours))
        channels = [np.interp(self.y[:, 0], stops, [colour[i] for colour in colours]) for i in range(3)]
        return np.stack(channels, -1).astype(np.float32)[:, None, :]

    def noise(self, across: float, down: float, octaves: int = 4) -> Array:
        """Cloudy noise around 0, about -1 to 1, with so many lumps across and down; shape (height, width)."""
        total: Array = np.zeros((self.height, self.width), np.float32)
        for octave in range(octaves):
            columns, rows = (max(2, round(n * 2**octave) + 1) for n in (across, down))
            lumps = self.rng.standard_normal((rows, columns)).astype(np.float32)
            total += 0.55**octave * _stretch(lumps, self.width, self.height)
        return total * np.float32(0.6)

    def profile(self, lumps: float, octaves: int = 5, roughness: float = 0.5) -> Array:
        """A line like that of hills, about -1 to 1, shape (width,)."""
        total = np.zeros(self.width)
        for octave in range(octaves):
            count = max(2, round(lumps * 2**octave) + 2)
            knots = self.rng.uniform(-1, 1, count)
            at = np.linspace(0, count - 1.001, self.width)
            left = at.astype(int)
            ease = (1 - np.cos(np.pi * (at - left))) / 2
            total += roughness**octave * (knots[left] * (1 - ease) + knots[np.minimum(left + 1, count - 1)] * ease)
        return total.astype(np.float32)

    def below(self, line: Array | float, softness: float = 1.0) -> Array:
        """Mask of what lies below a line of y for each x; `softness` in pixels."""
        return np.asarray(np.clip((self.y - line) * self.height / softness + 0.5, 0, 1) + np.zeros_like(self.x))

    def disc(self, x: float, y: float, radius: float, softness: float = 1.5) -> Array:
        """Mask of a round disc; its radius is a fraction of the height, `softness` in pixels."""
        return np.asarray(np.clip((radius - self.distance(x, y)) * self.height / softness + 0.5, 0, 1))

    def distance(self, x: float, y: float) -> Array:
        """How far each pixel is from a place, as fractions of the height."""
        return np.asarray(np.hypot((self.x - x) * np.float32(self.ratio), self.y - y))

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon with smooth edges."""
        sheet = Image.new("L", (self.width * 2, self.height * 2))
        ImageDraw.Draw(sheet).polygon([(x * self.width * 2, y * self.height * 2) for x, y in points], fill=255)
        self.paint(np.asarray(sheet.reduce(2), np.float32) / 255, colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill a rectangle."""
        rows = slice(max(0, round(top * self.height)), max(0, round(bottom * self.height)))
        columns = slice(max(0, round(left * self.width)), max(0, round(right * self.width)))
        self.pixels[rows, columns] = rgb(colour)

    def mirror(self, horizon: float, ripple: float, tint: Colour, opacity: float) -> None:
        """Make what lies below the horizon the water in which the upper part is reflected."""
        start = round(horizon * self.height)
        depth = self.height - start
        rows = start - 1 - np.arange(depth) * min(1.0, (start - 1) / max(1, depth))
        wave = self.noise(3, 60, 3)[start:] * ripple * self.height * np.linspace(0.2, 1.4, depth)[:, None]
        source = np.clip(rows[:, None] + wave, 0, start - 1).astype(int)
        reflected = self.pixels[source, np.arange(self.width)[None, :]]
        self.pixels[start:] = mix(reflected, tint, opacity)

    def finish(self) -> Image.Image:
        """The picture, with a little grain and darker corners, as from a camera."""
        corners = 1 - 0.16 * np.clip(self.distance(0.5, 0.5) - 0.35, 0, 1)
        grain = self.rng.standard_normal((self.height, self.width)).astype(np.float32)
        seen = self.pixels * corners[..., None] + 1.8 * grain[..., None]
        return Image.fromarray(np.clip(seen, 0, 255).astype(np.uint8))


def _stretch(values: Array, width: int, height: int) -> Array:
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC), np.float32)
