"""The cache of two generations: bounded by weight; keys seen once evict none that are used."""

from __future__ import annotations

from sidecar.authorizer.two_generation_cache import TwoGenerationCache


def test_a_value_that_grew_heavy_is_weighed_anew() -> None:
    """Values count, and a replaced one by its new weight."""
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
    """Few heavy keys or many light ones: never more than the size; too heavy ones not at all."""
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
