"""Define the syntax tree of a regular expression over bytes.

The tree answers only whether an expression matches, so it has no captures and no names.
`Repetition.greedy` is kept for `Atomic`, where it decides which match the group keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Bytes:
    """Match one byte of a set."""

    members: frozenset[int]


@dataclass(frozen=True, slots=True)
class Position:
    """Match no byte, but a place: start or end of the subject, a word boundary or none."""

    kind: Literal["start", "end", "boundary", "no_boundary"]


@dataclass(frozen=True, slots=True)
class Concatenation:
    """Match several parts, one after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """Match one of several branches."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """Match the body `least` to `most` times; `most` None means without limit."""

    body: Node
    least: int
    most: int | None
    greedy: bool = True


@dataclass(frozen=True, slots=True)
class Atomic:
    """Match PCRE's `(?>…)`: only the first way to match the body is tried."""

    body: Node


Node = Bytes | Position | Concatenation | Alternation | Repetition | Atomic

EMPTY = Concatenation(())
