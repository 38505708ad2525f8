"""Until when the fleet's last head speaks for what is in force, and what follows then."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Freshness:
    """`until` in seconds since the epoch; `denies`: what a location does that doesn't say."""

    until: float = math.inf
    denies: bool = False


ALWAYS = Freshness()
"""Without a fleet nothing gets stale."""
