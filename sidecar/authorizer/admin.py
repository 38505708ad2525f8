"""The admin listener: metrics, health and the status page.  It only ever reads."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import cast

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from sidecar.authorizer.telemetry.prometheus import registry_for

from .status_page import Status

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;width:100%}
th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #ddd}
.bad{color:#a00;font-weight:600}.good{color:#060}code,pre{font-size:.9em;white-space:pre-wrap}
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

MOST_CONNECTIONS = 64
"""Most connections at once; those beyond are closed."""

DEADLINE = 20.0
"""Seconds that a connection has for its request and its answer."""


def make_app(status: Status, registry: CollectorRegistry) -> web.Application:
    """The application; every path is GET or HEAD."""

    async def metrics(request: web.Request) -> web.Response:
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": kind})

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if status.not_ready:
            return web.Response(status=503, text=f"not ready: {status.not_ready}\n")
        return web.Response(text="ok\n")

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=render_page(status), content_type="text/html")

    app = web.Application(middlewares=[_harden], client_max_size=0)
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", livez)])
    app.add_routes([web.get("/readyz", readyz), web.get("/", page)])
    return app


@web.middleware
async def _harden(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = web.Response(status=error.status, text=f"{error.status} {error.reason}\n")
    response.headers.update(HEADERS)
    response.force_close()  # one request each: a connection that stays is one that is held
    return response


class Admin:
    """The listener at work: a bounded number of connections, each for one request in its time.

    Whoever reaches it could otherwise hold as many of the daemon's descriptors as he likes.
    """

    def __init__(self, status: Status) -> None:
        app = make_app(status, registry_for(status.counts))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self._servers: list[asyncio.Server] = []
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self, listeners: list[socket.socket]) -> None:
        """Serve on these sockets until closed."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        for listener in listeners:
            self._servers.append(await loop.create_server(self._accept, sock=listener))
        self._sweeping = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Accept no more, and end what is under way."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for server in self._servers:
            server.close()
        await self._runner.cleanup()

    def _open(self) -> list[web.RequestHandler]:
        server = self._runner.server
        return server.connections if server is not None else []

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(self._open()) >= MOST_CONNECTIONS:
            return _Refused()
        return server()

    async def _sweep(self) -> None:
        """Cut connections that aren't done in time."""
        since: dict[web.RequestHandler, float] = {}
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            since = {each: since.get(each, now) for each in self._open()}
            for each, start in since.items():
                if now - start > DEADLINE and each.transport is not None:
                    each.transport.abort()


class _Refused(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


# -- the page


def render_page(status: Status) -> str:
    """The status page: one HTML document, nothing loaded from elsewhere."""
    status.counts.settle()
    state = (
        f'<p class="bad">Not ready: {escape(status.not_ready)}</p>'
        if status.not_ready
        else '<p class="good">Ready</p>'
    )
    parts = [f"<h1>mtls-sidecar</h1>{state}", _problems(status)]
    if status.policy is not None:
        parts += [_policy(status), _locations(status), _crls(status), _expiring(status)]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>mtls-sidecar</title>'
        f"<style>{STYLE}</style>{''.join(parts)}</html>"
    )


def _problems(status: Status) -> str:
    if not status.problems:
        return ""
    lines = escape("\n".join(status.problems))
    return f'<h2 class="bad">The last reload was refused</h2><pre>{lines}</pre>'


def _policy(status: Status) -> str:
    assert status.policy is not None
    return (
        f"<p>Policy <code>{escape(status.policy.hash)}</code>, in force since "
        f"{_utc(status.loaded_at)}; {len(status.policy.locations)} locations.</p>"
    )


def _locations(status: Status) -> str:
    assert status.policy is not None
    totals: dict[str, dict[str, int]] = {}
    for (name, verdict, _), count in list(status.counts.decisions.items()):
        row = totals.setdefault(name, {"allow": 0, "deny": 0})
        row[verdict] += count
    rows = []
    for name, location in list(status.policy.locations.items())[:1000]:
        row = totals.get(name, {"allow": 0, "deny": 0})
        mode = "monitor" if location.monitor else "enforce"
        rows.append((name, mode, str(row["allow"]), str(row["deny"])))
    return _table("Locations", ("name", "mode", "allowed", "denied"), rows)


def _crls(status: Status) -> str:
    assert status.policy is not None
    rows = [
        (trust.name, crl.source, str(crl.entry_count), _utc(crl.next_update), crl.unusable)
        for trust in status.policy.trusts.values()
        for crl in trust.crl_list
    ]
    return _table("CRLs", ("trust", "source", "entries", "next update", ""), rows) if rows else ""


def _expiring(status: Status) -> str:
    rows = [(within, str(count)) for within, count in status.counts.expiring().items()]
    return _table("Clients that end soon", ("within", "certificates"), rows)


def _table(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<h2>{escape(title)}</h2><table><tr>{head}</tr>{body}</table>"


def _utc(moment: float | None) -> str:
    if moment is None:
        return "never"
    try:
        return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%SZ}"
    except (OverflowError, OSError, ValueError):
        return "never"
