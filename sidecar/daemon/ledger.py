"""Tells counts and log of every decision: of those asked for again many at once.

Most of what a repeated decision costs would be counting and logging it, one by one.
"""

from __future__ import annotations

from ..core.wire import AuthzRequest
from .decisionlog import DecisionLog
from .repeats import Again, Answered, Repeat
from .telemetry import Counts

BATCH = 64
"""Most decisions that wait to be told of; fewer when `settle` is called."""


class Ledger:
    """Where every decision is entered.  For one thread."""

    def __init__(self, counts: Counts, decisions: DecisionLog) -> None:
        self._counts = counts
        self._decisions = decisions
        self._waiting: list[Again] = []
        counts.settle = self.settle

    def enter(self, answered: Answered, request: AuthzRequest | None, seconds: float) -> None:
        """A decision that took so many seconds; the request if it could be read."""
        self.settle()
        self._counts.record(answered, seconds)
        self._decisions.write(answered, request, seconds)

    def enter_again(
        self, repeat: Repeat, uri: bytes, request_id: bytes, seconds: float, now: float
    ) -> None:
        """One asked for again: with which URI (empty: the same) and id, the seconds, and when."""
        waiting = self._waiting
        waiting.append((repeat, uri, request_id, seconds, now))
        if len(waiting) >= BATCH:
            self.settle()

    def settle(self) -> None:
        """Tell of what waits; to be called a few times a second, and before counts are read."""
        waiting = self._waiting
        if waiting:
            self._waiting = []
            self._counts.record_again(waiting)
            self._decisions.write_again(waiting)
