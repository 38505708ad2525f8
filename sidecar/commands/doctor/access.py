"""Tell where clients come, and where nginx itself lets nobody in: `deny all`, or a `return`."""

from __future__ import annotations

from .nginx_config import Block
from .rewriting import redirects, status_of

_SCRIPTS = ("access_by_lua", "access_by_lua_block", "access_by_lua_file", "js_access")
"""Directives that let in by themselves as well, for all that is known of them here."""

_PASSWORDS = ("auth_basic", "auth_jwt", "auth_oidc")
"""Directives that let in by themselves under `satisfy any`."""

_PUBLIC_FILES = ("/robots.txt", "/favicon.ico")


def is_reached(place: Block) -> bool:
    """Whether a client's own request can come there."""
    return not is_led_to_only(place) and not closed(place)


def is_led_to_only(place: Block) -> bool:
    """Whether clients can't ask for a location themselves: it is internal or has a @name."""
    return is_internal(place) or "".join(place.args[-1:]).startswith("@")


def is_public_file(place: Block) -> bool:
    """Whether a location is one file that is public by its nature (RFC 9309)."""
    return place.args[0] == "=" and place.args[-1] in _PUBLIC_FILES


def is_internal(place: Block) -> bool:
    """Whether a location is `internal`, or stands within one (ngx_http_core_merge_loc_conf)."""
    return bool(place.inherited("internal"))


def closed(place: Block) -> bool:
    """Whether nginx itself lets nobody in: `deny all` without an `allow` before, or a refusal.

    A redirect shows nothing either.
    """
    return denies_all(place) or refuses(place)


def denies_all(place: Block) -> bool:
    """Whether the addresses' rules let nobody in (ngx_http_access_handler): the first match counts.

    Under `satisfy any` a question or a password lets in all the same.
    """
    if place.value("satisfy") == "any" and _asks_anything(place):
        return False
    return first_rule_denies(place)


def first_rule_denies(place: Block) -> bool:
    """Whether `deny all` comes before any `allow`, in the nearest block that has either."""
    for each in _rules(place):
        if each.name == "allow":
            return False
        if each.args == ["all"]:
            return True
    return False


def limits_addresses(place: Block) -> bool:
    """Whether only some addresses are let in, by `allow … deny all` or an `if` of the address."""
    rules = _rules(place)
    if any(each.name == "deny" and each.args == ["all"] for each in rules):
        return not any(each.name == "allow" and each.args == ["all"] for each in rules)
    around = (place, _server(place))
    tests = [each for here in around for each in here.own("if") if each.own("return")]
    return any("remote_addr" in " ".join(each.args) for each in tests)


def lets_in_otherwise(place: Block) -> bool:
    """Whether something but a question can let in under `satisfy any`."""
    if has_password(place):
        return True
    if any(place.inherited(name) for name in _SCRIPTS):
        return True
    if any(each.own("allow") for each in place.own("limit_except")):
        return True
    for each in _rules(place):
        if each.name == "allow":
            return True
        if each.args == ["all"]:
            return False
    return False


def has_password(place: Block) -> bool:
    """Whether a password or a token lets in here as well."""
    return any(place.value(name, "off") != "off" for name in _PASSWORDS)


def refuses(block: Block) -> bool:
    """Whether every request of a server or location comes to a `return` that shows nothing.

    `break`, and `rewrite` with `last` or `break`, end the directives of the rewrite module: what
    is led away by them doesn't come to a `return` behind.
    """
    if block.name == "location" and block.parent is not None:
        server = _server(block)
        if refuses(server) and not _shows_refusals(block, server):
            return True
    for each in block.inner if block.own("return") else ():
        if each.name == "return":
            return not 200 <= status_of(each) < 300
        if may_end(each) or any(200 <= status_of(r) < 300 for r in each.within("return")):
            return False
    return False


def _shows_refusals(block: Block, server: Block) -> bool:
    """Whether a server's `return` leads to this location by error_page: it isn't run again there.

    It is run again for a location that has no @name.
    """
    codes = {str(status_of(each)) for each in server.within("return")}
    return any(
        page.args[-1] == block.args[-1] and codes.intersection(page.args[:-1])
        for page in server.inherited("error_page")
        if page.args[-1].startswith("@")
    )


def always_answers(block: Block) -> bool:
    """Whether every request comes to a `return`, of whatever status."""
    for each in block.inner:
        if each.name == "return":
            return True
        if may_end(each):
            return False
    return False


def may_end(each: Block) -> bool:
    """Whether a directive may end the rewrite module's work before a `return` behind it."""
    if each.name == "if":
        return any(map(may_end, each.inner))
    if each.name == "rewrite":
        return each.args[-1] in ("last", "break") and not redirects(each)
    return each.name == "break"


def _rules(place: Block) -> list[Block]:
    for here in place.around():
        if here.own("allow") or here.own("deny"):
            return [each for each in here.inner if each.name in ("allow", "deny")]
    return []


def _asks_anything(place: Block) -> bool:
    return place.value("auth_request", "off") != "off" or has_password(place)


def _server(block: Block) -> Block:
    """The server around a location."""
    return next((each for each in block.around() if each.name != "location"), block)
