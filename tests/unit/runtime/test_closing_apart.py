"""Close sockets in another process."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from typing import Any

import pytest
from lingering import pass_along

from sidecar.runtime import closing_apart
from sidecar.runtime.closing_apart import ClosingApart


async def test_where_no_process_can_be_started_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile nothing is closed; then all of it is, by one process."""
    monkeypatch.setattr(closing_apart, "PAUSE", 0.01)
    start, refused, started = subprocess.Popen, [1, 2], []

    def popen(*args: Any, **options: Any) -> Any:
        if refused:
            refused.pop()
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(start(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    apart = ClosingApart()
    end, into = os.pipe()
    for _ in range(3):
        peer, ours = socket.socketpair()
        pass_along(peer, b"x", into)
        peer.close()
        apart.take(ours)
        assert ours.fileno() == -1
    os.close(into)
    while not started:
        await asyncio.sleep(0.01)
    assert await asyncio.to_thread(os.read, end, 1) == b""
    os.close(end)
    while apart._timer is not None:
        await asyncio.sleep(0.01)
    assert len(started) == 1
    told = "no process closes what peers have passed, for now: [Errno 11] Resource temporarily"
    assert [line.startswith(told) for line in caplog.messages] == [False, True, True]
