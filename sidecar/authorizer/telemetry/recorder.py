"""Record every decision in the counters and in the decision log; cached answers in batches.

For a cached answer, counting and logging would cost more than the answer.  So a hit increments a
number in the cache entry, which is still in the processor's cache; the counters take these numbers
over before they are read.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sidecar.authorizer.request_cache import CachedAnswer, CacheHit, RenderedDecision
from sidecar.core.decision import Decision
from sidecar.core.request import AuthzRequest

from .counters import Counts
from .decision_log import DecisionLog
from .recent_denials import RecentDenials

BATCH = 16
"""Most decisions that wait to be logged; fewer when `log` is called.

By more it is a little cheaper, and those who ask meanwhile wait for longer.
"""

UNCOUNTED = 2048
"""About how many different requests wait to be counted, at most; none after `settle`."""


def _no_note(decision: Decision, now: float) -> None:
    pass


class DecisionRecorder:
    """Record decisions; for one thread.

    `note` is told of each decision about a certificate, and when: of one asked for again by
    `settle` at the latest.
    """

    def __init__(
        self,
        counts: Counts,
        decisions: DecisionLog,
        note: Callable[[Decision, float], None] = _no_note,
    ) -> None:
        self._counts = counts
        self._decisions = decisions
        self._note = note
        self.denials = RecentDenials()
        self._waiting: list[CacheHit] = []
        self._uncounted: list[CachedAnswer] = []
        counts.settle = self.settle

    def record(
        self, answered: RenderedDecision, request: AuthzRequest | None, seconds: float
    ) -> None:
        """A decision that took so many seconds; the request if it could be read."""
        self.log()
        self._counts.record(answered, seconds)
        self._decisions.write(answered, request, seconds)
        now = time.time()
        if answered.decision.subject is not None:
            self._note(answered.decision, now)
        if not answered.granted:
            self.denials.note(answered, request, now)

    def record_cached(
        self, cached: CachedAnswer, uri: bytes | None, request_id: bytes, start: float, end: float
    ) -> None:
        """One asked for again: its URI (None: the same) and id, when it came and was answered."""
        if not cached.uncounted:
            self._uncounted.append(cached)
        cached.uncounted += 1
        waiting = self._waiting
        waiting.append((cached, uri, request_id, start, end))
        if len(waiting) >= BATCH:
            self.log()

    def log(self) -> None:
        """Log what waits; to be called a few times a second."""
        waiting = self._waiting
        if waiting:
            self._waiting = []
            self._counts.time_cached(waiting)
            self._decisions.write_cached(waiting)
            if denied := [hit for hit in waiting if not hit[0].answered.granted]:
                self.denials.note_cached(denied)
        if len(self._uncounted) > UNCOUNTED:
            self._count(BATCH)  # as many as can have come since the last time

    def settle(self) -> None:
        """Log and count what waits; to be called before counts are read."""
        self.log()
        self._count(len(self._uncounted))

    def _count(self, most: int) -> None:
        counted = self._uncounted[:most]
        del self._uncounted[:most]
        self._counts.count_cached(counted)
        now = time.time()
        for cached in counted:
            self._note(cached.answered.decision, now)
