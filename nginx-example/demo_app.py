"""The demo's application: python demo_app.py PORT.  It says who nginx says you are."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class App(BaseHTTPRequestHandler):
    """Greets whoever comes.  It relies on X-Client-CN: see snippets/identity.conf."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        who = self.headers.get("X-Client-CN", "whoever you are")
        role = self.headers.get("X-Client-Role", "none")
        body = f"Hello {who}, this is {self.path}, your role: {role}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """nginx writes the log."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
