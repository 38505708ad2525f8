"""What was decided, counted: the metrics.

Counting is on the hot path, so it is a few dictionary look-ups; a collector turns the counts
into metric families when Prometheus asks.  No label ever carries what a client chose.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ..core.policy import Policy
from .repeats import Answered

PREFIX = "mtls_sidecar_"
BUCKETS = (10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 10e-3, 100e-3, 1.0)
"""Upper bounds of the duration histogram, in seconds."""

DAY = 86_400.0
WITHIN = {"1d": 86_400, "7d": 604_800, "30d": 2_592_000}
MOST_CLIENTS = 10_000
"""Most distinct certificates remembered for a gauge; beyond that it stays at this number."""


class Counts(Collector):
    """Everything that is counted.  `now` gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self.decisions: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.shadow: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._locked_out: dict[str, set[str]] = {}
        self._clients: dict[str, float] = {}
        self._clients_before: dict[str, float] = {}
        self._clients_since = now()
        self.reloads = {"success": 0, "error": 0}
        self.reloaded_at = 0.0
        self.crl_backwards = 0
        self.log_dropped = 0
        self.policy: Policy | None = None
        self.connections: Callable[[], int] = int
        self.ocsp_answers: Callable[[], int] = int
        self.ocsp_failures: Mapping[str, int] = {}

    def record(self, answered: Answered, seconds: float) -> None:
        """Count one decision, which took so many seconds, and note its client."""
        self.record_again(answered, seconds)
        decision, subject = answered.decision, answered.decision.subject
        if subject is None:
            return
        if answered.granted:
            if len(self._clients) < MOST_CLIENTS:
                self._clients[subject.sha256] = subject.not_after
        elif decision.monitored:
            clients = self._locked_out.setdefault(decision.location, set())
            if len(clients) < MOST_CLIENTS:
                clients.add(subject.sha256)

    def record_again(self, answered: Answered, seconds: float) -> None:
        """Count one more of the same, whose client was noted before."""
        self.decisions[answered.label] += 1
        if answered.shadow is not None:
            self.shadow[answered.shadow] += 1
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def reloaded(self, policy: Policy, ok: bool, at: float) -> None:
        """Note how a reload ended; what enforcing would break is counted anew."""
        self.reloads["success" if ok else "error"] += 1
        if ok:
            self.reloaded_at = at
            self._locked_out = {n: set() for n, loc in policy.locations.items() if loc.monitor}
        self.policy = policy

    # -- for Prometheus

    def describe(self) -> list[Metric]:
        """Nothing is promised before it is collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families at this moment."""
        labels = ("location", "decision", "reason")
        yield _counter("decisions", "Decisions answered to nginx", labels, self.decisions)
        yield _counter("shadow_decisions", "What enforcing would decide", labels, self.shadow)
        yield self._durations()
        reloads = {(result,): count for result, count in self.reloads.items()}
        yield _counter("policy_reloads", "Attempts to load the policy", ("result",), reloads)
        yield _gauge(
            "policy_reload_timestamp_seconds", "Last good load", (), {(): self.reloaded_at}
        )
        locked = {(name,): len(clients) for name, clients in self._locked_out.items()}
        yield _gauge(
            "shadow_would_break_clients",
            "Distinct certificates that enforcing would lock out",
            ("location",),
            locked,
        )
        yield _gauge(
            "clients_expiring",
            "Clients let in that end within",
            ("within",),
            {(k,): n for k, n in self.expiring().items()},
        )
        yield _gauge("connections", "Open authorization connections", (), {(): self.connections()})
        yield _gauge("ocsp_answers", "OCSP answers at hand", (), {(): self.ocsp_answers()})
        failures = {(kind,): count for kind, count in list(self.ocsp_failures.items())}
        yield _counter("ocsp_failures", "Questions without an answer", ("kind",), failures)
        yield _counter("crl_backwards", "CRLs refused as older", (), {(): self.crl_backwards})
        yield _counter("log_lines_dropped", "Log lines lost", (), {(): self.log_dropped})
        if self.policy is not None:
            yield from _policy(self.policy)

    def _durations(self) -> Metric:
        total, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._buckets, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family = HistogramMetricFamily(
            PREFIX + "decision_duration_seconds", "Time that a decision took"
        )
        family.add_metric([], buckets, self._seconds)
        return family

    def expiring(self) -> dict[str, int]:
        """How many of the clients let in today or the day before end soon."""
        now = self._now()
        if now - self._clients_since > DAY:
            self._clients_before, self._clients = self._clients, {}
            self._clients_since = now
        ends = {**self._clients_before, **self._clients}.values()
        return {
            label: sum(now < end <= now + seconds for end in ends)
            for label, seconds in WITHIN.items()
        }


def _counter(name: str, doc: str, labels: tuple[str, ...], values: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, doc, labels=labels)
    for key, value in list(values.items()):
        family.add_metric(key, value)
    return family


def _gauge(name: str, doc: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, doc, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _policy(policy: Policy) -> Iterator[Metric]:
    """What is known of the policy in force, and of its CRLs."""
    info = InfoMetricFamily(PREFIX + "policy", "The policy in force", labels=())
    info.add_metric((), {"hash": policy.hash})
    yield info
    labels = ("trust", "source")
    crls = {(t.name, crl.source): crl for t in policy.trusts.values() for crl in t.crl_list}
    ends = {key: crl.next_update for key, crl in crls.items() if crl.next_update is not None}
    yield _gauge("crl_next_update_timestamp_seconds", "End of the CRL", labels, ends)
    counts = {key: float(crl.entry_count) for key, crl in crls.items()}
    yield _gauge("crl_entries", "Revoked certificates in the CRL", labels, counts)


def registry_for(counts: Counts) -> CollectorRegistry:
    """A registry of these counts and the process's own metrics."""
    registry = CollectorRegistry()
    registry.register(counts)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
