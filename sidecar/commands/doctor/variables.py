"""Read the variables of a value, and what `set`, `map`, `split_clients` and `geo` give them.

nginx takes names in any case (ngx_http_add_variable), `$1x` for `$1` and an x
(ngx_http_script_compile), and `${uri}x` for `$uri` and an x.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from .nginx_config import Block, Root

MAX_TEXTS = 256
"""Texts that one value may become: variables may name each other."""
MAX_LENGTH = 4096
"""Characters of a text beyond which nothing more is put into it."""

_OTHERWISE = ("default", "*")
"""How the line of a `map` or `geo`, and of `split_clients`, begins that holds for all others."""

OF_THE_URI = ("$uri", "$document_uri", "$request_uri")
"""Variables that hold the URI: the client writes it, and nginx has chosen the location by it."""

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([1-9])|(\w+))")


def names(text: str) -> list[str]:
    """Each variable of a text, as `$name`."""
    return [f"${_name(each)}" for each in _VARIABLE.finditer(text)]


def first(text: str) -> tuple[str, int, int] | None:
    """The first variable of a text, as `$name`, with where it begins and ends."""
    found = _VARIABLE.search(text)
    return (f"${_name(found)}", *found.span()) if found is not None else None


def plain_variables(text: str) -> str:
    """`${Name}` written as `$name`, unless a letter follows: `${name}x` stays apart from `$namex`.

    So a text that is one variable, or has a sign behind each, can be compared.
    """
    whole = _VARIABLE.sub(lambda each: each[0].lower(), text)
    return re.sub(r"\$\{(\w+)\}(?!\w)", r"$\1", whole)


def filled(text: str, values: Mapping[str, str]) -> str:
    """A text with these values in the place of its variables; names without `$`."""
    return _VARIABLE.sub(lambda each: values.get(_name(each), each[0]), plain_variables(text))


def constant(text: str, at: Block | None) -> str:
    """A text with those variables replaced that every `set` for this place gives one value."""
    for _ in range(8):  # a `set` may rest on another
        replaced = _VARIABLE.sub(lambda each: _only(set_for(f"${_name(each)}", at), each[0]), text)
        if replaced == text or len(replaced) > MAX_LENGTH:
            break
        text = replaced
    return text


def possible(
    text: str, at: Block | None, root: Root | None = None, *, path: bool = True
) -> set[str]:
    """What a text with variables may be, as far as constants decide it.

    What a `map`, `split_clients` or `geo` of the root decides stays as it is written, too, unless
    they have a line for every request.  Without `path`, behind the beginning of an address only
    constants are put.
    """
    found, seen, left = set[str](), set[str](), [text]
    while left and len(seen) < MAX_TEXTS:
        given = left.pop(0)
        if given in seen:
            continue
        seen.add(given)
        for variable in _VARIABLE.finditer(given) if len(given) <= MAX_LENGTH else ():
            name = f"${_name(variable)}"
            values = set_for(name, at)
            lines = root.table(name) if root and not values else []
            if lines and not any(each.name in _OTHERWISE for each in lines):
                found.add(given)
            values = values or [each.args[-1] for each in lines]
            if not path and "$" in "".join(values) and not _begins(given[: variable.start()]):
                continue
            if values:
                head, rest = given[: variable.start()], given[variable.end() :]
                left += [head + each + rest for each in values]
                break
        else:
            found.add(given)
    return found


def _begins(head: str) -> bool:
    """Whether an address begins behind this."""
    return head == "" or head.endswith("://")


def resting_on(text: str, given: Callable[[str], Iterable[str]]) -> Iterator[str]:
    """Each variable of a text, and of the texts that are given to one of them, and so on."""
    seen, left = set[str](), [text]
    while left and len(seen) < MAX_TEXTS:
        for name in names(left.pop()):
            if name not in seen:
                seen.add(name)
                yield name
                left += given(name)


def set_around(name: str, at: Block) -> Iterator[str]:
    """What each `set` in the blocks around, or in an `if` of theirs, gives a variable."""
    for here in at.around():
        yield from (each.args[1] for each in here.within("set") if _is_of(each, name))


def set_anywhere(name: str, root: Root) -> list[str]:
    """What each `set` of the configuration gives a variable: the question has the request's own."""
    return [each.args[1] for each in root.all("set") if _is_of(each, name)]


def mapped(name: str, root: Root) -> Iterator[tuple[Block, Block]]:
    """Each `map` that gives a variable its value, with each line of it."""
    for line in root.table(name):
        if line.parent is not None and line.parent.name == "map":
            yield line.parent, line


def of_maps(name: str, root: Root) -> Iterator[str]:
    """What `map`s read for a variable, and give: who chooses the one chooses the other."""
    for table, line in mapped(name, root):
        yield from (table.args[0], line.args[-1])


def _name(found: re.Match[str]) -> str:
    return str(found[found.lastindex or 0]).lower()


def _is_of(given: Block, name: str) -> bool:
    return len(given.args) == 2 and given.args[0].lower() == name


def set_for(name: str, at: Block | None) -> list[str]:
    """What `set` may have given a variable in a place."""
    return [each.args[1] for each in sets_for(name, at)]


def sets_for(name: str, at: Block | None) -> list[Block]:
    """Each `set` that may have given a variable its value in a place.

    The nearest block that has one outside of an `if` decides, beside those of nearer `if`s.
    """
    found = list[Block]()
    for here in at.around() if at is not None else ():
        found += [
            each
            for condition in here.own("if")
            for each in condition.within("set")
            if _is_of(each, name)
        ]
        if own := [each for each in here.own("set") if _is_of(each, name)]:
            return [*found, own[-1]]
    return found


def _only(values: list[str], otherwise: str) -> str:
    return values[0] if len(set(values)) == 1 else otherwise
