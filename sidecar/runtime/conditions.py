"""Log conditions, such as a full disk, when they begin and when they are over.

Otherwise a condition would be logged a thousand times, or never.  Its owner reports about every
second whether it still holds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger("mtls-sidecar")

QUIET = 5.0
"""Seconds without a condition after which it is over, so that an intermittent one counts once."""


@dataclass(slots=True)
class _Standing:
    why: str
    since: float
    seen: float
    count: int


class Conditions:
    """The current conditions.  `clock` must be monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._standing: dict[str, _Standing] = {}

    def report(self, name: str, why: str, count: int = 0) -> None:
        """Report that a condition holds and why, or with an empty `why` that it doesn't.

        `count` is the total number of its effects, such as lost lines; the increase is logged when
        the condition is over.
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

    def is_standing(self, name: str) -> bool:
        """Return whether a condition still holds, or isn't over for certain."""
        return name in self._standing

    @property
    def standing(self) -> tuple[str, ...]:
        """Return the current conditions, one line each."""
        return tuple(f"{name}: {each.why}" for name, each in list(self._standing.items()))
