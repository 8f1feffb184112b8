"""local/classic-1: compares colour, layout, texture and edges, with numpy and Pillow alone.

A vector has five parts, one after the other, each less what an average picture has there, and weighted:

========== =========== ===================================================================================
colour     13 × 40     shares of 40 colours: in the whole picture, then in 4 × 3 cells
edges      3 × 10 × 13 shares of 12 directions, and of no direction, among the edges of three sizes: in the
                       whole picture, then in 3 × 3 cells
bustle     3 × 16      how strong the edges of each size are in 4 × 4 cells
light      64          lightness in 8 × 8 cells
liveliness 2           mean chroma, spread of lightness
========== =========== ===================================================================================

A text becomes rough sketches of what it says (`text`, `sketch`), which are described like pictures; where
it says nothing, its vector is zero. Nothing here is learned. Whoever changes a number makes another model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from lookalike.embedders.local.sketch import draw_sketches
from lookalike.embedders.local.text import understand
from lookalike.errors import ConfigurationError, ItemError
from lookalike.pictures.check import opened
from lookalike.pictures.reshape import on_white, orientation_of, plain, upright
from lookalike.types import Embedding, ImageInput, Limits, Model, Usage, Vector

Array: TypeAlias = npt.NDArray[np.floating[Any]]
_T = TypeVar("_T")

_NAME = "local/classic-1"

_KINDS = "avif bmp gif jp2 jpeg mpo png tiff webp x-icon x-pcx x-portable-anymap x-tga"
_LIMITS = Limits(
    max_bytes=100_000_000,
    min_side=1,
    max_side=20_000,
    media_types=frozenset(f"image/{kind}" for kind in _KINDS.split()),
)


class LocalDescriptor:
    """The embedder of ``local/classic-1``.

    Its numbers are float16 values, so that the database stores them unchanged. It holds nothing that changes.

    Raises:
        ConfigurationError: the model is another one.
    """

    def __init__(self, model: Model) -> None:
        if model.name != _NAME:
            raise ConfigurationError(f"{model.name}: there is no such model. The local one is {_NAME}.")
        self.model = model
        self.limits = _LIMITS
        self.concurrency = os.cpu_count() or 1
        self.pictures_per_call = self.texts_per_call = 1
        self.rate: float | None = None
        self.usage = Usage()
        self.notice: str | None = (
            f"{_NAME} compares colour, layout, texture and edges; it does not recognise things. "
            "For search by meaning use azure-vision/2023-04-15."
        )

    def embed_images(self, images: Sequence[ImageInput]) -> list[Embedding | ItemError]:
        """Describe pictures: as many answers as pictures, in their order.

        The codes of the errors are ``url-not-supported``, ``empty-file``, ``not-an-image``, ``unsupported-format``,
        ``damaged-image``, ``too-slow`` and ``too-many-pixels``.
        """
        return [self._answer(_describe_image, image) for image in images]

    def embed_texts(self, texts: Sequence[str]) -> list[Embedding | ItemError]:
        """Describe what texts say: as many answers as texts, in their order.

        The codes of the errors are ``empty-text`` and ``outside-vocabulary``.
        """
        return [self._answer(_describe_text, text) for text in texts]

    def inquire(self) -> str | None:
        """None: there is nobody to ask."""
        return None

    def close(self) -> None:
        """Nothing is held open."""

    def _answer(self, describe: Callable[[_T], Vector], thing: _T) -> Embedding | ItemError:
        try:
            return Embedding(self.model, describe(thing))
        except ItemError as error:
            return error


def _describe_image(image: ImageInput) -> Vector:
    if image.data is None:
        raise ItemError("url-not-supported", f"{_NAME} fetches nothing. Give the picture itself instead of its URL.")
    pixels = _decode(image.data)
    everything: Array = np.ones(pixels.shape[:2], np.float32)
    return _rounded(_describe(pixels, everything, everything, liveliness=1))


def _describe_text(text: str) -> Vector:
    sketches = [_describe(s.pixels, s.coloured, s.textured, liveliness=0) for s in draw_sketches(understand(text))]
    return _rounded(np.mean(sketches, axis=0))


def _rounded(vector: Array) -> Vector:
    # also levels out what differs between processors in the last digits
    return vector.astype(np.float16).astype(np.float32)


# --- from bytes to pixels

_SIDE = 128
"""Working size: the area of a square with this side, in pixels."""

_LONGEST = 3.0
"""More stretched pictures are squeezed to this ratio of their sides."""


def _decode(data: bytes) -> npt.NDArray[np.uint8]:
    """The picture in `data`, upright, on white, small: uint8, shape (height, width, 3).

    Raises:
        ItemError: there is none.
    """
    with opened(data) as image:
        if image.get_format_mimetype() not in _LIMITS.media_types:
            raise ItemError("unsupported-format", f"The picture is {image.format}. Save it as JPEG or PNG.")
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
        image.load()
        small = on_white(_shrink(image)).convert("RGB")
        return np.asarray(upright(small, orientation_of(image)))


def _shrink(image: Image.Image) -> Image.Image:
    """The picture at working size, in a mode that keeps its transparency."""
    image = plain(image)
    ratio = min(max(image.width / image.height, 1 / _LONGEST), _LONGEST) ** 0.5
    return image.resize((round(_SIDE * ratio), round(_SIDE / ratio)), Image.Resampling.LANCZOS, reducing_gap=3.0)


# --- from pixels to numbers


def _lattice() -> Array:
    """Forty colours, spread over six lightnesses: shape (40, 3), in the coordinates of `_colour_shares`."""
    rings: tuple[tuple[float, tuple[tuple[float, int, float], ...]], ...] = (
        (0.08, ()),
        (0.28, ((0.4, 8, 0.0),)),
        (0.5, ((0.3, 6, 0.5), (0.6, 6, 0.0))),
        (0.72, ((0.35, 8, 0.0),)),
        (0.9, ((0.35, 6, 0.0),)),
        (0.99, ()),
    )
    colours = []
    for lightness, circles in rings:
        colours.append((lightness, 0.0, 0.0))
        for radius, count, shift in circles:
            angles = 2 * np.pi * (np.arange(count) + shift) / count
            colours += [(lightness, radius * float(np.cos(a)), radius * float(np.sin(a))) for a in angles]
    return np.array(colours, np.float32) * np.array([1, _CHROMA, _CHROMA], np.float32)


_CHROMA = 0.7
"""How much a difference of chroma counts against one of lightness."""

_COLOURS = _lattice()
_COLOUR_WIDTH = 0.1
_DIRECTIONS = 12

# Oklab (Björn Ottosson, 2020), where equal distances look about equally different
_LINEAR = np.array(
    [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255], np.float32
)
_TO_CONES = np.array(
    [
        [0.4122214708, 0.2119034982, 0.0883024619],
        [0.5363325363, 0.6806995451, 0.2817188376],
        [0.0514459929, 0.1073969566, 0.6299787005],
    ],
    np.float32,
)
_TO_LAB = np.array(
    [
        [0.2104542553, 1.9779984951, 0.0259040371],
        [0.7936177850, -2.4285922050, 0.7827717662],
        [-0.0040720468, 0.4505937099, -0.8086757660],
    ],
    np.float32,
)

# What an average picture has in the whole and in a cell, taken from the sample pictures that the demo draws (mirrored
# and rounded): much of each colour, edges along the horizon and upright ones before slanting ones.
_MEAN_COLOUR = (0.1, 0.08)
_MEAN_EDGES: Array = np.array(
    [
        [0.23, 0.13, 0.10, 0.12, 0.14, 0.21, 0.40, 0.21, 0.14, 0.12, 0.10, 0.13, 0.56],
        [0.20, 0.11, 0.08, 0.10, 0.12, 0.20, 0.38, 0.20, 0.12, 0.10, 0.08, 0.11, 0.56],
    ],
    np.float32,
)
_MEAN_BUSTLE = (-3.5, -3.3, -3.0)
_MEAN_LIGHT = 0.6
_MEAN_LIVELINESS = (0.07, 0.14)

# How much the parts count: those of the whole picture, and those of its cells
_COLOUR_WEIGHTS = (1.0, 0.5)
_EDGE_WEIGHTS = (1.5, 0.6)
_BUSTLE_WEIGHT = 0.1
_LIGHT_WEIGHT = 0.1


def _describe(pixels: npt.NDArray[np.uint8], coloured: Array, textured: Array, liveliness: float) -> Array:
    """The 1024 numbers of a picture.

    Args:
        pixels: uint8, shape (height, width, 3).
        coloured, textured: shape (height, width): how much each pixel's colour and texture count, 0 to 1.
        liveliness: how much the last two numbers count.
    """
    lab = np.cbrt(_LINEAR[pixels] @ _TO_CONES) @ _TO_LAB
    lightness = lab[..., 0]
    said = _cells(coloured, 4, 3)
    shares = _colour_shares(_halved(lab)) * _halved(coloured)[..., None]
    cells = _cells(shares, 4, 3).reshape(12, -1) / np.maximum(said.reshape(12, 1), 1e-6)
    whole = (cells * said.reshape(12, 1)).sum(0) / max(float(said.sum()), 1e-6)
    parts = [
        (np.sqrt(whole) - _MEAN_COLOUR[0]) * (_COLOUR_WEIGHTS[0] * bool(said.any())),
        ((np.sqrt(cells) - _MEAN_COLOUR[1]) * said.reshape(12, 1) * _COLOUR_WEIGHTS[1]).ravel(),
    ]
    bustle = []
    size, weight = lightness, textured
    for scale in range(3):
        edges, strength = _edges(size, weight)
        told = _cells(weight, 3, 3).reshape(9, 1)
        parts.append((edges[0] - _MEAN_EDGES[0]) * (_EDGE_WEIGHTS[0] * bool(told.any())))
        parts.append(((edges[1:] - _MEAN_EDGES[1]) * told * _EDGE_WEIGHTS[1]).ravel())
        bustle.append(((strength - _MEAN_BUSTLE[scale]) * _cells(weight, 4, 4) * _BUSTLE_WEIGHT).ravel())
        size, weight = _halved(size), _halved(weight)
    light = (_cells(lightness, 8, 8) - _MEAN_LIGHT) * _cells(coloured, 8, 8) * _LIGHT_WEIGHT
    chroma = np.hypot(lab[..., 1], lab[..., 2]).mean()
    lively = np.array([chroma - _MEAN_LIVELINESS[0], lightness.std() - _MEAN_LIVELINESS[1]]) * liveliness
    return np.concatenate([*parts, *bustle, light.ravel(), lively])


def _colour_shares(lab: Array) -> Array:
    """How much each pixel has of each of the forty colours: shape (height, width, 40), sums 1."""
    chroma = np.hypot(lab[..., 1], lab[..., 2]) + np.float32(1e-6)
    # the root spreads out the dull colours, of which pictures have most
    stretch = np.sqrt(np.minimum(chroma / np.float32(0.32), 1)) / chroma * np.float32(_CHROMA)
    at = np.stack([lab[..., 0], lab[..., 1] * stretch, lab[..., 2] * stretch], -1)
    nearness = 2 * (at @ _COLOURS.T) - (_COLOURS**2).sum(1)
    nearness -= nearness.max(-1, keepdims=True)
    shares = np.exp(nearness / np.float32(2 * _COLOUR_WIDTH**2))
    return np.asarray(shares / shares.sum(-1, keepdims=True))


def _edges(lightness: Array, weight: Array) -> tuple[Array, Array]:
    """Directions of the edges, shape (10, 13): whole, then 3 × 3 cells; logarithm of their strength, shape (4, 4)."""
    down, right = np.gradient(lightness)
    across, along, both = _smoothed(np.stack([right * right, down * down, right * down]))
    aligned = np.hypot(across - along, 2 * both)
    strength = np.sqrt(across + along)
    share = np.minimum(aligned / (across + along + np.float32(1e-4)), 1)
    angle = (0.5 * np.arctan2(2 * both, across - along) % np.pi) * np.float32(_DIRECTIONS / np.pi)
    lower = angle.astype(np.intp)
    rest = angle - lower
    height, width = lightness.shape
    cell = (np.arange(height) * 3 // height)[:, None] * 3 + (np.arange(width) * 3 // width)[None, :]
    first = cell * (_DIRECTIONS + 1)
    places = (first + lower % _DIRECTIONS, first + (lower + 1) % _DIRECTIONS, first + _DIRECTIONS)
    amounts = (strength * share * (1 - rest), strength * share * rest, strength * (1 - share))
    counts = np.bincount(
        np.stack(places).ravel(), (np.stack(amounts) * weight).ravel(), minlength=9 * (_DIRECTIONS + 1)
    ).reshape(9, _DIRECTIONS + 1)
    counts = np.vstack([counts.sum(0), counts]) / np.vstack(
        [weight.sum(), _cells(weight, 3, 3).reshape(9, 1) * weight.size / 9]
    ).clip(1)
    directions = np.sqrt(counts / (counts.sum(1, keepdims=True) + 0.002))
    return directions, np.log(_cells(np.hypot(right, down), 4, 4) + np.float32(0.005))


def _smoothed(planes: Array) -> Array:
    """Means over 5 × 5 pixels; shape (planes, height, width) as given."""
    padded = np.pad(planes, ((0, 0), (2, 2), (2, 2)), mode="edge")
    rows = padded[:, :-4] + padded[:, 1:-3] + padded[:, 2:-2] + padded[:, 3:-1] + padded[:, 4:]
    both = rows[..., :-4] + rows[..., 1:-3] + rows[..., 2:-2] + rows[..., 3:-1] + rows[..., 4:]
    return np.asarray(both / np.float32(25))


def _cells(values: Array, rows: int, columns: int) -> Array:
    """Means over cells; shape (rows, columns, …)."""
    height, width = values.shape[:2]
    top, left = np.arange(rows) * height // rows, np.arange(columns) * width // columns
    sums = np.add.reduceat(np.add.reduceat(values, top, 0), left, 1)
    area = np.diff(top, append=height)[:, None] * np.diff(left, append=width)[None, :]
    return np.asarray(sums / area.reshape(area.shape + (1,) * (values.ndim - 2)).astype(np.float32))


def _halved(values: Array) -> Array:
    """Means over 2 × 2 pixels."""
    height, width = values.shape[0] // 2 * 2, values.shape[1] // 2 * 2
    even = values[:height, :width]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
