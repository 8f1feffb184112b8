"""What passes over an HTTP connection: requests with their whole body in, answers out."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

JSON = "application/json; charset=utf-8"

_MAX_LINE = 65536
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class Malformed(Exception):
    """The body is not framed as HTTP demands, so nobody can tell where the next request begins."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read to its end.

    Attributes:
        path: decoded, without the query.
        query: decoded; of a name that stands there twice, the last value. Names without a value are left out.
        body: None if it is larger than the server takes; then it has been left unread.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, before it is put on the wire.

    Attributes:
        headers: what is sent beside Content-Type, Content-Length and Connection.
        billed: whether the service would charge for it.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    billed: bool = False

    def encode(self, *, close: bool, with_body: bool = True) -> bytes:
        """The bytes to send, in one piece.

        Args:
            close: tell the client that the connection ends here.
            with_body: False for an answer to HEAD, which announces a body that it does not send.
        """
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, '')}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        if close:
            lines.append("Connection: close")
        head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
        return head + self.body if with_body else head


@lru_cache(maxsize=256)
def split_target(target: str) -> tuple[str, Mapping[str, str]]:
    """Path and query of a request's target.

    Raises:
        Malformed: the target is not a URL.
    """
    if target.startswith("/"):
        path, _, query = target.partition("?")
    else:
        # A proxy is sent the whole URL.
        try:
            parts = urlsplit(target)
        except ValueError as error:
            raise Malformed("Bad request target") from error
        path, query = parts.path, parts.query
    return unquote(path), dict(parse_qsl(query))


def framed(headers: Message) -> bool:
    """Whether the headers say how long the body is."""
    return "Content-Length" in headers or "Transfer-Encoding" in headers


def read_body(stream: io.BufferedIOBase, headers: Message, limit: int) -> bytes | None:
    """Read the body that `headers` announce, or nothing where they announce none.

    Returns:
        The body, or None if it has more than `limit` bytes; the rest of it then lies unread in `stream`.

    Raises:
        Malformed: length or chunks cannot be understood.
        ConnectionError: the client went away in the middle.
    """
    coding = headers.get("Transfer-Encoding")
    lengths = headers.get_all("Content-Length", [])
    if coding is not None:
        if lengths:
            raise Malformed("Content-Length beside Transfer-Encoding")
        if coding.strip().lower() != "chunked":
            raise Malformed("Unknown Transfer-Encoding")
        return _read_chunks(stream, limit)
    if not lengths:
        return b""
    length = lengths[0].strip()
    if len(set(lengths)) > 1 or not (length.isascii() and length.isdigit()):
        raise Malformed("Bad Content-Length")
    # Python refuses to convert thousands of digits; whatever has twenty is too long in any case.
    if len(length) >= 20 or int(length) > limit:
        return None
    return _read_exactly(stream, int(length))


def _read_chunks(stream: io.BufferedIOBase, limit: int) -> bytes | None:
    chunks: list[bytes] = []
    room = limit
    while size := _chunk_size(_read_line(stream)):
        if size > room:
            return None
        room -= size
        chunks.append(_read_exactly(stream, size))
        if _read_line(stream):
            raise Malformed("Bad chunk")
    for _ in range(100):
        if not _read_line(stream):
            return b"".join(chunks)
    raise Malformed("Too many trailers")


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    # int() itself would also take signs, underscores and a prefix.
    if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
        raise Malformed("Bad chunk size")
    return int(digits, 16)


def _read_line(stream: io.BufferedIOBase) -> bytes:
    line = stream.readline(_MAX_LINE)
    if not line:
        raise ConnectionAbortedError("the client went away")
    if not line.endswith(b"\n"):
        raise Malformed("Line too long")
    return line.rstrip(b"\r\n")


def _read_exactly(stream: io.BufferedIOBase, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise ConnectionAbortedError("the client went away")
    return data
