"""Find caches in which a server that asks nobody finds what another one has asked about.

`proxy_cache_key $request_uri` names no host: two servers of one zone have one page of that path.
`$host` names a server only where both listen on one address; `$http_host` never does, as a client
may name the one in the request's line, and the other in Host (RFC 9112, 3.2.2).
"""

from __future__ import annotations

from collections.abc import Iterator

from .access import closed
from .findings import Finding
from .listeners import Listener, chosen, listeners, server_names
from .nginx_config import Block
from .server import Server
from .targets import passes
from .variables import names, plain_variables

_CACHES = ("proxy_cache", "fastcgi_cache", "uwsgi_cache", "scgi_cache")
_DEFAULT = "$scheme$proxy_host$request_uri"


def shared_caches(servers: list[Server], findings: list[Finding]) -> None:
    """Each server that asks nobody and has a zone and a key in common with one that asks."""
    kept: dict[tuple[str, str, str], list[Server]] = {}
    for server in servers:
        for place in server.asking:
            for found in _caches(place) if place not in server.questions.values() else ():
                kept.setdefault(found, []).append(server)
    if not kept:
        return
    everywhere: dict[tuple[str, str], list[Listener]] = {}
    for each in (listener for server in servers for listener in listeners(server.block)):
        everywhere.setdefault(each.where, []).append(each)
    for server in servers:
        for place in server.places if not server.asking else ():
            if closed(place) or not passes(place) or place.inherited("auth_request"):
                continue
            for found in _caches(place):
                for other in kept.get(found, ()):
                    if _shares(set(names(found[2])), server.block, other.block, everywhere):
                        findings.append(_finding(place, found, other))
                        break


def _caches(place: Block) -> Iterator[tuple[str, str, str]]:
    """The directive, the zone and the key of each cache."""
    for name in _CACHES:
        zone = place.value(name, "off")
        if zone != "off" and "$" not in zone:
            yield name, zone, plain_variables(place.value(f"{name}_key", _DEFAULT))


def _shares(
    key: set[str],
    server: Block,
    other: Block,
    everywhere: dict[tuple[str, str], list[Listener]],
) -> bool:
    """Whether a server can be asked for a page under the key that it has of another one."""
    if "$proxy_host" in key:
        return False  # one and the same leads to what is kept, and that is told
    mine, its = server_names(server) or [""], server_names(other) or [""]
    if "$server_name" in key and mine[0] != its[0]:
        return False
    theirs = list(listeners(other))
    for each in listeners(server):
        if "$scheme" in key and all(one.scheme != each.scheme for one in theirs):
            continue
        if "$server_port" in key and all(one.port != each.port for one in theirs):
            continue
        if "$host" not in key:
            return True
        there = everywhere[each.where]
        if all(one.where != each.where for one in theirs) and each in chosen(there, its):
            return True
    return False


def _finding(place: Block, found: tuple[str, str, str], other: Server) -> Finding:
    name, zone, key = found
    at = place.inherited(name)[-1]
    what = (
        f"nobody is asked about what is in {zone}, where the server of "
        f"{other.block.line_from(at)} keeps its own pages by the same key, {key}"
    )
    write = f"{name} ANOTHER_ZONE;   (or in its key what tells them apart: $server_name, $host)"
    return Finding("never-asks", at.file, at.line, what, write)
