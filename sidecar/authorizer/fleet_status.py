"""What the daemon shows of the fleet: metrics, one line of its state, and a file for the agent.

The agent reports the file's content; it says what is in force, which the agent can't know.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar import __version__

from .fleet_follower import FleetFollower

BUCKETS = (0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)
"""Upper bounds of the propagation histogram, in seconds."""


TELL_SECONDS = 5.0
"""Seconds after which the agent is told though only times or counts changed."""


@dataclass(slots=True)
class FleetStatus:
    """The follower, and how long what it took had been under way."""

    follower: FleetFollower
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0
    _in_force: int = -1

    def note(self, now: float) -> bool:
        """Note what is in force by now; whether that is something new.

        What was in force already when the daemon started took no time.
        """
        sequence = self.follower.sequence
        if sequence == self._in_force:
            return False
        is_first, self._in_force = self._in_force < 0, sequence
        if not is_first:
            took = max(0.0, now - self.follower.chain.issued)
            place = sum(took > bound for bound in BUCKETS)
            self.buckets[place] += 1
            self.seconds += took
        return True

    @property
    def refused(self) -> Mapping[str, int]:
        """How many entries were refused, by why."""
        return self.follower.refused

    def warning(self) -> str:
        """What is wrong with the fleet's state here, for `/readyz` and the log; or nothing."""
        follower = self.follower
        age = follower.head_age
        told = [follower.problem] if follower.problem else []
        if age is None:
            told.append("no head has arrived")
        elif age > follower.fleet.stale_after:
            told.append(f"the last head is {age:.0f} s old: newer entries may be missing")
        return "; ".join(told)

    def as_json(self, policy: str, decisions: Mapping[tuple[str, str, str], int]) -> bytes:
        """What the agent reports.  `decisions` are counted by location, decision and reason."""
        follower = self.follower
        reasons: Counter[str] = Counter()
        for (_, verdict, reason), count in list(decisions.items()):
            reasons[reason if verdict == "deny" else "allowed"] += count
        age = follower.head_age
        return json.dumps(
            {
                "node": follower.node,
                "epoch": follower.chain.epoch,
                "sequence": follower.sequence,
                "verified": follower.chain.sequence,
                "entry": follower.chain.hash,
                "policy": policy,
                "head_age": None if age is None else round(age, 3),
                "refused": dict(follower.refused),
                "problem": follower.problem[:500],
                "decisions": dict(reasons),
                "version": __version__,
            }
        ).encode()
