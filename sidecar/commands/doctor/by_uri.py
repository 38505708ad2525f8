"""Find paths that nginx changes where the sidecar chooses the location by URI.

`auth_request /authz` asks about the URI that the client wrote.  With `location /go/ { proxy_pass
http://app/admin/; }` that is /go/x, while the application is asked for /admin/x, about which other
rules may ask; and so with `rewrite ^/go/(.*)$ /admin/$1;`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sidecar.core.policy.model import Policy

from .auth_location import target_path
from .findings import Finding
from .nginx_config import Block
from .rewriting import redirects
from .routing import REGEX, serving
from .server import Server, question

_BY_URI = "/authz"
_PREFIX = re.compile(r"\^?(?P<prefix>/[\w./-]*)\((?:\.\*|\.\+)\)\$?")
_CONSTANT = re.compile(r"(?P<head>/[\w./-]*)\$1")
_PROBE = "x"


class _Change(NamedTuple):
    """A directive that puts one prefix in the place of another; `last`: nginx looks again then."""

    at: Block
    old: str
    new: str
    last: bool


def changed_paths(server: Server, policy: Policy | None, findings: list[Finding]) -> None:
    """Each change by which one location of the policy is asked about, and another one served."""
    if policy is None or _BY_URI not in server.questions:
        return
    for change in _changes(server):
        for probe in sorted({"", *policy.chooser.paths}):
            served = probe if probe.startswith(change.new) else change.new
            served += _PROBE
            asked = change.old + served[len(change.new) :]
            if not _asked_by_uri(server, change, asked, served):
                continue
            names = [
                policy.chooser.choose(_host(server), each.encode()) for each in (asked, served)
            ]
            if _differ(policy, *names):
                findings.append(_finding(change.at, asked, served, *names))
                break


def _changes(server: Server) -> Iterator[_Change]:
    for place in server.places:
        for each in place.within("rewrite"):
            found, target = _PREFIX.fullmatch(each.args[0]), _CONSTANT.fullmatch(each.args[1])
            if found and target and not redirects(each):
                yield _Change(each, found["prefix"], target["head"], each.args[2:] != ["break"])
        if place is server.block or place.args[0] in ("=", *REGEX):
            continue
        for each in place.own("proxy_pass"):
            path = "" if "$" in each.args[0] else target_path(each.args[0])
            if path and path != place.args[-1]:
                yield _Change(each, place.args[-1], path, last=False)


def _asked_by_uri(server: Server, change: _Change, asked: str, served: str) -> bool:
    """Whether the sidecar is asked about the URI where the changed path is served.

    Unless nginx looks for the location again, that is where the path leads to the same address: a
    path of another application has nothing to do with the policy's.
    """
    here, there = serving(server.block, asked), serving(server.block, served)
    around = change.at.parent
    if around is not None and around is not server.block and around is not here:
        return False
    if here is None or there is None:
        return False
    if change.last:
        return question(there) == _BY_URI
    return question(here) == _BY_URI and bool(server.served(here) & server.served(there))


def _host(server: Server) -> str:
    names = [name for each in server.block.own("server_name") for name in each.args]
    return next((name.lower() for name in names if re.fullmatch(r"[\w.-]+", name)), "")


def _differ(policy: Policy, asked: str | None, served: str | None) -> bool:
    """Whether the answer about the one location may let somebody in who is none of the other's."""
    if asked is None or asked == served:
        return False
    return served is None or not policy.locations[served].public


def _finding(at: Block, asked: str, served: str, name: str | None, other: str | None) -> Finding:
    return Finding(
        "uri-changed",
        at.file,
        at.line,
        f"{asked} becomes {served}, and the sidecar is asked about {asked}: "
        f"location {name!r} of the policy, where {served} is {other or 'none'}",
        "auth_request /authz/NAME; there, or: keep the path",
    )
