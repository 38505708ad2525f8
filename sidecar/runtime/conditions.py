"""Conditions that begin and end: each is logged when it begins and when it is over.

A full disk or a limit that is reached would otherwise be logged a thousand times, or never.
Whoever looks after one reports every second or so whether it holds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger("mtls-sidecar")

QUIET = 5.0
"""Seconds for which a condition must not hold before it is over: one that comes and goes is one."""


@dataclass(slots=True)
class _Standing:
    why: str
    since: float
    seen: float
    count: int


class Conditions:
    """The conditions that hold.  `clock` never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._standing: dict[str, _Standing] = {}

    def report(self, name: str, why: str, count: int = 0) -> None:
        """Say that a condition holds and why, or with an empty `why` that it doesn't.

        `count` is of what it has cost, ever; how much it was is logged when it is over.
        """
        now = self._clock()
        standing = self._standing.get(name)
        if why and standing is None:
            self._standing[name] = _Standing(why, now, now, count)
            log.error("%s: %s", name, why)
        elif standing is None:
            return
        elif why:
            standing.seen = now
            if why != standing.why:
                standing.why = why
                log.error("%s: %s", name, why)
        elif now - standing.seen >= QUIET:
            del self._standing[name]
            cost = f", {count - standing.count} in all" if count > standing.count else ""
            seconds = max(1, round(standing.seen - standing.since))
            log.warning("%s: over after %d s%s; it was: %s", name, seconds, cost, standing.why)

    @property
    def standing(self) -> tuple[str, ...]:
        """The conditions that hold, a line each."""
        return tuple(f"{name}: {each.why}" for name, each in self._standing.items())
