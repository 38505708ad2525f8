"""Compile rules into predicates over a certificate and a request.

A rule is compiled for the granting side (`allow`) or for the refusing side (`deny`); `not` switches
the side.  On the granting side, all of several CNs, Os or OUs must match; a value that is unknown
(no client address, no method) or unreadable doesn't match.  On the refusing side, one of several is
enough; a value that is unknown or unreadable matches.  Names of the SAN are alternatives on both
sides: one match is enough.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sidecar.core.config.schema import Located, Report
from sidecar.core.request import AuthzRequest
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.equivalent_fingerprints import equivalent_fingerprints
from sidecar.core.x509.equivalent_keys import equivalent_keys

from .matching import Predicate
from .patterns import KEY_COMPARISONS, ComparedValue, Pattern
from .spec import RuleSpec

FREE_VALUES = 16
"""Number of values of one key that are tried with any number of patterns."""

MAX_TRIED = 50_000
"""Maximum number of the texts of further values times patterns that are no exact ones, in one list
of rules.  A value of a refusing rule can have seven texts."""

LONG_TEXT = 1024
"""Characters of a text as which many count as one more, also in the first values."""


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """The facts that rules are evaluated on, and what is cached for one decision.

    Cached are the results of groups, and the values of keys as each side compares them.
    Without a certificate, only rules that ask about the request alone can be evaluated.
    """

    cert: ClientCert | None
    request: AuthzRequest
    now: float
    groups: dict[RuleSet, Match | None] = field(default_factory=dict)
    _read: dict[tuple[str, bool], tuple[ComparedValue, ...]] = field(default_factory=dict)
    _further: dict[tuple[str, bool], int] = field(default_factory=dict)
    _tried: list[int] = field(default_factory=lambda: [0])

    def compared(self, key: str, refusing: bool) -> tuple[ComparedValue, ...]:
        """Return the values for a key, prepared once: a SAN may have thousands of names."""
        found = self._read.get((key, refusing))
        if found is None:
            read = KEY_COMPARISONS[key].reader(refusing)
            found = tuple(map(read, _values(self, key, refusing)))
            self._read[key, refusing] = found
        return found

    def may_try(self, key: str, refusing: bool, patterns: int) -> bool:
        """Return whether a key's values may still be tried with so many patterns, and count them.

        The first few are free, so that the length of a policy alone never counts.
        """
        further = self._further.get((key, refusing))
        if further is None:
            further = _further_texts(self.compared(key, refusing))
            self._further[key, refusing] = further
        self._tried[0] += further * patterns
        return self._tried[0] <= MAX_TRIED

    def is_unreadable(self, key: str) -> bool:
        """Return whether the certificate has a value for a key that can't be parsed."""

        return self.cert is not None and key in self.cert.unreadable


def _further_texts(values: tuple[ComparedValue, ...]) -> int:
    """Count the texts beyond the free values, and each long one as several."""
    texts = [text for value in values for text in value.texts if isinstance(text, str)]
    further = sum(len(value.texts) for value in values[FREE_VALUES:])
    return further + sum(len(text) // LONG_TEXT for text in texts)


@dataclass(frozen=True, slots=True)
class Match:
    """The rule that matched, and the roles that it grants.

    `named` says that the rule has its own name; an unnamed rule is identified by its position.
    """

    rule: str
    roles: tuple[str, ...]
    named: bool = False


# -- one key ---------------------------------------------------------------------------------------

# The attributes of a name, of which several together make one identity.
WHOLE = frozenset({"cn", "o", "ou", "issuer_cn"})
REQUEST_KEYS = frozenset({"client_ip", "method"})
_NAMES = {"dn": "subject_name", "issuer_dn": "issuer_name"}
"""Keys that are compared by the DER of a name."""


def _values(facts: Facts, key: str, refusing: bool) -> tuple[Any, ...]:
    """Return the values of a certificate or request for a key of a rule."""
    if key in REQUEST_KEYS:
        value: str = getattr(facts.request, key)
        return (value,) if value else ()
    assert facts.cert is not None  # `RuleSet.of_request` excludes such rules
    if key == "sha256" and refusing:
        return (facts.cert.sha256, *equivalent_fingerprints(facts.cert))
    if key == "spki_sha256" and refusing:
        return (facts.cert.spki_sha256, *equivalent_keys(facts.cert))
    if key == "email" and refusing:
        return (*facts.cert.email, *facts.cert.mailbox)
    found = getattr(facts.cert, _NAMES.get(key, key))
    return found if isinstance(found, tuple) else (found,)


@dataclass(frozen=True, slots=True)
class KeyTest:
    """Test whether the values of one key match any of its patterns.

    Where they are too many to be tried, a granting rule doesn't match, and a refusing one does.
    """

    key: str
    exact: frozenset[Hashable]
    others: tuple[Predicate, ...]
    refusing: bool

    def __call__(self, facts: Facts) -> bool:
        if facts.is_unreadable(self.key):
            return self.refusing
        values = facts.compared(self.key, self.refusing)
        if not values:
            return self.refusing and self.key in REQUEST_KEYS
        if self.others and not facts.may_try(self.key, self.refusing, len(self.others)):
            return self.refusing
        wanted = self.key not in WHOLE or self.refusing  # any value that matches, or none that not
        for value in values:
            if self.takes(value) is wanted:
                return wanted
        return not wanted

    def takes(self, value: ComparedValue) -> bool:
        """Return whether one value matches.  On the granting side an empty one never does."""
        if not self.exact.isdisjoint(value.keys):
            return True
        texts = value.texts if self.refusing else [text for text in value.texts if text != ""]
        return any(test(text) for test in self.others for text in texts)


def key_test(key: str, patterns: Sequence[Pattern], refusing: bool) -> KeyTest:
    chosen = [pattern.on(refusing) for pattern in patterns]
    exact = frozenset(each for pattern in chosen for each in pattern.exact)
    others = tuple(p.test for p in chosen if p.test is not None)
    return KeyTest(key, exact, others, refusing)


# -- rules and sets of rules ----------------------------------------------------------------------

Moments = tuple[tuple[float, ...], ...]
"""Moments of `from` and `until`, each part in order: a set's own, and those of each group,
which are not copied."""

Test = Callable[[Facts], Match | None]
"""A part of a rule beside its keys; returns the match of the rules within it."""


@dataclass(frozen=True, slots=True)
class _Rule:
    match: Match
    keys: tuple[KeyTest, ...]
    tests: tuple[Test, ...]
    needs_cert: bool = True

    def matched(self, facts: Facts) -> Match | None:
        """Return the match, with roles and name of nested rules, if every part matches."""
        if not self.holds(facts):
            return None
        match = self.match
        for test in self.tests:
            inner = test(facts)
            if inner is None:
                return None
            match = _joined(match, inner)
        return match

    def holds(self, facts: Facts) -> bool:
        """Return whether every key of the rule itself matches."""
        return all(test(facts) for test in self.keys)

    def index_key(self) -> KeyTest | None:
        """Return the most selective key whose patterns are all exact, for the index."""
        exact = {test.key: test for test in self.keys if not test.others}
        return next((exact[key] for key in _INDEXED if key in exact), None)


def _joined(outer: Match, inner: Match) -> Match:
    """Join the matches of a rule and of a nested rule: the outer name, if any, and all roles."""
    if inner is _HELD:
        return outer
    roles = tuple(dict.fromkeys((*outer.roles, *inner.roles)))
    if outer.named or not inner.named:
        return Match(outer.rule, roles, outer.named)
    return Match(inner.rule, roles, named=True)


_HELD = Match("", ())
"""The match of a part that has no name and no roles."""

# Most selective first.  A rule found by one of these keys has a value that equals a pattern.
_INDEXED = ("sha256", "spki_sha256", "serial", "uri", "email", "upn", "dn", "cn", "dns", "ou", "o")


class RuleSet:
    """An ordered list of rules and groups; the first that matches wins.

    Rules with exact patterns are found in a dictionary, so that the cost of a match doesn't grow
    with their number; other rules are tried one by one.
    """

    __slots__ = (
        "_entries",
        "_index",
        "_of_request",
        "_refusing",
        "_rest",
        "client_ip",
        "method",
        "moments",
        "needs_cert",
    )

    def __init__(
        self,
        entries: Sequence[_Rule | RuleSet],
        uses: Iterable[str],
        moments: Moments,
        *,
        refusing: bool = False,
    ):
        self._entries = tuple(entries)
        self.moments = moments
        self._of_request: RuleSet | None = None
        self._index: dict[str, dict[Hashable, list[int]]] = {}
        self._rest: list[int] = []
        self._refusing = refusing
        self.client_ip = "client_ip" in uses
        self.method = "method" in uses
        self.needs_cert: bool = any(entry.needs_cert for entry in self._entries)
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
        """Return the first rule that matches, or None."""
        candidates = set(self._rest)
        for key, by_value in self._index.items():
            if facts.is_unreadable(key):  # on the refusing side, each of these rules matches
                candidates.update(*by_value.values())
                continue
            for value in facts.compared(key, self._refusing):
                for each in value.keys:
                    candidates.update(by_value.get(each, ()))
        for position in sorted(candidates):
            entry = self._entries[position]
            found = entry.as_group(facts) if isinstance(entry, RuleSet) else entry.matched(facts)
            if found:
                return found
        return None

    def as_group(self, facts: Facts) -> Match | None:
        """Return `match(facts)`, computed once per decision even if a group is used repeatedly."""
        if self not in facts.groups:
            facts.groups[self] = self.match(facts)
        return facts.groups[self]

    def labels(self) -> list[str]:
        """Return the displayed names of these rules, also of groups, each group's once."""
        found: list[str] = []
        left: list[_Rule | RuleSet] = [self]
        seen: set[RuleSet] = set()
        while left:
            entry = left.pop()
            if isinstance(entry, _Rule):
                found.append(entry.match.rule)
            elif entry not in seen:
                seen.add(entry)
                left += reversed(entry._entries)
        return found

    def of_request(self) -> RuleSet:
        """Return the rules that ask only about the request, also from groups.

        They are found once, however many locations and groups name a group.
        """
        if self._of_request is None:
            found = (e.of_request() if isinstance(e, RuleSet) else e for e in self._entries)
            kept = [each for each in found if not each.needs_cert]
            self._of_request = RuleSet(kept, _uses(self), self.moments, refusing=self._refusing)
        return self._of_request

    def next_moment(self, now: float) -> float:
        """Return the first moment after `now` of any `from` or `until`, or infinity."""
        return min(map(partial(_next, now), self.moments), default=math.inf)


def _next(now: float, moments: tuple[float, ...]) -> float:
    position = bisect_right(moments, now)
    return moments[position] if position < len(moments) else math.inf


NOBODY = RuleSet((), (), ())


# -- compiling ------------------------------------------------------------------------------------


MAX_DEPTH = 32
"""Maximum nesting of groups and rules together."""


class Compiler:
    """Compile the rules of one policy to `RuleSet`s; each group once for each side."""

    def __init__(self, groups: Mapping[str, Sequence[RuleSpec | Located]], report: Report) -> None:
        self._groups = groups
        self._words = {**groups, **dict.fromkeys(RESERVED)}
        self._report = report
        self._compiled: dict[tuple[str, bool], RuleSet] = {}
        self._of_defaults: dict[tuple[int, str, bool], RuleSet] = {}
        self._open: list[str] = []
        self._depth = 0

    def compile(
        self,
        specs: Sequence[RuleSpec | Located],
        label: str,
        *,
        refusing: bool,
        roles: bool = True,
        names: bool = True,
    ) -> RuleSet:
        """Compile a list; `label` names its unnamed rules: `allow[0]`.

        `roles` and `names` say whether rules here may have roles and a name; otherwise these are
        reported as mistakes.
        """
        self._depth += 1
        entries: list[_Rule | RuleSet] = []
        uses: set[str] = set()
        moments = _MomentsFound()
        for position, spec in enumerate(specs):
            if isinstance(spec, Located):
                group = self._group(spec, refusing)
                entries.append(group)
                uses |= _uses(group)
                moments.add(group.moments)
            else:
                place = f"{label}[{position}]"
                self._check_words(spec, roles, names)
                entries.append(self._rule(spec, place, refusing, roles, uses, moments))
        self._depth -= 1
        return RuleSet(entries, uses, moments.together(), refusing=refusing)

    def compile_layer(
        self,
        specs: Sequence[RuleSpec | Located],
        label: str,
        *,
        refusing: bool,
        roles: bool = True,
    ) -> RuleSet:
        """Compile a list of a location, or of `defaults`: once for all locations that take it."""
        key = id(specs), label, refusing
        if key not in self._of_defaults:
            found = self.compile(specs, label, refusing=refusing, roles=roles)
            self._of_defaults[key] = found
        return self._of_defaults[key]

    def check_groups(self) -> None:
        """Compile every group, so that mistakes in unused groups are found too."""
        for name, specs in self._groups.items():
            if (name, False) not in self._compiled:
                self._compiled[name, False] = self._members(name, specs, False)

    def _group(self, ref: Located, refusing: bool) -> RuleSet:
        name = ref.text
        if name in RESERVED:
            hint = "write it alone: allow: " + name
            self._report.add(ref.node, f"{name!r} is neither a rule nor a group", hint)
            return NOBODY
        if name not in self._groups:
            hint = self._report.suggest(name, self._words)
            if not hint.startswith("did"):
                hint = "add it under groups:"
            self._report.add(ref.node, f"undefined group {name!r}", hint)
            return NOBODY
        if name in self._open:
            self._report.add(ref.node, f"group {name!r} contains itself", "remove it from itself")
            return NOBODY
        if (name, refusing) not in self._compiled:
            if self._depth > MAX_DEPTH:
                message = f"nested deeper than {MAX_DEPTH}"
                self._report.add(ref.node, message, "use fewer nested groups")
                return NOBODY
            self._compiled[name, refusing] = self._members(name, self._groups[name], refusing)
        return self._compiled[name, refusing]

    def _members(self, name: str, specs: Sequence[RuleSpec | Located], refusing: bool) -> RuleSet:
        self._open.append(name)
        try:
            return self.compile(specs, name, refusing=refusing)
        finally:
            self._open.pop()

    def _check_words(self, spec: RuleSpec, roles: bool, names: bool) -> None:
        if spec.roles and not roles:
            message = "roles are not granted here: in `deny`, `not` or `without_certificate`"
            self._report.add(spec.node, message, "remove them")
        if spec.name and not names:
            message = "a name within `not` is never displayed"
            self._report.add(spec.node, message, "remove it")

    def _rule(
        self,
        spec: RuleSpec,
        label: str,
        refusing: bool,
        roles: bool,
        uses: set[str],
        moments: _MomentsFound,
    ) -> _Rule:
        tests: list[Test] = []
        needs_cert = False
        if spec.from_ is not None or spec.until is not None:
            tests.append(_window(spec.from_, spec.until))
            moments.own.update(m for m in (spec.from_, spec.until) if m is not None)
        for part, join in ((spec.any, _first), (spec.all, _every), (spec.not_, _none)):
            if part is not None:
                inverted = join is _none
                side = refusing is not inverted
                sets = [
                    self.compile(
                        [item],
                        label,
                        refusing=side,
                        roles=roles and not inverted,
                        names=not inverted,
                    )
                    for item in part
                ]
                tests.append(_asked(sets, join))
                for inner in sets:
                    needs_cert = needs_cert or inner.needs_cert
                    uses |= _uses(inner)
                    moments.add(inner.moments)
        uses |= {key for key, _ in spec.tests}
        keys = tuple(key_test(key, patterns, refusing) for key, patterns in spec.tests)
        needs_cert = needs_cert or any(test.key not in REQUEST_KEYS for test in keys)
        match = Match(spec.name or label, spec.roles, bool(spec.name))
        return _Rule(match, keys, tuple(tests), needs_cert)


class _MomentsFound:
    """Collect the moments of rules: small parts together, larger ones as they are."""

    def __init__(self) -> None:
        self.own: set[float] = set()
        self._parts: dict[int, tuple[float, ...]] = {}

    def add(self, moments: Moments) -> None:
        for part in moments:
            if len(part) > _FEW:
                self._parts[id(part)] = part
            else:
                self.own.update(part)

    def together(self) -> Moments:
        own = (tuple(sorted(self.own)),) if self.own else ()
        return (*own, *self._parts.values())


_FEW = 16
"""Maximum number of moments that are copied."""


RESERVED = ("public", "verified")
"""Words that must be the only value of `allow`."""


def _uses(rules: RuleSet) -> set[str]:
    return {key for key in REQUEST_KEYS if getattr(rules, key)}


_Join = Callable[[Iterable[Match | None]], Match | None]


def _first(found: Iterable[Match | None]) -> Match | None:
    """Join `any`: return the first match."""
    return next((match for match in found if match), None)


def _every(found: Iterable[Match | None]) -> Match | None:
    """Join `all`: return all roles together, and the first name."""
    together = _HELD
    for match in found:
        if match is None:
            return None
        inner = match if match.named else Match("", match.roles)
        together = inner if together is _HELD else _joined(together, inner)
    return together


def _none(found: Iterable[Match | None]) -> Match | None:
    """Join `not`: match if nothing matched."""
    return _HELD if _first(found) is None else None


def _asked(sets: Sequence[RuleSet], join: _Join) -> Test:
    return lambda facts: join(rules.match(facts) for rules in sets)


def _window(start: float | None, end: float | None) -> Test:
    first = float("-inf") if start is None else start
    last = float("inf") if end is None else end
    return lambda facts: _HELD if first <= facts.now < last else None
