"""Attacks that go past the usual tests: an authorizer that misbehaves, time, files, names."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from daemon import Daemon, question
from der import der_rdn, tlv
from nginx import Nginx, free_port
from pki import CA, Leaf, now
from tools import NginxBinary

staff = CA("Staff")
VERIFIED = "version: 1\nlocations:\n  - {name: site, allow: verified}\n"

# -- nginx and what it is told


FRONT = """
http {{
    upstream authz {{ server unix:{socket}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location /authz/ {{
            internal;
            proxy_pass http://authz;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 1s;
        }}
        location /closed/ {{ auth_request /authz/closed; empty_gif; }}
        location /return/ {{ auth_request /authz/closed; return 200 "out\\n"; }}
        location /any/ {{ satisfy any; allow all; auth_request /authz/closed; empty_gif; }}
    }}
}}
"""


class Liar:
    """An authorizer that answers whatever it is told to."""

    def __init__(self, path: Path) -> None:
        self.answer = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                with connection:
                    connection.recv(65536)
                    if self.answer == b"silence":
                        time.sleep(2)
                    else:
                        connection.sendall(self.answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


def fetch(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def liar(nginx_binary: NginxBinary, tmp_path: Path) -> Iterator[tuple[Liar, int]]:
    port = free_port()
    authorizer = Liar(tmp_path / "authz.sock")
    conf = FRONT.format(socket=tmp_path / "authz.sock", port=port)
    with Nginx(nginx_binary, conf, tmp_path / "nginx"):
        yield authorizer, port
    authorizer.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"silence",
        b"hello\r\n\r\n",
        b"HTTP/1.1 204",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ],
)
def test_whatever_is_no_answer_lets_nobody_in(liar: tuple[Liar, int], answer: bytes) -> None:
    """Nothing, silence, garbage, half an answer, a redirect, an error, a flood: never 2xx."""
    liar[0].answer = answer
    assert fetch(liar[1], "/closed/") in (403, 500)


def test_return_and_satisfy_any_go_round_auth_request(liar: tuple[Liar, int]) -> None:
    """nginx's own doing, which `doctor` is for: `return` runs before it, `any` beside it."""
    liar[0].answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    assert fetch(liar[1], "/closed/") == 403
    assert fetch(liar[1], "/return/") == 200
    assert fetch(liar[1], "/any/") == 200


def test_a_hung_sidecar_lets_nobody_in_and_recovers(
    nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """Stopped like a hung process: 500 after nginx's patience; going again: an answer again."""
    port = free_port()
    policy = "version: 1\nlocations:\n  - {name: closed, allow: public}\n"
    with Daemon(tmp_path, policy, "socket_mode: 0666\n") as daemon:
        conf = FRONT.format(socket=daemon.socket, port=port)
        with Nginx(nginx_binary, conf, tmp_path / "nginx"):
            assert fetch(port, "/closed/") == 200
            daemon.signal(signal.SIGSTOP)
            assert fetch(port, "/closed/") in (500, 504)
            daemon.signal(signal.SIGCONT)
            daemon.until(lambda: fetch(port, "/closed/") == 200)


# -- time


def test_a_connection_outlives_no_certificate(tmp_path: Path) -> None:
    """On one kept-alive connection, a remembered allow ends with the certificate, to the second."""
    brief = staff.issue("brief", not_after=now() + timedelta(seconds=3))
    with Daemon(tmp_path, VERIFIED) as daemon, daemon.client() as client:
        assert client.ask("site", brief).reason == "allowed"
        end = brief.cert.not_valid_after_utc.timestamp() + 1
        while client.ask("site", brief).status == 204:
            assert time.time() < end + 0.5
            time.sleep(0.02)
        assert time.time() >= end - 0.1
        assert client.ask("site", brief).reason == "expired"


# -- names


def named(raw: bytes, tag: int) -> Leaf:
    """A certificate whose CN has these octets under this string type."""
    return staff.forge(subject=tlv(0x30, der_rdn("2.5.4.3", raw, tag)))


STRANGE = {
    "bidi": staff.forge("alice\u202eecila"),
    "homoglyph": staff.forge("\u0430lice"),
    "line separator": staff.forge("a\u2028b"),
    "quote": staff.forge('a" decision="allow'),
    "html": staff.forge("<script>alert(1)</script>"),
    "percent": staff.forge("100%0d%0aX-Client-Role: root"),
    "invalid utf-8": named(b"\xff\xfe", 0x0C),
    "bmp": named("alice".encode("utf-16-be"), 0x1E),
    "odd bmp": named(b"\0a\0", 0x1E),
    "t61": named(b"al\xefce", 0x14),
    "long": staff.forge("a" * 10_000),
    "no name": staff.forge(subject=b"\x30\x00"),
    "huge serial": staff.forge("alice", serial=2**1000),
    "many names": staff.issue("many", dns=[f"h{i}.example" for i in range(3000)]),
    "uri": staff.issue("u", uri=["http://a/\u007e?x=1,DNS:root"]),
    "comma": staff.forge("a,CN=root"),
    "blanks": staff.forge(" alice "),
    "v1": Leaf(
        "v1",
        staff.sign_tbs(
            tlv(0x30, staff.forge("v1").cert.tbs_certificate_bytes[4:].split(b"\xa3\x82")[0])
        ),
        staff.forge("v1").private,
        staff,
    ),
}


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_name_breaks_out(tmp_path: Path, form: str) -> None:
    """Whatever a name holds: an answer in printable ASCII, one line in the log, no label."""
    log = tmp_path / "decisions.log"
    settings = f"log_format: {form}\ndecision_log_file: {log}\n"
    with Daemon(tmp_path, VERIFIED, settings) as daemon, daemon.client() as client:
        for what, leaf in STRANGE.items():
            client.send(question("site", leaf))
            answer = client.receive()
            assert answer is not None, what
            assert answer.status in (204, 401), what
            for value in answer.headers.values():
                assert all(0x20 <= ord(c) < 0x7F for c in value), what
                assert value == value.strip(), what
            assert answer.headers.get("x-client-role") is None, what
        metrics = daemon.get("/metrics")[1]
    lines = log.read_bytes().splitlines()
    assert len(lines) == len(STRANGE)
    for line in lines:
        assert all(0x20 <= byte < 0x7F for byte in line)
        if form == "json":
            assert json.loads(line)["decision"] in ("allow", "deny")
    assert "<script" not in metrics
    assert "alice" not in metrics


# -- files


@pytest.mark.parametrize("kind", ["directory", "fifo", "loop", "unreadable", "device"])
def test_a_file_that_is_none_is_a_mistake(tmp_path: Path, kind: str) -> None:
    """A directory, a FIFO, a circle of links or a device in a file's place: refused, no wait."""
    with Daemon(tmp_path, VERIFIED) as daemon:
        path = daemon.policy
        path.unlink()
        if kind == "directory":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "loop":
            path.symlink_to("policy.yaml")
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            path.symlink_to("/proc/self/mem")
        failed = 'mtls_sidecar_policy_reloads_total{result="error"}'
        daemon.until(lambda: daemon.metric(failed) >= 1)
        assert daemon.ask("site", staff.issue("alice")).status == 204


def test_a_policy_rewritten_in_place_is_never_half_in_force(tmp_path: Path) -> None:
    """While somebody truncates and rewrites it in a loop, only whole versions ever decide."""
    rules = "".join(f"  - {{name: l{i}, allow: verified}}\n" for i in range(2000))
    versions = [
        f"version: 1\nlocations:\n{rules}  - {{name: {name}, allow: verified}}\n"
        for name in ("one", "two")
    ]
    alice = staff.issue("alice")
    with Daemon(tmp_path, versions[0]) as daemon:
        hashes = {daemon.ask("l0", alice).headers["x-auth-policy"]}
        for turn in range(40):
            with daemon.policy.open("w") as file:
                text = versions[turn % 2]
                for start in range(0, len(text), 7000):
                    file.write(text[start : start + 7000])
                    file.flush()
                    time.sleep(0.001)
            answer = daemon.ask("l1999", alice)
            assert answer.status == 204, "half a policy is in force"
            hashes.add(answer.headers["x-auth-policy"])
        assert len(hashes) <= 2


def test_an_unknown_algorithm_is_a_decision(tmp_path: Path) -> None:
    """A key or signature that nobody knows is denied, not an exception."""
    der = staff.issue("alice").der
    ec = bytes.fromhex("06072a8648ce3d0201")
    strange = Leaf(
        "x", der.replace(ec, bytes.fromhex("06072a8648ce3d027f")), staff.issue("x").private
    )
    policy = "version: 1\ntrust: {s: {ca: ca.crt}}\nlocations:\n  - {name: site, allow: verified}\n"
    with Daemon(tmp_path, policy, ca_crt=staff.pem) as daemon:
        assert daemon.ask("site", strange).reason in ("malformed_certificate", "untrusted_issuer")
        assert isinstance(x509.load_der_x509_certificate(der), x509.Certificate)
