"""Find caches in which a server that asks nobody finds what another one has asked about.

`proxy_cache_key $request_uri` names no host: two servers of one zone have one page of that path.
"""

from __future__ import annotations

from collections.abc import Iterator

from .access import closed
from .findings import Finding
from .nginx_config import Block
from .server import Server
from .targets import passes
from .variables import names, plain_variables

_CACHES = ("proxy_cache", "fastcgi_cache", "uwsgi_cache", "scgi_cache")
_DEFAULT = "$scheme$proxy_host$request_uri"
_NAMES_A_SERVER = {"$host", "$http_host", "$server_name", "$server_port", "$proxy_host"}


def shared_caches(servers: list[Server], findings: list[Finding]) -> None:
    """Each server that asks nobody and has a zone and a key in common with one that asks."""
    kept = {
        found: server
        for server in servers
        for place in server.asking
        if place not in server.questions.values()
        for found in _caches(place)
    }
    for server in servers if kept else ():
        for place in server.places if not server.asking else ():
            if closed(place) or not passes(place) or place.inherited("auth_request"):
                continue
            shared = [each for each in _caches(place) if each in kept]
            findings += [_finding(place, each, kept[each]) for each in shared]


def _caches(place: Block) -> Iterator[tuple[str, str, str]]:
    """The directive, the zone and the key of each cache whose key is the same in every server."""
    for name in _CACHES:
        zone = place.value(name, "off")
        key = plain_variables(place.value(f"{name}_key", _DEFAULT))
        if zone != "off" and "$" not in zone and _NAMES_A_SERVER.isdisjoint(names(key)):
            yield name, zone, key


def _finding(place: Block, found: tuple[str, str, str], other: Server) -> Finding:
    name, zone, key = found
    at = place.inherited(name)[-1]
    what = (
        f"nobody is asked about what is in {zone}, where the server of "
        f"{other.block.line_from(at)} keeps its own pages by the same key, {key}"
    )
    return Finding("never-asks", at.file, at.line, what, f"{name}_key $scheme$host$request_uri;")
