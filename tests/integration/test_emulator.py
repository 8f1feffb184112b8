"""The emulator's Azure AI Vision: paths, versions, keys, limits, error bodies and vectors, over real HTTP."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from lookalike.emulator import Emulator, expected_vector, pictures

REAL = Path(__file__).resolve().parents[2] / "../shared/real"
RECORDINGS = REAL / "azure-vision-2022-04-11.npz"
needs_recordings = pytest.mark.skipif(
    not RECORDINGS.exists(), reason="the recordings of real answers are not beside this checkout"
)

IMAGE_PATH = "computervision/retrieval:vectorizeImage"
TEXT_PATH = "computervision/retrieval:vectorizeText"
KEY = {"Ocp-Apim-Subscription-Key": "emulator"}
WRONG_KEY = {"Ocp-Apim-Subscription-Key": "not the key"}
BYTES = {"Content-Type": "application/octet-stream"}
JSON = {"Content-Type": "application/json"}
GA = {"api-version": "2024-02-01"}
MAX_BYTES = 20_971_520


def picture(format: str = "PNG", size: tuple[int, int] = (32, 24), colour: str = "teal") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, format)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, without the pixels to go with it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


def post(
    emulator: Emulator,
    path: str,
    data: Any = b"",
    *,
    params: dict[str, str] = GA,
    headers: dict[str, str] = KEY | BYTES,
) -> requests.Response:
    return requests.post(emulator.url + path, params=params, headers=headers, data=data, timeout=20)


def post_text(emulator: Emulator, text: str, model_version: str = "2023-04-15") -> requests.Response:
    body = json.dumps({"text": text})
    return post(emulator, TEXT_PATH, body, params=GA | {"model-version": model_version}, headers=KEY | JSON)


def vector_of(response: requests.Response, model_version: str = "2023-04-15") -> np.ndarray[Any, Any]:
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer.keys() == {"modelVersion", "vector"}
    assert answer["modelVersion"] == model_version
    assert len(answer["vector"]) == 1024
    return np.array(answer["vector"], dtype=np.float32)


def error_of(response: requests.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.headers["apim-request-id"]
    assert response.json().keys() == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert response.headers["x-ms-error-code"] == error["code"]
    return error


# --- what a good call gets -------------------------------------------------------------------------------------------


def test_picture_as_bytes(emulator: Emulator) -> None:
    response = post(emulator, IMAGE_PATH, picture(), params=GA | {"model-version": "2023-04-15"})
    np.testing.assert_array_equal(vector_of(response), expected_vector(picture(), "2023-04-15"))
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.headers["apim-request-id"]
    assert "x-ms-error-code" not in response.headers


def test_text(emulator: Emulator) -> None:
    response = post_text(emulator, "a blue house")
    np.testing.assert_array_equal(vector_of(response), expected_vector("a blue house", "2023-04-15"))


def test_every_answer_has_a_request_id_of_its_own(emulator: Emulator) -> None:
    ids = {post_text(emulator, "a blue house").headers["apim-request-id"] for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize("text", ["one", " ".join(["word"] * 70), "ein blaues Häuschen 🏠", "\ud800 half a pair"])
def test_texts_of_one_to_seventy_words(emulator: Emulator, text: str) -> None:
    np.testing.assert_array_equal(vector_of(post_text(emulator, text)), expected_vector(text, "2023-04-15"))


@pytest.mark.parametrize(
    ("params", "version"),
    [
        ({}, "2023-04-15"),
        ({"model-version": "latest"}, "2023-04-15"),
        ({"model-version": "2023-04-15"}, "2023-04-15"),
        ({"model-version": "2022-04-11"}, "2022-04-11"),
        ({"modelVersion": "2022-04-11"}, "2023-04-15"),
        ({"overload": "stream"}, "2023-04-15"),
    ],
)
def test_model_version_and_names_that_are_ignored(emulator: Emulator, params: dict[str, str], version: str) -> None:
    vector_of(post(emulator, IMAGE_PATH, picture(), params=GA | params), version)


@pytest.mark.parametrize(
    "headers",
    [KEY, {"Authorization": "Bearer some.token"}, {"Authorization": "bearer x"}],
    ids=["key", "bearer", "lower-case"],
)
def test_key_or_bearer_token(emulator: Emulator, headers: dict[str, str]) -> None:
    vector_of(post(emulator, IMAGE_PATH, picture(), headers=headers | BYTES))


def test_key_of_ones_own() -> None:
    with Emulator(key="sesame") as emulator:
        vector_of(post(emulator, IMAGE_PATH, picture(), headers={"Ocp-Apim-Subscription-Key": "sesame"} | BYTES))
        error_of(post(emulator, IMAGE_PATH, picture()), 401)


def test_content_type_may_have_parameters_and_capitals(emulator: Emulator) -> None:
    headers = KEY | {"Content-Type": "Application/JSON; charset=utf-8"}
    vector_of(post(emulator, TEXT_PATH, b'{"text": "a"}', headers=headers))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "ICO", "TIFF", "MPO"])
def test_formats(emulator: Emulator, format: str) -> None:
    vector_of(post(emulator, IMAGE_PATH, picture(format)))


def test_multi_picture_jpeg(emulator: Emulator) -> None:
    out = io.BytesIO()
    Image.new("RGB", (40, 40)).save(out, "MPO", save_all=True, append_images=[Image.new("RGB", (40, 40), "red")])
    vector_of(post(emulator, IMAGE_PATH, out.getvalue()))


@pytest.mark.parametrize("size", [(11, 11), (11, 15_999), (15_999, 11), (15_999, 15_999)])
def test_smallest_and_largest_dimensions(emulator: Emulator, size: tuple[int, int]) -> None:
    vector_of(post(emulator, IMAGE_PATH, png_header(*size)))


def test_largest_file(emulator: Emulator) -> None:
    data = picture().ljust(MAX_BYTES, b"\0")
    np.testing.assert_array_equal(vector_of(post(emulator, IMAGE_PATH, data)), expected_vector(data, "2023-04-15"))


# --- vectors ---------------------------------------------------------------------------------------------------------


def test_two_emulators_agree(emulator: Emulator) -> None:
    with Emulator() as other:
        here, there = (vector_of(post(each, IMAGE_PATH, picture())) for each in (emulator, other))
    np.testing.assert_array_equal(here, there)


def test_versions_inputs_and_kinds_get_unrelated_vectors(emulator: Emulator) -> None:
    vectors = [
        vector_of(post(emulator, IMAGE_PATH, picture())),
        vector_of(post(emulator, IMAGE_PATH, picture(), params=GA | {"model-version": "2022-04-11"}), "2022-04-11"),
        vector_of(post(emulator, IMAGE_PATH, picture(colour="red"))),
        vector_of(post_text(emulator, "a")),
        vector_of(post_text(emulator, "b")),
    ]
    unit = np.array([vector / np.linalg.norm(vector) for vector in vectors])
    assert np.abs(unit @ unit.T - np.eye(len(unit))).max() < 0.2


@needs_recordings
def test_recorded_vectors_are_answered_exactly() -> None:
    with np.load(RECORDINGS) as archive:
        files, digests, vectors = archive["files"], archive["sha256"], archive["vectors"]
    with Emulator(recordings=RECORDINGS) as emulator, requests.Session() as session:
        for file, digest, vector in list(zip(files, digests, vectors, strict=True))[::10]:
            data = (REAL / "images" / str(file)).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest
            for _ in range(2):
                response = session.post(
                    emulator.url + IMAGE_PATH,
                    params=GA | {"model-version": "2022-04-11"},
                    headers=KEY | BYTES,
                    data=data,
                )
                np.testing.assert_array_equal(vector_of(response, "2022-04-11"), vector.astype(np.float32))


@needs_recordings
def test_what_was_not_recorded_is_computed() -> None:
    data = next((REAL / "images").glob("*.jpg")).read_bytes()
    with Emulator(recordings=RECORDINGS) as emulator:
        newer = vector_of(post(emulator, IMAGE_PATH, data))
        params = GA | {"model-version": "2022-04-11"}
        unknown = vector_of(post(emulator, IMAGE_PATH, picture(), params=params), "2022-04-11")
    np.testing.assert_array_equal(newer, expected_vector(data, "2023-04-15"))
    np.testing.assert_array_equal(unknown, expected_vector(picture(), "2022-04-11"))


# --- the order of the checks: each call is also wrong in ways that are checked later ---------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "",
        "computervision/retrieval:vectorizeVideo",
        "/" + IMAGE_PATH,
        "retrieval:vectorizeImage",
        IMAGE_PATH + "/",
        "_emulator/stats",
    ],
)
def test_unknown_path_comes_first(emulator: Emulator, path: str) -> None:
    error = error_of(post(emulator, path, b"junk", params={}, headers=WRONG_KEY), 404)
    assert error == {"code": "404", "message": "Resource not found"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_wrong_method_comes_first(emulator: Emulator, method: str) -> None:
    response = requests.request(method, emulator.url + IMAGE_PATH, headers=WRONG_KEY, data=b"junk", timeout=5)
    assert error_of(response, 404)["code"] == "404"


def test_answer_to_head_has_no_body(emulator: Emulator) -> None:
    with requests.Session() as session:
        assert session.head(emulator.url + IMAGE_PATH, timeout=5).status_code == 404
        # Had a body been sent, it would be taken for the beginning of this answer.
        assert session.get(emulator.url + "_emulator/stats", timeout=5).status_code == 200


@pytest.mark.parametrize("version", [None, "", "2024-02-01-preview", "2023-10-01", "2025-01-01"])
def test_unknown_api_version_comes_before_the_key(emulator: Emulator, version: str | None) -> None:
    params = {} if version is None else {"api-version": version}
    error = error_of(post(emulator, IMAGE_PATH, b"junk", params=params, headers=WRONG_KEY), 404)
    assert error == {"code": "404", "message": "Resource not found"}


@pytest.mark.parametrize("version", ["2023-02-01-preview", "2023-04-01-preview", "2023-07-01-preview"])
def test_retired_api_version_comes_before_the_key(emulator: Emulator, version: str) -> None:
    error = error_of(post(emulator, IMAGE_PATH, b"junk", params={"api-version": version}, headers=WRONG_KEY), 410)
    assert error["code"] == "Gone"
    assert error["message"].startswith(f"Computer Vision {version} has been deprecated.")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        WRONG_KEY,
        WRONG_KEY | {"Authorization": "Bearer token"},
        {"Ocp-Apim-Subscription-Key": ""},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic ZW11bGF0b3I="},
        {"api-key": "emulator"},
    ],
    ids=["none", "wrong", "wrong-and-bearer", "empty", "empty-bearer", "basic", "other-header"],
)
def test_key_comes_before_rate_content_type_and_model_version(headers: dict[str, str]) -> None:
    params = GA | {"model-version": "1999-01-01"}
    with Emulator(rate=0.01) as emulator:
        for _ in range(2):
            error = error_of(post(emulator, IMAGE_PATH, b"junk", params=params, headers=headers), 401)
            assert error["code"] == "401"
            assert "invalid subscription key or wrong API endpoint" in error["message"]


def test_rate_comes_before_content_type() -> None:
    with Emulator(rate=0.01) as emulator:
        assert error_of(post(emulator, IMAGE_PATH, b"junk", headers=KEY), 400)
        assert error_of(post(emulator, IMAGE_PATH, b"junk", headers=KEY), 429)["code"] == "429"


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        (IMAGE_PATH, None),
        (IMAGE_PATH, "image/jpeg"),
        (IMAGE_PATH, "multipart/form-data"),
        (TEXT_PATH, "application/octet-stream"),
        (TEXT_PATH, "text/plain"),
    ],
)
def test_content_type_comes_before_model_version(emulator: Emulator, path: str, content_type: str | None) -> None:
    headers = KEY if content_type is None else KEY | {"Content-Type": content_type}
    error = error_of(post(emulator, path, b"junk", params=GA | {"model-version": "1999-01-01"}, headers=headers), 400)
    assert error["code"] == "InvalidRequest"
    assert "content type" in error["message"]


@pytest.mark.parametrize("version", ["2099-01-01", "latest-preview", "azure-vision/2023-04-15"])
def test_model_version_comes_before_the_size(emulator: Emulator, version: str) -> None:
    error = error_of(post(emulator, IMAGE_PATH, b"", params=GA | {"model-version": version}), 400)
    assert error["code"] == "InvalidRequest"
    assert error["innererror"]["code"] == "BadArgument"
    assert version in error["message"]


@pytest.mark.parametrize("size", [0, MAX_BYTES + 1])
def test_size_comes_before_the_format(emulator: Emulator, size: int) -> None:
    error = error_of(post(emulator, IMAGE_PATH, b"j" * size), 400)
    assert error == {
        "code": "InvalidRequest",
        "message": "The image size is not allowed to be zero or larger than 20971520 bytes.",
    }


@pytest.mark.parametrize(
    "data",
    [
        b"junk",
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        picture()[:20],
        b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4,
        b"\x89PNG\r\n\x1a\n" + b"junk" * 100,
        b"BM is a text that begins like a bitmap, but goes on",
        b"RIFF\x10\0\0\0WEBPVP8 junkjunkjunk",
        b"II*\0" + b"\xff" * 64,
        b"\0\0\1\0\xff\xff" + b"junk",
        b"\0\0\1\0\0\0",
        b"GIF89a",
    ],
    ids=["text", "pdf", "svg", "cut", "jpeg", "png", "bmp", "webp", "tiff", "ico", "empty-ico", "gif"],
)
def test_garbage_is_no_picture(emulator: Emulator, data: bytes) -> None:
    error = error_of(post(emulator, IMAGE_PATH, data), 400)
    assert error["code"] == "InvalidRequest"
    assert error["innererror"] == {"code": "InvalidImageFormat", "message": "Image format is not valid."}


@pytest.mark.parametrize("size", [(10, 32), (32, 10), (16_000, 32), (32, 16_000), (60_000, 60_000)])
def test_dimensions_out_of_range(emulator: Emulator, size: tuple[int, int]) -> None:
    error = error_of(post(emulator, IMAGE_PATH, png_header(*size)), 400)
    assert error["code"] == "InvalidRequest"
    assert error["innererror"]["code"] == "InvalidImageSize"
    assert "10" in error["message"]
    assert "16000" in error["message"]


@pytest.mark.parametrize("text", ["", "   \n", " ".join(["word"] * 71)])
def test_number_of_words(emulator: Emulator, text: str) -> None:
    error = error_of(post_text(emulator, text), 400)
    assert error["code"] == "InvalidRequest"
    assert "words" in error["message"]


@pytest.mark.parametrize(
    "body", [b"", b"junk", b"{'text': 'a'}", b"[]", b'{"text": 3}', b'{"txt": "a"}', b"\xff\xfe\0", b"[" * 100_000]
)
def test_body_that_is_not_the_right_json(emulator: Emulator, body: bytes) -> None:
    assert error_of(post(emulator, TEXT_PATH, body, headers=KEY | JSON), 400)["code"] == "InvalidRequest"


def test_text_of_more_than_twenty_megabytes(emulator: Emulator) -> None:
    body = b'{"text": "' + b"a" * MAX_BYTES + b'"}'
    assert error_of(post(emulator, TEXT_PATH, body, headers=KEY | JSON), 400)["code"] == "InvalidRequest"


# --- pictures by URL -------------------------------------------------------------------------------------------------


class Site(BaseHTTPRequestHandler):
    """A place where pictures lie."""

    release = threading.Event()

    def do_GET(self) -> None:
        match self.path:
            case "/picture.png":
                self.give(picture())
            case "/moved":
                self.send_response(302)
                self.send_header("Location", "/picture.png")
                self.send_header("Content-Length", "0")
                self.end_headers()
            case "/to-a-file":
                self.send_response(302)
                self.send_header("Location", "file:///etc/hostname")
                self.send_header("Content-Length", "0")
                self.end_headers()
            case "/page":
                self.give(b"<html></html>")
            case "/empty":
                self.give(b"")
            case "/huge":
                self.give(b"\0" * (MAX_BYTES + 1))
            case "/cut":
                self.give(picture(), claimed=100_000)
            case "/never":
                self.release.wait(10)
            case _:
                self.send_error(404)

    def give(self, data: bytes, claimed: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(claimed or len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def a_site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        Site.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def post_url(emulator: Emulator, url: str) -> requests.Response:
    return post(emulator, IMAGE_PATH, json.dumps({"url": url}), headers=KEY | JSON)


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with a_site() as url:
        yield url


@pytest.mark.parametrize("path", ["/picture.png", "/moved"])
def test_picture_by_url_has_the_vector_of_its_bytes(emulator: Emulator, site: str, path: str) -> None:
    np.testing.assert_array_equal(vector_of(post_url(emulator, site + path)), expected_vector(picture(), "2023-04-15"))


@pytest.mark.parametrize("path", ["/missing", "/to-a-file", "/cut"])
def test_url_that_gives_nothing(emulator: Emulator, site: str, path: str) -> None:
    error = error_of(post_url(emulator, site + path), 400)
    assert error == {"code": "InvalidRequest", "message": "The provided image url is not accessible."}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "picture.png",
        "file:///etc/hostname",
        "ftp://127.0.0.1/a.png",
        "http://",
        "http://[::1",
        "http://127.0.0.1:1/",
    ],
)
def test_url_that_makes_no_sense(emulator: Emulator, url: str) -> None:
    assert "not accessible" in error_of(post_url(emulator, url), 400)["message"]


def test_url_is_given_up_in_the_end(emulator: Emulator, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_FETCH_SECONDS", 0.1)
    assert "not accessible" in error_of(post_url(emulator, site + "/never"), 400)["message"]


@pytest.mark.parametrize("path", ["/empty", "/huge"])
def test_picture_by_url_is_measured_like_any_other(emulator: Emulator, site: str, path: str) -> None:
    assert "20971520" in error_of(post_url(emulator, site + path), 400)["message"]


def test_page_by_url_is_no_picture(emulator: Emulator, site: str) -> None:
    assert error_of(post_url(emulator, site + "/page"), 400)["innererror"]["code"] == "InvalidImageFormat"


@pytest.mark.parametrize("body", [b"junk", b"[]", b'{"url": null}', b'{"uri": "http://127.0.0.1/"}'])
def test_body_without_a_url(emulator: Emulator, body: bytes) -> None:
    assert error_of(post(emulator, IMAGE_PATH, body, headers=KEY | JSON), 400)["code"] == "InvalidRequest"
