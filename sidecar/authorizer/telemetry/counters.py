"""What was decided, counted.

Counting is on the hot path, so it is a few dictionary look-ups; `metrics` shows the counts to
Prometheus.  No label ever carries what a client chose.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from sidecar.authorizer.fleet_status import FleetStatus
from sidecar.authorizer.request_cache import CachedAnswer, CacheHit, RenderedDecision
from sidecar.core.decision import ISSUED, Decision
from sidecar.core.policy.model import Policy
from sidecar.core.x509.certificate import ClientCert

BUCKETS = (10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 10e-3, 100e-3, 1.0)
"""Upper bounds of the duration histogram, in seconds."""

HOUR, DAY = 3_600.0, 86_400.0
WITHIN = {
    "1h": (HOUR, HOUR),
    "6h": (6 * HOUR, HOUR),
    "1d": (DAY, DAY),
    "7d": (7 * DAY, 2 * DAY),
    "30d": (30 * DAY, 2 * DAY),
}
"""Within how many seconds a certificate ends, and within how many it was let in last: one that was
renewed in time is not used any more, and doesn't count."""

_LetIn = tuple[float, float, float]
"""When a certificate begins and ends, and when it was let in last."""

MOST_CLIENTS = 10_000
"""Most distinct certificates remembered for a gauge; beyond that it stays at this number."""

MOST_LOCKED_OUT = 100_000
"""Most certificates remembered of all locations in monitor mode together."""

MOST_STRANGERS, MOST_STRANGERS_LOCKED_OUT = 1_000, 10_000
"""The same of certificates that no trust issued, which are beside these: anybody can make some."""


class Counts:
    """Everything that is counted.  `now` gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self.decisions: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.shadow: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.locked_out: dict[str, dict[str, tuple[str, str]]] = {}
        self.locked_out_total = 0
        self._strangers = Counter[str]()  # of `locked_out`, by location
        self._clients: dict[str, _LetIn] = {}
        self._clients_before: dict[str, _LetIn] = {}
        self._clients_since = now()
        self.reloads = {"success": 0, "error": 0}
        self.reloaded_at = 0.0
        self.stale = False
        self.crl_backwards = 0
        self.log_dropped: Callable[[], int] = int
        self.log_summarized: Callable[[], int] = int
        self.refused_connections: Callable[[], int] = int
        self.policy: Policy | None = None
        self.settle: Callable[[], object] = int  # to be called before these are read
        self.connections: Callable[[], int] = int
        self.ocsp_answers: Callable[[], int] = int
        self.ocsp_failures: Mapping[str, int] = {}
        self.fleet: FleetStatus | None = None

    def record(self, answered: RenderedDecision, seconds: float) -> None:
        """Count one decision, which took so many seconds, and note its client."""
        self._count(answered, 1)
        self._time([seconds])
        decision, subject = answered.decision, answered.decision.subject
        if subject is None:
            return
        if answered.granted:
            self._let_in(subject)
        elif decision.monitored:
            self._lock_out(decision, subject.sha256)

    def _let_in(self, subject: ClientCert) -> None:
        if len(self._clients) < MOST_CLIENTS or subject.sha256 in self._clients:
            period = subject.not_before, subject.not_after
            self._clients[subject.sha256] = *period, self._now()

    def _lock_out(self, decision: Decision, sha256: str) -> None:
        clients = self.locked_out.setdefault(decision.location, {})
        if sha256 in clients:
            clients[sha256] = decision.reason, decision.rule
        elif self._has_room(decision, len(clients)):
            clients[sha256] = decision.reason, decision.rule
            self.locked_out_total += 1
            self._strangers[decision.location] += decision.reason not in ISSUED

    def _has_room(self, decision: Decision, kept: int) -> bool:
        strangers, total = self._strangers[decision.location], self._strangers.total()
        if decision.reason not in ISSUED:
            return strangers < MOST_STRANGERS and total < MOST_STRANGERS_LOCKED_OUT
        return kept - strangers < MOST_CLIENTS and self.locked_out_total - total < MOST_LOCKED_OUT

    def count_cached(self, answers: Iterable[CachedAnswer]) -> None:
        """Count more of the same, whose clients were noted before; and begin anew with each."""
        for cached in answers:
            answered = cached.answered
            self._count(answered, cached.uncounted)
            cached.uncounted = 0
            if answered.granted and answered.decision.subject is not None:
                self._let_in(answered.decision.subject)

    def time_cached(self, asked: Iterable[CacheHit]) -> None:
        """How long each of these, one at least, took."""
        took = sorted([end - start for _, _, _, start, end in asked])
        if took[0] < 0:  # the clock was set back meanwhile: no less than 0, as $request_time
            took = [max(0.0, seconds) for seconds in took]
        self._time(took)

    def _time(self, took: list[float]) -> None:
        """Durations in seconds, the shortest first."""
        below = 0
        for i, bound in enumerate(BUCKETS):
            upto = bisect_right(took, bound, below)
            self.buckets[i] += upto - below
            below = upto
            if below == len(took):
                break
        self.buckets[-1] += len(took) - below
        self.seconds += sum(took)

    def _count(self, answered: RenderedDecision, uncounted: int) -> None:
        self.decisions[answered.label] += uncounted
        if answered.shadow is not None:
            self.shadow[answered.shadow] += uncounted

    def reloaded(self, policy: Policy, ok: bool, at: float) -> None:
        """Note how a reload ended; what enforcing would break is counted anew."""
        self.reloads["success" if ok else "error"] += 1
        self.stale = not ok
        if ok:
            self.reloaded_at = at
            self.locked_out = {n: {} for n, loc in policy.locations.items() if loc.monitor}
            self.locked_out_total = 0
            self._strangers.clear()
        self.policy = policy

    def expiring(self) -> dict[str, int]:
        """How many of the clients that were let in lately end soon: see `WITHIN`."""
        now, clients = self._now(), self._lately()
        return {
            label: sum(
                now < end <= now + within and now - seen <= since for _, end, seen in clients
            )
            for label, (within, since) in WITHIN.items()
        }

    def overdue(self) -> int:
        """How many certificates in use should have been renewed by now, for the life they have."""
        now = self._now()
        return sum(
            now < end <= now + min((end - begin) / 4, 14 * DAY)
            and now - seen <= min((end - begin) / 24, 2 * DAY)
            for begin, end, seen in self._lately()
        )

    def _lately(self) -> list[_LetIn]:
        """The clients let in today or the day before."""
        now = self._now()
        if not 0 <= now - self._clients_since <= DAY:
            self._clients_before, self._clients = self._clients, {}
            self._clients_since = now
        return list({**self._clients_before, **self._clients}.values())
