"""Who has no rights on the host, but can listen on its ports: what docs/security.md says of him."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from stack import Stack
from tools import ROOT, NginxBinary

EXAMPLES = ROOT / "nginx-example"


class SaysYes(BaseHTTPRequestHandler):
    """Answers as a login service does to somebody who is logged in."""

    def do_GET(self) -> None:
        self.send_response(202)
        self.send_header("X-Auth-Request-User", "admin")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def somebody_who_says_yes() -> Iterator[int]:
    """His port."""
    with HTTPServer(("127.0.0.1", 0), SaysYes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_who_has_the_login_service_s_port_lets_everybody_in(
    nginx_binary: NginxBinary, tmp_path: Path
) -> None:
    """With variants/cert-or-login.conf he says who somebody without a certificate is."""
    with somebody_who_says_yes() as port:
        replaced = {"127.0.0.1:4180": f"127.0.0.1:{port}"}
        site = "variants/cert-or-login.conf"
        with Stack(nginx_binary, tmp_path, sites=[site], more=replaced) as stack:
            answer = stack.get("/")
    assert answer.status == 200
    assert answer.saw("x-login-user") == ["admin"]


def test_every_example_on_127_0_0_1_says_who_else_is_there() -> None:
    """Recipes, and variants that name the address, lead to what docs/security.md says about it."""
    files = [*EXAMPLES.glob("recipes/*.conf"), *EXAMPLES.glob("variants/*.conf")]
    there = [each for each in files if "127.0.0.1" in each.read_text()]
    assert len(there) > 6
    title = "Other users of the host"
    assert [
        each.name for each in there if title not in each.read_text().replace("\n#   ", " ")
    ] == []
    assert f"\n## {title}\n" in (ROOT / "docs/security.md").read_text()
