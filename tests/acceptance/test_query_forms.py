"""Every way to ask gives the same hits in the same order: from Python, from the command line, and from SQL."""

from __future__ import annotations

import functools
import io
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from PIL import Image
from sqlalchemy import String, column, select, table

from lookalike import Embedding, Lookalike, Part, Result
from lookalike.emulator import Emulator

from ..conftest import RunCommand, settings_for

Found = list[tuple[str, float]]

MODEL = "azure-vision/2022-04-11"


@dataclass(frozen=True)
class Shop:
    """The real photos, embedded as Azure did, with made-up owners' data, and a web server beside them."""

    images: Lookalike
    emulator: Emulator
    folder: Path
    dsn: str
    web: str
    served: Path


@dataclass(frozen=True)
class Gallery(Shop):
    """Three ways to ask for them."""

    run: RunCommand

    def cli(self, *arguments: str | Path) -> Found:
        environment = {"VISION_ENDPOINT": self.emulator.url, "VISION_KEY": "emulator", "LOOKALIKE_MODEL": MODEL}
        done = self.run(*arguments, "--json", LOOKALIKE_DATABASE_URL=self.dsn, **environment)
        assert done.returncode == 0, done.stderr
        return [(hit["image_id"], hit["similarity"]) for hit in json.loads(done.stdout)["hits"]]

    def sql(self, statement: str, **parameters: Any) -> Found:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            rows = connection.execute(statement.encode(), parameters).fetchall()
        return [(str(image_id), similarity) for image_id, similarity in rows]


@pytest.fixture(scope="module")
def shop(module_dsn: str, real: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Stored once for all tests, which add nothing but queries."""
    dsn, tmp_path = module_dsn, tmp_path_factory.mktemp("served")
    random.seed(3)
    rows = ["file,sku,artist,year,price"]
    for number, path in enumerate(sorted((real / "images").iterdir())):
        artist = random.choice(["Monet", "Manet", "Klee"])
        rows.append(f"{path.name},sku-{number},{artist},{1850 + number % 70},{random.randint(5, 200)}")
    (tmp_path / "owners.csv").write_text("\n".join(rows))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with (
        Emulator(recordings=real / "azure-vision-2022-04-11.npz") as emulator,
        Lookalike.open(settings_for(dsn, emulator, MODEL)) as images,
    ):
        report = images.ingest(real / "images", metadata=tmp_path / "owners.csv", key_column="sku")
        assert report.embedded == 149
        yield Shop(images, emulator, real / "images", dsn, f"http://127.0.0.1:{server.server_port}", tmp_path)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def gallery(shop: Shop, run: RunCommand) -> Gallery:
    return Gallery(shop.images, shop.emulator, shop.folder, shop.dsn, shop.web, shop.served, run)


def found(result: Result) -> Found:
    return [(str(hit.image_id), hit.similarity) for hit in result]


def agree(*answers: Found, count: int = 10) -> None:
    first, *others = answers
    assert len(first) == count
    for other in others:
        assert [image_id for image_id, _ in other] == [image_id for image_id, _ in first]
        np.testing.assert_allclose([s for _, s in other], [s for _, s in first], atol=1e-9)


def test_texts(gallery: Gallery) -> None:
    agree(
        found(gallery.images.search("a red house")),
        found(gallery.images.search_many(["x", "a red house"])[1]),
        gallery.cli("search", "a red house"),
        gallery.cli("search", "--plus", "a  red house"),
        gallery.sql("select image_id, similarity from lookalike.search_text('a red house')"),
        gallery.sql(
            "select e.image_id, 1 - (e.embedding <=> lookalike.query_embedding('a red house'))"
            "  from lookalike.active_embeddings e order by e.embedding <=> lookalike.query_embedding('a red house')"
            " limit 10"
        ),
    )


def test_stored_pictures(gallery: Gallery) -> None:
    path = sorted(gallery.folder.iterdir())[40]
    billed = gallery.emulator.stats()["billed"]
    hit = gallery.images.search(image=path, limit=1, include_self=True)[0]
    agree(
        found(gallery.images.similar(hit.image_id)),
        *(
            found(gallery.images.similar(form))
            for form in (path, path.read_bytes(), path.as_uri(), "sku-40", "key:sku-40")
        ),
        found(gallery.images.similar_many([hit.image_id, "sku-40"])[1]),
        found(gallery.images.search([Part(image="sku-40")])),
        *(gallery.cli("similar", form) for form in (path, path.as_uri(), str(hit.image_id), "sku-40")),
        gallery.sql("select image_id, similarity from lookalike.similar_images(%(id)s)", id=hit.image_id),
        gallery.sql(
            "select image_id, similarity from lookalike.similar_many(array[%(id)s]::uuid[]) order by rank",
            id=hit.image_id,
        ),
    )
    assert gallery.emulator.stats()["billed"] == billed


def test_pictures_that_are_not_stored(gallery: Gallery) -> None:
    buffer = io.BytesIO()
    with Image.open(sorted(gallery.folder.iterdir())[40]) as image:
        image.crop((20, 20, 140, 120)).save(buffer, "JPEG")
    fresh = gallery.served / "fresh.jpg"
    fresh.write_bytes(buffer.getvalue())
    url = f"{gallery.web}/fresh.jpg"
    billed = gallery.emulator.stats()["billed"]
    vector = gallery.images.embed(fresh)
    text = "[" + ",".join(f"{number:.9g}" for number in vector.vector) + "]"
    by_vector = "select image_id, similarity from lookalike.search_vector(%(v)s, %(m)s)"
    agree(
        *(found(gallery.images.similar(form)) for form in (fresh, fresh.read_bytes(), str(fresh), url)),
        found(gallery.images.search(vector)),
        gallery.cli("similar", fresh),
        gallery.cli("similar", url, "--allow-host", "127.0.0.1"),
        gallery.sql(by_vector, v=text, m=MODEL),
        gallery.sql(by_vector, v=[float(number) for number in vector.vector], m=MODEL),
    )
    # only the direction counts
    scaled = gallery.images.search(Embedding(vector.model, 1e6 * vector.vector))
    assert {hit.image_id for hit in scaled} == {hit.image_id for hit in gallery.images.search(vector)}
    assert gallery.emulator.stats()["billed"] == billed + 1


def test_mixes(gallery: Gallery, tmp_path: Path) -> None:
    path = sorted(gallery.folder.iterdir())[40]
    (tmp_path / "photo.jpg").write_bytes(path.read_bytes())  # where the command runs
    parts = [Part("beach"), Part(image=path), Part("people", weight=-1.5)]
    agree(
        found(gallery.images.search(parts)),
        found(gallery.images.search_many([parts])[0]),
        gallery.cli("search", "beach + ./photo.jpg - 1.5:people"),
        gallery.cli("search", "beach", "+", "photo.jpg", "-", "1.5:people"),
        gallery.cli("search", "beach", "--plus", "key:sku-40", "--minus", "1.5:people"),
        gallery.cli("search", "--plus", path.as_uri(), "--plus", "beach", "--minus", "1.5:people"),
    )
    mixed = gallery.images.search(parts)
    assert path.name not in {hit.path.name for hit in mixed if hit.path}
    assert mixed.query == f"beach + {path} - 1.5:people"
    vectors = [gallery.images.embed(thing).vector.astype(float) for thing in ("beach", path, "people")]
    total = sum(w * v / np.linalg.norm(v) for w, v in zip((1, 1, -1.5), vectors, strict=True))
    stored = gallery.images.embed(mixed[0].image_id).vector.astype(float)
    expected = float(stored @ total / np.linalg.norm(stored) / np.linalg.norm(total))
    assert mixed[0].similarity == pytest.approx(expected, abs=1e-3)


def test_parts_of_the_library(gallery: Gallery, tmp_path: Path) -> None:
    images = gallery.images
    (tmp_path / "some.txt").write_text("\n".join(f"sku-{n}" for n in range(0, 149, 3)))
    keys = [f"sku-{n}" for n in range(0, 149, 3)]
    by_id = {hit.key: hit.image_id for hit in images.search("a red house", limit=149)}
    agree(
        found(images.search("a red house", where={"artist": "Monet"})),
        gallery.cli("search", "a red house", "--where", "artist=Monet"),
        gallery.sql("""select image_id, similarity from lookalike.search_text('a red house',
                       filter => '{"artist": "Monet"}')"""),
    )
    agree(
        found(images.search("a red house", limit=7, where="artist=Monet and year in 1870..1900", min_similarity=-0.9)),
        gallery.cli("search", "a red house", "-n7", "--where", "artist=Monet", "--where", "year>=1870 and year<=1900"),
        gallery.sql("""select image_id, similarity from lookalike.search_text('a red house', 7, among => array(
                       select image_id from lookalike.files where metadata @> '{"artist": "Monet"}'
                          and (metadata ->> 'year')::int between 1870 and 1900))"""),
        count=7,
    )
    files = table("files", column("key", String), schema="lookalike")
    own = select(files.c.key).where(files.c.key.in_(keys))
    agree(
        found(images.search("a red house", among=keys)),
        found(images.search("a red house", among=[by_id[key] for key in keys])),
        found(images.search("a red house", among=own)),
        gallery.cli("search", "a red house", "--among", "some.txt"),
        gallery.sql(
            "select image_id, similarity from lookalike.search_text('a red house', among => %(ids)s)",
            ids=[by_id[key] for key in keys],
        ),
    )


def test_pages_and_thresholds(gallery: Gallery) -> None:
    whole = gallery.images.search("a red house", limit=20)
    first = gallery.images.search("a red house", limit=12)
    assert first.after is not None
    agree(
        found(whole)[12:],
        found(gallery.images.search("a red house", limit=8, after=first.after)),
        gallery.cli("search", "a red house", "-n8", "--after", first.after),
        count=8,
    )
    edge = whole[5].similarity
    agree(
        found(whole)[:6],
        found(gallery.images.search("a red house", limit=20, min_similarity=edge)),
        gallery.cli("search", "a red house", "-n20", "--min-similarity", repr(edge)),
        count=6,
    )
