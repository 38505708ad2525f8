"""Read a host and a `server_name` as nginx does.

`normalize_host` follows `ngx_http_validate_host` of nginx 1.31.  nginx 1.22 accepts more: `a{b}`, a
port that is not a number, an unclosed `[`, bytes above 0x7f.  Such a host is always refused here,
so that a decision doesn't depend on nginx's version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .regex import Search, compile_search
from .selector_error import SelectorError

_NAME = r"[A-Za-z0-9._~!$&'()*+,;=%-]+"
_LITERAL = r"\[[A-Za-z0-9._~!$&'()*+,;=:-]*\]"
_HOST = re.compile(rf"(?P<host>{_NAME}|{_LITERAL})(?::(?P<port>[0-9]*))?\Z")

_NO_NAME = re.compile(r"~|.*[*$]", re.DOTALL)


def normalize_host(host: str) -> str | None:
    """Convert a Host header to nginx's `$host`: lower case, without port and trailing dot.

    An IP literal keeps its brackets.  Returns None where nginx 1.31 answers 400.  A value of
    `$host` is returned unchanged.
    """
    match = _HOST.match(host)
    if match is None or ".." in match["host"] or not _is_port(match["port"] or ""):
        return None
    return match["host"].removesuffix(".").lower() or None


def has_no_name(host: str) -> bool:
    """Return whether this `$host` does not identify its server.

    Without Host (HTTP/1.0), nginx sets `$host` to the server's first `server_name` as written:
    `~^www`, `*.x`, `x.*`.  Looking that up as a host name could choose another server.  A name with
    `$`, which nginx uses literally, is refused here as a variable.
    """
    return _NO_NAME.match(host) is not None


def _is_port(digits: str) -> bool:
    significant = digits.lstrip("0")
    return len(significant) <= 5 and int(significant or "0") <= 65535


@dataclass(frozen=True, slots=True)
class ServerName:
    """One name of nginx's `server_name`, lower-cased.

    kind    form      value
    exact   x, ""     x
    suffix  *.x       .x   (ends with it)
    both    .x        x    (exact x, and suffix .x)
    prefix  x.*       x.   (starts with it)
    regex   ~re       re   (found anywhere; case ignored where re has an upper-case letter)
    """

    kind: Literal["exact", "suffix", "both", "prefix", "regex"]
    value: str

    def names(self) -> tuple[ServerName, ...]:
        """Return the name itself, or for `.x` the two names that it means."""
        if self.kind != "both":
            return (self,)
        return ServerName("exact", self.value), ServerName("suffix", "." + self.value)


def parse_server_name(text: str) -> ServerName:
    """Parse one name of nginx's `server_name`: `x`, `*.x`, `.x`, `x.*`, `~re`, `""`.

    Raises `SelectorError`, also for a name that nginx accepts but no request can have.
    """
    if text.startswith(('"~', "'~")):
        raise SelectorError(f"nginx's quotes around {text!r}", "leave the quotes out")
    if text.startswith("~"):
        compile_name(text[1:])
        return ServerName("regex", text[1:])
    name = text.lower()
    if name in ("", '""', "''"):
        return ServerName("exact", "")
    if name.startswith("*."):
        return ServerName("suffix", "." + _exact(text, name[2:]))
    if name.startswith("."):
        return ServerName("both", _exact(text, name[1:]))
    if name.endswith(".*"):
        return ServerName("prefix", _exact(text, name[:-2]) + ".")
    return ServerName("exact", _exact(text, name))


def compile_name(source: str) -> Search:
    """Compile the expression of a `~re` server name.

    nginx ignores case if the expression has an upper-case letter (`ngx_http_core_server_name`);
    the host is in lower case at that point.
    """
    return compile_search(source, ignore_case=any("A" <= c <= "Z" for c in source))


def _exact(text: str, name: str) -> str:
    """Return `name` if a request can have it.  Raises `SelectorError` about `text` if not."""
    if not name.isascii():
        hint = "write its A-labels (xn--…)"
    elif "*" in name:
        hint = "* stands only first (*.x) or last (x.*); else write a ~regular expression"
    elif "$" in name:
        hint = "write the name out: variables aren't known here"
    elif name.endswith("."):
        hint = "leave the dot at the end out: nginx removes it from the host"
    elif re.fullmatch(r"[0-9a-f]*:[0-9a-f:.]*", name) and name.count(":") > 1:
        hint = f"write [{name}]"
    elif ":" in name and "[" not in name:
        hint = "leave the port out"
    elif normalize_host(name) != name:
        hint = "write a host name, *.name, .name, name.* or ~regular expression"
    else:
        return name
    raise SelectorError(f"bad server_name {text!r}", hint)
