"""Tell where a text holds what nginx has decoded of what a client wrote, or its raw server name.

nginx writes a variable into a request line or a header as it is.  `$uri` and what an expression
captures of it are percent-decoded: `%0d%0a` is a line end there, and `%252e` has become `%2e`.
`$remote_user` is decoded from base64, and nobody has checked it but auth_basic.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import server_name
from .expressions import can_take
from .nginx_config import Block, Root
from .routing import REGEX, captured_names
from .variables import mapped, names, plain_variables, resting_on, set_around

PATHS = frozenset(
    "$uri $document_uri $request_filename $fastcgi_script_name $fastcgi_path_info".split()
)
UNCHECKED = frozenset({"$remote_user", "$request_body"})
LINE_END, PERCENT = "\n", "%"


def decoded(text: str, at: Block, root: Root, octet: str, wanted: frozenset[str] = PATHS) -> str:
    """The variable by which a text of the configuration may hold this octet of a client's path.

    "" for none.  It is looked for in what `set` and `map` give, too.
    """
    for name in resting_on(text, lambda each: _given(each, at, root, octet)):
        if name in wanted or (octet and _is_captured(name, at, root, octet)):
            return name
    return ""


def unchecked(text: str, at: Block, root: Root) -> str:
    """The same of what may hold every octet: the server name (SNI), a name for auth_basic."""
    if server_name.is_raw(text, root):
        return server_name.RAW
    checked = at.value("auth_basic", "off") != "off" and at.value("satisfy") != "any"
    return "" if checked else decoded(text, at, root, "", UNCHECKED)


def _is_captured(name: str, at: Block, root: Root, octet: str) -> bool:
    """Whether an expression gives a variable a part of the path with this octet in it."""
    number = name[1:].isdecimal()
    found = [
        each
        for place in at.around()
        for each in _expressions(place)
        if number or _names(each, name)
    ]
    for table in root.all("map") if not number else ():
        if _is_of_the_path(table.args[0]):
            lines = [each.name.lstrip("~*") for each in table.inner if each.name[:1] == "~"]
            found += [each for each in lines if _names(each, name)]
    return any(can_take(each, octet) is not False for each in found)


def _expressions(place: Block) -> Iterator[str]:
    """Each expression right here that is matched against the path."""
    if place.name == "location" and place.args[0] in REGEX:
        yield place.args[-1]
    yield from (each.args[0] for each in place.within("rewrite"))
    for each in place.within("if"):
        words = each.args
        if len(words) == 3 and words[1] in REGEX and _is_of_the_path(words[0]):
            yield words[2]


def _is_of_the_path(text: str) -> bool:
    return not PATHS.isdisjoint(names(text))


def _names(pattern: str, variable: str) -> bool:
    return variable[1:] in captured_names(pattern)


def _given(name: str, at: Block, root: Root, octet: str) -> Iterator[str]:
    """What `set`s around and `map`s give a variable; a `$1` in a `map` is of its own expression."""
    yield from set_around(name, at)
    for table, line in mapped(name, root):
        pattern = line.name.removeprefix("~").removeprefix("*")
        takes = line.name.startswith("~") and (not octet or can_take(pattern, octet) is not False)
        yield re.sub(r"\$\d", table.args[0] if takes else "", plain_variables(line.args[-1]))
