"""Pace, patience and suspicion: what is done with a service's answers, with a wire and a clock that the tests hold."""

from __future__ import annotations

import io
import json
import logging
import math
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeAlias

import numpy as np
import pytest
import requests
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from lookalike.embedders import http
from lookalike.embedders.http import Answer, Classify, Client, Retry, TokenBucket, Verdict, read_embeddings
from lookalike.embedders.terms import BATCH, INTERACTIVE, Patience
from lookalike.errors import (
    ContractBroken,
    CredentialsRefused,
    Interrupted,
    ItemError,
    LookalikeError,
    ServiceError,
)
from lookalike.types import Embedding, Model, Usage

KEY = "s3cret/key+0123456789abcdef"
HOST = "vision.example.net"
ENDPOINT = f"https://{HOST}"
MODEL = Model("azure-vision/2023-04-15", dimensions=4)
HOUR = 3600.0


class Clock:
    """Stands in for the time: a wait is over at once, and remembered."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float, stop: threading.Event | None) -> None:
        if stop is not None and stop.is_set():
            raise Interrupted("Stopped.")
        if seconds > 0:
            self.waits.append(seconds)
            self.now += max(seconds, 1e-6)


Scripted: TypeAlias = "tuple[int, object, dict[str, str]] | Exception"


def reply(status: int, body: object = None, **headers: str) -> Scripted:
    """An answer: `body` as JSON, unless it is bytes; headers with _ for -."""
    return status, body, {name.replace("_", "-"): value for name, value in headers.items()}


def azure_error(status: int, code: str, message: str = "No reason.", **headers: str) -> Scripted:
    return reply(status, {"error": {"code": code, "message": message}}, **headers)


GOOD = reply(200, {"vector": [1, 2, 3, 4]})
NO_ANSWER = ReadTimeoutError(urllib3.HTTPSConnectionPool(HOST), "/embed", "Read timed out.")
SLOW_DOWN = azure_error(429, "429", "Requests have exceeded call rate limit.")
UNAVAILABLE = azure_error(503, "ServiceUnavailable", "Try later.")


@dataclass(frozen=True)
class Sent:
    """A request as it would leave for the network."""

    method: str
    target: str
    body: bytes | None
    headers: Mapping[str, str]


class Wire(requests.adapters.HTTPAdapter):
    """Stands in for the network: answers from a script, whose last line is repeated for ever."""

    def __init__(self, *script: Scripted, clock: Clock | None = None, seconds: float = 0.0) -> None:
        super().__init__()
        self.script = list(script)
        self.requests: list[Sent] = []
        self.timeouts: list[tuple[Any, Any]] = []
        self.times: list[float] = []
        self.clock, self.seconds = clock, seconds

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return self

    def cert_verify(self, *_: Any) -> None:
        pass

    def urlopen(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        timeout: urllib3.Timeout,
        redirect: bool,
        retries: bool,
        **_: Any,
    ) -> urllib3.BaseHTTPResponse:
        assert not redirect
        assert not retries
        self.requests.append(Sent(method, target, body, headers))
        self.timeouts.append((timeout.connect_timeout, timeout.read_timeout))
        if self.clock is not None:
            self.times.append(self.clock.now)
            self.clock.now += self.seconds
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        status, content, said = step
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.answer(io.BytesIO(data), status, {"Content-Type": "application/json; charset=utf-8", **said})

    def answer(self, data: io.BytesIO, status: int, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        return urllib3.HTTPResponse(data, headers, status, reason="Reason", preload_content=False)

    def close(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(http, "_now", clock.time)
    monkeypatch.setattr(http, "_sleep", clock.sleep)
    return clock


@pytest.fixture(autouse=True)
def _own_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_buckets", {})


Connect: TypeAlias = Callable[..., Client]


@pytest.fixture
def connect(clock: Clock) -> Iterator[Connect]:
    """Makes clients over a wire, on the clock of the test."""
    assert http._now == clock.time
    yield from connecting()


@pytest.fixture
def connect_in_real_time() -> Iterator[Connect]:
    """Makes clients over a wire, on the clock on the wall."""
    yield from connecting()


def connecting() -> Iterator[Connect]:
    made: list[Client] = []

    def connect(
        wire: Wire,
        *,
        classify: Classify = lambda *_: None,
        rate: float = 1e6,
        patience: Patience = BATCH,
        stop: threading.Event | None = None,
        key: str = KEY,
    ) -> Client:
        client = Client("The service", ENDPOINT, key, classify, rate=rate, patience=patience, stop=stop)
        client._session.mount("https://", wire)
        made.append(client)
        return client

    yield connect
    for client in made:
        client.close()


def ask(client: Client) -> Answer | ItemError:
    return client.post("/embed", headers={"Api-Key": KEY}, body=b"picture", params={"v": "1"})


def ask_and_fail(client: Client) -> ItemError:
    answer = ask(client)
    assert isinstance(answer, ItemError)
    return answer


# -- the pace ---------------------------------------------------------------------------------------------------


def turns(bucket: TokenBucket, clock: Clock, rate: float, number: int) -> list[float]:
    """When the next turns come, seen from now."""
    began, times = clock.now, []
    for _ in range(number):
        assert bucket.wait_for_turn(rate, math.inf)
        times.append(round(clock.now - began, 3))
    return times


def test_a_rested_bucket_lets_one_seconds_worth_through_and_then_keeps_the_pace(clock: Clock) -> None:
    assert turns(TokenBucket(), clock, 10, 13) == [0.0] * 10 + [0.1, 0.2, 0.3]


def test_a_long_rest_saves_up_no_more_than_a_second(clock: Clock) -> None:
    bucket = TokenBucket()
    turns(bucket, clock, 10, 50)
    clock.now += HOUR
    assert turns(bucket, clock, 10, 11) == [0.0] * 10 + [0.1]


def test_the_free_tier_gets_one_call_every_three_seconds(clock: Clock) -> None:
    assert turns(TokenBucket(), clock, 20 / 60, 4) == [0.0, 3.0, 6.0, 9.0]


def test_each_caller_keeps_its_own_rate_and_leaves_room_for_the_others(clock: Clock) -> None:
    bucket = TokenBucket()
    turns(bucket, clock, 1, 1)
    assert turns(bucket, clock, 10, 3) == [1.0, 1.1, 1.2]


def test_threads_together_keep_the_rate() -> None:
    bucket, times = TokenBucket(), list[float]()

    def call() -> None:
        for _ in range(9):
            assert bucket.wait_for_turn(40, math.inf)
            times.append(time.monotonic())

    threads = [threading.Thread(target=call) for _ in range(8)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 72 turns: 40 that were saved up, 32 at 40 a second
    assert max(times) - began >= 0.79
    assert sum(at - began < 0.5 for at in times) <= 40 + 0.5 * 40 + 1


def queue_up(bucket: TokenBucket, call: Callable[..., None], *arguments: object) -> threading.Thread:
    """A thread that has got its place in the queue when this returns."""
    before, thread = bucket._next, threading.Thread(target=call, args=arguments)
    thread.start()
    while bucket._next == before:
        time.sleep(0.001)
    return thread


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    bucket, order = TokenBucket(), list[int]()
    for _ in range(30):
        bucket.wait_for_turn(30, math.inf)

    def call(number: int) -> None:
        bucket.wait_for_turn(30, math.inf)
        order.append(number)

    threads = [queue_up(bucket, call, number) for number in range(8)]
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_a_pause_holds_everybody_and_forgets_what_was_saved_up(clock: Clock) -> None:
    bucket = TokenBucket()
    bucket.pause(clock.now + 40)
    assert turns(bucket, clock, 10, 3) == [40.0, 40.1, 40.2]


def test_pauses_that_overlap_do_not_add_up(clock: Clock) -> None:
    bucket = TokenBucket()
    for seconds in (5, 3, 8, 8):
        bucket.pause(clock.now + seconds)
    assert turns(bucket, clock, 10, 2) == [8.0, 8.1]


def test_a_pause_costs_nobody_their_place_in_the_queue() -> None:
    bucket, order = TokenBucket(), list[str]()
    bucket.wait_for_turn(20, math.inf)

    def call(name: str) -> None:
        bucket.wait_for_turn(20, math.inf)
        order.append(name)

    bucket.pause(time.monotonic() + 0.05)
    first = queue_up(bucket, call, "first")
    bucket.pause(time.monotonic() + 0.2)
    second = queue_up(bucket, call, "second")
    first.join()
    second.join()
    assert order == ["first", "second"]


def test_a_turn_after_the_deadline_is_refused_at_once_and_left_to_others(clock: Clock) -> None:
    bucket = TokenBucket()
    turns(bucket, clock, 1, 31)
    clock.waits.clear()
    for _ in range(1000):
        assert not bucket.wait_for_turn(0.01, clock.now + 0.5)
    assert clock.waits == []
    assert turns(bucket, clock, 1, 1) == [1.0]


def test_a_pause_that_grows_beyond_the_deadline_sends_those_who_wait_away() -> None:
    bucket, turned_away = TokenBucket(), threading.Event()
    bucket.pause(time.monotonic() + 0.1)

    def call() -> None:
        if not bucket.wait_for_turn(10, time.monotonic() + 1):
            turned_away.set()

    thread = queue_up(bucket, call)
    bucket.pause(time.monotonic() + HOUR)
    thread.join()
    assert turned_away.is_set()


def test_whoever_waits_for_a_turn_stops_when_told_to() -> None:
    bucket, stop, stopped = TokenBucket(), threading.Event(), list[float]()
    bucket.pause(time.monotonic() + HOUR)

    def call() -> None:
        with pytest.raises(Interrupted):
            bucket.wait_for_turn(10, math.inf, stop)
        stopped.append(time.monotonic())

    threads = [queue_up(bucket, call) for _ in range(4)]
    stop.set()
    told = time.monotonic()
    for thread in threads:
        thread.join()
    assert len(stopped) == 4
    assert max(stopped) - told < 0.5


def test_embedders_of_one_credential_share_their_pace_and_others_do_not(clock: Clock, connect: Connect) -> None:
    wire = Wire(GOOD, clock=clock)
    for key in (KEY, KEY, "another key"):
        ask(connect(wire, rate=0.1, key=key))
    assert wire.times == [1000.0, 1010.0, 1010.0]


class StopMeanwhile(Wire):
    """Somebody says stop while the first call is under way."""

    def __init__(self, *script: Scripted) -> None:
        super().__init__(*script)
        self.stop = threading.Event()

    def urlopen(self, *request: Any, **options: Any) -> urllib3.BaseHTTPResponse:
        self.stop.set()
        return super().urlopen(*request, **options)


def test_a_429_slows_everybody_down(clock: Clock, connect: Connect) -> None:
    refused, others = StopMeanwhile(azure_error(429, "429", Retry_After="30")), Wire(GOOD, clock=clock)
    with pytest.raises(Interrupted):
        ask(connect(refused, stop=refused.stop))
    ask(connect(others))
    assert others.times[0] >= 1030


# -- waits ------------------------------------------------------------------------------------------------------


def http_date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


FREE_TIER = (
    "Requests to the ImageRetrieval_VectorizeImage Operation under Computer Vision API (2024-02-01) have exceeded call "
    "rate limit of your current ComputerVision F0 pricing tier. Please retry after 40 seconds. To increase your rate "
    "limit switch to a paid tier."
)
PAID_TIER = (
    "You have exceeded rate limit of your current ComputerVision S1 pricing tier. Please retry after 1 second. Bye."
)


@pytest.mark.parametrize(
    ("answer", "least", "most"),
    [
        pytest.param(azure_error(429, "429", Retry_After="7"), 7, 9, id="header, seconds"),
        pytest.param(azure_error(429, "429", FREE_TIER), 40, 42, id="message, free tier"),
        pytest.param(azure_error(429, "429", PAID_TIER), 1, 1.25, id="message, paid tier"),
        pytest.param(
            azure_error(429, "429", FREE_TIER, Retry_After="7"), 7, 9, id="the header goes before the message"
        ),
        pytest.param(azure_error(429, "429", FREE_TIER, Retry_After="soon"), 40, 42, id="nonsense in the header"),
        pytest.param(azure_error(429, "429", FREE_TIER, Retry_After=http_date(-60)), 40, 42, id="a date gone by"),
        pytest.param(
            azure_error(429, "429", FREE_TIER, Retry_After="Feb 30 25:61 99999999999"), 40, 42, id="a wild date"
        ),
        pytest.param(azure_error(429, "429", Retry_After="0"), 1, 1.25, id="none at all is no wait to be trusted"),
        pytest.param(SLOW_DOWN, 1, 1.25, id="no hint"),
        pytest.param(azure_error(503, "Busy", Retry_After="12"), 12, 14, id="503 with header"),
        pytest.param(azure_error(500, "Oops"), 0, 1, id="500"),
        pytest.param(azure_error(408, "Timeout"), 0, 1, id="408"),
    ],
)
def test_the_service_says_how_long_to_wait(
    clock: Clock, connect: Connect, answer: Scripted, least: float, most: float
) -> None:
    wire = Wire(answer, GOOD, clock=clock)
    assert isinstance(ask(connect(wire)), Answer)
    first, second = wire.times
    assert least <= round(second - first, 3) <= most


def test_the_service_says_until_when_to_wait(clock: Clock, connect: Connect) -> None:
    # a date of now, not of when the tests were collected
    wire = Wire(azure_error(429, "429", Retry_After=http_date(20)), GOOD, clock=clock)
    assert isinstance(ask(connect(wire)), Answer)
    first, second = wire.times
    assert 17 <= round(second - first, 3) <= 22


def test_without_a_hint_a_429_is_waited_out_ever_longer_up_to_a_minute(clock: Clock, connect: Connect) -> None:
    wire = Wire(*[SLOW_DOWN] * 12, GOOD, clock=clock)
    ask(connect(wire))
    waits = np.diff(wire.times)
    expected = np.array([1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60])
    assert (waits >= expected - 0.001).all()
    assert (waits <= expected * 1.25 + 0.001).all()


def test_those_who_were_refused_together_do_not_come_back_together(clock: Clock, connect: Connect) -> None:
    waits = set()
    for number in range(20):
        wire = Wire(azure_error(429, "429", Retry_After="10"), GOOD, clock=clock)
        ask(connect(wire, key=f"key {number}"))
        waits.add(round(wire.times[1] - wire.times[0], 4))
    assert len(waits) > 10


def test_backoff_has_full_jitter_and_ends_at_a_minute(clock: Clock, connect: Connect) -> None:
    waits = []
    for number in range(40):
        wire = Wire(*[UNAVAILABLE] * 9, GOOD, clock=clock)
        assert isinstance(ask(connect(wire, key=f"key {number}")), Answer)
        waits.append(np.diff(wire.times))
    mean, most = np.mean(waits, axis=0), np.max(waits, axis=0)
    ceiling = np.array([1, 2, 4, 8, 16, 32, 60, 60, 60])
    assert (most <= ceiling + 0.001).all()
    assert (np.abs(mean / ceiling - 0.5) < 0.25).all()


# -- patience ---------------------------------------------------------------------------------------------------


def test_however_often_the_service_says_429_nothing_fails(connect: Connect) -> None:
    client = connect(Wire(*[azure_error(429, "429", FREE_TIER)] * 500, GOOD))
    assert isinstance(ask(client), Answer)
    assert client.usage == Usage(calls=1, retries=500)


def test_429_ends_at_the_deadline_and_says_so(clock: Clock, connect: Connect) -> None:
    wire = Wire(azure_error(429, "429", FREE_TIER, apim_request_id="a-17"), clock=clock)
    error = ask_and_fail(connect(wire))
    assert (error.code, error.retryable, error.request_id) == ("rate-limited", True, "a-17")
    assert HOST in str(error)
    assert "F0 pricing tier" in str(error)
    assert wire.times[-1] - wire.times[0] == pytest.approx(12 * HOUR, abs=1)


def test_what_may_pass_gets_eight_tries_and_five_minutes_in_a_batch(clock: Clock, connect: Connect) -> None:
    for number in range(9):
        wire = Wire(UNAVAILABLE, clock=clock)
        error = ask_and_fail(connect(wire, key=f"key {number}"))
        assert (error.code, error.retryable) == ("service-unavailable", True)
        assert len(wire.times) >= 8
        assert 300 <= wire.times[-1] - wire.times[0] < 300 + 61


def test_slow_failures_still_get_eight_tries(clock: Clock, connect: Connect) -> None:
    wire = Wire(NO_ANSWER, clock=clock, seconds=60)
    assert ask_and_fail(connect(wire)).code == "timeout"
    assert len(wire.times) == 8


def test_somebody_who_waits_gets_eight_tries_within_the_deadline(clock: Clock, connect: Connect) -> None:
    for number in range(9):
        wire = Wire(UNAVAILABLE, clock=clock)
        assert ask_and_fail(connect(wire, patience=INTERACTIVE, key=f"key {number}")).code == "service-unavailable"
        assert len(wire.times) == 8
        assert wire.times[-1] - wire.times[0] < 30


def test_somebody_who_waits_is_not_kept_beyond_the_deadline(clock: Clock, connect: Connect) -> None:
    wire = Wire(azure_error(429, "429", Retry_After="100000"), clock=clock)
    began = clock.now
    error = ask_and_fail(connect(wire, patience=INTERACTIVE))
    assert error.code == "rate-limited"
    assert clock.now - began == pytest.approx(30, abs=0.01)
    assert len(wire.times) == 2, "one last try when time is up"
    assert max(wire.timeouts[-1]) <= 1, "which must be quick"


def test_a_try_is_not_given_more_time_than_is_left(clock: Clock, connect: Connect) -> None:
    wire = Wire(NO_ANSWER, clock=clock, seconds=10)
    assert ask_and_fail(connect(wire, patience=INTERACTIVE)).code == "timeout"
    assert wire.timeouts[0] == (5, 10)
    for at, (connecting, reading) in zip(wire.times, wire.timeouts, strict=True):
        assert max(connecting, reading) <= max(1030 - at, 1) + 0.001


def test_a_rate_that_others_have_used_up_does_not_keep_anybody_waiting(clock: Clock, connect: Connect) -> None:
    wire = Wire(GOOD, clock=clock)
    client = connect(wire, rate=0.01, patience=INTERACTIVE)
    assert isinstance(ask(client), Answer)
    for _ in range(20):
        error = ask_and_fail(client)
        assert error.code == "rate-limited"
        assert "0.01 calls a second" in str(error)
    assert len(wire.times) == 1
    assert clock.waits == []


def test_429s_do_not_use_up_tries(connect: Connect) -> None:
    quick = azure_error(503, "Busy", Retry_After="50")
    wire = Wire(*[SLOW_DOWN, quick] * 7, SLOW_DOWN, SLOW_DOWN, GOOD)
    assert isinstance(ask(connect(wire)), Answer)


def test_five_minutes_count_from_the_first_failure_and_not_from_the_first_429(clock: Clock, connect: Connect) -> None:
    wire = Wire(*[azure_error(429, "429", FREE_TIER)] * 20, UNAVAILABLE, clock=clock)
    ask_and_fail(connect(wire))
    assert wire.times[-1] - wire.times[20] >= 300


# -- stopping ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [azure_error(503, "Busy", Retry_After="600"), azure_error(429, "429", FREE_TIER)])
def test_a_wait_ends_when_somebody_says_stop(connect_in_real_time: Connect, answer: Scripted) -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        ask(connect_in_real_time(Wire(answer), stop=stop))
    assert time.monotonic() - began < 1


def test_after_stop_nothing_is_sent(connect: Connect) -> None:
    stop, wire = threading.Event(), Wire(GOOD)
    stop.set()
    with pytest.raises(Interrupted):
        ask(connect(wire, stop=stop))
    assert wire.requests == []


def test_a_call_that_is_under_way_is_let_finish(connect: Connect) -> None:
    wire = StopMeanwhile(GOOD)
    assert isinstance(ask(connect(wire, stop=wire.stop)), Answer)


# -- what went wrong --------------------------------------------------------------------------------------------


def cut_by(cause: Exception) -> Exception:
    return ProtocolError("Connection aborted.", cause)


@pytest.mark.parametrize(
    ("trouble", "code", "reason"),
    [
        (cut_by(ConnectionResetError(104, "reset")), "connection", "was cut"),
        (cut_by(ConnectionRefusedError(111, "refused")), "connection", "was refused"),
        (ConnectTimeoutError("Connection timed out."), "timeout", "no answer in time"),
        (NO_ANSWER, "timeout", "no answer in time"),
        (cut_by(ValueError("short")), "connection", "was cut"),
        (DecodeError("gzip"), "connection", "gzip"),
        (ProxyError("No.", ConnectionRefusedError(111, "no")), "connection", "HTTPS_PROXY"),
        (SSLError(ssl.SSLEOFError(8, "EOF occurred")), "connection", "EOF occurred"),
        (reply(200, b"<html>Welcome</html>", Content_Type="text/html"), "unreadable-answer", "JSON"),
        (reply(200, b'{"vector": [1, 2'), "unreadable-answer", "JSON"),
        (reply(200, b"[" * 100_000), "unreadable-answer", "JSON"),
        (reply(200, [1, 2]), "unreadable-answer", "JSON"),
        (reply(500, b"<html>\x1b[31mOops</html>", Content_Type="text/html"), "service-unavailable", "500: Reason"),
        (reply(502, b""), "service-unavailable", "502"),
        (reply(504, b""), "service-unavailable", "504"),
        (reply(408, b""), "timeout", "408"),
    ],
)
def test_what_may_pass_is_tried_again_and_named_in_the_end(
    connect: Connect, trouble: Scripted, code: str, reason: str
) -> None:
    assert isinstance(ask(connect(Wire(trouble, trouble, GOOD))), Answer)
    error = ask_and_fail(connect(Wire(trouble)))
    assert (error.code, error.retryable) == (code, True)
    assert HOST in str(error)
    assert reason in str(error)


@pytest.mark.parametrize(
    ("trouble", "kind", "hint"),
    [
        (
            SSLError(ssl.SSLCertVerificationError(1, "self-signed")),
            ServiceError,
            "REQUESTS_CA_BUNDLE",
        ),
        (
            OSError("Could not find a suitable TLS CA certificate bundle, invalid path: /x"),
            ServiceError,
            "REQUESTS_CA_BUNDLE",
        ),
        (requests.exceptions.InvalidURL("Invalid percent-escape"), ServiceError, "Invalid percent-escape"),
        (requests.exceptions.InvalidProxyURL("Please check proxy URL."), ServiceError, "check proxy URL"),
        (requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support."), ServiceError, "SOCKS"),
        (
            ProxyError("No.", OSError("Tunnel connection failed: 407 Proxy Authentication Required")),
            CredentialsRefused,
            "HTTPS_PROXY",
        ),
        (reply(407, b""), CredentialsRefused, "HTTPS_PROXY"),
        (reply(302, b"", Location="https://login.example.org/?token=abc"), ContractBroken, "login.example.org"),
        (reply(308, b""), ContractBroken, "308: Reason, pointing to nowhere"),
        (reply(204, b""), ContractBroken, "204: Reason.$"),
    ],
)
def test_what_cannot_pass_stops_the_run_at_once(
    connect: Connect, trouble: Scripted, kind: type[Exception], hint: str
) -> None:
    wire = Wire(trouble)
    with pytest.raises(kind, match=hint) as caught:
        ask(connect(wire))
    assert type(caught.value) is kind
    assert "token" not in str(caught.value)
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    ("body", "codes", "message"),
    [
        (
            {"error": {"code": "A", "message": "m", "innererror": {"code": "B", "innererror": {"code": "C"}}}},
            ("A", "B", "C"),
            "m",
        ),
        ({"error": {"code": "A", "details": [{"code": "B", "message": "m"}, "x"]}}, ("A", "B"), "m"),
        ({"statusCode": 403, "message": "m"}, ("418",), "m"),
        ({"code": "A", "message": "m", "request_id": "1"}, ("A",), "m"),
        ({"code": "A", "msg": "m"}, ("A",), "m"),
        ({"error": "m"}, ("418",), "m"),
        ({"error": {"code": 429, "message": None}}, ("429",), "Reason"),
        (
            {"detail": {"loc": ["body", "dimensions"], "input": "1024"}, "code": "A", "message": "m"},
            ("A",),
            "body.dimensions: m",
        ),
        ({"detail": [{"loc": ["body", "input", 0], "msg": "m"}]}, ("418",), "body.input.0: m"),
        ({"detail": [{"message": "m"}]}, ("418",), "m"),
        (b"<html>", ("418",), "Reason"),
        (b"", ("418",), "Reason"),
        (None, ("418",), "Reason"),
        ("  two\n lines \x1b[31m", ("418",), "two lines [31m"),
        ("x" * 5000, ("418",), "x" * 300),
    ],
)
def test_errors_are_understood_in_every_dress(
    connect: Connect, body: object, codes: tuple[str, ...], message: str
) -> None:
    seen: list[object] = []

    def classify(status: int, *refusal: object) -> Verdict:
        seen.extend((status, *refusal[:2]))
        return ItemError("known", "Known.")

    ask(connect(Wire(reply(418, body)), classify=classify))
    assert seen == [418, codes, message]


def test_the_code_may_stand_in_a_header(connect: Connect) -> None:
    assert "418 Teapot" in str(ask_and_fail(connect(Wire(reply(418, b"", x_ms_error_code="Teapot")))))


@pytest.mark.parametrize(
    "verdict", [ItemError("bad", "Bad.", retryable=True), CredentialsRefused("No."), Retry("x", "y")]
)
def test_the_adapter_has_the_first_word(connect: Connect, verdict: Verdict) -> None:
    client = connect(Wire(reply(429, {}, x_request_id="r-1"), GOOD), classify=lambda *_: verdict)
    if isinstance(verdict, ServiceError):
        with pytest.raises(CredentialsRefused) as caught:
            ask(client)
        assert caught.value.request_id == "r-1"
    elif isinstance(verdict, ItemError):
        assert ask(client) is verdict
        assert verdict.request_id == "r-1"
    else:
        assert isinstance(ask(client), Answer)


def test_the_adapter_may_say_how_long_to_wait(clock: Clock, connect: Connect) -> None:
    wire = Wire(reply(429, {}, Retry_After="5"), GOOD, clock=clock)
    ask(connect(wire, classify=lambda *_: Retry("quota", "out of tokens", throttled=True, wait=60)))
    assert 60 <= wire.times[1] - wire.times[0] <= 62.001


# -- faults that are no input's ---------------------------------------------------------------------------------


def test_ten_equal_refusals_of_an_unknown_kind_stop_the_run(connect: Connect) -> None:
    client = connect(Wire(azure_error(422, "Strange", "Something new.")))
    for _ in range(9):
        error = ask_and_fail(client)
        assert (error.code, error.retryable) == ("refused", False)
        assert "422 Strange: Something new." in str(error)
    with pytest.raises(ContractBroken, match="422 Strange"):
        ask(client)
    with pytest.raises(ContractBroken):
        ask(client)


def test_a_success_in_between_shows_that_inputs_are_to_blame(connect: Connect) -> None:
    strange = azure_error(422, "Strange")
    client = connect(Wire(*[*[strange] * 9, GOOD] * 5))
    for _ in range(50):
        ask(client)


def test_refusals_of_several_kinds_are_not_taken_for_one(connect: Connect) -> None:
    client = connect(Wire(*[azure_error(422, "A"), azure_error(422, "B"), azure_error(400, "A")] * 10))
    for _ in range(30):
        ask_and_fail(client)


def test_known_faults_of_inputs_never_stop_the_run(connect: Connect) -> None:
    client = connect(Wire(azure_error(400, "A")), classify=lambda *_: ItemError("bad-picture", "Bad."))
    for _ in range(30):
        assert ask_and_fail(client).code == "bad-picture"
    client = connect(Wire(reply(413, b"")))
    for _ in range(30):
        assert ask_and_fail(client).code == "too-many-bytes"


def test_ten_inputs_given_up_in_a_row_stop_the_run(connect: Connect) -> None:
    client = connect(Wire(cut_by(ConnectionRefusedError(111, "refused"))), patience=INTERACTIVE)
    for _ in range(9):
        assert ask_and_fail(client).code == "connection"
    with pytest.raises(ServiceError, match=f"cannot be reached.*{HOST}.*refused") as caught:
        ask(client)
    assert type(caught.value) is ServiceError


# -- what is counted and what is kept ---------------------------------------------------------------------------


def test_answers_that_are_billed_are_counted_also_when_they_cannot_be_used(connect: Connect) -> None:
    script = [
        azure_error(401, "401"),
        reply(200, b"<html>", Content_Type="text/html"),
        reply(200, b'{"vector'),
        UNAVAILABLE,
        cut_by(ConnectionResetError(104, "reset")),
        GOOD,
    ]
    client = connect(Wire(*script), classify=lambda status, *_: Retry("x", "y") if status == 401 else None)
    ask(client)
    assert client.usage == Usage(calls=2, retries=5)


def test_an_answer_that_breaks_off_is_counted(connect: Connect) -> None:
    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise ConnectionResetError(104, "reset")

    class BreaksOff(Wire):
        def answer(self, data: io.BytesIO, *said: Any) -> urllib3.BaseHTTPResponse:
            return super().answer(Broken() if len(self.requests) == 1 else data, *said)

    client = connect(BreaksOff(GOOD))
    assert isinstance(ask(client), Answer)
    assert client.usage == Usage(calls=2, retries=1)


def test_usage_is_counted_across_threads(connect: Connect) -> None:
    client = connect(Wire(GOOD))
    threads = [threading.Thread(target=lambda: [ask(client) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.usage == Usage(calls=400, retries=0)


def test_requests_carry_what_the_adapter_says_and_nothing_else(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    wire = Wire(reply(200, {}, Set_Cookie="session=1; Path=/"), GOOD)
    client = connect(wire)
    ask(client)
    ask(client)
    for request in wire.requests:
        assert (request.method, request.target) == ("POST", "/embed?v=1")
        assert request.body == b"picture"
        assert request.headers["Api-Key"] == KEY
        assert not {"Authorization", "Cookie"} & set(request.headers)
    assert len(client._session.cookies) == 0


ECHOES = [
    azure_error(422, "Strange", f"The key {KEY} is odd, see https://blob.example.net/a.jpg?sig=hush#x and more."),
    azure_error(422, KEY, "Bad code."),
    azure_error(503, "Busy", f"{KEY} cannot be served, ask http://somebody:hush@proxy.example.net:3128/."),
    azure_error(429, "429", f"Key {KEY} has had enough."),
    reply(302, b"", Location=f"https://x.example.net/{KEY}?sig=hush"),
    ProtocolError(f"https://x.example.net/?sig=hush with {KEY}"),
    requests.exceptions.InvalidURL(f"https://x.example.net/?sig=hush with {KEY}"),
    SSLError(ssl.SSLCertVerificationError(1, f"for {KEY}")),
    reply(422, b"", x_ms_error_code=KEY),
]


@pytest.mark.parametrize("echo", ECHOES)
def test_secrets_stay_secret(connect: Connect, caplog: pytest.LogCaptureFixture, echo: Scripted) -> None:
    caplog.set_level(logging.DEBUG)
    client, texts = connect(Wire(echo), patience=INTERACTIVE), [repr(vars(http))]
    for _ in range(10):
        try:
            error: LookalikeError = ask_and_fail(client)
        except ServiceError as caught:
            error = caught
        texts += [str(error), repr(error), repr(vars(error))]
    texts += [record.getMessage() for record in caplog.records] + [repr(client)]
    for text in texts:
        assert KEY not in text
        assert "hush" not in text


# -- what is in an answer ---------------------------------------------------------------------------------------


def read(*vectors: object, version: object = MODEL.version) -> list[Embedding | ItemError]:
    answer = Answer({}, request_id="r-1")
    rows = [(index, json.loads(json.dumps(vector))) for index, vector in enumerate(vectors)]
    return read_embeddings(MODEL, answer, version=version, rows=rows, count=len(vectors))


def test_vectors_are_put_into_the_order_of_the_inputs() -> None:
    rows = [(2, [2, 0, 0, 1]), (0, [0, 0, 0, 1]), (1, [1, 0, 0, 1])]
    embeddings = read_embeddings(MODEL, Answer({}), version=MODEL.version, rows=rows, count=3)
    assert [embedding.vector[0] for embedding in embeddings if isinstance(embedding, Embedding)] == [0, 1, 2]


def test_a_vector_is_float32_and_as_it_came() -> None:
    (embedding,) = read([0.1, -2.5, 3, 65000.0])
    assert isinstance(embedding, Embedding)
    assert embedding.model is MODEL
    assert embedding.vector.dtype == np.float32
    assert embedding.vector.tolist() == np.array([0.1, -2.5, 3, 65000.0], np.float32).tolist()


@pytest.mark.parametrize(
    ("vector", "code"),
    [
        (None, "no-vector"),
        ([1.0, math.nan, 0.0, 0.0], "not-finite"),
        ([1.0, -math.inf, 0.0, 0.0], "not-finite"),
        ([1.0, None, 0.0, 0.0], "not-finite"),
        ([1.0, 65520.0, 0.0, 0.0], "not-finite"),
        ([1.0, 1e200, 0.0, 0.0], "not-finite"),
        ([1.0, 10**400, 0, 0], "not-finite"),
        ([0, 0.0, -0.0, 0], "zero-vector"),
        ([1e-9, -1e-9, 0, 1e-300], "zero-vector"),
    ],
)
def test_a_damaged_vector_fails_its_input_alone(vector: object, code: str) -> None:
    good, error = read([1, 2, 3, 4], vector)
    assert isinstance(good, Embedding)
    assert isinstance(error, ItemError)
    assert (error.code, error.retryable, error.request_id) == (code, True, "r-1")


@pytest.mark.parametrize(
    ("vector", "version", "message"),
    [
        ([1, 2, 3], MODEL.version, "has 4 dimensions, and a vector of 3"),
        ([1, 2, 3, 4, 5], MODEL.version, "a vector of 5"),
        ([], MODEL.version, "a vector of 0"),
        ("AACAPgAAAL8=", MODEL.version, "no list of numbers"),
        (["1", "2", "3", "4"], MODEL.version, "no list of numbers"),
        ([True, False, True, True], MODEL.version, "no list of numbers"),
        ([[1], [2], [3], [4]], MODEL.version, "no list of numbers"),
        ({"0": 1}, MODEL.version, "no list of numbers"),
        ([1, 2, 3, 4], "2022-04-11", "version '2022-04-11', and 2023-04-15 was asked for"),
        ([1, 2, 3, 4], None, "version None, and 2023-04-15 was asked for"),
        (None, "2022-04-11", "2022-04-11"),
    ],
)
def test_an_answer_that_breaks_the_contract_stops_the_run(vector: object, version: object, message: str) -> None:
    with pytest.raises(ContractBroken, match=message) as caught:
        read([1, 2, 3, 4], vector, version=version)
    assert caught.value.request_id == "r-1"


@pytest.mark.parametrize(
    "indexes", [[0], [0, 1, 2], [0, 0], [1, 2], [0, "1"], [0, None], [False, True], [0, [1]]], ids=repr
)
def test_an_answer_for_other_inputs_stops_the_run(indexes: list[object]) -> None:
    rows = [(index, [1, 2, 3, 4]) for index in indexes]
    with pytest.raises(ContractBroken, match=f"2 vectors were asked for, and {len(rows)} came"):
        read_embeddings(MODEL, Answer({}), version=MODEL.version, rows=rows, count=2)
