"""Find rules that can never match, or never allow, by a proof; a doubt is no finding.

On the granting side, the automata of `diff` accept at least what patterns match, and on the
refusing side at most that, so that what they exclude is excluded.  On the refusing side a value
that can't be read matches, and an identity has several spellings; there, only the serial number and
the moment are compared.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sidecar.core.config.schema import Located
from sidecar.core.errors import Diagnostic
from sidecar.core.policy.rule_lines import Rules, rules_of
from sidecar.core.policy.rules import RESERVED
from sidecar.core.policy.spec import LocationSpec, RuleSpec
from sidecar.core.x509.described import ALWAYS

from .asking import PolicyFile
from .diff.atoms import Atom
from .diff.fields import Fields, Possibilities
from .diff.formula import Formulas
from .diff.solve import Assignment, Bounds, SearchEnded, assignments
from .diff.terms import Term, atoms_of

SECONDS = 3.0
"""Most time for the proofs of one policy; what isn't proven by then isn't told."""

CHOICES = 500
"""Most choices of one proof."""

MAX_TRIED = 200_000
"""Most values that are tried with globs and expressions in one proof; beyond, only equal patterns
are compared."""


def contradictions(file: PolicyFile, now: float, seconds: float = SECONDS) -> Iterator[Diagnostic]:
    """Yield a warning for each rule that never matches, and each that `deny` leaves nobody to."""
    search = _Search(file, _Prover(now, time.monotonic() + seconds))
    for location in file.spec.locations:
        for section in ("deny", "allow", "without_certificate"):
            rules = rules_of(file.spec, location, section)
            yield from search.unmatched(rules, section, refusing=section == "deny")
    for location in file.spec.locations:
        yield from search.denied(location)


@dataclass(slots=True)
class _Prover:
    """Proves that formulas never hold, until the time is up."""

    now: float
    ends: float
    formulas: Formulas = field(default_factory=Formulas)

    def never(self, goal: Term, *, refusing: bool = False) -> bool:
        """Return whether it is proven that the goal never holds."""
        left = self.ends - time.monotonic()
        if left <= 0:
            return False
        atoms = atoms_of(goal)
        found = Fields(self.now).of(atoms) if _tried(atoms) <= MAX_TRIED else {}
        known = {n: each for n, each in found.items() if _is_exact(n, each[1], refusing)}
        fields = Possibilities(known)

        def possible(assigned: Assignment) -> bool:
            return (refusing or not _grants_and_passes(assigned)) and fields.possible(assigned)

        bounds = Bounds(CHOICES, left)
        try:
            return next(assignments(self.formulas.terms, goal, possible, bounds), None) is None
        except SearchEnded:
            return False


def _tried(atoms: Sequence[Atom]) -> int:
    """Return how many values are tried with patterns that aren't exact, at most."""
    tests = sum(len(atom.test.others) for atom in atoms if atom.test is not None)
    return tests * sum(len(atom.texts) for atom in atoms)


def _is_exact(name: str, atoms: Sequence[Atom], refusing: bool) -> bool:
    """Return whether what is excluded of a field's values over its alphabet is excluded at all."""
    if refusing:
        return name == "serial" or (name == "now" and _is_exact(name, atoms, refusing=False))
    texts = [text for atom in atoms for text in atom.texts]
    if name == "now":  # no moment from then on is tried
        return all(moment < ALWAYS[1] for atom in atoms for moment in atom.moments)
    if name in ("upn", "email", "dns"):  # alphabets without upper case
        return not any(t.startswith("~") or ("*" in t and t != t.lower()) for t in texts)
    return True


def _grants_and_passes(assigned: Assignment) -> bool:
    """Return whether a value is to match patterns that grant, and not the same that refuse."""
    passed: dict[str, list[frozenset[str]]] = {}
    for atom, holds in assigned.items():
        if not holds and atom.test is not None and atom.test.refusing:
            passed.setdefault(atom.field, []).append(frozenset(atom.texts))
    return any(
        texts.issuperset(atom.texts)
        for atom, holds in assigned.items()
        if holds and atom.test is not None and not atom.test.refusing
        for texts in passed.get(atom.field, ())
    )


@dataclass(slots=True)
class _Search:
    """The rules of a policy that were looked at, and those that never match."""

    file: PolicyFile
    prover: _Prover
    _groups: set[tuple[str, bool]] = field(default_factory=set)
    _rules: set[tuple[int, bool]] = field(default_factory=set)
    _told: set[int] = field(default_factory=set)

    def unmatched(
        self, rules: Rules, label: str, *, refusing: bool, within: str = ""
    ) -> Iterator[Diagnostic]:
        """Yield a warning for each rule that never matches; a group's on the sides it is used."""
        for position, rule in enumerate(rules):
            if isinstance(rule, Located):
                if (rule.text, refusing) not in self._groups:
                    self._groups.add((rule.text, refusing))
                    members = self.file.spec.groups.get(rule.text, ())
                    yield from self.unmatched(members, rule.text, refusing=refusing)
            elif (id(rule), refusing) not in self._rules:
                self._rules.add((id(rule), refusing))
                yield from self._rule(rule, within, f"{label}[{position}]", refusing)

    def _rule(
        self, rule: RuleSpec, within: str, label: str, refusing: bool
    ) -> Iterator[Diagnostic]:
        inner = (rule.any, rule.all, rule.not_)
        if inner == (None, None, None):
            return  # one pattern of each key can match
        whole = within or rule.name or label
        term = self.prover.formulas.any_of(self.file.spec, [rule], refusing=refusing)
        if self.prover.never(term, refusing=refusing):
            self._told.add(id(rule))
            name = f"a rule within {whole}" if within else f"rule {whole}"
            message = f"{name} can never match: its conditions contradict each other"
            yield self._warning(rule, message, "correct them, or remove the rule")
            return
        for part in inner:
            side = refusing is not (part is rule.not_)
            yield from self.unmatched(part or (), label, refusing=side, within=whole)

    def denied(self, location: LocationSpec) -> Iterator[Diagnostic]:
        """Yield a warning for each rule or group of a location that `deny` leaves nobody to.

        What `defaults` allows everywhere, a location may well deny.
        """
        spec = self.file.spec
        deny = rules_of(spec, location, "deny")
        for section in ("allow", "without_certificate"):
            if getattr(location, section) is None and location.deny is not None:
                continue
            refused = self.prover.formulas.any_of(
                spec, deny, refusing=True, of_request=section != "allow"
            )
            asked = {atom.field for atom in atoms_of(refused)}
            passed = self.prover.formulas.terms.negate(refused)
            for position, rule in enumerate(rules_of(spec, location, section)):
                if id(rule) in self._told or (isinstance(rule, Located) and rule.text in RESERVED):
                    continue
                allowed = self.prover.formulas.any_of(spec, [rule], refusing=False)
                if asked.isdisjoint(atom.field for atom in atoms_of(allowed)):
                    continue
                if self.prover.never(self.prover.formulas.terms.all([allowed, passed])):
                    self._told.add(id(rule))
                    label = f"{section}[{position}]"
                    name = rule.text if isinstance(rule, Located) else rule.name or label
                    yield self._warning(
                        rule,
                        f"{name} lets nobody into location {location.name!r}: "
                        "its `deny` refuses all that matches",
                        "remove one of them, or narrow deny",
                    )

    def _warning(self, rule: RuleSpec | Located, message: str, hint: str) -> Diagnostic:
        return Diagnostic(self.file.path, rule.node.line, rule.node.column, message, hint)
