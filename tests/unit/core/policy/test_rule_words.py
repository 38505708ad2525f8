"""A location's rules in plain English."""

from __future__ import annotations

import pytest

from sidecar.core.policy.rule_words import rules_in_words
from sidecar.core.policy.spec import read_policy


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("{cn: [alice, 'ops-*']}", "the CN is alice or is like ops-*"),
        ("{cn: '~a.*'}", "the CN matches the regular expression a.*"),
        ("{ou: SRE, client_ip: 10.0.0.0/8}", "the organizational unit is SRE and the client's "
         "address is in 10.0.0.0/8"),
        ("{all: [{cn: a}, {not: {o: b}}]}", "(the CN is a and not (the organization is b))"),
        ("{all: [people, {o: b}]}", "((the CN is x or the CN is y) and the organization is b)"),
        ("{any: [people, {cn: z}]}", "(the CN is x or the CN is y or the CN is z)"),
        ("{cn: a, from: 2026-01-01}", "it is 2026-01-01T00:00:00Z or later"),
        ("{cn: a, roles: [op]}", "with the roles op"),
    ],
)  # fmt: skip
def test_words(rule: str, words: str) -> None:
    """Every part of a rule is described: patterns, dates, roles, nested rules and groups."""
    policy = "version: 1\ngroups: {people: [{cn: x}, {cn: y}]}\nlocations:\n  - name: a\n"
    spec = read_policy(f"{policy}    allow: [{rule}]\n".encode(), "policy.yaml")
    [line] = rules_in_words(spec, spec.locations[0])
    assert words in line
    assert line.startswith("allows if ")
    assert line.endswith(": allow[0] (line 5)")


def test_defaults_and_exemptions() -> None:
    """Rules of `defaults`, and who gets in without a certificate, are told as its own."""
    spec = read_policy(
        b"version: 1\ndefaults:\n  deny: [{cn: m}]\nlocations:\n"
        b"  - {name: a, allow: verified, without_certificate: [{method: GET}]}\n",
        "policy.yaml",
    )
    assert rules_in_words(spec, spec.locations[0]) == [
        "denies if the CN is m: deny[0] (line 3)",
        "allows any certificate that verifies: verified (line 5)",
        "lets in without a certificate if the method is GET: without_certificate[0] (line 5)",
    ]
