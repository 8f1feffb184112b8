"""How every embedding service is called: pace, patience and suspicion, written once.

An adapter only knows its wire format. It makes one `Client` with a function that tells what its service's refusals
mean, posts, and has what comes back checked::

    answer = client.post("/path", headers={"Api-Key": key}, body=picture)
    if isinstance(answer, ItemError):
        return answer
    version, vector = answer.document.get("modelVersion"), answer.document.get("vector")
    return read_embeddings(model, answer, version=version, rows=[(0, vector)], count=1)[0]
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from types import NoneType
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import numpy as np
import orjson
import requests
import urllib3

from lookalike.embedders.terms import Budget, Ledger, Patience
from lookalike.errors import (
    ContractBroken,
    CredentialsRefused,
    Interrupted,
    ItemError,
    ServiceError,
)
from lookalike.types import Embedding, Model, Usage

CONNECTIONS = 64
"""How many connections a client keeps open: the most calls under way at once that make sense."""

_log = logging.getLogger("lookalike.embedders")

_NUMBERS = {int, float, NoneType}
_IN_A_ROW = 10  # equal failures without a success in between are the fault of no input
_ROUNDING = 0.001
_RESERVED_SECONDS = 0.2
_STALE_SECONDS = 0.3  # with what the ledger saves up, less than the second's worth that services do
_REQUEST_IDS = ("apim-request-id", "x-request-id", "x-ms-request-id")
_SECONDS = re.compile(r"\b(?:retry|again) (?:after|in) (\d+(?:\.\d+)?) ?s(?:ec(?:ond)?s?)?\b", re.IGNORECASE)
_QUERY = re.compile(r"(https?://[^\s?#'\"<>]*)[?#][^\s'\"<>]*")
_USERINFO = re.compile(r"(https?://)[^\s/@'\"<>]*@")


@dataclass(frozen=True, slots=True)
class Retry:
    """The same call may succeed later.

    Attributes:
        code: of the `ItemError` that it becomes when patience ends.
        reason: what happened, in words.
        throttled: the service wants fewer calls: all calls wait, and this one does not count as tried.
        wait: seconds to wait; None for what header or message ask for, else a backoff.
        otherwise: what it means when the same call meets it once more; None for what it meant before.
    """

    code: str
    reason: str
    throttled: bool = False
    wait: float | None = None
    otherwise: ServiceError | None = None


Verdict: TypeAlias = ItemError | Retry | ServiceError
"""What a refusal means: fail this input, retry the call, or stop the run. An error is made anew for each refusal."""

Classify: TypeAlias = Callable[[int, tuple[str, ...], str, Mapping[str, str]], Verdict | None]
"""From status, error codes (outermost first), message (without secrets) and headers to a verdict. None leaves it to
what the status usually means: a 4xx that nobody knows fails the input, but ten alike in a row stop the run."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object that came with status 200; nobody has looked at what is in it."""

    document: Mapping[str, Any]
    request_id: str | None = None


_BUNDLE = "REQUESTS_CA_BUNDLE names the file of certificates to trust, for example those of your network's proxy."
_PROXY = "the proxy that HTTPS_PROXY or HTTP_PROXY names"
_PROXY_REFUSED = f"A password is wanted by {_PROXY}; it reads http://user:password@host:port."
_TROUBLES: tuple[tuple[tuple[type[BaseException], ...], str, str], ...] = (
    ((socket.gaierror,), "connection", "the name does not resolve"),
    ((ConnectionRefusedError,), "connection", "the connection was refused"),
    ((TimeoutError, urllib3.exceptions.TimeoutError), "timeout", "no answer in time"),
    ((ConnectionError, urllib3.exceptions.ProtocolError), "connection", "the connection was cut"),
)


def _now() -> float:
    return time.monotonic()


def _sleep(seconds: float, stop: threading.Event | None) -> None:
    if stop is None:
        if seconds > 0.0:  # the system takes its time even over a sleep of no time
            time.sleep(seconds)
    elif stop.is_set() or (seconds > 0.0 and stop.wait(seconds)):
        raise Interrupted("Stopped while waiting for the embedding service.")


class TokenBucket:
    """The pace of all calls under one credential: in the order in which they ask, from whatever thread.

    Turns lie at even distances; those that nobody took within the last second may be taken at once. They are kept on a
    clock that stands still during a pause, so that a pause costs nobody their place. With a ledger, turns come from
    there, a fifth of a second's worth at a time; where it cannot tell, they are this process's own.
    """

    def __init__(self, credential: str = "") -> None:
        self._credential = credential
        self._lock = threading.Lock()
        self._next = self._paused_until = float("-inf")
        self._stood_still = 0.0
        self._reserved: tuple[float, int] = (0.0, 0)

    def wait_for_turn(
        self, rate: float, deadline: float, stop: threading.Event | None = None, ledger: Ledger | None = None
    ) -> bool:
        """Wait for the next free turn. False, at once, if it comes after `deadline` (on ``time.monotonic``).

        Args:
            rate: the most calls a second that this caller wants.

        Raises:
            Interrupted: `stop` was set.
        """
        with self._lock:
            now = max(_now(), self._paused_until) - self._stood_still
            turn = self._shared_turn(rate, ledger) if ledger is not None else None
            if turn is None:
                turn = max(self._next, now - (max(rate, 1.0) - 1.0) / rate)
            if turn + self._stood_still > deadline + _ROUNDING:
                return False
            self._next = turn + 1.0 / rate
        while (due := turn + self._stood_still) <= deadline + _ROUNDING:  # a pause may have moved it meanwhile
            wait = due - _now()
            _sleep(max(wait, 0.0), stop)
            if wait <= 0.0:
                return True
        return False

    def _shared_turn(self, rate: float, ledger: Ledger) -> float | None:
        now = _now() - self._stood_still
        turn, left = self._reserved
        if not left or turn < now - _STALE_SECONDS:
            left = max(1, int(rate * _RESERVED_SECONDS))
            wait = ledger.reserve(self._credential, rate, left)
            if wait is None:
                self._reserved = (0.0, 0)
                return None
            turn = _now() - self._stood_still + wait
        self._reserved = (turn + 1.0 / rate, left - 1)
        return turn

    def pause(self, until: float, ledger: Ledger | None = None) -> None:
        """Let nobody through before `until` (on ``time.monotonic``), and forget the turns that nobody took."""
        if ledger is not None:
            ledger.pause(self._credential, max(until - _now(), 0.0))
        with self._lock:
            now = max(_now(), self._paused_until)
            self._next = max(self._next, now - self._stood_still)
            self._stood_still += max(until - now, 0.0)
            self._paused_until = max(until, now)


_buckets: dict[str, TokenBucket] = {}
"""This process's bucket of each credential. They outlive the embedders that use them, as the service's own do."""


@dataclass(frozen=True, slots=True, repr=False)  # as it holds the key
class _Route:
    """A request made ready for all calls that differ in nothing but the body.

    Attributes:
        call: its method, path, parameters and headers.
        pool: the connections on which the server is reached, by whatever proxy, with the certificates to trust.
        target: what the server, or the proxy, is asked for.
    """

    call: tuple[object, ...]
    pool: urllib3.HTTPConnectionPool
    target: str
    headers: Mapping[str, str]


class Client:
    """Calls one service under one credential. Safe to use from several threads."""

    def __init__(
        self,
        service: str,
        endpoint: str,
        key: str,
        classify: Classify,
        *,
        rate: float,
        patience: Patience,
        stop: threading.Event | None = None,
        ledger: Ledger | None = None,
        budget: Budget | None = None,
        account: str | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            service: its name, for messages.
            endpoint: base URL, without a slash at its end.
            key: the credential: shares its bucket with others of this process, and is kept out of messages. Where it
                changes by itself, a name for it; `hide` what it is at the time.
            rate: calls a second.
            ledger: shares the turns of the credential with other processes.
            budget: what may be spent at all.
            account: what the service's rate is for, where that is not the key.
        """
        self._service, self._endpoint, self._classify = service, endpoint, classify
        self._hidden: tuple[str, ...] = (key,)
        self._rate, self._patience, self._stop = rate, patience, stop
        self._ledger, self._budget = ledger, budget
        self._name = f"{service} at {urlsplit(endpoint).netloc}"
        credential = hashlib.sha256(f"{endpoint}\n{account or key}".encode()).hexdigest()
        self._bucket = _buckets.setdefault(credential, TokenBucket(credential))
        self._lock = threading.Lock()
        self._usage = Usage()
        self._row: tuple[object, int] = (None, 0)
        self._route: _Route | None = None
        # The session is made ready here and only asked for routes, because threads share it.
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "lookalike"
        self._session.auth = lambda request: request  # else a ~/.netrc would overwrite an Authorization header
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS))

    @property
    def usage(self) -> Usage:
        """What has been spent so far."""
        return self._usage

    def hide(self, secret: str) -> None:
        """Keep `secret` out of messages, besides the key and the secret hidden before."""
        if secret not in self._hidden:
            self._hidden = (*self._hidden[:1], *self._hidden[1:][-1:], secret)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def post(
        self, path: str, *, headers: Mapping[str, str], body: bytes, params: Mapping[str, str] | None = None
    ) -> Answer | ItemError:
        """Call until there is an answer, the input proves to be at fault or patience ends.

        Returns:
            The answer, or why there is none. Codes are the adapter's, ``too-many-bytes`` (413) and ``refused`` (other
            4xx); and where a later run may succeed, ``timeout``, ``connection``, ``service-unavailable``,
            ``unreadable-answer`` and ``rate-limited``.

        Raises:
            ServiceError: no further call can succeed, `stop` was set (`Interrupted`) or the budget is spent
                (`BudgetSpent`).
        """
        return self._persist(partial(self._send, "POST", path, params or {}, headers, body))

    def get(
        self, path: str, *, headers: Mapping[str, str], params: Mapping[str, str] | None = None
    ) -> Answer | ItemError:
        """Ask for what is not billed; in all else as `post`.

        Raises:
            ServiceError: as `post`.
        """
        return self._persist(partial(self._send, "GET", path, params or {}, headers), billable=False)

    def _persist(self, send: Callable[..., urllib3.BaseHTTPResponse], *, billable: bool = True) -> Answer | ItemError:
        began = _now()
        deadline = began + self._patience.deadline
        last, request_id = Retry("rate-limited", f"all of its {self._rate:g} calls a second are spoken for"), None
        failed: list[float] = []
        attempts = throttles = 0
        while self._bucket.wait_for_turn(self._rate, deadline, self._stop, self._ledger):
            sent = _now()
            self._count(retries=int(attempts > 0))
            attempts += 1
            verdict, request_id = self._once(send, max(deadline - sent, 1.0), billable)
            match verdict:
                case Answer():
                    self._row = (None, 0)
                    return verdict
                case ItemError():
                    verdict.request_id = request_id
                    return verdict
                case ServiceError():
                    verdict.request_id = request_id
                    raise verdict
                case Retry(otherwise=ServiceError() as meant) if last.otherwise is not None:
                    meant.request_id = request_id
                    raise meant
            last, now = verdict, _now()
            if last.throttled:
                throttles += 1
            else:
                failed.append(sent)
            enough = len(failed) >= self._patience.tries and now - failed[0] >= self._patience.duration
            if now >= deadline or (enough and not last.throttled):
                break
            wait = _wait(last, throttles if last.throttled else len(failed), self._patience.longest_wait)
            until = min(now + wait, deadline)
            level = logging.INFO if wait >= 5 else logging.DEBUG
            _log.log(level, "%s: %s; again in %.1f s", self._name, last.reason, until - now)
            if last.throttled:
                self._bucket.pause(until, self._ledger)
            else:
                _sleep(until - now, self._stop)
        given_up = f"{self._name}: {last.reason} ({attempts} tries in {_now() - began:.0f} s)."
        if attempts and self._tenth_in_a_row("given up"):
            raise ServiceError(f"The service cannot be reached: {_IN_A_ROW} inputs in a row were given up. {given_up}")
        return ItemError(last.code, given_up, retryable=True, request_id=request_id)

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        timeout: urllib3.Timeout,
    ) -> urllib3.BaseHTTPResponse:
        """Send one request; what comes back has not been read yet, so that an answer that breaks off is counted, too.

        Redirects are not followed: the key is for nobody else. Cookies are not looked for.
        """
        call = (method, path, *params.items(), *headers.items())
        route = self._route
        if route is None or route.call != call:
            request = requests.Request(method, self._endpoint + path, params=params, headers=headers)
            route = self._route = self._route_of(call, request)
        return route.pool.urlopen(
            method,
            route.target,
            body,
            route.headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=timeout,
            preload_content=False,
        )

    def _route_of(self, call: tuple[object, ...], request: requests.Request) -> _Route:
        """What `requests` would find out anew for each call."""
        prepared = self._session.prepare_request(request)
        url = prepared.url or ""
        found = self._session.merge_environment_settings(url, {}, True, None, None)
        proxies, verify, cert = found["proxies"], found["verify"], found["cert"]
        adapter = self._session.get_adapter(url)
        assert isinstance(adapter, requests.adapters.HTTPAdapter)
        pool: Any = adapter.get_connection_with_tls_context(prepared, verify, proxies, cert)
        adapter.cert_verify(pool, url, verify, cert)  # type: ignore[no-untyped-call]
        prepared.headers.pop("Content-Length", None)  # of no body, which there is not yet
        return _Route(call, pool, adapter.request_url(prepared, proxies), dict(prepared.headers))

    def _once(
        self, send: Callable[..., urllib3.BaseHTTPResponse], seconds: float, billable: bool
    ) -> tuple[Answer | Verdict, str | None]:
        """One try: what came of it, and the service's own name for it."""
        request_id, billed, refused, document = None, False, False, None
        if self._budget is not None and billable:
            self._budget.take(self._stop)
        patience = self._patience
        timeout = urllib3.Timeout(
            connect=min(patience.connect_timeout, seconds), read=min(patience.read_timeout, seconds)
        )
        try:
            with send(timeout=timeout) as response:
                status, headers = response.status, response.headers
                request_id = next((headers[name] for name in _REQUEST_IDS if name in headers), None)
                is_json = "json" in headers.get("Content-Type", "").lower()
                billed = billable and status == 200 and is_json
                content = response.read()
            document = _document(content)
            if isinstance(document, dict):
                request_id = request_id or str(document.get("request_id") or "")[:100] or None
                refused = bool(document.get("code") or document.get("error"))  # whatever the status says
                billed = billed and not refused
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            return self._trouble(error), request_id
        finally:
            self._count(calls=int(billed))
            if self._budget is not None and billable:
                self._budget.settle(billed=billed)
        if status == 200 and is_json and isinstance(document, dict) and not refused:
            self._count(tokens=_tokens(document))
            return Answer(document, request_id), request_id
        if status == 200 and not refused:
            return Retry("unreadable-answer", "it answered with something other than JSON"), request_id
        found, said = _error_in(document)
        codes = tuple(map(self._plain, found or [headers.get("x-ms-error-code", str(status))]))
        message = self._plain(said or response.reason or "no reason given")
        verdict = self._classify(status, codes, message, headers) or self._usual(status, codes, message, headers)
        if isinstance(verdict, Retry) and verdict.wait is None:
            verdict = replace(verdict, wait=_wait_asked_for(headers, message))
        return verdict, request_id

    def _usual(self, status: int, codes: tuple[str, ...], message: str, headers: Mapping[str, str]) -> Verdict:
        """What a status means where the adapter has nothing to say."""
        answered = f"answered {' '.join(dict.fromkeys((str(status), *codes)))}: {message.rstrip('.')}"
        if status in (408, 429) or status >= 500:
            code = {408: "timeout", 429: "rate-limited"}.get(status, "service-unavailable")
            return Retry(code, f"it {answered}", throttled=status == 429)
        if status == 407:
            return CredentialsRefused(_PROXY_REFUSED)
        if status == 413:
            return ItemError("too-many-bytes", f"{self._name} {answered}.")
        if status >= 400 or status == 200:
            if self._tenth_in_a_row((status, codes)):
                return ContractBroken(
                    f"{self._name} {answered} – {_IN_A_ROW} times in a row, so it is no input's fault."
                )
            return ItemError("refused", f"{self._name} {answered}.")
        if status >= 300:
            answered += f", pointing to {self._plain(headers.get('Location', 'nowhere'))}, where the key must not go"
        return ContractBroken(f"{self._name} {answered}.")

    def _trouble(self, error: Exception) -> Retry | ServiceError:
        """What it means that no answer came, or not the whole of one."""
        causes = _causes(error)
        root = self._plain(causes[-1])
        proxy = f"{_PROXY}: " if isinstance(error, urllib3.exceptions.ProxyError) else ""
        if proxy and " 407 " in root:
            return CredentialsRefused(_PROXY_REFUSED)
        if isinstance(error, ValueError):  # all that requests says of malformed URLs, headers and proxies
            return ServiceError(f"{self._name} cannot be called: {root}")
        if any(isinstance(c, ssl.SSLCertVerificationError) or getattr(c, "library", "") == "X509" for c in causes):
            return ServiceError(f"{self._name} cannot prove who it is: {root}. {_BUNDLE}")
        for kinds, code, reason in _TROUBLES:
            if any(isinstance(cause, kinds) for cause in causes):
                return Retry(code, proxy + reason)
        if not isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
            return ServiceError(f"{root}. {_BUNDLE}")  # what requests says of a bundle that is not there
        return Retry("connection", proxy + root)

    def _tenth_in_a_row(self, kind: object) -> bool:
        with self._lock:
            before, number = self._row
            self._row = (kind, number + 1 if before == kind else 1)
            return self._row[1] >= _IN_A_ROW

    def _count(self, calls: int = 0, retries: int = 0, tokens: int = 0) -> None:
        with self._lock:
            spent = self._usage
            self._usage = Usage(spent.calls + calls, spent.retries + retries, spent.tokens + tokens)

    def _plain(self, text: object) -> str:
        """Somebody else's words on one line, without the key and without the secrets that URLs may hold."""
        said = str(text)
        for secret in filter(None, self._hidden):
            said = said.replace(secret, "…")
        said = _USERINFO.sub(r"\1…@", _QUERY.sub(r"\1?…", said[:2000]))
        return " ".join("".join(letter if letter.isprintable() else " " for letter in said).split())[:300]


def read_embeddings(
    model: Model, answer: Answer, *, version: object, rows: Sequence[tuple[object, object]], count: int
) -> list[Embedding | ItemError]:
    """Check the vectors of an answer and bring them into the order of the inputs.

    Args:
        version: of the model, as the answer names it.
        rows: for each vector the number of its input, from 0, and its JSON.
        count: how many inputs there were.

    Returns:
        For each input its embedding, or an `ItemError` for a later run to try again: ``no-vector``, ``not-finite`` or
        ``zero-vector``, the last two also where only rounding to half precision makes it so.

    Raises:
        ContractBroken: another model answered, or not one vector for each input, of the declared length.
    """
    problem = None
    vectors = {number: vector for number, vector in rows if type(number) is int}
    if version != model.version:
        problem = f"it comes from model version {repr(version)[:40]}, and {model.version} was asked for"
    elif len(rows) != count or vectors.keys() != set(range(count)):
        problem = f"{count} vectors were asked for, and {len(rows)} came, or of other inputs"
    for vector in vectors.values():
        if vector is None or problem:
            continue
        if not isinstance(vector, list) or not set(map(type, vector)) <= _NUMBERS:
            problem = "a vector is no list of numbers"
        elif len(vector) != model.dimensions:
            problem = f"the model has {model.dimensions} dimensions, and a vector of {len(vector)} came"
    if problem:
        raise ContractBroken(f"The answer for {model} cannot be used: {problem}.", request_id=answer.request_id)
    return [_embedding(model, vectors[number], answer.request_id) for number in range(count)]


def _embedding(model: Model, numbers: Any, request_id: str | None) -> Embedding | ItemError:
    try:
        with np.errstate(all="ignore"):
            vector = np.array(numbers, np.float64).astype(np.float32)  # a null becomes NaN: some mean that by it
            stored = vector.astype(np.float16)
    except OverflowError:  # an integer of hundreds of digits
        stored = np.array(np.inf)
    if numbers is None:
        code, damage = "no-vector", "holds no vector"
    elif not np.isfinite(stored).all():
        code, damage = "not-finite", "holds a number that is not finite, at least in half precision"
    elif not stored.any():
        code, damage = "zero-vector", "holds only zeros, at least in half precision"
    else:
        return Embedding(model, vector)
    return ItemError(code, f"The answer of {model} {damage}.", retryable=True, request_id=request_id)


def _document(content: bytes) -> object:
    """What JSON says, None where it is none."""
    with suppress(ValueError):
        return orjson.loads(content)
    with suppress(ValueError, RecursionError):
        # which takes NaN, too
        return json.loads(content)
    return None


def _tokens(document: Mapping[str, Any]) -> int:
    """Tokens that an answer says were used, 0 where it does not say."""
    usage = document.get("usage")
    if not isinstance(usage, dict):
        return 0
    numbers = {name: number for name, number in usage.items() if type(number) is int and number >= 0}
    parts = numbers.get("prompt_tokens", 0) or numbers.get("input_tokens", 0) + numbers.get("image_tokens", 0)
    return numbers.get("total_tokens", parts)


def _error_in(document: object) -> tuple[list[str], str]:
    """Codes, outermost first, and message of an error body: nested as Azure's, flat as a gateway's, a bare string.
    Where it says which part of the request it means, the message begins with that: ``body.dimensions: …``."""
    codes: list[str] = []
    message, place, nodes = "", "", [document]
    for node in nodes:
        if isinstance(node, str):
            message = message or node
        elif isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            codes += [str(node["code"])] if node.get("code") else []
            message = message or str(node.get("message") or node.get("msg") or "")
            if not place and isinstance(node.get("loc"), list):
                place = ".".join(map(str, node["loc"]))
            nodes += [node[key] for key in ("error", "innererror", "detail", "details") if key in node]
    return codes, f"{place}: {message}" if place else message


def _wait_asked_for(headers: Mapping[str, str], message: str) -> float | None:
    """Seconds to wait by ``Retry-After`` (seconds or a date), else by the message; None if neither says."""
    header, match = headers.get("Retry-After", ""), _SECONDS.search(message)
    wait = float(header) if re.fullmatch(r"\d+(\.\d+)?", header) else 0.0
    with suppress(ValueError, TypeError, OverflowError):
        wait = wait or (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
    return wait if wait > 0 else float(match[1]) if match else None


def _wait(retry: Retry, times: int, longest: float) -> float:
    """Seconds until the next try, not the same for all, so that those who failed together do not return together."""
    if retry.wait:
        return retry.wait + random.uniform(0, min(retry.wait / 4, 2))
    ceiling = min(2.0 ** min(times - 1, 30), longest)
    return ceiling * random.uniform(1, 1.25) if retry.throttled else random.uniform(0, ceiling)


def _causes(error: BaseException) -> list[BaseException]:
    """An exception and whatever lies beneath it, the deepest last; urllib3 hides some in arguments."""
    found = [error]
    for each in found:
        beneath = (each.__cause__, each.__context__, *each.args)
        found += [one for one in beneath if isinstance(one, BaseException) and one not in found]
    return found
