"""Refuse questions while no policy is in force."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from sidecar.authorizer import refusal
from sidecar.authorizer.refusal import DENIED, MALFORMED, MAX_HEAD, Refusal
from sidecar.runtime.guarded_server import Room


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"GET /authz/x HTTP/1.1\r\nHost: x\r\n\r\n", DENIED),
        (b"\r\n\r\n", MALFORMED),
        (b"x" * (MAX_HEAD + 1), MALFORMED),
        (b"GET /authz HTTP/1.0\r\nX: " + b"x" * MAX_HEAD, MALFORMED),
    ],
    ids=["a question", "nothing", "rubbish", "too long"],
)
async def test_every_question_is_refused_at_once(question: bytes, answer: bytes) -> None:
    """Whatever it is, also one that came before; the listener stays open for the daemon."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        found = Refusal(Room(9))
        await found.start([listener])
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(question)
            assert await reader.read() == answer
            writer.close()
        await found.close()
        assert listener.fileno() >= 0
        assert not found.open


@pytest.mark.parametrize(("most", "room"), [(1, 9), (9, 1)])
async def test_too_many_and_too_slow_connections_are_closed(
    monkeypatch: pytest.MonkeyPatch, most: int, room: int
) -> None:
    """A connection over the limit, or for which there are no descriptors, and one that never sends
    a question, is closed without an answer."""
    monkeypatch.setattr(refusal, "MAX_OPEN", most)
    monkeypatch.setattr(refusal, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = listener.getsockname()
        found = Refusal(Room(room))
        await found.start([listener])
        async with asyncio.timeout(60):
            first, one = await asyncio.open_connection(*address)
            while not found.open:
                await asyncio.sleep(0.01)
            second, two = await asyncio.open_connection(*address)
            for reader in (second, first):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            one.close()
            two.close()
        await found.close()
