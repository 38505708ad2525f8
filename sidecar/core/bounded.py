"""Limit the size of a dictionary that caches parsed values, so that no peer can fill the memory."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def put_bounded(cache: dict[K, V], key: K, value: V, limit: int) -> None:
    """Put a value into a cache of at most `limit` entries; empty a full cache first."""
    if len(cache) >= limit:
        cache.clear()
    cache[key] = value
