"""The line of the policy file for each location and rule that a decision can name."""

from __future__ import annotations

import pytest

from sidecar.core.policy.compile import compile_draft
from sidecar.core.policy.rule_lines import SECTIONS, RuleLines
from sidecar.core.policy.spec import read_policy

POLICY = b"""\
version: 1
groups:
  admins:
    - cn: alice
    - {name: special, ou: X}
  nested: [admins, {cn: n}]
defaults:
  public_methods: [OPTIONS]
  deny:
    - serial: "0A"
locations:
  - name: admin
    deny:
      - {name: same, cn: mallory}
    allow:
      - admins
      - name: same
        cn: bob
      - any:
          - {name: inner, cn: carol}
          - nested
    without_certificate:
      - client_ip: 10.0.0.0/8
  - name: site
    allow: verified
  - {name: open, allow: public}
  - {name: own, public_methods: [GET], same_origin: true, allow: []}
"""


@pytest.mark.parametrize(
    ("location", "reason", "rule", "line"),
    [
        ("admin", "allowed", "admins[0]", 4),
        ("admin", "allowed", "special", 5),
        ("admin", "allowed", "same", 17),
        ("admin", "denied_by_rule", "same", 14),
        ("admin", "allowed", "inner", 20),
        ("admin", "allowed", "allow[2]", 19),
        ("admin", "exempt", "without_certificate[0]", 23),
        ("admin", "public", "public_methods", 8),
        ("admin", "not_allowed", "", 12),
        ("site", "allowed", "verified", 25),
        ("site", "denied_by_rule", "deny[0]", 10),
        ("site", "denied_by_rule", "same_origin", 24),
        ("open", "public", "public", 26),
        ("own", "public", "public_methods", 27),
        ("own", "denied_by_rule", "same_origin", 27),
        ("nowhere", "unknown_location", "", 0),
    ],
)
def test_line(location: str, reason: str, rule: str, line: int) -> None:
    """It is the rule's own line, also within groups, `any` and `defaults`; else the location's."""
    assert RuleLines(read_policy(POLICY, "policy.yaml")).line(location, reason, rule) == line


def test_each_compiled_rule_has_a_line() -> None:
    """Every rule name that a decision can show has a line."""
    draft = compile_draft(POLICY, "policy.yaml")
    lines = RuleLines(draft.spec)
    reasons = dict(zip(SECTIONS, ("denied_by_rule", "allowed", "exempt"), strict=True))
    for name, location in draft.policy.locations.items():
        where = {each.name: each.node.line for each in draft.spec.locations}[name]
        rules = zip(SECTIONS, (location.deny, location.allow, location.without_cert), strict=True)
        for section, each in rules:
            for label in each.labels():
                assert lines.line(name, reasons[section], label) != where, label
