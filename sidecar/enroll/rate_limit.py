"""Count requests by client, so that nobody can guess or keep the service busy.

A bucket of tokens for each client: `rate` a minute, and as many at once.  IPv6 clients count by
their /64 network, which one person has.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

MOST = 10_000
"""Most clients remembered; the one that was quiet for longest is forgotten."""


class RateLimit:
    """Allows `rate` requests a minute of each client."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, client: str) -> bool:
        """Whether a client has not used up its share; this takes nothing."""
        return self._level(client) >= 1

    def take(self, client: str) -> bool:
        """Count one request; whether it is within the rate."""
        level = self._level(client)
        allowed = level >= 1
        self._buckets[client] = (level - 1 if allowed else level, self._clock())
        self._buckets.move_to_end(client)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        return allowed

    def give_back(self, client: str) -> None:
        """Count one request less that `take` has counted."""
        self._buckets[client] = (self._level(client) + 1, self._clock())

    def wait(self, client: str) -> int:
        """Return the seconds until a client may ask again, at least 1."""
        missing = 1 - self._level(client)
        return max(1, round(missing * 60 / self._rate + 0.5))

    def _level(self, client: str) -> float:
        level, at = self._buckets.get(client, (float(self._rate), self._clock()))
        passed = max(0.0, self._clock() - at)
        return min(float(self._rate), level + passed * self._rate / 60)


def client_key(address: str) -> str:
    """Return under which name a client address counts."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
