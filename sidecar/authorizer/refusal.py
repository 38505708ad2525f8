"""Refuse every question at once while no policy is in force.

At a socket of the service manager, questions would otherwise wait until nginx times out after 10
seconds, and occupy connections of a worker.  Each is answered at once, as with a policy without
locations: 403 `unknown_location`, and 400 if it is malformed (fail closed).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Sequence
from typing import cast

from sidecar.core.answer import render
from sidecar.core.decision import Decision, Reason
from sidecar.runtime.guarded_server import Room, Server, start_server


def _answer(reason: Reason) -> bytes:
    return render(Decision(reason), "", 0.0) + b"Connection: close\r\n\r\n"


DENIED, MALFORMED = _answer(Reason.UNKNOWN_LOCATION), _answer(Reason.BAD_REQUEST)
_QUESTION = re.compile(rb"(GET|HEAD) /authz(/[^ ?]*)? HTTP/1\.[01]\r\n")

PATIENCE = 10.0
"""Seconds that a peer has to send its question."""

MAX_OPEN = 1024
"""Maximum number of connections; further ones are closed without an answer."""

MAX_LINE = 256
"""Octets of a question that are looked at."""

MAX_HEAD = 256 * 1024
"""Maximum octets of a question that are read."""


class Refusal:
    """Answer 403 on listeners until closed; the listeners stay open for the daemon.

    `room` is the daemon's for its connections.
    """

    def __init__(self, room: Room) -> None:
        self.most = min(room.most, MAX_OPEN)
        self._room = room
        self._servers: list[Server] = []
        self.open: set[_Refused] = set()

    async def start(self, listeners: Sequence[socket.socket]) -> None:
        """Refuse all waiting and new connections from now on."""
        for listener in listeners:
            copy = listener.dup()  # closing a server closes its socket
            self._servers.append(await start_server(lambda: _Refused(self), copy, self._room))

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
        self._start, self._tail, self._read = b"", b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the same methods
        if len(self._refusal.open) >= self._refusal.most:
            self.abort()
            return
        self._refusal.open.add(self)
        self._end = asyncio.get_running_loop().call_later(PATIENCE, self.abort)

    def data_received(self, data: bytes) -> None:
        self._read += len(data)
        self._start += data[: MAX_LINE - len(self._start)]
        seen = self._tail + data
        self._tail = seen[-3:]
        if b"\r\n\r\n" in seen or self._read > MAX_HEAD:
            self._transport.pause_reading()
            asked = self._read <= MAX_HEAD and _QUESTION.match(self._start)
            self._transport.write(DENIED if asked else MALFORMED)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._refusal.open:
            self._refusal.open.discard(self)
            self._end.cancel()

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._transport.abort()
