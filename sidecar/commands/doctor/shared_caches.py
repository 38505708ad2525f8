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
        for place in server.keeping:
            for found in _caches(place) if place not in server.questions.values() else ():
                kept.setdefault(found, []).append(server)
    if not kept:
        return
    everywhere = _Everywhere([each.block for each in servers])
    for server in servers:
        for place in server.places if not server.asking else ():
            if closed(place) or not passes(place) or place.inherited("auth_request"):
                continue
            for found in _caches(place):
                for other in kept.get(found, ()):
                    if everywhere.shares(set(names(found[2])), server.block, other.block):
                        findings.append(_finding(place, found, other))
                        break


def _caches(place: Block) -> Iterator[tuple[str, str, str]]:
    """The directive, the zone and the key of each cache."""
    for name in _CACHES:
        zone = place.value(name, "off")
        if zone != "off" and "$" not in zone:
            yield name, zone, plain_variables(place.value(f"{name}_key", _DEFAULT))


class _Everywhere:
    """Where all servers listen, and which of them serves another one's names there."""

    def __init__(self, servers: list[Block]) -> None:
        self._of = {id(each): list(listeners(each)) for each in servers}
        self._at: dict[tuple[str, str], list[Listener]] = {}
        self._serving: dict[tuple[tuple[str, str], int], set[int]] = {}
        for each in (one for found in self._of.values() for one in found):
            self._at.setdefault(each.where, []).append(each)

    def shares(self, key: set[str], server: Block, other: Block) -> bool:
        """Whether a server can be asked for a page under the key that it has of another one."""
        if "$proxy_host" in key:
            return False  # one and the same leads to what is kept, and that is told
        if "$server_name" in key and server_names(server)[:1] != server_names(other)[:1]:
            return False
        theirs = self._of[id(other)]
        schemes, ports = {each.scheme for each in theirs}, {each.port for each in theirs}
        places = {each.where for each in theirs}
        return any(
            ("$scheme" not in key or each.scheme in schemes)
            and ("$server_port" not in key or each.port in ports)
            and ("$host" not in key or (each.where not in places and self._serves(each, other)))
            for each in self._of[id(server)]
        )

    def _serves(self, there: Listener, other: Block) -> bool:
        """Whether what is asked there for another server's name comes to this one."""
        asked = (there.where, id(other))
        if asked not in self._serving:
            found = chosen(self._at[there.where], server_names(other) or [""])
            self._serving[asked] = {id(each.server) for each in found}
        return id(there.server) in self._serving[asked]


def _finding(place: Block, found: tuple[str, str, str], other: Server) -> Finding:
    name, zone, key = found
    at = place.inherited(name)[-1]
    what = (
        f"nobody is asked about what is in {zone}, where the server of "
        f"{other.block.line_from(at)} keeps its own pages by the same key, {key}"
    )
    write = f"{name} ANOTHER_ZONE;   (or in its key what tells them apart: $server_name, $host)"
    return Finding("never-asks", at.file, at.line, what, write)
