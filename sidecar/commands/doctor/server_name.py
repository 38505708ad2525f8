"""Check how the client's server name (SNI) reaches the sidecar: by a strict `map`, or raw.

`$ssl_server_name` is what the client wrote into its ClientHello, line ends included.  A `map` keeps
them out if all that it lets through was matched whole: from `\\A` to `\\z`, by characters that are
named.  `$` and `\\Z` match before a line end as well, `.` and negated classes match a CR.
"""

from __future__ import annotations

import re

from .nginx_config import COMMENT, Block, Root
from .routing import captured_names
from .variables import of_maps, plain_variables, resting_on, set_anywhere

RAW = "$ssl_server_name"
MAP = 'map $ssl_server_name $mtls_sidecar_sni { default ""; "~\\A[A-Za-z0-9._-]{1,255}\\z" '
WRITE = (
    "proxy_set_header SSL-Server-Name $mtls_sidecar_sni;   (the last one, with "
    f"`{MAP}$ssl_server_name; }}` in http {{ }})"
)

_STRICT = re.compile(
    r"""(?:\(\?i\))?(?:\\A|\^)
        (?P<items>(?:
            [A-Za-z0-9_-] | \\[.\-_] | \\[dw]
          | \[(?:[A-Za-z0-9._:-]|\\[.\-dw])+\]
          | \((?:\?:|\?P?<\w+>)? | \) | \|
          | [*+?] | \{\d*,?\d*\}
        )+)
        \\z""",
    re.VERBOSE,
)


def is_strict_map(variable: str, root: Root) -> bool:
    """Whether a variable comes from a `map` of the raw server name that keeps line ends out."""
    tables = {each.parent for each in root.table(variable) if each.parent is not None}
    return bool(tables) and all(map(_is_strict, tables))


def is_raw(value: str, root: Root) -> bool:
    """Whether a header's value is what the client wrote: directly, by `set` or by a lax `map`."""

    def given(name: str) -> list[str]:
        tables = [] if is_strict_map(name, root) else of_maps(name, root)
        return [*set_anywhere(name, root), *tables]

    return any(name in (RAW, "$ssl_preread_server_name") for name in resting_on(value, given))


def _is_strict(block: Block) -> bool:
    if plain_variables(block.args[0]) != RAW:
        return False
    hostnames = bool(block.own("hostnames"))
    entries = [each for each in block.inner if each.name not in (COMMENT, "hostnames", "volatile")]
    return bool(entries) and all(_lets_through_names(each, hostnames) for each in entries)


def _lets_through_names(entry: Block, hostnames: bool) -> bool:
    """Whether an entry's result is a constant, or was matched whole."""
    if "$" not in "".join(entry.args):
        return True
    key = entry.name
    if not key.startswith("~"):
        return key != "default" and not hostnames and entry.args == [RAW]
    result = plain_variables("".join(entry.args))
    pattern = key[1:].removeprefix("*")
    captures = [f"${name}" for name in captured_names(pattern)]
    if result not in (RAW, *captures) and not re.fullmatch(r"\$[1-9]", result):
        return False
    found = _STRICT.fullmatch(pattern)
    return found is not None and not _alternates_at_the_top(found["items"])


def _alternates_at_the_top(items: str) -> bool:
    """Whether a `|` outside of groups splits the anchors: `\\Aa|b\\z` matches `a` and any rest."""
    depth = 0
    for each in re.sub(r"\\.|\[[^\]]*\]", "", items):
        depth += (each == "(") - (each == ")")
        if depth < 0 or (each == "|" and depth == 0):
            return True
    return False
