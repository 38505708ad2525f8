"""Compare what one location of the old policy and one of the new let in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.core.policy.model import Policy

from ..asking import PolicyFile
from .atoms import Atom
from .example import Example, Question, decide, examples
from .fields import Field, Impossible, Undecided, fields_of
from .formula import Formulas
from .solve import Assignment, Bounds, SearchEnded, assignments
from .terms import Term

MAX_TRIED = 300
"""Most assignments of one direction that are tried and found to be decided otherwise."""

MAX_ENTRIES = 5000
"""Most entries of denylists that are compared."""


@dataclass(slots=True)
class Comparison:
    """Who gains and who loses at one location; `doubts` are what keeps it from being exact."""

    gains: Example | None = None
    loses: Example | None = None
    doubts: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether what isn't shown is proven not to be."""
        return not self.doubts

    @property
    def differs(self) -> bool:
        """Whether anybody gains or loses."""
        return self.gains is not None or self.loses is not None


@dataclass(frozen=True, slots=True)
class Pair:
    """Both policies, and the names of the locations that are compared; None: there is none."""

    old: PolicyFile
    new: PolicyFile
    old_name: str | None
    new_name: str | None
    question: Question


def compare(pair: Pair, now: float, bounds: Bounds | None = None) -> Comparison:
    """Compare two locations; `now` is the moment that examples are for, where it doesn't matter."""
    entries = _entries(pair)
    formulas, old, new = _formulas(pair, frozenset(entries[:MAX_ENTRIES]))
    found = Comparison()
    if len(entries) > MAX_ENTRIES:
        found.doubts.append(f"of the denylists' entries, only {MAX_ENTRIES} are compared")
    search = _Search(pair, formulas, now, bounds or Bounds())
    for direction, allows, denies in (("loses", old, new), ("gains", new, old)):
        goal = formulas.terms.all([allows, formulas.terms.negate(denies)])
        example, doubts = search.example(goal, gains=direction == "gains")
        setattr(found, direction, example)
        if example is None:
            found.doubts += doubts
    found.doubts = list(dict.fromkeys(found.doubts))
    return found


def _formulas(pair: Pair, denied: frozenset[tuple[str, int]]) -> tuple[Formulas, Term, Term]:
    """The formulas of both, with those entries of denylists that rules name, too."""
    while True:
        formulas = Formulas(pair.question.host, _served(pair), denied=denied)
        old, new = (
            formulas.allowed(file.policy, file.spec, file.policy.locations.get(name or ""))
            for file, name in ((pair.old, pair.old_name), (pair.new, pair.new_name))
        )
        named = denied | _named(formulas)
        if named == denied:
            return formulas, old, new
        denied = named


def _served(pair: Pair) -> str:
    """A host that the location serves, if the policies name one."""
    for file, name in ((pair.new, pair.new_name), (pair.old, pair.old_name)):
        for spec in file.spec.locations:
            if spec.name == name:
                exact = [n.value for n in sum(spec.server_name or (), ()) if n.kind == "exact"]
                return exact[0] if exact else ""
    return ""


def _named(formulas: Formulas) -> frozenset[tuple[str, int]]:
    """The serial numbers and fingerprints that rules name, as denylists have them."""
    found = set()
    for atom in formulas.atoms:
        if atom.field in ("serial", "sha256", "spki_sha256") and atom.test is not None:
            for value in atom.test.exact:
                number = value if isinstance(value, int) else int(str(value), 16)
                found.add((atom.field, number))
    return frozenset(found)


def _entries(pair: Pair) -> list[tuple[str, int]]:
    """The entries of denylists that one policy has and the other has not, or ends otherwise."""
    found: set[tuple[str, int]] = set()
    old, new = (
        {
            (trust.name, key, entry.until)
            for name in _trusts(file.policy, location)
            for trust in [file.policy.trusts[name]]
            for denylist in trust.denylists
            for key, entry in denylist.entries.items()
        }
        for file, location in ((pair.old, pair.old_name), (pair.new, pair.new_name))
    )
    found |= {key for _, key, _ in old ^ new}
    return sorted(found)


def _trusts(policy: Policy, location: str | None) -> list[str]:
    here = policy.locations.get(location or "")
    return [] if here is None else [trust.name for trust in here.trusts]


@dataclass(slots=True)
class _Search:
    """The search for examples of one pair of locations."""

    pair: Pair
    formulas: Formulas
    now: float
    bounds: Bounds
    fields: dict[str, Field] = field(default_factory=dict)
    _solved: dict[Any, tuple[Any, ...] | Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fields = fields_of(self.formulas.atoms, self.now)

    def example(self, goal: Term, *, gains: bool) -> tuple[Example | None, list[str]]:
        """An example of the goal that both policies bear out; or why there may be one yet."""
        doubts: dict[str, None] = {}
        tried = 0
        try:
            for assigned in assignments(self.formulas.terms, goal, self._possible, self.bounds):
                try:
                    values = self._values(assigned)
                except Undecided as error:
                    doubts[str(error)] = None
                    continue
                example = self._borne_out(values, assigned, gains)
                if example is not None:
                    return example, []
                doubts["some rules are compared in a way that isn't followed"] = None
                tried += 1
                if tried >= MAX_TRIED:
                    break
        except SearchEnded:
            doubts["the search took too long and was given up"] = None
        return None, list(doubts)

    def _borne_out(
        self, values: Mapping[str, tuple[Any, ...]], assigned: Mapping[Atom, bool], gains: bool
    ) -> Example | None:
        files = (self.pair.old, self.pair.new)
        for cert, request in examples(self.pair.question, values, assigned, self.now):
            decisions = decide(files, cert, request)
            if decisions is not None:
                old, new = decisions
                if (old.allowed, new.allowed) == (not gains, gains):
                    return Example(cert, request, old, new)
        return None

    # -- fields

    def _possible(self, assigned: Assignment) -> bool:
        """Whether each field may be so; what follows from what holds is added."""
        for name, held, refuted in self._by_field(assigned):
            for atom in self.fields[name].refuted_by(held):
                if assigned.setdefault(atom, False):
                    return False
            try:
                self._solve(name, held, refuted)
            except Impossible:
                return False
            except Undecided:
                continue
        return True

    def _values(self, assigned: Mapping[Atom, bool]) -> dict[str, tuple[Any, ...]]:
        return {
            name: self._solve(name, held, refuted)
            for name, held, refuted in self._by_field(assigned)
        }

    def _by_field(
        self, assigned: Mapping[Atom, bool]
    ) -> list[tuple[str, tuple[Atom, ...], tuple[Atom, ...]]]:
        held: dict[str, list[Atom]] = {}
        refuted: dict[str, list[Atom]] = {}
        for atom, holds in assigned.items():
            (held if holds else refuted).setdefault(atom.field, []).append(atom)
        names = [name for name in self.fields if name in held or name in refuted]
        return [(name, tuple(held.get(name, ())), tuple(refuted.get(name, ()))) for name in names]

    def _solve(
        self, name: str, held: tuple[Atom, ...], refuted: tuple[Atom, ...]
    ) -> tuple[Any, ...]:
        key = (name, held, refuted)
        found = self._solved.get(key)
        if found is None:
            try:
                found = self.fields[name].solve(held, refuted)
            except (Impossible, Undecided) as error:
                found = error
            self._solved[key] = found
        if isinstance(found, Exception):
            raise found
        return found
