"""Cache values, bounded by weight, so that keys seen once cannot evict keys in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class TwoGenerationCache(Generic[K, V]):
    """Cache values up to about `size` by weight, in constant time, without work on a hit.

    A new key enters the nursery, which has half of the size and is emptied when it is full.  A
    second request for a key moves it to the tenured generation.  When that is full, keys without a
    request since the last time it was full are evicted.  So keys seen once cannot evict keys in
    use.  `weigh` gives the weight of an entry; one that is heavier than the tenured generation is
    not cached.  On the hot path, `tenured` may be read directly.
    """

    __slots__ = (
        "_limit",
        "_nursery",
        "_nursery_weight",
        "_previous",
        "_tenured_weight",
        "_weigh",
        "tenured",
    )

    def __init__(self, size: int, weigh: Callable[[K, V], int]) -> None:
        self._limit = max(0, size // 4)
        self._weigh = weigh
        self._nursery: dict[K, V] = {}
        self.tenured: dict[K, V] = {}
        self._previous: dict[K, V] = {}
        self._nursery_weight = self._tenured_weight = 0

    def get(self, key: K) -> V | None:
        """Return the cached value of a key, or None."""
        value = self.tenured.get(key)
        if value is None:
            value = self._previous.pop(key, None)
            if value is None:
                value = self._nursery.pop(key, None)
            if value is not None:
                self._promote(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Cache a value; replace an older value of the key."""
        weight = self._weigh(key, value)
        old = self.tenured.pop(key, None)
        if old is not None:
            self._tenured_weight -= self._weigh(key, old)
        else:
            self._previous.pop(key, None)
            self._nursery.pop(key, None)  # its weight stays counted until the nursery is emptied
        if weight > self._limit:
            return
        if old is not None:
            self._promote(key, value)
            return
        self._nursery_weight += weight
        if self._nursery_weight > 2 * self._limit:
            self._nursery, self._nursery_weight = {}, weight
        self._nursery[key] = value

    def clear(self) -> None:
        """Empty the cache."""
        self._nursery, self.tenured, self._previous = {}, {}, {}
        self._nursery_weight = self._tenured_weight = 0

    def __len__(self) -> int:
        return len(self._nursery) + len(self.tenured) + len(self._previous)

    def _promote(self, key: K, value: V) -> None:
        weight = self._weigh(key, value)
        self._tenured_weight += weight
        if self._tenured_weight > self._limit:
            self._previous, self.tenured = self.tenured, {}
            self._tenured_weight = weight
        self.tenured[key] = value
