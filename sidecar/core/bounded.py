"""A memory with a bound for what few keys stand for: reading them anew would take longer."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def remember(memo: dict[K, V], key: K, value: V, most: int) -> None:
    """Keep it, of at most so many; a hostile peer can't fill the memory with keys."""
    if len(memo) >= most:
        memo.clear()
    memo[key] = value
