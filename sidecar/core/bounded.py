"""Bound a dictionary that caches parsed values: a hostile peer must not fill the memory."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def put_bounded(cache: dict[K, V], key: K, value: V, limit: int) -> None:
    """Put a value into a cache of at most `limit` entries; a full cache is emptied first."""
    if len(cache) >= limit:
        cache.clear()
    cache[key] = value
