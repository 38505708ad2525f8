"""Tell which URIs, as a client writes them, an `if … { return … }` refuses."""

from __future__ import annotations

from collections.abc import Mapping

from .expressions import can_begin, may_give_up
from .nginx_config import COMMENT, Block, Root
from .rewriting import about_the_uri, status_of
from .routing import REGEX, literal_prefixes, matches
from .variables import filled, mapped, names, plain_variables, set_anywhere

DOTS = ("/a/../b", "/a/b/%2e%2e/%2E./c?d", "/a%2f..%2Fb", "/a/.%2e/b/")
"""Dots and slashes, plain and encoded in either case."""
DOTS_TWICE = (
    *("/a/%252e%252e/b", "/a/.%252E/b/", "/a%252f%252e.%252Fb"),
    *("/a/%25%32%65%25%32e/b", "/a/.%252%45/b", "/a%25%32f%252e.%252%66b"),
)
"""The same encoded twice, their digits, too: what is decoded once has them encoded still."""
DOTS_QUERY = ("/a?b=../c", "/a?b=%2e%2e%2fc", "/a?b=c/.%2E/d")
"""The same in the query."""
LINES = ("/a%0d%0ab", "/a/%0A", "/%0a/b?c")

WRITE = (
    "include snippets/authz-location.conf;   (or in the server: if ($request_uri ~* "
    r'"\A[^?]*(%0[ad]|%25[0-9a-f]?%(3[0-9]|[46][1-6])|'
    r'(/|%(25)?2f)(\.|%(25)?2e){1,2}(/|%(25)?2f|\?|\z))") { return 400; })'
)
RAW = "$request_uri"


def is_guarded(place: Block, root: Root, spellings: tuple[str, ...]) -> bool:
    """Whether some `if` right here refuses each spelling, before the request goes on."""
    return all(refuses(place, {RAW: each}, root) for each in spellings)


def refuses(
    place: Block, known: Mapping[str, str], root: Root, led_on: frozenset[str] = frozenset()
) -> bool:
    """Whether some `if` right here refuses a request of which these variables are known.

    A `return` of a status by which it is led on is no refusal.
    """
    values = dict[str, str]()
    for each in place.inner:
        if each.name == "set":
            values[each.args[0].lower()] = each.args[-1]
        elif each.name == "break":
            return False
        elif each.name == "if":
            if _holds(each.args, known, values, root):
                values |= {line.args[0].lower(): line.args[-1] for line in each.own("set")}
                for line in each.own("return"):
                    if status_of(line) >= 300:
                        return str(status_of(line)) not in led_on
            if each.own("break") and not _is_about_the_question(each):
                return False
    return False


def comes_to(at: Block, known: Mapping[str, str], root: Root) -> bool:
    """Whether a request of which these variables are known may come to a directive.

    That is past what an `if` around refuses, and into those in which it stands; to an `error_page`,
    and to a @name, by what is refused, too.
    """
    led_on = frozenset(at.args[:-1]) if at.name == "error_page" else frozenset[str]()
    for place in at.around():
        if place.name == "if":
            if _holds(place.args, known, {}, root) is False:
                return False
        elif refuses(place, known, root, led_on):
            return False
        if place.name == "location" and place.parent is not None:
            pages = place.parent.inherited("error_page") if place.args[-1][:1] == "@" else []
            led_on = frozenset(
                code for page in pages if page.args[-1] == place.args[-1] for code in page.args
            )
    return True


def _is_about_the_question(condition: Block) -> bool:
    """Whether an `if` lets the question alone go past what follows."""
    asked = about_the_uri(condition)
    if asked is None:
        return False
    operator, operand = asked
    heads = (literal_prefixes(operand) or [""]) if operator in REGEX else [operand]
    return operator in ("=", *REGEX) and all(each.startswith("/authz") for each in heads)


def _holds(
    condition: list[str], known: Mapping[str, str], values: Mapping[str, str], root: Root
) -> bool | None:
    """Whether the condition of an `if` is true, whatever else the request is; None: unknown."""
    subject = plain_variables(condition[0])
    if not known.keys().isdisjoint(names(subject)):
        value: str | None = _filled(subject, known)
    else:
        value = values.get(subject)
    if value is None:
        value = of_map(subject, known, root)
    if value is None or len(condition) not in (1, 3):
        return None
    if len(condition) == 1:
        return value not in ("", "0")
    operator, operand = condition[1:]
    if operator in ("=", "!="):
        return (value == operand) == (operator == "=")
    return _true(operator, operand, value)


def may_hold(condition: Block, known: Mapping[str, str], root: Root) -> bool:
    """Whether `if ($variable)` may be true of a URI below a path, `known["uri"]`.

    It may unless each `map` that makes the variable of a text with that at its end has none for it.
    """
    name = plain_variables(condition.args[0])
    tables = {id(table): table for table, _ in mapped(name, root)}
    if len(condition.args) != 1 or not tables or set_anywhere(name, root):
        return True
    return any(
        line.args[-1] not in ("", "0") and _may_take(line, filled(table.args[0], known), known)
        for table in tables.values()
        for line in table.inner
        if line.args and line.name != COMMENT
    )


def _may_take(line: Block, begins: str, known: Mapping[str, str]) -> bool:
    """Whether a line of a `map` may be for a text that begins so."""
    if line.name == "default" or "$" in begins or not begins.endswith(known["uri"]):
        return True
    if not line.name.startswith("~"):
        return line.name.lower().startswith(begins.lower())
    pattern = line.name[1:]
    ignore_case = pattern.startswith("*")
    found = can_begin(pattern.removeprefix("*"), begins, ignore_case=ignore_case)
    return found is not False


def _true(operator: str, operand: str, text: str) -> bool | None:
    found = matches(operand, text, operator.endswith("*"))
    if found is None or operator.lstrip("!")[:1] != "~":
        return None
    return found != operator.startswith("!")


def _filled(text: str, known: Mapping[str, str]) -> str:
    """A text with what is known in it, and for other variables a word."""
    return filled(text, {each[1:]: known.get(each, "x") for each in names(text)})


def of_map(variable: str, known: Mapping[str, str], root: Root) -> str | None:
    """What a `map` of what is known makes of it; None where there is none."""
    for table, _ in mapped(variable, root):
        if not known.keys().isdisjoint(names(table.args[0])):
            return _looked_up(table, _filled(table.args[0], known))
    return None


def _looked_up(table: Block, text: str) -> str:
    """What a `map` gives; the default, too, where PCRE may give up on a longer text.

    A client can put a query or a longer path behind any text, and nginx then takes the default.
    """
    default, found, gives_up = "", None, False
    exact = [
        each.args[-1] for each in table.inner if each.args and each.name.lower() == text.lower()
    ]
    if exact and text != "default":
        return exact[0]
    for each in table.inner:
        if each.name == COMMENT or not each.args:
            continue
        if each.name == "default":
            default = each.args[-1]
        elif each.name.startswith("~") and found is None:
            pattern = each.name.removeprefix("~")
            gives_up = gives_up or may_give_up(pattern.removeprefix("*"))
            if matches(pattern.removeprefix("*"), text, pattern.startswith("*")):
                found = each.args[-1]
    return default if found is None or gives_up else found


def tiring(place: Block, root: Root) -> str:
    """Say of a guard here that PCRE may give up on its `map`; "" if there is no such guard."""
    conditions = [each.args[0] for each in place.inner if each.name == "if"]
    tables = [line for name in conditions for _, line in mapped(name, root)]
    for line in tables:
        pattern = line.name.lstrip("~*")
        if line.name.startswith("~") and may_give_up(pattern):
            return f"; PCRE gives up on a long path ({line.line_from(place)}), as a group repeats"
    return ""
