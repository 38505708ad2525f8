"""Export the counters to Prometheus; imported only if there is an admin listener."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
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

from sidecar import __version__
from sidecar.authorizer.fleet_status import BUCKETS as FLEET_BUCKETS
from sidecar.authorizer.fleet_status import FleetStatus
from sidecar.core.fleet.entry import WHY
from sidecar.core.policy.model import Policy

from .counters import BUCKETS, Counts

PREFIX = "mtls_sidecar_"


class DecisionCollector(Collector):
    """Turn counts into metric families when Prometheus asks.

    It runs beside the event loop, which goes on counting; `counts.settle` was called before.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def describe(self) -> list[Metric]:
        """Nothing is promised before it is collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families at this moment."""
        counts = self._counts
        yield _build()
        labels = ("location", "decision", "reason")
        yield _counter("decisions", "Decisions answered to nginx", labels, counts.decisions)
        yield _counter("shadow_decisions", "What enforcing would decide", labels, counts.shadow)
        yield _histogram(
            "decision_duration_seconds",
            "Time that a decision took",
            BUCKETS,
            counts.buckets,
            counts.seconds,
        )
        reloads = {(result,): count for result, count in counts.reloads.items()}
        yield _counter("policy_reloads", "Attempts to load the policy", ("result",), reloads)
        yield _gauge(
            "policy_reload_timestamp_seconds", "Last good load", (), {(): counts.reloaded_at}
        )
        yield _gauge(
            "policy_stale",
            "1 while something older than the policy's files serves",
            (),
            {(): float(counts.stale)},
        )
        locked = {(name,): len(clients) for name, clients in counts.locked_out.items()}
        yield _gauge(
            "shadow_would_break_clients",
            "Distinct certificates that enforcing would lock out",
            ("location",),
            locked,
        )
        yield _gauge(
            "shadow_would_break_clients_by_rule",
            "Distinct certificates that enforcing would lock out, by what denies them",
            ("location", "reason", "rule"),
            _by_rule(counts),
        )
        yield _gauge(
            "clients_expiring",
            "Clients let in that end within",
            ("within",),
            {(k,): n for k, n in counts.expiring().items()},
        )
        yield _gauge(
            "clients_renewal_overdue",
            "Certificates in use that have less than a quarter of their life left, or 14 days",
            (),
            {(): counts.overdue()},
        )
        yield _gauge(
            "connections", "Open authorization connections", (), {(): counts.connections()}
        )
        yield _gauge("ocsp_answers", "OCSP answers at hand", (), {(): counts.ocsp_answers()})
        failures = {(kind,): count for kind, count in list(counts.ocsp_failures.items())}
        yield _counter("ocsp_failures", "Questions without an answer", ("kind",), failures)
        yield _counter("crl_backwards", "CRLs refused as older", (), {(): counts.crl_backwards})
        yield _counter("log_lines_dropped", "Log lines lost", (), {(): counts.log_dropped()})
        yield _counter(
            "log_lines_summarized",
            "Decisions counted in a summary line in place of a line each",
            (),
            {(): counts.log_summarized()},
        )
        yield _counter(
            "connections_refused",
            "Connections closed unanswered, as there were too many",
            (),
            {(): counts.refused_connections()},
        )
        if counts.policy is not None:
            yield from _policy(counts.policy)
        if counts.fleet is not None:
            yield from _fleet(counts.fleet)


def _by_rule(counts: Counts) -> dict[tuple[str, str, str], int]:
    found: dict[tuple[str, str, str], int] = {}
    for location, clients in list(counts.locked_out.items()):
        for (reason, rule), times in Counter(list(clients.values())).items():
            found[location, reason, rule] = times
    return found


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


def _histogram(
    name: str, doc: str, bounds: Iterable[float], counts: Iterable[int], seconds: float
) -> Metric:
    """A histogram of how many fell between one bound and the next, the last beyond all bounds."""
    family = HistogramMetricFamily(PREFIX + name, doc)
    buckets = list(zip((*map(str, bounds), "+Inf"), map(float, accumulate(counts)), strict=True))
    family.add_metric([], buckets, seconds)
    return family


def _build() -> Metric:
    """The versions of this program and of its Python."""
    info = InfoMetricFamily(PREFIX + "build", "The program that runs", labels=())
    info.add_metric((), {"version": __version__, "python": platform.python_version()})
    return info


def _policy(policy: Policy) -> Iterator[Metric]:
    """What is known of the policy in force, and of its CRLs."""
    info = InfoMetricFamily(PREFIX + "policy", "The policy in force", labels=())
    info.add_metric((), {"hash": policy.hash})
    yield info
    labels = ("trust", "source")
    crls = {(t.name, crl.source): crl for t in policy.trusts.values() for crl in t.crl_list}
    ends = {key: crl.next_update for key, crl in crls.items() if crl.next_update is not None}
    yield _gauge("crl_next_update_timestamp_seconds", "End of the CRL", labels, ends)
    begins = {key: crl.this_update for key, crl in crls.items()}
    yield _gauge("crl_this_update_timestamp_seconds", "When the CRL was issued", labels, begins)
    counts = {key: float(crl.entry_count) for key, crl in crls.items()}
    yield _gauge("crl_entries", "Revoked certificates in the CRL", labels, counts)
    now = time.time()
    ca_ends = {
        (trust.name, source): next((end for end in ends if end > now), ends[-1])
        for trust in policy.trusts.values()
        for source, ends in trust.ca_ends.items()
    }
    yield _gauge("ca_not_after_timestamp_seconds", "Next end of a CA in the file", labels, ca_ends)


def _fleet(fleet: FleetStatus) -> Iterator[Metric]:
    """How far this node is with the fleet's log."""
    follower = fleet.follower
    yield _gauge(
        "fleet_sequence", "Last entry of the fleet in force", (), {(): float(follower.sequence)}
    )
    age = follower.head_age
    ages = {} if age is None else {(): age}
    yield _gauge("fleet_head_age_seconds", "Since the fleet was known to be as here", (), ages)
    refused = {(why,): fleet.refused.get(why, 0) for why in WHY}
    yield _counter("fleet_refused", "Entries and files refused", ("why",), refused)
    yield _histogram(
        "fleet_propagation_seconds",
        "From the signing of an entry to its being in force",
        FLEET_BUCKETS,
        fleet.buckets,
        fleet.seconds,
    )


class _OwnProcess(ProcessCollector):
    """The process's own metrics, also where /proc shows nothing but processes."""

    def _boot_time(self) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def registry_for(counts: Counts) -> CollectorRegistry:
    """A registry of these counts and the process's own metrics."""
    registry = CollectorRegistry()
    registry.register(DecisionCollector(counts))
    for collector in (_OwnProcess, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry
