"""Show the answer of every location about one certificate."""

from __future__ import annotations

import json
from pathlib import Path

from asking import NOW, policy
from pki import CA

from sidecar.commands import what
from sidecar.commands.asking import Circumstances, policy_file, request_of

ALICE = CA("Staff").issue("alice")
TEXT = """version: 1
locations:
  - name: site
    allow: [{cn: alice}]
  - name: closed
    mode: monitor
    allow: [{cn: bob}]
  - name: near
    allow: [{cn: alice, client_ip: 192.0.2.7}]
"""


def test_each_location_is_told_with_its_line(tmp_path: Path) -> None:
    """Locations are in policy order, with the line of the rule or location; notes are separate from
    JSON."""
    (tmp_path / "policy.yaml").write_text(TEXT)
    file = policy_file(policy(TEXT), str(tmp_path / "policy.yaml"))
    found = what.what(file, request_of(Circumstances(NOW), ALICE.escaped), NOW)
    rows = json.loads(what.as_json(found))
    assert [set(row) for row in rows] == [{"location", "decision", "reason", "rule", "line"}] * 3
    assert [(row["location"], row["decision"], row["reason"]) for row in rows] == [
        ("site", "allow", "allowed"),
        ("closed", "allow", "not_allowed"),
        ("near", "deny", "not_allowed"),
    ]
    assert rows[0]["line"] == 4
    lines = what.as_text(found, "p.yaml").splitlines()
    assert lines[0].startswith("allow site   allowed by ")
    assert lines[1].endswith("monitor mode: enforcing would deny")
    assert what.notes(found) == [f"near: {note}" for note in found[2].answer.notes]
