"""Choose the policy's location by host and `$request_uri`, as nginx chooses server and location.

The server comes first, by name: exact, the longest `*.x`, the longest `x.*`, the first `~re` in
policy order, else the default server (`ngx_http_find_virtual_server`).  Then the location, within
that server only (`ngx_http_core_find_location`): `= /x`, else the longest prefix; if that one is
no `^~`, the first `~`/`~*` in policy order wins over it.

A server of the policy is one *name*.  Its locations are all entries that list this very name, in
policy order: with A under `a b` and B under `a`, host `a` has A and B, host `b` has A alone.
`.x` is short for `x *.x`.  Entries without server_name are the default server's.  A host whose
name has no matching location gets None; it never falls through to a wider name or to the default
server.  An empty host (HTTP/1.0 without Host) has the name `""`, else the default server.  Two
servers of nginx can't share a name: `overlaps` tells where a policy says so.

The result is None where nginx's choice can't be known: for a host that nginx 1.31 would change, for
a `server_name` as it is written (see `has_no_name`), for a URI that leads to two locations with
`merge_slashes` on and off, and for a URI with control characters (`%0a`) if a regular expression
would have to be tried.

Not considered here:
- a server of nginx that no entry names: its requests count as the default server's, so name it in
  the policy or ask by location name; the same holds for the default server's own names if another
  name here (`*.x`, `~re`) would match them;
- the address and port: servers with different `listen`, or another default server on another
  port, must ask by location name;
- `rewrite`, `try_files`, `error_page` and other internal redirects; nested locations;
- a `listen` with a single server, where nginx never compares the name;
- nginx's own 301 from `/x` to a proxied `location /x/`: nginx sends it before it asks.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from .host import (
    ServerName,
    compile_name,
    has_no_name,
    normalize_host,
    parse_server_name,
)
from .regex import Search, compile_search
from .selector_error import SelectorError
from .uri import normalize_uri, possible_uris

__all__ = [
    "Chooser",
    "LocationEntry",
    "LocationPattern",
    "SelectorError",
    "ServerName",
    "duplicates",
    "normalize_host",
    "normalize_uri",
    "overlaps",
    "parse_location",
    "parse_server_name",
]


@dataclass(frozen=True, slots=True)
class LocationPattern:
    """One nginx location: `= /x`, `/x`, `^~ /x`, `~ re`, `~* re`."""

    kind: Literal["exact", "prefix", "prefix_final", "regex", "iregex"]
    value: str


LocationEntry = tuple[str, ServerName | tuple[ServerName, ...] | None, LocationPattern]
"""Name of the location, its server_name (None: the default server), its pattern."""

Text = TypeVar("Text", str, bytes)
Value = TypeVar("Value")

# -- reading --------------------------------------------------------------------------------------

MAX_PATH = 255
"""Maximum octets of a location that isn't a regular expression.

nginx 1.22 stores the length in one octet and cuts a longer location short.
"""

_FORM = re.compile(r"(=|\^~|~\*|~|)[ \t]*(.*)", re.DOTALL)
_KINDS: Mapping[str, Literal["exact", "prefix", "prefix_final", "regex", "iregex"]] = {
    "=": "exact",
    "^~": "prefix_final",
    "~*": "iregex",
    "~": "regex",
    "": "prefix",
}


def parse_location(text: str) -> LocationPattern:
    """Parse an nginx location.  Raises `SelectorError`, also for a path that no `$uri` has."""
    if text and text != text.strip(" \t"):
        hint = "leave it out; in a regular expression write \\x20"
        raise SelectorError(f"a blank at an end of the location {text!r}", hint)
    modifier, value = _FORM.fullmatch(text).groups()  # type: ignore[union-attr]
    kind = _KINDS[modifier]
    if kind in ("regex", "iregex"):
        compile_search(value, ignore_case=kind == "iregex")
    elif wrong := _wrong_path(value):
        raise SelectorError(f"bad location {text!r}", wrong)
    return LocationPattern(kind, value)


def _wrong_path(path: str) -> str:
    """Suggest a replacement for a path that nginx refuses or never matches; "" for a valid one."""
    if path.startswith("@"):
        return "named locations have no URI: leave location out"
    if not path.startswith("/"):
        return "write /x, = /x, ^~ /x, ~ regex or ~* regex"
    if re.search(r"[\x00-\x1f\x7f]", path):
        return "leave control characters out"
    if "?" in path:
        return "leave the query out: locations match the path only"
    if re.search(r"%[0-9A-Fa-f]{2}", path):
        return "write it decoded: nginx compares the decoded path"
    if "/./" in path or "/../" in path:
        return "write it without . and ..: nginx resolves them first"
    if len(path.encode(errors="surrogatepass")) > MAX_PATH:
        return f"write at most {MAX_PATH} octets: nginx 1.22 cuts longer ones; or use ~ ^/…"
    if escape := re.search(r"\\[\\\"'trn]", path):
        return (
            f"write what nginx makes of it: in nginx.conf {escape[0]} is one character; for these "
            "two characters use a regular expression, with \\x5c for the backslash"
        )
    return ""


# -- choosing -------------------------------------------------------------------------------------

_CONTROL = bytes((*range(0x20), 0x7F))


class _Longest(Generic[Text, Value]):
    """Find the value of the longest key that a text begins (or ends) with.

    A search costs one dictionary lookup for each distinct key length, not for each key.
    """

    __slots__ = ("_lengths", "_table")

    def __init__(self, table: Mapping[Text, Value]) -> None:
        self._table: dict[Text, Value] = dict(table)
        self._lengths = sorted({len(key) for key in table})

    def head(self, text: Text) -> Value | None:
        for at in range(bisect_right(self._lengths, len(text)) - 1, -1, -1):
            found = self._table.get(text[: self._lengths[at]])
            if found is not None:
                return found
        return None

    def tail(self, text: Text) -> Value | None:
        for at in range(bisect_right(self._lengths, len(text)) - 1, -1, -1):
            found = self._table.get(text[len(text) - self._lengths[at] :])
            if found is not None:
                return found
        return None


class _Server:
    """The locations of one server of nginx."""

    __slots__ = ("_exact", "_prefixes", "_regexes", "entries")

    def __init__(self, locations: Iterable[tuple[str, LocationPattern]]) -> None:
        self.entries = tuple((pattern, name) for name, pattern in locations)
        self._exact: dict[bytes, str] = {}
        prefixes: dict[bytes, tuple[str, bool]] = {}
        regexes: list[tuple[Search, str]] = []
        for pattern, name in self.entries:
            kind, value = pattern.kind, pattern.value
            if kind == "exact":
                self._exact.setdefault(value.encode(), name)
            elif kind in ("prefix", "prefix_final"):
                prefixes.setdefault(value.encode(), (name, kind == "prefix_final"))
            else:
                regexes.append((compile_search(value, ignore_case=kind == "iregex"), name))
        self._prefixes = _Longest(prefixes)
        self._regexes = tuple(regexes)

    def choose(self, uri: bytes) -> str | None:
        if (exact := self._exact.get(uri)) is not None:
            return exact
        name, final = self._prefixes.head(uri) or (None, False)
        if final or not self._regexes:
            return name
        if len(uri.translate(None, _CONTROL)) != len(uri):
            return None
        for search, regex_name in self._regexes:
            if search(uri):
                return regex_name
        return name


class Chooser:
    """Choose the location of a request by host and URI.  Immutable."""

    __slots__ = (
        "_default",
        "_exact",
        "_prefixes",
        "_regexes",
        "_suffixes",
        "names",
        "paths",
    )

    def __init__(self, entries: Sequence[LocationEntry]) -> None:
        """Index the entries, given in policy order.

        The first of two equal patterns in one server wins.  Raises `SelectorError` only for
        patterns that `parse_location` and `parse_server_name` never return.
        """
        self.names = frozenset(name for name, _, _ in entries)
        plain = ("exact", "prefix", "prefix_final")
        self.paths = frozenset(each.value for _, _, each in entries if each.kind in plain)
        servers = _servers(entries)
        self._default = servers.pop(None, None)
        by_kind: dict[str, dict[str, _Server]] = {}
        for key, server in servers.items():
            if key is not None:
                by_kind.setdefault(key.kind, {})[key.value] = server
        self._exact = by_kind.get("exact", {})
        self._suffixes = _Longest(by_kind.get("suffix", {}))
        self._prefixes = _Longest(by_kind.get("prefix", {}))
        regexes = by_kind.get("regex", {})
        self._regexes = tuple((compile_name(source), server) for source, server in regexes.items())

    def choose(self, host: str, target: bytes) -> str | None:
        """Return the location's name for nginx's `$host` and raw `$request_uri`; None: deny.

        Returns None for a value that `$host` can't have (upper case, a port), and for one with a
        dot at its end: nginx 1.22 makes that of `Host: x.:80.`, and matches it to no name.  Also
        None for a URI that leads to two locations, with `merge_slashes` on and off.
        """
        if host and (normalize_host(host) != host or has_no_name(host)):
            return None
        server = self._server(host)
        if server is None:
            return None
        uris = possible_uris(target)
        first, *others = (None if uri is None else server.choose(uri) for uri in uris)
        return None if any(other != first for other in others) else first

    def entries(self, host: str) -> tuple[tuple[LocationPattern, str], ...]:
        """Return the patterns and names of the server of a host, in policy order."""
        server = self._server(host)
        return server.entries if server is not None else ()

    def _server(self, name: str) -> _Server | None:
        found = self._exact.get(name)
        if found is None and name:
            found = self._suffixes.tail(name) or self._prefixes.head(name) or self._by_regex(name)
        return self._default if found is None else found

    def _by_regex(self, name: str) -> _Server | None:
        subject = name.encode("ascii")
        return next((server for search, server in self._regexes if search(subject)), None)


def _keys(names: ServerName | tuple[ServerName, ...] | None) -> tuple[ServerName | None, ...]:
    """Return the keys of the servers that an entry belongs to, each once."""
    if names is None:
        return (None,)
    return tuple(dict.fromkeys(key for name in _listed(names) for key in name.names()))


def _listed(names: ServerName | tuple[ServerName, ...] | None) -> tuple[ServerName, ...]:
    return (names,) if isinstance(names, ServerName) else names or ()


def _servers(entries: Sequence[LocationEntry]) -> dict[ServerName | None, _Server]:
    """Build the server of each name; names with exactly the same locations share one."""
    members: dict[ServerName | None, list[int]] = {}
    for index, (_, names, _) in enumerate(entries):
        for key in _keys(names):
            members.setdefault(key, []).append(index)
    built: dict[tuple[int, ...], _Server] = {}
    for indexes in map(tuple, members.values()):
        if indexes not in built:
            built[indexes] = _Server((entries[i][0], entries[i][2]) for i in indexes)
    return {key: built[tuple(indexes)] for key, indexes in members.items()}


def duplicates(entries: Sequence[LocationEntry]) -> list[tuple[int, int]]:
    """Return index pairs (first, later) of equal locations in one server.

    The later location can't be reached.  `/x` and `^~ /x` are equal: nginx refuses them as a
    duplicate location.  Two equal `~ re` are reported too, although nginx accepts them.
    """
    first: dict[tuple[ServerName | None, str, str], int] = {}
    found: set[tuple[int, int]] = set()
    for index, (_, names, pattern) in enumerate(entries):
        kind = "prefix" if pattern.kind == "prefix_final" else pattern.kind
        for key in _keys(names):
            earlier = first.setdefault((key, kind, pattern.value), index)
            if earlier != index:
                found.add((earlier, index))
    return sorted(found)


def overlaps(entries: Sequence[LocationEntry]) -> list[tuple[int, int]]:
    """Return index pairs (first, later) of entries that share some server names but not all.

    nginx gives a name to the first server that has it and ignores it in later servers; it ignores
    `.x` as a whole if `x` or `*.x` is in use.  (i, i): one list has a name twice, as `x` and `.x`.
    """
    first: dict[ServerName | None, tuple[int, int]] = {}
    numbers: dict[frozenset[ServerName | None], int] = {}  # of each different list, compared once
    found: set[tuple[int, int]] = set()
    for index, (_, names, _) in enumerate(entries):
        keys = _keys(names)
        number = numbers.setdefault(frozenset(keys), len(numbers))
        if len(keys) < sum(len(name.names()) for name in dict.fromkeys(_listed(names))):
            found.add((index, index))
        for key in keys:
            earlier, other = first.setdefault(key, (index, number))
            if other != number:
                found.add((earlier, index))
    return sorted(found)
