"""Cities, houses, flowers, fruit and balloons among the sample pictures. Each one paints a bare `Canvas`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lookalike.cli.demo.canvas import PAINTS, Canvas, Colour, mix, rgb
from lookalike.cli.demo.landscapes import day_sky, hills, stars


def city_by_day(c: Canvas) -> None:
    ground = c.between(0.84, 0.93)
    day_sky(c, ground, c.between(0.15, 0.4))
    for layer in range(3):
        near = layer / 2
        facades = ((150, 172, 194), (186, 184, 180), (142, 122, 112), (96, 122, 150), (204, 190, 168))
        hazy = [mix(facade, (190, 212, 232), 0.45 * (1 - near)) for facade in facades]
        _towers(c, ground, 0.66 - 0.18 * layer, near, hazy, lit=False)
    c.paint(c.below(ground), rgb((92, 96, 102)) + 5 * c.noise(30, 30, 2)[..., None])


def city_at_night(c: Canvas) -> None:
    ground = c.between(0.64, 0.74)
    c.paint(1.0, c.gradient((14, 20, 58), (58, 52, 112), (150, 92, 120), bottom=ground))
    stars(c, 70, 0.4)
    for layer in range(3):
        near = layer / 2
        dark = [rgb(facade) * (1.5 - 0.6 * near) for facade in ((22, 26, 46), (30, 28, 44), (18, 24, 40))]
        _towers(c, ground, 0.56 - 0.15 * layer, near, dark, lit=True)
    c.mirror(ground, 0.02, (8, 12, 32), 0.4)


def _towers(c: Canvas, ground: float, height: float, near: float, facades: Sequence[Colour], lit: bool) -> None:
    """A row of high buildings with windows."""
    x = c.between(-0.08, 0.0)
    while x < 1:
        wide, tall = c.between(0.06, 0.13), height * c.between(0.45, 1.05)
        colour = c.vary(facades[c.rng.randint(len(facades))], 8)
        c.box(x, ground - tall, x + wide, ground, colour)
        if c.rng.rand() < 0.25:
            c.box(x + wide * 0.46, ground - tall - 0.07, x + wide * 0.54, ground - tall, colour)
        c.box(x + wide * 0.88, ground - tall, x + wide, ground, colour * np.float32(0.8))
        step_x, step_y = 0.0155 * (480 / c.width), 0.026
        for i in range(1, int(wide / step_x)):
            for j in range(1, int(tall / step_y)):
                left, top = x + i * step_x - 0.35 * step_x, ground - tall + j * step_y
                glass = c.vary((250, 206, 120), 26) * (0.6 + 0.4 * near) if lit else colour * 0.62 + (1 - near) * 40
                if not lit or c.rng.rand() < 0.25 + 0.2 * near:
                    c.box(left, top, left + step_x * 0.6, top + step_y * 0.5, glass)
        x += wide * c.between(0.85, 1.25)


def house(c: Canvas, name: str) -> None:
    ground = c.between(0.76, 0.82)
    day_sky(c, ground, c.between(0.1, 0.4))
    hills(c, ground - 0.06, 0.04, (110, 158, 100), (96, 150, 72), 6)
    hills(c, ground, 0.008, (110, 168, 66), (66, 124, 44), 11)
    wide, tall = c.between(0.5, 0.6) / max(1.0, c.ratio * 0.75), c.between(0.34, 0.4)
    left = 0.5 - wide / 2 + c.between(-0.07, 0.07)
    wall = c.vary(PAINTS[name], 8)
    bottom, top, right = ground + 0.04, ground + 0.04 - tall, left + wide
    roof = c.vary(((96, 60, 54), (84, 86, 96), (128, 70, 50))[c.rng.randint(3)], 8)
    c.box(left + wide * 0.72, top - 0.2, left + wide * 0.8, top, c.vary((150, 84, 68), 8))
    c.box(left, top, right, bottom, wall)
    front = (c.x > left) & (c.x < right) & (c.y > top) & (c.y < bottom)
    c.shade(front, 5 * np.sin(c.y * c.height * 2 * np.pi / 9))
    eaves, ridge = top, top - 0.2
    slant = wide * 0.22
    c.polygon([(left - 0.04, eaves), (left + slant, ridge), (right - slant, ridge), (right + 0.04, eaves)], roof)
    for i in (0, 1, 3, 4) if c.rng.rand() < 0.7 else (0, 4):
        for row in (0.12, 0.56):
            x, y = left + wide * (0.06 + 0.19 * i), top + tall * row
            c.box(x, y, x + wide * 0.12, y + tall * 0.28, (248, 246, 240))
            c.box(x + 0.006, y + 0.008, x + wide * 0.12 - 0.006, y + tall * 0.28 - 0.008, (84, 112, 140))
            c.box(x + wide * 0.06 - 0.002, y, x + wide * 0.06 + 0.002, y + tall * 0.28, (248, 246, 240))
    door = left + wide * 0.44
    c.box(door - 0.008, top + tall * 0.5, door + wide * 0.12 + 0.008, bottom, (248, 246, 240))
    c.box(door, top + tall * 0.52, door + wide * 0.12, bottom, c.vary((92, 58, 44), 14))
    path = [(door, bottom), (door + wide * 0.12, bottom), (door + wide * 0.3, 1.0), (door - wide * 0.2, 1.0)]
    c.polygon(path, (206, 190, 162))
    for x in (left - 0.1, right + 0.1):
        for _ in range(14):
            bush = c.disc(x + c.between(-0.06, 0.06), ground - c.between(-0.03, 0.16), c.between(0.03, 0.06), 5)
            c.paint(bush, c.vary((60, 112, 50), 18))


def row_of_houses(c: Canvas) -> None:
    ground = c.between(0.84, 0.9)
    day_sky(c, ground, 0.2)
    names = list(PAINTS)
    x, last = -c.between(0.0, 0.1), ""
    while x < 1:
        wide, tall = c.between(0.17, 0.24), c.between(0.5, 0.64)
        last = str(c.rng.choice([name for name in names if name != last]))
        wall, top, right = c.vary(PAINTS[last], 10), ground - tall, x + wide
        if c.rng.rand() < 0.6:
            c.polygon([(x, top), (x + wide / 2, top - 0.13), (right, top)], wall * np.float32(0.9))
        c.box(x, top, right, ground, wall)
        c.box(right - 0.008, top, right, ground, wall * np.float32(0.8))
        c.box(x, top, right, top + 0.015, (246, 244, 238))
        for row in range(3):
            for i in range(3):
                left, y = x + wide * (0.12 + 0.28 * i), top + tall * (0.1 + 0.3 * row)
                if row == 2 and i == 1:
                    c.box(left, y, left + wide * 0.2, ground, c.vary((80, 52, 44), 16))
                else:
                    c.box(left, y, left + wide * 0.2, y + tall * 0.18, (250, 248, 242))
                    c.box(left + 0.005, y + 0.008, left + wide * 0.2 - 0.005, y + tall * 0.18 - 0.008, (70, 92, 116))
        x = right
    c.paint(c.below(ground), rgb((150, 144, 138)) + 14 * c.noise(40, 60, 2)[..., None])


def flower(c: Canvas, name: str) -> None:
    c.paint(1.0, c.gradient((96, 142, 70), (44, 92, 40)) + 34 * c.noise(3, 3, 2)[..., None])
    places = ((0.5, 0.48, 0.34),) if c.rng.rand() < 0.55 else ((0.3, 0.36, 0.24), (0.7, 0.62, 0.26))
    for x, y, size in places:
        x, y = x + c.between(-0.06, 0.06), y + c.between(-0.04, 0.04)
        radius, petals, turn = size * c.between(0.9, 1.15), c.rng.randint(5, 14), c.between(0, 6)
        c.polygon([(x - 0.01, y), (x + 0.01, y), (x + 0.03, 1.02), (x, 1.02)], (62, 110, 46))
        for layer in range(2):
            angle = np.arctan2(c.y - y, (c.x - x) * np.float32(c.ratio)) * petals / 2 + turn + layer * np.pi / 2
            reach = radius * (1 - 0.22 * layer) * (0.45 + 0.55 * np.abs(np.cos(angle)) ** 0.6)
            away = c.distance(x, y)
            light = 46 * (away / radius - 0.6) - 36 * np.abs(np.sin(angle)) ** 3 + 8 * layer
            c.paint((reach - away) * c.height / 1.5 + 0.5, c.vary(PAINTS[name], 8) + light[..., None])
        heart = (220, 160, 44) if name != "yellow" else (112, 66, 28)
        c.paint(c.disc(x, y, radius * 0.24, 3), rgb(heart) + 34 * c.noise(90, 70, 1)[..., None])


def fruit(c: Canvas, colours: Sequence[Colour]) -> None:
    edge = c.between(0.46, 0.56)
    wall = ((196, 190, 180), (120, 136, 144), (222, 214, 196), (92, 84, 96))[c.rng.randint(4)]
    c.paint(1.0, c.gradient(rgb(wall) * 0.8, wall, bottom=edge) + 6 * c.noise(3, 3, 3)[..., None])
    grain = 9 * c.noise(3, 60, 4)[..., None]
    c.paint(c.below(edge, 2), c.gradient((122, 82, 52), (164, 114, 74), top=edge) + grain)
    spots = sorted((edge + c.between(0.0, 0.26), c.between(0.14, 0.86)) for _ in range(c.rng.randint(5, 10)))
    for y, x in spots:
        radius = 0.085 + 0.13 * (y - edge) + c.between(0, 0.03)
        flat = np.hypot((c.x - x - 0.05) * c.ratio, (c.y - y - radius * 0.9) * 3.2)
        c.paint(np.clip(1.25 - flat / radius, 0, 1) * 0.6, (44, 28, 22))
        u, v = (c.x - x) * c.ratio / radius, (c.y - y) / radius
        bulge = np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
        light = np.clip(-0.5 * u - 0.6 * v + 0.65 * bulge, 0, 1)
        skin = c.vary(colours[c.rng.randint(len(colours))], 12) * (0.36 + 0.78 * light)[..., None]
        c.paint(c.disc(x, y, radius), skin + 5 * c.noise(70, 60, 1)[..., None])
        c.paint(np.clip(1 - np.hypot(u + 0.36, v + 0.42) / 0.3, 0, 1) ** 2 * 0.75, (255, 252, 244))


def hot_air_balloons(c: Canvas) -> None:
    day_sky(c, 0.95, c.between(0.15, 0.35))
    hills(c, 0.9, 0.04, (98, 140, 110), (84, 130, 74), 6, 2)
    names = list(PAINTS)
    for _ in range(c.rng.randint(3, 8)):
        x, y, radius = c.between(0.08, 0.92), c.between(0.14, 0.66), c.between(0.05, 0.14)
        u, v = (c.x - x) * c.ratio / radius, (c.y - y) / radius
        pinch = np.where(v > 0, 1 - 0.42 * np.clip(v, 0, 1.3) ** 2, 1.0)
        inside = np.clip((1 - np.hypot(u / pinch, v / np.where(v > 0, 1.3, 1.0))) * radius * c.height / 1.5 + 0.5, 0, 1)
        gore = np.sin(np.arcsin(np.clip(u / pinch, -1, 1)) * 5 + 0.5)
        first, second = (rgb(PAINTS[str(n)]) for n in c.rng.choice(names, 2, replace=False))
        light = (1.05 - 0.3 * np.clip(u * 0.7 + v * 0.5, -1, 1))[..., None]
        c.paint(inside, np.where(gore[..., None] > 0, first, second) * light)
        w = radius * 0.14 / c.ratio
        c.box(x - w, y + radius * 1.42, x + w, y + radius * 1.62, (104, 70, 44))
