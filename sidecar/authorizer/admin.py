"""Serve metrics, health and the status page of the authorizer on the admin listener."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from sidecar import __version__
from sidecar.authorizer.telemetry.prometheus import registry_for
from sidecar.core.errors import printable
from sidecar.runtime.admin_listener import AdminListener, Handler, Renderer, serve_admin

from .daemon_status import DaemonStatus
from .readiness import shut_out

__all__ = ["admin_listener", "make_routes", "render_page", "serve_admin"]

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
}


def admin_listener(status: DaemonStatus, hosts: tuple[str, ...] = ()) -> AdminListener:
    """The listener with its paths; `hosts` are names under which it may be asked."""
    return AdminListener(make_routes(status, registry_for(status.counts)), hosts, HEADERS)


def make_routes(status: DaemonStatus, registry: CollectorRegistry) -> dict[str, Handler]:
    """Every path, GET or HEAD."""
    renderer = Renderer(before=lambda: status.counts.settle())

    async def metrics(request: web.Request) -> web.Response:
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        body = await renderer.get(kind, lambda: encode(registry))
        return web.Response(body=body, headers={"Content-Type": kind})

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return _readiness(status, time.time())

    async def page(_: web.Request) -> web.Response:
        return web.Response(
            text=await renderer.get("page", lambda: render_page(status)), content_type="text/html"
        )

    return {"/metrics": metrics, "/livez": livez, "/readyz": readyz, "/": page}


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


# -- the page


def render_page(status: DaemonStatus) -> str:
    """The status page: one HTML document, nothing loaded from elsewhere."""
    state = (
        f'<p class="bad">Not ready: {escape(status.not_ready)}</p>'
        if status.not_ready
        else '<p class="good">Ready</p>'
    )
    parts = [f"<h1>mtls-sidecar</h1>{state}", _standing(status), _problems(status)]
    if status.policy is not None:
        parts += [_policy(status), _locations(status), _crls(status), _expiring(status)]
    parts.append(f"<p>mtls-sidecar {escape(__version__)}</p>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>mtls-sidecar</title>'
        f"<style>{STYLE}</style>{''.join(parts)}</html>"
    )


def _standing(status: DaemonStatus) -> str:
    lines = escape("\n".join(map(printable, status.standing())))
    return f'<h2 class="bad">What is wrong now</h2><pre>{lines}</pre>' if lines else ""


def _problems(status: DaemonStatus) -> str:
    if not status.problems:
        return ""
    lines = escape("\n".join(status.problems))
    return f'<h2 class="bad">The last reload was refused</h2><pre>{lines}</pre>'


def _policy(status: DaemonStatus) -> str:
    assert status.policy is not None
    since = _utc(status.loaded_at) if status.loaded_at else "the start, by its last good copy"
    return (
        f"<p>Policy <code>{escape(status.policy.hash)}</code>, in force since "
        f"{since}; {len(status.policy.locations)} locations.</p>"
    )


def _locations(status: DaemonStatus) -> str:
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


def _crls(status: DaemonStatus) -> str:
    assert status.policy is not None
    rows = [
        (trust.name, crl.source, str(crl.entry_count), _utc(crl.next_update), crl.unusable)
        for trust in status.policy.trusts.values()
        for crl in trust.crl_list
    ]
    return _table("CRLs", ("trust", "source", "entries", "next update", ""), rows) if rows else ""


def _expiring(status: DaemonStatus) -> str:
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
