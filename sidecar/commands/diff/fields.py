"""Find values of one field under which some atoms hold and others don't, or prove there are none.

A field of a certificate has any number of values.  Of several values, an atom that asks for each of
them (`every`) bounds all of them; one that asks for any of them needs one that is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.core.policy.patterns import KEY_COMPARISONS
from sidecar.core.policy.rules import WHOLE

from .atoms import Atom
from .languages import ALPHABETS, alphabet, automaton
from .nfa import NoAutomaton
from .search import Automaton, SearchTooLong, shortest
from .values import COMPLETE, SINGLE, values_of


class Impossible(Exception):
    """No values of the field are so: it is proven."""


class Undecided(Exception):
    """No values were found, and that there are none isn't proven; the argument says why."""


@dataclass(slots=True)
class Field:
    """One field: the atoms about it so far, and the values that are tried."""

    name: str
    now: float
    atoms: dict[Atom, None] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    _known_values: set[Any] = field(default_factory=set)
    _masks: dict[Atom, tuple[int, int]] = field(default_factory=dict)
    _keys: dict[bool, list[tuple[Any, ...]]] = field(default_factory=dict)
    _by_key: dict[bool, dict[Any, int]] = field(default_factory=dict)
    _automata: dict[Atom, Automaton | NoAutomaton] = field(default_factory=dict)
    _empty: dict[tuple[frozenset[Atom], frozenset[Atom]], None] = field(default_factory=dict)

    def ask(self, atoms: Sequence[Atom]) -> None:
        """Add atoms, and the values that they suggest."""
        new = [atom for atom in atoms if atom not in self.atoms]
        if not new and self.values:
            return
        self.atoms.update(dict.fromkeys(new))
        suggesting = new if self.name in ALPHABETS else list(self.atoms)
        for value in values_of(self.name, suggesting, self.now):
            self._add(value)

    def _add(self, value: Any) -> None:
        if value not in self._known_values:
            self._known_values.add(value)
            self.values.append(value)

    def solve(self, held: Sequence[Atom], refuted: Sequence[Atom]) -> tuple[Any, ...]:
        """Values under which all of `held` hold and none of `refuted`, as few as possible.

        Raises `Impossible` and `Undecided`.
        """
        if self.name in SINGLE:
            return (self._value(held, refuted),)
        inside = [atom for atom in held if atom.every]
        outside = [atom for atom in refuted if not atom.every]
        needs: list[tuple[list[Atom], list[Atom]]] = [
            ([atom], []) for atom in held if not atom.every
        ]
        needs += [([], [atom]) for atom in refuted if atom.every]
        if not held:
            return self._none_of([atom for _, less in needs for atom in less], outside)
        alone = self._known(
            [*inside, *(atom for more, _ in needs for atom in more)],
            [*outside, *(atom for _, less in needs for atom in less)],
        )
        if alone is not None:
            return (alone,)
        found = [
            self._value([*inside, *more], [*outside, *less]) for more, less in needs or [([], [])]
        ]
        return tuple(sorted(set(found), key=self.values.index))

    def _none_of(self, *refuted: list[Atom]) -> tuple[Any, ...]:
        """No value, which no atom holds of; but a CN, if there is one, since people have names."""
        if self.name != "cn":
            return ()
        chosen = self._known([], [atom for atoms in refuted for atom in atoms])
        return () if chosen is None else (chosen,)

    def _value(self, inside: Sequence[Atom], outside: Sequence[Atom]) -> Any:
        """One value that all of `inside` and none of `outside` takes."""
        chosen = self._known(inside, outside)
        if chosen is not None:
            return chosen
        if self.name in COMPLETE:
            raise Impossible
        key = (frozenset(inside), frozenset(outside))
        if key in self._empty:
            raise Impossible
        found = self._search(inside, outside)
        if found is None:
            self._empty[key] = None
            raise Impossible
        self._add(found)
        chosen = self._known(inside, outside)
        if chosen is None:
            raise Undecided(f"{self.name}: {found!r} is compared in a way that isn't followed")
        return chosen

    def refuted_by(self, held: Sequence[Atom], asked: Sequence[Atom]) -> list[Atom]:
        """Those of the atoms asked that can't hold beside those that hold.

        That can be said where every value is one of some exact patterns.
        """
        if self.name not in _FEW:
            return []
        bounding = [atom for atom in held if _bounds(atom)]
        if not bounding:
            return []
        mask = -1
        for atom in bounding:
            mask &= self._mask(atom)
        return [atom for atom in asked if _bounds(atom) and not self._mask(atom) & mask]

    # -- values that are known

    def _known(self, inside: Sequence[Atom], outside: Sequence[Atom]) -> Any:
        mask = (1 << len(self.values)) - 1
        for atom in inside:
            mask &= self._mask(atom)
        for atom in outside:
            mask &= ~self._mask(atom)
        return self.values[(mask & -mask).bit_length() - 1] if mask else None

    def _mask(self, atom: Atom) -> int:
        """A bit for each value that the atom takes."""
        known, mask = self._masks.get(atom, (0, 0))
        if known < len(self.values):
            mask |= self._by_exact(atom, known) if _is_exact(atom) else self._tried(atom, known)
            self._masks[atom] = (len(self.values), mask)
        return mask

    def _tried(self, atom: Atom, known: int) -> int:
        return sum(1 << at for at in range(known, len(self.values)) if atom.takes(self.values[at]))

    def _by_exact(self, atom: Atom, known: int) -> int:
        """The same for patterns that are all exact, by the keys that they are compared by."""
        assert atom.test is not None
        exact, refusing = atom.test.exact, atom.test.refusing
        keys = self._index(refusing)
        mask = 0
        if len(exact) <= len(self.values) - known:
            by_key = self._by_key[refusing]
            for each in exact:
                mask |= by_key.get(each, 0)
            return mask
        for at in range(known, len(self.values)):
            if not exact.isdisjoint(keys[at]):
                mask |= 1 << at
        return mask

    def _index(self, refusing: bool) -> list[tuple[Any, ...]]:
        """The keys of each value, and a bit for each value of a key."""
        keys = self._keys.setdefault(refusing, [])
        by_key = self._by_key.setdefault(refusing, {})
        read = KEY_COMPARISONS[self.name].reader(refusing)
        for at in range(len(keys), len(self.values)):
            keys.append(read(self.values[at]).keys)
            for each in keys[at]:
                by_key[each] = by_key.get(each, 0) | 1 << at
        return keys

    # -- values that automata find

    def _search(self, inside: Sequence[Atom], outside: Sequence[Atom]) -> str | None:
        if self.name not in ALPHABETS:
            raise Undecided(f"{self.name}: patterns are tried, and nothing is proven")
        try:
            taken = [self._automaton(atom) for atom in inside]
            refused = [self._automaton(atom) for atom in outside]
            return shortest(taken, refused, alphabet(self.name, [*inside, *outside]))
        except NoAutomaton as error:
            raise Undecided(f"{self.name}: {error}") from None
        except SearchTooLong:
            raise Undecided(f"{self.name}: the patterns are too many or too large") from None

    def _automaton(self, atom: Atom) -> Automaton:
        found = self._automata.get(atom)
        if found is None:
            try:
                if atom.test is None:
                    raise NoAutomaton("whether a host is covered is tried, not proven")
                found = automaton(atom)
            except NoAutomaton as error:
                texts = ", ".join(atom.texts)[:80]
                found = NoAutomaton(f"{texts}: {error}" if texts else str(error))
            self._automata[atom] = found
        if isinstance(found, NoAutomaton):
            raise found
        return found


_FEW = WHOLE | {"serial", "sha256", "spki_sha256"}
"""Fields of which an exact pattern takes one value, in one spelling, where it grants."""


def _bounds(atom: Atom) -> bool:
    """Whether an atom holds only where every value is one that it names."""
    return _is_exact(atom) and (atom.every or atom.field in SINGLE)


def _is_exact(atom: Atom) -> bool:
    return atom.test is not None and not atom.test.others and atom.field not in _WITH_UNKNOWN


_WITH_UNKNOWN = frozenset({"client_ip", "method"})
"""Fields whose value may be unknown, which only `takes` knows of."""


@dataclass(slots=True)
class Fields:
    """The fields of all pairs of locations, so that what is found once is found."""

    now: float
    _known: dict[str, Field] = field(default_factory=dict)

    def of(self, atoms: Iterable[Atom]) -> dict[str, tuple[Field, list[Atom]]]:
        """The fields that atoms are about, each with these atoms; but for DNs."""
        by_name: dict[str, list[Atom]] = {}
        for atom in atoms:
            if atom.field not in ("dn", "issuer_dn"):
                by_name.setdefault(atom.field, []).append(atom)
        found = {}
        for name, asked in by_name.items():
            known = self._known.setdefault(name, Field(name, self.now))
            known.ask(asked)
            found[name] = (known, asked)
        return found


@dataclass(slots=True)
class Possibilities:
    """What assignments of atoms some fields allow; each question is solved once."""

    fields: dict[str, tuple[Field, list[Atom]]]
    _solved: dict[Any, tuple[Any, ...] | Exception] = field(default_factory=dict)

    def possible(self, assigned: dict[Atom, bool]) -> bool:
        """Whether each field may be so; what follows from what holds is added."""
        for name, held, refuted in self._by_field(assigned):
            known, asked = self.fields[name]
            for atom in known.refuted_by(held, asked):
                if assigned.setdefault(atom, False):
                    return False
            try:
                self._solve(name, held, refuted)
            except Impossible:
                return False
            except Undecided:
                continue
        return True

    def values(self, assigned: Mapping[Atom, bool]) -> dict[str, tuple[Any, ...]]:
        """Values of each field that are so.  Raises `Impossible` and `Undecided`."""
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
                found = self.fields[name][0].solve(held, refuted)
            except (Impossible, Undecided) as error:
                found = error
            self._solved[key] = found
        if isinstance(found, Exception):
            raise found
        return found
