"""A server that answers from a script, and remembers what it was asked."""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Reply:
    """What to answer: `body` as JSON unless it is bytes. Or what to do instead."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    instead: str | None = None


@dataclass
class Call:
    """What arrived."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)


class Scripted(ThreadingHTTPServer):
    """Answers calls from a script, whose last line is repeated for ever, and remembers them."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *script: Reply, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.script, self.calls, self.connections = list(script), list[Call](), 0
        self.release = threading.Event()
        self._tls = tls
        self._open = set[Any]()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.server_port}"

    def next_reply(self) -> Reply:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._tls is not None:
            try:
                request = self._tls.wrap_socket(request, server_side=True)
            except OSError:  # the client does not trust us
                return
        self._open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            self._open.discard(request)
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client may go away when it likes."""

    def stop(self) -> None:
        self.release.set()
        self.shutdown()
        self._thread.join()
        for connection in list(self._open):
            connection.close()
        self.server_close()


class _Connection(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.calls.append(Call(self.requestline.split()[1], dict(self.headers), body))
        reply = self.server.next_reply()
        match reply.instead:
            case "reset":
                self.close_connection = True
                return
            case "hang":
                self.server.release.wait(10)
                self.close_connection = True
                return
            case "break off":
                self._send(reply, cut=10)
                self.close_connection = True
                return
            case "break off chunks":
                self.wfile.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                self.wfile.write(b"40\r\n{")
                self.close_connection = True
                return
        self._send(reply)

    def do_GET(self) -> None:
        self.do_POST()

    def do_CONNECT(self) -> None:
        self.do_POST()

    def _send(self, reply: Reply, cut: int = 0) -> None:
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json; charset=utf-8", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - cut])

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""
