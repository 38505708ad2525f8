"""Find the addresses and files that a location leads to."""

from __future__ import annotations

import re

from .nginx_config import Block, Root

PASSES = ("proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass")

_DEFAULT_PORTS = {"http": "80", "https": "443", "grpc": "80", "grpcs": "443"}
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\]|0\.0\.0\.0|\[::\])(?=:|$)")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def plain_variables(text: str) -> str:
    """`${name}` written as `$name`."""
    return re.sub(r"\$\{(\w+)\}", r"$\1", text)


def passes(location: Block) -> list[Block]:
    """Every `*_pass` of a location, also within `if` and `limit_except`."""
    return list(location.within(*PASSES))


def addresses(passing: Block, root: Root) -> set[str]:
    """The addresses that a `*_pass` leads to: the upstream's, if it names one.

    What rests on a variable that no `set` with a constant decides stays as it is written.
    """
    target = constant(passing.args[0], passing.parent) if passing.args else ""
    scheme, found, rest = target.partition("://")
    rest = rest if found else target
    if rest.startswith("unix:"):
        return {":".join(rest.split(":")[:2])}
    host = re.match(r"[^/$]*", rest)
    name = (host[0] if host else "").lower()
    if not name:
        return {target}
    around = passing.parent
    streaming = around is not None and around.parent is not None and around.parent.name == "stream"
    upstream = root.upstream(name, "stream" if streaming else "http")
    if upstream is not None:
        return {_address(each.args[0], "80") for each in upstream.own("server") if each.args}
    return {_address(name, _DEFAULT_PORTS.get(scheme, "") if found else "")}


def led_to(location: Block, root: Root) -> set[str]:
    """All addresses that a location leads to."""
    return {where for each in passes(location) for where in addresses(each, root)}


def _address(text: str, port: str) -> str:
    text = _LOOPBACK.sub("127.0.0.1", text.lower())
    if text.startswith("unix:") or re.search(r":\d+$", text) or not port:
        return text
    return f"{text}:{port}"


def constant(text: str, at: Block | None) -> str:
    """A text with those variables replaced that a `set` in a block around gives a constant."""
    for _ in range(8):  # a `set` may rest on another
        replaced = _VARIABLE.sub(lambda v: _set_here(v[1] or v[2], at) or v[0], text)
        if replaced == text:
            break
        text = replaced
    return text


def _set_here(name: str, at: Block | None) -> str | None:
    while at is not None:
        given = [each for each in at.own("set") if each.args[0] == f"${name}"]
        if given and len(given[-1].args) == 2:
            return given[-1].args[1]
        at = at.parent
    return None


def files(location: Block) -> str | None:
    """The directory that a prefix location serves, with a slash at its end; None: it passes on."""
    if passes(location) or (location.args and location.args[0] in ("=", "~", "~*")):
        return None
    if alias := location.own("alias"):
        return _slash(alias[-1].args[0])
    root = location.inherited("root")
    if not root:
        return None
    prefix = location.args[-1] if location.name == "location" else "/"
    return _slash(root[-1].args[0]) + prefix.lstrip("/")


def file_roots(place: Block) -> set[str]:
    """The `alias` or `root` that holds in a location or server, with a slash at its end."""
    found = place.own("alias") or place.inherited("root")
    return {_slash(each.args[0]) for each in found[-1:]}


def _slash(path: str) -> str:
    return path if path.endswith("/") else path + "/"
