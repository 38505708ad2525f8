"""A stand-in for oauth2-proxy, as a process of its own: it speaks its paths, cookies and headers.

    python login_service.py PORT

/oauth2/auth answers 202 with X-Auth-Request-User for a session that it began, else 401;
/oauth2/start leads to /oauth2/callback, as the provider would; that begins a session and leads
back.  /oauth2/asked tells the headers of the last question, which authentik's path takes, too.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

SESSIONS: dict[str, str] = {}
ASKED: list[tuple[str, str]] = []


class Login(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer by the path."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        found = re.search(r"_oauth2_proxy=(\w+)", self.headers.get("Cookie", ""))
        user = SESSIONS.get(found[1], "") if found else ""
        if parts.path == "/oauth2/asked":
            self._answer(200, {}, json.dumps(ASKED).encode())
        elif parts.path in ("/oauth2/auth", "/outpost.goauthentik.io/auth/nginx"):
            ASKED[:] = self.headers.items()
            self._answer(202 if user else 401, {"X-Auth-Request-User": user} if user else {})
        elif parts.path == "/oauth2/callback":
            session = secrets.token_hex(8)
            SESSIONS[session] = parse_qs(parts.query)["user"][0]
            back = parse_qs(parts.query)["rd"][0]
            cookie = f"_oauth2_proxy={session}; Secure; HttpOnly; SameSite=Lax"
            self._answer(302, {"Location": back, "Set-Cookie": cookie})
        else:
            back = quote(self.headers.get("X-Auth-Request-Redirect", "/"), safe="")
            self._answer(302, {"Location": f"/oauth2/callback?user=carol&rd={back}"})

    do_POST = do_PUT = do_HEAD = do_GET

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Login).serve_forever()
