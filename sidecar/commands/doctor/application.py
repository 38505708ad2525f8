"""Check that headers about the client come from nginx, on every way to the application."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from .access import closed
from .findings import Finding
from .nginx_config import Block
from .server import Server
from .targets import addresses, plain_variables

ANSWERED = "$upstream_http_"
CLIENTS = ("$http_", "$arg_", "$cookie_")
"""Variables that hold what the client says."""

_VARIABLE = re.compile(r"\$\w+")


@dataclass(frozen=True, slots=True)
class _Way:
    """How one `*_pass` is told of the client: the directive, and how a header is named there."""

    directive: str
    parameters: bool = False

    def named(self, header: str) -> str:
        """What stands for a header: itself, or the parameter that takes its place."""
        return "HTTP_" + header.upper().replace("-", "_") if self.parameters else header

    def header(self, name: str) -> str:
        """The header that a name stands for; empty for a parameter that stands for none."""
        if not self.parameters:
            return name
        return name.removeprefix("HTTP_").replace("_", "-") if name.startswith("HTTP_") else ""


_WAYS = {
    "proxy_pass": _Way("proxy_set_header"),
    "grpc_pass": _Way("grpc_set_header"),
    "fastcgi_pass": _Way("fastcgi_param", parameters=True),
    "uwsgi_pass": _Way("uwsgi_param", parameters=True),
    "scgi_pass": _Way("scgi_param", parameters=True),
}


def identity(servers: list[Server], findings: list[Finding]) -> None:
    """Headers that a server tells an application by whom it is used must be nginx's throughout."""
    kept = {target for each in servers for target in each.protected()}
    underscores = any(
        each.block.value("underscores_in_headers", "off") == "on" for each in servers
    )  # of servers on one port, the default server's value can hold for all
    for server in servers:
        told = _identity_headers(server)
        for location in server.places:
            if location.own("internal") or closed(location):
                continue
            for passing in _passing(location):
                if addresses(passing, server.root) & kept:
                    _check(passing, location, told, underscores, findings)


def _passing(location: Block) -> list[Block]:
    """The first `*_pass` of each kind: what is set for it holds in an `if` as well."""
    found = [next(location.within(name), None) for name in _WAYS]
    return [each for each in found if each is not None]


def _check(
    passing: Block,
    location: Block,
    told: dict[str, str],
    underscores: bool,
    findings: list[Finding],
) -> None:
    """One way from a location to what is protected."""
    way = _WAYS[passing.name]
    sent = {each.args[0].lower(): each for each in location.inherited(way.directive)}
    passed_on = location.value(f"{passing.name}_request_headers", "on") == "on"
    for header, variable in told.items():
        name = way.named(header)
        line = f"{way.directive} {name} {variable};"
        found = sent.get(name.lower())
        if found is not None and _says_the_client(found.args[1], location):
            what = f"{name} is {found.args[1]}"
            findings.append(Finding("identity-from-client", found.file, found.line, what, line))
        lacking = [
            each
            for each in (_spellings(name) if underscores and not way.parameters else [name])
            if each.lower() not in sent
        ]
        if lacking and passed_on:
            what = f"{lacking[0]} isn't set here, as it is elsewhere"
            if found is not None:
                what = f"{lacking[0]} isn't set here, and underscores_in_headers is on"
                line = "include snippets/identity.conf;   or: underscores_in_headers off;"
            findings.append(Finding("identity-lost", passing.file, passing.line, what, line))


def _spellings(header: str) -> list[str]:
    """A header's name, and what many applications take for it: `_` for `-`."""
    first, *rest = header.split("-")
    return [
        first + "".join(joint + part for joint, part in zip(joints, rest, strict=True))
        for joints in product("-_", repeat=len(rest))
    ]


def _says_the_client(value: str, location: Block) -> bool:
    """Whether a value holds what the client says: itself, or by a `set` or `auth_request_set`."""
    seen, left = set[str](), [value]
    while left and len(seen) < 64:
        for name in _VARIABLE.findall(plain_variables(left.pop())):
            if name.startswith(CLIENTS):
                return True
            if name not in seen:
                seen.add(name)
                left += _assigned(name, location)
    return False


def _assigned(name: str, location: Block) -> Iterator[str]:
    """What a variable is given here or in a block around."""
    answers = [e for e in location.inherited("auth_request_set") if e.args[:1] == [name]]
    if answers and location.value("auth_request", "off") != "off":  # after all `set`s
        yield from (each.args[1] for each in answers[-1:])
        return
    here: Block | None = location
    while here is not None:
        for each in here.within("set"):
            if each.args[:1] == [name] and len(each.args) == 2:
                yield each.args[1]
        here = here.parent


def _identity_headers(server: Server) -> dict[str, str]:
    """Each header that a server sets from the sidecar's answer, and the variable that holds it."""
    found: dict[str, str] = {}
    for location in server.places:
        answered = {
            each.args[0]
            for each in location.inherited("auth_request_set")
            if each.args[1].startswith(ANSWERED)
        }
        for way in _WAYS.values():
            for each in location.inherited(way.directive):
                header, value = way.header(each.args[0]), plain_variables(each.args[1])
                if header and value in answered:
                    found.setdefault(_title(header, found), value)
    return found


def _title(header: str, found: dict[str, str]) -> str:
    """A header's name as it was first written: parameters are in upper case."""
    return next((each for each in found if each.lower() == header.lower()), header)
