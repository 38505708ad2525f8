"""Find what a client may write line ends into, in what an application is sent by HTTP/1.

`location /public/ { auth_request off; proxy_pass http://app$uri; }` makes a second request of
`/public/x%20HTTP/1.1%0d%0a%0d%0aGET%20/admin/…`, about which nobody is asked; in a header such a
line end begins another, `X-Client-CN`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .access import closed
from .decoded import LINE_END, decoded, unchecked
from .findings import Finding
from .guards import LINES, WRITE, is_guarded, tiring
from .nginx_config import Block
from .server import Server
from .targets import addresses
from .variables import plain_variables

_INSTEAD = {
    "$ssl_server_name": "$mtls_sidecar_sni, in its place",
    "$remote_user": "$client_cn, in its place   (or auth_basic, which checks it)",
    "$request_body": "remove it",
}


def line_ends(server: Server, kept: set[str], findings: list[Finding]) -> None:
    """Each directive that writes a client's line ends into what is sent to these addresses."""
    guarded = is_guarded(server.block, server.root, LINES)
    for place in server.places:
        if place in server.questions.values() or closed(place):
            continue
        passing = [e for e in place.within("proxy_pass") if addresses(e, server.root) & kept]
        if not passing:
            continue
        safe = guarded or is_guarded(place, server.root, LINES)
        for at, text in _sent(place, passing):
            here = place if at.name == "proxy_set_header" else at.parent or place
            name = "" if safe else decoded(text, here, server.root, LINE_END)
            name = name or unchecked(text, here, server.root)
            if name:
                what = f"{name} is sent with the line ends that a client writes into it"
                what += tiring(server.block, server.root) if name not in _INSTEAD else ""
                write = _INSTEAD.get(name, WRITE)
                findings.append(Finding("line-ends", at.file, at.line, what, write))


def _sent(place: Block, passing: list[Block]) -> Iterator[tuple[Block, str]]:
    """What is sent in a request's line and headers, and the directive that says so."""
    for each in passing:
        yield each, each.args[0]
    for each in place.inherited("proxy_set_header"):
        yield each, each.args[1]
    for each in place.within("rewrite"):
        query = plain_variables(each.args[1]).partition("?")[2]
        yield each, re.sub(r"\$[1-9]", "", query)  # these nginx escapes there
