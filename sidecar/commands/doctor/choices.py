"""Tell what a client can make of a text of the configuration.

A value is tried, an address or a path with dots, in the place of each variable that a client
writes.  It is followed through `set`, `map` and what expressions capture; what an `if` refuses
doesn't come through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from .guards import comes_to
from .listeners import serves
from .nginx_config import Block, Root
from .routing import REGEX, captures, literal_prefixes, literal_tail
from .targets import resolved
from .variables import MAX_TEXTS, OF_THE_URI, filled, first, sets_for

_WRITTEN = re.compile(
    r"\$(?:(?:arg|http|cookie)_\w+|args|query_string|content_type|request_body|ssl_server_name|"
    r"ssl_preread_server_name|proxy_protocol_tlv_\w+)"
)
"""Variables that hold what a client likes."""
_HOSTS = ("$host", "$http_host")
_NO_HOST = re.compile(r"[/\s]|\.\.|^\.")
_MAX_DEPTH = 6


class _Written(NamedTuple):
    """A variable that the client writes, and what it writes there."""

    name: str
    value: str


_Made = Iterator[tuple[str, _Written | None]]


def made(text: str, at: Block, root: Root, tried: str) -> Iterator[tuple[str, str]]:
    """What a text may become by a client that tries a value, and the variable that it writes."""
    for given, by in _made(text, at, root, tried, 0):
        if by is not None and not _is_refused(at, by, root):
            yield given, by.name


def led_to(text: str, at: Block, root: Root, wanted: str) -> bool:
    """Whether a client can make one path of a text, by what it writes beside the URI."""
    head = resolved(text.partition("$")[0])
    words = (wanted, wanted[1:], wanted.removeprefix(head), wanted.removeprefix(head[:-1]))
    return any(
        resolved(given) == wanted
        for tried in dict.fromkeys(words if "$" in text else ())
        for given in beside_the_uri(text, at, root, tried)
    )


def beside_the_uri(text: str, at: Block, root: Root, tried: str) -> Iterator[str]:
    """What a text may become by what a client writes beside the URI: a query, a header."""
    found = made(text, at, root, tried)
    return (given for given, variable in found if _WRITTEN.fullmatch(variable))


def _made(text: str, at: Block, root: Root, tried: str, depth: int) -> _Made:
    """Each text that may come of one, with what the client wrote in it."""
    found = first(text)
    if found is None or depth > _MAX_DEPTH:
        yield text, None
        return
    name, begin, end = found
    values = list(islice(_values(name, at, root, tried, depth), MAX_TEXTS))
    rests = list(islice(_made(text[end:], at, root, tried, depth), MAX_TEXTS))
    for value, by in values or [(name, None)]:
        yield from ((text[:begin] + value + rest, by or other) for rest, other in rests)


def _values(name: str, at: Block, root: Root, tried: str, depth: int) -> _Made:
    """What a variable may hold."""
    if given := sets_for(name, at):
        for each in given:
            for value, by in _made(each.args[1], at, root, tried, depth + 1):
                if by is None or not _is_refused(each, by, root):
                    yield value, by
    elif _WRITTEN.fullmatch(name) and name != "$http_host":
        yield tried, _Written(name, tried)
    elif name in _HOSTS:
        if _is_host(tried, at, root, with_port=name != "$host"):
            yield tried, _Written(name, tried)
    else:
        yield from _captured(name, at, root, tried, depth)
        for line in root.table(name):
            yield from _looked_up(line, at, root, tried, depth)


def _is_host(tried: str, at: Block, root: Root, *, with_port: bool) -> bool:
    """Whether a request for this host comes to the server: by its name, or as nobody else has it.

    nginx takes no slash and no two dots in a row (ngx_http_validate_host).
    """
    host, colon, _ = tried.partition(":")
    if not host or _NO_HOST.search(tried) or (colon and not with_port):
        return False
    return any(serves(each, host.lower(), root) for each in at.around() if each.name == "server")


def _looked_up(line: Block, at: Block, root: Root, tried: str, depth: int) -> _Made:
    """What one line of a `map` gives, or of another table."""
    table, value = line.parent, line.args[-1]
    if table is None or table.name != "map" or not line.name.startswith("~") or "$" not in value:
        yield from _made(value, at, root, tried, depth + 1)
        return
    pattern, ignore_case = line.name.lstrip("~*"), line.name.startswith("~*")
    for found, by in _matched(table.args[0], pattern, ignore_case, at, root, tried, depth):
        for given, other in _made(filled(value, found), at, root, tried, depth + 1):
            yield given, (by or other) if tried in given else None


def _captured(name: str, at: Block, root: Root, tried: str, depth: int) -> _Made:
    """What expressions around give a variable; the client's own word must be in it."""
    for subject, pattern, ignore_case in _expressions(at):
        if "(" in pattern and (name[1:].isdecimal() or f"<{name[1:]}>" in pattern.lower()):
            for found, by in _matched(subject, pattern, ignore_case, at, root, tried, depth):
                if tried in (value := found.get(name[1:], "")):
                    yield value, by or _Written(name, value)


def _expressions(at: Block) -> Iterator[tuple[str, str, bool]]:
    """Each expression that holds in a place: what it is matched against; if in any case."""
    for place in at.around():
        for each in [place] if place.name == "if" else place.within("if"):
            if len(each.args) == 3 and each.args[1] in REGEX:
                yield each.args[0], each.args[2], each.args[1] == "~*"
        yield from (("$uri", each.args[0], False) for each in place.within("rewrite"))
        if place.name == "location" and place.args[0] in REGEX:
            yield "$uri", place.args[-1], place.args[0] == "~*"
        for each in place.own("server_name"):
            yield from (("$host", word[1:], True) for word in each.args if word[:1] == "~")


def _matched(
    subject: str, pattern: str, ignore_case: bool, at: Block, root: Root, tried: str, depth: int
) -> Iterator[tuple[dict[str, str], _Written | None]]:
    """What an expression captures of a text in which the client's word stands, and by whom."""
    begins = literal_prefixes("^" + pattern.removeprefix("^")) or [""]
    ends = ("", "/x", literal_tail(pattern))
    words = [head + tried + end for head in begins for end in ends]
    for word in dict.fromkeys(words):
        if subject in OF_THE_URI:
            texts: list[tuple[str, _Written | None]]
            texts = [(word, None)] if word[:1] == "/" and resolved(word) == word else []
        else:
            texts = list(islice(_made(subject, at, root, word, depth + 1), MAX_TEXTS))
        for text, by in texts:
            found = captures(pattern, text, ignore_case=ignore_case)
            if found is not None:
                yield found, by


def _is_refused(at: Block, by: _Written, root: Root) -> bool:
    """Whether an `if` around doesn't let this value of a variable through."""
    known = {by.name: by.value}
    if by.name in _HOSTS:
        known = {"$host": by.value.partition(":")[0], "$http_host": by.value}
    return not comes_to(at, known, root)
