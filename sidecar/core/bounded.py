"""A memory with a bound for what few keys stand for: reading them anew would take longer."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def put_bounded(cache: dict[K, V], key: K, value: V, limit: int) -> None:
    """Keep it, of at most so many; a hostile peer can't fill the memory with keys."""
    if len(cache) >= limit:
        cache.clear()
    cache[key] = value
