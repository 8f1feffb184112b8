"""What a text says to local/classic-1: colours and textures, and where they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lookalike.embedders.local.words import (
    COLOUR_WORDS,
    COLOURS,
    DIRECTIONS,
    FUNCTION_WORDS,
    OVER,
    PHRASES,
    PLACE_WORDS,
    RAINBOW,
    TEXTURE_WORDS,
    THING_WORDS,
    THINGS,
    TONE_WORDS,
    TONES,
    UNDER,
    Palette,
    Rgb,
    Thing,
    blend,
    grey,
    scale,
)
from lookalike.errors import ItemError


@dataclass(frozen=True, slots=True)
class Layer:
    """A part of what a text says.

    Attributes:
        place: where it is, one of `sketch.PLACES`.
        palette: its colours, from upper to lower or from one extreme to the other; empty where nothing is said of them.
        texture: its texture, one of `sketch.TEXTURES`; None where nothing is said of it.
        weight: how much it counts: 1 if it is said, less if it only goes without saying.
        unnamed: so many colours at the beginning of the palette are not those that the text names, and count less.
    """

    place: str
    palette: Palette
    texture: str | None
    weight: float = 1.0
    unnamed: int = 0


@dataclass(slots=True)
class _Element:
    """A thing in a text, or colours without one, with all that the text says of it."""

    thing: str | None
    colours: list[Palette] = field(default_factory=list)
    tones: list[str] = field(default_factory=list)
    texture: str | None = None
    place: str | None = None


def understand(text: str) -> tuple[Layer, ...]:
    """What `text` says, in layers.

    Raises:
        ItemError: ``empty-text``, or ``outside-vocabulary`` if the text says nothing, or something, that no word here
            stands for.
    """
    if not text.strip():
        raise ItemError("empty-text", "The text is empty. Say what the pictures should look like.")
    words = [w.removesuffix("'s") for w in re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower().replace("’", "'"))]
    reader = _Reader(words)
    if reader.unknown:
        unknown = list(dict.fromkeys(reader.unknown))
        listed = ", ".join(f"'{word}'" for word in unknown[:_LISTED]) + (" …" if len(unknown) > _LISTED else "")
        raise ItemError("outside-vocabulary", f"local/classic-1 does not understand {listed}. {_UNDERSTOOD}")
    if not reader.elements:
        raise ItemError("outside-vocabulary", f"local/classic-1 finds nothing to look for in the text. {_UNDERSTOOD}")
    return tuple(_layers(reader.elements))


_LISTED = 10
"""No more unknown words than these are named."""

_UNDERSTOOD = (
    "It understands colours (red, dark blue, turquoise …), brightness (dark, bright, pale, vivid, monochrome …), "
    "scenes (sky, sea, beach, forest, grass, mountain, snow, desert, city, house, flower, sunset, night, fog …), "
    "patterns (horizontal stripes, dots, checks, tiles, smooth …) and places (top, bottom, left, right, over, under). "
    "Other models, such as azure-vision/2023-04-15, understand free text."
)


class _Reader:
    """Reads the words of a text, one after the other.

    Attributes:
        elements: what they say.
        unknown: those that mean nothing here.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.elements: list[_Element] = []
        self.unknown: list[str] = []
        self._pending = _Element(None)
        self._next_place: str | None = None
        self._next_half: str | None = None
        self._stripes: str | None = None
        at = 0
        while at < len(words):
            at += self._take(words[at], words[at + 1] if at + 1 < len(words) else "", words[at + 1 :])
        self._finish()

    def _take(self, word: str, following: str, rest: Sequence[str]) -> int:
        """Take in `word`; gives the number of words that are done with."""
        pending = self._pending
        if (word, following) in PHRASES:
            self._add(PHRASES[word, following])
            return 2
        if word in COLOUR_WORDS:
            colour = COLOURS[COLOUR_WORDS[word]]
            for tone in pending.tones:
                colour = _toned(colour, [tone])
            pending.colours.append(colour)
            pending.tones.clear()
        elif word in TONE_WORDS:
            pending.tones.append(TONE_WORDS[word])
        elif word in TEXTURE_WORDS:
            pending.texture = TEXTURE_WORDS[word]
        elif word in DIRECTIONS:
            self._direct(DIRECTIONS[word])
        elif word in PLACE_WORDS:
            self._put(PLACE_WORDS[word])
        elif word in OVER | UNDER:
            self._relate(word in OVER, any(w in COLOUR_WORDS or w in TONE_WORDS or _thing(w) for w in rest))
        elif thing := _thing(word):
            self._add(thing)
        elif word not in FUNCTION_WORDS:
            self.unknown.append(word)
        return 1

    def _finish(self) -> None:
        if self._stripes:
            self._add("stripe")
        if self._pending == _Element(None):
            return
        if self.elements and self.elements[-1].thing and not (self._next_place or self._next_half):
            # what comes behind a thing belongs to it: "a house in red", "a sky of deep blue"
            self._adorn(self.elements[-1])
        else:
            self._add(None)

    def _adorn(self, element: _Element) -> None:
        element.colours += self._pending.colours
        element.tones += self._pending.tones
        element.texture = self._pending.texture or element.texture
        self._pending = _Element(None)

    def _add(self, thing: str | None) -> None:
        if thing == "stripe" and self._stripes:
            thing, self._stripes = self._stripes, None
        last = self.elements[-1] if self.elements else None
        if last is None or last.thing != thing or thing is None:
            last = _Element(thing, place=self._next_place or (self._next_half if thing is None else None))
            self.elements.append(last)
        self._adorn(last)
        self._next_place = self._next_half = None

    def _direct(self, stripes: str) -> None:
        """A direction belongs to stripes, whether it stands before or behind them."""
        if self.elements and self.elements[-1].thing == "stripe":
            self.elements[-1].thing = stripes
        else:
            self._stripes = stripes

    def _put(self, place: str) -> None:
        """A place belongs to what stands before it, "blue on top", or else to what follows, "on top blue"."""
        if self._next_place and self._pending != _Element(None):
            self._add(None)
            self._next_place = place
        elif self._pending != _Element(None):
            self._next_place = place
            self._add(None)
        elif self.elements and self.elements[-1].place is None:
            self.elements[-1].place = place
        else:
            self._next_place = place

    def _relate(self, over: bool, followed: bool) -> None:
        """Things have places of their own, above or below; colours get theirs here, "red over blue"."""
        first, second = ("top", "bottom") if over else ("bottom", "top")
        if self._pending != _Element(None):
            self._next_half = first
            self._add(None)
        elif self.elements and not followed:
            self.elements[-1].place = first
        self._next_half = second if followed else None


def _thing(word: str) -> str | None:
    """The thing that a word stands for, in the singular or the plural."""
    singulars = [word, word.removesuffix("s"), word.removesuffix("es")]
    if word.endswith("ies"):
        singulars.append(word[:-3] + "y")
    if word.endswith("ves"):
        singulars.append(word[:-3] + "f")
    return next((THING_WORDS[singular] for singular in singulars if singular in THING_WORDS), None)


# --- from words to colours and places


def _toned(palette: Palette, tones: Sequence[str]) -> Palette:
    for tone in tones:
        palette = tuple(TONES[tone][0](colour) for colour in palette)
    return palette


def _layers(elements: Sequence[_Element]) -> Iterator[Layer]:
    said = {element.thing for element in elements if element.thing}
    moods = {mood for thing in said if (mood := THINGS[thing].mood)}
    for element in elements:
        if element.thing == "flower" and "grass" in said and not element.place:
            element.place = "ground"
    # what only says how something else looks is no layer of its own
    hidden = {"autumn"} if said & {"forest", "foliage"} else set()
    hidden |= {"grass"} if "flower" in said else set()
    places = {element.place or (THINGS[element.thing].place if element.thing else "whole") for element in elements}
    yield from _implied(said, places, moods)
    plain = [element for element in elements if element.thing is None and element.place is None]
    if plain:
        yield _colours_alone(plain, "whole")
    skies = []
    for element in elements:
        if element.thing is None:
            if element.place is not None:
                yield _colours_alone([element], element.place)
        elif THINGS[element.thing].place == "sky" and not element.place:
            skies.append(element)
        elif element.thing not in hidden:
            thing = THINGS[element.thing]
            palette, unnamed = _coloured(element, thing, moods)
            yield Layer(element.place or thing.place, palette, element.texture or thing.texture, unnamed=unnamed)
    if skies:
        yield _one_sky(skies, moods)


def _implied(said: set[str], places: set[str], moods: set[str]) -> Iterator[Layer]:
    done = places | ({"sky"} if "fog" in moods else set())
    for name in sorted(said):
        for implied, weight in THINGS[name].implied:
            thing = THINGS[implied]
            hidden = implied.endswith(" ground") and done & {"water", "far", "tall", "whole", "object"}
            if thing.place not in done and not hidden:
                done.add(thing.place)
                yield Layer(thing.place, _in_mood(implied, thing, moods), thing.texture, weight)


def _colours_alone(elements: Sequence[_Element], place: str) -> Layer:
    palettes = [_toned(colour, element.tones) for element in elements for colour in element.colours]
    if not palettes:
        tones = [tone for element in elements for tone in element.tones]
        palettes = [_toned(TONES[tones[0]][1], tones[1:])] if tones else []
    texture = next((element.texture for element in elements if element.texture), None)
    return Layer(place, tuple(colour for palette in palettes for colour in palette), texture)


def _one_sky(skies: Sequence[_Element], moods: set[str]) -> Layer:
    """What is said of the sky: "white clouds in a blue sky", "a cloudy sunset"."""
    things = [(element, THINGS[element.thing or "sky"]) for element in skies]
    if moods & {"dusk", "night"}:
        # the day's blue does not show then, unless somebody names a colour
        things = [(e, t) for e, t in things if t.mood or t.texture == "clouds" or e.colours] or things
    palettes = dict.fromkeys(_coloured(element, thing, moods)[0] for element, thing in things)
    palette = tuple(colour for palette in palettes for colour in palette)
    textures = [element.texture or thing.texture for element, thing in things]
    return Layer("sky", palette, next((texture for texture in textures if texture != "smooth"), "smooth"))


def _coloured(element: _Element, thing: Thing, moods: set[str]) -> tuple[Palette, int]:
    """The colours of a thing in a text, and how many of them the text does not name though it names others."""
    base = _in_mood(element.thing or "", thing, moods)
    colours = element.colours or ([(colour,) for colour in RAINBOW] if "colourful" in element.tones else [])
    if not colours:
        return _toned(base, element.tones), 0
    if not base:
        # a pattern needs two colours: a single one goes with a light one, or white with a dark one
        named = tuple(colour[0] for colour in colours)
        second: Rgb = (44.0, 46.0, 56.0) if sum(named[0]) > 600 else (242.0, 240.0, 234.0)
        return (_toned(named, element.tones), 0) if len(named) > 1 else ((second, *_toned(named, element.tones)), 1)
    anchors = [colour[i % len(colour)] for i in range(3) for colour in colours]
    free = max(len(base) - thing.kept, len(colours))
    share = 0.6 if thing.place == "sky" or thing.texture == "trunks" else 0.9
    named = tuple(
        blend(base[min(thing.kept + i, len(base) - 1)], anchors[i % len(anchors)], share) for i in range(free)
    )
    return base[: thing.kept] + _toned(named, element.tones), thing.kept


def _in_mood(name: str, thing: Thing, moods: set[str]) -> Palette:
    """The colours of a thing at night, in fog, in snow …"""
    palette = thing.palette
    if thing.mood:
        return palette
    if "autumn" in moods and name in ("forest", "foliage"):
        palette = THINGS["autumn"].palette
    if "snow" in moods and name in ("mountain", "rock", "forest", "foliage", "house", "street", "city", "grass"):
        palette = tuple(
            blend(colour, (244.0, 247.0, 251.0), share) for colour, share in zip(palette, _SNOWED, strict=False)
        )
    if "night" in moods:
        palette = thing.at_night or tuple(blend(scale(colour, 0.22), (10.0, 16.0, 40.0), 0.4) for colour in palette)
    if "dusk" in moods:
        afterglow: Rgb = (206.0, 96.0, 62.0) if thing.place == "water" else (90.0, 36.0, 44.0)
        palette = tuple(blend(scale(colour, 0.4), afterglow, 0.5) for colour in palette)
    if "storm" in moods:
        palette = tuple(blend(scale(grey(colour), 0.65), (90.0, 100.0, 108.0), 0.5) for colour in palette)
    if "fog" in moods:
        palette = tuple(blend(blend(colour, grey(colour), 0.6), (208.0, 213.0, 215.0), 0.5) for colour in palette)
    return palette


_SNOWED = (0.15, 0.7, 0.9, 0.9, 0.9)
"""How white snow makes the colours of a palette, from its darkest one on."""
