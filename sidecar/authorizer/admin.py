"""Serve metrics, health and the status page of the authorizer on the admin listener."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics

from sidecar.authorizer.telemetry.prometheus import registry_for
from sidecar.core.errors import printable
from sidecar.runtime.admin_listener import AdminListener, Handler, Renderer, serve_admin

from .daemon_status import DaemonStatus
from .readiness import shut_out
from .status_page.headers import HEADERS

MAX_QUERY = 128
"""Most characters of what is searched for on the page."""

MAX_SEARCHES = 4
"""Most different pages and metrics that may wait when one more search is asked for."""

__all__ = ["admin_listener", "make_routes", "serve_admin"]


def admin_listener(status: DaemonStatus, hosts: tuple[str, ...] = ()) -> AdminListener:
    """The listener with its paths; `hosts` are names under which it may be asked."""
    return AdminListener(make_routes(status, registry_for(status.counts)), hosts, HEADERS)


def make_routes(status: DaemonStatus, registry: CollectorRegistry) -> dict[str, Handler]:
    """Every path, GET or HEAD."""
    renderer = Renderer(before=lambda: status.counts.settle())

    async def metrics(request: web.Request) -> web.Response:
        encode, kind = choose_format(request.headers.get("Accept", ""))
        body = await renderer.get(kind, lambda: encode(registry))
        return web.Response(body=body, headers={"Content-Type": kind})

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return _readiness(status, time.time())

    async def page(request: web.Request) -> web.Response:
        query = request.query.get("q", "")[:MAX_QUERY]
        if query and renderer.waiting >= MAX_SEARCHES:
            text = "503 too many searches wait already: try again\n"
            return web.Response(status=503, text=text, headers={"Retry-After": "2"})
        text = await renderer.get(f"page {query}", lambda: _page(status, query))
        return web.Response(text=text, content_type="text/html")

    return {"/metrics": metrics, "/livez": livez, "/readyz": readyz, "/": page}


Format = tuple[Callable[[CollectorRegistry], bytes], str]

_OPENMETRICS: Format = openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST
_TEXT: Format = generate_latest, CONTENT_TYPE_PLAIN_0_0_4


def choose_format(accept: str) -> Format:
    """Choose OpenMetrics 1.0.0 for a client that takes it or names no version, else plain text.

    Each format is rendered on its own, so there are two, whatever a client writes.
    """
    for each in accept.split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        versions = [each for each in parameters if each.startswith("version=")]
        if kind == "application/openmetrics-text" and versions in ([], ["version=1.0.0"]):
            return _OPENMETRICS
    return _TEXT


def _page(status: DaemonStatus, query: str) -> str:
    """Render the status page, in a thread: its modules are loaded when it is first wanted."""
    from .status_page.page import render_page

    return render_page(status, time.time(), query)


def _readiness(status: DaemonStatus, now: float) -> web.Response:
    """503 while nobody can get in who should; 200, with a warning, while something is amiss."""
    why, shut = shut_out(status.policy, now) if status.policy is not None else ("", "")
    if status.not_ready or why:
        text = printable(f"not ready: {status.not_ready or why}")
        return web.Response(status=503, text=f"{text}\n")
    warnings = [f"warning: {shut}"] if shut else []
    if status.problems:
        warnings.append(f"warning: an older version serves: {status.problems[0]}")
    warnings += [f"warning: {line}" for line in status.standing()]
    return web.Response(text="".join(f"{printable(line)}\n" for line in ["ok", *warnings]))
