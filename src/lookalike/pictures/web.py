"""Fetches what lies behind ``http(s)`` URLs, wherever those come from, without being led where nobody should go.

A URL in somebody's list may point into the network that we stand in, redirect there, or resolve to it; it may answer
for ever, drop by drop, or unpack to a thousand times what it sends. All of that ends in an `ItemError`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import random
import re
import socket
import ssl
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote, urljoin, urlsplit

import requests
import urllib3
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError

from lookalike.errors import ItemError
from lookalike.uris import redacted, without_secrets

_SECONDS = 60.0
_SECONDS_FOR_FILES = 3600.0  # a list of all pictures is larger than any of them
_TIMEOUTS = (10.0, 20.0)  # to connect, and between two pieces of an answer
_REDIRECTS = 5
_TRIES = 3
_LONGEST_WAIT = 30.0
_PIECE = 1 << 16
_CONNECTIONS = 64

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_T = TypeVar("_T")

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = ipaddress.ip_address("168.63.129.16")  # Azure's, the one that is in no private range


@dataclass(frozen=True, slots=True)
class Download:
    """What was read.

    Attributes:
        fingerprint: tells this content from what may lie there later, without reading it; None where nothing does.
    """

    data: bytes
    fingerprint: str | None


class Web:
    """Fetches ``http(s)`` URLs. Safe to use from several threads.

    Only addresses that anybody can reach are spoken to: no private, loopback, link-local, multicast or reserved ones,
    no carrier's (100.64.0.0/10), no cloud's metadata, nor IPv6 addresses that stand for those. A name is resolved once
    for each connection, and the address that was looked at is the one that is connected to, after each redirect again.
    What a proxy (``HTTPS_PROXY``, ``HTTP_PROXY``) connects to is its own affair: there, a name that resolves to such an
    address here is refused, and one that only the proxy can resolve is not.
    """

    def __init__(self, *, allow_hosts: Collection[str] = (), seconds: float = _SECONDS) -> None:
        """Nothing is sent yet.

        Args:
            allow_hosts: names, addresses, or either with ``:port``, that may lie inside.
            seconds: the most that reading one URL may take, with redirects, waits and retries; 20 more where the host
                falls silent in the midst of its answer.
        """
        self._guard = _Guard(allow_hosts)
        self._seconds = seconds
        self._closed = threading.Event()
        # made ready here and only read by the calls, because threads share it
        self._session = _Session()
        self._session.headers.update({"User-Agent": "lookalike", "Accept": "*/*", "Accept-Encoding": "identity"})
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.auth = lambda request: request  # else a ~/.netrc would speak for us
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, _Adapter(self._guard))

    def read(self, url: str, *, most: int, known: str | None = None) -> Download | None:
        """What lies at `url`, or None if that is still what `known`, an earlier fingerprint, stands for.

        Args:
            most: bytes, also after decompression.

        Raises:
            ItemError: codes ``bad-url``, ``forbidden-address``, ``not-found``, ``too-many-bytes``,
                ``too-many-redirects``, ``insecure-redirect``, ``refused-by-host``; and, for another time,
                ``access-refused``, ``too-slow``, ``unreachable`` and again ``refused-by-host``.
        """

        def receive(answer: requests.Response, deadline: float, place: str) -> Download | None:
            fingerprint = _fingerprint(answer.headers)
            if known is not None and (answer.status_code == 304 or same_fingerprint(fingerprint, known)):
                return None
            return Download(b"".join(_body(answer, most, deadline, place)), fingerprint)

        return self._fetched(url, _condition(known), self._seconds, receive)

    def open(self, url: str, *, most: int) -> BinaryIO:
        """What lies at `url`, in a temporary file that vanishes when it is closed; it may take an hour.

        Raises:
            ItemError: as for `read`.
        """

        def receive(answer: requests.Response, deadline: float, place: str) -> BinaryIO:
            with contextlib.ExitStack() as undo:
                file = undo.enter_context(tempfile.TemporaryFile(prefix="lookalike-"))
                for piece in _body(answer, most, deadline, place):
                    file.write(piece)
                file.seek(0)
                undo.pop_all()
            return cast(BinaryIO, file)

        return self._fetched(url, {}, max(self._seconds, _SECONDS_FOR_FILES), receive)

    def close(self) -> None:
        """Close connections, and end waits."""
        self._closed.set()
        self._session.close()

    def _fetched(
        self,
        url: str,
        headers: Mapping[str, str],
        seconds: float,
        receive: Callable[[requests.Response, float, str], _T],
    ) -> _T:
        """What `receive` makes of the answer; what may pass is tried again."""
        place, deadline = without_secrets(url), time.monotonic() + seconds
        for attempt in range(1, _TRIES + 1):
            try:
                return self._once(url, headers, deadline, receive)
            except _Again as again:
                failed = ItemError(again.code, f"{place}: {again.reason}.", retryable=True)
                wait = again.wait if again.wait is not None else 0.4 * 2**attempt * random.uniform(0.5, 1)
            except ItemError:
                raise
            except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
                verdict = _trouble(error, place, late=time.monotonic() >= deadline)
                if isinstance(verdict, ItemError):
                    raise verdict from None
                failed = ItemError(verdict.code, f"{place}: {verdict.reason}.", retryable=True)
                wait = 0.4 * 2**attempt * random.uniform(0.5, 1)
            if attempt == _TRIES or wait > _LONGEST_WAIT or time.monotonic() + wait >= deadline:
                break
            if self._closed.wait(wait):
                break
        raise failed from None

    def _once(
        self,
        url: str,
        headers: Mapping[str, str],
        deadline: float,
        receive: Callable[[requests.Response, float, str], _T],
    ) -> _T:
        place = without_secrets(url)
        url, credentials = _split_credentials(url)
        for _ in range(_REDIRECTS + 1):
            self._check(url, place)
            left = max(deadline - time.monotonic(), 0.1)
            self._guard.turn.deadline = deadline
            with self._session.get(
                url,
                headers=headers,
                auth=credentials,
                stream=True,
                allow_redirects=False,
                timeout=(min(_TIMEOUTS[0], left), min(_TIMEOUTS[1], left)),
            ) as answer:
                location = answer.headers.get("Location")
                if answer.status_code not in (301, 302, 303, 307, 308) or not location:
                    if answer.status_code not in (200, 203) and not (answer.status_code == 304 and headers):
                        raise _refusal(answer, place)
                    return receive(answer, deadline, place)
            # header fields are bytes, which travel as latin-1 and are mostly meant as UTF-8
            with contextlib.suppress(UnicodeError):
                location = location.encode("latin-1").decode()
            target, _ = _split_credentials(urljoin(url, location))
            here, there = urlsplit(url), urlsplit(target)
            if there.scheme not in ("http", "https"):
                raise ItemError("bad-url", f"{place} leads to {without_secrets(target)}, which is not on the web.")
            if (here.scheme, there.scheme) == ("https", "http"):
                raise ItemError(
                    "insecure-redirect", f"{place} leads from https to {without_secrets(target)}, unencrypted."
                )
            if (here.scheme, here.netloc.lower()) != (there.scheme, there.netloc.lower()):
                credentials = None
            url = target
        raise ItemError(
            "too-many-redirects", f"{place} leads from one place to the next, more than {_REDIRECTS} times."
        )

    def _check(self, url: str, place: str) -> None:
        """Refuse what is no address on the web, and what a proxy should not be sent to."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\x00-\x1f\x7f]", url):
            raise ItemError("bad-url", f"{place} is no address on the web.")
        if requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)):
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            with contextlib.suppress(socket.gaierror):
                self._guard.addresses(parts.hostname, port, all_of_them=True)


class _Again(Exception):
    """The same URL may answer later.

    Attributes:
        wait: seconds that the host asked for, if it did.
    """

    def __init__(self, code: str, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.code, self.reason, self.wait = code, reason, wait


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: requests would read the whole body of a redirect, however long it is."""


class _Guard:
    """What connections ask: which addresses they may speak to, and until when."""

    def __init__(self, allow_hosts: Collection[str]) -> None:
        self._allowed = frozenset(_host_and_port(entry) for entry in allow_hosts if entry.strip())
        self.turn = threading.local()

    def addresses(self, host: str, port: int, *, all_of_them: bool = False) -> list[str]:
        """The addresses of `host` that may be connected to.

        Raises:
            ItemError: there is none; or, with `all_of_them`, one may not.
            socket.gaierror: the name does not resolve.
        """
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        permitted = [address for address in dict.fromkeys(found) if self._permits(host, port, address)]
        if not permitted or (all_of_them and len(permitted) < len(set(found))):
            inside = next(address for address in found if address not in permitted)
            raise ItemError(
                "forbidden-address",
                f"{host} is {inside}, an address inside a network, where a URL could reach what is not meant for it. "
                f"If it is meant: --allow-host {host}",
            )
        return permitted

    def _permits(self, host: str, port: int, address: str) -> bool:
        ip = ipaddress.ip_address(address)
        names = {_canonical(host), str(ip), str(_embedded(ip) or ip)}
        if any((name, each) in self._allowed for name in names for each in (None, port)):
            return True
        return _is_public(ip)

    def seconds_left(self) -> float:
        """Until the call that this thread makes must end."""
        return float(max(getattr(self.turn, "deadline", time.monotonic() + _SECONDS) - time.monotonic(), 0.0))


class _Adapter(requests.adapters.HTTPAdapter):
    """Connects through the guard."""

    def __init__(self, guard: _Guard) -> None:
        self._pools = _guarded_pools(guard)
        super().__init__(pool_maxsize=_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As its own, with our connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """As its own, with our connections, except to proxies that speak SOCKS."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if isinstance(manager, urllib3.ProxyManager) and not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager


def _guarded_pools(guard: _Guard) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    class Guarded(HTTPConnection):
        """Looks at the address that it connects to, and is cut when time is up, whatever it waits for."""

        def _new_conn(self) -> socket.socket:
            if self.proxy is not None:
                return super()._new_conn()
            try:
                addresses = guard.addresses(self._dns_host, self.port)
            except socket.gaierror as error:
                raise NameResolutionError(self.host, self, error) from error
            failed: OSError = TimeoutError("timed out")
            for address in addresses:
                try:
                    return urllib3.util.connection.create_connection(
                        (address, self.port), self.timeout, self.source_address, self.socket_options
                    )
                except OSError as error:
                    failed = error
                if not guard.seconds_left():
                    break
            raise NewConnectionError(self, str(failed)) from failed

        def connect(self) -> None:
            with self._until_time_is_up():
                super().connect()

        def getresponse(self) -> Any:
            with self._until_time_is_up():
                return super().getresponse()

        @contextlib.contextmanager
        def _until_time_is_up(self) -> Iterator[None]:
            was_cut = threading.Event()

            def cut() -> None:
                was_cut.set()
                with contextlib.suppress(OSError, AttributeError):
                    self.sock.shutdown(socket.SHUT_RDWR)

            timer = threading.Timer(guard.seconds_left(), cut)
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
            if was_cut.is_set():  # http.client takes half a header for the end of it
                raise TimeoutError("time is up")

    class GuardedTLS(Guarded, HTTPSConnection):
        pass

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Guarded

    class PoolTLS(urllib3.HTTPSConnectionPool):
        ConnectionCls = GuardedTLS

    return {"http": Pool, "https": PoolTLS}


def same_fingerprint(fingerprint: str | None, known: str | None) -> bool:
    """Whether two fingerprints stand for the same content; ETags come with quotes or without."""
    return fingerprint is not None and known is not None and fingerprint.replace('"', "") == known.replace('"', "")


def inflated(pieces: Iterator[bytes], encoding: str, most: int) -> Iterator[bytes]:
    """Undo a ``Content-Encoding``, ``gzip`` or ``deflate``, giving no more than `most` + 1 bytes.

    Raises:
        ItemError: another encoding, or not what was announced; ``refused-by-host``.
    """
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ItemError(
            "refused-by-host", f"The answer is encoded as {redacted(encoding)[:40]!r}, which was not asked for."
        )
    given, unpack = 0, zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        for piece in pieces:
            while piece and given <= most:
                if unpack.eof:  # gzip may hold several members
                    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
                out = unpack.decompress(piece, min(most + 1 - given, _PIECE))
                given += len(out)
                yield out
                piece = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
    except zlib.error:
        raise ItemError("refused-by-host", "The answer is not encoded as it says.", retryable=True) from None
    if given <= most and not unpack.eof:
        raise ItemError("unreachable", "The answer broke off.", retryable=True)


def _body(answer: requests.Response, most: int, deadline: float, place: str) -> Iterator[bytes]:
    """The pieces of an answer's body, unpacked, while there is time and they are not too many."""
    too_many = ItemError("too-many-bytes", f"{place} holds more than {most:,} bytes.")
    length = answer.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > most:
        raise too_many

    def received() -> Iterator[bytes]:
        count = 0
        # one piece as it comes: else a drip would keep us for as long as it likes
        while piece := answer.raw.read1(_PIECE, decode_content=False):
            count += len(piece)
            if count > most:
                raise too_many
            if time.monotonic() >= deadline:
                raise ItemError("too-slow", f"{place} takes too long.", retryable=True)
            yield piece
        if length.isdecimal() and count < int(length):
            raise ConnectionResetError("the answer broke off")

    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    given = 0
    for piece in received() if encoding in ("", "identity") else inflated(received(), encoding, most):
        given += len(piece)
        if given > most:
            raise too_many
        yield piece


def _refusal(answer: requests.Response, place: str) -> Exception:
    """What a status means that is no success."""
    status = answer.status_code
    reason = "".join(letter for letter in redacted(answer.reason or "")[:80] if letter.isprintable())
    said = f"{status} {reason}".strip()
    if status in (404, 410):
        return ItemError("not-found", f"{place} is not there ({said}).")
    if status in (401, 403):
        return ItemError(
            "access-refused",
            f"{place} may not be read by us ({said}): a signature that ran out, or credentials that are missing.",
            retryable=True,
        )
    if status == 407:
        return ItemError(
            "unreachable", "The proxy that HTTPS_PROXY or HTTP_PROXY names wants a password.", retryable=True
        )
    if status in (408, 425, 429) or status >= 500:
        return _Again("refused-by-host", f"the host answers {said}", _retry_after(answer.headers))
    return ItemError("refused-by-host", f"{place} is refused by its host ({said}).")


def _trouble(error: Exception, place: str, *, late: bool) -> ItemError | _Again:
    """What it means that no answer came, or not the whole of one."""
    causes = _causes(error)
    if late:
        return ItemError("too-slow", f"{place} takes too long.", retryable=True)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return ItemError("unreachable", f"{place}: the host cannot prove who it is.", retryable=True)
    resolving = next((cause for cause in causes if isinstance(cause, socket.gaierror)), None)
    if resolving is not None:
        if resolving.errno == socket.EAI_AGAIN:
            return _Again("unreachable", "the name does not resolve")
        return ItemError("unreachable", f"{place}: the name does not resolve.", retryable=True)
    if isinstance(error, ValueError) and not isinstance(error, urllib3.exceptions.ProtocolError):
        return ItemError("bad-url", f"{place} is no address on the web.")
    proxy = "through the proxy, " if isinstance(error, requests.exceptions.ProxyError) else ""
    for kinds, code, reason in _TROUBLES:
        if any(isinstance(cause, kinds) for cause in causes):
            return _Again(code, proxy + reason)
    return _Again("unreachable", proxy + f"it cannot be reached ({type(causes[-1]).__name__})")


_TROUBLES: tuple[tuple[tuple[type[BaseException], ...], str, str], ...] = (
    ((ConnectionRefusedError,), "unreachable", "the connection was refused"),
    ((requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError), "unreachable", "no connection in time"),
    ((TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError), "too-slow", "no answer in time"),
    ((ssl.SSLError,), "unreachable", "no encrypted connection came about"),
    ((ConnectionError, urllib3.exceptions.ProtocolError), "unreachable", "the connection was cut"),
)


def _causes(error: BaseException) -> list[BaseException]:
    """An exception and whatever lies beneath it, the deepest last; urllib3 hides some in arguments."""
    found = [error]
    for each in found:
        beneath = (each.__cause__, each.__context__, getattr(each, "reason", None), *each.args)
        found += [one for one in beneath if isinstance(one, BaseException) and one not in found]
    return found


def _fingerprint(headers: Mapping[str, str]) -> str | None:
    if headers.get("ETag"):
        return f"etag:{headers['ETag']}"
    return f"modified:{headers['Last-Modified']}" if headers.get("Last-Modified") else None


def _condition(known: str | None) -> dict[str, str]:
    """The header that asks for nothing where `known` still stands for what is there."""
    kind, _, value = (known or "").partition(":")
    if not value.isascii() or not value.isprintable():
        return {}
    if kind == "etag":
        return {"If-None-Match": value if value.endswith('"') else f'"{value}"'}
    return {"If-Modified-Since": value} if kind == "modified" else {}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, given as such or as a date."""
    header = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", header):
        return float(header)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max((parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds(), 0.0)
    return None


def _split_credentials(url: str) -> tuple[str, AuthBase | None]:
    """A URL without fragment, user and password, and the latter as what sends them."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    plain = parts._replace(netloc=host, fragment="").geturl()
    if not at:
        return plain, None
    name, _, password = user.partition(":")
    return plain, HTTPBasicAuth(unquote(name).encode(), unquote(password).encode())


def _host_and_port(entry: str) -> tuple[str, int | None]:
    """An entry of the list of what is allowed: a name or an address, or either with its port; a URL will do."""
    text = entry.strip()
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text.strip("[]"))), None
    with contextlib.suppress(ValueError):
        parts = urlsplit(text if "://" in text else f"//{text}")
        if parts.hostname:
            return _canonical(parts.hostname), parts.port
    return _canonical(text), None


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return host.rstrip(".").lower()


def _embedded(ip: _Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def _is_public(ip: _Address) -> bool:
    if (inner := _embedded(ip)) is not None:
        return _is_public(inner)
    if ip.is_multicast or ip.is_reserved or ip == _METADATA:
        return False
    return ip.is_global and not (isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local)
