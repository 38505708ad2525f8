"""Find prefixes under which nginx shows all of what another location asks about.

`location /public/ { auth_request off; proxy_pass http://app/; }` makes /public/admin the
application's /admin; so does `rewrite ^/public/(.*)$ /$1 break;`, or the `alias` of a `root` that
another location keeps.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from .captured import FILES, PROBES, head_of, leading_to, written_files, written_targets
from .findings import Finding
from .nginx_config import Block
from .routing import REGEX, literal_prefixes, serving
from .server import Server, question
from .targets import (
    addresses,
    file_roots,
    files,
    is_address,
    passes,
    resolved,
    shown_by,
    target_path,
)
from .variables import possible

_STRIPS = re.compile(r"\^(?P<prefix>/[\w./-]*?)/?\??\((?:\.\*|\.\+)\)\$?")


def replaced_prefixes(server: Server, findings: list[Finding]) -> None:
    """Each location whose target is at or above that of another, with another question."""
    places = [
        (each, *found)
        for each in server.locations
        if server.is_open_to_clients(each)
        for found in _targets(each, server)
    ]  # fmt: skip
    asking = [each for each in places if server.keeps(each[0])]
    replaced = [each for each in asking if _is_replaced(each[0], each[3])]
    for here, at, where, path in places:
        if here.args[0] in ("=", *REGEX):
            continue  # one page; what an expression leads to is looked at by `written_paths`
        for other, _, there, below in asking if _is_replaced(here, path) else replaced:
            if other is here or where != there or not _is_within(below, path):
                continue
            if question(other) == question(here):
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
        for each in server.locations
        if server.keeps(each) and each not in asked and each.args[0] not in ("=", *REGEX)
        for _, where, path in _targets(each, server)
    ]
    told = {(each.file, each.line) for each in findings if each.id == "prefix-replaced"}
    for here in server.locations:
        if not server.is_open_to_clients(here):
            continue
        for target in (*written_targets(here, server), *written_files(here)):
            for other, where, path in kept:
                if other is here or where != target.where or question(other) == question(here):
                    continue
                uri = leading_to(here, target, path, server)
                if uri and (target.at.file, target.at.line) not in told:
                    findings.append(_finding(target.at, here, other, uri))
                    break


def _is_replaced(place: Block, path: str) -> bool:
    """Whether the URI there may be another than here: else one location serves each of them."""
    if place.args[0] in REGEX:
        return False
    return bool(place.own("alias") or place.own("root")) or path != place.args[-1]


def _is_within(below: str, path: str) -> bool:
    """Whether a path is another one or below it; a directory's slash may be missing."""
    return below.startswith(path) or below + "/" == path


def _serves_both(server: Server, here: Block, path: str, other: Block, below: str) -> bool:
    """Whether what is below `other` is reached by `here`, too, and no third location is between."""
    mine = here.args[-1] + below[len(path) :]
    its = below if other.args[0] in REGEX else other.args[-1]
    if below + "/" == path:
        its += "/"
    names = ("",) if other.args[0] == "=" else PROBES
    return all(
        serving(server.block, mine + name) is here and serving(server.block, its + name) is other
        for name in names
    )


def _targets(place: Block, server: Server) -> list[tuple[Block, str, str]]:
    """The directives by which a location serves, each with the address and the path there."""
    if place.args[0] in REGEX:
        return _targets_of_expression(place, server)
    prefix = place.args[-1]
    passing = [(each, place) for each in place.own("proxy_pass")]
    if not passes(place):
        passing = [(e, by) for by in server.served_by(place) for e in by.own("proxy_pass")]
    if not passing:
        return _files_there(place)
    found = []
    for each, by in passing:
        strip = _strip(by, prefix)
        at, path = each, _path(each, server)
        if strip is not None and path is not None:
            at, path = strip, resolved(strip.args[1][:-2])
        elif path is None or (by.own("rewrite") and head_of(by, each, prefix, server) is not None):
            path = head_of(by, each, prefix, server)
        if path is not None:
            found += [(at, where, path or prefix) for where in addresses(each, server.root)]
    return found


def _targets_of_expression(place: Block, server: Server) -> list[tuple[Block, str, str]]:
    """The same of an expression that passes URIs on as they are: by what they begin with."""
    if place.own("rewrite") or place.own("try_files"):
        return []
    return [
        (each, where, head)
        for each in place.own("proxy_pass")
        if _path(each, server) == ""
        for where in addresses(each, server.root)
        for head in literal_prefixes(place.args[-1]) or []
    ]


def _path(passing: Block, server: Server) -> str | None:
    """The path behind the address of a `proxy_pass`, "" for none; None where it is written.

    With a variable anywhere nginx puts no rest of the URI behind a path.
    """
    given = passing.args[0]
    if "$" not in given:
        path = target_path(given)
        return resolved(unquote(path)) if path else path
    whole = possible(given, passing.parent, server.root)
    ends = [each for each in whole if "$" not in each.partition("://")[2].partition("/")[0]]
    ends = [each for each in ends if "://" in each] or list(whole)
    return "" if all(map(is_address, ends)) else None


def _files_there(place: Block) -> list[tuple[Block, str, str]]:
    """The directory that a location shows, by its `rewrite … break`, too."""
    shown, strip = files(place), _strip(place, place.args[-1])
    if shown and strip is not None and not place.own("alias"):
        return [(strip, FILES, resolved(root + strip.args[1][:-2])) for root in file_roots(place)]
    return [(shown_by(place) or place, FILES, each) for each in sorted(shown)]


def _strip(place: Block, prefix: str) -> Block | None:
    return next((each for each in place.own("rewrite") if _strips(each, prefix)), None)


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
    line = other.line_from(at)
    leads = f"leads to all that {other.args[-1]} ({line}) asks {question(other)} about"
    keep = "the path of a URI" if uri else "the prefix (proxy_pass without a path, root)"
    return Finding(
        "prefix-replaced",
        at.file,
        at.line,
        f"{here.args[-1]} {leads}, and asks {asked}" + (f": by {uri}" if uri else ""),
        f"keep {keep}, or: auth_request {question(other)};",
    )
