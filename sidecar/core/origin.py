"""Detect requests that a page of another site made (cross-site request forgery, RFC 6454, Fetch).

A browser sends its user's certificate with every request to a host, whichever page makes the
request.  It names that page's site in `Sec-Fetch-Site` (all browsers since 2023), or at least in
`Origin`, which every POST and every WebSocket carries.

Not checked: a request with neither header is accepted as the application's own.  Programs send
neither, and old browsers send neither with a GET.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from .nginx.host import normalize_host

_OURS = frozenset({"same-origin", "none"})
"""`none`: the user typed the address, or opened a bookmark."""

_LINKS = frozenset({"GET", "HEAD"})


def other_origin(
    host: str, method: str, origin: str, site: str, mode: str, destination: str
) -> str:
    """Name the other origin that a request comes from; return "" for the application's own.

    `host` is nginx's `$host`; `method` the request's; `origin`, `site`, `mode` and `destination`
    are its headers `Origin`, `Sec-Fetch-Site`, `Sec-Fetch-Mode` and `Sec-Fetch-Dest`.  A link
    that the user follows (a top-level navigation by GET) is the application's own.
    """
    if site:
        if site in _OURS or _follows_link(method, mode, destination):
            return ""
        return site if site in ("same-site", "cross-site") else "unknown"
    if origin and not _is_own(origin, host):
        return "other-origin"
    return ""


def _follows_link(method: str, mode: str, destination: str) -> bool:
    return method in _LINKS and (mode, destination) == ("navigate", "document")


def _is_own(origin: str, host: str) -> bool:
    """Return whether an Origin is https and this host; ports are ignored (`$host` has none)."""
    try:
        parts = urlsplit(origin)
        named = normalize_host(parts.netloc) if "@" not in parts.netloc else None
    except ValueError:
        return False
    whole = f"{parts.scheme}://{parts.netloc}" == origin
    return whole and parts.scheme == "https" and named is not None and named == normalize_host(host)
