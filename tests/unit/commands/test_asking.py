"""Ask a location for `what` and `who` if parts of the question are unknown."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import NOW, policy
from pki import CA

from sidecar.commands.asking import Circumstances, PolicyFile, ask, policy_file, request_of
from sidecar.core.policy.cases import Principal

STAFF = CA("Staff")
ALICE = STAFF.issue("alice", dns=["a.test"])

TEXT = """version: 1
defaults: {san_matches_host: true, sni_matches_host: true}
locations:
  - {name: by_host, server_name: [a.test, b.test], location: /, allow: verified}
  - {name: other, server_name: "*.b.test", location: /, allow: verified}
  - {name: near, san_matches_host: false, sni_matches_host: false,
     allow: [{cn: alice, client_ip: 192.0.2.0/24}]}
"""


@pytest.fixture
def file(tmp_path: Path) -> PolicyFile:
    (tmp_path / "policy.yaml").write_text(TEXT)
    return policy_file(policy(TEXT), str(tmp_path / "policy.yaml"))


def given(**more: str) -> Circumstances:
    return Circumstances(NOW, **more)


def test_a_host_that_the_certificate_covers_is_tried(file: PolicyFile) -> None:
    """Without --host, the first allowed host is used and noted; with --host only that one."""
    request = request_of(given(), ALICE.escaped)
    found = ask(file, "by_host", request, NOW)
    assert found.decision.allowed
    assert found.notes == ("asked for the host a.test; --host asks for another",)
    told = ask(file, "by_host", request_of(given(host="b.test"), ALICE.escaped), NOW)
    assert (told.decision.reason, told.notes) == ("host_mismatch", ())


def test_a_host_that_nobody_knows_is_asked_for(file: PolicyFile) -> None:
    """If the certificate names no host of the location, the note says which option to give."""
    found = ask(file, "other", request_of(given(), ALICE.escaped), NOW)
    assert found.decision.reason == "host_mismatch"
    assert found.notes[0].endswith("give --host")


def test_an_address_that_is_not_known_is_noted(file: PolicyFile) -> None:
    """A rule about the client's address doesn't grant without one, and the note says so."""
    found = ask(file, "near", request_of(given(), ALICE.escaped), NOW)
    assert (found.decision.reason, len(found.notes)) == ("not_allowed", 1)
    here = request_of(given(client_ip="192.0.2.7"), ALICE.escaped)
    assert ask(file, "near", here, NOW).decision.allowed
    assert request_of(given(client_ip="unix:"), ALICE.escaped).client_ip == ""
    with pytest.raises(ValueError, match="'GET /' is not a method"):
        request_of(given(method="GET /"), ALICE.escaped)
    with pytest.raises(ValueError, match="'here' is not an address"):
        request_of(given(client_ip="here"), b"")


def test_verify_follows_from_the_certificate() -> None:
    """The default is SUCCESS with a certificate and NONE without."""
    assert request_of(given(), ALICE.escaped).verify == "SUCCESS"
    assert request_of(given(), Principal()).verify == "NONE"
    assert request_of(given(verify="FAILED:x"), ALICE.escaped).verify == "FAILED:x"


def test_an_unknown_location_is_told_with_those_that_are(file: PolicyFile) -> None:
    """The error lists the existing locations."""
    with pytest.raises(ValueError, match="has no location 'x'") as caught:
        file.location("x")
    assert caught.value.args[1] == "name one of: by_host, other, near"
