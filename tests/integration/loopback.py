"""A web server on this machine, for services that fetch what they are given by its URL."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(things: Mapping[str, bytes], *, sized: bool = True) -> Iterator[str]:
    """Serve `things` by their paths; gives the URL that they lie below. Unless `sized`, their lengths are not told.

    What stands behind a question mark is a signature that everybody has.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = things.get(self.path.partition("?")[0])
            self.send_response(404 if data is None else 200)
            if sized:
                self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
