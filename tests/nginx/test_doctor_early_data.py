"""`doctor` is right about early data: bytes that somebody recorded are a request once more."""

from __future__ import annotations

import re
import select
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from examined import CONF, POLICY, SERVER, found
from stack import Stack
from tools import NginxBinary, need, openssl

REQUEST = "GET /early HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n"
GUARD = "if ($ssl_early_data) { return 425; }"


@pytest.mark.parametrize(
    ("said", "again"),
    [("ssl_early_data on;", 1), ("ssl_early_data off;", 0), (f"ssl_early_data on; {GUARD}", 0)],
)
def test_early_data_is_allowed_again(
    said: str, again: int, nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """With `ssl_early_data on`, the recorded bytes of a request are served once more."""
    conf = CONF.replace(SERVER, f"{SERVER} ssl_protocols TLSv1.3; {said}")
    with Stack(nginx_binary, tmp_path, conf=conf, policy=POLICY) as stack:
        assert found(stack) == ({"early-data"} if again else set())
        recorded = record_early_data(stack)
        before = served(stack)
        with socket.create_connection(("127.0.0.1", port_of(stack)), timeout=20) as connection:
            connection.sendall(recorded)
            with suppress(ConnectionResetError):
                while connection.recv(65536):  # until nginx closes: its handshake can't be finished
                    pass
        assert served(stack) - before == again


def served(stack: Stack) -> int:
    """How many of the early requests were answered with the application's page."""
    return len(re.findall(r'"GET /early HTTP/1.1" 200', stack.nginx.access_log))


def port_of(stack: Stack) -> int:
    return next(iter(stack.ports.values()))


def record_early_data(stack: Stack) -> bytes:
    """What alice's client sends when it resumes a session with a request as early data."""
    program = need(openssl())
    cert, key = stack.people.alice.write(stack.directory / "early")
    session, request = stack.directory / "session", stack.directory / "request"
    request.write_text(REQUEST)
    client = ["s_client", "-tls1_3", "-quiet", "-servername", "app.example.com"]
    client += ["-cert", str(cert), "-key", str(key)]
    at = f"127.0.0.1:{port_of(stack)}"
    first = program.run(*client, "-connect", at, "-sess_out", session, input=REQUEST)
    assert "200 OK" in first.stdout, first.stderr
    sent = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as between:
        relay = threading.Thread(target=relay_once, args=(between, port_of(stack), sent))
        relay.start()
        at = f"127.0.0.1:{between.getsockname()[1]}"
        resume = ["-no_ign_eof", "-connect", at, "-sess_in", str(session), "-early_data"]
        program.run(*client, *resume, request, input="")
        relay.join()
    return bytes(sent)


def relay_once(listener: socket.socket, port: int, sent: bytearray) -> None:
    """Pass one connection on until nginx closes it, and keep what the client sent.

    nginx has logged its requests by then.
    """
    listener.settimeout(20)
    with listener.accept()[0] as client, socket.create_connection(("127.0.0.1", port)) as server:
        ends = [client, server]
        while server in ends:
            for end in select.select(ends, [], [], 20)[0] or ends:
                other = server if end is client else client
                try:
                    data = end.recv(65536)
                except ConnectionError:
                    data = b""
                with suppress(OSError):  # the other end is gone already
                    other.sendall(data) if data else other.shutdown(socket.SHUT_WR)
                if not data:
                    ends.remove(end)
                elif end is client:
                    sent += data
