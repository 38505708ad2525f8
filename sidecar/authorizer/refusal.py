"""Refuse every question at once while no policy is in force.

At a socket of the service manager, questions would otherwise wait until nginx times out after 10
seconds, and occupy connections of a worker.  After a refusal, nginx answers 500 at once (fail
closed).
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
"""Seconds that a peer has to send its question."""

MAX_OPEN = 1024
"""Maximum number of connections; further ones are closed without an answer."""

MAX_HEAD = 256 * 1024
"""Maximum octets of a question that are read."""


class Refusal:
    """Answer 503 on listeners until closed; the listeners stay open for the daemon."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self.open: set[_Refused] = set()

    async def start(self, listeners: Sequence[socket.socket]) -> None:
        """Refuse all waiting and new connections from now on."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            copy = listener.dup()  # closing a server closes its socket
            self._servers.append(
                await loop.create_server(lambda: _Refused(self), sock=copy, backlog=BACKLOG)
            )

    async def close(self) -> None:
        """Stop refusing."""
        for server in self._servers:
            server.close()
        for each in list(self.open):
            each.abort()
        self._servers.clear()
        await asyncio.sleep(0)


class _Refused(asyncio.Protocol):
    """Read any question of one connection and refuse it."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self._tail, self._read = b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the same methods
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
