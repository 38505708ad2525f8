"""Denylists about clients, and about the authorities above them."""

from __future__ import annotations

import pytest
from asking import ask, policy
from pki import CA, Leaf

from sidecar.core.decision import Reason

ROOT = CA("Root")
ISSUING, OTHER = ROOT.intermediate("Issuing"), ROOT.intermediate("Other")
ALICE, ERIN = ISSUING.issue("alice"), OTHER.issue("erin")


def reason(line: str, leaf: Leaf = ALICE, chain: str = "leaf", more: str = "") -> Reason:
    text = (
        "version: 1\ntrust:\n  staff: {ca: ca.crt, intermediates: between.crt, "
        f"denylist: deny.txt, chain: {chain}{more}}}\n"
        "locations: [{name: site, allow: verified}]\n"
    )
    files = {"ca_crt": ROOT.pem, "between_crt": ISSUING.pem + OTHER.pem, "deny_txt": line.encode()}
    return ask(policy(text, **files), leaf).reason


@pytest.mark.parametrize("chain", ["leaf", "all"])
@pytest.mark.parametrize("verify", ["nginx", "sidecar"])
@pytest.mark.parametrize("authority", [ISSUING, ROOT], ids=["an intermediate", "the anchor"])
def test_a_line_about_an_authority_denies_all_below_it(
    authority: CA, verify: str, chain: str
) -> None:
    """Its certificate or its key, whatever `chain` says; the others of the trust go on."""
    spki = CA("x", key=authority.key).issue("x", key=authority.key).spki_sha256
    for line in (f"sha256 {authority.sha256}", f"spki_sha256 {spki}"):
        assert reason(line, chain=chain, more=f", verify: {verify}") is Reason.REVOKED
        others = Reason.REVOKED if authority is ROOT else Reason.ALLOWED
        assert reason(line, ERIN, chain=chain) is others


def test_a_line_about_an_authority_ends() -> None:
    """At its `until`, as every line."""
    line = f"sha256 {ISSUING.sha256} until 2099-01-01"
    assert reason(line) is Reason.REVOKED
    assert reason(f"sha256 {ISSUING.sha256} until 2020-01-01") is Reason.ALLOWED


def test_a_serial_number_is_not_compared_with_authorities() -> None:
    """A client's number 1 in the list denies nobody whose authority has the number 1, too."""
    assert reason(f"serial {ISSUING.serial:x}") is Reason.ALLOWED
    assert reason(f"serial {ROOT.serial:x}", chain="all") is Reason.ALLOWED
    assert reason(f"serial {ISSUING.serial:x}", chain="all") is Reason.REVOKED


def test_no_line_denies_nobody() -> None:
    """An empty list, and one about somebody else."""
    assert reason("") is Reason.ALLOWED
    assert reason(f"sha256 {'ab' * 32}", chain="all") is Reason.ALLOWED
