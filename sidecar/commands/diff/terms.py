"""Boolean formulas over questions about a certificate and a request.

Formulas are in negation normal form, and equal ones are the same object, so that what two policies
have in common is seen at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from .atoms import Atom


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """A formula: one atom that holds or doesn't, or all or any of other formulas."""

    kind: Literal["is", "not", "all", "any"]
    atom: Atom | None = None
    parts: tuple[Term, ...] = ()


TRUE = Term("all")
FALSE = Term("any")


@dataclass(slots=True)
class Terms:
    """Makes formulas; equal ones once."""

    _known: dict[Hashable, Term] = field(default_factory=dict)
    _negated: dict[Term, Term] = field(default_factory=dict)

    def atom(self, atom: Atom, *, holds: bool = True) -> Term:
        """The formula that an atom holds, or that it doesn't."""
        kind: Literal["is", "not"] = "is" if holds else "not"
        return self._known.setdefault((kind, atom), Term(kind, atom))

    def all(self, parts: Iterable[Term]) -> Term:
        """All of them."""
        return self._joined("all", TRUE, FALSE, parts)

    def any(self, parts: Iterable[Term]) -> Term:
        """Any of them."""
        return self._joined("any", FALSE, TRUE, parts)

    def _joined(
        self, kind: Literal["all", "any"], empty: Term, whole: Term, parts: Iterable[Term]
    ) -> Term:
        found: dict[Term, None] = {}
        for part in parts:
            for each in part.parts if part.kind == kind else (part,):
                if each is whole:
                    return whole
                found[each] = None
        if len(found) < 2:
            return next(iter(found), empty)
        key = (kind, *found)
        return self._known.setdefault(key, Term(kind, None, tuple(found)))

    def negate(self, term: Term) -> Term:
        """The formula that holds where the other doesn't."""
        found = self._negated.get(term)
        if found is None:
            if term.atom is not None:
                found = self.atom(term.atom, holds=term.kind == "not")
            else:
                join = self.any if term.kind == "all" else self.all
                found = join([self.negate(part) for part in term.parts])
            self._negated[term] = found
            self._negated[found] = term
        return found


def atoms_of(*terms: Term) -> list[Atom]:
    """The atoms of formulas, each once, in their order."""
    found: dict[Atom, None] = {}
    seen: set[Term] = set()
    todo = list(reversed(terms))
    while todo:
        term = todo.pop()
        if term.atom is not None:
            found[term.atom] = None
        elif term not in seen:
            seen.add(term)
            todo += reversed(term.parts)
    return list(found)
