"""Check every second for faults during operation, and have each logged once."""

from __future__ import annotations

import logging

from sidecar.core.errors import Diagnostic
from sidecar.core.policy.model import Policy
from sidecar.runtime.conditions import Conditions
from sidecar.runtime.descriptors import why_no_more

from .connection import Service
from .readiness import locked_out
from .telemetry.decision_log import DecisionLog

log = logging.getLogger("mtls-sidecar")


class Health:
    """Report the state of the decision log, connections, descriptors and trusts to `conditions`."""

    def __init__(self, service: Service, decisions: DecisionLog, conditions: Conditions) -> None:
        self._service, self._decisions, self._conditions = service, decisions, conditions
        self._dropped = decisions.dropped
        self._refused = service.refused
        self._shut: set[str] = set()
        self._known: frozenset[Diagnostic] = frozenset()

    def taken(self, policy: Policy, now: float) -> None:
        """Remember the warnings of a new policy, which were logged when it was loaded."""
        self._known = frozenset(policy.warnings_at(now))

    def look(self, now: float) -> None:
        """Report the current state.  `now` is in seconds since the epoch."""
        self._look_at_log()
        self._look_at_connections()
        self._conditions.report("descriptors", why_no_more())
        policy = self._service.engine.policy
        self._look_at_trusts(policy, now)
        self._look_at_ends(policy, now)

    def _look_at_log(self) -> None:
        decisions, dropped = self._decisions, self._decisions.dropped
        why = decisions.failing
        if dropped > self._dropped and not why:
            why = decisions.last_failure
        self._dropped = dropped
        self._conditions.report("decision log", f"lines are lost: {why}" if why else "", dropped)

    def _look_at_connections(self) -> None:
        service, most = self._service, self._service.limits.max_connections
        full = service.refused > self._refused or len(service.connections) >= most
        self._refused = service.refused
        why = f"all {most} are open that limits.max_connections or RLIMIT_NOFILE allow"
        told = f"{why}; further ones are closed unanswered"
        self._conditions.report("connections", told if full else "", service.refused)

    def _look_at_trusts(self, policy: Policy, now: float) -> None:
        shut = locked_out(policy, now)
        for trust in self._shut - set(shut):
            self._conditions.report(f"trust {trust}", "")
        for trust, why in shut.items():
            self._conditions.report(f"trust {trust}", why)
        known = self._shut | set(shut)
        self._shut = {trust for trust in known if self._conditions.is_standing(f"trust {trust}")}

    def _look_at_ends(self, policy: Policy, now: float) -> None:
        """Log new warnings since the policy was loaded: a CA, a CRL or a rule has ended."""
        warnings = policy.warnings_at(now)
        for warning in warnings:
            if warning not in self._known:
                log.error("%s", warning)
        self._known = frozenset(warnings)
