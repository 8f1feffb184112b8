"""What is fetched from the web, and where a URL may not lead. Every server here is real and listens on loopback."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3

from lookalike.errors import ItemError
from lookalike.pictures.web import Download, Web

MOST = 100_000


@dataclass
class Site:
    """A web server whose pages are functions; `calls` remembers path and headers."""

    pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def page(self, path: str, status: int = 200, body: bytes = b"", **headers: str) -> str:
        """A page that always says the same; returns its URL."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                request.send_header(name.replace("_", "-"), value)
            request.end_headers()
            request.wfile.write(body)

        self.pages[path] = answer
        return self.url + path


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """The client may go away when it likes."""


@pytest.fixture
def make_site() -> Iterator[Callable[[], Site]]:
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def make() -> Site:
        site = Site()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.calls.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                try:
                    site.pages[self.path.partition("?")[0]](self)
                except (OSError, KeyError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        server = Server(("127.0.0.1", 0), Handler)
        site.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return site

    yield make
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def site(make_site: Callable[[], Site]) -> Site:
    return make_site()


@pytest.fixture
def web() -> Iterator[Web]:
    """Allowed to speak to 127.0.0.1."""
    web = Web(allow_hosts=["127.0.0.1"], seconds=20)
    yield web
    web.close()


@pytest.fixture
def strict() -> Iterator[Web]:
    """Allowed to speak to nobody inside."""
    web = Web(seconds=20)
    yield web
    web.close()


def error_of(web: Web, url: str, **options: str) -> ItemError:
    with pytest.raises(ItemError) as caught:
        web.read(url, most=MOST, **options)
    assert "S3CRET" not in str(caught.value)
    return caught.value


# -- what comes back -------------------------------------------------------------------------------------------------


def test_bytes_come_with_an_etag_and_not_twice(site: Site, web: Web) -> None:
    url = site.page("/a.jpg", body=b"picture", ETag='W/"1"', Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
    assert web.read(url, most=7) == Download(b"picture", 'etag:W/"1"')
    site.page("/a.jpg", status=304)
    assert web.read(url, most=7, known='etag:W/"1"') is None
    assert site.calls[-1][1]["if-none-match"] == 'W/"1"'
    assert web.read(site.page("/b", 304), most=7, known="etag:bare") is None
    assert site.calls[-1][1]["if-none-match"] == '"bare"'


def test_a_date_is_a_fingerprint_where_there_is_no_etag(site: Site, web: Web) -> None:
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    url = site.page("/a.jpg", body=b"picture", Last_Modified=date)
    assert web.read(url, most=7) == Download(b"picture", f"modified:{date}")
    assert web.read(url, most=7, known=f"modified:{date}") is None  # though this host does not heed the condition
    assert site.calls[-1][1]["if-modified-since"] == date
    assert web.read(site.page("/b", body=b"x"), most=7) == Download(b"x", None)


def test_another_etag_is_another_picture(site: Site, web: Web) -> None:
    url = site.page("/a.jpg", body=b"new", ETag='"2"')
    assert web.read(url, most=7, known='etag:"1"') == Download(b"new", 'etag:"2"')
    assert web.read(url, most=7, known="17-2024\r\nX: y") == Download(b"new", 'etag:"2"')


def test_user_and_password_are_sent_to_their_own_host_only(make_site: Callable[[], Site], web: Web) -> None:
    here, there = make_site(), make_site()
    there.page("/b", body=b"there")
    here.page("/b", body=b"here")
    here.page("/far", 302, Location=f"{there.url}/b")
    here.page("/near", 302, Location="/b")
    start = f"http://us%40er:S3CRET@127.0.0.1:{here.port}"
    assert web.read(f"{start}/near", most=9) == Download(b"here", None)
    assert [call[1].get("authorization") for call in here.calls] == ["Basic dXNAZXI6UzNDUkVU"] * 2
    assert web.read(f"{start}/far", most=9) == Download(b"there", None)
    assert "authorization" not in there.calls[0][1]
    here.page("/smuggled", 302, Location=f"http://u:S3CRET@127.0.0.1:{there.port}/b")
    web.read(f"{here.url}/smuggled", most=9)
    assert "authorization" not in there.calls[-1][1]


def test_no_netrc_speaks_for_us(site: Site, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("default login u password S3CRET\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    web.read(site.page("/a", body=b"x"), most=9)
    assert "authorization" not in site.calls[0][1]


def test_a_file_is_opened_and_may_be_sought_in(site: Site, web: Web) -> None:
    with web.open(site.page("/list.csv", body=b"0123456789" * 100_000), most=1_000_000) as file:
        file.seek(999_995)
        assert file.read() == b"56789"
    with pytest.raises(ItemError, match="999,999"):
        web.open(f"{site.url}/list.csv", most=999_999)


def test_many_threads_share_one(site: Site, web: Web) -> None:
    url = site.page("/a.jpg", body=b"picture")
    found: list[Download | None] = []
    threads = [threading.Thread(target=lambda: found.append(web.read(url, most=7))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Download(b"picture", None)] * 20


# -- where a URL may not lead -----------------------------------------------------------------------------------------

INSIDE = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "localhost", "LOCALHOST.", "0.0.0.0",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    "[64:ff9b:1::1]", "[2002:a9fe:a9fe::1]", "10.0.0.1", "172.16.5.4", "192.168.1.1", "100.64.0.1", "100.100.100.200",
    "169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "[fec0::1]", "168.63.129.16", "224.0.0.1", "[ff02::1]",
    "240.0.0.1", "255.255.255.255", "192.0.0.192", "198.18.0.1", "127.0.0.1.",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE)
def test_addresses_inside_are_refused_however_they_are_written(host: str, site: Site, strict: Web) -> None:
    error = error_of(strict, f"http://{host}:{site.port}/a.jpg?sig=S3CRET")
    # not every system resolves every spelling; none of them is spoken to
    assert error.code == "forbidden-address" or (error.code in ("unreachable", "bad-url") and "[" not in host)
    assert error.code == "unreachable" or "--allow-host" in str(error) or error.code == "bad-url"
    assert not error.retryable or error.code == "unreachable"
    assert site.calls == []


def test_the_common_spellings_are_recognised(site: Site, strict: Web) -> None:
    for host in ("127.0.0.1", "2130706433", "0x7f000001", "localhost", "[::1]", "[::ffff:127.0.0.1]"):
        assert error_of(strict, f"http://{host}:{site.port}/").code == "forbidden-address", host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "[::1]"])
def test_a_redirect_inside_is_refused(host: str, make_site: Callable[[], Site]) -> None:
    outside, inside = make_site(), make_site()
    outside.page("/a.jpg", 302, Location=f"http://{host}:{inside.port}/b.jpg?sig=S3CRET")
    web = Web(allow_hosts=[f"127.0.0.1:{outside.port}"])
    assert error_of(web, f"{outside.url}/a.jpg").code == "forbidden-address"
    assert inside.calls == []
    web.close()


@pytest.mark.parametrize(
    "allowed", ["localhost", "LOCALHOST.", "127.0.0.1", "localhost:{}", "http://127.0.0.1:{}/x", "::1"]
)
def test_a_host_is_allowed_by_name_address_and_port(allowed: str, site: Site) -> None:
    site.page("/a.jpg", body=b"x")
    web = Web(allow_hosts=[allowed.format(site.port), " "])
    if allowed == "::1":
        assert error_of(web, f"{site.url}/a.jpg").code == "forbidden-address"
    else:
        assert web.read(f"http://localhost:{site.port}/a.jpg", most=9) == Download(b"x", None)
    web.close()


def test_another_port_of_an_allowed_host_is_not_allowed(site: Site) -> None:
    web = Web(allow_hosts=[f"127.0.0.1:{site.port + 1}"])
    assert error_of(web, f"{site.url}/a.jpg").code == "forbidden-address"
    web.close()


def test_a_name_that_changes_its_address_gains_nothing(
    site: Site, strict: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection goes to the very address that was judged; a later lookup is judged anew."""
    lookups, connected = [], []
    real = socket.getaddrinfo

    def rebinding(host: str, *args: object, **options: object) -> object:
        if host == "rebind.example":
            lookups.append(host)
            host = "203.0.114.7" if len(lookups) == 1 else "127.0.0.1"
        return real(host, *args, **options)  # type: ignore[arg-type]

    def connect(address: tuple[str, int], *_: object) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    site.page("/a.jpg", body=b"S3CRET")
    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect)
    assert error_of(strict, f"http://rebind.example:{site.port}/a.jpg").code == "forbidden-address"
    assert connected == [("203.0.114.7", site.port)]
    assert len(lookups) == 2
    assert site.calls == []


def test_a_proxy_is_not_sent_inside(site: Site, strict: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", site.url)
    monkeypatch.setenv("http_proxy", site.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert error_of(strict, "http://169.254.169.254/latest?sig=S3CRET").code == "forbidden-address"
    assert error_of(strict, "http://2130706433/").code == "forbidden-address"
    assert site.calls == []
    # a name that only the proxy may know is its affair, and the proxy itself may lie inside
    site.pages["http://only-the-proxy.invalid/a.jpg"] = site.pages.get("/x") or (
        lambda request: request.send_error(404)
    )
    assert error_of(strict, "http://only-the-proxy.invalid/a.jpg").code == "not-found"
    assert site.calls[0][0] == "http://only-the-proxy.invalid/a.jpg"


@pytest.mark.parametrize(
    "url",
    [
        "https://?sig=S3CRET", "ftp://x.example/a", "http://", "http://[::1/a", "http://x:99999/", "http://u:S3/CRET@x/",
        "http://a..b.example/", "http://x.example/\x00", "nonsense", "", "http://127.0.0.1:port/",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str, strict: Web) -> None:
    assert error_of(strict, url).code == "bad-url"


def test_redirects_lead_nowhere_but_to_the_web(site: Site, web: Web) -> None:
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/"):
        assert error_of(web, site.page("/r", 302, Location=target)).code == "bad-url"


def test_endless_redirects_end(site: Site, web: Web) -> None:
    assert error_of(web, site.page("/r", 302, Location="/r?sig=S3CRET")).code == "too-many-redirects"
    assert len(site.calls) == 6


def test_the_body_of_a_redirect_is_not_read(site: Site, web: Web) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", "/b")
        request.end_headers()
        for _ in range(10_000):
            request.wfile.write(b"x" * 100_000)

    site.pages["/a"] = endless
    site.page("/b", body=b"there")
    began = time.monotonic()
    assert web.read(f"{site.url}/a", most=9) == Download(b"there", None)
    assert time.monotonic() - began < 2


# -- how much, and for how long ----------------------------------------------------------------------------------------


def test_too_many_bytes_announced_or_not(site: Site, web: Web) -> None:
    assert error_of(web, site.page("/a", body=b"x" * (MOST + 1))).code == "too-many-bytes"
    sent = []

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            sent.append(request.wfile.write(b"x" * 10_000))

    site.pages["/b"] = endless
    assert error_of(web, f"{site.url}/b").code == "too-many-bytes"
    assert web.read(site.page("/c", body=b"x" * MOST), most=MOST) == Download(b"x" * MOST, None)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_bomb_does_not_go_off(pack: Callable[[bytes], bytes], site: Site, web: Web) -> None:
    encoding = "gzip" if pack is gzip.compress else "deflate"
    bomb = pack(bytes(50_000_000))
    assert len(bomb) < MOST
    assert error_of(web, site.page("/a", body=bomb, Content_Encoding=encoding)).code == "too-many-bytes"
    fine = pack(bytes(MOST))
    assert web.read(site.page("/b", body=fine, Content_Encoding=encoding), most=MOST) == Download(bytes(MOST), None)
    assert error_of(web, site.page("/c", body=fine[:50], Content_Encoding=encoding)).code == "unreachable"
    assert error_of(web, site.page("/d", body=b"no such thing", Content_Encoding=encoding)).code == "refused-by-host"
    assert error_of(web, site.page("/e", body=fine, Content_Encoding="br")).code == "refused-by-host"


def test_a_gzip_of_several_members(site: Site, web: Web) -> None:
    body = gzip.compress(b"one") + gzip.compress(b"two")
    assert web.read(site.page("/a", body=body, Content_Encoding="gzip"), most=99) == Download(b"onetwo", None)


@pytest.mark.parametrize("where", ["body", "headers", "before"])
def test_a_slow_drip_ends(where: str, site: Site) -> None:
    over = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        if where == "before":
            over.wait(20)
        request.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 1000\r\n\r\n" if where == "body" else b"X: "))
        while not over.wait(0.05):
            request.wfile.write(b"x")

    site.pages["/a"] = drip
    web = Web(allow_hosts=["127.0.0.1"], seconds=1)
    began = time.monotonic()
    error = error_of(web, f"{site.url}/a?sig=S3CRET")
    over.set()
    assert (error.code, error.retryable) == ("too-slow", True)
    assert time.monotonic() - began < 3
    web.close()


def test_an_answer_that_breaks_off_is_asked_for_again(site: Site, web: Web) -> None:
    def broken(request: BaseHTTPRequestHandler) -> None:
        whole = len(site.calls) >= 3
        request.send_response(200)
        request.send_header("Content-Length", "7")
        request.end_headers()
        request.wfile.write(b"picture" if whole else b"pict")
        request.close_connection = True

    site.pages["/a"] = broken
    assert web.read(f"{site.url}/a", most=9) == Download(b"picture", None)
    assert len(site.calls) == 3


# -- what hosts answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "retryable", "calls"),
    [
        (400, "refused-by-host", False, 1), (401, "access-refused", True, 1), (403, "access-refused", True, 1),
        (404, "not-found", False, 1), (410, "not-found", False, 1), (204, "refused-by-host", False, 1),
        (304, "refused-by-host", False, 1), (429, "refused-by-host", True, 3), (500, "refused-by-host", True, 3),
        (503, "refused-by-host", True, 3),
    ],
)  # fmt: skip
def test_what_a_status_means(status: int, code: str, retryable: bool, calls: int, site: Site, web: Web) -> None:
    error = error_of(web, site.page("/a", status) + "?sig=S3CRET")
    assert (error.code, error.retryable, len(site.calls)) == (code, retryable, calls)


def test_a_wait_that_is_asked_for_is_kept_if_it_is_short(site: Site, web: Web) -> None:
    began = time.monotonic()
    error_of(web, site.page("/a", 429, Retry_After="1"))
    assert 1.9 < time.monotonic() - began < 4
    soon = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    for long in ("3600", soon):
        site.calls.clear()
        assert error_of(web, site.page("/b", 503, Retry_After=long)).retryable
        assert len(site.calls) == 1


def test_nobody_there_is_retryable(web: Web) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = error_of(web, f"http://127.0.0.1:{port}/a.jpg?sig=S3CRET")
    assert (error.code, error.retryable) == ("unreachable", True)
    error = error_of(web, "http://no-such-host.invalid/a.jpg?token=S3CRET")
    assert (error.code, error.retryable) == ("unreachable", True)


def test_closing_ends_waits(site: Site) -> None:
    web = Web(allow_hosts=["127.0.0.1"])
    url = site.page("/a", 503, Retry_After="25")
    timer = threading.Timer(0.3, web.close)
    timer.start()
    began = time.monotonic()
    assert error_of(web, url).code == "refused-by-host"
    assert time.monotonic() - began < 5
    timer.join()
