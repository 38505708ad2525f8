"""Bound a cache by weight, so that keys seen once evict no key in use."""

from __future__ import annotations

from sidecar.authorizer.two_generation_cache import TwoGenerationCache


def test_a_value_that_grew_heavy_is_weighed_anew() -> None:
    """A replaced value counts with its new weight."""
    cache: TwoGenerationCache[int, bytes] = TwoGenerationCache(400, lambda _, value: len(value))
    for i in range(1000):
        cache.put(i, b"x")
        assert cache.get(i) == b"x"
        cache.put(i, b"x" * 50)
        assert cache.get(i) == b"x" * 50
    assert len(cache) <= 8
    cache.put(999, b"x" * 101)
    assert cache.get(999) is None


def test_the_memory_is_bounded_by_weight() -> None:
    """Neither few heavy nor many light keys exceed the size; a key that is too heavy is not
    cached."""
    cache: TwoGenerationCache[bytes, int] = TwoGenerationCache(400, lambda key, _: len(key))
    for i in range(1000):
        cache.put(b"%050d" % i, i)
        cache.get(b"%050d" % i)
    assert len(cache) <= 8
    cache.clear()
    cache.put(b"x" * 101, 1)
    assert len(cache) == 0
    client_keys = [b"%04d" % i for i in range(10)]
    for key in client_keys:
        cache.put(key, 1)
        assert cache.get(key) == 1
    for i in range(10_000):
        cache.put(b"stranger %d" % i, i)
    assert all(cache.get(key) == 1 for key in client_keys)
