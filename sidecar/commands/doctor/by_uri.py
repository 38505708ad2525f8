"""Find paths that nginx changes where the sidecar chooses the location by URI.

`auth_request /authz` asks about the URI that the client wrote.  With `location /go/ { proxy_pass
http://app/admin/; }` that is /go/x, while the application is asked for /admin/x, about which other
rules may ask; so with `rewrite ^/go/(.*)$ /admin/$1;`, an `alias`, or a path that an expression
writes, or where a `try_files`, an `error_page` or an `index` leads.  A script that serves every
path (`rewrite ^ /index.php`) goes by what the client wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sidecar.core.policy.model import Policy

from .captured import beginnings, paths_there, written_targets
from .choices import led_to
from .findings import Finding
from .listeners import server_names
from .nginx_config import Block, Root
from .rewriting import redirects
from .routing import REGEX, alternatives, captures, literal_prefixes, serving
from .server import Server, question
from .targets import file_roots, files, passes, shown_by, target_path
from .variables import filled, plain_variables, possible

BY_URI = "/authz"
"""The question in which the sidecar chooses."""

_PROBE = "x"
_URIS = ("uri", "request_uri", "document_uri")
_SCRIPT = re.compile(r"/[^/$]*\.[^/$]*")


class _Step(NamedTuple):
    """What a directive makes of a URI; `last`: nginx looks for the location again then.

    `by` is the location that leads on, where that isn't the one of the URI that is asked about.
    """

    at: Block
    asked: str
    served: str
    last: bool = False
    by: Block | None = None


def changed_paths(server: Server, policy: Policy | None, findings: list[Finding]) -> None:
    """Each change by which one location of the policy is asked about, and another one served."""
    if policy is None or BY_URI not in server.questions:
        return
    told, host = set[int](), host_of(server)
    for step in _steps(server, sorted({"", *policy.chooser.paths})):
        if id(step.at) in told:
            continue
        uris = (step.asked, step.served)
        names = [policy.chooser.choose(host, each.encode()) for each in uris]
        if differ(policy, *names) and _asked_by_uri(server, step):
            told.add(id(step.at))
            findings.append(_finding(step.at, *uris, *names))


def _steps(server: Server, wanted: list[str]) -> Iterator[_Step]:
    roots = {
        root
        for each in server.asking
        if question(each) == BY_URI and not passes(each)
        if (shown := shown_by(each)) is not None and shown.name == "root"
        for root in file_roots(each)
    }
    for place in server.places:
        for each in place.within("rewrite"):
            if not redirects(each):
                yield from _rewritten(each, place, wanted, server.root)
        if place is not server.block:
            yield from _replaced(place, roots, wanted, server.root)
            yield from _written(place, server, wanted)
    for here in server.asking:
        if question(here) == BY_URI and here.name == "location":
            yield from _led_on(here, server, wanted)


def _led_on(here: Block, server: Server, wanted: list[str]) -> Iterator[_Step]:
    """By a `try_files`, an `error_page` or an `index`: nginx looks for the location again then."""
    targets = list(_targets(here))
    for begins in beginnings(here) if targets else ():
        uris = (begins + _PROBE, begins)
        asked = next((each for each in uris if serving(server.block, each) is here), None)
        if asked is not None:
            for at, target in targets:
                yield from _led_to(at, target, asked, here, server, wanted)


def _led_to(
    at: Block, target: str, asked: str, here: Block, server: Server, wanted: list[str]
) -> Iterator[_Step]:
    if target.startswith("@"):
        named = serving(server.block, target)
        for each in named.within("rewrite") if named is not None else ():
            for step in _rewritten(each, here, wanted, server.root):
                yield step._replace(by=named)
        return
    last, known = at.args[-1] == target, dict.fromkeys(_URIS, asked)
    for given in possible(target, at.parent, server.root):
        if not _SCRIPT.fullmatch(path := given.partition("?")[0]):
            for served in _chosen(filled(path, known), wanted, at, server.root):
                yield _Step(at, asked, served, last, here)


def _chosen(served: str, wanted: list[str], at: Block, root: Root) -> Iterator[str]:
    """The paths, out of those wanted, that a path may be of which the client writes the end."""
    head, variable, _ = served.partition("$")
    if not variable:
        yield from [served] if served[:1] == "/" else []
        return
    below = (each + _PROBE for each in wanted if each and each.startswith(head))
    yield from (each for each in below if led_to(served, at, root, each))


def _targets(here: Block) -> Iterator[tuple[Block, str]]:
    """Where nginx leads a request on, or which file it shows instead."""
    for each in here.own("try_files"):
        yield from ((each, target) for target in each.args)
    for each in here.inherited("error_page"):
        yield each, each.args[-1]
    for each in here.inherited("index") if not passes(here) else ():
        yield each, each.args[-1]


def _rests(begins: str, head: str, wanted: list[str]) -> Iterator[str]:
    """What may follow in a URI, so that it is one of those wanted, or becomes one behind `head`."""
    yield from ("", _PROBE)
    for each in wanted:
        if each.startswith(head):
            yield each[len(head) :] + _PROBE
            yield each[len(head) :]
        if begins and each.startswith(begins):
            yield each[len(begins) :] + _PROBE


def _rewritten(rewrite: Block, place: Block, wanted: list[str], root: Root) -> Iterator[_Step]:
    """By a `rewrite`."""
    whole = ["^" + each.removeprefix("^") for each in alternatives(rewrite.args[0])]
    found_in = [place.args[-1]] if place.name == "location" and place.args[0] not in REGEX else []
    begins = found_in + [each for one in whole for each in literal_prefixes(one) or [""]]
    for given in possible(rewrite.args[1], rewrite.parent, root):
        written = plain_variables(given).partition("?")[0]
        if not _SCRIPT.fullmatch(written):
            yield from _written_as(rewrite, written, begins, wanted, root)


def _written_as(
    rewrite: Block, written: str, beginnings: list[str], wanted: list[str], root: Root
) -> Iterator[_Step]:
    open_ended = set[str]()
    for begins in beginnings:
        for rest in _rests(begins, written.partition("$")[0], wanted):
            asked = begins + rest if begins else "/" + rest.lstrip("/")
            found = captures(rewrite.args[0], asked)
            if found is not None:
                served = filled(written, found | {"uri": asked, "request_uri": asked})
                if served in open_ended:
                    continue
                open_ended |= {served} if "$" in served else set()
                for each in _chosen(served, wanted, rewrite, root):
                    yield _Step(rewrite, asked, each, rewrite.args[2:] != ["break"])


def _replaced(place: Block, roots: set[str], wanted: list[str], root: Root) -> Iterator[_Step]:
    """By the path of a `proxy_pass`, or the `alias` of what a `root` serves, too."""
    if place.args[0] in REGEX:
        return
    old, exact = place.args[-1], place.args[0] == "="
    changes: list[tuple[Block, str | None]]
    changes = [(each, target_path(each.args[0])) for each in place.own("proxy_pass")]
    for shown in sorted(files(place)) if place.own("alias") else ():
        changes += [(place, f"/{shown[len(each) :]}") for each in roots if shown.startswith(each)]
    for each in place.own("proxy_pass"):
        for given in possible(each.args[0], place, root) if "$" in each.args[0] else ():
            path = target_path(given)
            if path and not _SCRIPT.fullmatch(path):
                yield _Step(each, old if exact else old + _PROBE, path)
    for at, new in changes:
        if not new or new == old or (exact and _SCRIPT.fullmatch(new)):
            continue
        for rest in ("",) if exact else _rests(old, new, wanted):
            yield _Step(at, old + rest, new + rest)


def _written(place: Block, server: Server, wanted: list[str]) -> Iterator[_Step]:
    """By a target with variables: what an expression captures, what a query names."""
    open_ended = set[tuple[int, str]]()
    for target in written_targets(place, server):
        head = target.path.partition("$")[0]
        for begins in beginnings(place):
            for rest in _rests(begins, head, wanted):
                asked = begins + rest
                if serving(server.block, asked) is not place:
                    continue
                for at, served in paths_there(place, target, asked):
                    if (id(at), served) in open_ended:
                        continue
                    open_ended |= {(id(at), served)} if "$" in served else set()
                    for each in _chosen(served, wanted, at, server.root):
                        yield _Step(target.at, asked, each)


def _asked_by_uri(server: Server, step: _Step) -> bool:
    """Whether the sidecar is asked about the URI where the changed path is served.

    Unless nginx looks for the location again, that is where the path leads to the same address, or
    to files: a path of another application has nothing to do with the policy's.
    """
    here, there = serving(server.block, step.asked), serving(server.block, step.served)
    if here is None or there is None:
        return False
    if step.by is not None:
        here, around = step.by, None
    else:
        around = here if step.at is here else step.at.parent
    if around is not None and around.name == "if":
        around = around.parent
    if around not in (None, server.block, here):
        return False
    if step.last:
        return question(there) == BY_URI
    both_files = not passes(here) and not passes(there)
    shared = server.served(here) & server.served(there)
    return question(here) == BY_URI and bool(shared or both_files)


def host_of(server: Server) -> str:
    """A host that a server is for."""
    return next((e for e in server_names(server.block) if re.fullmatch(r"[\w.-]+", e)), "")


def differ(policy: Policy, asked: str | None, served: str | None) -> bool:
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
