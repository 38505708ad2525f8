"""Requests whose target is no path; process/test_enroll.py and test_admin_listener.py send them."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from sidecar.runtime.http_runner import HttpRunner


async def _answers(head: bytes, body: bytes = b"", **options: int) -> tuple[int, list[str]]:
    """Send a request; its status, and what the handler was asked for, or the body that it got."""
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((await request.text()) if body else request.raw_path)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = HttpRunner(app, access_log=None, **options)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(head + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + body)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await runner.cleanup()
    return int(answer.split()[1]), asked


@pytest.mark.parametrize(
    ("head", "status", "asked"),
    [
        (b"GET //xn--a/", 200, ["//xn--a/"]),
        (b"GET /http://xn--a/", 200, ["/http://xn--a/"]),
        (b"GET http://xn--a/", 400, []),
        (b"GET http://a/", 400, []),
        (b"GET http://[::1/", 400, []),
        (b"CONNECT xn--a:443", 400, []),
        (b"OPTIONS *", 400, []),
    ],
)
def test_only_a_path_reaches_the_application(head: bytes, status: int, asked: list[str]) -> None:
    """Each is answered; a URL, an authority and an asterisk by 400."""
    assert asyncio.run(_answers(head)) == (status, asked)


def test_no_body_is_decompressed() -> None:
    """One that isn't compressed as it says is read as it is; so is one that is, which else could be
    a thousand times as large as what came."""
    head = b"POST /x HTTP/1.1\r\nContent-Encoding: deflate\r\nContent-Length: 4\r\nX: /x"
    assert asyncio.run(_answers(head, b"abcd")) == (200, ["abcd"])


def test_header_lines_are_counted() -> None:
    """One more than is allowed is 400."""
    for head, status in ((b"GET /x", 200), (b"GET /x HTTP/1.1\r\nX: x", 400)):
        assert asyncio.run(_answers(head, max_headers=2))[0] == status
