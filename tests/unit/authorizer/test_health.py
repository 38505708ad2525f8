"""Report faults during operation, each once."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest
from asking import NOW, policy
from pki import CA

from sidecar.authorizer.connection import Service
from sidecar.authorizer.health import Health
from sidecar.authorizer.telemetry.decision_log import DecisionLog
from sidecar.core.policy.model import Policy
from sidecar.runtime.conditions import Conditions

STAFF = CA("Staff")
RULES = policy(
    """
version: 1
trust: {staff: {ca: ca.crt, crl: a.crl}}
locations: [{name: site, allow: [{cn: alice, until: 2099-01-01}]}]
""",
    ca_crt=STAFF.pem,
    a_crl=STAFF.crl(),
)
LATER = NOW + 30 * 86400


def parts(rules: Policy = RULES) -> tuple[Any, Any, Conditions, Health]:
    service = SimpleNamespace(
        refused=0,
        connections=set(),
        limits=SimpleNamespace(max_connections=2),
        engine=SimpleNamespace(policy=rules),
    )
    decisions = SimpleNamespace(dropped=0, failing="", last_failure="")
    conditions = Conditions()
    health = Health(cast(Service, service), cast(DecisionLog, decisions), conditions)
    return service, decisions, conditions, health


def test_a_sound_daemon_reports_nothing() -> None:
    """Neither conditions nor log lines."""
    _, _, conditions, health = parts()
    health.look(NOW)
    assert conditions.standing == ()


def test_each_fault_is_a_condition() -> None:
    """Lost log lines, too many connections, and a trust whose clients are all denied."""
    service, decisions, conditions, health = parts()
    decisions.dropped, decisions.last_failure = 3, "No space left on device"
    service.connections = {1, 2}
    health.look(LATER)
    found = "\n".join(conditions.standing)
    assert "decision log: lines are lost: No space left on device" in found
    assert "connections: all 2 are open" in found
    assert "trust staff: no CRL is in force" in found


def test_a_new_warning_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings that were logged with the policy are not repeated; a CRL that ends later is new."""
    _, _, _, health = parts()
    health.taken(RULES, NOW)
    with caplog.at_level(logging.ERROR, logger="mtls-sidecar"):
        health.look(LATER)
        health.look(LATER)
    assert sum("has ended" in record.getMessage() for record in caplog.records) == 1
