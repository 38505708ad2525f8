"""The admin listener under local users who mean harm: decisions go on, memory stays bounded."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from daemon import Daemon
from pki import CA

from sidecar.runtime import admin_listener
from sidecar.runtime.admin_listener import MAX_CONNECTIONS, host_is_ours

alice = CA("Staff").issue("alice")
POLICY = "version: 1\nlocations: [{name: site, allow: [{cn: alice}]}]\n"


ENDLESS = {
    "line": (b"GET /", b"a" * 65536),
    "field": (b"GET /metrics HTTP/1.1\r\nX: ", b"a" * 65536),
    "fields": (b"GET /metrics HTTP/1.1\r\n", b"X-A: b\r\n" * 8192),
    "body": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n", b"a" * 65536),
    "chunks": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"10000\r\n" + b"a" * 65536 + b"\r\n",
    ),
    "requests": (b"", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 1500),
}


def send_without_end(port: int, first: bytes, more: bytes) -> None:
    """Connect again and again, and send until the peer ends it."""
    for _ in range(12):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as peer:
            peer.sendall(first)
            for _ in range(400):
                peer.sendall(more)


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_input_takes_no_memory(tmp_path: Path, kind: str) -> None:
    """Peers send without end: little is kept of each, and metrics and decisions go on."""
    first, more = ENDLESS[kind]
    with Daemon(tmp_path, POLICY) as daemon, ThreadPoolExecutor(16) as pool:
        before = peak = daemon.rss()
        peers = [pool.submit(send_without_end, daemon.port, first, more) for _ in range(16)]
        while not all(peer.done() for peer in peers):
            peak = max(peak, daemon.rss())
            assert daemon.ask("site", alice).status == 204
            time.sleep(0.02)
        assert peak - before < 40 << 20
        daemon.until(lambda: daemon.status("/livez") == 200)


def test_peers_that_never_read_do_not_add_up(tmp_path: Path) -> None:
    """Large answers that nobody takes are cut, the oldest first."""
    many = "".join(f"  - {{name: l{i}, allow: public}}\n" for i in range(3000))
    with Daemon(tmp_path, f"version: 1\nlocations:\n{many}") as daemon, ExitStack() as held:
        for i in range(3000):
            daemon.ask(f"l{i}")
        daemon.get("/metrics")
        before = daemon.rss()
        for _ in range(4 * MAX_CONNECTIONS):
            peer = held.enter_context(socket.socket())
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect(("127.0.0.1", daemon.port))
            peer.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        daemon.until(lambda: daemon.status("/livez") == 200)
        assert daemon.rss() - before < 60 << 20


def test_scrapes_at_once_share_a_rendering(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sixty scrapes of a large policy: decisions are answered in between, each scrape is whole."""
    many = "".join(f"  - {{name: l{i}, allow: public}}\n" for i in range(2000))
    with Daemon(tmp_path, f"version: 1\nlocations:\n{many}") as daemon:
        for i in range(2000):
            daemon.ask(f"l{i}")
        with ThreadPoolExecutor(8) as pool, daemon.client() as client:
            scrapes = [pool.submit(daemon.get, "/metrics") for _ in range(60)]
            answered = 0
            while not all(scrape.done() for scrape in scrapes):
                assert client.ask("l0").status == 204
                answered += 1
                time.sleep(0.001)
        assert answered > 20
        for scrape in scrapes:
            status, text = scrape.result()
            assert status == 200
            assert text.count("mtls_sidecar_decisions_total{") == 2000


def ask_as(daemon: Daemon, host: str, path: str = "/metrics") -> int:
    with socket.create_connection(("127.0.0.1", daemon.port)) as peer:
        line = f"Host: {host}\r\n" if host else ""
        version = "1.1" if host else "1.0"
        peer.sendall(f"GET {path} HTTP/{version}\r\n{line}\r\n".encode())
        return int(peer.makefile("rb").readline().split()[1])


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("named")
    with Daemon(place, POLICY, "admin_hosts: [metrics.example.com]\n") as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9641", 200),
        ("[::1]:9641", 200),
        ("localhost", 200),
        ("sidecar:9641", 200),
        ("", 200),
        ("metrics.example.com:9641", 200),
        ("METRICS.example.com", 200),
        ("evil.example.net", 421),
        ("evil.example.net:9641", 421),
        ("127.0.0.1.nip.example", 421),
        ("evil.example.net.", 421),
        ("1.2.3.4.5", 421),
    ],
)
@pytest.mark.parametrize("path", ["/", "/metrics", "/readyz", "/none"])
def test_a_name_in_a_strangers_zone_is_refused(
    named: Daemon, host: str, path: str, status: int
) -> None:
    """DNS rebinding: a page that has its own name point here reads nothing."""
    expected = 404 if (path, status) == ("/none", 200) else status
    assert ask_as(named, host, path) == expected


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_it_takes_nothing_but_reading(named: Daemon, method: str) -> None:
    """Every path there is answers 405 to any other method."""
    for path in ("/", "/metrics", "/readyz", "/livez"):
        with socket.create_connection(("127.0.0.1", named.port), 5) as peer:
            peer.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert peer.makefile("rb").readline().split()[1] == b"405", path


BAD = (
    b"GET /\xff\xfe HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://xn--a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT xn--a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text;version=1!2\r\n\r\n",
)


def test_requests_that_cannot_be_read_do_not_fill_the_log(named: Daemon) -> None:
    """Any local user can send them without end: the journal, and its audit trail, stay as they
    are."""
    before = len(named.log.read_bytes())
    for bad in BAD * 10:
        with socket.create_connection(("127.0.0.1", named.port), 5) as peer:
            peer.sendall(bad)
            assert peer.recv(4096)
    assert named.status("/livez") == 200
    assert len(named.log.read_bytes()) == before


def test_names_without_a_dot_are_ours() -> None:
    """Nobody can register one."""
    assert host_is_ours("prometheus")
    assert not host_is_ours("a.b")


def test_a_taken_address_keeps_nobody_from_starting(tmp_path: Path) -> None:
    """Who binds the admin address first delays the metrics only; they come once it is free."""
    assert admin_listener.RETRY <= 5
    daemon = Daemon(tmp_path, POLICY)
    with socket.create_server(("127.0.0.1", daemon.port)):
        daemon.start(wait=False)
        daemon.until(lambda: daemon.socket.exists())
        daemon.until(lambda: daemon.ask("site", alice).status == 204)
        daemon.until(lambda: "no metrics and no /readyz" in daemon.log.read_text())
    try:
        daemon.until(lambda: daemon.status("/readyz") == 200, seconds=30)
        daemon.until(lambda: "metrics are served" in daemon.log.read_text())
    finally:
        assert daemon.stop() == 0
