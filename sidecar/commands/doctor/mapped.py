"""Find prefixes under which nginx shows all of what another location asks about.

`location /public/ { auth_request off; proxy_pass http://app/; }` makes /public/admin the
application's /admin; so does `rewrite ^/public/(.*)$ /$1 break;`, or the `alias` of a `root` that
another location keeps.
"""

from __future__ import annotations

import re

from .access import closed
from .auth_location import target_path
from .captured import FILES, leading_to, written_targets
from .findings import Finding
from .nginx_config import Block
from .routing import REGEX, serving
from .server import Server, is_reached_so_only, question
from .targets import addresses, files, passes

_STRIPS = re.compile(r"\^(?P<prefix>/[\w./-]*?)/?\??\((?:\.\*|\.\+)\)\$?")


def replaced_prefixes(server: Server, findings: list[Finding]) -> None:
    """Each location whose target is at or above that of another, with another question."""
    asked = server.questions.values()
    places = [
        (each, *found)
        for each in server.block.own("location")
        if each not in asked and not closed(each) and each.args[0] not in ("=", *REGEX)
        and not is_reached_so_only(each) and each.inherited("auth_request")
        for found in _targets(each, server)
    ]  # fmt: skip
    replaced = [each for each in places if _is_replaced(each[0], each[3])]
    for here, at, where, path in places:
        for other, _, there, below in places if _is_replaced(here, path) else replaced:
            if other is here or where != there or not below.startswith(path):
                continue
            if not server.asks(other) or question(other) == question(here):
                continue
            if below == path and not _is_replaced(here, path):
                continue  # the other is told
            if _serves_both(server, here, path, other, below):
                findings.append(_finding(at, here, other))
                break


def written_paths(server: Server, findings: list[Finding]) -> None:
    """Each location where the client writes the path of what another location asks about."""
    asked = server.questions.values()
    kept = [
        (each, where, path)
        for each in server.block.own("location")
        if server.asks(each) and each not in asked and each.args[0] not in ("=", *REGEX)
        for _, where, path in _targets(each, server)
    ]
    told = {(each.file, each.line) for each in findings if each.id == "prefix-replaced"}
    for here in server.locations:
        if here in asked or closed(here) or is_reached_so_only(here):
            continue
        if not here.inherited("auth_request"):
            continue  # that is told
        for target in written_targets(here, server):
            for other, where, path in kept:
                if other is here or where != target.where or question(other) == question(here):
                    continue
                uri = leading_to(here, target, path, server)
                if uri and (target.at.file, target.at.line) not in told:
                    findings.append(_finding(target.at, here, other, uri))
                    break


def _is_replaced(place: Block, path: str) -> bool:
    """Whether the URI there may be another than here: else one location serves each of them."""
    return bool(place.own("alias") or place.own("root")) or path != place.args[-1]


def _serves_both(server: Server, here: Block, path: str, other: Block, below: str) -> bool:
    """Whether what is below `other` is reached by `here`, too, and no third location is between."""
    rest = below[len(path) :]
    mine, its = here.args[-1] + rest, other.args[-1]
    return all(
        serving(server.block, mine + name) is here and serving(server.block, its + name) is other
        for name in ("x", "zz-any")
    )


def _targets(place: Block, server: Server) -> list[tuple[Block, str, str]]:
    """The directives by which a location serves, each with the address and the path there."""
    if not passes(place):
        shown = files(place)
        at = (place.own("alias") or place.inherited("root") or [place])[-1]
        return [(at, FILES, shown)] if shown else []
    prefix = place.args[-1]
    strip = next((each for each in place.own("rewrite") if _strips(each, prefix)), None)
    found = []
    for each in place.own("proxy_pass"):
        path = target_path(each.args[0])
        if path is None:
            continue
        at, path = (strip, strip.args[1][:-2]) if strip is not None else (each, path or prefix)
        found += [(at, where, path) for where in addresses(each, server.root)]
    return found


def _strips(rewrite: Block, prefix: str) -> bool:
    """Whether a `rewrite … break` puts another constant in the place of the location's prefix."""
    found = _STRIPS.fullmatch(rewrite.args[0])
    return (
        found is not None
        and found["prefix"].rstrip("/") == prefix.rstrip("/")
        and rewrite.args[2:] == ["break"]
        and re.fullmatch(r"/[\w./-]*\$1", rewrite.args[1]) is not None
    )


def _finding(at: Block, here: Block, other: Block, uri: str = "") -> Finding:
    asked = question(here) or "nobody"
    leads = f"leads to all that {other.args[-1]} (line {other.line}) asks {question(other)} about"
    keep = "the path of a URI" if uri else "the prefix (proxy_pass without a path, root)"
    return Finding(
        "prefix-replaced",
        at.file,
        at.line,
        f"{here.args[-1]} {leads}, and asks {asked}" + (f": by {uri}" if uri else ""),
        f"keep {keep}, or: auth_request {question(other)};",
    )
