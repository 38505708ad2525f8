"""A parsed regular expression over bytes, in which every construct has one meaning.

Captures, greed and names are gone: only "does it match" is asked.  `Repetition.greedy` is kept for
`Atomic`, where it decides what a group gives back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Bytes:
    """One byte out of a set."""

    members: frozenset[int]


@dataclass(frozen=True, slots=True)
class Position:
    """No byte: the start or the end of the subject, a word boundary or none."""

    kind: Literal["start", "end", "boundary", "no_boundary"]


@dataclass(frozen=True, slots=True)
class Concatenation:
    """One part after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """One of the branches."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """`least` to `most` times; `most` None: without end."""

    body: Node
    least: int
    most: int | None
    greedy: bool = True


@dataclass(frozen=True, slots=True)
class Atomic:
    """PCRE's `(?>…)`: the first way to match the body is the only one."""

    body: Node


Node = Bytes | Position | Concatenation | Alternation | Repetition | Atomic

EMPTY = Concatenation(())
