"""Find paths whose dots nginx resolves to decide, and passes on as the client wrote them.

`/admin/../public/x` is /public/x to nginx, and begins with /admin/ for an application that resolves
nothing.  `proxy_pass http://app;` without a path passes on the client's own spelling
(ngx_http_proxy_create_request); so do gRPC, and whatever sends `$request_uri`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sidecar.core.policy.model import Policy

from .access import closed
from .findings import Finding
from .nginx_config import COMMENT, Block, Root
from .rewriting import redirects, status_of
from .routing import matches
from .server import Server, is_reached_so_only, question
from .targets import addresses, plain_variables, possible

SPELLINGS = ("/a/../b", "/a/b/%2e%2e/%2E./c?d", "/a%2f..%2Fb", "/a/.%2e/b/")
"""What a guard has to refuse: dots and slashes, plain and encoded in either case."""

WRITE = (
    "include snippets/authz-location.conf;   (or in the server: if ($request_uri ~* "
    r'"\A[^?]*(/|%2f)(\.|%2e){1,2}(/|%2f|\?|\z)") { return 400; })'
)
_RAW = re.compile(r"\$request_uri\b")
_PARAMETERS = {
    "fastcgi_pass": "fastcgi_param",
    "uwsgi_pass": "uwsgi_param",
    "scgi_pass": "scgi_param",
}
_BARE = re.compile(r"(?:\w+://)?(?:unix:[^:]+|[^/:$]+(?::\d+)?|\[[^]/]+\](?::\d+)?)")


def raw_paths(
    server: Server, policy: Policy | None, by_uri: set[str], findings: list[Finding]
) -> None:
    """One finding for a server of which one location may show what another one asks about.

    `by_uri`: the questions in which the sidecar chooses the location itself.
    """
    if _is_guarded(server.block, server.root):
        return
    for here in server.locations:
        if not _is_open_to_clients(here, server) or _is_guarded(here, server.root):
            continue
        raw = set(_raw_addresses(here, server))
        for other in server.asking if raw else ():
            if other.name != "location" or other.args[0] == "=" or not _is_reached(other):
                continue
            if question(other) == question(here) and not (
                question(here) in by_uri and _chooses(policy)
            ):
                continue
            if shared := raw & server.served(other):
                findings.append(_finding(server, here, other, min(shared)))
                return


def _is_open_to_clients(place: Block, server: Server) -> bool:
    """Whether clients are served here, and it is known what is asked: else that is told."""
    answers = place in server.questions.values()
    return _is_reached(place) and not answers and bool(place.inherited("auth_request"))


def _is_reached(place: Block) -> bool:
    return not is_reached_so_only(place) and not closed(place)


def _chooses(policy: Policy | None) -> bool:
    return policy is None or len(policy.chooser.names) > 1


def _raw_addresses(place: Block, server: Server) -> Iterator[str]:
    """The addresses that get a client's path as it is written."""
    for by in (place, *server.served_by(place)):
        for each in by.within("proxy_pass", "grpc_pass", *_PARAMETERS):
            if _is_raw(each, by, place, server.root):
                yield from addresses(each, server.root)


def _is_raw(passing: Block, by: Block, place: Block, root: Root) -> bool:
    """Whether one `*_pass` passes the client's own spelling on; no where it can't be told."""
    if passing.name in _PARAMETERS:
        sent = by.inherited(_PARAMETERS[passing.name])
        return any(_RAW.fullmatch(plain_variables(each.args[1])) for each in sent)
    target = plain_variables(passing.args[0])
    written = [*by.within("rewrite"), *place.within("rewrite")]
    if any(_RAW.search(plain_variables(each.args[1])) for each in written):
        return True
    if any(not redirects(each) for each in written):
        return False  # the URI is nginx's own then
    if by is not place and not by.args[-1].startswith("@"):
        return False  # an internal redirect: so it is there, too
    return any(
        _RAW.search(each) or _BARE.fullmatch(each)
        for each in possible(target, passing.parent, root)
    )


# -- guards


def _is_guarded(place: Block, root: Root) -> bool:
    """Whether some `if` right here refuses each spelling, before the request goes on."""
    guards = [
        each for each in place.own("if") if any(status_of(e) >= 300 for e in each.own("return"))
    ]
    return all(any(_holds(each.args, uri, root) for each in guards) for uri in SPELLINGS)


def _holds(condition: list[str], uri: str, root: Root) -> bool:
    """Whether the condition of an `if` is true of a request for this, whatever else it is."""
    subject = plain_variables(condition[0])
    if len(condition) == 1:
        return _mapped(subject, uri, root) not in ("", "0")
    if len(condition) != 3 or not _RAW.search(subject):
        return False
    return bool(_true(condition[1], condition[2], _filled(subject, uri)))


def _true(operator: str, operand: str, text: str) -> bool | None:
    found = matches(operand, text, operator.endswith("*"))
    if found is None or operator.lstrip("!")[:1] != "~":
        return None
    return found != operator.startswith("!")


def _filled(text: str, uri: str) -> str:
    """A text with the URI in it, and for other variables a word."""
    return re.sub(r"\$\w+", "x", _RAW.sub(lambda _: uri, text))


def _mapped(variable: str, uri: str, root: Root) -> str:
    """What a `map` of `$request_uri` makes of it; "" where there is none."""
    for table in root.all("map"):
        if len(table.args) != 2 or plain_variables(table.args[1]) != variable:
            continue
        source = plain_variables(table.args[0])
        if _RAW.search(source):
            return _looked_up(table, _filled(source, uri))
    return ""


def _looked_up(table: Block, text: str) -> str:
    default = ""
    for each in table.inner:
        if each.name == COMMENT or not each.args:
            continue
        if each.name == "default":
            default = each.args[-1]
        elif each.name.startswith("~"):
            pattern = each.name.removeprefix("~")
            if matches(pattern.removeprefix("*"), text, pattern.startswith("*")):
                return each.args[-1]
    return default


def _finding(server: Server, here: Block, other: Block, where: str) -> Finding:
    asked = question(here) or "nobody"
    begins = other.args[-1] if other.args[-1].startswith("/") else "/x/"
    leads = here.args[-1] if here.args[-1].startswith("/") else "…"
    at = server.block
    what = (
        f"{begins.rstrip('/')}/../{leads.lstrip('/')} is passed on to {where} as it is written "
        f"({here.line_from(at)}): {asked} is asked, and not {question(other)} "
        f"({other.line_from(at)})"
    )
    if here is other:
        what = (
            f"/x/../y is asked about as /y, and passed on to {where} as it is written "
            f"({here.line_from(at)})"
        )
    return Finding("dots-passed-on", at.file, at.line, what, WRITE)
