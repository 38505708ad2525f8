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


RENEWED = CA("Issuing", issuer=ROOT, key=ISSUING.key)
OLD_ROOT = CA("Old Root")
CROSS = CA("Root", issuer=OLD_ROOT, key=ROOT.key)


def below(line: str, ca: list[CA], between: list[CA], leaf: Leaf = ALICE, more: str = "") -> Reason:
    """The reason under a trust of these files, in this order."""
    both = ", intermediates: between.crt" if between else ""
    text = (
        f"version: 1\ntrust:\n  staff: {{ca: ca.crt{both}, denylist: deny.txt{more}}}\n"
        "locations: [{name: site, allow: verified}]\n"
    )
    files = {"deny_txt": line.encode(), "ca_crt": b"".join(each.pem for each in ca)}
    if between:
        files["between_crt"] = b"".join(each.pem for each in between)
    return ask(policy(text, **files), leaf).reason


@pytest.mark.parametrize("verify", ["nginx", "sidecar"])
@pytest.mark.parametrize(
    ("ca", "between"),
    [
        ([ROOT, ISSUING], []),
        ([ISSUING, ROOT], []),
        ([ROOT], [ISSUING, RENEWED]),
        ([ROOT], [RENEWED, ISSUING]),
        ([ROOT, OLD_ROOT], [ISSUING, CROSS]),
        ([OLD_ROOT, ROOT], [CROSS, ISSUING]),
    ],
    ids=["bundle", "issuing first", "renewed last", "renewed first", "cross", "cross first"],
)
def test_an_authority_above_denies_whichever_path_is_found(
    ca: list[CA], between: list[CA], verify: str
) -> None:
    """Its line holds though an anchor stands below it, or its key has a second certificate."""
    more = f", verify: {verify}"
    for authority in (*ca, *between):
        assert below(f"sha256 {authority.sha256}", ca, between, more=more) is Reason.REVOKED
        others = Reason.ALLOWED if authority.key is ISSUING.key else Reason.REVOKED
        erin = below(f"sha256 {authority.sha256}", ca, [*between, OTHER], ERIN, more)
        assert erin is others
    assert below(f"sha256 {'ab' * 32}", ca, between, more=more) is Reason.ALLOWED


@pytest.mark.parametrize("authority", [ROOT, ISSUING], ids=["the root", "an issuing CA"])
def test_an_authority_that_was_a_client_before_denies_all_below_it(authority: CA) -> None:
    """Whoever has its key can present its own certificate first, and gains nothing by it."""
    text = "version: 1\ntrust: {staff: {ca: ca.crt, denylist: deny.txt}}\n"
    rules = policy(
        text + "locations: [{name: site, allow: verified}]\n",
        ca_crt=ROOT.pem + ISSUING.pem,
        deny_txt=f"sha256 {authority.sha256}".encode(),
    )
    itself = Leaf("itself", authority.der, authority.key)
    asked = [ask(rules, leaf).reason for leaf in (itself, ALICE, itself)]
    assert asked == [Reason.REVOKED] * 3


def test_a_client_in_the_ca_file_is_not_denied_by_its_other_certificate() -> None:
    """Self-signed, and renewed with its key: each is denied by its own line alone."""
    first = CA("alice")
    second = CA("alice", key=first.key)
    leaf = Leaf("alice", second.der, second.key)
    assert below(f"sha256 {first.sha256}", [first, second], [], leaf) is Reason.ALLOWED
    assert below(f"sha256 {second.sha256}", [first, second], [], leaf) is Reason.REVOKED
    pinned = ISSUING.intermediate("pinned")
    leaf = Leaf("pinned", pinned.der, pinned.key)
    assert below(f"sha256 {ISSUING.sha256}", [ROOT, ISSUING, pinned], [], leaf) is Reason.REVOKED
    assert below(f"sha256 {ISSUING.sha256}", [ROOT, pinned], [], leaf) is Reason.ALLOWED


@pytest.mark.parametrize("revocation", ["best_effort", "required"])
def test_a_crl_revokes_an_anchor_whose_issuer_stands_beside_it(revocation: str) -> None:
    """`chain: all`, `ca` a bundle of both: it revokes, but no CRL is required about an anchor."""
    text = (
        "version: 1\ntrust:\n  staff: {ca: ca.crt, crl: [x.crl], chain: CHAIN, "
        f"revocation: {revocation}}}\nlocations: [{{name: site, allow: verified}}]\n"
    )
    own = ISSUING.crl([])
    for files in (ROOT.pem + ISSUING.pem, ISSUING.pem + ROOT.pem):
        for crl, chain, expected in (
            (ROOT.crl([ISSUING]), "all", Reason.REVOKED),
            (ROOT.crl([ISSUING]), "leaf", Reason.ALLOWED),
            (ROOT.crl([]), "all", Reason.ALLOWED),
            (b"", "all", Reason.ALLOWED),
        ):
            rules = policy(text.replace("CHAIN", chain), ca_crt=files, x_crl=own + crl)
            assert ask(rules, ALICE).reason is expected
