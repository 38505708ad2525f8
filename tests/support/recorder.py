"""A server that keeps the bytes of each request as nginx sent them, and answers 204 to each."""

from __future__ import annotations

import socketserver
from pathlib import Path

from background import BackgroundServer

_ANSWER = b"HTTP/1.1 204 No Content\r\nX-Client-CN: alice\r\n\r\n"


class Recorder(BackgroundServer):
    """Listens on a unix socket in `directory`; `taken` are the requests since it was last asked.

    A request is all that came in one go, so what stands behind a blank line is part of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._requests: list[bytes] = []
        self._server = server = _Server(str(path), _Handler)
        server.requests = self._requests
        path.chmod(0o666)

    def taken(self) -> list[bytes]:
        found = self._requests[:]
        self._requests.clear()
        return found


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
    requests: list[bytes]


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        found = b""
        while data := self.request.recv(1 << 20):
            found += data
            if b"\r\n\r\n" in found:
                self.server.requests.append(found)
                found = b""
                self.request.sendall(_ANSWER)
