"""Bound the service's connections: their number, how long they are silent, and what they send.

nginx passes on whole requests, one after another; whoever else may open the socket could hold
connections without end, until none is left for nginx, and no descriptor for the database.  aiohttp
parses and keeps up to 32 requests that come behind one that isn't answered, or whose answer isn't
read: 25 MB on each connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import cast

from aiohttp import web

MOST = 128
"""Most connections; further ones are closed without an answer."""

SILENT_SECONDS = 75.0
"""How long a connection stays open without a request under way: longer than in nginx (60)."""

MAX_HEADERS = 50
"""Most header lines of a request, of 8 KiB at most; nginx sends a dozen."""

MAX_OCTETS = 256 * 1024
"""Most octets that come while a request is under way, or its answer isn't read: its form.  Those of
all connections together fit in the unit's memory."""


class Connections:
    """The connections of a server.  `under_way` are those with a request under way."""

    def __init__(self, server: web.Server, under_way: Collection[object]) -> None:
        self._server, self._under_way = server, under_way
        self._since: dict[web.RequestHandler, float] = {}

    def accept(self) -> asyncio.BaseProtocol:
        """Make the protocol of a new connection."""
        return _Connection(self._server, self._under_way)

    def silent(self, now: float) -> list[web.RequestHandler]:
        """Return those that were silent for too long; to be called about once a second."""
        self._since = {
            each: now if each in self._under_way else self._since.get(each, now)
            for each in self._server.connections
        }
        return [each for each, since in self._since.items() if now - since > SILENT_SECONDS]

    async def sweep(self) -> None:
        """Close those that are silent for too long, until cancelled."""
        while True:
            await asyncio.sleep(1)
            for each in self.silent(time.monotonic()):
                if each.transport is not None:
                    each.transport.abort()


class _Connection(asyncio.Protocol):
    """Pass everything to the server's protocol, or close a connection too many.

    Many connections are accepted at once, before the server counts the first of them.  One that
    sends more than a request and its form is closed, too.
    """

    def __init__(self, server: web.Server, under_way: Collection[object]) -> None:
        self._server, self._under_way = server, under_way
        self._handler: web.RequestHandler | None = None
        self._is_unread = False
        self._octets = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if len(self._server.connections) >= MOST:
            cast(asyncio.Transport, transport).abort()
            return
        self._handler = self._server()
        self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        handler = self._handler
        if handler is None:
            return
        is_busy = self._is_unread or handler in self._under_way
        self._octets = len(data) + (self._octets if is_busy else 0)
        if self._octets <= MAX_OCTETS:
            handler.data_received(data)
        elif handler.transport is not None:
            handler.transport.abort()

    def eof_received(self) -> None:
        if self._handler is not None:
            self._handler.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._handler is not None:
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._is_unread = True
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._is_unread = False
        if self._handler is not None:
            self._handler.resume_writing()
