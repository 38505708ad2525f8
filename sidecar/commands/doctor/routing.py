"""Choose the location of a URI as nginx does, and tell what a regular expression can match."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import re2

from .nginx_config import Block

REGEX = ("~", "~*")

_POSIX = {
    "[:alnum:]": "A-Za-z0-9",
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:space:]": r"\s",
    "[:upper:]": "A-Z",
    "[:word:]": r"\w",
    "[:xdigit:]": "A-Fa-f0-9",
}
_LITERAL = re.compile(r"\\([^\w\s])|([\w/%@!~,;:&='\"<>-])")
"""A character of a regular expression that stands for itself."""
_ALTERNATIVES = re.compile(r"\((?:\?:|\?P?<\w+>)?((?:\\[^\w\s]|[\w/|%@!~,;:&='-])*)\)(?![?*{])")
_OPTIONAL = re.compile(r"[?*{]")
_TAIL = re.compile(r"((?:\\[^\w\s]|[\w/-])+)\$?$")


class Match(Protocol):
    """A match, of `re` or of RE2."""

    def groups(self) -> tuple[str | Any, ...]:
        """What each group captured."""

    def groupdict(self) -> dict[str, str | Any]:
        """The same of the groups with a name."""


def serving(within: Block, uri: str) -> Block | None:
    """The location that serves a URI (ngx_http_core_find_location), or the one of a @name.

    None where none does.
    """
    if uri.startswith("@"):
        return next((each for each in within.own("location") if each.args == [uri]), None)
    return _find(within, uri)[0]


_URI_FOLLOWS = re.compile(r"\$\{?(?:request_uri|document_uri|uri)\b")


def destination(within: Block, target: str) -> Block | None:
    """The location to which nginx leads on by a target whose end may be of variables."""
    head = target.partition("?")[0].partition("$")[0]
    if _URI_FOLLOWS.match(target, len(head)) and not head.endswith("/"):
        head += "/"
    return serving(within, head)


def _find(within: Block, uri: str) -> tuple[Block | None, bool]:
    """The location, and whether regular expressions of the level above are no longer asked."""
    locations = within.own("location")
    exact = next((each for each in locations if each.args == ["=", uri]), None)
    if exact is not None:
        return exact, True
    prefixes = [
        each
        for each in locations
        if each.args[0] not in ("=", *REGEX) and uri.startswith(each.args[-1])
    ]
    longest = max(prefixes, key=lambda each: len(each.args[-1]), default=None)
    found = longest
    if longest is not None:
        inner, final = _find(longest, uri)
        if final:
            return inner, True
        found = inner or longest
    if longest is None or longest.args[0] != "^~":
        for each in locations:
            if each.args[0] in REGEX and matches(each.args[-1], uri, each.args[0] == "~*"):
                return _find(each, uri)[0] or each, True
    return found, False


def matches(pattern: str, text: str, ignore_case: bool = False) -> bool | None:
    """Whether nginx's regular expression matches somewhere in a text; None: it can't be told."""
    search = _compiled(pattern, ignore_case)
    return None if search is None else search(text) is not None


def searched(pattern: str, text: str, ignore_case: bool = False) -> Match | None:
    """The match of nginx's regular expression somewhere in a text; None also: it can't be told."""
    search = _compiled(pattern, ignore_case)
    return None if search is None else search(text)


def captures(pattern: str, uri: str, *, ignore_case: bool = False) -> dict[str, str] | None:
    """What `searched` gives each variable, by its name without `$`; None for no match."""
    found = searched(pattern, uri, ignore_case)
    if found is None:
        return None
    numbered = {str(at): value or "" for at, value in enumerate(found.groups(), 1)}
    return numbered | {name.lower(): value or "" for name, value in found.groupdict().items()}


def captured_names(pattern: str) -> list[str]:
    """The variables that an expression gives a value, without `$`."""
    return [name.lower() for name in re.findall(r"\(\?P?<(\w+)>", pattern)]


_UNBOUNDED = re.compile(r"(?<!\\)[*+{]")
_REPEATED_GROUP = re.compile(r"(?<!\\)\)[*+{]")
MAX_UNBOUNDED = 3
"""Most repetitions of one with lookarounds: each multiplies the time by the length of the text."""
MAX_TEXT = 256
"""Characters of a text that such an expression is asked about."""


@cache
def _compiled(pattern: str, ignore_case: bool) -> Callable[[str], Match | None] | None:
    """RE2 where it knows the syntax, since it is linear; else Python's, for lookarounds.

    Python's goes back over the text: of what could take it long nothing is told.
    """
    given = re.sub(r"\(\?<(?=\w)", "(?P<", pattern)
    for name, members in _POSIX.items():
        given = given.replace(name, members)
    flags = "(?i)" if ignore_case else ""
    options = re2.Options()
    options.log_errors = False
    try:
        linear = re2.compile(flags + given, options)
        return lambda text: linear.search(text)
    except re2.error:
        pass
    if len(_UNBOUNDED.findall(given)) > MAX_UNBOUNDED or _REPEATED_GROUP.search(given):
        return None
    try:
        search = re.compile(flags + given.replace(r"\z", r"\Z")).search
    except (re.error, RecursionError, OverflowError):
        return None
    return lambda text: search(text[:MAX_TEXT])


@cache
def literal_prefixes(pattern: str) -> list[str] | None:
    """What each match of an anchored expression begins with, by alternative; None: not anchored."""
    rest = re.sub(r"^(\^|\\A)", "", pattern)
    if rest == pattern or len(alternatives(rest)) > 1:
        return None
    prefixes, at = [""], 0
    while at < len(rest):
        if (found := _LITERAL.match(rest, at)) and not _OPTIONAL.match(rest, found.end()):
            prefixes = [each + (found[1] or found[2]) for each in prefixes]
        elif found := _ALTERNATIVES.match(rest, at):
            words = [re.sub(r"\\(.)", r"\1", word) for word in found[1].split("|")]
            prefixes = [each + word for each in prefixes for word in words]
        else:
            break
        at = found.end()
        if len(prefixes) > 64:
            break
    return prefixes


def literal_tail(pattern: str) -> str:
    """What each match of an expression ends with, without a choice; "" if that can't be told."""
    found = _TAIL.search(pattern)
    return re.sub(r"\\(.)", r"\1", found[1]) if found is not None else ""


def alternatives(pattern: str) -> list[str]:
    """The alternatives of an expression: `^` binds one of them only."""
    found, depth, begin = list[str](), 0, 0
    for each in re.finditer(r"\\.|\[\^?\]?[^\]]*\]|[()|]", pattern):
        depth += (each[0] == "(") - (each[0] == ")")
        if each[0] == "|" and depth == 0:
            found.append(pattern[begin : each.start()])
            begin = each.end()
    return [*found, pattern[begin:]]
