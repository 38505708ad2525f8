"""Find `dav_methods COPY MOVE` that writes where another question is asked.

nginx maps the path in the header Destination into the directory of the location that the request
came to (ngx_http_dav_copy_move_handler), and asks nobody about it.  A directory within another one
is taken to be for fewer people.
"""

from __future__ import annotations

import time

from sidecar.core.policy.model import Policy
from sidecar.core.policy.rules import Facts
from sidecar.core.request import AuthzRequest

from .access import closed, is_reached
from .findings import Finding
from .nginx_config import Block
from .routing import REGEX
from .server import Server, question
from .targets import directories, file_roots, passes

METHODS = {"COPY", "MOVE"}


def unasked_destinations(
    asking: list[Server], policy: Policy | None, findings: list[Finding]
) -> None:
    """One finding for each `dav_methods` that reaches into a directory about which others ask."""
    kept = [
        (where, place)
        for server in asking
        for place in server.locations
        if server.asks(place) and not closed(place)
        for where in sorted(directories(place))
    ]
    for here in (each for server in asking for each in server.locations):
        held = here.inherited("dav_methods")
        offered = {word.upper() for each in held[-1:] for word in each.args} & METHODS
        if passes(here) or not is_reached(here) or _is_limited(here):
            continue
        own = directories(here)
        for where, place in kept if offered - _refused(question(here), policy) else ():
            above = any(where.startswith(each) for each in file_roots(here))
            if above and not _are_within(own, where, place) and question(place) != question(here):
                at = held[-1]
                what = (
                    f"COPY and MOVE from {here.args[-1]} write into {where}, about which "
                    f"{question(place)} is asked ({place.line_from(at)})"
                )
                write = (
                    "deny: [{method: [COPY, MOVE]}]   (in policy.yaml), or: dav_methods PUT DELETE;"
                )
                findings.append(Finding("destination-unasked", at.file, at.line, what, write))
                break


def _are_within(own: set[str], where: str, place: Block) -> bool:
    return place.args[0] not in REGEX and bool(own) and all(e.startswith(where) for e in own)


def _is_limited(here: Block) -> bool:
    """Whether `limit_except` lets nobody use them."""
    return any(
        not METHODS & {word.upper() for word in each.args} and closed(each)
        for each in here.own("limit_except")
    )


def _refused(asked: str, policy: Policy | None) -> set[str]:
    """Which of them the policy's location refuses to everybody."""
    place = policy.locations.get(asked.removeprefix("/authz/")) if policy else None
    if place is None or place.public or place.monitor:
        return set()
    requests = [AuthzRequest(place.name, method=each) for each in METHODS]
    return {
        each.method
        for each in requests
        if place.deny_request.match(Facts(None, each, time.time())) is not None
    }
