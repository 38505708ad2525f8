"""A plain HTTPS client: raw requests on one kept-alive connection, every answer as it came."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Answer:
    """One answer; names of headers in lower case, the body as text and as it came.

    Status 0: closed without an answer.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    octets: bytes = field(default=b"", repr=False)

    @property
    def app(self) -> dict[str, Any] | None:
        """What the application saw, or None if the request did not get to it."""
        with suppress(ValueError):
            saw = json.loads(self.body)
            if isinstance(saw, dict) and saw.get("app"):
                return saw
        return None

    def saw(self, name: str) -> list[str]:
        """The values of a header as the application received it."""
        headers = self.app["headers"] if self.app else []
        return [value for key, value in headers if key == name.lower()]


class Connection:
    """One TLS connection, kept alive over its requests."""

    def __init__(self, stream: socket.socket, host: str) -> None:
        self.socket, self.host = stream, host
        self._buffer = b""

    def get(
        self,
        path: str,
        *,
        host: str | None = None,
        method: str = "GET",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Answer:
        """One request; `headers` go out as they are, also twice."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host or self.host}"]
        lines += [f"{name}: {value}" for name, value in pairs]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return self.raw(
            "\r\n".join([*lines, "", ""]).encode("latin-1") + body, head=method == "HEAD"
        )

    def raw(self, request: bytes, *, head: bool = False) -> Answer:
        """Send these bytes, and read one answer."""
        try:
            self.socket.sendall(request)
            return self._receive(head)
        except (ConnectionError, ssl.SSLError):
            return Answer(0)

    def _receive(self, head: bool) -> Answer:
        raw = self._until(b"\r\n\r\n")
        if raw is None:
            return Answer(0)
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        status = int(first.split()[1])
        body = b"" if head or status in (101, 204, 304) else self._body(headers)
        return Answer(status, headers, body.decode("utf-8", "replace"), body)

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            found = b""
            while size := int((self._until(b"\r\n") or b"0").strip(), 16):
                found += self._take(size)
                self._take(2)
            self._until(b"\r\n")
            return found
        if "content-length" in headers:
            return self._take(int(headers["content-length"]))
        while self._more():
            pass
        return self._take(len(self._buffer))

    def _until(self, end: bytes) -> bytes | None:
        while end not in self._buffer:
            if not self._more():
                return None
        return self._take(self._buffer.index(end) + len(end))

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size and self._more():
            pass
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._buffer += data
        return bool(data)

    def read(self, size: int) -> bytes:
        """What follows an answer that switched protocols."""
        return self._take(size)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
