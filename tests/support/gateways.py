"""Applications behind fastcgi_pass, uwsgi_pass and scgi_pass: each answers with what it saw.

As JSON, and as the application of `stack` does: the parameter HTTP_X_CLIENT_CN is told as the
header `x-client-cn`, each as often as it came.
"""

from __future__ import annotations

import io
import json
import socketserver
import struct
from collections.abc import Iterator
from typing import IO

from background import BackgroundServer

Params = list[tuple[str, str]]

_END, _PARAMS, _STDIN, _STDOUT = 3, 4, 5, 6


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class Gateway(BackgroundServer):
    """A server on `port` that speaks one of the protocols: "fastcgi", "uwsgi" or "scgi"."""

    def __init__(self, protocol: str) -> None:
        handler = {"fastcgi": _FastCgi, "uwsgi": _Uwsgi, "scgi": _Scgi}[protocol]
        self._server = _Server(("127.0.0.1", 0), handler)
        self.port = self._server.server_address[1]


class _FastCgi(socketserver.StreamRequestHandler):
    """The FastCGI Specification 1.0, as far as nginx uses it: one request a connection."""

    def handle(self) -> None:
        params = b""
        while record := _record(self.rfile):
            kind, content = record
            if kind == _PARAMS:
                params += content
            elif kind == _STDIN and not content:
                break
        answer = b"Status: 200 OK\r\n" + _told(list(_fastcgi_pairs(params)))
        for kind, content in ((_STDOUT, answer), (_STDOUT, b""), (_END, bytes(8))):
            self.wfile.write(struct.pack("!BBHHBB", 1, kind, 1, len(content), 0, 0) + content)


class _Uwsgi(socketserver.StreamRequestHandler):
    """The uwsgi protocol: a header of 4 octets, then pairs, their lengths little-endian."""

    def handle(self) -> None:
        size = struct.unpack("<BHB", self.rfile.read(4))[1]
        params = list(_uwsgi_pairs(self.rfile.read(size)))
        self.wfile.write(b"HTTP/1.0 200 OK\r\n" + _told(params))


class _Scgi(socketserver.StreamRequestHandler):
    """SCGI: a netstring of names and values, each ended by NUL."""

    def handle(self) -> None:
        size = b""
        while (digit := self.rfile.read(1)).isdigit():
            size += digit
        parts = self.rfile.read(int(size)).decode("latin-1").split("\0")
        params = list(zip(parts[::2], parts[1::2], strict=False))
        self.wfile.write(b"Status: 200 OK\r\n" + _told(params))


def _record(stream: IO[bytes] | io.BufferedIOBase) -> tuple[int, bytes] | None:
    head = stream.read(8)
    if len(head) < 8:
        return None
    _, kind, _, size, padding, _ = struct.unpack("!BBHHBB", head)
    content = stream.read(size)
    stream.read(padding)
    return kind, content


def _fastcgi_pairs(data: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(data):
        sizes = []
        for _ in range(2):
            size, at = data[at], at + 1
            if size & 0x80:
                size = (size & 0x7F) << 24 | int.from_bytes(data[at : at + 3], "big")
                at += 3
            sizes.append(size)
        middle, end = at + sizes[0], at + sum(sizes)
        yield data[at:middle].decode("latin-1"), data[middle:end].decode("latin-1")
        at = end


def _uwsgi_pairs(data: bytes) -> Iterator[tuple[str, str]]:
    parts, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "little")
        parts.append(data[at + 2 : at + 2 + size].decode("latin-1"))
        at += 2 + size
    yield from zip(parts[::2], parts[1::2], strict=True)


def _told(params: Params) -> bytes:
    """The rest of the answer, behind its status."""
    headers = [
        [name.removeprefix("HTTP_").replace("_", "-").lower(), value]
        for name, value in params
        if name.startswith("HTTP_")
    ]
    given = dict(params)
    saw = {
        "app": True,
        "method": given.get("REQUEST_METHOD", ""),
        "user": given.get("REMOTE_USER", ""),
        "headers": headers,
        "others": sorted(name for name, _ in params if not name.startswith("HTTP_")),
        "body": "",
    }
    return b"Content-Type: application/json\r\n\r\n" + json.dumps(saw).encode()
