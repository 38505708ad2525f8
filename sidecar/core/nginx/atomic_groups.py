"""Find atomic groups and possessive quantifiers that can be left out without a change of meaning.

PCRE never backtracks into an atomic group, and RE2 has no atomic groups.  A group means the same
without `?>`

- if its body can match one length only from any given place (`deterministic`), or
- if such a body ends in one greedy repeat of single bytes, and the part after the group neither
  begins with one of these bytes nor depends on the byte before it: after a shorter repeat, the next
  byte would match nothing.

Every other group is refused.

"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from .pcre_classes import ALL
from .regex_tree import Alternation, Atomic, Bytes, Concatenation, Node, Position, Repetition
from .selector_error import SelectorError


@dataclass(frozen=True, slots=True)
class _Start:
    """How a match can begin: its first bytes, whether it can be empty (`empty`), and whether it
    depends on the byte before it (`looks`)."""

    first: frozenset[int]
    empty: bool
    looks: bool

    def then(self, after: _Start) -> _Start:
        """Return how this start followed by `after` begins."""
        if not self.empty:
            return self
        return _Start(self.first | after.first, after.empty, self.looks or after.looks)

    def or_else(self, other: _Start) -> _Start:
        return _Start(
            self.first | other.first, self.empty or other.empty, self.looks or other.looks
        )


_NOTHING = _Start(frozenset(), empty=True, looks=False)
_ANYTHING = _Start(ALL, empty=True, looks=True)


def refuse_unproven(tree: Node) -> None:
    """Raise `SelectorError` for an atomic group that may change what matches."""
    _walk(tree, _NOTHING)


def _walk(node: Node, after: _Start) -> None:
    """Check the atomic groups within `node`; `after` is what follows it."""
    match node:
        case Concatenation(parts):
            for part in reversed(parts):
                _walk(part, after)
                after = _start(part).then(after)
        case Alternation(branches):
            for branch in branches:
                _walk(branch, after)
        case Repetition(body, _, most):
            _walk(body, after if most == 1 else _start(body).then(after).or_else(after))
        case Atomic(body):
            if not _changes_nothing(body, after):
                raise SelectorError(
                    "an atomic group or possessive quantifier that may change what matches",
                    "leave out the ?> or the second + where the rest matches the same",
                )
            _walk(body, _ANYTHING)


def _changes_nothing(body: Node, after: _Start) -> bool:
    if _deterministic(body):
        return True
    *before, last = body.parts if isinstance(body, Concatenation) and body.parts else (body,)
    return (
        isinstance(last, Repetition)
        and last.greedy
        and isinstance(last.body, Bytes)
        and all(map(_deterministic, before))
        and not after.looks
        and not last.body.members & after.first
    )


def _deterministic(node: Node) -> bool:
    """Return whether all matches from one starting place end at the same place."""
    if _length(node) is not None:
        return True
    match node:
        case Concatenation(parts):
            return all(map(_deterministic, parts))
        case Alternation(branches):
            starts = list(map(_start, branches))
            apart = sum(len(s.first) for s in starts) == len(frozenset().union(*_firsts(starts)))
            return apart and not any(s.empty for s in starts) and all(map(_deterministic, branches))
        case Repetition(body, least, most):
            return least == most and _deterministic(body)
        case Atomic(body):
            return _deterministic(body)
        case _:
            return True


def _firsts(starts: list[_Start]) -> list[frozenset[int]]:
    return [start.first for start in starts]


def _length(node: Node) -> int | None:
    """Return the length in bytes that every match has, or None if lengths differ."""
    match node:
        case Bytes():
            return 1
        case Position():
            return 0
        case Concatenation(parts):
            lengths = [_length(part) for part in parts]
            return None if None in lengths else sum(each or 0 for each in lengths)
        case Alternation(branches):
            different = {_length(branch) for branch in branches}
            return different.pop() if len(different) == 1 else None
        case Repetition(body, least, most):
            length = _length(body)
            return length * least if length is not None and least == most else None
        case Atomic(body):
            return _length(body)


def _start(node: Node) -> _Start:
    match node:
        case Bytes(members):
            return _Start(members, empty=False, looks=False)
        case Position(kind):
            return _Start(frozenset(), empty=True, looks=kind != "end")
        case Concatenation(parts):
            return reduce(_Start.then, map(_start, parts), _NOTHING)
        case Alternation(branches):
            return reduce(_Start.or_else, map(_start, branches))
        case Repetition(body, least, _):
            once = _start(body)
            return once if least else once.or_else(_NOTHING)
        case Atomic(body):
            return _start(body)
