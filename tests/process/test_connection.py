"""The authorization socket: what a peer can send, and what it gets."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import ROOT, Client, Daemon, question
from pki import CA

staff = CA("Staff")
alice = staff.issue("alice")

POLICY = """\
version: 1
locations:
  - {name: site, allow: [{cn: alice}]}
  - {name: open, allow: public}
  - {name: own, allow: verified, san_matches_host: true}
"""
SETTINGS = "limits: {header_timeout: 1, idle_timeout: 2}\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("d"), POLICY, SETTINGS) as found:
        yield found


def test_many_questions_on_one_connection(daemon: Daemon) -> None:
    """HTTP/1.1 keep-alive: each answer comes with its reason and an empty body."""
    with daemon.client() as client:
        for _ in range(3):
            answer = client.ask("site", alice)
            assert (answer.status, answer.headers["x-client-cn"]) == (204, "alice")
            assert client.ask("site").reason == "no_certificate"
            assert client.ask("nowhere").status == 403


def test_every_split_of_the_bytes_is_the_same_request(daemon: Daemon) -> None:
    """A request that comes in two pieces, split anywhere, is answered alike."""
    data = question("site", alice)
    with daemon.client() as client:
        for at in range(1, len(data), 7):
            client.send(data[:at])
            client.send(data[at:])
            answer = client.receive()
            assert answer is not None
            assert answer.status == 204


def test_a_request_byte_by_byte_is_the_same_request(daemon: Daemon) -> None:
    """A request that comes in a read for each byte is answered as if it came whole."""
    with daemon.client() as client:
        for _ in range(2):
            for byte in question("site", alice):
                client.send(bytes([byte]))
            answer = client.receive()
            assert answer is not None
            assert answer.status == 204


BEHIND = {
    "the same again": question("site", alice),
    "another": question("open"),
    "a line end": b"\r\n",
    "one byte": b"G",
    "a header": b"X-Original-URI: /admin/\r\n\r\n",
    "NUL": b"\0",
    "a body": b"x" * 70_000,
}


@pytest.mark.parametrize("name", BEHIND)
def test_bytes_behind_a_request_are_400_and_nothing_is_decided(daemon: Daemon, name: str) -> None:
    """Whatever comes with a request, known from before or not, makes it 400, closed."""
    counted = 'mtls_sidecar_decisions_total{decision="allow",location="site",reason="allowed"}'
    with daemon.client() as client:
        for _ in range(3):
            assert client.ask("site", alice).status == 204
    before = daemon.metric(counted)
    for first in (question("site", alice), question("site", alice, {"Host": name})):
        for cut in (0, len(first) - 2):
            with daemon.client() as client:
                if cut:
                    client.send(first[:cut])
                    time.sleep(0.05)  # so that they arrive as two
                client.send(first[cut:] + BEHIND[name])
                answer = client.receive()
                assert answer is not None
                assert (answer.status, answer.reason) == (400, "bad_request")
                assert answer.headers["connection"] == "close"
                assert client.closed()
    assert daemon.metric(counted) == before


def test_a_server_name_that_ends_the_question_early(daemon: Daemon) -> None:
    """An SNI with line ends in it, as nginx would copy it raw, leaves the rest behind: 400."""
    for sni in ("x\r\n\r\n", "x\r\nX-Request-ID: a\r\n\r\n", "x\r\n\r\nGET /authz/open HTTP/1.1"):
        with daemon.client() as client:
            client.send(question("open", None, {"SSL-Server-Name": sni}))
            answer = client.receive()
            assert answer is not None
            assert answer.status == 400
            assert client.closed()


def test_a_request_without_host_is_about_an_empty_host(daemon: Daemon) -> None:
    """nginx leaves the header out where `$host` is empty: decided, whatever the HTTP version."""
    for version in (b"1.0", b"1.1"):
        with daemon.client() as client:
            client.send(b"GET /authz/open HTTP/%b\r\n\r\n" % version)
            answer = client.receive()
            assert answer is not None
            assert answer.status == 204
        with daemon.client() as client:
            proof = b"SSL-Client-Verify: SUCCESS\r\nSSL-Client-Cert: %b\r\n\r\n" % alice.escaped
            client.send(b"GET /authz/own HTTP/%b\r\n%b" % (version, proof))
            answer = client.receive()
            assert answer is not None
            assert answer.reason == "host_mismatch"


@pytest.mark.parametrize("keep", [True, False])
def test_http_1_0(daemon: Daemon, keep: bool) -> None:
    """nginx before 1.29.7 asks by HTTP/1.0: answered, and kept alive only where it asks for it."""
    more = b"Connection: keep-alive\r\n" if keep else b""
    with daemon.client() as client:
        client.send(b"GET /authz/open HTTP/1.0\r\n" + more + b"\r\n")
        answer = client.receive()
        assert answer is not None
        assert answer.status == 204
        assert answer.headers["connection"] == ("keep-alive" if keep else "close")
        if keep:
            assert client.ask("open").status == 204
        else:
            assert client.closed()


def test_no_answer_has_a_body(daemon: Daemon) -> None:
    """204 has no Content-Length, every other answer has Content-Length: 0."""
    with daemon.client() as client:
        assert "content-length" not in client.ask("open").headers
        assert client.ask("site").headers["content-length"] == "0"


BAD = {
    "post": b"POST /authz/open HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "delete": b"DELETE /authz/open HTTP/1.1\r\nHost: a\r\n\r\n",
    "the admin listener's": b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    "the status page's": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "other path": b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
    "query": b"GET /authz/open?x HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute": b"GET http://a/authz/open HTTP/1.1\r\nHost: a\r\n\r\n",
    "repeated": b"GET /authz/open HTTP/1.1\r\nHost: a\r\nSSL-Client-Verify: NONE\r\n"
    b"ssl-client-verify: SUCCESS\r\n\r\n",
    "underscores": b"GET /authz/open HTTP/1.1\r\nHost: a\r\nSSL_Client_Verify: SUCCESS\r\n\r\n",
    "two hosts": b"GET /authz/open HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
}
FATAL = {
    "body": b"GET /authz/open HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "chunked": b"GET /authz/open HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths": b"GET /authz/open HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare lf": b"GET /authz/open HTTP/1.1\nHost: a\n\n",
    "folded": b"GET /authz/open HTTP/1.1\r\nHost: a\r\nX-Real-IP: 1\r\n 2\r\n\r\n",
    "nul": b"GET /authz/open HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "escape": b"GET /authz/open HTTP/1.1\r\nHost: a\r\nX-Request-ID: a\x1b[31mb\r\n\r\n",
    "lone cr": b"GET /authz/open HTTP/1.1\r\nHost: a\r\nX-Request-ID: a\rb\r\n\r\n",
    "del": b"GET /authz/open HTTP/1.1\r\nHost: a\r\nX-Request-ID: a\x7fb\r\n\r\n",
    "the control socket's": b'{"kind": "serial", "value": "1"}\n',
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http 0.9": b"GET /authz/open\r\n\r\n",
    "no colon": b"GET /authz/open HTTP/1.1\r\nHost a\r\n\r\n",
    "blank before colon": b"GET /authz/open HTTP/1.1\r\nHost : a\r\n\r\n",
    "upgrade": b"GET /authz/open HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "long": b"GET /authz/open HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 300_000,
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_malformed_is_400(daemon: Daemon, name: str) -> None:
    """A readable request that isn't the contract's gets 400 bad_request; the connection lives."""
    with daemon.client() as client:
        client.send(BAD[name])
        answer = client.receive()
        assert answer is not None
        assert (answer.status, answer.reason) == (400, "bad_request")
        assert client.ask("open").status == 204


@pytest.mark.parametrize("name", FATAL)
def test_what_can_not_be_framed_is_400_and_closed(daemon: Daemon, name: str) -> None:
    """Where the next request begins isn't known: one 400, nothing that follows is read."""
    with daemon.client() as client:
        client.send(FATAL[name] + question("open"))
        answer = client.receive()
        assert answer is not None
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert client.closed()


def test_a_128_kib_certificate_header_is_read(daemon: Daemon) -> None:
    """128 KiB of header arrive and are judged; one byte more is 400."""
    with daemon.client() as client:
        fits = client.ask(
            "site", None, {"SSL-Client-Cert": "x" * 131072, "SSL-Client-Verify": "SUCCESS"}
        )
        assert fits.reason == "malformed_certificate"
        assert client.ask("site", None, {"SSL-Client-Cert": "x" * 131073}).status == 400


def test_a_half_sent_request_is_given_up(daemon: Daemon) -> None:
    """A head that doesn't end within header_timeout closes the connection."""
    with daemon.client() as client:
        client.send(b"GET /authz/open HTTP/1.1\r\nHost:")
        start = time.monotonic()
        assert client.closed()
        assert time.monotonic() - start < 4


def test_a_silent_connection_is_given_up(daemon: Daemon) -> None:
    """A connection on which nothing is asked closes after idle_timeout."""
    with daemon.client() as client:
        client.ask("open")
        assert client.closed()


def test_slow_peers_starve_nobody(daemon: Daemon) -> None:
    """200 half-sent requests stand open while others are answered."""
    slow = [Client(daemon.socket) for _ in range(200)]
    try:
        for each in slow:
            each.send(b"GET /authz/site HTTP/1.1\r\nHo")
        for _ in range(50):
            assert daemon.ask("site", alice).status == 204
    finally:
        for each in slow:
            each.socket.close()


def test_large_requests_at_once_hold_up_nobody(daemon: Daemon) -> None:
    """Of 60 large requests that have arrived before a usual one, most are answered after it; all
    are answered in the end."""
    large = question(
        "site", None, {"SSL-Client-Verify": "SUCCESS", "SSL-Client-Cert": "A" * 60_000}
    )
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(daemon.client()) for _ in range(61)]
        for each in peers:
            each.ask("open")
        *many, usual = peers
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            for number, each in enumerate(many):
                each.send(large.replace(b"AAAA", b"%04d" % number, 1))
            usual.send(question("own", alice))
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        assert usual.receive() is not None
        answered = select.select([each.socket for each in many], [], [], 0)[0]
        assert len(answered) < len(many) / 2
        for each in many:
            answer = each.receive()
            assert answer is not None
            assert answer.reason == "malformed_certificate"


def test_a_peer_that_only_asks_and_never_reads(daemon: Daemon) -> None:
    """It is given up, takes no memory, and others go on."""
    before = daemon.rss()
    many = question("site", alice) * 1000
    for each in (many, question("site", alice)):
        with daemon.client() as client:
            client.socket.settimeout(0.3)
            for _ in range(20_000):
                try:
                    client.send(each)
                except (BrokenPipeError, ConnectionResetError, TimeoutError):
                    break
            assert daemon.ask("site", alice).status == 204
    assert daemon.rss() < before + 20 * 2**20


def test_half_closing_after_the_question_still_gets_the_answer(daemon: Daemon) -> None:
    """A peer that shuts its side down gets what it asked for."""
    import socket

    with daemon.client() as client:
        client.send(question("open"))
        client.socket.shutdown(socket.SHUT_WR)
        answer = client.receive()
        assert answer is not None
        assert answer.status == 204
        assert client.closed()


def test_a_log_that_nobody_reads_takes_little_memory(tmp_path: Path) -> None:
    """stderr is a pipe that is never read, URIs are long: lines are dropped, decisions go on."""
    daemon = Daemon(tmp_path, POLICY, "limits: {logged_denials: 0}\n")
    reading, writing = os.pipe()
    daemon.process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "serve", "--config", str(daemon.config)],
        cwd=ROOT, stderr=writing,
    )  # fmt: skip
    try:
        daemon.until(lambda: daemon.status("/readyz") == 200)
        before = daemon.rss()
        asked = question("site", None, {"X-Original-URI": "/" + "\xff" * 8000})
        with daemon.client() as client:
            for _ in range(450):
                for _ in range(20):
                    client.send(asked)
                    assert client.receive() is not None
        assert daemon.rss() < before + 80 * 2**20
        daemon.until(lambda: daemon.metric("mtls_sidecar_log_lines_dropped_total") > 0)
    finally:
        daemon.process.kill()
        daemon.process.wait()
        os.close(reading)
        os.close(writing)


def test_a_decision_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    """Should the engine ever raise, nginx gets a 400 at once, and the log the traceback."""
    from types import SimpleNamespace

    from asking import site
    from fuzz_targets import silent

    from sidecar.authorizer.connection import Service
    from sidecar.core.config.settings import Limits
    from sidecar.core.request import AuthzRequest

    def broken(*_: object) -> None:
        raise RuntimeError("out of luck")

    engine = SimpleNamespace(decide=broken, policy=site("verified"))

    service = Service(engine, silent(), Limits())  # type: ignore[arg-type]  # a broken engine
    answered = service.decide(AuthzRequest("site"))
    assert answered.head.startswith(b"HTTP/1.1 400")
    assert answered.expires == 0.0
    assert "out of luck" in caplog.text


def test_the_daemon_is_as_it_was(daemon: Daemon) -> None:
    """After all of the above it serves, and nothing was logged as an exception."""
    assert daemon.ask("site", alice).status == 204
    assert "Traceback" not in daemon.log.read_text()
