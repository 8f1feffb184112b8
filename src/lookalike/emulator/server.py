"""The emulator as a whole: settings in, an HTTP server out.

Each connection has a thread of its own, and each call takes the same way: path, the service's gateway (versions, key),
faults and rate limit, the service itself, latency, counting, sending. What a service says along that way is its own
affair; `Service` is all that is known of it here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from lookalike.emulator.azure_inference import AzureInference
from lookalike.emulator.azure_vision import AzureVision
from lookalike.emulator.dashscope import DashScope
from lookalike.emulator.recordings import Vectors
from lookalike.emulator.traffic import Call, Counters, Faults, TokenBucket, whole_seconds
from lookalike.emulator.wire import Answer, Malformed, Request, framed, read_body, split_target
from lookalike.errors import ConfigurationError

_HOST = "127.0.0.1"
_STATS_PATH = "/_emulator/stats"
_HANG_SECONDS = 120.0
_LINGER_SECONDS = 10.0
_STOP_SECONDS = 2.0
_MAX_REQUEST_LINE = 65536

SERVICE_FAULTS = (*AzureVision.faults, *AzureInference.faults, *DashScope.faults)
"""What a service of its own can say instead of answering, as ``service:kind``; see the tables in its file."""

_CAPTIVE_PORTAL = Answer(
    200,
    b"<!DOCTYPE html>\n<html><head><title>Welcome</title></head>"
    b"<body><h1>Welcome</h1><p>Please accept the terms of use to go online.</p></body></html>\n",
    content_type="text/html; charset=utf-8",
)


class Service(Protocol):
    """One embedding service's protocol. It holds no connection and may be called from many threads at once."""

    @property
    def roots(self) -> tuple[str, ...]:
        """What its paths begin with."""

    @property
    def operations(self) -> Mapping[str, str]:
        """The operation behind each method and path: ``{"POST /path": name}``."""

    @property
    def faults(self) -> Collection[str]:
        """Kinds of faults that only this service has, as ``service:kind``."""

    @property
    def models(self) -> frozenset[str]:
        """Names of its models, as recordings name them."""

    @property
    def max_body(self) -> int:
        """The largest request body in bytes."""

    def admit(self, request: Request) -> Answer | None:
        """The refusal that comes before faults and rate limit, if any."""

    def throttle(self, operation: str, seconds: int) -> Answer:
        """The answer to a call beyond the rate limit."""

    def refuse(self, status: int, message: str | None = None) -> Answer:
        """An error of the service as a whole."""

    def meet(self, fault: str) -> Answer:
        """The answer to a call that meets one of its own `faults`."""

    def answer(self, operation: str, request: Request, fault: str | None) -> Answer:
        """The answer to a call, damaged by `fault` if it is a 200."""


class Emulator:
    """Local embedding services: a real HTTP server on 127.0.0.1. Their base URLs:

    ========================  ==================================================
    Azure AI Vision           ``url``
    Azure AI Model Inference  ``url + "models"``, as a Foundry resource; ``url``, as a serverless deployment
    DashScope                 ``url + "api/v1"``
    ========================  ==================================================

    ::

        with Emulator(rate=10, faults={"429": 0.2}) as emulator:
            ...  # call emulator.url

    It can be started again after it was stopped, at the same address and with its counters as they were.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        recordings: Path | None = None,
        latency_ms: float = 0,
        rate: float | None = None,
        faults: Mapping[str, float] | None = None,
        key: str = "emulator",
        region: str = "cn-beijing",
    ) -> None:
        """Check and keep the settings; nothing listens yet.

        Args:
            port: TCP port on 127.0.0.1; 0 takes any free one.
            recordings: ``.npz`` file of real answers: arrays ``sha256``, ``vectors`` and ``model``.
            latency_ms: milliseconds that the service takes for each call that reaches it.
            rate: calls a second before a service answers 429, each counted by itself; what is not used is saved up
                for one second. None: no limit.
            faults: share, 0 to 1, of the calls that meet each kind of fault (see `FAULT_KINDS`, `SERVICE_FAULTS`).
            key: what the services take for a key. Those of Azure accept any bearer token instead.
            region: of DashScope; not every model is in every one.

        Raises:
            ConfigurationError: a setting is out of range, or the recordings cannot be used.
        """
        if not 0 <= port <= 65535:
            raise ConfigurationError(f"{port} is no TCP port; ports are 0 to 65535, where 0 takes any free one.")
        if not 0 <= latency_ms < math.inf:
            raise ConfigurationError(
                f"The emulator's latency is {latency_ms:g}; it is a number of milliseconds from 0."
            )
        if rate is not None and not 0 < rate < math.inf:
            raise ConfigurationError(f"The emulator's rate is {rate:g}; it is a number of calls a second above 0.")
        if not key:
            raise ConfigurationError("The emulator's key is empty; it has to be something that a client can send.")
        vectors = Vectors(recordings)
        services: tuple[Service, ...] = (
            AzureVision(vectors, key),
            AzureInference(vectors, key),
            DashScope(vectors, key, region),
        )
        models = frozenset[str]().union(*(service.models for service in services))
        if vectors.recorded_model is not None and vectors.recorded_model not in models:
            raise ConfigurationError(
                f"{recordings} holds vectors of {vectors.recorded_model}, which the emulator does not serve; "
                f"it serves {', '.join(sorted(models))}."
            )
        self._port = port
        self._vectors = vectors
        self._pipeline = _Pipeline(
            services, faults=Faults(faults or {}, SERVICE_FAULTS), rate=rate, latency=latency_ms / 1000
        )
        # Reentrant, because a signal handler may call stop() while the same thread is in it.
        self._lock = threading.RLock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens, with a slash at the end; to be used as the service's endpoint.

        Raises:
            RuntimeError: it was told to take any free port, and has not been started yet.
        """
        if not self._port:
            raise RuntimeError("the emulator has no port before it is started")
        return f"http://{_HOST}:{self._port}/"

    def stats(self) -> dict[str, Any]:
        """What was called so far; the same as ``GET /_emulator/stats``.

        Returns:
            ``billed`` (calls that the service answered with 200), ``calls`` (``{operation: {status: count}}``, where
            calls that got no answer are counted as ``timeout`` or ``reset``), ``in_flight`` and ``peak`` (calls
            that are being answered now, and the most there ever were).
        """
        return self._pipeline.counters.snapshot()

    def describe(self, data: bytes, text: str) -> None:
        """From now on a search for `text` finds the picture or video with these bytes, under every model.

        Other texts have nothing to do with any picture. What the text is written like counts: ``A`` is not ``a``.
        """
        self._vectors.describe(data, text)

    def meet(self, *faults: str) -> None:
        """The next calls meet these faults, one each; after them, faults come by their shares again.

        Raises:
            ConfigurationError: the emulator does not know one of them.
        """
        self._pipeline.faults.script(faults)

    def start(self) -> Self:
        """Listen, and answer calls in background threads; when this returns, calls are taken. Once is enough.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        with self._lock:
            if self._server is None:
                self._server = _listen(self._port, self._pipeline)
                self._port = self._server.server_port
                self._thread = threading.Thread(
                    target=self._server.serve_forever,
                    kwargs={"poll_interval": 0.02},
                    name="lookalike-emulator",
                    daemon=True,
                )
                self._thread.start()
        return self

    def serve(self) -> None:
        """Start, unless that was done before, and return only when `stop` is called elsewhere or in a signal handler.

        Raises:
            ConfigurationError: the port cannot be had.
        """
        self.start()
        thread = self._thread
        try:
            if thread is not None:
                thread.join()
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop listening and cut all connections, also those whose calls are still unanswered."""
        with self._lock:
            server, self._server = self._server, None
            thread, self._thread = self._thread, None
            if server is not None:
                server.close()
            if thread is not None:
                thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Pipeline:
    """What every call passes through, the same for all connections."""

    def __init__(self, services: tuple[Service, ...], *, faults: Faults, rate: float | None, latency: float) -> None:
        self.services = services
        self.routes = {path: (service, service.operations[path]) for service in services for path in service.operations}
        self.counters = Counters(services[0].operations.values())
        self.latency = latency
        self.faults = faults
        self.buckets = {service: TokenBucket(rate) for service in services} if rate is not None else {}
        self.refuse = services[0].refuse

    def service_at(self, path: str) -> Service:
        """The service that a path belongs to, also one that leads nowhere."""
        return next((service for service in self.services if path.startswith(service.roots)), self.services[0])

    def throttled(self, service: Service, operation: str) -> Answer | None:
        """The 429 of a call that finds no token left."""
        wait = self.buckets[service].take() if self.buckets else 0.0
        return service.throttle(operation, whole_seconds(wait)) if wait else None

    def throttled_by_fault(self, service: Service, operation: str) -> Answer:
        answer = service.throttle(operation, 1)
        if self.faults.with_retry_after():
            return replace(answer, headers=(*answer.headers, ("Retry-After", "1")))
        return answer


def _listen(port: int, pipeline: _Pipeline) -> _Server:
    try:
        return _Server(port, pipeline)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        if error.errno == errno.EADDRINUSE:
            reason = "something listens there already, perhaps another emulator"
        raise ConfigurationError(
            f"The emulator cannot listen on port {port} of {_HOST}: {reason}. "
            "Stop what holds it or choose another port; port 0 takes any free one."
        ) from error


class _Server(ThreadingHTTPServer):
    """Accepts connections and knows those that are open."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, pipeline: _Pipeline) -> None:
        self.pipeline = pipeline
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._change = threading.Condition()
        super().__init__((_HOST, port), _Connection)

    def server_bind(self) -> None:
        # The inherited method looks up the host's name, which takes seconds where name resolution is broken.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = _HOST, int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self._change:
            if self.stopping.is_set():
                return
            self._connections.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            with self._change:
                self._connections.discard(request)
                self._change.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients may go away whenever they like; anything else is a mistake in here and has to show.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Take no more connections and end those that are open; `serve_forever` returns."""
        self.shutdown()
        with self._change:
            self.stopping.set()
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            # A thread that is busy fetching a URL for a client is left to end by itself.
            self._change.wait_for(lambda: not self._connections, _STOP_SECONDS)
        self.server_close()


class _Connection(BaseHTTPRequestHandler):
    """Reads requests off one connection and answers them, one after the other."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self._unread = False
        with contextlib.suppress(OSError):  # the client went away
            super().handle()
            if self._unread:
                # Closing now would make the kernel reset the connection, and the client might lose the answer.
                self.connection.shutdown(socket.SHUT_WR)
                self._discard(_LINGER_SECONDS)

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.command = ""
        self.raw_requestline = self.rfile.readline(_MAX_REQUEST_LINE + 1)
        if len(self.raw_requestline) > _MAX_REQUEST_LINE:
            self.send_error(414)
        elif self.raw_requestline and self.parse_request():
            try:
                request = self._read()
            except Malformed as error:
                self.send_error(400, str(error))
            else:
                self._respond(request)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is not proper HTTP; the base class calls this, too."""
        self.close_connection = self._unread = True
        self._send(self.server.pipeline.refuse(int(code), explain or message))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: who wants to know what was called asks for the stats."""

    def _read(self) -> Request:
        # Not self.path, in which the base class has merged the slashes of a badly joined URL.
        path, query = split_target(self.requestline.split()[1])
        body = read_body(self.rfile, self.headers, self.server.pipeline.service_at(path).max_body)
        if body is None or (self.command == "POST" and not framed(self.headers)):
            # Whatever the client sends now belongs to this request.
            self.close_connection = self._unread = True
        return Request(self.command, path, query, self.headers, body)

    def _respond(self, request: Request) -> None:
        pipeline = self.server.pipeline
        if request.method == "GET" and request.path == _STATS_PATH:
            self._send(Answer(200, json.dumps(pipeline.counters.snapshot()).encode()))
            return
        route = pipeline.routes.get(f"{request.method} {request.path}")
        if route is None:
            self._send(pipeline.service_at(request.path).refuse(404))
            return
        service, operation = route
        with pipeline.counters.call(operation) as call:
            answer = self._answer(service, operation, request, call)
            if answer is None:
                self.close_connection = True
                return
            # Before it is sent, so that a client that has its answer finds it counted.
            call.answered(str(answer.status), billed=answer.billed)
            self._send(answer)

    def _answer(self, service: Service, operation: str, request: Request, call: Call) -> Answer | None:
        """The answer, or None if there is to be none."""
        pipeline = self.server.pipeline
        refusal = service.admit(request)
        if refusal is not None:
            return refusal
        fault = pipeline.faults.draw()
        match fault:
            case "timeout":
                call.held("timeout")
                self._discard(_HANG_SECONDS)
                return None
            case "reset":
                call.answered("reset")
                self._reset()
                return None
            case "429":
                return pipeline.throttled_by_fault(service, operation)
            case "500" | "503":
                return service.refuse(int(fault))
            case "html":
                return _CAPTIVE_PORTAL
            case str() if fault in service.faults:
                return service.meet(fault)
        refusal = pipeline.throttled(service, operation)
        if refusal is not None:
            return refusal
        answer = service.answer(operation, request, fault)
        if pipeline.latency and self.server.stopping.wait(pipeline.latency):
            return None
        if fault == "truncated-json" and answer.status == 200:
            return replace(answer, body=answer.body[: len(answer.body) // 2])
        return answer

    def _send(self, answer: Answer) -> None:
        self.wfile.write(answer.encode(close=self.close_connection, with_body=self.command != "HEAD"))

    def _discard(self, seconds: float) -> None:
        """Throw away what arrives until the client hangs up, the emulator stops or time is up."""
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            self.connection.settimeout(remaining)
            if not self.connection.recv(1 << 16):
                return

    def _reset(self) -> None:
        """Cut the connection with a TCP reset, which only happens if nothing else closes it first."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()
