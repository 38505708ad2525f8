"""Describe a location's rules in words, and list the allowed clients."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from asking import NOW, policy
from pki import CA, now

from sidecar.commands import who
from sidecar.commands.asking import Circumstances, PolicyFile, policy_file, request_of
from sidecar.core.policy.cases import Principal
from sidecar.core.x509.certificate import from_der

STAFF = CA("Staff")
CERTS = [
    from_der(STAFF.issue(cn, not_after=now() + timedelta(days=days)).der)
    for cn, days in (("bob", 9), ("alice", 8), ("carol", 7))
]
TEXT = "version: 1\nlocations:\n  - {name: site, allow: [{cn: [alice, bob]}]}\n"


@pytest.fixture
def file(tmp_path: Path) -> PolicyFile:
    (tmp_path / "policy.yaml").write_text(TEXT)
    return policy_file(policy(TEXT), str(tmp_path / "policy.yaml"))


def asked(file: PolicyFile, name: str = "site") -> who.Access:
    return who.who(
        file, name, CERTS, request_of(Circumstances(NOW, verify="SUCCESS"), Principal()), NOW
    )


def test_those_who_get_in_are_listed_by_their_end(file: PolicyFile) -> None:
    """The certificate that ends first comes first; the total is counted."""
    found = asked(file)
    assert [each.cert.cn for each in found.clients] == [("alice",), ("bob",)]
    assert who.as_text(found, {}).splitlines()[-1] == "2 of 3 certificates get in"
    rows = json.loads(who.as_json(found))
    assert set(rows) == {"rules", "clients"}
    assert set(rows["clients"][0]) == {"subject", "sha256", "not_after", "decision", "rule"}


def test_an_unknown_location_is_an_error(file: PolicyFile) -> None:
    """The error names the location."""
    with pytest.raises(ValueError, match="has no location 'x'"):
        asked(file, "x")
