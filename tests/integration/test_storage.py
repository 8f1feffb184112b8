"""Object stores: Azure's by Azurite, Azure's own emulator, everything else by fsspec's memory."""

from __future__ import annotations

import gzip
import os
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import fsspec
import pytest
from azure.storage.blob import (
    BlobServiceClient,
    ContainerClient,
    ContainerSasPermissions,
    ContentSettings,
    generate_container_sas,
)

from lookalike import ConfigurationError, Settings, SourceNotFound
from lookalike.errors import ItemError, LookalikeError
from lookalike.pictures.reading import Reader
from lookalike.pictures.storage import Storage
from lookalike.pictures.web import Download

MOST = 1_000_000
NAMES = ["a.jpg", "2024/b.jpg", "2024/05/c d.jpg", "2024/05/ü#1%.jpg", "2024-notes/d.txt", "2024/05/e.txt"]
HIDDEN = [".hidden.jpg", ".thumbs/f.jpg", "2024/.g.jpg"]


def field(connection_string: str, name: str) -> str:
    return dict(part.split("=", 1) for part in connection_string.strip(";").split(";"))[name]


@pytest.fixture
def container(azurite: str) -> Iterator[ContainerClient]:
    """An Azure container with some blobs."""
    with BlobServiceClient.from_connection_string(azurite) as service:
        client = service.create_container(f"c{uuid.uuid4().hex}")
        for name in NAMES + HIDDEN:
            client.upload_blob(name, f"bytes of {name}".encode())
        # a data lake lists its folders as blobs
        client.upload_blob("2024/folder", b"", metadata={"hdi_isfolder": "true"})
        yield client
        client.delete_container()


@pytest.fixture
def storage(azurite: str) -> Iterator[Storage]:
    storage = Storage(Settings.from_environment({"AZURE_STORAGE_CONNECTION_STRING": azurite}))
    yield storage
    storage.close()


@pytest.fixture
def reader(azurite: str) -> Iterator[Reader]:
    with Reader(Settings.from_environment({"AZURE_STORAGE_CONNECTION_STRING": azurite})) as reader:
        yield reader


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder in fsspec's memory with the same files; its URL."""
    system = fsspec.filesystem("memory")
    folder = f"memory://{uuid.uuid4().hex}"
    for name in NAMES + HIDDEN:
        system.pipe_file(f"{folder}/{name}", f"bytes of {name}".encode())
    yield folder
    system.rm(folder, recursive=True)


def signature(container: ContainerClient, key: str) -> str:
    return generate_container_sas(
        str(container.account_name),
        container.container_name,
        account_key=key,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )


# -- Azure -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["abfs://{c}", "az://{c}/", "abfss://{c}@{host}", "{endpoint}/{c}", "{endpoint}/{c}/"])
def test_a_container_is_listed_and_every_file_can_be_read(
    form: str, storage: Storage, azurite: str, container: ContainerClient
) -> None:
    endpoint = field(azurite, "BlobEndpoint")
    url = form.format(c=container.container_name, endpoint=endpoint, host=endpoint.split("/")[2])
    assert storage.handles(url)
    listed = list(storage.list(url))
    contents = []
    for each in listed:
        assert each.uri.startswith(url.rstrip("/") + "/")
        found = storage.read(each.uri, most=MOST)
        assert found is not None
        assert (found.fingerprint, len(found.data)) == (each.fingerprint, each.size)
        assert storage.read(each.uri, most=MOST, known=each.fingerprint) is None
        contents.append(found.data.decode())
    assert sorted(contents) == sorted(f"bytes of {name}" for name in NAMES)


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("2024", ["2024/b.jpg", "2024/05/c d.jpg", "2024/05/ü#1%.jpg", "2024/05/e.txt"]),
        ("2024/05/", ["2024/05/c d.jpg", "2024/05/ü#1%.jpg", "2024/05/e.txt"]),
        ("2024/b.jpg", ["2024/b.jpg"]),
        ("2024/**/*.jpg", ["2024/b.jpg", "2024/05/c d.jpg", "2024/05/ü#1%.jpg"]),
        ("*.jpg", ["a.jpg"]),
        ("2024/0?/[c-e]*", ["2024/05/c d.jpg", "2024/05/e.txt"]),
        (".thumbs", [".thumbs/f.jpg"]),
        (".hidden.jpg", [".hidden.jpg"]),
    ],
)
@pytest.mark.parametrize("kind", ["azure", "memory"])
def test_folders_files_and_globs(kind: str, path: str, names: list[str], request: pytest.FixtureRequest) -> None:
    if kind == "azure":
        storage = request.getfixturevalue("storage")
        base = f"abfs://{request.getfixturevalue('container').container_name}"
    else:
        storage, base = Storage(Settings()), request.getfixturevalue("memory")
    assert sorted(each.uri for each in storage.list(f"{base}/{path}")) == sorted(f"{base}/{name}" for name in names)


def test_pages_come_one_by_one(storage: Storage, container: ContainerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.pictures.azure_blobs._PAGE", 2)
    assert len(list(storage.list(f"abfs://{container.container_name}"))) == len(NAMES)
    listing = storage.list(f"abfs://{container.container_name}")
    next(listing)
    listing.close()  # type: ignore[attr-defined]


def test_an_overwritten_blob_is_noticed(storage: Storage, container: ContainerClient) -> None:
    url = f"abfs://{container.container_name}/a.jpg"
    (before,) = storage.list(url)
    container.upload_blob("a.jpg", b"other bytes of", overwrite=True)
    found = storage.read(url, most=MOST, known=before.fingerprint)
    assert found is not None
    assert found.data == b"other bytes of"
    (after,) = storage.list(url)
    assert after.fingerprint == found.fingerprint != before.fingerprint


def test_sizes_that_do_not_fit(storage: Storage, container: ContainerClient) -> None:
    url = f"abfs://{container.container_name}"
    container.upload_blob("large", b"x" * 20_000_000)
    container.upload_blob("empty", b"")
    container.upload_blob(
        "bomb", gzip.compress(bytes(5_000_000)), content_settings=ContentSettings(content_encoding="gzip")
    )
    for name, size in (("large", 19_999_999), ("bomb", MOST)):
        with pytest.raises(ItemError) as caught:
            storage.read(f"{url}/{name}", most=size)
        assert caught.value.code == "too-many-bytes"
    large, empty = storage.read(f"{url}/large", most=20_000_000), storage.read(f"{url}/empty", most=5)
    assert large is not None
    assert large.data == b"x" * 20_000_000
    assert empty is not None
    assert empty.data == b""
    with storage.open(f"{url}/large") as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == b"xxxxx"


def test_what_is_not_there(storage: Storage, container: ContainerClient) -> None:
    url = f"abfs://{container.container_name}"
    for name in ("none.jpg", "2024"):
        with pytest.raises(ItemError) as caught:
            storage.read(f"{url}/{name}", most=MOST)
        assert (caught.value.code, caught.value.retryable) == ("not-found", False)
    for nowhere in (f"{url}/none", f"{url}/*.png", "abfs://no-such-container", "abfs://no-such-container/x"):
        with pytest.raises(SourceNotFound):
            list(storage.list(nowhere))


def test_many_threads_share_one(storage: Storage, container: ContainerClient) -> None:
    found: list[Download | None] = []
    url = f"abfs://{container.container_name}/a.jpg"
    threads = [threading.Thread(target=lambda: found.append(storage.read(url, most=MOST))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.data for each in found if each] == [b"bytes of a.jpg"] * 10


def test_a_signed_url_is_read_as_it_is_and_known_without_its_signature(
    reader: Reader, azurite: str, container: ContainerClient
) -> None:
    url = f"{field(azurite, 'BlobEndpoint')}/{container.container_name}/2024/05/c%20d.jpg"
    signed = f"{url}?{signature(container, field(azurite, 'AccountKey'))}"
    with Reader(Settings(), allow_hosts=["127.0.0.1"]) as nobody:
        found = nobody.read(signed, most=MOST)
        assert found is not None
        assert found.data == b"bytes of 2024/05/c d.jpg"
        assert nobody.read(signed, most=MOST, known=found.fingerprint) is None
        with pytest.raises(ItemError) as caught:
            nobody.read(url, most=MOST)
        assert caught.value.code in ("not-found", "access-refused")
    # the same place and state, though another way leads there
    assert reader.read(url, most=MOST, known=found.fingerprint) is None
    (listed,) = reader.list(url)
    assert listed.uri == url
    with Reader(Settings(), allow_hosts=["127.0.0.1"]) as nobody:
        assert nobody.read(signed, most=MOST, known=listed.fingerprint) is None


def test_an_account_with_a_sas_token_or_a_key(azurite: str, container: ContainerClient) -> None:
    """The names of accounts lead to Azure itself, so the token travels in a connection string here."""
    sas = signature(container, field(azurite, "AccountKey"))
    given = f"BlobEndpoint={field(azurite, 'BlobEndpoint')};SharedAccessSignature={sas}"
    storage = Storage(Settings.from_environment({"AZURE_STORAGE_CONNECTION_STRING": given}))
    assert len(list(storage.list(f"abfs://{container.container_name}"))) == len(NAMES)
    storage.close()


def test_environment_is_never_changed(storage: Storage, container: ContainerClient) -> None:
    before = dict(os.environ)
    list(storage.list(f"abfs://{container.container_name}"))
    assert dict(os.environ) == before


# -- credentials -----------------------------------------------------------------------------------------------------


def raised(call: object) -> LookalikeError:
    with pytest.raises(LookalikeError) as caught:
        call()  # type: ignore[operator]
    return caught.value


def test_no_error_shows_a_secret(azurite: str, container: ContainerClient) -> None:
    endpoint, name = field(azurite, "BlobEndpoint"), container.container_name
    key = "UzNDUkVUUzNDUkVUUzNDUkVUUzNDUkVUUzNDUkVUUzNDUkVUUzNDUkVUUzNDUkVU"
    sas = "sv=2024-11-04&se=2030-01-01T00%3A00%3A00Z&sr=c&sp=rl&sig=S3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3CRETS3C%3D"
    wrong = [
        {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=devstoreaccount1;AccountKey={key};BlobEndpoint={endpoint}"},
        {"AZURE_STORAGE_CONNECTION_STRING": f"BlobEndpoint={endpoint};SharedAccessSignature={sas}"},
        {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=x;AccountKey=S3CRET;BlobEndpoint={endpoint}"},
        {"AZURE_STORAGE_CONNECTION_STRING": "S3CRET"},
        {"AZURE_STORAGE_CONNECTION_STRING": "AccountKey=S3CRET;EndpointSuffix=x"},
        {"AZURE_STORAGE_ACCOUNT_KEY": key},
        {"AZURE_STORAGE_SAS_TOKEN": sas},
        {},
    ]
    for variables in wrong:
        settings = Settings.from_environment({"PATH": "/", **variables})
        assert "S3CRET" not in repr(settings)
        assert key not in repr(settings)
        with Reader(settings, allow_hosts=["127.0.0.1"]) as reader:
            for url in (f"abfs://{name}", f"abfs://{name}/a.jpg", f"abfs://{name}/a.jpg?{sas}"):
                for call in (
                    lambda url=url: list(reader.list(url)),
                    lambda url=url: reader.read(url, most=MOST),
                    lambda url=url: reader.open(url),
                ):
                    error = raised(call)
                    assert isinstance(error, ConfigurationError), (variables, url, error)
                    assert "AZURE_STORAGE_" in str(error)
                    assert "S3CRET" not in str(error)
                    assert key not in str(error)
            error = raised(lambda: reader.read(f"{endpoint}/{name}/a.jpg?{sas}", most=MOST))
            assert isinstance(error, ItemError)
            assert (error.code, error.retryable) == ("access-refused", True)
            assert "S3CRET" not in str(error)
            assert "sig=" not in str(error)


def test_credentials_go_to_their_own_account_only() -> None:
    storage = Storage(
        Settings.from_environment({"AZURE_STORAGE_ACCOUNT_NAME": "mine", "AZURE_STORAGE_SAS_TOKEN": "?sig=S3CRET"})
    )
    assert storage.handles("https://mine.blob.core.windows.net/c/a.jpg")
    assert storage.handles("https://MINE.blob.core.windows.net/c/a.jpg?versionid=1")
    for url in (
        "https://mine.blob.core.windows.net/c/a.jpg?sv=1&sig=x",
        "https://other.blob.core.windows.net/c/a.jpg",
        "http://mine.blob.core.windows.net/c/a.jpg",
        "https://mine.blob.core.windows.net.example/c/a.jpg",
        "https://mine.blob.core.windows.net@evil.example/c/a.jpg",
        "https://mine.blob.core.windows.net:444/c/a.jpg",
        "https://mine.blob.core.windows.net/",
        "https://[broken/c/a.jpg",
    ):
        assert not storage.handles(url), url
    for host in ("evil.example", "mine.evil.example", "mine.blob.core.windows.net.evil.example", "127.0.0.1"):
        error = raised(lambda host=host: storage.read(f"abfs://c@{host}/a.jpg", most=MOST))
        assert isinstance(error, ConfigurationError)
        assert "S3CRET" not in str(error)
    storage.close()


def test_an_account_that_cannot_be_reached_is_retryable() -> None:
    given = "BlobEndpoint=http://127.0.0.1:9/devstoreaccount1;AccountName=devstoreaccount1;AccountKey=UzNDUkVU"
    storage = Storage(Settings.from_environment({"AZURE_STORAGE_CONNECTION_STRING": given}))
    began = time.monotonic()
    error = raised(lambda: storage.read("abfs://c/a.jpg", most=MOST))
    assert isinstance(error, ItemError)
    assert (error.code, error.retryable) == ("unreachable", True)
    assert "UzNDUkVU" not in str(error)
    assert time.monotonic() - began < 20
    storage.close()


# -- everything else -------------------------------------------------------------------------------------------------


def test_memory_is_listed_and_read(memory: str) -> None:
    with Reader(Settings()) as reader:
        listed = list(reader.list(memory))
        assert sorted(each.uri for each in listed) == sorted(f"{memory}/{name}" for name in NAMES)
        for each in listed:
            found = reader.read(each.uri, most=MOST)
            assert found is not None
            assert (found.fingerprint, len(found.data)) == (each.fingerprint, each.size)
            assert each.fingerprint is not None
            assert reader.read(each.uri, most=MOST, known=each.fingerprint) is None
        with reader.open(f"{memory}/a.jpg") as file:
            assert file.read() == b"bytes of a.jpg"


def test_what_changes_or_goes_in_memory_is_noticed(memory: str) -> None:
    with Reader(Settings()) as reader:
        (before,) = reader.list(f"{memory}/a.jpg")
        fsspec.filesystem("memory").pipe_file(f"{memory}/a.jpg", b"other bytes of")
        assert reader.read(f"{memory}/a.jpg", most=MOST, known=before.fingerprint) is not None
        for url, code in ((f"{memory}/none", "not-found"), (f"{memory}/2024", "not-found")):
            with pytest.raises(ItemError) as caught:
                reader.read(url, most=MOST)
            assert caught.value.code == code
        with pytest.raises(ItemError) as caught:
            reader.read(f"{memory}/a.jpg", most=3)
        assert caught.value.code == "too-many-bytes"
        for nowhere in (f"{memory}/none", f"{memory}/*.png"):
            with pytest.raises(SourceNotFound):
                list(reader.list(nowhere))


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_named(scheme: str, package: str) -> None:
    pytest.importorskip("fsspec")
    try:
        __import__(package)
    except ImportError:
        with Reader(Settings()) as reader:
            error = raised(lambda: reader.read(f"{scheme}://KEY:S3CRET@bucket/a.jpg", most=MOST))
            assert isinstance(error, ConfigurationError)
            assert f"pip install {package}" in str(error)
            assert "S3CRET" not in str(error)
    else:
        pytest.skip(f"{package} is installed")


@pytest.mark.parametrize(
    ("name", "remote"),
    [
        ("https://x.example/a.jpg", True), ("HTTP://x.example", True), ("abfs://c/a.jpg", True), ("az://c", True),
        ("s3://b/k", True), ("gs://b/k", True), ("memory://a", True), ("file:///a.jpg", False), ("a.jpg", False),
        ("/tmp/a.jpg", False), ("C:\\x\\a.jpg", False), ("C://x", False), ("a:b.jpg", False), ("nonsense://x", False),
        ("local:///a", False), ("", False), ("zip://a.jpg::https://x.example/a.zip", False),
        ("simplecache::http://169.254.169.254/", False), ("data:image/png;base64,AA==", False), ("data://x", False),
    ],
)  # fmt: skip
def test_what_is_remote(name: str, remote: bool) -> None:
    with Reader(Settings()) as reader:
        assert reader.is_remote(name) is remote


def test_the_web_lists_itself() -> None:
    with Reader(Settings()) as reader:
        (listed,) = reader.list("https://u:S3CRET@x.example/a.jpg?id=1&sig=S3CRET")
        assert (listed.uri, listed.fingerprint, listed.size) == ("https://x.example/a.jpg?id=1", None, None)
