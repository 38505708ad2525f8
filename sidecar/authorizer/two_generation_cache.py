"""A cache bounded by weight, in which keys seen once cannot evict those in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Remembers values up to about `size` by weight; constant time, no bookkeeping on a hit.

    A new key goes into a nursery of half the size, which is emptied when full.  A key asked for a
    second time moves among the regulars; when these are full, those not asked for since the last
    time they were full are forgotten.  So endless new keys only ever empty the nursery.  `weigh`
    gives the weight of a key with its value; what alone weighs more than the regulars may, isn't
    remembered.  Where each call counts, `regulars` may be looked into first.
    """

    __slots__ = ("_fading", "_limit", "_nursery", "_settled", "_waiting", "_weigh", "regulars")

    def __init__(self, size: int, weigh: Callable[[K, V], int]) -> None:
        self._limit = max(0, size // 4)
        self._weigh = weigh
        self._nursery: dict[K, V] = {}
        self.regulars: dict[K, V] = {}
        self._fading: dict[K, V] = {}
        self._waiting = self._settled = 0

    def get(self, key: K) -> V | None:
        """The value remembered for a key, or None."""
        value = self.regulars.get(key)
        if value is None:
            value = self._fading.pop(key, None)
            if value is None:
                value = self._nursery.pop(key, None)
            if value is not None:
                self._settle(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Remember a value, replacing what was remembered for the key."""
        weight = self._weigh(key, value)
        old = self.regulars.pop(key, None)
        if old is not None:
            self._settled -= self._weigh(key, old)
        else:
            self._fading.pop(key, None)
            self._nursery.pop(key, None)  # its weight stays counted until the nursery is emptied
        if weight > self._limit:
            return
        if old is not None:
            self._settle(key, value)
            return
        self._waiting += weight
        if self._waiting > 2 * self._limit:
            self._nursery, self._waiting = {}, weight
        self._nursery[key] = value

    def clear(self) -> None:
        """Forget everything."""
        self._nursery, self.regulars, self._fading = {}, {}, {}
        self._waiting = self._settled = 0

    def __len__(self) -> int:
        return len(self._nursery) + len(self.regulars) + len(self._fading)

    def _settle(self, key: K, value: V) -> None:
        weight = self._weigh(key, value)
        self._settled += weight
        if self._settled > self._limit:
            self._fading, self.regulars = self.regulars, {}
            self._settled = weight
        self.regulars[key] = value
