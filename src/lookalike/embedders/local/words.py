"""The words that local/classic-1 understands: colours, tones, things, textures and places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Rgb: TypeAlias = tuple[float, float, float]
"""Red, green and blue, 0 to 255."""

Palette: TypeAlias = tuple[Rgb, ...]


def blend(first: Rgb, second: Rgb, share: float) -> Rgb:
    return (
        first[0] + share * (second[0] - first[0]),
        first[1] + share * (second[1] - first[1]),
        first[2] + share * (second[2] - first[2]),
    )


def scale(colour: Rgb, factor: float) -> Rgb:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def grey(colour: Rgb) -> Rgb:
    lightness = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]
    return (lightness, lightness, lightness)


def _vivid(colour: Rgb) -> Rgb:
    r, g, b = blend(grey(colour), colour, 1.6)
    return (min(max(r, 0.0), 255.0), min(max(g, 0.0), 255.0), min(max(b, 0.0), 255.0))


@dataclass(frozen=True, slots=True)
class Thing:
    """What a word stands for that can be seen.

    Attributes:
        place, texture: one of `sketch.PLACES`, one of `sketch.TEXTURES` or None.
        palette: its colours, from the upper to the lower or from one extreme to the other; none for patterns.
        implied: what is usually seen with it, and how much it counts.
        mood: how it changes the colours of everything else.
        at_night: its colours at night, where these are not simply darker.
        kept: so many colours at the beginning of its palette stay when a text names others: leaves, window panes.
    """

    place: str
    texture: str | None
    palette: Palette
    implied: tuple[tuple[str, float], ...] = ()
    mood: str | None = None
    at_night: Palette = ()
    kept: int = 0


def _palette(codes: str) -> Palette:
    return tuple((float(int(c[:2], 16)), float(int(c[2:4], 16)), float(int(c[4:], 16))) for c in codes.split())


def _each(words: Mapping[str, str]) -> dict[str, str]:
    """Every word of the values, with its key; the keys themselves, too."""
    return {word: key for key, value in words.items() for word in (key, *value.split())}


def _all(words: str) -> frozenset[str]:
    return frozenset(words.split())


COLOURS: dict[str, Palette] = {
    "red": _palette("c81e1e a31621 e0483e"),
    "maroon": _palette("6e1420 8a1c2c 54101c"),
    "orange": _palette("f08c1e e06a10 f7a94a"),
    "yellow": _palette("f2d024 e6b800 fae36a"),
    "gold": _palette("d4a017 b8860b e8c24a"),
    "green": _palette("2e8b3a 1f5f2a 7cb84a"),
    "olive": _palette("6b7030 84863c 545a28"),
    "lime": _palette("a4d428 8bc34a c0e060"),
    "turquoise": _palette("20a8a8 0f7f86 5cd6d0"),
    "blue": _palette("2458b8 123c8c 5a96e0"),
    "navy": _palette("101c50 1a2a6c 0c1438"),
    "azure": _palette("5aa0e6 8cc4f4 3a84d0"),
    "purple": _palette("7030a0 54207c 9a68c8"),
    "lilac": _palette("b49ad8 9c80c8 ccb8e8"),
    "magenta": _palette("c81e8c e040b0 a01470"),
    "pink": _palette("f08cb0 e8a0b8 d85c90"),
    "brown": _palette("7a4a24 5c3418 9c6c40"),
    "beige": _palette("e4d4b0 d2bc94 efe6d0"),
    "black": _palette("080808 1c1c1e 2a2a2c"),
    "white": _palette("fafafa ececec f4f4f8"),
    "grey": _palette("808080 9c9ea0 606264"),
    "silver": _palette("b8bcc2 d0d4d8 9ca2aa"),
}

COLOUR_WORDS = _each(
    {
        **dict.fromkeys(COLOURS, ""),
        "red": "scarlet crimson reddish ruby",
        "maroon": "burgundy",
        "orange": "amber",
        "yellow": "yellowish",
        "gold": "golden",
        "green": "greenish emerald",
        "turquoise": "teal cyan aqua",
        "blue": "bluish cobalt",
        "purple": "violet indigo",
        "lilac": "lavender mauve",
        "magenta": "fuchsia",
        "pink": "rosy",
        "brown": "brownish",
        "beige": "cream tan ivory",
        "white": "whitish",
        "grey": "gray greyish grayish",
        "silver": "silvery",
    }
)


_WHITE: Rgb = (255.0, 255.0, 255.0)

RAINBOW = _palette("e81c1c f8a000 f8e000 20b030 0090e0 7020c0 f020a0")

TONES: dict[str, tuple[Callable[[Rgb], Rgb], Palette]] = {
    "dark": (lambda c: scale(c, 0.42), _palette("060608 141418 201c1c 0c1424 10180e 241010 1c1a10")),
    "bright": (lambda c: _vivid(blend(c, _WHITE, 0.25)), _palette("ffffff f4f8fc fff4c0 c8e8ff f8f0e4 ffe0d0 e4f8d8")),
    "pale": (lambda c: blend(c, _WHITE, 0.55), _palette("f0f0ee e4e8ec f0e4dc e0ecdc dce4f0 f0ecd4")),
    "vivid": (_vivid, RAINBOW),
    "colourful": (_vivid, RAINBOW),
    "muted": (lambda c: blend(c, (128.0, 128.0, 128.0), 0.5), _palette("8c8880 7c8884 948c94 a09888 787c88 98887c")),
    "monochrome": (grey, _palette("101010 404040 707070 a0a0a0 d0d0d0 f4f4f4")),
    "warm": (lambda c: blend(c, (240.0, 140.0, 60.0), 0.3), _palette("c8381c e88020 f0b840 a05028 e8c890")),
    "cool": (lambda c: blend(c, (90.0, 150.0, 220.0), 0.3), _palette("2458a8 5a96d0 20a0a8 a8c8e0 506890")),
}

TONE_WORDS = _each(
    {
        "dark": "deep darker gloomy",
        "bright": "brilliant shining shiny",
        "pale": "light pastel lighter faint",
        "vivid": "saturated intense",
        "colourful": "colorful multicoloured multicolored rainbow",
        "muted": "dull faded subdued desaturated",
        "monochrome": "greyscale grayscale colourless colorless",
        "warm": "",
        "cool": "cold",
    }
)

THINGS: dict[str, Thing] = {
    "sky": Thing("sky", "smooth", _palette("3a78c8 78b0e8 c4e0f4")),
    "cloud": Thing("sky", "clouds", _palette("6ea4dc c4d8ec f4f6f8")),
    "storm": Thing("sky", "clouds", _palette("3c444c 6c747c 9aa0a6"), mood="storm"),
    "sun": Thing("sky", "smooth", _palette("a0c8f0 f8e8b0 fff6d8")),
    "sunset": Thing("sky", "smooth", _palette("5c2450 b83c40 e8743c ffb85c"), (("dusk ground", 0.5),), mood="dusk"),
    "night": Thing("sky", "stars", _palette("060818 101c40 24345c c8ccd8"), (("night ground", 0.5),), mood="night"),
    "aurora": Thing(
        "sky", None, _palette("0a1030 10283c 18485c 205850 48d890"), (("night ground", 0.5),), mood="night"
    ),
    "fog": Thing("whole", "smooth", _palette("70787c a4aaae d0d4d6"), mood="fog"),
    "sea": Thing("water", "waves", _palette("6c9cc0 2a6498 123c64"), (("sky", 0.6),)),
    "beach": Thing("ground", "grain", _palette("e0c890 f0dcb0 d0b480"), (("lagoon", 0.6), ("sky", 0.5))),
    "sand": Thing("ground", "grain", _palette("e0c890 f0dcb0 c8ac78")),
    "desert": Thing("ground", "dunes", _palette("ecc890 d89c58 b87438"), (("sky", 0.4),)),
    "grass": Thing("ground", "grain", _palette("88b850 5c9838 2e6420"), (("sky", 0.4),)),
    "foliage": Thing("whole", "grain", _palette("1c4418 3c7c2c 84b04c")),
    "forest": Thing("whole", "trunks", _palette("241c14 2c4c20 4c7c30 88ac4c"), kept=1),
    "autumn": Thing("whole", "trunks", _palette("3c2418 b05c1c e09430 f0c060"), mood="autumn", kept=1),
    "mountain": Thing("far", "ridge", _palette("3c4838 5c6474 8c94a4 d8e0ea"), (("sky", 0.8),)),
    "rock": Thing("whole", "ridge", _palette("4c4842 7c7870 a8a49c")),
    "snow": Thing("ground", "smooth", _palette("f6f8fb eaeff5 d4dee9"), mood="snow"),
    "glacier": Thing("far", "ridge", _palette("f0f6fa b4d0e8 6c9cc8"), (("cold water", 0.5), ("pale sky", 0.4))),
    "city": Thing(
        "tall",
        "facade",
        _palette("5c6068 9498a0 c8c4bc"),
        (("sky", 0.5),),
        at_night=_palette("e8b860 14182c 0a0c1c"),
        kept=1,
    ),
    "street": Thing(
        "whole", "facade", _palette("4c4844 8c8478 c4b8a4"), at_night=_palette("e8a850 2c2420 0a0a10"), kept=1
    ),
    "road": Thing("ground", "smooth", _palette("808084 6c6c70 58585c"), (("sky", 0.3),)),
    "house": Thing("object", "front", _palette("54606c a87858 d8ccbc"), (("sky", 0.3), ("grass", 0.3)), kept=1),
    "flower": Thing("whole", "blobs", _palette("2e6420 4c8c34 e04868 f0d048 f4f0f0"), kept=2),
    "fire": Thing("whole", "streaks", _palette("301008 c84010 f89020 ffe070")),
    "earth": Thing("ground", "grain", _palette("4c3420 6c4c30 8c6c48")),
    "brick": Thing("whole", "bricks", _palette("8c4030 a8563c c8b8a8")),
    "stripe": Thing("whole", "stripes", ()),
    "level stripe": Thing("whole", "level stripes", ()),
    "upright stripe": Thing("whole", "upright stripes", ()),
    "slanting stripe": Thing("whole", "slanting stripes", ()),
    "dot": Thing("whole", "dots", ()),
    "check": Thing("whole", "checks", ()),
    "tile": Thing("whole", "tiles", ()),
    # these are only ever implied
    "lagoon": Thing("water", "smooth", _palette("1c70b0 30a0c0 70d0d0")),
    "cold water": Thing("water", "smooth", _palette("a8c4d8 7ca4c0 4c7c9c")),
    "pale sky": Thing("sky", "smooth", _palette("8cb0d4 b8d0e4 dce8f0")),
    "dusk ground": Thing("ground", None, _palette("6c3034 3c1c28 1c1018")),
    "night ground": Thing("ground", None, _palette("0c1220 080a14 04060c")),
}

THING_WORDS = _each(
    {
        "sky": "sunny day daylight",
        "cloud": "cloudy overcast",
        "storm": "stormy rain rainy",
        "sun": "sunshine sunlight",
        "sunset": "sunrise dusk dawn twilight evening",
        "night": "nighttime midnight starry star moon moonlight moonlit",
        "aurora": "",
        "fog": "foggy mist misty haze hazy",
        "sea": "ocean water wave lake river bay pond seascape underwater",
        "beach": "shore coast seaside seashore coastline",
        "sand": "sandy",
        "desert": "dune sahara",
        "grass": "grassy meadow field lawn hill hilly pasture countryside prairie valley",
        "foliage": "leaf leafy bush hedge garden park jungle plant",
        "forest": "tree wood woods woodland pine fir",
        "autumn": "autumnal fall",
        "mountain": "peak summit alp alpine mountainous",
        "rock": "rocky stone stony cliff",
        "snow": "snowy ice icy winter wintry frost frosty frozen",
        "glacier": "iceberg",
        "city": "skyline skyscraper town building tower downtown cityscape urban",
        "street": "alley facade",
        "road": "asphalt",
        "house": "home cottage hut cabin barn",
        "flower": "blossom bloom floral flowery",
        "fire": "flame fiery",
        "earth": "soil mud",
        "brick": "",
        "stripe": "striped stripy line",
        "dot": "dotted spot spotted polka",
        "check": "checked checkered chequered checker chequer checkerboard chessboard",
        "tile": "tiled mosaic",
    }
)

TEXTURE_WORDS = _each(
    {"plain": "smooth flat blurred blurry empty uniform calm minimal", "grain": "rough busy textured grainy detailed"}
)
DIRECTIONS = {
    "horizontal": "level stripe",
    "vertical": "upright stripe",
    "upright": "upright stripe",
    "diagonal": "slanting stripe",
    "slanting": "slanting stripe",
}
PLACE_WORDS = _each(
    {
        "top": "upper",
        "bottom": "lower foreground",
        "left": "",
        "right": "",
        "middle": "centre center central",
    }
)
OVER = _all("over above")
UNDER = _all("under below beneath underneath")
PHRASES = {("northern", "lights"): "aurora", ("polar", "lights"): "aurora"}

FUNCTION_WORDS = _all(
    "a an the this that these those some any many much several few lots lot plenty more of in on at by to from into "
    "onto with and or as is are was were be being been it its there here which where while very quite rather so too "
    "near next beside behind between across along around through against before after off during toward towards up "
    "down out i me my we our you your show find give want please like looks looking picture pictures photo photos "
    "photograph photographs image images painting drawing scene scenes scenery view views landscape landscapes "
    "background horizon colour color colours colors coloured colored tone tones toned shade shades pattern patterns "
    "patterned texture half part side area full filled covered all whole mostly only"
)
"""Words that say nothing of how a picture looks. Negations are not among them: they cannot be done."""
