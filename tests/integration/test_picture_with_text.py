"""Pictures that are embedded together with a text: one vector of both, under a model of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psycopg
import pytest

from lookalike import Lookalike, Model
from lookalike.emulator import Emulator, expected_vector
from lookalike.errors import ConfigurationError, ImageNotFound
from tests.conftest import draw_pictures

V4, QWEN3, QWEN2 = "azure-inference/embed-v-4-0", "dashscope/qwen3-vl-embedding", "dashscope/qwen2.5-vl-embedding"
PLUS = "dashscope/tongyi-embedding-vision-plus-2026-03-06"
TITLED = f"{QWEN3}+with-title"


@pytest.fixture
def shop(tmp_path: Path) -> list[Path]:
    return draw_pictures(tmp_path / "shop", 4)


def listed(shop: list[Path], *titles: str | None, name: str = "products.csv") -> Path:
    table = shop[0].parent.parent / name
    rows = [f"{path},{title or ''},{n}" for n, (path, title) in enumerate(zip(shop, titles, strict=True))]
    table.write_text("\n".join(["path,title,n", *rows, ""]))
    return table


def stored(dsn: str, model: str) -> dict[str, np.ndarray]:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "select f.uri, e.embedding::real[] from lookalike.embeddings e join lookalike.files f using (image_id)"
            " join lookalike.models m using (model_id) where m.name = %s",
            [model],
        )
        return {Path(uri).name: np.array(vector, np.float32) for uri, vector in found}


def fused(path: Path, text: str, version: str) -> np.ndarray:
    """The vector of both, as the emulator gives it: the mean."""
    parts = [expected_vector(path.read_bytes(), version), expected_vector(text, version)]
    return np.asarray(np.mean(parts, axis=0).astype(np.float16), np.float32)


@pytest.mark.parametrize("model", [V4, QWEN3, QWEN2, PLUS])
def test_a_picture_and_its_text_become_one_vector(
    dsn: str, images: Lookalike, emulator: Emulator, shop: list[Path], model: str
) -> None:
    table = listed(shop, "red shoe", "blue  shoe", "hat", "1984")
    name, version = f"{model}+with-title", Model(model).version
    plan = images.plan(table, model=model, with_text="title")
    report = images.ingest(table, model=model, with_text="title")
    assert (report.model, report.embedded, report.failed) == (name, 4, 0)
    assert report.calls == emulator.stats()["billed"] <= plan.calls
    vectors = stored(dsn, name)
    for path, text in zip(shop, ("red shoe", "blue shoe", "hat", "1984"), strict=True):
        assert np.array_equal(vectors[path.name], fused(path, text, version)), text
    again = images.ingest(table, model=model, with_text="title")
    assert (again.unchanged, again.calls) == (4, 0)

    # words and pictures are queries as ever, each by itself
    assert images.search("hat", model=name)[0].path == shop[2]
    other = draw_pictures(shop[0].parent / "query", 1, seed=9)[0]
    assert np.array_equal(images.embed(str(other), model=name).vector, expected_vector(other.read_bytes(), version))
    # and nothing of it lies under the model of pictures alone
    with pytest.raises(ImageNotFound, match="with-title"):
        images.search("hat", model=model)
    assert images.ingest(table, model=model).embedded == 4
    assert np.array_equal(stored(dsn, model)[shop[0].name], expected_vector(shop[0].read_bytes(), version))


def test_a_picture_without_its_text_fails_until_there_is_one(
    dsn: str, images: Lookalike, emulator: Emulator, shop: list[Path]
) -> None:
    report = images.ingest(listed(shop, "red shoe", "blue shoe", None, " "), model=QWEN3, with_text="title")
    assert (report.embedded, report.failed, report.calls) == (2, 2, 2)
    assert {(failure.code, failure.retryable) for failure in images.failures()} == {("no-text", True)}
    assert "'title'" in images.failures()[0].message
    table = listed(shop, "red shoe", "green shoe", "hat", None)
    plan = images.plan(table, model=QWEN3, with_text="title")
    assert (plan.unchanged, plan.new, plan.unreadable, plan.calls) == (1, 2, 1, 2)
    report = images.ingest(table, model=QWEN3, with_text="title")
    assert (report.embedded, report.unchanged, report.failed, report.new_failures, report.calls) == (2, 1, 1, 0, 2)
    vectors = stored(dsn, TITLED)
    assert np.array_equal(vectors[shop[1].name], fused(shop[1], "green shoe", "qwen3-vl-embedding"))
    assert len(vectors) == 3

    # nor is one that nobody would take for a picture by its name embedded alone
    (nameless := shop[0].with_name("nameless")).write_bytes(
        draw_pictures(shop[0].parent.parent, 1, seed=5)[0].read_bytes()
    )
    assert (images.ingest(nameless, model=TITLED).failed, images.failures()[0].code) == (1, "no-text")
    nameless.unlink()

    # what the library knows already need not be told again; under an active model of this kind it goes on by itself
    images.ingest(shop[3].parent, model=QWEN3)
    report = images.ingest(shop[0].parent)
    assert (report.model, report.unchanged, report.failed) == (TITLED, 3, 1)
    assert emulator.stats()["billed"] == 2 + 2 + 1


def test_an_image_has_the_text_of_the_file_that_came_first(dsn: str, images: Lookalike, shop: list[Path]) -> None:
    same = [shop[0], shop[0].with_name("again.jpg"), shop[0].with_name("once more.jpg")]
    for path in same[1:]:
        path.write_bytes(shop[0].read_bytes())

    def ingest(*titles: str | None) -> tuple[int, int, int]:
        report = images.ingest(listed(same, *titles), model=QWEN3, with_text="title", concurrency=1)
        return report.embedded, report.unchanged, report.calls

    def text() -> str:
        with psycopg.connect(dsn) as connection:
            [(told,)] = connection.execute("select text from lookalike.texts").fetchall()
        (vector,) = {vector.tobytes() for vector in stored(dsn, TITLED).values()}
        assert vector == fused(same[0], told, "qwen3-vl-embedding").tobytes()
        return str(told)

    assert ingest("shoe 41", "shoe 42", "shoe 43") == (1, 2, 1)
    first = text()
    # who has come first may be chance, and stays
    titles = ["shoe 41", "shoe 42", "shoe 43"]
    assert ingest(*titles) == (0, 3, 0)
    others = [title if title == first else f"{title} wide" for title in titles]
    assert ingest(*others) == (0, 3, 0)
    assert text() == first
    changed = [f"{first} narrow" if title == first else title for title in others]
    assert ingest(*changed) == (1, 2, 1)
    assert text() == f"{first} narrow"
    # where that file goes, the next one's text counts
    images.delete(same[titles.index(first)])
    left = [path for path in same if path != same[titles.index(first)]]
    table = listed(left, "boot", "boot", name="left.csv")
    assert images.ingest(table, model=QWEN3, with_text="title").calls == 1
    assert text() == "boot"


def test_a_file_that_a_table_names_twice_is_paid_for_once(images: Lookalike, shop: list[Path]) -> None:
    rows = [shop[0], shop[1], shop[0]]
    table = listed(rows, "red shoe", "hat", "red shoe (used)")
    report = images.ingest(table, model=QWEN3, with_text="title")
    assert (report.embedded, report.unchanged, report.calls) == (2, 1, 2)
    again = images.ingest(table, model=QWEN3, with_text="title")
    assert (again.unchanged, again.calls) == (3, 0)


def test_what_is_stored_is_backfilled_with_its_texts(dsn: str, images: Lookalike, shop: list[Path]) -> None:
    copy = shop[0].with_name("a copy.jpg")  # without a title, and before the others
    copy.write_bytes(shop[0].read_bytes())
    images.ingest(listed([copy, *shop], None, "red shoe", "blue shoe", None, "hat"), model=QWEN3)
    report = images.backfill(f"{V4}+with-title")
    assert (report.found, report.embedded, report.failed) == (4, 3, 1)
    vectors = stored(dsn, f"{V4}+with-title")
    assert np.array_equal(vectors[shop[0].name], fused(shop[0], "red shoe", "embed-v-4-0"))
    assert shop[2].name not in vectors


def test_who_cannot_is_refused_with_those_who_can(images: Lookalike, emulator: Emulator, shop: list[Path]) -> None:
    table = listed(shop, "a", "b", "c", "d")
    for model in ("azure-vision/2023-04-15", "dashscope/multimodal-embedding-v1", "azure-inference/of-my-own"):
        with pytest.raises(ConfigurationError) as refused:
            images.ingest(table, model=model, with_text="title")
        assert all(name in str(refused.value) for name in (model, V4, QWEN3, QWEN2, PLUS))
    with pytest.raises(ConfigurationError, match=r"'titel'.*'n', 'path', 'title'"):
        images.ingest(table, model=QWEN3, with_text="titel")
    with pytest.raises(ConfigurationError, match="'title', and --with-text names 'n'"):
        images.ingest(table, model=TITLED, with_text="n")
    assert emulator.stats()["billed"] == 0


@pytest.mark.parametrize(
    ("column", "written"),
    [
        ("title", "title"),
        ("product_title-2", "product_title-2"),
        ("Product title", "Product.20title"),
        ("a.b+c/d", "a.2Eb.2Bc.2Fd"),
        ("标题", ".E6.A0.87.E9.A2.98"),
    ],
)
def test_the_name_of_a_model_holds_its_column(column: str, written: str) -> None:
    model = Model(f"{QWEN3}+512", 512).fused_with(column)
    assert model.name == f"{QWEN3}+512+with-{written}"
    assert (Model(model.name).with_text, model.variants, model.version) == (column, ("512",), "qwen3-vl-embedding")
    assert model.fused_with(column) == model
    for unfit in ("+with-", "+with-a.b", "+with-title+512", "+with-a+with-b"):
        with pytest.raises(ConfigurationError):
            Model(QWEN3 + unfit)
    for unfit in ("", " ", "x" * 200):
        with pytest.raises(ConfigurationError):
            Model(QWEN3).fused_with(unfit)
