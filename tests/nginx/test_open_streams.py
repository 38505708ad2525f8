"""What is open when its certificate is revoked stays open; two settings of nginx bound it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from https import Connection
from nginx import free_port
from stack import Stack
from tools import NginxBinary

PATIENCE = 60.0

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
CONF = """
worker_shutdown_timeout 1s;
http {
    ssl_certificate pki/server.crt;
    ssl_certificate_key pki/server.key;
    ssl_client_certificate pki/client-cas.crt;
    ssl_verify_client optional;
    include snippets/mtls-sidecar.conf;
    server {
        listen 443 ssl;
        server_name app.example.com;
        include snippets/authz-location.conf;
        location / {
            auth_request /authz/site;
            proxy_pass http://127.0.0.1:PORT;
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout READ;
        }
    }
}
"""


class _Streams(BaseHTTPRequestHandler):
    """Answers without an end: events (SSE) or WebSocket frames; none at /silent.  /once ends."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/once":
            self.send_response(204)
            self.end_headers()
            return
        upgrade = "Upgrade" in self.headers
        self.send_response(101 if upgrade else 200)
        self.send_header("Upgrade" if upgrade else "Content-Type", "websocket")
        self.send_header("Connection", "Upgrade" if upgrade else "close")
        self.end_headers()
        self.close_connection = True
        frame = b"\x81\x0edata: an event" if upgrade else b"data: event\n\n"
        while "silent" not in self.path:
            self.wfile.write(frame)
            time.sleep(0.05)
        self.rfile.read()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away ends its stream: that is what is waited for."""


@pytest.fixture(scope="module")
def streams() -> Iterator[int]:
    """The application's port."""
    server = _Server(("127.0.0.1", free_port()), _Streams)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def stack(binary: NginxBinary, place: Path, port: int, read: str) -> Stack:
    conf = CONF.replace("PORT", str(port)).replace("READ", read)
    return Stack(binary, place, conf=conf)


def begin(connection: Connection, path: str, headers: dict[str, str]) -> None:
    """Send a request, and read the head of its answer."""
    lines = [f"GET {path} HTTP/1.1", "Host: app.example.com"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection.socket.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.read(1)
    assert head.split()[1] in (b"200", b"101"), head


def ends(connection: Connection) -> bool:
    """Whether the connection ends within PATIENCE, whatever comes before."""
    end = time.monotonic() + PATIENCE
    connection.socket.settimeout(PATIENCE)
    while time.monotonic() < end:
        try:
            if not connection.read(1):
                return True
        except ConnectionError:
            return True
    return False


def test_an_open_stream_outlives_its_revocation_until_nginx_is_reloaded(
    nginx_binary: NginxBinary, tmp_path: Path, streams: int
) -> None:
    """Events and a WebSocket go on after alice was revoked, though a new request is denied;
    `nginx -s reload` ends them after `worker_shutdown_timeout`."""
    with stack(nginx_binary, tmp_path, streams, "1h") as here:
        alice = here.people.alice
        with here.connect(cert=alice) as events, here.connect(cert=alice) as socket:
            begin(events, "/", {})
            begin(socket, "/", UPGRADE)
            denylist = here.daemon.directory / "denylist.txt"
            denylist.write_text(f"sha256 {alice.sha256}\n")
            here.daemon.until(lambda: here.get("/once", cert=alice).status == 403)
            for _ in range(20):
                assert len(events.read(13)) == 13
                assert len(socket.read(16)) == 16
            here.nginx.reload()
            assert ends(events)
            assert ends(socket)
        assert here.get("/once", cert=alice).status == 403


def test_a_silent_stream_ends_after_proxy_read_timeout(
    nginx_binary: NginxBinary, tmp_path: Path, streams: int
) -> None:
    """A WebSocket and an answer that say nothing are closed; one that speaks outlives them."""
    with stack(nginx_binary, tmp_path, streams, "1s") as here:
        alice = here.people.alice
        with here.connect(cert=alice) as speaking:
            begin(speaking, "/", UPGRADE)
            for headers in ({}, UPGRADE):
                with here.connect(cert=alice) as silent:
                    begin(silent, "/silent", headers)
                    assert ends(silent)
            for _ in range(40):
                assert len(speaking.read(16)) == 16
