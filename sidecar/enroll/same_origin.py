"""Tell whether a request that changes something comes from one of our own pages (CSRF).

A browser says where a POST comes from by `Origin`, and newer ones by `Sec-Fetch-Site`, too.
Programs such as curl say neither.
"""

from __future__ import annotations

from collections.abc import Sequence


def why_foreign(origins: Sequence[str], fetch_sites: Sequence[str], own: str) -> str:
    """Say why a request isn't from our own page; nothing where it is, or not from a browser.

    `Origin: null` comes from pages whose address is kept secret; then `Sec-Fetch-Site` counts.
    """
    if len(origins) > 1 or len(fetch_sites) > 1:
        return "it says more than once where it comes from"
    if fetch_sites and fetch_sites[0] != "same-origin":
        return f"Sec-Fetch-Site is {fetch_sites[0][:80]!r}"
    if origins and origins[0] == "null" and fetch_sites:
        return ""
    if origins and origins[0].lower() != own.lower():
        return f"Origin is {origins[0][:80]!r}"
    return ""
