"""Find servers of this nginx to which others lead that ask, and which clients reach as well.

`proxy_pass http://127.0.0.1:8080` may lead to `server { listen 8080; … }` of the same nginx: that
one listens on every address of the machine, and asks nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .access import always_answers, closed, is_reached, limits_addresses
from .findings import Finding
from .listeners import Listener, chosen, listeners, server_names
from .nginx_config import Block
from .server import Server
from .targets import addresses, is_local, passes, shown_by
from .variables import plain_variables

_CLIENTS_HOST = {"$host", "$http_host", "$server_name", "$mtls_sidecar_host"}


def reached_behind(servers: list[Server], streams: list[Block], findings: list[Finding]) -> None:
    """Each `listen` that is open to others than this machine, behind a question."""
    blocks = [each.block for each in servers if not each.asking] + streams
    found = [each for block in blocks for each in _open(block)]
    models = {id(each.block): each for each in servers}
    for server in servers if found else ():
        for passing, names in _passing(server):
            for where in sorted(addresses(passing, server.root)):
                for each in chosen([e for e in found if _is_at(e, where)], names):
                    model = models.get(id(each.server))
                    if _is_reached(each.server, model):
                        findings.append(_finding(each, server))


def _open(server: Block) -> list[Listener]:
    """The addresses of a server that aren't this machine's own."""
    return [e for e in listeners(server) if e.port and not is_local(e.host)]


def _passing(server: Server) -> Iterator[tuple[Block, list[str] | None]]:
    """Where a question is asked before: each directive that leads on, and the hosts that it sends.

    None for the hosts: any.
    """
    own = server_names(server.block)
    for place in server.keeping:
        if place in server.questions.values() or closed(place):
            continue
        for by in (place, *server.served_by(place)):
            sent = [
                plain_variables(each.args[1])
                for each in by.inherited("proxy_set_header")
                if each.args[0].lower() == "host"
            ]
            for each in by.within("proxy_pass", "grpc_pass"):
                if not sent or sent[-1] == "$proxy_host":
                    target = plain_variables(each.args[0]).partition("://")[2]
                    yield each, [re.split("[:/]", target)[0].lower()]
                elif sent[-1] in _CLIENTS_HOST:
                    yield each, own or None
                else:
                    yield each, None if "$" in sent[-1] else [sent[-1].lower()]


def _is_at(listener: Listener, where: str) -> bool:
    host, _, port = where.rpartition(":")
    if port != listener.port:
        return False
    everywhere = listener.host in ("*", "[::]")
    return host == listener.host or (host == "127.0.0.1" and everywhere)


def _is_reached(server: Block, model: Server | None) -> bool:
    """Whether clients are shown something there."""
    if model is None:  # of stream { }
        return not limits_addresses(server)
    places = [*model.locations, *([server] if model.uncovered() else [])]
    return any(
        (passes(each) or shown_by(each))
        and is_reached(each)
        and not always_answers(each)
        and not limits_addresses(each)
        and not each.inherited("auth_request")
        for each in places
    )


def _finding(listener: Listener, outer: Server) -> Finding:
    at = listener.at
    what = (
        f"nobody is asked at {listener.text}, to which the server of {outer.block.line_from(at)} "
        "leads, and which is no address of this machine's own"
    )
    write = f"listen 127.0.0.1:{listener.port};   (or: allow 127.0.0.1; deny all;)"
    return Finding("never-asks", at.file, at.line, what, write)
