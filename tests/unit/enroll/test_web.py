"""Requests about one thing have turns, those about others don't wait; forms are bounded."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sidecar.enroll.refused import Refused
from sidecar.enroll.web import MAX_FIELDS, MAX_TURNS, _multipart, _Turn


async def test_one_after_the_other_and_nothing_is_left() -> None:
    """Two about `a` never overlap, one about `b` overlaps both, and no lock stays behind."""
    locks: dict[str, tuple[asyncio.Lock, int]] = {}
    seen: list[str] = []

    async def hold(key: str, name: str) -> None:
        async with _Turn(locks, key):
            seen.append(f"{name} in")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(f"{name} out")

    await asyncio.gather(hold("a", "1"), hold("a", "2"), hold("b", "3"))
    assert seen.index("1 out") < seen.index("2 in")
    assert seen.index("3 in") < seen.index("1 out")
    assert locks == {}


async def test_who_gives_up_waiting_holds_up_nobody() -> None:
    """A request that is cancelled while it waits, or while it has its turn."""
    locks: dict[str, tuple[asyncio.Lock, int]] = {}
    first = _Turn(locks, "a")
    await first.__aenter__()
    waiting = asyncio.ensure_future(_Turn(locks, "a").__aenter__())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await first.__aexit__()
    assert locks == {}


async def test_few_wait_for_one_thing() -> None:
    """Who has one link, while another CA's command takes its time, doesn't get every connection:
    further requests are refused at once, and those about other links go on."""
    locks: dict[str, tuple[asyncio.Lock, int]] = {}
    first = _Turn(locks, "a")
    await first.__aenter__()
    waiting = [asyncio.ensure_future(_Turn(locks, "a").__aenter__()) for _ in range(MAX_TURNS + 9)]
    await asyncio.sleep(0)
    assert sum(each.done() for each in waiting) == 10
    async with _Turn(locks, "b"):
        pass
    for each in waiting:
        each.cancel()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each).__name__ for each in told[-10:]] == ["_TooMany"] * 10
    await first.__aexit__()
    assert locks == {}


async def test_the_parts_of_a_form_are_counted() -> None:
    """Each takes memory for its name and its headers, though it is empty: those behind the eighth
    aren't read."""
    taken: list[str] = []

    async def following() -> Any:
        taken.append("n" * 4000)
        return SimpleNamespace(name=taken[-1], read_chunk=nothing) if len(taken) < 100 else None

    async def nothing(_: int) -> bytes:
        return b""

    async def multipart() -> Any:
        return SimpleNamespace(next=following)

    with pytest.raises(Refused, match="too many fields"):
        await _multipart(cast(Any, SimpleNamespace(multipart=multipart)))
    assert len(taken) == MAX_FIELDS + 1
