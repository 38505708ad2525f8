"""Caches of parsed values have an end."""

from __future__ import annotations

from sidecar.core.bounded import put_bounded


def test_a_full_cache_is_emptied_first() -> None:
    """A cache never exceeds its limit."""
    cache: dict[int, int] = {}
    for number in range(10):
        put_bounded(cache, number, number, 4)
        assert len(cache) <= 4
        assert cache[number] == number
