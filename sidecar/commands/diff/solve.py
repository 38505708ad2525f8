"""Search for an assignment of atoms under which a formula holds.

A search in depth over the disjunctions, the smallest first; what follows at once is assigned before
a choice is made, and a choice that no certificate and request can meet is given up at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .atoms import Atom
from .terms import FALSE, TRUE, Term, Terms

Assignment = dict[Atom, bool]
Possible = Callable[[Assignment], bool]
"""Whether a certificate and a request may be as an assignment says; False is proven.

It may add what follows from the assignment.
"""


@dataclass(slots=True)
class Bounds:
    """What a search may cost: it ends, undecided, where either is used up."""

    choices: int = 20_000
    seconds: float = 20.0


class SearchEnded(Exception):
    """The bounds are used up."""


def assignments(
    terms: Terms, goal: Term, possible: Possible, bounds: Bounds
) -> Iterator[Assignment]:
    """Assignments under which the goal holds, each once.  Raises `SearchEnded`."""
    ends = time.monotonic() + bounds.seconds
    stack: list[tuple[Assignment, list[Term]]] = [({}, [goal])]
    choices = 0
    while stack:
        choices += 1
        if choices > bounds.choices or time.monotonic() > ends:
            raise SearchEnded
        assigned, conjuncts = stack.pop()
        rest = _consequences(terms, assigned, conjuncts, possible)
        if rest is None:
            continue
        if not rest:
            yield assigned
            continue
        chosen = min(rest, key=lambda each: len(each.parts))
        others = [each for each in rest if each is not chosen]
        stack += [(dict(assigned), [part, *others]) for part in reversed(chosen.parts)]


def _consequences(
    terms: Terms, assigned: Assignment, conjuncts: list[Term], possible: Possible
) -> list[Term] | None:
    """Assign all that follows; the disjunctions that are left, or None for a contradiction."""
    while True:
        rest = _propagate(terms, assigned, conjuncts)
        before = len(assigned)
        if rest is None or not possible(assigned):
            return None
        if len(assigned) == before:
            return rest
        conjuncts = rest


def _propagate(terms: Terms, assigned: Assignment, conjuncts: list[Term]) -> list[Term] | None:
    """Assign what must hold; the disjunctions that are left, or None for a contradiction."""
    while True:
        before = len(assigned)
        whole = terms.all(_simplified(terms, each, assigned, {}) for each in conjuncts)
        if whole is FALSE:
            return None
        parts = whole.parts if whole.kind == "all" else (whole,)
        conjuncts = []
        for part in parts:
            if part.atom is None:
                conjuncts.append(part)
            elif assigned.setdefault(part.atom, part.kind == "is") != (part.kind == "is"):
                return None
        known = set(conjuncts)
        shorter = [_without_refuted(terms, each, known) for each in conjuncts]
        if len(assigned) == before and shorter == conjuncts:
            return conjuncts
        conjuncts = shorter


def _without_refuted(terms: Terms, disjunction: Term, known: set[Term]) -> Term:
    """A disjunction without those parts whose negation is known to hold."""
    kept = [part for part in disjunction.parts if terms.negate(part) not in known]
    return disjunction if len(kept) == len(disjunction.parts) else terms.any(kept)


def _simplified(
    terms: Terms, term: Term, assigned: Mapping[Atom, bool], seen: dict[Term, Term]
) -> Term:
    """A formula in which assigned atoms are replaced by what they are."""
    if term.atom is not None:
        value = assigned.get(term.atom)
        if value is None:
            return term
        return TRUE if value == (term.kind == "is") else FALSE
    found = seen.get(term)
    if found is None:
        join = terms.all if term.kind == "all" else terms.any
        parts = [_simplified(terms, part, assigned, seen) for part in term.parts]
        same = all(new is old for new, old in zip(parts, term.parts, strict=True))
        found = seen[term] = term if same else join(parts)
    return found
