"""Pictures that lie elsewhere: in Azure's blobs (by Azurite) and on the web (by a real server on this machine)."""

from __future__ import annotations

import dataclasses
import functools
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from azure.storage.blob import BlobSasPermissions, BlobServiceClient, ContainerClient, generate_blob_sas

from lookalike import Lookalike
from lookalike.config import Secret
from lookalike.emulator import Emulator, expected_vector
from lookalike.pictures.reading import Reader

from ..conftest import RunCommand, draw_pictures, settings_for


def rows(dsn: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement.encode(), parameters).fetchall()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each URL is downloaded: asked for and given, not found unchanged."""
    read, counted = Reader.read, Counter[str]()

    def counting(self: Reader, url: str, **options: Any) -> Any:
        found = read(self, url, **options)
        counted[url] += found is not None
        return found

    monkeypatch.setattr(Reader, "read", counting)
    return counted


# -- blobs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def container(azurite: str, tmp_path: Path) -> Iterator[ContainerClient]:
    """A container with 200 pictures in two folders."""
    with BlobServiceClient.from_connection_string(azurite) as service:
        client = service.create_container(f"c{uuid.uuid4().hex}")
        for number, path in enumerate(draw_pictures(tmp_path / "drawn", 200)):
            client.upload_blob(f"{'left' if number % 2 else 'right'}/{path.name}", path.read_bytes())
        yield client
        client.delete_container()


@pytest.fixture
def blobs(dsn: str, emulator: Emulator, azurite: str) -> Iterator[Lookalike]:
    """An empty library with the credentials of Azurite."""
    settings = dataclasses.replace(settings_for(dsn, emulator), azure_storage={"connection_string": Secret(azurite)})
    with Lookalike.open(settings) as library:
        yield library


def test_a_container_is_ingested_and_not_downloaded_again(
    blobs: Lookalike, emulator: Emulator, container: ContainerClient, reads: Counter[str], tmp_path: Path
) -> None:
    url = f"abfs://{container.container_name}"
    report = blobs.ingest(url)
    assert (report.found, report.embedded, report.calls) == (200, 200, 200)
    assert reads.total() == 200

    reads.clear()
    again = blobs.ingest(url)
    assert (again.unchanged, again.calls, reads.total()) == (200, 0, 0)
    plan = blobs.plan(url, prune=True)
    assert (plan.unchanged, plan.new, plan.prune_files, reads.total()) == (200, 0, 0, 0)

    # one is overwritten, one goes, one comes
    name = next(iter(container.list_blob_names()))
    other = container.download_blob(sorted(container.list_blob_names())[50]).readall()
    container.upload_blob(name, other, overwrite=True)
    container.delete_blob(sorted(container.list_blob_names())[150])
    container.upload_blob("new/picture.jpg", draw_pictures(tmp_path / "new", 1, seed=8)[0].read_bytes())
    assert (blobs.plan(url, prune=True).prune_files, reads.total()) == (1, 0)
    third = blobs.ingest(url, prune=True)
    assert (third.embedded, third.unchanged, third.pruned_files) == (1, 199, 1)
    assert reads.total() == 2
    assert emulator.stats()["billed"] == 201
    assert blobs.status().images == 199


def test_a_table_in_a_container_names_what_lies_beside_it(
    blobs: Lookalike, dsn: str, container: ContainerClient
) -> None:
    names = sorted(container.list_blob_names())[:5]
    container.upload_blob("list.csv", "path,artist\n" + "".join(f"{name},Monet\n" for name in names))
    report = blobs.ingest(f"abfs://{container.container_name}/list.csv")
    assert (report.found, report.embedded) == (5, 5)
    assert {uri for (uri,) in rows(dsn, "select uri from lookalike.files")} == {
        f"abfs://{container.container_name}/{name}" for name in names
    }


def test_a_signed_url_is_read_stored_without_its_signature_and_read_again_with_credentials(
    blobs: Lookalike, dsn: str, azurite: str, container: ContainerClient, run: RunCommand, emulator: Emulator
) -> None:
    name = next(iter(container.list_blob_names()))
    key = dict(part.split("=", 1) for part in azurite.strip(";").split(";"))["AccountKey"]
    signature = generate_blob_sas(
        str(container.account_name),
        container.container_name,
        name,
        account_key=key,
        permission=BlobSasPermissions(read=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    plain = f"{container.url}/{name}"
    # without any credentials of our own, a signature is enough
    ingested = run("ingest", f"{plain}?{signature}", "--allow-host", "127.0.0.1", VISION_ENDPOINT=emulator.url,
                   VISION_KEY="emulator")  # fmt: skip
    assert ingested.returncode == 0, ingested.stderr
    assert rows(dsn, "select uri from lookalike.files") == [(plain,)]

    report = blobs.backfill("azure-vision/2022-04-11")
    assert (report.found, report.embedded) == (1, 1)
    ((stored,),) = rows(dsn, "select embedding::real[] from lookalike.azure_vision_2022_04_11")
    data = container.download_blob(name).readall()
    expected = expected_vector(data, "2022-04-11").astype(np.float16)
    np.testing.assert_array_equal(np.array(stored, np.float16), expected)


def test_a_backfill_goes_on_where_credentials_are_missing(
    blobs: Lookalike, dsn: str, emulator: Emulator, container: ContainerClient, photos: Path
) -> None:
    names = sorted(container.list_blob_names())[-2:]  # which are none of the twenty photos
    container.upload_blob("list.csv", "path\n" + "".join(f"{name}\n" for name in names))
    blobs.ingest(f"abfs://{container.container_name}/list.csv", photos)
    (photos / "copy.jpg").write_bytes(container.download_blob(names[0]).readall())
    blobs.ingest(photos)
    with Lookalike.open(settings_for(dsn, emulator)) as without_credentials:
        report = without_credentials.backfill("azure-vision/2022-04-11")
    # the first is read from its copy; of the second it is known why not
    assert (report.found, report.embedded, report.failed) == (22, 21, 1)
    assert [failure.code for failure in blobs.failures()] == ["access-refused"]


# -- the web ---------------------------------------------------------------------------------------------------------


class Tagging(SimpleHTTPRequestHandler):
    """Serves a folder, with an ETag for each file."""

    tag: str | None = None

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        tag = f'"{path.stat().st_mtime_ns}"' if path.is_file() else None
        if tag is not None and self.headers.get("If-None-Match") == tag:
            self.send_response(304)
            self.end_headers()
            return
        self.tag = tag
        super().do_GET()

    def end_headers(self) -> None:
        if self.tag is not None:
            self.send_header("ETag", self.tag)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the tests look at what arrives."""


@pytest.fixture
def site(photos: Path) -> Iterator[str]:
    """The address of a server of the twenty pictures."""
    handler = functools.partial(Tagging, directory=str(photos))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def a_table(folder: Path, site: str) -> Path:
    """A table of the twenty URLs, each with a signature and something that is none."""
    table = folder.parent / "list.csv"
    lines = [f"{site}/{path.name}?id={number}&sig=hunter2,{number}" for number, path in enumerate(folder.iterdir())]
    table.write_text("url,number\n" + "\n".join(lines) + "\n")
    return table


def test_pictures_of_the_web_are_fetched_once(
    images: Lookalike, dsn: str, photos: Path, site: str, reads: Counter[str]
) -> None:
    table = a_table(photos, site)
    report = images.ingest(table)
    assert (report.found, report.embedded, report.calls) == (20, 20, 20)
    uris = {uri for (uri,) in rows(dsn, "select uri from lookalike.files")}
    assert uris == {f"{site}/{path.name}?id={number}" for number, path in enumerate(photos.iterdir())}

    reads.clear()
    again = images.ingest(table)
    assert (again.unchanged, again.calls, reads.total()) == (20, 0, 0)


def test_addresses_inside_are_not_fetched_unless_allowed(
    dsn: str, run: RunCommand, emulator: Emulator, photos: Path, site: str
) -> None:
    table = a_table(photos, site)
    azure = {"VISION_ENDPOINT": emulator.url, "VISION_KEY": "emulator"}
    refused = run("ingest", table, **azure)
    assert (refused.returncode, emulator.stats()["billed"]) == (1, 0)
    assert {code for (code,) in rows(dsn, "select code from lookalike.failures")} == {"forbidden-address"}
    shown = run("failures").stdout
    assert "--allow-host" in shown
    assert "hunter2" not in shown
    allowed = run("ingest", table, "--retry-failed", "--allow-host", "127.0.0.1", **azure)
    assert (allowed.returncode, emulator.stats()["billed"]) == (0, 20)


def test_the_service_may_fetch_for_itself(
    images: Lookalike, dsn: str, emulator: Emulator, photos: Path, site: str, reads: Counter[str]
) -> None:
    table = a_table(photos, site)
    report = images.ingest(table, send_urls=True)
    assert (report.embedded, report.calls, reads.total()) == (20, 20, 0)
    assert rows(dsn, "select count(*), count(sha256) from lookalike.images") == [(20, 0)]
    assert images.ingest(table, send_urls=True).unchanged == 20

    # when the bytes turn up, the images are the same ones, and a copy elsewhere is known by them
    before = rows(dsn, "select image_id from lookalike.images order by 1")
    fetched = images.ingest(table)
    assert (fetched.unchanged, reads.total()) == (20, 20)
    assert rows(dsn, "select count(*), count(sha256) from lookalike.images") == [(20, 20)]
    assert rows(dsn, "select image_id from lookalike.images order by 1") == before
    assert images.ingest(photos).unchanged == 20
    assert emulator.stats()["billed"] == 20


def test_a_picture_known_by_its_bytes_takes_up_the_one_known_by_its_url(
    images: Lookalike, dsn: str, emulator: Emulator, photos: Path, site: str
) -> None:
    table = a_table(photos, site)
    images.ingest(table, send_urls=True)
    images.ingest(photos)
    assert rows(dsn, "select count(*) from lookalike.images") == [(40,)]
    images.ingest(table)
    assert rows(dsn, "select count(*), count(sha256) from lookalike.images") == [(20, 20)]
    assert rows(dsn, "select count(*) from lookalike.files") == [(40,)]
    assert images.status().models[0].embedded == 20
    assert emulator.stats()["billed"] == 40
