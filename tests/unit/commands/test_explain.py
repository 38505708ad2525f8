"""Explain a decision: the certificate as nginx forwards it, and both output forms."""

from __future__ import annotations

import json

import pytest
from asking import NOW, ask, request, site
from pki import CA

from sidecar.commands.explain import as_json, as_text, described, escaped_pem, explain
from sidecar.core.errors import PolicyError
from sidecar.core.x509.certificate import from_header

STAFF = CA("Staff")
ALICE = STAFF.issue("alice")


@pytest.mark.parametrize(
    "data",
    [ALICE.pem, ALICE.der, b"Subject: alice\n" + ALICE.pem + STAFF.pem],
    ids=["PEM", "DER", "text and a chain"],
)
def test_a_file_becomes_what_nginx_sends(data: bytes) -> None:
    """The first certificate of a file is URL-encoded as nginx does."""
    assert from_header(escaped_pem(data)).sha256 == ALICE.sha256


def test_what_is_no_certificate_is_left_to_the_decision() -> None:
    """`explain` says `malformed_certificate`, as the daemon would."""
    decision = ask(site("verified"), escaped_pem(b"\x30\x82garbage"))
    assert decision.reason == "malformed_certificate"
    assert ask(site("verified"), escaped_pem(b"garbage")).reason == "malformed_certificate"


def test_the_steps_are_told_in_both_forms() -> None:
    """Text and JSON contain every step; JSON has the keys of the contract."""
    decision, steps = explain(site("[{cn: bob}]"), request(ALICE), NOW)
    found = json.loads(as_json(decision, steps))
    assert {"decision", "reason", "rule", "location", "steps"} <= set(found)
    assert (found["decision"], found["reason"]) == ("deny", "not_allowed")
    assert found["steps"][-1] == {"step": "allow", "passed": False, "saw": "none of 1 matches"}
    assert as_text(decision, steps).splitlines()[-1] == "deny (not_allowed)"


def test_monitor_mode_says_what_enforcing_would_do() -> None:
    """The verdict shows the answer and what enforcing would do."""
    rules = site("[{cn: bob}]", "    mode: monitor\n")
    assert as_text(*explain(rules, request(ALICE), NOW)).splitlines()[-1] == (
        "allow (not_allowed); monitor mode: enforcing would deny"
    )


def test_a_certificate_described_by_its_fields() -> None:
    """The fields are those of a policy's tests; a file name and a mistake are errors."""
    who = described("{cn: alice, dns: [a.test]}")
    assert who.cert is not None
    assert (who.cert.cn, who.cert.dns) == (("alice",), ("a.test",))
    with pytest.raises(ValueError, match="give a file with --cert"):
        described("alice.crt")
    with pytest.raises(PolicyError, match="unknown key 'nc'"):
        described("{nc: alice}")
