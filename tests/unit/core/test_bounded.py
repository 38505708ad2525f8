"""Caches of parsed values have an end."""

from __future__ import annotations

from sidecar.core.bounded import put_bounded


def test_a_full_cache_is_emptied_first() -> None:
    """It never has more than its limit, whatever a peer sends."""
    cache: dict[int, int] = {}
    for number in range(10):
        put_bounded(cache, number, number, 4)
        assert len(cache) <= 4
        assert cache[number] == number
