"""Find URIs for which the policy names another location than the one in which nginx asks.

nginx tries the expressions within a location before those beside it, and each in its own order.
The policy has one list.  A policy may be finer than nginx: only what both have is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, product

from sidecar.core.nginx.locations import LocationPattern
from sidecar.core.policy.model import Policy

from .access import closed
from .by_uri import BY_URI, differ, host_of
from .findings import Finding
from .nginx_config import Block
from .routing import REGEX, literal_prefixes, literal_tail, serving
from .server import Server, question

MAX_PROBES = 20_000
"""URIs that are tried for one server."""

_KINDS = {"=": "exact", "~": "regex", "~*": "iregex"}
_CHOICE = re.compile(r"\((?:\?:)?(\w+)(?:\|\w+)*\)")

_Selector = tuple[str, str]


def chosen_otherwise(server: Server, policy: Policy | None, findings: list[Finding]) -> None:
    """One finding for each location that serves what the policy takes for another one's."""
    if policy is None or BY_URI not in server.questions:
        return
    host, told = host_of(server), set[int]()
    entries = {_selector_of(pattern): name for pattern, name in policy.chooser.entries(host)}
    asking = [
        each
        for each in server.locations
        if question(each) == BY_URI and not closed(each) and _selector(each) in entries
    ]
    for here, other, uri in islice(_probes(asking), MAX_PROBES):
        name, meant = entries[_selector(other)], entries[_selector(here)]
        if id(here) in told or policy.chooser.choose(host, uri.encode()) != name:
            continue
        around = {entries.get(_selector(e)) for e in here.around() if e.name == "location"}
        if name in around or not differ(policy, name, meant):
            continue
        if serving(server.block, uri) is here:
            told.add(id(here))
            findings.append(_finding(here, uri, name, meant))


def _probes(places: list[Block]) -> Iterator[tuple[Block, Block, str]]:
    """URIs that two locations may match, where their order may count."""
    for here, other in product(places, places):
        if here is other or not (_is_regex(here) or _is_regex(other)):
            continue
        pairs = (sorted(pair, key=len) for pair in product(_heads(here), _heads(other)))
        heads = dict.fromkeys(long for short, long in pairs if long.startswith(short))
        tails = dict.fromkeys(["", _tail(here), _tail(other)])
        for head, middle, tail in product(heads, ("", "x"), tails):
            yield here, other, f"{head}{middle}{tail}"


def _is_regex(place: Block) -> bool:
    return place.args[0] in REGEX


def _heads(place: Block) -> list[str]:
    if not _is_regex(place):
        return [place.args[-1]]
    return [each for each in literal_prefixes(place.args[-1]) or [] if each[:1] == "/"] or ["/"]


def _tail(place: Block) -> str:
    return literal_tail(_CHOICE.sub(r"\1", place.args[-1])) if _is_regex(place) else ""


def _selector(place: Block) -> _Selector:
    """What a location is for; `^~` counts as the prefix that it is."""
    return _KINDS.get(place.args[0], "prefix"), place.args[-1]


def _selector_of(pattern: LocationPattern) -> _Selector:
    return pattern.kind.removesuffix("_final"), pattern.value


def _finding(here: Block, uri: str, name: str, meant: str) -> Finding:
    return Finding(
        "chosen-otherwise",
        here.file,
        here.line,
        f"{uri} is served here, by the policy's location {meant!r}, and the sidecar decides about "
        f"it by {name!r}",
        f"auth_request /authz/{meant};  or the policy's locations in nginx's order",
    )
