"""Coroutines in a thread of their own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sidecar.runtime import loop_thread
from sidecar.runtime.loop_thread import LoopThread


async def test_what_it_runs_returns_and_raises() -> None:
    """Result and error are those of the coroutine, which runs in another thread."""
    thread = LoopThread("other")

    async def where() -> int:
        await asyncio.sleep(0)
        return threading.get_ident()

    async def fail() -> None:
        raise ConnectionError("gone")

    assert await thread.run(where) == await thread.run(where) != threading.get_ident()
    with pytest.raises(ConnectionError, match="gone"):
        await thread.run(fail)


async def test_who_gives_up_ends_it() -> None:
    """A coroutine that nobody waits for any more is cancelled."""
    thread, ended = LoopThread("other"), threading.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(thread.run(wait), 0.05)
    assert await asyncio.to_thread(ended.wait, 30)


async def test_where_it_stands_still_the_caller_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller gives up in time, further ones are refused, and all is well when it goes on."""
    monkeypatch.setattr(loop_thread, "MAX_QUEUED", 2)
    thread, goes_on = LoopThread("other"), threading.Event()

    async def stand_still() -> None:
        goes_on.wait()

    async def work() -> str:
        return "done"

    for each in (stand_still, work, work):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(thread.run(each), 0.05)
    with pytest.raises(OSError, match="stands still"):
        await thread.run(work)
    goes_on.set()
    while thread._queued:
        await asyncio.sleep(0.01)
    assert await thread.run(work) == "done"
