"""A memory with a bound, in which a flood of strangers doesn't displace the regulars."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Remembers up to about `size` values; constant time, no bookkeeping on a hit.

    What is new goes into a nursery of half the size, which is emptied when full.  What is asked
    for a second time moves among the regulars; when these are full, those not asked for since
    the last time they were full are forgotten.  So endless new keys only ever empty the nursery.
    """

    __slots__ = ("_fading", "_limit", "_nursery", "_regulars")

    def __init__(self, size: int) -> None:
        self._limit = max(0, size // 4)
        self._nursery: dict[K, V] = {}
        self._regulars: dict[K, V] = {}
        self._fading: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value remembered for a key, or None."""
        value = self._regulars.get(key)
        if value is None:
            value = self._fading.get(key)
            if value is None:
                value = self._nursery.pop(key, None)
            if value is not None:
                self._settle(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Remember a value, replacing what was remembered for the key."""
        if key in self._regulars:
            self._regulars[key] = value
        elif self._limit:
            if len(self._nursery) >= 2 * self._limit:
                self._nursery = {}
            self._nursery[key] = value

    def clear(self) -> None:
        """Forget everything."""
        self._nursery, self._regulars, self._fading = {}, {}, {}

    def __len__(self) -> int:
        return len(self._nursery) + len(self._regulars) + len(self._fading)

    def _settle(self, key: K, value: V) -> None:
        if len(self._regulars) >= self._limit:
            self._fading, self._regulars = self._regulars, {}
        self._regulars[key] = value
