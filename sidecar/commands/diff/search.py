"""Find the shortest text that some automata accept and others refuse, or prove there is none."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

MAX_STEPS = 500_000
"""Most steps of automata in one search."""

MAX_STATES = 10_000
"""Most states that are reached in one search."""


class SearchTooLong(Exception):
    """The search was given up."""


class Automaton(Protocol):
    """A deterministic automaton whose states come into being as they are reached."""

    @property
    def start(self) -> Any:
        """The state before the first character."""

    def step(self, state: Any, character: str) -> Any:
        """The state behind a character."""

    def accepts(self, state: Any) -> bool:
        """Whether what was read up to here is in the language."""

    def is_dead(self, state: Any) -> bool:
        """Whether nothing that begins like this is in the language."""

    def tells(self, character: str) -> Hashable:
        """A character as this automaton sees it: equal ones lead everywhere to the same state."""


@dataclass(frozen=True, slots=True)
class Words:
    """The automaton of a finite set of texts."""

    words: frozenset[str]
    heads: frozenset[str]
    letters: frozenset[str]

    @classmethod
    def of(cls, words: Iterable[str]) -> Words:
        """The automaton of these."""
        found = frozenset(words)
        heads = frozenset(word[:at] for word in found for at in range(len(word) + 1))
        return cls(found, heads, frozenset(letter for word in found for letter in word))

    @property
    def start(self) -> str | None:
        return ""

    def step(self, state: str | None, character: str) -> str | None:
        if state is None or state + character not in self.heads:
            return None
        return state + character

    def accepts(self, state: str | None) -> bool:
        return state in self.words

    def is_dead(self, state: str | None) -> bool:
        return state is None

    def tells(self, character: str) -> Hashable:
        return character if character in self.letters else ""


@dataclass(frozen=True, slots=True)
class Union:
    """The automaton of what any of several accepts."""

    parts: tuple[Automaton, ...]

    @property
    def start(self) -> tuple[Any, ...]:
        return tuple(part.start for part in self.parts)

    def step(self, state: tuple[Any, ...], character: str) -> tuple[Any, ...]:
        return tuple(part.step(s, character) for part, s in zip(self.parts, state, strict=True))

    def accepts(self, state: tuple[Any, ...]) -> bool:
        return any(part.accepts(s) for part, s in zip(self.parts, state, strict=True))

    def is_dead(self, state: tuple[Any, ...]) -> bool:
        return all(part.is_dead(s) for part, s in zip(self.parts, state, strict=True))

    def tells(self, character: str) -> Hashable:
        return tuple(part.tells(character) for part in self.parts)


@dataclass(frozen=True, slots=True)
class WithoutDot:
    """The automaton of texts that another accepts once a dot at their end is removed.

    A state is the other's, and the one before the last character where that was a dot.
    """

    inner: Automaton

    @property
    def start(self) -> tuple[Any, Any]:
        return self.inner.start, None

    def step(self, state: tuple[Any, Any], character: str) -> tuple[Any, Any]:
        behind = self.inner.step(state[0], character)
        return behind, (state[0],) if character == "." else None

    def accepts(self, state: tuple[Any, Any]) -> bool:
        now, before = state
        return self.inner.accepts(now if before is None else before[0])

    def is_dead(self, state: tuple[Any, Any]) -> bool:
        now, before = state
        return self.inner.is_dead(now) and (before is None or self.inner.is_dead(before[0]))

    def tells(self, character: str) -> Hashable:
        return character == ".", self.inner.tells(character)


def shortest(
    inside: Sequence[Automaton], outside: Sequence[Automaton], alphabet: str
) -> str | None:
    """The shortest text over the alphabet, not empty, that all of `inside` and none of `outside`
    accept.  None: there is none.  Raises `SearchTooLong`.
    """
    few = next((each for each in inside if isinstance(each, Words)), None)
    if few is not None:
        words = sorted(few.words, key=lambda word: (len(word), word))
        return next((w for w in words if w and _is_taken(inside, outside, w)), None)
    automata = [*inside, *outside]
    characters = _representatives(automata, alphabet)
    start = tuple(each.start for each in automata)
    seen: set[tuple[Any, ...]] = set()
    level: list[tuple[tuple[Any, ...], str]] = [(start, "")]
    steps = 0
    while level:
        behind: list[tuple[tuple[Any, ...], str]] = []
        for state, text in level:
            steps += len(characters) * len(automata)
            if steps > MAX_STEPS or len(seen) > MAX_STATES:
                raise SearchTooLong
            for character in characters:
                found = tuple(
                    each.step(s, character) for each, s in zip(automata, state, strict=True)
                )
                if found in seen:
                    continue
                if any(map(_is_dead, inside, found)):
                    continue
                seen.add(found)
                if _is_wanted(inside, outside, found):
                    return text + character
                behind.append((found, text + character))
        level = behind
    return None


def accepts(automaton: Automaton, text: str) -> bool:
    """Whether a text is in the language."""
    if isinstance(automaton, Words):
        return text in automaton.words
    state = automaton.start
    for character in text:
        state = automaton.step(state, character)
    return automaton.accepts(state)


def _is_taken(inside: Sequence[Automaton], outside: Sequence[Automaton], text: str) -> bool:
    return all(accepts(each, text) for each in inside) and not any(
        accepts(each, text) for each in outside
    )


def _is_dead(automaton: Automaton, state: Any) -> bool:
    return automaton.is_dead(state)


def _is_wanted(
    inside: Sequence[Automaton], outside: Sequence[Automaton], state: tuple[Any, ...]
) -> bool:
    accepted = [each.accepts(s) for each, s in zip((*inside, *outside), state, strict=True)]
    return all(accepted[: len(inside)]) and not any(accepted[len(inside) :])


def _representatives(automata: Sequence[Automaton], alphabet: str) -> str:
    """One character of each kind that the automata tell apart, the first in the alphabet."""
    kinds: dict[Hashable, str] = {}
    for character in alphabet:
        kinds.setdefault(tuple(each.tells(character) for each in automata), character)
    return "".join(kinds.values())
