"""Find what takes requests from prefix locations with another question: expressions, slashes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from .access import closed
from .expressions import can_begin
from .findings import Finding
from .nginx_config import Block
from .onward import HANDLER
from .routing import REGEX, literal_prefixes, serving
from .server import Server, question
from .targets import passes, shown_by


def taken_by_regex(server: Server, findings: list[Finding]) -> None:
    """Each regular expression that serves a part of a prefix location under another question."""
    for parent in (server.block, *server.locations):
        locations = parent.own("location")
        regexes = [e for e in locations if e.args[0] in REGEX and _may_take(server, e)]
        prefixes = [e for e in _behind_expressions(parent) if _may_be_taken(server, e)]
        findings += [
            _finding(regex, prefix)
            for regex in regexes
            for prefix in prefixes
            if _can_match_below(regex, prefix.args[-1])
            and question(prefix) != question(regex)
            and not _covers(prefix, regex)
            and not _lead_apart(server, prefix, regex)
        ]


def _lead_apart(server: Server, prefix: Block, regex: Block) -> bool:
    """Whether a prefix passes on to an application of which the expression shows nothing.

    That passes on to others, or has neither an application nor a `root`.
    """
    there, here = server.served(prefix), server.served(regex)
    if not passes(prefix) or not (passes(regex) or _is_empty(regex)):
        return False
    return not (there & here or any("$" in where for where in there | here))


def _is_empty(place: Block) -> bool:
    """Whether a location shows files of nginx's own directory only, and leads nowhere."""
    answers = any(each.name == "rewrite" or HANDLER.fullmatch(each.name) for each in place.inner)
    pages = [each for each in place.inherited("error_page") if each.args[-1][:1] in ("@", "$")]
    return shown_by(place) is None and not (answers or pages or place.own("if"))


def taken_by_slashes(server: Server, findings: list[Finding]) -> None:
    """With `merge_slashes off` //admin/ isn't /admin/ to nginx, but is to many applications."""
    kept = server.block.inherited("merge_slashes")
    if not kept or kept[-1].args != ["off"]:
        return
    for prefix in server.block.own("location"):
        path = prefix.args[-1]
        if prefix.args[0] in ("=", *REGEX) or path[:1] != "/" or path == "/":
            continue
        other = serving(server.block, f"/{path}")
        if not server.keeps(prefix) or closed(prefix) or other is None or closed(other):
            continue
        if question(other) != question(prefix) and server.led_to(other) & server.led_to(prefix):
            line = prefix.line_from(kept[-1])
            what = f"/{path} is no part of {path} ({line}), where another is asked about"
            write = "merge_slashes on;   (or: if ($uri ~ //) { return 400; })"
            findings.append(Finding("slashes-kept", kept[-1].file, kept[-1].line, what, write))
            return


def _may_take(server: Server, regex: Block) -> bool:
    """Whether an expression serves requests; where nothing is asked at all, `not-asked` says so."""
    return server.is_open_to_clients(regex)


def _behind_expressions(parent: Block) -> Iterator[Block]:
    """The prefixes before which a block's expressions go: those within them, with ^~, too."""
    for each in parent.own("location"):
        if each.args[0] not in ("=", "^~", *REGEX):
            yield each
            yield from _prefixes_within(each)


def _prefixes_within(parent: Block) -> Iterator[Block]:
    for each in parent.own("location"):
        if each.args[0] not in ("=", *REGEX):
            yield each
            yield from _prefixes_within(each)


def _may_be_taken(server: Server, prefix: Block) -> bool:
    path = prefix.args[-1]
    return path.startswith("/") and path != "/" and server.keeps(prefix) and not closed(prefix)


def _covers(prefix: Block, regex: Block) -> bool:
    """Whether the prefix location, or one around, has the same expression, which goes first."""
    inner = takewhile(lambda each: each is not regex.parent, prefix.around())
    return any(each.args == regex.args for here in inner for each in here.own("location"))


def _finding(regex: Block, prefix: Block) -> Finding:
    asked = question(regex) or "nobody"
    beside = "" if prefix.parent is regex.parent else f"beside location {' '.join(regex.args)}, "
    return Finding(
        "regex-takes",
        regex.file,
        regex.line,
        f"it serves a part of {prefix.args[-1]} ({prefix.line_from(regex)}), where "
        f"{question(prefix)} is asked, and asks {asked}",
        f"location ^~ {prefix.args[-1]} {{ … }}   ({beside}and there, if it needs "
        "one, a location of its own for the regular expression)",
    )


def _can_match_below(regex: Block, path: str) -> bool:
    """Whether an expression can match a URI below a path, and doesn't itself name that path."""
    pattern, ignore_case = regex.args[-1], regex.args[0] == "~*"
    beginnings = literal_prefixes(pattern)
    if beginnings is None:
        named = path in pattern.replace("\\", "")
    elif ignore_case:
        named = any(each.lower().startswith(path.rstrip("/").lower()) for each in beginnings)
    else:
        named = any(each.startswith(path.rstrip("/")) for each in beginnings)
    if named:
        return False
    found = can_begin(pattern, path, ignore_case=ignore_case)
    if found is None:
        return beginnings is None or any(path.startswith(each) for each in beginnings)
    return found
