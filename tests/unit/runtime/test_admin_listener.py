"""Check the hosts of the admin listener, and share renderings."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web

from sidecar.runtime.admin_listener import MAX_WAITING, Renderer, host_is_ours


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "localhost:9641",
        "127.0.0.1:9641",
        "[::1]:9641",
        "[::1]",
        "node7",
        "10.0.0.1",
    ],
)
def test_a_host_that_no_foreign_dns_has_may_ask(host: str) -> None:
    """Addresses and names without a dot are accepted, with and without a port."""
    assert host_is_ours(host)


def test_another_name_may_ask_only_if_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another name could be an attacker's (DNS rebinding), so it must be listed; case is
    ignored."""
    assert not host_is_ours("evil.test:9641")
    assert not host_is_ours("127.0.0.1.evil.test")
    assert host_is_ours("Metrics.Example.Com:9641", ("metrics.example.com",))
    monkeypatch.setattr(socket, "gethostname", lambda: "Node7.example.com")
    assert host_is_ours("node7.example.com")


async def test_requests_during_a_rendering_share_the_next_one() -> None:
    """One runs at a time; `before` runs before each; an answer is never older than its request."""
    began, release = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    calls: list[int] = []

    def render() -> int:
        calls.append(1)
        if len(calls) == 1:
            loop.call_soon_threadsafe(began.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(60)
        return len(calls)

    renderer = Renderer()
    async with asyncio.timeout(60):
        first = asyncio.create_task(renderer.get("a", render))
        await began.wait()
        others = [asyncio.create_task(renderer.get("a", render)) for _ in range(3)]
        await asyncio.sleep(0)
        release.set()
        assert await first == 1
        assert await asyncio.gather(*others) == [2, 2, 2]


async def test_an_error_of_a_rendering_reaches_those_who_asked() -> None:
    """The error is raised to the callers, and the next request renders again."""

    def fails() -> int:
        raise ValueError("no")

    renderer = Renderer()
    with pytest.raises(ValueError, match="no"):
        await renderer.get("a", fails)
    assert await renderer.get("a", lambda: 7) == 7


async def test_few_different_renderings_wait() -> None:
    """Each is made though its client has gone: further ones are refused, those that wait shared."""
    loop = asyncio.get_running_loop()
    began, release = asyncio.Event(), asyncio.Event()

    def slow() -> None:
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(60)

    def quick() -> None:
        pass

    renderer = Renderer()
    async with asyncio.timeout(60):
        asked = [asyncio.create_task(renderer.get("first", slow))]
        await began.wait()
        names = [str(number) for number in range(MAX_WAITING)]
        asked += [asyncio.create_task(renderer.get(name, quick)) for name in names]
        await asyncio.sleep(0)
        with pytest.raises(web.HTTPServiceUnavailable):
            await renderer.get("one more", quick)
        asked.append(asyncio.create_task(renderer.get(names[0], quick)))
        release.set()
        await asyncio.gather(*asked)
    await renderer.get("one more", quick)
