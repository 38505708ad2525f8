"""So many requests a minute of each client, and no client is another's."""

from __future__ import annotations

from issuing import Clock

from sidecar.enroll.rate_limit import MOST, RateLimit, client_key


def test_a_client_may_ask_so_often_and_again_later() -> None:
    """The bucket empties, `wait` says when there is room, and then there is."""
    clock = Clock(0.0)
    limit = RateLimit(6, clock)
    assert [limit.take("a") for _ in range(7)] == [True] * 6 + [False]
    assert not limit.allows("a")
    assert limit.take("b")
    clock.now += limit.wait("a")
    assert limit.take("a")


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """Nor does it take anything."""
    clock = Clock(1000.0)
    limit = RateLimit(1, clock)
    assert limit.take("a")
    clock.now = 0.0
    assert not limit.take("a")


def test_many_clients_take_no_more_memory_than_a_bound() -> None:
    """The one that was quiet for longest is forgotten."""
    limit = RateLimit(1, Clock(0.0))
    for number in range(MOST + 10):
        limit.take(str(number))
    assert len(limit._buckets) == MOST
    assert limit.allows("0")
    assert not limit.allows(str(MOST))


def test_an_ipv6_client_counts_by_its_network() -> None:
    """A person has a /64 of addresses; IPv4 in IPv6 is IPv4, and what is no address is one."""
    assert client_key("2001:db8::1") == client_key("2001:db8::ffff:1") != client_key("2001:db8:1::")
    assert client_key("::ffff:192.0.2.1") == client_key("192.0.2.1") != client_key("192.0.2.2")
    assert client_key("") == client_key("nonsense") == "unknown"
