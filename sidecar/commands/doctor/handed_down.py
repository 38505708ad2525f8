"""Find what makes the question of a hand-written auth location none that the sidecar answers.

Most of it is handed down by `http { }` or `server { }`, for the application: a method, a body, an
address to connect from.  `snippets/authz-request.conf` sets each of them for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .findings import Finding
from .nginx_config import Block, Root
from .targets import addresses, is_local

INCLUDE = "(or all that it needs: include snippets/authz-request.conf;)"

_RIGHT = {
    "proxy_method": ("GET", {"GET", "HEAD"}),
    "proxy_set_body": ('""', {""}),
    "proxy_http_version": ("1.1", {"1.0", "1.1"}),
}
"""What a question is: the value to write, and those that are right."""

_FRAMING = ("Content-Length", "Transfer-Encoding")
_SIZE = re.compile(r"(\d+)([kmg]?)", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30}


def handed_down(here: Block, asking: Block, root: Root, findings: list[Finding]) -> None:
    """What holds in an auth location that can't be put, or is put to another one, too."""
    for at, what, write in _broken(here, asking, root):
        findings.append(Finding("question-broken", at.file, at.line, what, f"{write}   {INCLUDE}"))
    for each in here.inherited("proxy_next_upstream"):
        if "http_403" in each.args and len(_sidecars(here, root)) > 1:
            what = "proxy_next_upstream http_403: another sidecar is asked about who is denied"
            write = f"proxy_next_upstream error timeout;   {INCLUDE}"
            findings.append(Finding("denial-retried", each.file, each.line, what, write))


def _broken(here: Block, asking: Block, root: Root) -> Iterator[tuple[Block, str, str]]:
    for name, (value, right) in _RIGHT.items():
        for each in here.inherited(name)[-1:]:
            if " ".join(each.args) not in right:
                yield (
                    each,
                    f"{name} {' '.join(each.args)} holds for the question",
                    f"{name} {value};",
                )
    near = any(map(is_local, _sidecars(here, root)))
    for each in here.inherited("proxy_bind")[-1:]:
        if near and each.args != ["off"] and not _is_loopback(each, here, root):
            yield (
                each,
                f"proxy_bind {' '.join(each.args)} holds for the question",
                "proxy_bind off;",
            )
    for each in here.own("proxy_pass"):
        if near and each.args[0].startswith("https:"):
            what = "https to the sidecar, which speaks no TLS"
            yield each, what, f"proxy_pass http{each.args[0].removeprefix('https')};"
    yield from _framing(here)
    yield from _body_size(here, asking)


def _framing(here: Block) -> Iterator[tuple[Block, str, str]]:
    """Headers that announce a body, of which none is sent."""
    sent = {each.args[0].lower(): each for each in here.inherited("proxy_set_header")}
    for name in _FRAMING:
        found, write = sent.get(name.lower()), f'proxy_set_header {name} "";'
        if found is not None and found.args[1]:
            yield found, f"{name} is {found.args[1]}, and no body is sent", write
        elif found is None and name == _FRAMING[0] and _takes_the_client_s(here):
            yield here, f"a client's own {name} is sent, and no body", write


def _takes_the_client_s(here: Block) -> bool:
    """Whether nginx sends the length of the client's body, and not the body."""
    return here.value("proxy_pass_request_body") == "off" and not here.inherited("proxy_set_body")


def _body_size(here: Block, asking: Block) -> Iterator[tuple[Block, str, str]]:
    """nginx holds a request's body against the limit of the auth location, too."""
    limit, wanted = _limit(here), _limit(asking)
    if limit and (not wanted or wanted > limit):
        at = (here.inherited("client_max_body_size") or [here])[-1]
        given = asking.value("client_max_body_size", "1m")
        what = f"an upload of client_max_body_size {given} is refused by the auth location's"
        yield (at if at.parent is here else here), what, "client_max_body_size 0;"


def _limit(place: Block) -> int:
    """Octets; 0 for no limit."""
    found = _SIZE.fullmatch(place.value("client_max_body_size", "1m"))
    return int(found[1]) << _UNITS[found[2].lower()] if found else 1 << 20


def _sidecars(here: Block, root: Root) -> set[str]:
    return {where for each in here.own("proxy_pass") for where in addresses(each, root)}


def _is_loopback(binding: Block, here: Block, root: Root) -> bool:
    """Whether an address to connect from goes with where the sidecar listens."""
    there = _sidecars(here, root)
    return binding.args[0].startswith("127.") and all(each.startswith("127.") for each in there)
