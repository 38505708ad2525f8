"""Find locations whose target holds what the client wrote, and so any page of the application.

`location ~ ^/assets/(.*)$ { auth_request off; proxy_pass http://app/$1; }` makes /assets/admin the
application's /admin.  Here a URI is looked for that does so; without one nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .choices import led_to
from .guards import comes_to
from .nginx_config import Block, Root
from .rewriting import breaks, redirects
from .routing import REGEX, alternatives, captures, literal_prefixes, serving
from .server import Server
from .targets import addresses_of, file_roots, passes, resolved, target_path
from .variables import OF_THE_URI, constant, filled, names, plain_variables, possible

FILES = ""
"""Stands for this machine's files, among addresses."""

PROBES = ("x", "zz-any")


class Target(NamedTuple):
    """What a location leads to: the directive, the address, and the path there, with variables."""

    at: Block
    where: str
    path: str


def written_targets(place: Block, server: Server) -> list[Target]:
    """The targets of a location that may be another than the URI asked for, by its variables."""
    regex = place.args[0] in REGEX
    if not passes(place):
        paths = [(each, constant(each.args[0], place)) for each in place.own("alias") if regex]
        return [Target(at, FILES, path) for at, path in paths if "$" in path]
    found = []
    for each in place.within("proxy_pass"):
        whole = possible(each.args[0], each.parent, server.root, path=False)
        for given in sorted(map(plain_variables, whole)):
            path = target_path(given)
            if path is not None and not any(map(breaks, place.within("rewrite"))):
                continue
            path = path or re.sub(r"^\w+://[^/$]*", "", given)
            found += [Target(each, to, path) for to in addresses_of(given, each, server.root)]
    return found


def written_files(place: Block) -> list[Target]:
    """The files of a `root` that `rewrite … break` or `try_files` name in the URI's place."""
    if passes(place) or place.own("alias"):
        return []
    words = [(each, "$uri") for each in place.within("rewrite") if breaks(each)]
    words += [
        (each, word)
        for each in place.own("try_files")
        for word in each.args[:-1]
        if not set(names(word)) <= {*OF_THE_URI, "$is_args", "$args"}
    ]
    found = [(at, plain_variables(root + word)) for at, word in words for root in file_roots(place)]
    return [Target(at, FILES, path) for at, path in found]


def leading_to(place: Block, target: Target, wanted: str, server: Server) -> str | None:
    """A URI, out of those likely, under which this location leads to any page below a path."""
    first = None
    if not any(wanted.startswith(head) for head in _heads(place, target)):
        return None
    for begins in beginnings(place):
        uris = [_leads(place, target, begins, wanted + probe, server) for probe in PROBES]
        if all(uris):
            first = first or uris[0]
    return first


def _heads(place: Block, target: Target) -> list[str]:
    """What each path begins with that may come of a location."""
    paths = [target.path, *(each.args[1] for each in place.within("rewrite", "set"))]
    return [resolved(plain_variables(each).partition("$")[0]) for each in paths]


def _leads(place: Block, target: Target, begins: str, wanted: str, server: Server) -> str | None:
    head = resolved(target.path.partition("$")[0])
    heads = [head, head[:-1], *(resolved(head + each) for each in _heads(place, target))]
    rests = {
        "",
        wanted,
        wanted[1:],
        PROBES[0] + wanted,
        *(wanted.removeprefix(each) for each in heads),
    }
    for uri in sorted(begins + rest for rest in rests):
        if (
            _reached(place, target, uri, wanted, server.root)
            and serving(server.block, uri) is place
        ):
            return uri
    return None


def beginnings(place: Block) -> Iterator[str]:
    """What the URIs begin with that a location, or a `rewrite` in it, is for."""
    patterns = [place.args[-1]] if place.args[0] in REGEX else []
    patterns += [each.args[0] for each in place.within("rewrite")]
    patterns += [each.args[2] for each in place.own("if") if _is_of_the_uri(each)]
    if place.args[0] not in REGEX:
        yield place.args[-1]
    for pattern in (each for whole in patterns for each in alternatives(whole)):
        yield from literal_prefixes("^" + pattern.removeprefix("^")) or [""]


def head_of(place: Block, passing: Block, prefix: str, server: Server) -> str | None:
    """What stands for a location's prefix in the path there, where it writes that itself."""
    for target in written_targets(place, server):
        if target.at is not passing:
            continue
        there = [_path_there(place, target, prefix + probe) for probe in PROBES]
        paths = [
            (found[1] if found else "", probe) for found, probe in zip(there, PROBES, strict=True)
        ]
        heads = {path.removesuffix(probe) for path, probe in paths if path and path != probe}
        if len(heads) == 1 and all(path.endswith(probe) for path, probe in paths):
            return heads.pop()
    return None


def paths_there(place: Block, target: Target, uri: str) -> Iterator[tuple[Block, str]]:
    """The paths to which a request for this URI may be led, each with the directive that writes it.

    What the client chooses beside the URI stays a variable.  Each `if` that asks for something
    else may be true or not.  None where the URI isn't served here.
    """
    for entered in (None, *(each for each in place.own("if") if not _is_of_the_uri(each))):
        found = _path_there(place, target, uri, entered)
        if found is not None:
            yield found


def _path_there(
    place: Block, target: Target, uri: str, entered: Block | None = None
) -> tuple[Block, str] | None:
    values, asked = _captured(place, uri), uri
    if values is None:
        return None
    values |= {"request_uri": asked}
    written = _run(place, uri, values, entered)
    if written is None:
        return None  # another location serves it, or none
    at, uri = written
    values |= {"uri": uri, "document_uri": uri, "request_uri": asked}
    path = filled(target.path, values).partition("?")[0].partition("$is_args")[0]
    return at or target.at, resolved(path) or uri


def _captured(place: Block, uri: str) -> dict[str, str] | None:
    """What a location's expression captures of a URI; None where it isn't for that."""
    if place.args[0] not in REGEX:
        return {}
    return captures(place.args[-1], uri, ignore_case=place.args[0] == "~*")


def _run(
    place: Block, uri: str, values: dict[str, str], entered: Block | None
) -> tuple[Block | None, str] | None:
    """The URI that a location's rewrite module makes, and by what; `values` are set as well.

    None where it leads to another location, or it can't be told.
    """
    by, away = None, False
    for each in _that_run(place, uri, values, entered):
        values |= {"uri": uri, "document_uri": uri}
        if each.name == "set":
            name, given = each.args[0].strip("$").lower(), filled(each.args[1], values)
            values.pop(name, None)
            if "$" not in given or each.parent is place:
                values[name] = given  # else `choices` asks whether the `if` is true of it
            continue
        found = captures(each.args[0], uri)
        if found is None:
            continue
        values |= found
        by, uri = each, filled(each.args[1], values).partition("?")[0]
        away = not breaks(each)
        if redirects(each) or each.args[-1] == "last":
            return None
        if not away:
            break
    return None if away else (by, uri)


def _that_run(
    block: Block, uri: str, values: dict[str, str], entered: Block | None
) -> Iterator[Block]:
    """Each `set` and `rewrite`, those of an `if` where the URI asked for matches, or that is
    entered."""
    for each in block.inner:
        if each.name in ("set", "rewrite"):
            yield each
        elif each is entered:
            for name in "123456789" if "(" in each.args[-1] else "":
                values.pop(name, None)
            yield from _that_run(each, uri, values, None)
        elif each.name == "if" and _is_of_the_uri(each):
            found = captures(each.args[2], uri, ignore_case=each.args[1] == "~*")
            if each.args[1] in REGEX and found is not None:
                values |= found
                yield from _that_run(each, uri, values, None)


def _is_of_the_uri(condition: Block) -> bool:
    return len(condition.args) == 3 and condition.args[0] in OF_THE_URI


def _reached(place: Block, target: Target, uri: str, wanted: str, root: Root) -> bool:
    """Whether a request for this URI is led to what is wanted."""
    if not any(
        path == wanted or led_to(path, at, root, wanted)
        for at, path in paths_there(place, target, uri)
    ):
        return False
    found = (_captured(place, uri) or {}).items()
    known = {f"${name}": value for name, value in found if not name.isdecimal()}
    return comes_to(target.at, known | dict.fromkeys(OF_THE_URI, uri), root)
