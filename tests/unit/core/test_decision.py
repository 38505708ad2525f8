"""A decision: its status and its verdict."""

from __future__ import annotations

from sidecar.core.decision import GRANTS, Decision, Reason


def test_every_reason_has_its_status() -> None:
    """204 for the grants, 401 without a usable certificate, 400 malformed, else 403."""
    statuses = {reason: Decision(reason).status for reason in Reason}
    assert [r for r, s in statuses.items() if s == 204] == ["allowed", "public", "exempt"]
    assert [r for r, s in statuses.items() if s == 400] == ["bad_request"]
    assert {r for r, s in statuses.items() if s == 401} == {
        "no_certificate",
        "verify_failed",
        "malformed_certificate",
        "expired",
        "not_yet_valid",
    }
    assert set(statuses.values()) == {204, 400, 401, 403}


def test_monitor_mode_allows_what_the_policy_denies() -> None:
    """The answer is 204 and `allow`; whether the policy grants it stays as it is."""
    found = Decision(Reason.NOT_ALLOWED, monitored=True)
    assert (found.status, found.verdict, found.allowed, found.granted) == (
        204,
        "allow",
        True,
        False,
    )
    assert all(Decision(reason).granted == (reason in GRANTS) for reason in Reason)
