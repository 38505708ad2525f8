"""Rules → predicates over a certificate and a request.

What grants must match wholly, what refuses may match partly.  A rule is compiled for one of two
sides: granting (`allow`) or refusing (`deny`), and `not` turns the side over.  On the granting
side every one of several CNs, Os or OUs must match, and what nginx didn't tell (no client
address, no method) matches nothing; on the refusing side any one suffices, and what isn't known
matches.  Names of the SAN are alternatives: any one of them matches, on both sides.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sidecar.core.config.schema import Located, Report, suggest
from sidecar.core.wire import AuthzRequest
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.ecdsa_malleability import twins

from .patterns import KINDS, Pattern, Predicate
from .spec import RuleSpec


class Facts(NamedTuple):
    """What rules are asked about, and what groups have answered: each is asked once a decision."""

    cert: ClientCert
    request: AuthzRequest
    now: float
    groups: dict[RuleSet, Match | None]


Test = Callable[[Facts], bool]


@dataclass(frozen=True, slots=True)
class Match:
    """The rule that matched, and the roles that it grants."""

    rule: str
    roles: tuple[str, ...]


# -- one key ---------------------------------------------------------------------------------------

# The attributes of a name, of which several together make one identity.
_WHOLE = frozenset({"cn", "o", "ou", "issuer_cn"})
_REQUEST = frozenset({"client_ip", "method"})


def _values(facts: Facts, key: str, refusing: bool) -> tuple[str, ...]:
    """The values that a certificate or request has under a key of a rule."""
    if key == "sha256" and refusing:
        return (facts.cert.sha256, *twins(facts.cert))
    if key in _REQUEST:
        value: str = getattr(facts.request, key)
        return (value,) if value else ()
    found = getattr(facts.cert, key)
    return found if isinstance(found, tuple) else (str(found),)


@dataclass(frozen=True, slots=True)
class _KeyTest:
    """Whether the values under one key match any of its patterns."""

    key: str
    exact: frozenset[str]
    others: tuple[Predicate, ...]
    refusing: bool

    def __call__(self, facts: Facts) -> bool:
        values = _values(facts, self.key, self.refusing)
        if not values:
            return self.refusing and self.key in _REQUEST
        wanted = self.key not in _WHOLE or self.refusing  # any value that matches, or none that not
        fold = KINDS[self.key].fold
        for value in values:
            if self._matches(fold(value)) is wanted:
                return wanted
        return not wanted

    def _matches(self, value: str) -> bool:
        return value in self.exact or any(test(value) for test in self.others)


def _key_test(key: str, patterns: Sequence[Pattern], refusing: bool) -> _KeyTest:
    exact = frozenset(p.exact for p in patterns if p.exact is not None)
    others = tuple(p.test for p in patterns if p.test is not None)
    return _KeyTest(key, exact, others, refusing)


# -- rules and sets of rules ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    match: Match
    keys: tuple[_KeyTest, ...]
    tests: tuple[Test, ...]

    def holds(self, facts: Facts) -> bool:
        for test in self.keys:
            if not test(facts):
                return False
        return all(test(facts) for test in self.tests)

    def index_key(self) -> _KeyTest | None:
        """The most telling key of which every pattern is exact, to find the rule by."""
        exact = {test.key: test for test in self.keys if not test.others}
        return next((exact[key] for key in _INDEXED if key in exact), None)


# Most telling first.  A rule found by one of these keys has a value that equals a pattern.
_INDEXED = ("sha256", "spki_sha256", "serial", "uri", "email", "upn", "dn", "cn", "dns", "ou", "o")


class RuleSet:
    """An ordered list of rules and groups; the first that matches wins.

    Rules with an exact pattern are found by a dictionary, so that the cost of a match doesn't
    grow with their number; the others are tried one by one.
    """

    __slots__ = ("_entries", "_index", "_rest", "client_ip", "method", "moments")

    def __init__(
        self, entries: Sequence[_Rule | RuleSet], uses: Iterable[str], moments: set[float]
    ):
        self._entries = tuple(entries)
        self._index: dict[str, dict[str, list[int]]] = {}
        self._rest: list[int] = []
        self.client_ip = "client_ip" in uses
        self.method = "method" in uses
        self.moments = tuple(sorted(moments))
        for position, entry in enumerate(self._entries):
            test = entry.index_key() if isinstance(entry, _Rule) else None
            if test is None:
                self._rest.append(position)
                continue
            by_value = self._index.setdefault(test.key, defaultdict(list))
            for value in test.exact:
                by_value[value].append(position)

    def __len__(self) -> int:
        return len(self._entries)

    def match(self, facts: Facts) -> Match | None:
        """The first rule that matches, or None."""
        candidates = set(self._rest)
        for key, by_value in self._index.items():
            fold = KINDS[key].fold
            for value in _values(facts, key, True):
                candidates.update(by_value.get(fold(value), ()))
        for position in sorted(candidates):
            entry = self._entries[position]
            if isinstance(entry, RuleSet):
                if found := entry.as_group(facts):
                    return found
            elif entry.holds(facts):
                return entry.match
        return None

    def as_group(self, facts: Facts) -> Match | None:
        """As `match`, but worked out once for one decision, however often it is listed."""
        if self not in facts.groups:
            facts.groups[self] = self.match(facts)
        return facts.groups[self]

    def next_moment(self, now: float) -> float:
        """The first moment after `now` at which a `from` or `until` turns, or infinity."""
        position = bisect_right(self.moments, now)
        return self.moments[position] if position < len(self.moments) else float("inf")


NOBODY = RuleSet((), (), set())


# -- compiling ------------------------------------------------------------------------------------


MAX_DEPTH = 32
"""How deep groups and rules may lie within each other, all in all."""


class Compiler:
    """Turns the rules of one policy into `RuleSet`s; each group once for each side."""

    def __init__(self, groups: Mapping[str, Sequence[RuleSpec | Located]], report: Report) -> None:
        self._groups = groups
        self._report = report
        self._compiled: dict[tuple[str, bool], RuleSet] = {}
        self._open: list[str] = []
        self._depth = 0

    def compile(
        self, specs: Sequence[RuleSpec | Located], label: str, *, refusing: bool
    ) -> RuleSet:
        """Compile a list; `label` names its unnamed rules: `allow[0]`."""
        self._depth += 1
        entries: list[_Rule | RuleSet] = []
        uses: set[str] = set()
        moments: set[float] = set()
        for position, spec in enumerate(specs):
            if isinstance(spec, Located):
                group = self._group(spec, refusing)
                entries.append(group)
                uses |= _uses(group)
                moments.update(group.moments)
            else:
                entries.append(self._rule(spec, f"{label}[{position}]", refusing, uses, moments))
        self._depth -= 1
        return RuleSet(entries, uses, moments)

    def check_groups(self) -> None:
        """Compile every group, so that mistakes in those that nobody uses are found too."""
        for name, specs in self._groups.items():
            if (name, False) not in self._compiled:
                self._compiled[name, False] = self._members(name, specs, False)

    def _group(self, ref: Located, refusing: bool) -> RuleSet:
        name = ref.text
        if name not in self._groups:
            hint = suggest(name, self._groups) if self._groups else "add it under groups:"
            self._report.add(ref.node, f"undefined group {name!r}", hint)
            return NOBODY
        if name in self._open:
            self._report.add(ref.node, f"group {name!r} contains itself", "break the circle")
            return NOBODY
        if (name, refusing) not in self._compiled:
            if self._depth > MAX_DEPTH:
                self._report.add(ref.node, f"nested deeper than {MAX_DEPTH}", "flatten the groups")
                return NOBODY
            self._compiled[name, refusing] = self._members(name, self._groups[name], refusing)
        return self._compiled[name, refusing]

    def _members(self, name: str, specs: Sequence[RuleSpec | Located], refusing: bool) -> RuleSet:
        self._open.append(name)
        try:
            return self.compile(specs, name, refusing=refusing)
        finally:
            self._open.pop()

    def _rule(
        self, spec: RuleSpec, label: str, refusing: bool, uses: set[str], moments: set[float]
    ) -> _Rule:
        tests: list[Test] = []
        if spec.from_ is not None or spec.until is not None:
            tests.append(_window(spec.from_, spec.until))
            moments.update(m for m in (spec.from_, spec.until) if m is not None)
        for part, join in ((spec.any, any), (spec.all, all), (spec.not_, _none)):
            if part is not None:
                side = refusing if join is not _none else not refusing
                sets = [self.compile([item], label, refusing=side) for item in part]
                tests.append(_joined(sets, join))
                for inner in sets:
                    uses |= _uses(inner)
                    moments.update(inner.moments)
        uses |= {key for key, _ in spec.tests}
        keys = tuple(_key_test(key, patterns, refusing) for key, patterns in spec.tests)
        return _Rule(Match(spec.name or label, spec.roles), keys, tuple(tests))


def _uses(rules: RuleSet) -> set[str]:
    return {key for key in _REQUEST if getattr(rules, key)}


def _none(found: Iterable[bool]) -> bool:
    return not any(found)


def _joined(sets: Sequence[RuleSet], join: Callable[[Iterable[bool]], bool]) -> Test:
    return lambda facts: join(rules.match(facts) is not None for rules in sets)


def _window(start: float | None, end: float | None) -> Test:
    first = float("-inf") if start is None else start
    last = float("inf") if end is None else end
    return lambda facts: first <= facts.now < last
