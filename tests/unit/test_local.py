"""local/classic-1: colours, layout, texture and edges, and the words for them."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lookalike.cli.demo.pictures import draw_samples
from lookalike.config import Settings
from lookalike.embedders import Embedder, open_embedder
from lookalike.embedders.local import LocalDescriptor
from lookalike.embedders.local.sketch import PLACES, TEXTURES, draw_sketches
from lookalike.embedders.local.text import understand
from lookalike.embedders.local.words import THING_WORDS, THINGS
from lookalike.errors import ConfigurationError, ItemError
from lookalike.types import Embedding, ImageInput, Model, Usage, Vector

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "real"

MODEL = Model("local/classic-1")
LOCAL = LocalDescriptor(MODEL)

PLAIN = {
    "red": (200, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (240, 210, 50),
    "green": (50, 140, 60),
    "turquoise": (40, 170, 170),
    "blue": (40, 90, 180),
    "purple": (110, 50, 160),
    "pink": (235, 140, 175),
    "brown": (120, 75, 40),
    "beige": (226, 212, 176),
    "black": (14, 14, 14),
    "white": (250, 250, 250),
    "grey": (128, 128, 128),
}


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def image(picture: Image.Image | bytes) -> Vector:
    data = picture if isinstance(picture, bytes) else encoded(picture)
    (answer,) = LOCAL.embed_images([ImageInput(data=data)])
    assert isinstance(answer, Embedding), answer
    return answer.vector


def text(words: str) -> Vector:
    (answer,) = LOCAL.embed_texts([words])
    assert isinstance(answer, Embedding), answer
    return answer.vector


def image_error(data: bytes) -> ItemError:
    (answer,) = LOCAL.embed_images([ImageInput(data=data)])
    assert isinstance(answer, ItemError)
    return answer


def text_error(words: str) -> ItemError:
    (answer,) = LOCAL.embed_texts([words])
    assert isinstance(answer, ItemError)
    return answer


def cosine(a: Vector, b: Vector) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def landscape(width: int = 320, height: int = 240) -> Image.Image:
    """Nothing in it is symmetrical."""
    picture = Image.new("RGB", (width, height), (110, 170, 230))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, height * 0.6, width, height), fill=(60, 130, 50))
    draw.polygon([(width * 0.1, height * 0.6), (width * 0.3, height * 0.2), (width * 0.5, height * 0.6)], fill="gray")
    draw.ellipse((width * 0.75, height * 0.1, width * 0.9, height * 0.3), fill=(250, 220, 90))
    for x in range(0, width, 16):
        draw.line((x, height * 0.6, x + 6, height), fill=(40, 90, 30), width=3)
    return picture


# --- the embedder


def test_it_is_opened_by_its_name() -> None:
    embedder: Embedder = open_embedder("local/classic-1", Settings())
    assert isinstance(embedder, LocalDescriptor)
    assert embedder.model == MODEL
    assert embedder.usage == Usage(0, 0)
    assert embedder.concurrency == (os.cpu_count() or 1)
    assert embedder.notice is not None
    assert "does not recognise things" in embedder.notice
    assert {"image/jpeg", "image/png", "image/webp", "image/gif", "image/tiff"} <= embedder.limits.media_types
    assert (embedder.limits.min_side, embedder.limits.max_words) == (1, None)
    embedder.close()


@pytest.mark.parametrize("name", ["local/classic-2", "local/clip", "local/classic-1+large"])
def test_other_local_models_do_not_exist(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"local/classic-1"):
        LocalDescriptor(Model(name))


def test_answers_come_in_order_and_a_failure_is_one_of_them() -> None:
    red, blue = (encoded(Image.new("RGB", (20, 20), PLAIN[name])) for name in ("red", "blue"))
    answers = LOCAL.embed_images([ImageInput(data=red), ImageInput(data=b"nonsense"), ImageInput(data=blue)])
    assert [type(answer) for answer in answers] == [Embedding, ItemError, Embedding]
    assert LOCAL.embed_images([]) == []
    texts = LOCAL.embed_texts(["red", "xylophone", "blue"])
    assert [type(answer) for answer in texts] == [Embedding, ItemError, Embedding]
    assert LOCAL.usage == Usage(0, 0)


def test_a_url_is_not_fetched() -> None:
    (answer,) = LOCAL.embed_images([ImageInput(url="https://example.org/a.jpg")])
    assert isinstance(answer, ItemError)
    assert answer.code == "url-not-supported"
    assert not answer.retryable


# --- pictures


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2), (150, 150), (1000, 30), (640, 480)])
@pytest.mark.parametrize("colour", ["black", "white", "gray", "red"])
def test_every_picture_has_1024_finite_numbers(size: tuple[int, int], colour: str) -> None:
    vector = image(Image.new("RGB", size, colour))
    assert vector.shape == (1024,)
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) > 0.5
    # as the database stores it
    assert (vector.astype(np.float16).astype(np.float32) == vector).all()


def test_the_same_picture_always_gives_the_same_numbers() -> None:
    data = encoded(landscape(), "JPEG")
    first = image(data)
    (again,) = LocalDescriptor(MODEL).embed_images([ImageInput(data=data)])
    assert isinstance(again, Embedding)
    assert (again.vector == first).all()
    # and roughly these, on every machine, lest a change goes unnoticed that makes old vectors useless
    parts = [first[:40], first[40:520], first[520:910], first[910:958], first[958:1022], first[1022:]]
    norms = [float(np.linalg.norm(part)) for part in parts]
    assert norms == pytest.approx([0.783, 1.526, 2.273, 0.808, 0.084, 0.052], rel=0.03, abs=0.01)
    assert np.argsort(-first[:40])[:5].tolist() == [19, 30, 29, 21, 13]
    assert np.sort(-first[:40])[:5] == pytest.approx([-0.415, -0.347, -0.274, -0.199, -0.151], abs=0.02)


def test_threads_do_not_disturb_each_other() -> None:
    pictures = [encoded(landscape(200 + 10 * i, 200)) for i in range(8)]
    words = ["blue sea", "red stripes", "a forest in autumn", "city at night"] * 2
    with ThreadPoolExecutor(8) as pool:
        images_together, texts_together = list(pool.map(image, pictures * 2)), list(pool.map(text, words))
    assert all((a == b).all() for a, b in zip(images_together, [image(p) for p in pictures] * 2, strict=True))
    assert all((a == b).all() for a, b in zip(texts_together, [text(w) for w in words], strict=True))


def test_size_quality_and_format_hardly_matter() -> None:
    original = landscape(1600, 1200)
    reference = image(original)
    assert cosine(reference, image(original.resize((320, 240), Image.Resampling.LANCZOS))) > 0.98
    assert cosine(reference, image(encoded(original, "JPEG", quality=70))) > 0.98
    assert cosine(reference, image(encoded(original, "WEBP"))) > 0.98
    assert cosine(reference, image(encoded(original, "BMP"))) > 0.999


def test_what_looks_alike_is_nearer() -> None:
    picture = landscape()
    reference = image(picture)
    darker = image(Image.eval(picture, lambda value: value * 9 // 10))
    cropped = image(picture.crop((10, 10, 310, 230)))
    upside_down = image(picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM))
    other = image(Image.effect_noise((320, 240), 80).convert("RGB"))
    assert min(cosine(reference, darker), cosine(reference, cropped)) > cosine(reference, upside_down)
    assert cosine(reference, upside_down) > cosine(reference, other)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_turned_picture_is_seen_upright(orientation: int, stored: Image.Transpose, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = image(encoded(landscape().transpose(stored), kind, exif=exif))
    upright = image(encoded(landscape(), kind))
    assert cosine(turned, upright) > 0.995
    assert cosine(turned, image(landscape().transpose(stored))) < 0.98


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02x\0\0\0\0\0\0\0"]
)
def test_a_broken_note_beside_the_picture_does_no_harm(exif: bytes) -> None:
    assert cosine(image(encoded(landscape(), "JPEG", exif=exif)), image(encoded(landscape(), "JPEG"))) > 0.999


def in_mode(mode: str) -> bytes:
    picture = landscape()
    match mode:
        case "CMYK":
            return encoded(picture.convert("CMYK"), "JPEG", quality=95)
        case "P":
            return encoded(picture.quantize(64))
        case "GIF":
            frames = [picture.quantize(64), Image.new("P", picture.size)]
            return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
        case "RGBA":
            return encoded(picture.convert("RGBA"))
        case "YCbCr":
            return encoded(picture.convert("YCbCr"), "TIFF")
        case _:
            return encoded(picture)


@pytest.mark.parametrize("mode", ["CMYK", "P", "GIF", "RGBA", "YCbCr"])
def test_colours_in_any_mode(mode: str) -> None:
    assert cosine(image(in_mode(mode)), image(landscape())) > 0.97


def test_greys_in_any_mode() -> None:
    grey = landscape().convert("L")
    reference = image(grey)
    deep = np.asarray(grey, np.uint16) * np.uint16(257)
    assert cosine(image(encoded(Image.fromarray(deep))), reference) > 0.999
    assert cosine(image(encoded(Image.fromarray(deep.astype(np.int32)), "TIFF")), reference) > 0.999
    assert cosine(image(encoded(Image.fromarray(np.asarray(grey, np.float32) / 255), "TIFF")), reference) > 0.999
    assert cosine(image(encoded(Image.fromarray(np.asarray(grey, np.float32)), "TIFF")), reference) > 0.999
    assert cosine(image(encoded(Image.merge("LA", (grey, Image.new("L", grey.size, 255))))), reference) > 0.999
    assert np.isfinite(image(encoded(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"))).all()
    assert cosine(image(encoded(grey.convert("1"))), reference) > 0.3


def test_what_is_transparent_lies_on_white() -> None:
    white = image(Image.new("RGB", (60, 60), "white"))
    assert cosine(image(Image.new("RGBA", (60, 60), (200, 0, 0, 0))), white) > 0.999
    palette = Image.new("P", (60, 60), 0)
    palette.putpalette([200, 0, 0, 0, 200, 0])
    assert cosine(image(encoded(palette, transparency=0)), white) > 0.999
    assert cosine(image(encoded(palette)), white) < 0.9


def test_bytes_that_are_no_picture() -> None:
    assert image_error(b"").code == "empty-file"
    assert image_error(b"<html>404</html>").code == "not-an-image"
    whole = encoded(landscape(), "JPEG")
    assert image_error(whole[:100]).code in {"not-an-image", "damaged-image"}
    assert image_error(whole[: len(whole) // 2]).code == "damaged-image"
    whole = encoded(landscape())
    assert image_error(whole[: len(whole) // 2]).code == "damaged-image"
    assert image_error(encoded(landscape(), "PDF")).code == "not-an-image"
    assert image_error(encoded(landscape(), "EPS")).code == "unsupported-format"


def test_a_small_file_with_too_many_pixels() -> None:
    header = encoded(Image.new("1", (1, 1)), "BMP")
    bomb = header[:18] + (60_000).to_bytes(4, "little") * 2 + header[26:]
    error = image_error(bomb)
    assert error.code == "too-many-pixels"
    assert not error.retryable


# --- words for colours, patterns and places


@pytest.fixture(scope="module")
def plain() -> dict[str, Vector]:
    return {name: image(Image.new("RGB", (64, 64), colour)) for name, colour in PLAIN.items()}


def ranked(words: str, pictures: dict[str, Vector]) -> list[str]:
    vector = text(words)
    return sorted(pictures, key=lambda name: -cosine(vector, pictures[name]))


@pytest.mark.parametrize("colour", PLAIN)
def test_a_colour_word_finds_its_colour(colour: str, plain: dict[str, Vector]) -> None:
    assert ranked(colour, plain)[0] == colour


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gray", {"grey"}),
        ("violet", {"purple"}),
        ("teal", {"turquoise"}),
        ("cyan", {"turquoise"}),
        ("scarlet", {"red"}),
        ("cream", {"beige"}),
        ("gold", {"yellow", "orange"}),
        ("navy", {"blue", "black"}),
        ("dark", {"black", "brown"}),
        ("very bright", {"white", "beige", "yellow"}),
        ("pale", {"white", "beige"}),
        ("light pink", {"pink", "white"}),
        ("monochrome", {"grey", "white", "black"}),
        ("colorless", {"grey", "white", "black"}),
        ("colourful", {"red", "orange", "yellow", "blue", "green", "purple", "turquoise"}),
    ],
)
def test_words_near_a_colour(words: str, expected: set[str], plain: dict[str, Vector]) -> None:
    assert ranked(words, plain)[0] in expected


def test_dark_and_light_shades() -> None:
    shades = {
        "dark": image(Image.new("RGB", (64, 64), (16, 36, 90))),
        "middle": image(Image.new("RGB", (64, 64), (36, 88, 184))),
        "light": image(Image.new("RGB", (64, 64), (170, 200, 242))),
    }
    assert ranked("dark blue", shades)[0] == "dark"
    assert ranked("blue", shades)[0] == "middle"
    assert ranked("light blue", shades)[0] == ranked("pale blue", shades)[0] == "light"


def pattern(kind: str, colour: str = "blue", other: str = "white") -> Image.Image:
    picture = Image.new("RGB", (240, 200), PLAIN[other])
    draw = ImageDraw.Draw(picture)
    for i in range(-10, 20):
        at = i * 30
        match kind:
            case "horizontal":
                draw.rectangle((0, at, 240, at + 14), fill=PLAIN[colour])
            case "vertical":
                draw.rectangle((at, 0, at + 14, 200), fill=PLAIN[colour])
            case "diagonal":
                draw.line((at, 0, at + 200, 200), fill=PLAIN[colour], width=12)
            case "dots":
                for y in range(0, 200, 40):
                    draw.ellipse((at, y, at + 18, y + 18), fill=PLAIN[colour])
            case "checks":
                for j in range(10):
                    if (i + j) % 2:
                        draw.rectangle((at, j * 30, at + 29, j * 30 + 29), fill=PLAIN[colour])
    return picture


@pytest.fixture(scope="module")
def patterns() -> dict[str, Vector]:
    kinds = ("horizontal", "vertical", "diagonal", "dots", "checks", "plain")
    return {f"{colour} {kind}": image(pattern(kind, colour)) for kind in kinds for colour in ("blue", "red")}


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("blue horizontal stripes", "blue horizontal"),
        ("red and white vertical stripes", "red vertical"),
        ("vertical red stripes", "red vertical"),
        ("stripes in red, vertical", "red vertical"),
        ("diagonally striped", ""),
        ("diagonal blue lines", "blue diagonal"),
        ("red dots on a white background", "red dots"),
        ("blue polka dots", "blue dots"),
        ("a chequered pattern in blue", "blue checks"),
        ("red checkered", "red checks"),
        ("plain white", "red plain"),
    ],
)
def test_patterns(words: str, first: str, patterns: dict[str, Vector]) -> None:
    if not first:
        assert text_error(words).code == "outside-vocabulary"
    elif first.endswith("plain"):
        assert ranked(words, patterns)[0].endswith("plain")
    else:
        assert ranked(words, patterns)[0] == first


def test_patterns_without_a_colour(patterns: dict[str, Vector]) -> None:
    assert {name.split()[1] for name in ranked("horizontal stripes", patterns)[:2]} == {"horizontal"}
    assert {name.split()[1] for name in ranked("vertical", patterns)[:2]} == {"vertical"}
    assert {name.split()[1] for name in ranked("stripes", patterns)[:4]} <= {"horizontal", "vertical"}
    assert {name.split()[1] for name in ranked("smooth", patterns)[:2]} == {"plain"}


def halves(first: str, second: str, upright: bool = False) -> Vector:
    picture = Image.new("RGB", (200, 160), PLAIN[first])
    picture.paste(PLAIN[second], (100, 0, 200, 160) if upright else (0, 80, 200, 160))
    return image(picture)


def test_places() -> None:
    pictures = {
        "red over blue": halves("red", "blue"),
        "blue over red": halves("blue", "red"),
        "red left of blue": halves("red", "blue", upright=True),
        "blue left of red": halves("blue", "red", upright=True),
    }
    for words in (
        "red over blue",
        "blue under red",
        "red on top, blue at the bottom",
        "blue below red",
        "red above blue",
    ):
        assert ranked(words, pictures)[0] == "red over blue", words
    for words in ("blue on the left, red on the right", "left blue and right red"):
        assert ranked(words, pictures)[0] == "blue left of red", words
    assert ranked("red on top", pictures)[0] == "red over blue"
    assert ranked("blue on the right", pictures)[0] == "red left of blue"


# --- words for scenes, on pictures that are drawn and on real ones


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Vector]:
    paths = draw_samples(tmp_path_factory.mktemp("samples"), 116)
    with ThreadPoolExecutor(2) as pool:
        vectors = pool.map(image, [path.read_bytes() for path in paths])
        return dict(zip([path.stem for path in paths], vectors, strict=True))


@pytest.mark.parametrize(
    ("words", "expected", "count"),
    [
        ("a red sunset over the sea", "sunset-over-sea", 4),
        ("Sunrise above the mountains", "sunset-over-mountains", 3),
        ("autumn forest", "autumn-forest", 4),
        ("trees in the fall", "autumn-forest", 4),
        ("green woods", "green-forest", 3),
        ("foggy forest", "foggy-forest", 2),
        ("city at night", "city-at-night", 4),
        ("skyscrapers under a blue sky", "city-by-day", 2),
        ("a sandy beach and turquoise water", "sandy-beach", 4),
        ("blue sea", ("open-sea", "sailing-boats"), 4),
        ("stormy sea", "stormy-sea", 2),
        ("starry night", ("night-sky", "moon-over-sea", "city-at-night"), 4),
        ("desert dunes", "desert-dunes", 3),
        ("snow on a mountain", "snowy-mountains", 2),
        ("icebergs", "icebergs", 4),
        ("green meadow below a blue sky", ("green-hills", "flower-meadow"), 4),
        ("a field of yellow", "rapeseed-field", 1),
        ("purple fields", "lavender-field", 2),
        ("red flower", "red-flower", 1),
        ("yellow flowers", "yellow-flower", 1),
        ("a red house", "red-house", 1),
        ("yellow house", "yellow-house", 1),
        ("blue house", "blue-house", 1),
        ("northern lights", "northern-lights", 1),
    ],
)
def test_scenes(words: str, expected: str | tuple[str, ...], count: int, samples: dict[str, Vector]) -> None:
    first = ranked(words, samples)[:count]
    assert all(name.startswith(expected) for name in first), first


def test_a_sample_is_its_own_nearest_and_its_kind_comes_next(samples: dict[str, Vector]) -> None:
    names = list(samples)
    vectors = np.array([samples[name] / np.linalg.norm(samples[name]) for name in names])
    similarity = vectors @ vectors.T
    assert (similarity.argmax(1) == np.arange(len(names))).all()
    np.fill_diagonal(similarity, -1)
    kinds = [name.rpartition("-")[0] for name in names]
    alike = [kinds[i] == kinds[j] for i, j in enumerate(similarity.argmax(1)) if kinds.count(kinds[i]) > 1]
    assert np.mean(alike) > 0.85


def test_it_agrees_with_azure_far_more_often_than_chance() -> None:
    recording = REAL / "azure-vision-2022-04-11.npz"
    if not recording.is_file():
        pytest.skip(f"needs the real photos and vectors in {REAL}")
    with np.load(recording) as arrays:
        files, azure = arrays["files"], arrays["vectors"].astype(np.float64)
    ours = np.array([image((REAL / "images" / str(file)).read_bytes()) for file in files], np.float64)
    shares = []
    near = [_ten_nearest(vectors) for vectors in (ours, azure)]
    for mine, theirs in zip(*near, strict=True):
        shares.append(len(set(mine) & set(theirs)) / 10)
    chance = 10 / (len(files) - 1)
    assert np.mean(shares) > 0.27 > 3 * chance
    assert min(np.mean(shares[::2]), np.mean(shares[1::2])) > 0.2


def _ten_nearest(vectors: np.ndarray[Any, np.dtype[np.float64]]) -> list[list[int]]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -1)
    return [[int(i) for i in row[:10]] for row in np.argsort(-similarity, axis=1, kind="stable")]


# --- texts


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("forest", "FORESTS!"),
        ("leaf", "leaves"),
        ("city", "the cities"),
        ("beach", "beaches"),
        ("sky", "skies"),
        ("grey sea", "gray ocean"),
        ("colourful houses", "a colorful house"),
        ("dark-blue sky", "dark blue skies"),
        ("checkered", "chequered"),
        ("meadow", "a picture of some meadows"),
        ("mountain’s snow", "mountain's snow"),
        ("a house in red", "a red house"),
        ("the sky is blue", "blue sky"),
    ],
)
def test_plurals_spellings_and_little_words_change_nothing(words: str, same: str) -> None:
    assert (text(words) == text(same)).all()


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        ("a red bicycle", ["bicycle"]),
        ("two dogs on a beach", ["two", "dogs"]),
        ("der rote Himmel", ["der", "rote", "himmel"]),
        ("a sky without clouds", ["without"]),
        ("not red", ["not"]),
        ("oranges", ["oranges"]),
        ("写真", ["写真"]),
    ],
)
def test_words_that_mean_nothing_here_are_named(words: str, unknown: list[str]) -> None:
    error = text_error(words)
    assert error.code == "outside-vocabulary"
    assert ", ".join(f"'{word}'" for word in unknown) + "." in str(error)
    for helpful in ("colours", "red", "sunset", "stripes", "azure-vision/"):
        assert helpful in str(error)
    assert not error.retryable


def test_a_long_text_does_not_make_a_long_message() -> None:
    message = str(text_error(" ".join(f"x{i}" for i in range(1000))))
    assert "'x9' …" in message
    assert "x10" not in message


@pytest.mark.parametrize("words", ["the picture of a", "!?", "left", "on top"])
def test_texts_of_which_nothing_can_be_drawn(words: str) -> None:
    error = text_error(words)
    assert error.code == "outside-vocabulary"
    assert "nothing to look for" in str(error)


@pytest.mark.parametrize("words", ["", "  ", "\n\t"])
def test_empty_texts(words: str) -> None:
    assert text_error(words).code == "empty-text"


def test_a_text_is_dominated_by_what_it_says() -> None:
    assert not text("red")[520:958].any()
    assert not text("vertical stripes")[:520].any()
    lower = text("green at the bottom")[40:520].reshape(4, 3, 40)
    assert not lower[:2].any()
    assert lower[2:].any()


def test_every_word_can_be_drawn_and_gives_finite_numbers() -> None:
    assert set(THING_WORDS.values()) <= set(THINGS)
    assert {thing.place for thing in THINGS.values()} <= set(PLACES)
    assert {thing.texture for thing in THINGS.values() if thing.texture} <= set(TEXTURES)
    for name in sorted(set(THING_WORDS.values())):
        vector = text(name)
        assert np.isfinite(vector).all(), name
        assert np.linalg.norm(vector) > 0.1, name


@pytest.mark.parametrize(
    "words", ["snow on mountains at night in fog", "a colourful city in a storm at dusk on the left"]
)
def test_many_moods_at_once(words: str) -> None:
    for sketch in draw_sketches(understand(words)):
        assert sketch.pixels.dtype == np.uint8
        assert 0 < sketch.coloured.max() <= 1
        assert 0 < sketch.textured.max() <= 1
    assert np.isfinite(text(words)).all()
