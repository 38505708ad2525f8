"""Check that headers about the client come from nginx, on every way to the application."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from .access import closed, is_internal
from .findings import Finding
from .nginx_config import Block, Root
from .rewriting import assigned, named_by
from .server import Server
from .targets import addresses
from .variables import of_maps, plain_variables, resting_on, set_around

ANSWERED = "$upstream_http_"
OF_THE_CERTIFICATE = "$ssl_client_"
CLIENTS = ("$http_", "$arg_", "$cookie_")
"""Variables that hold what the client says."""

_UNDERSCORES = "include snippets/identity.conf;   or: underscores_in_headers off;"


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
        _invalid_names(server, told, findings)
        for location in server.places:
            if location in server.questions.values() or closed(location):
                continue
            for passing in _passing(location, kept, server.root):
                _check(passing, location, told, underscores, server.root, findings)


def _invalid_names(server: Server, told: dict[str, str], findings: list[Finding]) -> None:
    """With `ignore_invalid_headers off` no setting of ours holds for X_Client_CN or X-Client.CN.

    nginx knows headers that it calls invalid by no hash (ngx_http_parse_header_line).
    """
    found = server.block.inherited("ignore_invalid_headers")
    if told and found and found[-1].args == ["off"]:
        name = next(iter(told)).replace("-", "_")
        what = f"ignore_invalid_headers is off: a client's own {name} arrives"
        line = "ignore_invalid_headers on;"
        findings.append(Finding("identity-lost", found[-1].file, found[-1].line, what, line))


def _passing(location: Block, kept: set[str], root: Root) -> list[Block]:
    """The first `*_pass` of each kind to what is kept: what is set for it holds in an `if`, too."""
    found: dict[str, Block] = {}
    for each in location.within(*_WAYS):
        if each.name not in found and addresses(each, root) & kept:
            found[each.name] = each
    return list(found.values())


def _check(
    passing: Block,
    location: Block,
    told: dict[str, str],
    underscores: bool,
    root: Root,
    findings: list[Finding],
) -> None:
    """One way from a location to what is protected."""
    way = _WAYS[passing.name]
    sent = {each.args[0].lower(): each for each in location.inherited(way.directive)}
    passed_on = location.value(f"{passing.name}_request_headers", "on") == "on"
    lacking = {"as elsewhere": dict[str, str](), "and underscores_in_headers is on": {}}
    elsewhere, underscored = lacking.values()
    for header, variable in told.items():
        name = way.named(header)
        line = f"{way.directive} {name} {variable};"
        found = sent.get(name.lower())
        if found is not None and _says_the_client(found.args[1], location, root):
            what = f"{name} is {found.args[1]}{_place(found, location)}"
            findings.append(Finding("identity-from-client", found.file, found.line, what, line))
        spellings = _spellings(name) if underscores and not way.parameters else [name]
        if found is None:
            elsewhere[name] = line
        elif unset := next((each for each in spellings if each.lower() not in sent), None):
            underscored[unset] = _UNDERSCORES
    for why, lines in lacking.items() if passed_on else ():
        if lines:
            what = f"not set here, {why}: {', '.join(lines)}"
            write = " ".join(dict.fromkeys(lines.values()))
            findings.append(Finding("identity-lost", passing.file, passing.line, what, write))


def _place(at: Block, location: Block) -> str:
    """In which location an inherited directive does what is told of it."""
    if at.parent is location or location.name != "location":
        return ""
    return f" in location {' '.join(location.args)} ({location.line_from(at)})"


def _spellings(header: str) -> list[str]:
    """A header's name, and what many applications take for it: `_` for `-`."""
    first, *rest = header.split("-")
    return [
        first + "".join(joint + part for joint, part in zip(joints, rest, strict=True))
        for joints in product("-_", repeat=len(rest))
    ]


def _says_the_client(value: str, location: Block, root: Root) -> bool:
    """Whether a value holds what the client says: itself, by `set`, `map` or a captured name."""

    def given(name: str) -> list[str]:
        return [*_assigned(name, location), *of_maps(name, root)]

    return any(name.startswith(CLIENTS) for name in resting_on(value, given))


def _assigned(name: str, location: Block) -> Iterator[str]:
    """What a variable is given here or in a block around; a captured one is the client's word."""
    answers = [e for e in location.inherited("auth_request_set") if e.args[0].lower() == name]
    if answers and location.value("auth_request", "off") != "off":  # after all `set`s
        yield from (each.args[1] for each in answers[-1:])
        return
    yield from set_around(name, location)
    for here in location.around():
        captures = {**assigned(here), **named_by(here)}.get(name, [])
        yield from (CLIENTS[0] for each in captures if each.name != "set")


def _identity_headers(server: Server) -> dict[str, str]:
    """Each header by which a server says who the client is, and the variable that holds it.

    It comes of the sidecar's answer or of nginx's own word of the certificate.
    """
    found: dict[str, str] = {}
    for location in server.places:
        if location in server.questions.values() or is_internal(location):
            continue
        answered = {
            each.args[0].lower()
            for each in location.inherited("auth_request_set")
            if each.args[1].lower().startswith(ANSWERED)
        }
        for way in _WAYS.values():
            for each in location.inherited(way.directive):
                header, value = way.header(each.args[0]), plain_variables(each.args[1])
                if header and _says_who(value, answered, server.root):
                    found.setdefault(_title(header, found), value)
    return found


def _says_who(value: str, answered: set[str], root: Root) -> bool:
    """Whether a value rests on the sidecar's answer or the certificate: itself, or by a `map`."""
    found = resting_on(value, lambda name: of_maps(name, root))
    return any(each in answered or each.startswith(OF_THE_CERTIFICATE) for each in found)


def _title(header: str, found: dict[str, str]) -> str:
    """A header's name as it was first written: parameters are in upper case."""
    return next((each for each in found if each.lower() == header.lower()), header)
