"""Detect requests that a page of another site made (cross-site request forgery, RFC 6454, Fetch).

A browser sends its user's certificate with every request to a host, whichever page makes the
request.  It names that page's site in `Sec-Fetch-Site` (all browsers since 2023; Chromium not for a
WebSocket), or at least in `Origin`, which every POST and every WebSocket carries.

Not checked: a request with neither header is accepted as the application's own.  Programs send
neither, and old browsers send neither with a GET.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from .nginx.host import normalize_host

_OURS = frozenset({"same-origin", "none"})
"""`none`: the user typed the address, or opened a bookmark."""

_LINKS = frozenset({"GET", "HEAD"})

_TOP = frozenset({"document", "empty"})
"""Destinations of a link.  `empty`: it went through the application's own service worker
(`fetch(event.request)`, in Chromium); no other `navigate` request has it."""

_SCHEMES = frozenset({"https", "wss"})
"""`wss`: some WebSocket clients that are no browsers name the scheme of the address that they open;
no page has such an origin."""


def other_origin(
    host: str,
    method: str,
    origin: str,
    site: str,
    mode: str,
    destination: str,
    port: str = "",
) -> str:
    """Name the other origin that a request comes from; return "" for the application's own.

    `host` is nginx's `$host`; `method` the request's; `origin`, `site`, `mode` and `destination`
    are its headers `Origin`, `Sec-Fetch-Site`, `Sec-Fetch-Mode` and `Sec-Fetch-Dest`.  `port`
    is the port of the address that the client opened; "" means that it is unknown.  A link that the
    user follows (a top-level navigation by GET) is the application's own.
    """
    if site:
        if site in _OURS or _follows_link(method, mode, destination):
            return ""
        return site if site in ("same-site", "cross-site") else "unknown"
    if origin and not _is_own(origin, host, port):
        return "other-origin"
    return ""


def _follows_link(method: str, mode: str, destination: str) -> bool:
    return method in _LINKS and mode == "navigate" and destination in _TOP


def _is_own(origin: str, host: str, port: str) -> bool:
    """Return whether an Origin is https, this host, and its port, if that is known."""
    try:
        parts = urlsplit(origin)
        named = normalize_host(parts.netloc) if "@" not in parts.netloc else None
    except ValueError:
        return False
    if f"{parts.scheme}://{parts.netloc}" != origin or parts.scheme not in _SCHEMES:
        return False
    if port and _port(parts.netloc) != port.lstrip("0"):
        return False
    return named is not None and named == normalize_host(host)


def _port(authority: str) -> str:
    """Return the port of an authority, 443 if it names none, without zeros in front."""
    found = re.search(r":([0-9]+)\Z", authority)
    return found[1].lstrip("0") if found else "443"
