"""The landscapes among the sample pictures. Each one paints a bare `Canvas`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lookalike.cli.demo.canvas import Canvas, Colour, mix, rgb

# --- what the scenes are made of


def _clouds(c: Canvas, colour: Colour, cover: float, horizon: float, opacity: float = 0.9) -> None:
    """`cover` is the share of the sky, 0 to 1."""
    shape = c.noise(c.between(2, 3.5), c.between(5, 8), 5)
    mask = np.clip((shape - (0.9 - 1.6 * cover)) * 1.6, 0, 1) * np.clip((horizon - c.y) / horizon * 2.2, 0, 1)
    light = np.clip(-np.gradient(shape, axis=0) * 9, -1, 1)[..., None] * 14
    c.paint(mask * opacity, rgb(colour) + light)


def _sun(c: Canvas, x: float, y: float, radius: float, colour: Colour, glow: Colour, reach: float) -> None:
    c.paint(np.exp(-((c.distance(x, y) / reach) ** 2)) * 0.75, glow)
    c.paint(c.disc(x, y, radius, 3), colour)


def _water(c: Canvas, horizon: float, far: Colour, near: Colour, swell: float = 1.0) -> None:
    mask = c.below(horizon)
    depth = np.clip((c.y - horizon) / (1 - horizon), 0, 1)
    fine, coarse = c.noise(9, 90, 3), c.noise(3, 26, 4)
    waves = (fine * (1 - depth) * 0.6 + coarse * depth) * (6 + 22 * depth) * swell
    c.paint(mask, c.gradient(far, near, top=horizon))
    c.shade(mask, waves)
    if swell > 1.2:
        foam = np.clip((coarse - 0.75) * 3, 0, 1) * depth
        c.paint(mask * foam * 0.8, (240, 246, 248))


def _glitter(c: Canvas, horizon: float, x: float, colour: Colour, strength: float = 1.0) -> None:
    """The sun's or the moon's path on water."""
    depth = np.clip((c.y - horizon) / (1 - horizon), 0, 1)
    width = 0.03 + 0.13 * depth
    sparkle = np.clip(c.noise(14, 80, 2) * 1.3 + 0.45, 0, 1)
    c.paint(c.below(horizon) * np.exp(-(((c.x - x) / width) ** 2)) * sparkle * strength * (1 - 0.35 * depth), colour)


def _mountains(c: Canvas, base: float, height: float, rock: Colour, snow: float, haze: Colour, far: float) -> None:
    """A range that stands on `base`. `snow` is the share of it that is white, `far` how much of it is haze."""
    shape = 1 - np.abs(c.profile(c.between(1.6, 3), 6, 0.5))
    shape = (shape - shape.min()) / (shape.max() - shape.min())
    top = base - height * (0.25 + 0.75 * shape)
    mask = c.below(top)
    relief = 1 - np.abs(c.noise(4, 4, 5)) * 1.6
    light = np.clip((np.gradient(relief, axis=1) * 1.0 - np.gradient(relief, axis=0) * 0.5) * c.width / 38, -1, 1)
    face = rgb(rock) + 42 * light[..., None]
    white = np.clip((snow * height * 1.5 - (c.y - (base - height)) + 0.10 * relief * height) * 18 / height, 0, 1)
    white *= np.clip(1.0 + light * 0.9, 0, 1)
    face = mix(face, rgb((238, 243, 250)) + 26 * light[..., None], white[..., None])
    c.paint(mask, mix(face, haze, far))


def hills(
    c: Canvas, base: float, height: float, crest: Colour, foot: Colour, texture: float = 10, lumps: float = 1.5
) -> None:
    """Rolling ground from its crest to the lower edge."""
    line = base + height * c.profile(lumps, 2, 0.35)
    mask = c.below(line)
    c.paint(mask, c.gradient(crest, foot, top=base - height))
    if texture:
        c.shade(mask, (c.noise(50, 60, 2) + c.noise(3, 7, 2)) * texture)


def _pines(c: Canvas, base: float, height: float, colour: Colour, count: int) -> None:
    """A row of firs in front of what is painted already."""
    line = np.full(c.width, 1.0)
    x = c.x[0]
    for _ in range(count):
        at, tall = c.between(-0.05, 1.05), height * c.between(0.55, 1.1)
        foot = base + c.between(-0.02, 0.04)
        reach = tall * c.between(0.2, 0.3) / c.ratio
        slope = np.abs(x - at) / reach
        jag = 0.07 * np.abs(np.sin(slope * 17 + at * 40))
        line = np.where(slope < 1, np.minimum(line, foot - tall * (1 - slope - jag * (slope > 0.06))), line)
    line = np.minimum(line, base + 0.02 * c.profile(4, 3))
    depth = np.clip((c.y - line) / height, 0, 1.2)
    c.paint(c.below(line.astype(np.float32), 1.5), rgb(colour) + (12 - 26 * depth)[..., None])


def stars(c: Canvas, count: int, horizon: float) -> None:
    sheet = np.zeros((c.height, c.width), np.float32)
    rows, columns = (c.rng.uniform(0, horizon, count) * c.height).astype(int), c.rng.randint(0, c.width, count)
    sheet[rows, columns] = c.rng.uniform(0.15, 1, count) ** 2
    big = sheet * (sheet > 0.7)
    halo = Image.fromarray((big * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
    c.paint(np.clip(sheet + np.asarray(halo, np.float32) / 255 * 5, 0, 1), (250, 250, 255))


def _blobs(c: Canvas, count: int, top: float, bottom: float, size: float, colours: Sequence[Colour]) -> None:
    """Flowers strewn over a meadow, smaller the farther away they are."""
    sheet = Image.fromarray(np.clip(c.pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(sheet)
    for depth in np.sort(c.rng.uniform(0, 1, count) ** 1.5):
        radius = max(0.8, size * c.height * (0.15 + 0.85 * depth) * c.between(0.7, 1.2))
        x, y = c.rng.uniform(0, c.width), (top + (bottom - top) * depth) * c.height
        colour = c.vary(colours[c.rng.randint(len(colours))], 18)
        draw.ellipse((x - radius, y - radius * 0.7, x + radius, y + radius * 0.7), fill=tuple(int(v) for v in colour))
    c.pixels = np.asarray(sheet, np.float32).copy()


# --- scenes; each paints a canvas


_DAY_SKIES = (((52, 120, 205), (120, 178, 232), (206, 228, 243)), ((70, 140, 214), (150, 200, 238), (224, 238, 246)))
_RED_SKIES = (
    ((72, 38, 92), (196, 62, 66), (250, 140, 62)),
    ((92, 30, 62), (214, 66, 44), (255, 176, 84)),
    ((48, 34, 84), (170, 52, 88), (244, 116, 74)),
    ((110, 28, 36), (206, 52, 34), (252, 150, 60)),
)


def day_sky(c: Canvas, horizon: float, cover: float | None = None) -> None:
    c.paint(1.0, c.gradient(*(c.vary(v, 8) for v in _DAY_SKIES[c.rng.randint(2)]), bottom=horizon))
    _clouds(c, (250, 251, 253), c.between(0.2, 0.55) if cover is None else cover, horizon)


def _red_sky(c: Canvas, horizon: float) -> tuple[float, float]:
    """Gives the place of the sun."""
    colours = [c.vary(v, 12) for v in _RED_SKIES[c.rng.randint(len(_RED_SKIES))]]
    c.paint(1.0, c.gradient(*colours, bottom=horizon))
    _clouds(c, c.vary((120, 44, 70), 15), c.between(0.3, 0.5), horizon * 1.1, 0.6)
    _clouds(c, c.vary((255, 150, 90), 12), c.between(0.15, 0.35), horizon * 1.1, 0.55)
    x, y = c.between(0.25, 0.75), horizon - c.between(0.02, 0.16)
    _sun(c, x, y, c.between(0.035, 0.06), (255, 240, 190), (255, 178, 80), c.between(0.2, 0.34))
    return x, y


def sunset_over_sea(c: Canvas) -> None:
    horizon = c.between(0.5, 0.64)
    x, _ = _red_sky(c, horizon)
    _water(c, horizon, (196, 92, 66), (50, 26, 50))
    _glitter(c, horizon, x, (255, 190, 110))
    if c.rng.rand() < 0.4:
        island = c.below(horizon + 0.006 - 0.05 * np.clip(c.profile(2, 4) - 0.1, 0, 1))
        c.paint(island * (c.y < horizon + 0.004), (58, 26, 44))


def sunset_over_mountains(c: Canvas) -> None:
    base = c.between(0.66, 0.76)
    _red_sky(c, base)
    for i, (dark, height) in enumerate(((0.62, 0.3), (0.8, 0.22), (0.95, 0.14))):
        line = base + 0.1 * i - height * (0.5 + 0.5 * c.profile(2.5 + i, 5))
        c.paint(c.below(line), mix((196, 84, 72), (38, 18, 40), dark))


def open_sea(c: Canvas) -> None:
    horizon = c.between(0.38, 0.52)
    day_sky(c, horizon)
    _water(c, horizon, c.vary((66, 128, 176)), c.vary((14, 62, 112)), c.between(0.8, 1.2))


def stormy_sea(c: Canvas) -> None:
    horizon = c.between(0.4, 0.5)
    c.paint(1.0, c.gradient((62, 70, 82), (120, 130, 140), (168, 176, 180), bottom=horizon))
    _clouds(c, (70, 78, 90), 0.65, horizon * 1.2, 0.8)
    _water(c, horizon, (96, 112, 120), (34, 56, 66), 1.9)


def sandy_beach(c: Canvas) -> None:
    horizon = c.between(0.34, 0.44)
    day_sky(c, horizon)
    _water(c, horizon, c.vary((30, 118, 176)), c.vary((92, 208, 206)), 0.7)
    lean = c.between(-0.1, 0.1)
    shore = c.between(0.64, 0.72) + lean * (c.x[0] - 0.5) + 0.015 * c.profile(4, 3)
    c.paint(c.below(shore - 0.022, 14), (242, 250, 250))
    c.paint(c.below(shore + 0.012, 5), c.gradient((214, 190, 144), (240, 218, 172), (232, 206, 158), top=0.6))
    c.shade(c.below(shore + 0.012), c.noise(70, 70, 2) * 6 + c.noise(4, 6, 3) * 5)


def sailing_boats(c: Canvas) -> None:
    horizon = c.between(0.46, 0.6)
    day_sky(c, horizon)
    _water(c, horizon, c.vary((74, 140, 186)), c.vary((18, 78, 130)))
    for _ in range(c.rng.randint(1, 4)):
        x, tall = c.between(0.15, 0.85), c.between(0.16, 0.4)
        y = horizon + tall * c.between(0.2, 0.5)
        wide = tall / c.ratio
        sail = ((250, 250, 246), (230, 70, 52), (250, 214, 90))[c.rng.randint(3)]
        c.polygon([(x, y - tall), (x, y - 0.05 * tall), (x + 0.42 * wide, y - 0.05 * tall)], sail)
        mast, keel, boom = x - 0.02 * wide, y + 0.1 * tall, y - 0.05 * tall
        c.polygon([(mast, y - 0.85 * tall), (mast, boom), (x - 0.3 * wide, boom)], (244, 240, 230))
        hull = [(x - 0.4 * wide, y), (x + 0.5 * wide, y), (x + 0.34 * wide, keel), (x - 0.28 * wide, keel)]
        c.polygon(hull, (110, 58, 36))


def snowy_mountains(c: Canvas) -> None:
    base = c.between(0.72, 0.85)
    day_sky(c, base, c.between(0.1, 0.35))
    _mountains(c, base - 0.04, c.between(0.4, 0.5), (104, 120, 146), 0.95, (176, 204, 232), 0.4)
    _mountains(c, base + 0.06, c.between(0.38, 0.5), (72, 78, 92), 0.8, (176, 204, 232), 0.1)
    hills(c, base + 0.04, 0.04, (232, 238, 246), (206, 218, 234), 6)
    if c.rng.rand() < 0.5:
        _pines(c, c.between(0.97, 1.03), 0.16, (32, 50, 52), 26)


def mountain_lake(c: Canvas) -> None:
    horizon = c.between(0.56, 0.66)
    day_sky(c, horizon, c.between(0.15, 0.4))
    _mountains(c, horizon, c.between(0.34, 0.46), (92, 100, 112), c.between(0.3, 0.6), (170, 200, 228), 0.25)
    _mountains(c, horizon + 0.02, c.between(0.14, 0.2), (58, 84, 62), 0.0, (150, 180, 190), 0.1)
    _pines(c, horizon - 0.005, 0.07, (30, 60, 44), 60)
    c.mirror(horizon, 0.012, (34, 92, 116), 0.3)


def icebergs(c: Canvas) -> None:
    horizon = c.between(0.5, 0.6)
    c.paint(1.0, c.gradient((132, 176, 212), (214, 230, 240), bottom=horizon))
    _clouds(c, (240, 244, 248), 0.45, horizon)
    _mountains(c, horizon, 0.14, (150, 172, 196), 0.8, (206, 224, 238), 0.4)
    for _ in range(c.rng.randint(2, 5)):
        x, wide, tall = c.between(0.05, 0.95), c.between(0.12, 0.3), c.between(0.1, 0.32)
        foot = horizon + c.between(0.0, 0.03)
        tops = [
            (x + wide * (t - 0.5), foot - tall * c.between(0.3, 1.0) * (1 - abs(2 * t - 1) ** 2))
            for t in np.linspace(0.06, 0.94, 7)
        ]
        c.polygon([(x - wide / 2, foot), *tops, (x + wide / 2, foot)], (236, 245, 251))
        for left, right in zip(tops[1::2], tops[2::2], strict=False):
            c.polygon([left, right, (right[0], foot), ((left[0] + right[0]) / 2, foot)], c.vary((164, 208, 232), 10))
    c.mirror(horizon + 0.03, 0.015, (58, 122, 158), 0.42)


def green_hills(c: Canvas) -> None:
    horizon = c.between(0.44, 0.56)
    day_sky(c, horizon + 0.1)
    hills(c, horizon - 0.02, 0.07, (112, 150, 140), (124, 164, 130), 4, 2)
    hills(c, horizon + 0.08, 0.07, (96, 156, 74), (124, 176, 74), 8)
    hills(c, horizon + 0.24, 0.07, (98, 164, 52), (58, 118, 34), 13)
    for _ in range(c.rng.randint(2, 7)):
        x, y, r = c.between(0, 1), horizon + c.between(0.1, 0.26), c.between(0.02, 0.05)
        c.box(x - 0.003, y, x + 0.003, y + r * 1.6, (76, 56, 40))
        for _ in range(5):
            crown = c.disc(x + c.between(-r, r) * 0.6 / c.ratio, y - c.between(0, r), r * c.between(0.5, 0.8), 4)
            c.paint(crown, c.vary((44, 96, 40), 12))


def flower_meadow(c: Canvas) -> None:
    horizon = c.between(0.34, 0.46)
    day_sky(c, horizon)
    hills(c, horizon - 0.02, 0.04, (110, 150, 128), (110, 160, 90), 5, 2)
    hills(c, horizon + 0.03, 0.02, (104, 160, 64), (52, 112, 34), 16)
    colours = (
        ((214, 40, 44), (236, 72, 52)),
        ((250, 214, 60), (252, 244, 230)),
        ((150, 84, 190), (226, 110, 170)),
        ((240, 240, 236), (250, 214, 60), (220, 60, 70)),
    )
    _blobs(c, 900, horizon + 0.06, 1.02, 0.016, colours[c.rng.randint(4)])


def lavender_field(c: Canvas) -> None:
    _field(c, ((112, 76, 170), (150, 108, 200)), (70, 104, 62))


def rapeseed_field(c: Canvas) -> None:
    _field(c, ((236, 204, 40), (250, 226, 70)), (128, 150, 40))


def _field(c: Canvas, colours: tuple[Colour, Colour], furrow: Colour) -> None:
    """Rows of plants that run towards the horizon."""
    horizon = c.between(0.36, 0.48)
    day_sky(c, horizon)
    hills(c, horizon - 0.02, 0.05, (104, 138, 140), (104, 148, 96), 4, 2)
    depth = np.clip(c.y - horizon, 0.004, 1)
    rows = np.cos((c.x - c.between(0.2, 0.8)) / depth * 1.9 * c.ratio) * 0.5 + 0.5
    mask = c.below(horizon)
    tuft = c.noise(60, 50, 2)[..., None] * 16
    c.paint(mask, c.gradient(colours[1], colours[0], top=horizon) + tuft)
    gap = np.clip(rows * 3 - 1.9 + 0.25 * c.noise(40, 40, 2), 0, 1) * np.clip(depth * 9, 0, 1)
    c.paint(mask * gap * 0.85, rgb(furrow) + tuft)


def green_forest(c: Canvas) -> None:
    _woods(c, ((34, 84, 30), (72, 132, 42), (124, 178, 60)), (62, 88, 36), (56, 44, 34))


def autumn_forest(c: Canvas) -> None:
    _woods(c, ((150, 62, 20), (216, 116, 26), (242, 178, 54)), (164, 92, 38), (58, 42, 34))


def _woods(c: Canvas, leaves: tuple[Colour, Colour, Colour], floor: Colour, bark: Colour) -> None:
    """Trunks in three depths under a canopy."""
    ground = c.between(0.68, 0.78)
    c.paint(1.0, c.gradient(leaves[1], leaves[2], leaves[1]) + 34 * c.noise(16, 16, 4)[..., None])
    c.paint(np.exp(-((c.distance(c.between(0.35, 0.65), 0.45) / 0.3) ** 2)) * 0.55, (246, 248, 206))
    c.paint(c.below(ground + 0.02 * c.profile(4, 3), 8), rgb(floor) + 30 * c.noise(30, 60, 3)[..., None])
    for layer, (count, thick) in enumerate(((26, 0.006), (14, 0.013), (7, 0.026))):
        near = layer / 2
        for _ in range(count):
            at, lean = c.between(0, 1), c.between(-0.04, 0.04)
            middle = at + lean * (c.y - 0.5) + 0.004 * np.sin(c.y * 9 + at * 50)
            width = thick * c.between(0.7, 1.3) * (1 + 0.5 * np.clip(c.y - ground, 0, 1))
            side = (c.x - middle) / width
            foot = ground + 0.02 + 0.13 * near + c.between(-0.02, 0.02)
            trunk = np.clip((1 - np.abs(side)) * width * c.width + 0.5, 0, 1) * (c.y < foot)
            colour = mix(bark, leaves[1], (1 - near) * 0.5)
            c.paint(trunk, colour - 22 * np.clip(side, -1, 1)[..., None])
        foliage = np.clip((c.noise(20 - 5 * layer, 18 - 5 * layer, 4) + (0.75 - near * 0.25 - c.y * 2.4)) * 2.5, 0, 1)
        c.paint(foliage * 0.85, rgb(leaves[2 - layer]) + 38 * c.noise(44, 40, 2)[..., None])


def pine_forest(c: Canvas) -> None:
    c.paint(1.0, c.gradient(c.vary((130, 170, 196)), (206, 222, 222)))
    for i, base in enumerate((0.5, 0.66, 0.84, 1.04)):
        near = (i + 1) / 4
        _pines(c, base, 0.26 + 0.16 * near, mix((112, 150, 142), (18, 54, 34), near), 34 - 6 * i)


def foggy_forest(c: Canvas) -> None:
    c.paint(1.0, c.gradient((190, 198, 202), (222, 226, 226)))
    for i, base in enumerate((0.52, 0.7, 0.88, 1.06)):
        near = (i + 1) / 4
        _pines(c, base, 0.24 + 0.18 * near, mix((196, 203, 206), (84, 98, 102), near), 26 - 4 * i)
        fog = c.below(base - 0.16, c.height * 0.4) * (0.9 - 0.25 * near) + 0.12 * c.noise(2, 5, 3)
        c.paint(np.clip(fog, 0, 1) * (1 - 0.6 * near), (216, 221, 223))


def desert_dunes(c: Canvas) -> None:
    horizon = c.between(0.36, 0.5)
    c.paint(1.0, c.gradient(c.vary((78, 140, 204)), (196, 216, 226), (240, 220, 186), bottom=horizon))
    for i in range(4):
        line = horizon + 0.17 * i + (0.06 + 0.03 * i) * c.profile(c.between(1, 3), 1)
        mask = c.below(line)
        light = np.clip(-np.gradient(line) * c.width * 1.2, -1, 1)[None, :] * np.exp(-np.clip(c.y - line, 0, 1) * 5)
        near = i / 3
        sand = mix((236, 196, 142), (206, 132, 66), near)
        ripple = np.sin((c.y - line) * (320 - 170 * near) + 5 * c.noise(3, 3, 2)) * (2 + 3.5 * near)
        c.paint(mask, sand + (40 * light + ripple - 60 * np.clip(c.y - line, 0, 0.5))[..., None])


def night_sky(c: Canvas) -> None:
    horizon = c.between(0.74, 0.86)
    c.paint(1.0, c.gradient((6, 9, 28), (16, 28, 66), (42, 62, 104), bottom=horizon))
    band = np.exp(-(((c.y - 0.2 - c.between(-0.5, 0.5) * (c.x - 0.5) - 0.15) / 0.16) ** 2))
    c.paint(np.clip(band * (0.3 + 0.3 * c.noise(5, 5, 5)), 0, 0.5), (150, 150, 196))
    stars(c, 520, horizon)
    if c.rng.rand() < 0.7:
        x, y, r = c.between(0.15, 0.85), c.between(0.14, 0.36), c.between(0.04, 0.075)
        _sun(c, x, y, r, (240, 238, 222), (120, 134, 176), r * 3)
        c.shade(c.disc(x, y, r, 3), np.clip(c.noise(40, 40, 3), -1, 0) * 26)
    _pines(c, horizon + 0.05, c.between(0.06, 0.14), (5, 8, 16), 40)


def moon_over_sea(c: Canvas) -> None:
    horizon = c.between(0.52, 0.64)
    c.paint(1.0, c.gradient((8, 12, 34), (28, 44, 88), (70, 92, 134), bottom=horizon))
    stars(c, 160, horizon)
    _clouds(c, (44, 56, 92), 0.3, horizon, 0.6)
    x, y = c.between(0.2, 0.8), c.between(0.14, 0.34)
    _sun(c, x, y, c.between(0.05, 0.08), (246, 244, 230), (130, 146, 190), 0.24)
    _water(c, horizon, (48, 66, 106), (8, 14, 34))
    _glitter(c, horizon, x, (226, 228, 226), 0.85)


def northern_lights(c: Canvas) -> None:
    c.paint(1.0, c.gradient((5, 8, 26), (10, 30, 52), (24, 54, 72)))
    stars(c, 260, 0.8)
    for colour, strength in (((60, 230, 140), 0.95), ((120, 240, 170), 0.6), ((150, 90, 220), 0.6)):
        line = c.between(0.4, 0.6) + 0.12 * c.profile(1.6, 3)
        rise = line[None, :] - c.y
        streaks = 0.55 + 0.45 * c.profile(22, 3)[None, :]
        c.paint(
            np.where(rise > 0, np.exp(-np.clip(rise, 0, 1) / 0.17), np.exp(-((rise / 0.025) ** 2)))
            * streaks
            * strength,
            colour,
        )
    _mountains(c, 0.94, 0.2, (34, 48, 66), 0.5, (20, 40, 60), 0.55)
    hills(c, 0.9, 0.02, (70, 96, 110), (34, 52, 68), 3)
