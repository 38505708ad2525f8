"""Tell what a regular expression of nginx's can match, by its tree."""

from __future__ import annotations

from functools import cache

from sidecar.core.nginx.pcre_parser import parse
from sidecar.core.nginx.regex_tree import (
    Alternation,
    Atomic,
    Bytes,
    Concatenation,
    Node,
    Position,
    Repetition,
)
from sidecar.core.nginx.selector_error import SelectorError

MAX_STEPS = 20_000
"""Parts of an expression that are looked at; beyond them it can't be told."""


@cache
def can_begin(pattern: str, path: str, *, ignore_case: bool) -> bool | None:
    """Whether an expression can match some URI that begins with a path; None: it can't be told.

    Word boundaries and atomic groups count as if they always let through.
    """
    try:
        tree = parse(pattern, ignore_case=ignore_case)
        walk = _Walk(path.encode())
        return bool(walk.through(tree, frozenset(range(len(walk.text) + 1))))
    except (SelectorError, RecursionError, _TooLong):
        return None


@cache
def can_take(pattern: str, octet: str) -> bool | None:
    """Whether a match of an expression can hold an octet, no letter; None: it can't be told."""
    try:
        left: list[Node] = [parse(pattern, ignore_case=False)]
    except (SelectorError, RecursionError):
        return None
    while left:
        match left.pop():
            case Bytes(members):
                if ord(octet) in members:
                    return True
            case Concatenation(parts):
                left += parts
            case Alternation(branches):
                left += branches
            case Atomic(body) | Repetition(body, _, _):
                left.append(body)
            case Position(_):
                pass
    return False


@cache
def may_give_up(pattern: str) -> bool:
    """Whether PCRE may give up on a long text: it keeps a place for each turn of a group.

    The JIT compiler's stack has 32 KiB, and PCRE1 recurses.  A class of octets needs no place, a
    possessive repeat one.  What can't be read counts as if it didn't.
    """
    try:
        return _keeps_places(parse(pattern, ignore_case=False))
    except (SelectorError, RecursionError):
        return False


def _keeps_places(node: Node) -> bool:
    match node:
        case Atomic(Repetition(body, _, _)):
            return _keeps_places(body)
        case Repetition(body, _, most):
            return not isinstance(body, Bytes) and (most is None or _keeps_places(body))
        case Atomic(body):
            return _keeps_places(body)
        case Concatenation(parts) | Alternation(parts):
            return any(map(_keeps_places, parts))
        case _:
            return False


class _TooLong(Exception):
    """The expression has more parts than are looked at."""


class _Walk:
    """Goes through an expression over a text whose end is open: there any byte may follow."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._left = MAX_STEPS

    def through(self, node: Node, at: frozenset[int]) -> frozenset[int]:
        """The places behind this part, from any of those before it."""
        self._left -= 1
        if self._left < 0:
            raise _TooLong
        if not at:
            return at
        match node:
            case Bytes(members):
                return self._byte(members, at)
            case Position(kind):
                return self._position(kind, at)
            case Concatenation(parts):
                for part in parts:
                    at = self.through(part, at)
                return at
            case Alternation(branches):
                return frozenset().union(*(self.through(each, at) for each in branches))
            case Atomic(body):
                return self.through(body, at)
            case Repetition(body, least, most):
                return self._repeated(body, least, most, at)

    def _byte(self, members: frozenset[int], at: frozenset[int]) -> frozenset[int]:
        end = len(self.text)
        behind = {i + 1 for i in at if i < end and self.text[i] in members}
        return frozenset(behind | ({end} if end in at and members else set()))

    def _position(self, kind: str, at: frozenset[int]) -> frozenset[int]:
        if kind == "start":
            return at & {0}
        return at & {len(self.text)} if kind == "end" else at

    def _repeated(
        self, body: Node, least: int, most: int | None, at: frozenset[int]
    ) -> frozenset[int]:
        for _ in range(least):
            at = self.through(body, at)
        found, fresh, times = at, at, least
        while fresh and (most is None or times < most):
            fresh = self.through(body, fresh) - found
            found |= fresh
            times += 1
        return found
