"""Find hosts and URIs for which two policies choose different locations."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from sidecar.core.nginx.host import ServerName
from sidecar.core.nginx.locations import LocationPattern
from sidecar.core.policy.spec import PolicySpec

from ..asking import PolicyFile
from .nfa import Nfa, NoAutomaton, glob, regex
from .search import SearchTooLong, shortest

MAX_ASKED = 200_000
"""Most pairs of host and URI that are asked for."""

MAX_PAIRS = 100
"""Most pairs of locations that are told."""

_HOST_ALPHABET = string.ascii_lowercase + string.digits + "-."
_URI_ALPHABET = string.ascii_lowercase + string.digits + "-._~/" + string.ascii_uppercase + "@:+,"
_SAFE = "/~!$&'()*+,;=:@-._"
_BESIDE = "0beside"
"""What follows a prefix where no other location does."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A host and a URI, and the locations that both policies choose for them."""

    host: str
    uri: str
    old: str | None
    new: str | None


@dataclass(slots=True)
class Choices:
    """One example of each pair of different locations; `exact`: there are no other pairs."""

    found: list[Chosen] = field(default_factory=list)
    exact: bool = True


def choices(old: PolicyFile, new: PolicyFile) -> Choices:
    """Compare how both policies choose a location by host and URI."""
    result = Choices()
    if _written(old.spec) == _written(new.spec):
        return result
    hosts, uris = _hosts(old.spec, new.spec), _uris(old.spec, new.spec)
    result.exact = not any(_has_regex(each) for file in (old, new) for each in _written(file.spec))
    if len(hosts) * len(uris) > MAX_ASKED:
        result.exact = False
    pairs: dict[tuple[str | None, str | None], Chosen] = {}
    for number, (host, uri) in enumerate((host, uri) for uri in uris for host in hosts):
        if number > MAX_ASKED:
            break
        target = uri.encode("latin-1")
        chosen = [file.policy.chooser.choose(host, target) for file in (old, new)]
        if chosen[0] != chosen[1]:
            pairs.setdefault((chosen[0], chosen[1]), Chosen(host, uri, *chosen))
    result.found = list(pairs.values())[:MAX_PAIRS]
    result.exact &= len(pairs) <= MAX_PAIRS
    return result


_Entry = tuple[str, tuple[ServerName, ...] | None, LocationPattern]


def _written(spec: PolicySpec) -> list[_Entry]:
    """The locations that are chosen by URI, as the policy writes them."""
    return [
        (each.name, None if each.server_name is None else sum(each.server_name, ()), each.location)
        for each in spec.locations
        if each.location is not None
    ]


def _has_regex(entry: _Entry) -> bool:
    _, names, location = entry
    return location.kind in ("regex", "iregex") or any(n.kind == "regex" for n in names or ())


def _hosts(*specs: PolicySpec) -> list[str]:
    """A host for each server name, and hosts beside them; the empty one last."""
    names = [n for spec in specs for _, listed, _ in _written(spec) for n in listed or ()]
    found = [host for name in dict.fromkeys(names) for host in _named(name)]
    return list(dict.fromkeys([*(h for h in found if h), "host.invalid", "a.host.invalid", ""]))


def _named(name: ServerName) -> Iterator[str]:
    if name.kind == "exact":
        yield name.value
    elif name.kind == "suffix":
        yield f"any{name.value}"
    elif name.kind == "both":
        yield from (name.value, f"any.{name.value}")
    elif name.kind == "prefix":
        yield f"{name.value}example"
    else:
        upper = any("A" <= c <= "Z" for c in name.value)
        yield from _matched([_automaton(name.value, ignore_case=upper)], _HOST_ALPHABET)


def _uris(*specs: PolicySpec) -> list[str]:
    """A URI for each location, for what is beside it, and where a prefix meets an expression."""
    patterns = list(dict.fromkeys(p for spec in specs for _, _, p in _written(spec)))
    paths = [p.value for p in patterns if p.kind not in ("regex", "iregex")]
    regexes = [
        _automaton(p.value, ignore_case=p.kind == "iregex")
        for p in patterns
        if p.kind in ("regex", "iregex")
    ]
    found = ["/", f"/{_BESIDE}"]
    for path in paths:
        found += [path, f"{path}{_BESIDE}", f"{path.rstrip('/')}/{_BESIDE}"]
    for prefix in dict.fromkeys(["/", *paths]):
        if "*" not in prefix:
            for each in regexes:
                others = [other for other in regexes if other is not each]
                found += _matched([glob(f"{prefix}*"), each], _URI_ALPHABET)
                found += _matched([glob(f"{prefix}*"), each], _URI_ALPHABET, others)
            found += _matched([glob(f"{prefix}*")], _URI_ALPHABET, regexes)
    return list(dict.fromkeys(quote(each, safe=_SAFE) for each in found))


def _automaton(source: str, *, ignore_case: bool) -> Nfa | None:
    try:
        return regex(source, ignore_case=ignore_case, search=True)
    except NoAutomaton:
        return None


def _matched(
    inside: Iterable[Nfa | None], alphabet: str, outside: Iterable[Nfa | None] = ()
) -> list[str]:
    """A text that all of `inside` and none of `outside` match, if one is found."""
    taken = [each for each in inside if each is not None]
    try:
        found = shortest(taken, [each for each in outside if each is not None], alphabet)
    except SearchTooLong:
        return []
    return [] if found is None else [found]
