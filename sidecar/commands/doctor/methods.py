"""Find where the application gets another method than the sidecar is asked about.

`proxy_method $arg_m;` lets whoever may GET do a DELETE, and `proxy_method POST;` makes one of a
preflight that `public_methods: [OPTIONS]` lets through.  It counts where rules ask for the method.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.core.policy.model import Location, Policy

from .access import closed
from .choices import made
from .findings import Finding
from .guards import comes_to, of_map
from .nginx_config import Block, Root
from .server import Server, question
from .targets import passes
from .variables import constant, plain_variables

_ASKED = "$request_method"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_READS = ("GET", "HEAD")
_HEADERS = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
"""What many applications take for the method (see nginx-example/snippets/method.conf)."""
_PARAMETERS = {"REQUEST_METHOD", *("HTTP_" + e.upper().replace("-", "_") for e in _HEADERS)}
_SENT = {
    "proxy_pass": ("proxy_set_header", set(map(str.upper, _HEADERS))),
    "grpc_pass": ("grpc_set_header", set(map(str.upper, _HEADERS))),
    "fastcgi_pass": ("fastcgi_param", _PARAMETERS),
    "scgi_pass": ("scgi_param", _PARAMETERS),
    "uwsgi_pass": ("uwsgi_param", _PARAMETERS),
}


def changed_methods(server: Server, policy: Policy | None, findings: list[Finding]) -> None:
    """One finding for each directive that sends another method, where that decides."""
    for here in server.asking:
        if closed(here) or not server.asks_sidecar(question(here)):
            continue
        asked = _asked(question(here), policy)
        sent = (each for place in (here, *server.served_by(here)) for each in _sent(place))
        for at, passing, value in sent:
            change = _change(value, passing, here, server.root, asked)
            if change is not None:
                findings.append(_finding(at, value, *change))


def _asked(uri: str, policy: Policy | None) -> list[Location] | None:
    """The policy's locations that may decide about a question; None: the policy isn't known."""
    if policy is None:
        return None
    place = policy.locations.get(uri.removeprefix("/authz").removeprefix("/"))
    return [place] if place is not None else [*policy.locations.values()]


def _sent(place: Block) -> Iterator[tuple[Block, Block, str]]:
    """Each directive by which a `*_pass` tells the method, and what it says."""
    for passing in {each.name: each for each in passes(place)}.values():
        around = passing.parent or place
        if passing.name == "proxy_pass":
            held = around.inherited("proxy_method")[-1:]
            yield from (
                (each, passing, plain_variables(each.args[0])) for each in held if each.args
            )
        directive, names = _SENT.get(passing.name, ("", set[str]()))
        for each in around.inherited(directive):
            if each.args[0].upper() in names:
                yield each, passing, plain_variables(each.args[1])


def _change(
    value: str, at: Block, here: Block, root: Root, asked: list[Location] | None
) -> tuple[str, str] | None:
    """The method that is asked about, and another one that is sent, if both are decided about."""
    for tried in ("DELETE", "GET"):
        for given, variable in made(value, at, root, tried):
            if given == tried and _decides(variable, tried, asked):
                return variable, tried
    for method in _METHODS:
        sent = constant(value, at)
        if sent.startswith("$") and sent != _ASKED:
            sent = of_map(sent, {_ASKED: method}, root) or ""
        if sent in ("", method, _ASKED) or "$" in sent or {method, sent} == set(_READS):
            continue
        if (
            _decides(method, sent, asked)
            and comes_to(at, {_ASKED: method}, root)
            and not _is_limited(here, method)
        ):
            return method, sent
    return None


def _decides(method: str, sent: str, asked: list[Location] | None) -> bool:
    """Whether one may be let in by the method asked about, and not by the other: GET only reads."""
    if asked is None:
        return sent not in _READS
    return any(
        each.uses_method
        and not each.public
        and (
            sent not in _READS
            or each.deny.method
            or each.without_cert.method
            or method in each.public_methods
            or (method not in _METHODS and bool(each.public_methods))
        )
        for each in asked
    )


def _is_limited(here: Block, method: str) -> bool:
    """Whether `limit_except` lets nobody use a method; GET stands for HEAD as well."""
    return any(
        closed(each) and not {method, "GET" if method == "HEAD" else method} & set(each.args)
        for each in here.own("limit_except")
    )


def _finding(at: Block, value: str, method: str, sent: str) -> Finding:
    becomes = f"a {method} becomes a {sent}"
    if method.startswith("$"):
        becomes = f"by {method} the client makes a {sent} of any method"
    what = f"`{' '.join(at.args[:-1]) or at.name}` is {value}: {becomes}"
    write = "remove it, or: a location of its own, with a rule that asks for no method"
    return Finding("method-changed", at.file, at.line, what, write)
