"""Model what nginx's rewrite module does to a request, and to the `auth_request` subrequest.

Rewrites right in a server run for the subrequest of `auth_request` too: they may lead the question
elsewhere, and its `set`s are done again while the request's own values wait.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .nginx_config import COMMENT, Block
from .routing import REGEX, captured_names, matches
from .variables import plain_variables

_OF_THE_URI = re.compile(
    r"\$\{?(uri|document_uri|args|query_string|is_args|arg_\w+|request_filename|document_root|"
    r"realpath_root|fastcgi_\w+|request_body\w*|content_\w+)\b"
)
"""Variables that are others in the question than in the request that it is about."""

_EVERYTHING = re.compile(r"\^?(?P<prefix>/?[\w./-]*)(?:\(?\.(?P<any>[*+])\)?\$?)?")


def status_of(early: Block) -> int:
    """What `return` answers: an address alone is 302 (ngx_http_rewrite_return)."""
    code = early.args[0] if early.args else ""
    return int(code) if re.fullmatch(r"\d{3}", code) else 302


def makes_good(page: Block) -> bool:
    """Whether an `error_page` answers 2xx, or what the page answers."""
    return any(re.fullmatch("=(2..)?", word) for word in page.args)


def about_the_uri(condition: Block) -> tuple[str, str] | None:
    """Operator and operand of an `if` that asks for `$uri` alone, also by a `map`."""
    args = condition.args
    if len(args) == 3 and plain_variables(args[0]) in ("$uri", "$document_uri"):
        return args[1], args[2]
    return _mapped_condition(condition, args[0]) if len(args) == 1 else None


def _mapped_condition(at: Block, variable: str) -> tuple[str, str] | None:
    """What a `map` of `$uri` says, if one expression makes its variable true."""
    around = list(at.around())
    http = next((each for each in around if each.name == "http"), around[-1])
    for table in http.own("map"):
        lines = [each for each in table.inner if each.name != COMMENT]
        values = {each.name: each.args[-1] for each in lines if each.args}
        default = values.pop("default", "")
        if table.args != ["$uri", variable] or not table.own("volatile"):
            continue
        if default in ("", "0") and len(values) == 1:
            (key, value), *_ = values.items()
            if key.startswith("~") and not key.startswith("~*") and value not in ("", "0"):
                return "~", key[1:]
    return None


def condition_can_hold(condition: Block, uri: str) -> bool:
    """Whether an `if` can be true of a request for this URI; only `$uri` is known of it."""
    asked = about_the_uri(condition)
    if asked is None:
        return True
    operator, operand = asked
    if operator in ("=", "!="):
        return "$" in operand or (operand == uri) == (operator == "=")
    found = matches(operand, uri, operator.endswith("*"))
    return found is None or found == (not operator.startswith("!"))


def condition_holds(condition: Block, uri: str) -> bool:
    """Whether an `if` is surely true of a request for this URI, by `$uri` alone."""
    asked = about_the_uri(condition)
    if asked is None or "$" in asked[1][:-1]:
        return False
    operator, operand = asked
    known = operator in ("=", "!=") or matches(operand, uri, operator.endswith("*")) is not None
    return known and condition_can_hold(condition, uri)


def scripted(block: Block, uri: str, *names: str) -> Iterator[Block]:
    """Directives of the rewrite module here that can run for a URI, those of an `if` too."""
    for each in block.inner:
        if each.name in names:
            yield each
        elif each.name == "if" and condition_can_hold(each, uri):
            yield from scripted(each, uri, *names)


def asked_of(server: Block, uri: str, *names: str) -> Iterator[Block]:
    """Directives of a server's rewrite module that can run for a question: up to a `break` that
    surely does."""
    for each in scripted(server, uri, *names, "break"):
        if each.name != "break":
            yield each
        elif each.parent is server or (each.parent and condition_holds(each.parent, uri)):
            return


def assigned_for(server: Block, uris: Iterable[str]) -> dict[str, list[Block]]:
    """As `assigned`, but what stands behind a `break` that these questions surely come to."""
    past = [
        at
        for at, each in enumerate(server.inner)
        if each.own("break") and all(condition_holds(each, uri) for uri in uris)
    ]
    behind = {id(each) for each in server.inner[past[0] :]} if past else set[int]()

    found = {
        name: [each for each in where if not any(id(at) in behind for at in each.around())]
        for name, where in assigned(server).items()
    }
    return {name: where for name, where in found.items() if where}


def can_rewrite(rewrite: Block, uri: str) -> bool:
    """Whether a `rewrite` can match a URI; yes where its expression can't be read."""
    return matches(rewrite.args[0], uri) is not False


def takes_every_uri(rewrite: Block, place: Block) -> bool:
    """Whether a `rewrite` matches whatever comes to a place: its prefix, and what follows."""
    found = _EVERYTHING.fullmatch(rewrite.args[0])
    begins = place.args[-1] if place.args[:1] and place.args[0] not in REGEX else "/"
    begins = begins if begins.startswith("/") else "/"
    if found is None or not begins.startswith(found["prefix"]):
        return False
    return found["any"] != "+" or begins != found["prefix"]


def redirects(rewrite: Block) -> bool:
    """Whether a `rewrite` answers a redirect and leads nowhere within nginx."""
    return rewrite.args[-1] in ("redirect", "permanent") or bool(
        re.match(r"https?://|\$scheme", rewrite.args[1])
    )


def breaks(rewrite: Block) -> bool:
    """Whether what a `rewrite` writes is served right here."""
    return rewrite.args[2:] == ["break"]


def stays(rewrite: Block) -> bool:
    """Whether a `rewrite` leads to no other location."""
    return redirects(rewrite) or breaks(rewrite)


def differs_in_the_question(at: Block) -> bool:
    """Whether an `if` around can be true of the question and not of the request.

    Variables that some `set` or `map` decides may rest on anything.
    """
    around = at.parent
    if around is None or around.name != "if":
        return False
    words = plain_variables(" ".join(around.args))
    return bool(_OF_THE_URI.search(words)) or words.startswith(("-", "!-"))


def assigned(block: Block) -> dict[str, list[Block]]:
    """Variables that the rewrite module assigns right here or in an `if`, with where."""
    found: dict[str, list[Block]] = {}
    for each in block.within("set", "rewrite", "if"):
        names = [each.args[0].lower()] if each.name == "set" else _captures(" ".join(each.args))
        for name in names:
            found.setdefault(name, []).append(each)
    return found


def _captures(pattern: str) -> list[str]:
    return [f"${name}" for name in captured_names(pattern)]


def named_by(location: Block) -> dict[str, list[Block]]:
    """Variables that a location's own expression captures."""
    if location.name != "location" or location.args[0] not in REGEX:
        return {}
    return {name: [location] for name in _captures(location.args[-1])}
