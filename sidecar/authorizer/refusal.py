"""Refusing every question at once while no policy can be used.

At a socket of the service manager questions would wait for a policy until nginx gives each up,
10 seconds later, and with it a worker's connection.  Refused, nginx answers 500 at once: closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import cast

from sidecar.runtime.listen import BACKLOG

ANSWER = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

PATIENCE = 10.0
"""Seconds that a peer has for its question."""

MAX_OPEN = 1024
"""Most connections at once; beyond them each is closed unanswered."""

MAX_HEAD = 256 * 1024
"""Most octets of a question that are read."""


class Refusal:
    """Answers 503 on listeners, until closed; these go on to listen, for whoever serves then."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self.open: set[_Refused] = set()

    async def start(self, listeners: Sequence[socket.socket]) -> None:
        """Refuse whoever connects from now on, or waits already."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            copy = listener.dup()  # closing a server closes its socket
            self._servers.append(
                await loop.create_server(lambda: _Refused(self), sock=copy, backlog=BACKLOG)
            )

    async def close(self) -> None:
        """Refuse nobody more."""
        for server in self._servers:
            server.close()
        for each in list(self.open):
            each.abort()
        self._servers.clear()
        await asyncio.sleep(0)


class _Refused(asyncio.Protocol):
    """One connection: a question is read, whatever it is, and refused."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self._tail, self._read = b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        if len(self._refusal.open) >= MAX_OPEN:
            self.abort()
            return
        self._refusal.open.add(self)
        self._end = asyncio.get_running_loop().call_later(PATIENCE, self.abort)

    def data_received(self, data: bytes) -> None:
        self._read += len(data)
        seen = self._tail + data
        self._tail = seen[-3:]
        if b"\r\n\r\n" in seen or self._read > MAX_HEAD:
            self._transport.pause_reading()
            self._transport.write(ANSWER)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._refusal.open:
            self._refusal.open.discard(self)
            self._end.cancel()

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._transport.abort()
