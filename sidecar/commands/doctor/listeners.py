"""Read where servers listen, and tell which of them serves a host there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .nginx_config import Block, Root
from .routing import matches
from .targets import one_host

_MAX_PORT = 65535


class Listener(NamedTuple):
    """One address on which a server listens, and the directive that says so."""

    at: Block
    server: Block
    host: str
    """`*` for every IPv4 address; of a socket the whole address."""
    port: str

    @property
    def where(self) -> tuple[str, str]:
        """What is one and the same for all servers there."""
        return self.host, self.port

    @property
    def scheme(self) -> str:
        """`https` or `http`."""
        return "https" if {"ssl", "quic"} & set(self.at.args) else "http"

    @property
    def text(self) -> str:
        """The address as it is written."""
        return self.at.args[0] if self.at is not self.server else "*:80"


def listeners(server: Block) -> Iterator[Listener]:
    """Each address of a server, each port of a range.

    Without any `listen` it is `*:80` (ngx_http_core_server).
    """
    for each in server.own("listen"):
        given = each.args[0]
        if given.startswith("unix:"):
            yield Listener(each, server, given, "")
            continue
        found = re.fullmatch(r"(?:(\[[^]]*\]|[^:]*):)?(\d+)(?:-(\d+))?", given)
        host, first, last = found.groups() if found else (given, "80", None)
        host = one_host(host or "*")
        for port in range(int(first), min(int(last or first), _MAX_PORT) + 1):
            yield Listener(each, server, "*" if host == "0.0.0.0" else host, str(port))
    if not server.own("listen"):
        yield Listener(server, server, "*", "80")


def server_names(server: Block) -> list[str]:
    """The names of a server, in one case."""
    return [name.lower() for each in server.own("server_name") for name in each.args]


def chosen(there: list[Listener], names: list[str] | None) -> list[Listener]:
    """Those of them that serve one of these hosts; None: any host."""
    if names is None:
        return there
    found = [each for each in there if any(_has(each.server, name) for name in names)]
    default = [each for each in there if "default_server" in each.at.args]
    return found or (default or there)[:1]


def serves(server: Block, host: str, root: Root) -> bool:
    """Whether requests for a host come to a server, at one of its addresses."""
    everywhere = [
        listener
        for each in root.all("server")
        if each.parent is not None and each.parent.name == "http"
        for listener in listeners(each)
    ]
    for own in listeners(server):
        there = [each for each in everywhere if each.where == own.where]
        exact = [each for each in there if host in server_names(each.server)]
        if any(each.server is server for each in exact or chosen(there, [host])):
            return True
    return False


def _has(server: Block, host: str) -> bool:
    return any(
        name == host
        or (name.startswith("~") and matches(name[1:], host, True) is not False)
        or (name.startswith(("*.", ".")) and host.endswith(name.lstrip("*")))
        or (name.endswith(".*") and host.startswith(name[:-1]))
        for name in server_names(server)
    )
