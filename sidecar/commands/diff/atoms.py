"""The questions that a decision consists of: each is about one field of certificate or request."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.core.policy.patterns import KEY_COMPARISONS, Pattern
from sidecar.core.policy.rules import REQUEST_KEYS, WHOLE, KeyTest, key_test

ABSENT = ""
"""The value of a request's field that is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Atom:
    """One question about the values of a field.

    It holds where one of the values is taken, or with `every` where there are values and all of
    them are.  `test` and `texts` are there where it is a key of a rule.
    """

    field: str
    takes: Callable[[Any], bool]
    every: bool = False
    test: KeyTest | None = None
    texts: tuple[str, ...] = ()
    moments: tuple[float, ...] = ()
    words: frozenset[str] = frozenset()


@dataclass(slots=True)
class Atoms:
    """Makes atoms; equal ones once."""

    _known: dict[Hashable, Atom] = field(default_factory=dict)

    def key(self, key: str, patterns: Sequence[Pattern], *, refusing: bool) -> Atom:
        """Whether the values under a key of a rule match any of the patterns."""
        texts = tuple(sorted({pattern.text for pattern in patterns}))
        name = (key, texts, refusing)
        if name not in self._known:
            test = key_test(key, patterns, refusing)
            every = key in WHOLE and not refusing
            self._known[name] = Atom(key, _taker(test), every, test, texts)
        return self._known[name]

    def window(self, first: float, last: float) -> Atom:
        """Whether the moment is `first` or later, and before `last`."""
        moments = tuple(each for each in (first, last) if abs(each) != float("inf"))
        return self._known.setdefault(
            ("now", first, last),
            Atom("now", lambda now: first <= now < last, moments=moments),
        )

    def among(self, name: str, words: frozenset[str]) -> Atom:
        """Whether a field's only value is one of some words."""
        return self._known.setdefault((name, words), Atom(name, words.__contains__, words=words))

    def flag(self, name: str) -> Atom:
        """Whether something is so."""
        return self._known.setdefault((name,), Atom(name, bool))

    def predicate(self, name: str, value: str, takes: Callable[[Any], bool]) -> Atom:
        """Whether one of a field's values is taken, as this value is, if there is one."""
        texts = (value,) if value else ()
        return self._known.setdefault(("predicate", name, value), Atom(name, takes, texts=texts))


def _taker(test: KeyTest) -> Callable[[Any], bool]:
    read = KEY_COMPARISONS[test.key].reader(test.refusing)
    unknown = test.key in REQUEST_KEYS

    def takes(value: Any) -> bool:
        if unknown and value == ABSENT:
            return test.refusing
        return test.takes(read(value))

    return takes
