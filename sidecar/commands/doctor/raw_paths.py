"""Find paths whose dots nginx resolves to decide, and passes on as the client wrote them.

`/admin/../public/x` is /public/x to nginx, and begins with /admin/ for an application that resolves
nothing.  `proxy_pass http://app;` without a path passes on the client's own spelling
(ngx_http_proxy_create_request); so do gRPC, and whatever sends `$request_uri`.  Where `$uri` is
sent, or what an expression captured, nginx has decoded the path once: /public/%252e%252e/admin
arrives as /public/%2e%2e/admin, which is /admin to every application that decodes and resolves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sidecar.core.policy.model import Policy

from .access import is_reached
from .choices import beside_the_uri
from .decoded import PERCENT, decoded
from .findings import Finding
from .guards import DOTS, DOTS_QUERY, DOTS_TWICE, RAW, WRITE, is_guarded, tiring
from .nginx_config import Block, Root
from .rewriting import redirects, takes_every_uri
from .server import Server, question
from .targets import addresses, target_path
from .variables import names, plain_variables, possible

_Sent = Callable[[Block, Block, Block, Root], bool]
_PARAMETERS = {
    "fastcgi_pass": "fastcgi_param",
    "uwsgi_pass": "uwsgi_param",
    "scgi_pass": "scgi_param",
}


def raw_paths(
    server: Server, policy: Policy | None, by_uri: set[str], findings: list[Finding]
) -> None:
    """One finding for a server of which one location may show what another one asks about.

    `by_uri`: the questions in which the sidecar chooses the location itself.
    """
    kinds = ((_is_raw, DOTS), (_is_decoded, DOTS_TWICE), (_is_chosen, DOTS_QUERY))
    for sent, spellings in kinds:
        if not is_guarded(server.block, server.root, spellings) and _told(
            server, policy, by_uri, sent, spellings, findings
        ):
            return


def _told(
    server: Server,
    policy: Policy | None,
    by_uri: set[str],
    sent: _Sent,
    spellings: tuple[str, ...],
    findings: list[Finding],
) -> bool:
    for here in server.locations:
        if not server.is_open_to_clients(here) or is_guarded(here, server.root, spellings):
            continue
        raw = set(_addresses(here, server, sent))
        for other in server.keeping if raw else ():
            if other.name != "location" or other.args[0] == "=" or not is_reached(other):
                continue
            if question(other) == question(here) and not (
                question(here) in by_uri and _chooses(policy)
            ):
                continue
            if shared := raw & server.served(other):
                findings.append(_finding(server, here, other, min(shared), spellings))
                return True
    return False


def _chooses(policy: Policy | None) -> bool:
    return policy is None or len(policy.chooser.names) > 1


def _addresses(place: Block, server: Server, sent: _Sent) -> Iterator[str]:
    """The addresses that get a client's path as it is written, or decoded once."""
    for by in (place, *server.served_by(place)):
        for each in by.within("proxy_pass", "grpc_pass", *_PARAMETERS):
            if sent(each, by, place, server.root):
                yield from addresses(each, server.root)


def _is_raw(passing: Block, by: Block, place: Block, root: Root) -> bool:
    """Whether one `*_pass` passes the client's own spelling on; no where it can't be told."""
    if passing.name in _PARAMETERS:
        sent = by.inherited(_PARAMETERS[passing.name])
        return any(plain_variables(each.args[1]) == RAW for each in sent)
    target = plain_variables(passing.args[0])
    written = [*by.within("rewrite"), *place.within("rewrite")]
    if any(RAW in names(each.args[1]) for each in written):
        return True
    always = (*by.own("rewrite"), *place.own("rewrite"))
    if any(takes_every_uri(each, place) and not redirects(each) for each in always):
        return False  # the URI is nginx's own then
    if by is not place and not by.args[-1].startswith("@"):
        return False  # an internal redirect: so it is there, too
    return any(
        RAW in names(each) or target_path(each) == ""
        for each in possible(target, passing.parent, root)
    )


def _is_decoded(passing: Block, by: Block, place: Block, root: Root) -> bool:
    """Whether one `proxy_pass` sends what nginx has decoded of the path."""
    if passing.name != "proxy_pass" or (by is not place and not by.args[-1].startswith("@")):
        return False
    path = plain_variables(passing.args[0]).partition("://")[2]
    return decoded(path, passing.parent or by, root, PERCENT) != ""


def _is_chosen(passing: Block, by: Block, place: Block, root: Root) -> bool:
    """Whether one `proxy_pass` has a part of its path from the query, a header or a cookie."""
    if passing.name != "proxy_pass" or passing.parent is None:
        return False
    given = passing.args[0].partition("?")[0].partition("$is_args")[0]
    texts = beside_the_uri(given, passing.parent, root, "../x")
    return any(".." in each.partition("://")[2].partition("/")[2] for each in texts)


def _finding(
    server: Server, here: Block, other: Block, where: str, kind: tuple[str, ...]
) -> Finding:
    asked = question(here) or "nobody"
    begins = other.args[-1] if other.args[-1].startswith("/") else "/x/"
    leads = here.args[-1] if here.args[-1].startswith("/") else "…"
    at = server.block
    ask = f"{asked} is asked, and not {question(other)} ({other.line_from(at)})"
    what, write = f"is passed on to {where}", WRITE
    if kind is DOTS_QUERY:
        what = f"the query's ../..{begins} {what} in the path ({here.line_from(at)}): {ask}"
        write = "a path without $arg_…, $http_… or $cookie_…, or one that a map gives"
    elif kind is DOTS_TWICE:
        what = (
            f"{leads.rstrip('/')}/%252e%252e{begins} {what} decoded ({here.line_from(at)}): {ask}"
        )
    elif here is other:
        what = f"/x/../y is asked about as /y, and passed on to {where} as it is written "
        what += f"({here.line_from(at)})"
    else:
        to = leads.lstrip("/")
        what = f"{begins.rstrip('/')}/../{to} {what} as it is written ({here.line_from(at)}): {ask}"
    return Finding("dots-passed-on", at.file, at.line, what + tiring(at, server.root), write)
