"""What a fleet's revocations, and a head that is too old, mean for a decision."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from asking import NOW, policy, request
from pki import CA, Leaf

from sidecar.core.decision import Decision, Reason
from sidecar.core.evaluate import evaluate
from sidecar.core.fleet.freshness import Freshness
from sidecar.core.policy.model import Policy
from sidecar.core.revocation.denylist import parse_denylist

staff = CA("Staff")
alice, bob = staff.issue("alice"), staff.issue("bob")
TRUSTED = "trust: {staff: {ca: staff.crt}}\n"


def rules(location: str, trust: str = TRUSTED, revoked: str = "") -> Policy:
    found = policy(
        f"version: 1\n{trust}locations: [{{name: site, {location}}}]\n", staff_crt=staff.pem
    )
    return replace(found, denylists=(parse_denylist(revoked.encode(), "fleet prod"),))


def ask(found: Policy, leaf: Leaf | None, until: float, *, denies: bool = False) -> Decision:
    return evaluate(found, request(leaf), NOW, freshness=Freshness(until, denies))


@pytest.mark.parametrize("trust", [TRUSTED, ""])
def test_the_fleets_revocations_hold_for_every_trust_and_for_none(trust: str) -> None:
    """Also where the policy leaves the authorities to nginx."""
    found = rules("allow: verified", trust, f"sha256 {alice.sha256} # laptop")
    denied = ask(found, alice, math.inf)
    assert denied.reason is Reason.REVOKED
    assert "fleet prod:1" in denied.detail
    assert ask(found, bob, math.inf).allowed


@pytest.mark.parametrize(
    ("stale", "denies", "allowed"),
    [
        ("", False, True),
        ("", True, False),
        (", stale: serve", True, True),
        (", stale: deny", False, False),
    ],
)
def test_a_location_says_what_a_stale_fleet_means(stale: str, denies: bool, allowed: bool) -> None:
    """Else sidecar.yaml does; while the head is fresh it does not matter."""
    found = rules(f"allow: verified{stale}")
    decision = ask(found, alice, NOW, denies=denies)
    assert decision.allowed == allowed
    assert allowed or decision.reason is Reason.REVOCATION_UNKNOWN
    fresh = ask(found, alice, NOW + 10, denies=denies)
    assert fresh.allowed
    assert (fresh.expires <= NOW + 10) == (not allowed)  # remembered no longer than it is fresh


def test_who_is_revoked_is_told_so_also_while_stale() -> None:
    """And what needs no certificate asks about no revocation."""
    found = rules("allow: verified, stale: deny", revoked=f"sha256 {alice.sha256}")
    assert ask(found, alice, 0.0).reason is Reason.REVOKED
    assert ask(rules("allow: public, stale: deny"), None, 0.0).allowed


def test_a_revocation_that_ends_is_remembered_until_then() -> None:
    """The decision expires with it."""
    end = datetime.fromtimestamp(int(NOW) + 100, UTC)
    found = rules("allow: verified", revoked=f"sha256 {alice.sha256} until {end.isoformat()}")
    assert ask(found, alice, math.inf).expires == int(NOW) + 100
