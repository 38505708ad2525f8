"""Apply `without_certificate`, and the rules that refuse first."""

from __future__ import annotations

from typing import Any

import pytest
from asking import ask, mistakes, policy
from pki import CA

from sidecar.core.decision import Decision, Reason

alice = CA("Staff").issue("alice")

POLICY = """
version: 1
groups:
  lan: [{client_ip: [192.168.0.0/16, "fd00::/8"]}]
  probes: [{client_ip: 10.0.0.1, method: GET}]
  mixed: [{cn: mallory}, {client_ip: 192.168.66.0/24}]
locations:
  - name: site
    allow: [{cn: alice}]
    deny: [{client_ip: 192.168.7.7}, {cn: mallory}, mixed, {cn: x, client_ip: 192.168.8.8}]
    without_certificate: [lan, probes, {name: holiday, client_ip: 172.16.0.1, until: 2030-01-01}]
  - {name: strict, allow: [{cn: alice}]}
  - {name: shadow, mode: monitor, allow: verified, without_certificate: lan}
"""

RULES = policy(POLICY)


def decide(location: str = "site", **fields: Any) -> Decision:
    return ask(RULES, fields.pop("leaf", None), location, **fields)


@pytest.mark.parametrize(
    ("fields", "reason", "rule"),
    [
        ({"client_ip": "192.168.1.2"}, Reason.EXEMPT, "lan[0]"),
        ({"client_ip": "::ffff:192.168.1.2"}, Reason.EXEMPT, "lan[0]"),
        ({"client_ip": "fd00::1"}, Reason.EXEMPT, "lan[0]"),
        ({"client_ip": "10.0.0.1", "method": "GET"}, Reason.EXEMPT, "probes[0]"),
        ({"client_ip": "10.0.0.1", "method": "POST"}, Reason.NO_CERTIFICATE, ""),
        ({"client_ip": "10.0.0.1"}, Reason.NO_CERTIFICATE, ""),
        ({"client_ip": "172.16.0.1"}, Reason.EXEMPT, "holiday"),
        ({"client_ip": "172.16.0.1", "at": 2e9}, Reason.NO_CERTIFICATE, ""),
        ({"client_ip": "192.0.2.1"}, Reason.NO_CERTIFICATE, ""),
        ({}, Reason.NO_CERTIFICATE, ""),
        ({"client_ip": "unix:"}, Reason.NO_CERTIFICATE, ""),
        # deny rules of the request alone refuse first, those within groups too
        ({"client_ip": "192.168.7.7"}, Reason.DENIED_BY_RULE, "deny[0]"),
        ({"client_ip": "192.168.66.1"}, Reason.DENIED_BY_RULE, "mixed[1]"),
        # one that asks about the certificate as well is not of the request alone
        ({"client_ip": "192.168.8.8"}, Reason.EXEMPT, "lan[0]"),
    ],
)
def test_who_gets_in_without(fields: dict[str, Any], reason: Reason, rule: str) -> None:
    """Only the request decides, on the granting side: an unknown value matches nothing."""
    decision = decide(**fields)
    assert (decision.reason, decision.rule) == (reason, rule)
    assert decision.status == {Reason.EXEMPT: 204, Reason.NO_CERTIFICATE: 401}.get(reason, 403)


def test_who_presents_a_certificate_is_asked_for_it() -> None:
    """With a certificate, the certificate decides, also from an exempt address."""
    assert decide(leaf=alice, client_ip="192.168.1.2").reason is Reason.ALLOWED
    assert decide(leaf=CA("Staff").issue("bob"), client_ip="192.168.1.2").reason is (
        Reason.NOT_ALLOWED
    )
    assert decide(leaf=b"garbage", client_ip="192.168.1.2").reason is Reason.MALFORMED_CERTIFICATE
    refused = decide(leaf=alice, client_ip="192.168.1.2", verify="FAILED:x")
    assert refused.reason is Reason.VERIFY_FAILED


def test_other_locations_know_nothing_of_it() -> None:
    """The key affects only its own location."""
    assert decide("strict", client_ip="192.168.1.2").reason is Reason.NO_CERTIFICATE


def test_another_sites_page_is_not_exempt() -> None:
    """A page of another site in a browser on that network is denied."""
    foreign = {"site": "cross-site", "mode": "cors", "destination": "empty", "method": "GET"}
    decision = decide(client_ip="192.168.1.2", **foreign)
    assert (decision.reason, decision.rule) == (Reason.DENIED_BY_RULE, "same_origin")


def test_the_moment_at_which_it_turns() -> None:
    """A cached decision ends with the rule."""
    assert decide(client_ip="172.16.0.1").expires < 2e9
    assert decide(client_ip="172.16.0.2").expires < 2e9


@pytest.mark.parametrize(
    "rule",
    [
        "{cn: alice}",
        "{client_ip: 10.0.0.1, sha256: " + "ab" * 32 + "}",
        "{not: {cn: alice}}",
        "{any: [{client_ip: 10.0.0.1}, {ou: x}]}",
        "people",
        "mixed",
    ],
)
def test_rules_about_a_certificate_are_mistakes(rule: str) -> None:
    """A rule about the certificate is refused there."""
    text = (
        "version: 1\ngroups: {people: [{cn: alice}], mixed: [{client_ip: 10.0.0.1}, {cn: x}]}\n"
        f"locations: [{{name: site, allow: verified, without_certificate: [{rule}]}}]\n"
    )
    (found,) = mistakes(text)
    assert "asks about the certificate" in found.message
    assert found.line == 3


def test_roles_are_a_mistake() -> None:
    """Roles are granted only to certificates."""
    rule = "{client_ip: 10.0.0.1, roles: [admin]}"
    text = f"version: 1\nlocations: [{{name: a, allow: [], without_certificate: [{rule}]}}]\n"
    assert "roles are not granted here" in mistakes(text)[0].message


def test_a_deny_that_is_opened_is_warned_of() -> None:
    """A warning says that a client can avoid `deny` by sending no certificate."""
    warnings = [w.message for w in RULES.warnings_at(0.0)]
    assert [w for w in warnings if "location 'site': a client without a certificate" in w]
    assert not [w for w in warnings if "'shadow'" in w]
