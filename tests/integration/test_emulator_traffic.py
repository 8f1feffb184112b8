"""The emulator as a server: faults, rate limit, latency, counting, connections, starting and stopping."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests

from lookalike.emulator import FAULT_KINDS, Emulator, expected_vector
from lookalike.errors import ConfigurationError

TEXT_TARGET = "/computervision/retrieval:vectorizeText?api-version=2024-02-01"
IMAGE_TARGET = "/computervision/retrieval:vectorizeImage?api-version=2024-02-01"
KEY = {"Ocp-Apim-Subscription-Key": "emulator"}
JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}
BODY = b'{"text": "a blue house"}'
MAX_BYTES = 20_971_520


def post_text(
    emulator: Emulator, *, key: str = "emulator", body: bytes = BODY, timeout: float = 10, extra: str = ""
) -> requests.Response:
    headers = {"Ocp-Apim-Subscription-Key": key} | JSON
    return requests.post(emulator.url[:-1] + TEXT_TARGET + extra, headers=headers, data=body, timeout=timeout)


def statuses(emulator: Emulator, operation: str = "vectorizeText") -> dict[str, int]:
    found: dict[str, int] = emulator.stats()["calls"][operation]
    return found


def port_of(emulator: Emulator) -> int:
    return int(emulator.url.rstrip("/").rpartition(":")[2])


def eventually(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


def raw(emulator: Emulator, data: bytes) -> bytes:
    """Send bytes as they are, and read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port_of(emulator)), timeout=5) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def head(*lines: str, target: str = IMAGE_TARGET) -> bytes:
    all_lines = [f"POST {target} HTTP/1.1", "Host: here", "Ocp-Apim-Subscription-Key: emulator", *lines, "", ""]
    return "\r\n".join(all_lines).encode()


# --- faults ----------------------------------------------------------------------------------------------------------


def test_429_comes_with_and_without_a_header() -> None:
    with Emulator(faults={"429": 1}) as emulator:
        answers = [post_text(emulator) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [429] * 4
        assert [answer.headers.get("Retry-After") for answer in answers] == [None, "1", None, "1"]
        for answer in answers:
            assert answer.json()["error"]["code"] == "429"
            assert "ImageRetrieval_VectorizeText Operation" in answer.json()["error"]["message"]
            assert "Please retry after 1 second." in answer.json()["error"]["message"]
        assert emulator.stats()["billed"] == 0
        assert statuses(emulator) == {"429": 4}


@pytest.mark.parametrize(("kind", "code"), [("500", "InternalServerError"), ("503", "ServiceUnavailable")])
def test_server_errors(kind: str, code: str) -> None:
    with Emulator(faults={kind: 1}) as emulator:
        answer = post_text(emulator)
        assert answer.status_code == int(kind)
        assert answer.json()["error"]["code"] == answer.headers["x-ms-error-code"] == code
        assert answer.headers["apim-request-id"]
        assert statuses(emulator) == {kind: 1}
        assert emulator.stats()["billed"] == 0


def test_timeout_does_not_answer() -> None:
    with Emulator(faults={"timeout": 1}) as emulator:
        with pytest.raises(requests.ReadTimeout):
            post_text(emulator, timeout=0.2)
        assert statuses(emulator) == {"timeout": 1}
        # The client has gone, and so has its call, without two minutes of waiting.
        eventually(lambda: emulator.stats()["in_flight"] == 0)
        assert emulator.stats() == {
            "billed": 0,
            "calls": {"vectorizeImage": {}, "vectorizeText": {"timeout": 1}},
            "in_flight": 0,
            "peak": 1,
        }


def test_reset_cuts_the_connection() -> None:
    with Emulator(faults={"reset": 1}) as emulator:
        with socket.create_connection(("127.0.0.1", port_of(emulator)), timeout=5) as connection:
            lines = ("Content-Type: application/json", f"Content-Length: {len(BODY)}")
            connection.sendall(head(*lines, target=TEXT_TARGET) + BODY)
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        with pytest.raises(requests.ConnectionError):
            post_text(emulator)
        assert statuses(emulator) == {"reset": 2}
        assert emulator.stats()["in_flight"] == 0


def test_truncated_json_is_whole_as_http() -> None:
    with Emulator(faults={"truncated-json": 1}) as emulator, requests.Session() as session:
        for _ in range(2):
            answer = session.post(emulator.url[:-1] + TEXT_TARGET, headers=KEY | JSON, data=BODY, timeout=5)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("application/json")
            assert int(answer.headers["content-length"]) == len(answer.content)
            assert answer.text.startswith('{"modelVersion":"2023-04-15","vector":[')
            with pytest.raises(requests.exceptions.JSONDecodeError):
                answer.json()
        assert emulator.stats()["billed"] == 2


def test_html_is_somebody_elses_page() -> None:
    with Emulator(faults={"html": 1}) as emulator:
        answer = post_text(emulator)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert "<html>" in answer.text
        assert emulator.stats()["billed"] == 0
        assert statuses(emulator) == {"200": 1}


@pytest.mark.parametrize(("asked", "answered"), [("2023-04-15", "2022-04-11"), ("2022-04-11", "2023-04-15")])
def test_wrong_model(asked: str, answered: str) -> None:
    with Emulator(faults={"wrong-model": 1}) as emulator:
        answer = post_text(emulator, extra=f"&model-version={asked}").json()
        assert answer["modelVersion"] == answered
        np.testing.assert_array_equal(np.float32(answer["vector"]), expected_vector("a blue house", answered))
        assert emulator.stats()["billed"] == 1


def test_wrong_length_nan_and_zero() -> None:
    vectors = {}
    for kind in ("wrong-length", "nan", "zero"):
        with Emulator(faults={kind: 1}) as emulator:
            vectors[kind] = post_text(emulator).json()["vector"]
            assert emulator.stats()["billed"] == 1
    assert len(vectors["wrong-length"]) == 1023
    assert len(vectors["nan"]) == len(vectors["zero"]) == 1024
    assert 0 < np.isnan(vectors["nan"]).sum() < 1024
    assert not np.any(vectors["zero"])


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_no_fault_hides_a_wrong_key(kind: str) -> None:
    with Emulator(faults={kind: 1}) as emulator:
        assert post_text(emulator, key="not the key").status_code == 401


@pytest.mark.parametrize("kind", ["truncated-json", "wrong-model", "wrong-length", "nan", "zero"])
def test_only_good_answers_are_damaged(kind: str) -> None:
    with Emulator(faults={kind: 1}) as emulator:
        answer = post_text(emulator, body=b'{"text": ""}')
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "InvalidRequest"
        assert emulator.stats()["billed"] == 0


def test_shares_of_faults() -> None:
    def run() -> list[int]:
        with Emulator(faults={"503": 0.25, "429": 0.25}) as emulator, requests.Session() as session:
            url = emulator.url[:-1] + TEXT_TARGET
            return [session.post(url, headers=KEY | JSON, data=BODY, timeout=5).status_code for _ in range(300)]

    found = run()
    assert all(50 <= Counter(found)[status] <= 100 for status in (429, 503))
    assert found == run()


def test_429_by_fault_takes_no_token() -> None:
    with Emulator(rate=0.01, faults={"429": 0.999999}) as emulator:
        answers = [post_text(emulator) for _ in range(4)]
        assert all("retry after 1 second." in answer.text for answer in answers)


# --- rate and latency ------------------------------------------------------------------------------------------------


def test_beyond_the_rate() -> None:
    with Emulator(rate=1) as emulator:
        assert [post_text(emulator).status_code for _ in range(2)] == [200, 429]
        refused = post_text(emulator)
        assert refused.json()["error"]["code"] == refused.headers["x-ms-error-code"] == "429"
        assert "S1 pricing tier. Please retry after 1 second." in refused.json()["error"]["message"]
        assert "Retry-After" not in refused.headers
        assert statuses(emulator) == {"200": 1, "429": 2}
        assert emulator.stats()["billed"] == 1
        eventually(lambda: post_text(emulator).status_code == 200)


def test_rate_of_the_free_tier() -> None:
    with Emulator(rate=20 / 60) as emulator:
        assert post_text(emulator).status_code == 200
        message = post_text(emulator).json()["error"]["message"]
        assert "F0 pricing tier" in message
        assert re.search(r"retry after (\d+) second", message)
        assert "Please retry after 3 seconds." in message


def test_latency_holds_up_nobody_else() -> None:
    with Emulator(latency_ms=150) as emulator:
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            calls = [pool.submit(post_text, emulator) for _ in range(16)]
            eventually(lambda: emulator.stats()["in_flight"] > 4)
            assert all(call.result().status_code == 200 for call in calls)
        assert 0.15 <= time.monotonic() - began < 1.5
        assert emulator.stats()["in_flight"] == 0
        assert 4 < emulator.stats()["peak"] <= 16


def test_gateway_answers_at_once() -> None:
    with Emulator(latency_ms=5000, rate=0.01) as emulator:
        assert post_text(emulator, key="not the key", timeout=2).status_code == 401
        with pytest.raises(requests.ReadTimeout):
            post_text(emulator, timeout=0.1)
        assert post_text(emulator, timeout=2).status_code == 429


# --- counting --------------------------------------------------------------------------------------------------------


def test_stats_need_no_key_and_do_not_count_themselves() -> None:
    with Emulator() as emulator:
        for _ in range(2):
            answer = requests.get(emulator.url + "_emulator/stats", timeout=5)
            assert answer.json() == {
                "billed": 0,
                "calls": {"vectorizeImage": {}, "vectorizeText": {}},
                "in_flight": 0,
                "peak": 0,
            }
        post_text(emulator)
        assert requests.get(emulator.url + "_emulator/stats", timeout=5).json() == emulator.stats()
        assert emulator.stats()["billed"] == 1


def test_refusals_are_counted_and_unknown_paths_are_not() -> None:
    with Emulator() as emulator:
        post_text(emulator, key="not the key")
        post_text(emulator, body=b"junk")
        url = emulator.url + "computervision/retrieval:vectorizeImage"
        for version in ("2023-02-01-preview", "2000-01-01"):
            requests.post(url, params={"api-version": version}, timeout=5)
        requests.post(emulator.url + "computervision/other", timeout=5)
        requests.get(url, timeout=5)
        assert emulator.stats() == {
            "billed": 0,
            "calls": {"vectorizeImage": {"410": 1, "404": 1}, "vectorizeText": {"401": 1, "400": 1}},
            "in_flight": 0,
            "peak": 1,
        }


def test_who_has_an_answer_finds_it_counted() -> None:
    with Emulator() as emulator, requests.Session() as session:
        for number in range(1, 101):
            session.post(emulator.url[:-1] + TEXT_TARGET, headers=KEY | JSON, data=BODY, timeout=5)
            stats = emulator.stats()
            assert (stats["billed"], stats["in_flight"]) == (number, 0)


def test_counts_are_right_under_sixteen_threads() -> None:
    def worker(number: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        with requests.Session() as session:
            for turn in range(25):
                headers = KEY | JSON if (number + turn) % 5 else JSON
                answer = session.post(emulator.url[:-1] + TEXT_TARGET, headers=headers, data=BODY, timeout=10)
                seen[str(answer.status_code)] += 1
        return seen

    with Emulator(faults={"503": 0.1, "nan": 0.1, "html": 0.05}) as emulator:
        with ThreadPoolExecutor(16) as pool:
            seen = sum(pool.map(worker, range(16)), Counter[str]())
        assert statuses(emulator) == seen
        assert seen.total() == 400
        assert emulator.stats()["in_flight"] == 0
        assert 1 <= emulator.stats()["peak"] <= 16
        assert 0 < emulator.stats()["billed"] < seen["200"]


def test_clients_that_die_leave_no_trace(capfd: pytest.CaptureFixture[str]) -> None:
    def die(data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port_of(emulator)), timeout=5) as connection:
            connection.sendall(data)
            # What the kernel does for a killed process with unread data: a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    whole = head("Content-Type: application/json", f"Content-Length: {len(BODY)}", target=TEXT_TARGET) + BODY
    with Emulator(latency_ms=50) as emulator:
        for data in (b"", b"POST /comp", whole[:-200], whole[:-5], head("Transfer-Encoding: chunked") + b"5\r\nab"):
            die(data)
        assert emulator.stats()["in_flight"] == 0
        die(whole)
        eventually(lambda: statuses(emulator) == {"200": 1})
        eventually(lambda: emulator.stats()["in_flight"] == 0)
        assert post_text(emulator).status_code == 200
        assert emulator.stats()["calls"] == {"vectorizeImage": {}, "vectorizeText": {"200": 2}}
    assert capfd.readouterr() == ("", "")


# --- connections -----------------------------------------------------------------------------------------------------


def test_connection_is_kept_through_errors() -> None:
    calls: list[tuple[str, str, dict[str, str], Any, int]] = [
        ("POST", "/nowhere", KEY | BYTES, b"x" * 100_000, 404),
        ("POST", IMAGE_TARGET.replace("2024-02-01", "2023-02-01-preview"), KEY | BYTES, b"x" * 100_000, 410),
        ("POST", IMAGE_TARGET, BYTES, b"x" * 100_000, 401),
        ("POST", IMAGE_TARGET, KEY, b"x" * 100_000, 400),
        ("POST", IMAGE_TARGET, KEY | BYTES, b"x" * 100_000, 400),
        ("POST", TEXT_TARGET, KEY | JSON, b"junk", 400),
        ("GET", TEXT_TARGET, KEY | JSON, b"a body where none belongs", 404),
        ("POST", TEXT_TARGET, KEY | JSON, BODY, 200),
        ("GET", "/_emulator/stats", {}, None, 200),
    ]
    with Emulator() as emulator:
        connection = http.client.HTTPConnection("127.0.0.1", port_of(emulator), timeout=5)
        connection.connect()
        first = connection.sock
        for method, target, headers, body, status in calls:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            assert answer.status == status
            json.loads(answer.read())
            assert connection.sock is first
        connection.close()


def test_connection_is_closed_when_the_client_says_so() -> None:
    with Emulator() as emulator:
        lines = ("Content-Type: application/json", f"Content-Length: {len(BODY)}")
        answer = raw(emulator, head(*lines, "Connection: close", target=TEXT_TARGET) + BODY)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        old = head(*lines, target=TEXT_TARGET).replace(b"HTTP/1.1", b"HTTP/1.0") + BODY
        assert raw(emulator, old).startswith(b"HTTP/1.1 200 OK\r\n")


def test_body_that_is_too_big_is_refused_unread() -> None:
    with Emulator() as emulator:
        lines = ("Content-Type: application/octet-stream", f"Content-Length: {MAX_BYTES + 1}")
        with socket.create_connection(("127.0.0.1", port_of(emulator)), timeout=5) as connection:
            connection.sendall(head(*lines))
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert b"larger than 20971520 bytes" in answer
        assert statuses(emulator, "vectorizeImage") == {"400": 1}


def test_body_that_is_too_big_is_refused_while_it_is_sent() -> None:
    with Emulator() as emulator:
        answer = requests.post(
            emulator.url[:-1] + IMAGE_TARGET, headers=KEY | BYTES, data=b"x" * (MAX_BYTES + 5_000_000), timeout=10
        )
        assert answer.status_code == 400
        assert answer.headers["Connection"] == "close"
        # The order of the checks holds for it, too.
        answer = requests.post(emulator.url[:-1] + IMAGE_TARGET, headers=BYTES, data=b"x" * (MAX_BYTES + 1), timeout=10)
        assert answer.status_code == 401


def test_chunked_bodies() -> None:
    with Emulator() as emulator, requests.Session() as session:
        for _ in range(2):
            chunks = (BODY[start : start + 7] for start in range(0, len(BODY), 7))
            answer = session.post(emulator.url[:-1] + TEXT_TARGET, headers=KEY | JSON, data=chunks, timeout=5)
            np.testing.assert_array_equal(
                np.float32(answer.json()["vector"]), expected_vector("a blue house", "2023-04-15")
            )
        many = (b"x" * 1_000_000 for _ in range(22))
        answer = session.post(emulator.url[:-1] + IMAGE_TARGET, headers=KEY | BYTES, data=many, timeout=10)
        assert answer.status_code == 400
        assert "larger than 20971520 bytes" in answer.text


@pytest.mark.parametrize(
    "data",
    [
        head("Content-Length: -1"),
        head("Content-Length: many"),
        head("Content-Length: 1_0"),
        head("Content-Length: 4", "Content-Length: 5") + b"abcd",
        head("Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: gzip"),
        head("Transfer-Encoding: chunked") + b"junk\r\n",
        head("Transfer-Encoding: chunked") + b"-3\r\nabc\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"3\r\nabcdef\r\n0\r\n\r\n",
        b"POST http://[::1/ HTTP/1.1\r\n\r\n",
        b"one two three four\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_hung_up_on(data: bytes) -> None:
    with Emulator() as emulator, socket.create_connection(("127.0.0.1", port_of(emulator)), timeout=5) as connection:
        connection.sendall(data)
        answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "BadRequest"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/3.0\r\n\r\n", b"505"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", b"431"),
    ],
)
def test_what_is_too_much_http(data: bytes, status: bytes) -> None:
    with Emulator() as emulator, socket.create_connection(("127.0.0.1", port_of(emulator)), timeout=5) as connection:
        connection.sendall(data)
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 " + status)


def test_post_without_a_length_is_empty_and_ends_the_connection() -> None:
    with Emulator() as emulator, socket.create_connection(("127.0.0.1", port_of(emulator)), timeout=5) as connection:
        connection.sendall(head("Content-Type: application/octet-stream") + b"a body that nobody announced")
        answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"not allowed to be zero" in answer
        assert answer.count(b"HTTP/1.1") == 1


def test_client_that_waits_to_be_told_to_go_on() -> None:
    with Emulator() as emulator, socket.create_connection(("127.0.0.1", port_of(emulator)), timeout=5) as connection:
        lines = ("Content-Type: application/json", f"Content-Length: {len(BODY)}", "Expect: 100-continue")
        connection.sendall(head(*lines, target=TEXT_TARGET))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(BODY)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_whole_url_as_target_and_escaped_path() -> None:
    lines = ("Content-Type: application/json", f"Content-Length: {len(BODY)}", "Connection: close")
    with Emulator() as emulator:
        whole = emulator.url[:-1] + TEXT_TARGET
        assert raw(emulator, head(*lines, target=whole) + BODY).startswith(b"HTTP/1.1 200 OK\r\n")
        escaped = TEXT_TARGET.replace(":", "%3A")
        assert raw(emulator, head(*lines, target=escaped) + BODY).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_hundred_connections_at_once() -> None:
    with Emulator(latency_ms=20) as emulator, ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: post_text(emulator).status_code, range(100)))
    assert answers == [200] * 100


# --- starting and stopping -------------------------------------------------------------------------------------------


def test_port_in_use() -> None:
    with Emulator() as emulator:
        second = Emulator(port_of(emulator))
        with pytest.raises(ConfigurationError, match=r"cannot listen on port \d+ .* choose another port"):
            second.start()
        assert post_text(emulator).status_code == 200


def test_port_is_free_again_after_stop() -> None:
    with Emulator() as emulator:
        post_text(emulator)
    with Emulator(port_of(emulator)) as second:
        assert second.url == emulator.url
        assert post_text(second).status_code == 200


def test_started_again_it_is_where_it_was_and_counts_on() -> None:
    emulator = Emulator()
    with pytest.raises(RuntimeError):
        emulator.url  # noqa: B018
    emulator.stop()
    emulator.start()
    url = emulator.url
    assert emulator.start().url == url
    post_text(emulator)
    emulator.stop()
    emulator.stop()
    with pytest.raises(requests.ConnectionError):
        post_text(emulator)
    with emulator:
        assert emulator.url == url
        post_text(emulator)
    assert emulator.stats()["billed"] == 2


@pytest.mark.parametrize(
    "held", [Emulator(faults={"timeout": 1}), Emulator(latency_ms=60_000)], ids=["timeout", "latency"]
)
def test_stop_does_not_wait_for_calls_that_hang(held: Emulator) -> None:
    with held as emulator, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(post_text, emulator, timeout=30) for _ in range(8)]
        eventually(lambda: emulator.stats()["in_flight"] == 8)
        idle = socket.create_connection(("127.0.0.1", port_of(emulator)))
        half_sent = socket.create_connection(("127.0.0.1", port_of(emulator)))
        half_sent.sendall(head("Content-Length: 1000") + b"a little")
        began = time.monotonic()
        emulator.stop()
        assert time.monotonic() - began < 1
        for call in calls:
            with pytest.raises(requests.ConnectionError):
                call.result(timeout=2)
        idle.close()
        half_sent.close()
    assert emulator.stats()["in_flight"] == 0


def test_serve_returns_when_it_is_stopped() -> None:
    emulator = Emulator()
    thread = threading.Thread(target=emulator.serve)
    thread.start()
    eventually(lambda: emulator._port != 0)
    assert post_text(emulator).status_code == 200
    emulator.stop()
    thread.join(2)
    assert not thread.is_alive()


def test_serve_ends_by_a_signal() -> None:
    with Emulator() as emulator:
        previous = signal.signal(signal.SIGUSR1, lambda *_: emulator.stop())
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        try:
            timer.start()
            emulator.serve()
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, previous)
        with pytest.raises(requests.ConnectionError):
            post_text(emulator)
