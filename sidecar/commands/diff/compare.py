"""Compare what one location of the old policy and one of the new let in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sidecar.core.policy.model import Policy

from ..asking import PolicyFile
from .atoms import Atom
from .example import Example, Question, decide, examples
from .fields import Fields, Possibilities, Undecided
from .formula import Formulas
from .solve import Bounds, SearchEnded, assignments
from .terms import Term, Terms, atoms_of

MAX_TRIED = 300
"""Most assignments of one direction that are tried and found to be decided otherwise."""

MAX_SEEN = 20
"""Most examples of other locations that are tried at one."""

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


@dataclass(slots=True)
class Shared:
    """What the pairs of locations of two policies have in common.

    `now` is the moment that examples are for, where it doesn't matter.
    """

    now: float
    bounds: Bounds = field(default_factory=Bounds)
    formulas: Formulas = field(default_factory=Formulas)
    fields: Fields = field(init=False)
    entries: dict[tuple[str, bool, bool], frozenset[tuple[str, int]]] = field(default_factory=dict)
    seen: list[tuple[dict[str, Any] | None, dict[str, str]]] = field(default_factory=list)
    """Certificates and requests of examples elsewhere, which may do here, too."""

    def __post_init__(self) -> None:
        self.fields = Fields(self.now)


def compare(pair: Pair, shared: Shared) -> Comparison:
    """Compare two locations."""
    entries = sorted(_entries(pair, shared))
    terms, old, new = _formulas(pair, frozenset(entries[:MAX_ENTRIES]), shared.formulas)
    found = Comparison()
    if len(entries) > MAX_ENTRIES:
        found.doubts.append(f"of the denylists' entries, only {MAX_ENTRIES} are compared")
    if old is new:
        return found
    _see_again(pair, shared, found)
    fields = Possibilities(shared.fields.of(atoms_of(old, new)))
    search = _Search(pair, terms, fields, shared.now, shared.bounds)
    for direction, allows, denies in (("loses", old, new), ("gains", new, old)):
        if getattr(found, direction) is not None:
            continue
        goal = terms.all([allows, terms.negate(denies)])
        example, doubts = search.example(goal, gains=direction == "gains")
        setattr(found, direction, example)
        if example is None:
            found.doubts += doubts
        else:
            shared.seen.insert(0, (example.cert, example.request))
            del shared.seen[MAX_SEEN:]
    found.doubts = list(dict.fromkeys(found.doubts))
    return found


def _see_again(pair: Pair, shared: Shared, found: Comparison) -> None:
    """Take the examples of other locations that are examples here, too."""
    if not pair.question.location:
        return
    for cert, request in shared.seen:
        asked = {**request, "location": pair.question.location}
        if "host" in asked or "uri" in asked:
            continue
        decisions = decide((pair.old, pair.new), cert, asked)
        if decisions is not None and decisions[0].allowed != decisions[1].allowed:
            direction = "gains" if decisions[1].allowed else "loses"
            if getattr(found, direction) is None:
                setattr(found, direction, Example(cert, asked, *decisions))


def _formulas(
    pair: Pair, denied: frozenset[tuple[str, int]], shared: Formulas
) -> tuple[Terms, Term, Term]:
    """The formulas of both, with those entries of denylists that rules name, too."""
    while True:
        formulas = replace(shared, host=pair.question.host, served=_served(pair), denied=denied)
        old, new = (
            formulas.allowed(file.policy, file.spec, file.policy.locations.get(name or ""))
            for file, name in ((pair.old, pair.old_name), (pair.new, pair.new_name))
        )
        named = denied | _named(atoms_of(old, new))
        if named == denied:
            return formulas.terms, old, new
        denied = named


def _served(pair: Pair) -> str:
    """A host that the location serves, if the policies name one."""
    for file, name in ((pair.new, pair.new_name), (pair.old, pair.old_name)):
        for spec in file.spec.locations:
            if spec.name == name:
                exact = [n.value for n in sum(spec.server_name or (), ()) if n.kind == "exact"]
                return exact[0] if exact else ""
    return ""


def _named(atoms: Sequence[Atom]) -> frozenset[tuple[str, int]]:
    """The serial numbers and fingerprints that rules name, as denylists have them."""
    found = set()
    for atom in atoms:
        if atom.field in ("serial", "sha256", "spki_sha256") and atom.test is not None:
            for value in atom.test.exact:
                number = value if isinstance(value, int) else int(str(value), 16)
                found.add((atom.field, number))
    return frozenset(found)


def _entries(pair: Pair, shared: Shared) -> set[tuple[str, int]]:
    """The entries of denylists that one location has and the other has not, or ends otherwise."""
    old, new = _trusts(pair.old.policy, pair.old_name), _trusts(pair.new.policy, pair.new_name)
    found: set[tuple[str, int]] = set()
    for name in old | new:
        key = (name, name in old, name in new)
        if key not in shared.entries:
            before = _denied(pair.old.policy, name) if name in old else set()
            after = _denied(pair.new.policy, name) if name in new else set()
            shared.entries[key] = frozenset(entry for entry, _ in before ^ after)
        found |= shared.entries[key]
    return found


def _denied(policy: Policy, trust: str) -> set[tuple[tuple[str, int], float]]:
    """The entries of a trust's denylists, and when they end."""
    return {
        (key, entry.until)
        for denylist in policy.trusts[trust].denylists
        for key, entry in denylist.entries.items()
    }


def _trusts(policy: Policy, location: str | None) -> set[str]:
    here = policy.locations.get(location or "")
    return set() if here is None else {trust.name for trust in here.trusts}


@dataclass(slots=True)
class _Search:
    """The search for examples of one pair of locations."""

    pair: Pair
    terms: Terms
    fields: Possibilities
    now: float
    bounds: Bounds

    def example(self, goal: Term, *, gains: bool) -> tuple[Example | None, list[str]]:
        """An example of the goal that both policies bear out; or why there may be one yet."""
        doubts: dict[str, None] = {}
        tried = 0
        try:
            for assigned in assignments(self.terms, goal, self.fields.possible, self.bounds):
                try:
                    values = self.fields.values(assigned)
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
