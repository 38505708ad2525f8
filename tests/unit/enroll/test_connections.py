"""Bound the connections of the enrolment service."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from aiohttp import web

from sidecar.enroll.connections import MAX_HEADERS, MAX_OCTETS, MOST, SILENT_SECONDS, Connections
from sidecar.runtime.http_runner import HttpRunner

UNIT = Path(__file__).resolve().parents[3] / "deploy/mtls-sidecar-enroll.service"


def test_who_is_silent_is_closed_and_who_waits_for_a_certificate_is_not() -> None:
    """Counted from the connection's start, or from the end of its last request; however long a
    request takes, its connection stays."""
    silent: Any = "silent"
    asking: Any = "asking"
    under_way = {asking}
    server: Any = SimpleNamespace(connections=[silent, asking])
    connections = Connections(server, under_way)
    assert connections.silent(100) == []
    assert connections.silent(100 + SILENT_SECONDS) == []
    assert connections.silent(101 + SILENT_SECONDS) == [silent]
    server.connections.remove(silent)
    under_way.clear()
    assert connections.silent(100 + 2 * SILENT_SECONDS) == []
    assert connections.silent(102 + 2 * SILENT_SECONDS) == [asking]
    server.connections.clear()
    assert connections.silent(103 + 2 * SILENT_SECONDS) == []


@pytest.mark.parametrize("why", ["under way", "unread"])
def test_who_sends_more_than_a_form_is_closed(why: str) -> None:
    """While a request is under way, or its answer isn't read, as much as a form with its head is
    passed on, however many requests came before; one octet more ends the connection."""
    handler = Mock()
    under_way: set[object] = set()
    server: Any = Mock(return_value=handler, connections=[])
    peer = cast(Any, Connections(server, under_way).accept())
    peer.connection_made(Mock())
    for _ in range(3):
        peer.data_received(bytes(MAX_OCTETS))
    if why == "unread":
        peer.pause_writing()
        peer.resume_writing()
        peer.pause_writing()
    else:
        under_way.add(handler)
    peer.data_received(b"")
    assert handler.data_received.call_count == 4
    assert not handler.transport.abort.called
    peer.data_received(b"x")
    assert handler.data_received.call_count == 4
    assert handler.transport.abort.called


class _Unread(asyncio.Transport):
    """A peer that reads nothing."""

    is_cut = False

    def write(self, data: Any) -> None: ...

    def is_closing(self) -> bool:
        return self.is_cut

    def abort(self) -> None:
        self.is_cut = True

    def close(self) -> None:
        self.is_cut = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"
LARGE = HEAD + b"".join(b"h%d: %s\r\n" % (number, b"v" * 8100) for number in range(45))
SMALL = HEAD + b"\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        [SMALL, *[LARGE + b"\r\n"] * 40],
        [LARGE + b"\r\n", *[SMALL * 100] * 100, LARGE],
        [CHUNKED, *[b"1\r\nf\r\n" * 1000] * 100],
    ],
    ids=["large", "small", "chunks"],
)
async def test_all_connections_together_fit_in_memory(sent: list[bytes]) -> None:
    """The most that one holds, times the most that there are, leaves half of the unit's MemoryMax
    for the rest, whatever is sent while a request waits for its certificate."""
    under_way: set[object] = set()
    forever = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        under_way.add(request.protocol)
        await forever.wait()
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/x", handler)
    runner = HttpRunner(app, access_log=None, max_headers=MAX_HEADERS, shutdown_timeout=0.0)
    await runner.setup()
    assert runner.server is not None
    connections = Connections(runner.server, under_way)
    connection, peer = cast(Any, connections.accept()), _Unread()
    connection.connection_made(peer)
    tracemalloc.start()
    for data in sent:
        if not peer.is_cut:
            connection.data_received(data)
        for _ in range(5):
            await asyncio.sleep(0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    connection.connection_lost(None)
    forever.set()
    await runner.cleanup()
    assert "MemoryMax=512M" in UNIT.read_text().splitlines()
    assert MOST * most < 256 * 2**20, most
