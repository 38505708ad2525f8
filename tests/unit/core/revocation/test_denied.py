"""Denylists about clients, and about the authorities above them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from asking import NOW, ask, policy, request
from pki import CA, Leaf, now

from sidecar.core.decision import Decision, Reason
from sidecar.core.evaluate import evaluate
from sidecar.core.revocation.denylist import parse_denylist
from sidecar.core.revocation.ocsp.response import OcspAnswer, ocsp_key
from sidecar.core.revocation.status import RevocationStatus
from sidecar.core.x509.certificate import from_der

DAY = timedelta(days=1)

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


# -- who signs CRLs and OCSP answers


SIGNER = CA("x", issuer=ROOT, subject=ISSUING.subject)
"""Another certificate of the issuing CA, whose key signs its CRLs."""
END = (now() + 3 * DAY).replace(hour=0, minute=0, second=0)
LINES = [
    f"sha256 {SIGNER.sha256}",
    f"spki_sha256 {from_der(SIGNER.der).spki_sha256}",
    f"sha256 {SIGNER.sha256} until {END:%Y-%m-%dT%H:%M:%SZ}",
]


@pytest.mark.parametrize("place", ["trust", "fleet"])
def test_a_signer_on_a_denylist_says_good_of_nobody(place: str) -> None:
    """Whoever stole the key of a CA's CRLs can take back no revocation by it."""
    text = (
        "version: 1\ntrust: {staff: {ca: ca.crt, intermediates: between.crt, crl: [x.crl], "
        "denylist: deny.txt}}\nlocations: [{name: site, allow: verified}]\n"
    )
    carol = ISSUING.issue("carol")

    def asked(line: str, more: bytes = b"") -> list[Decision]:
        lists = (parse_denylist(line.encode(), "fleet"),) if place == "fleet" else ()
        rules = policy(
            text,
            ca_crt=ROOT.pem,
            between_crt=ISSUING.pem + SIGNER.pem,
            x_crl=SIGNER.crl([carol]) + more,
            deny_txt=b"" if lists else line.encode(),
        )
        return [ask(replace(rules, denylists=lists), leaf) for leaf in (ALICE, carol)]

    unknown, revoked = Reason.REVOCATION_UNKNOWN, Reason.REVOKED
    assert [each.reason for each in asked("")] == [Reason.ALLOWED, revoked]
    whole, key, brief = (asked(line) for line in LINES)
    for found in (whole, key, brief):
        assert [each.reason for each in found] == [unknown, revoked]
    assert brief[0].expires == END.timestamp() < whole[0].expires
    assert asked(LINES[0], ISSUING.crl())[0].reason is Reason.ALLOWED
    assert asked(f"serial {SIGNER.serial:x}")[0].reason is Reason.ALLOWED


@pytest.mark.parametrize("nocheck", [False, True])
def test_a_responder_on_a_denylist_says_good_of_nobody(nocheck: bool) -> None:
    """id-pkix-ocsp-nocheck in its certificate waives its CA's CRL, and no denylist."""
    text = (
        'version: 1\ntrust: {staff: {ca: ca.crt, ocsp: "http://r/", crl: [x.crl], '
        "denylist: deny.txt}}\nlocations: [{name: site, allow: verified}]\n"
    )
    responder = ISSUING.issue("responder")
    delegate = from_der(responder.der)
    answer = OcspAnswer(
        RevocationStatus.GOOD, until=NOW + 99, since=0.0, delegate=delegate, nocheck=nocheck
    )

    def asked(line: str, revoked: Sequence[Leaf] = ()) -> Reason:
        ended = ISSUING.crl(revoked, this_update=now() - 9 * DAY, next_update=now() - 8 * DAY)
        files = {"ca_crt": ISSUING.pem, "x_crl": ended}
        rules = policy(text, **files, deny_txt=line.encode())
        key = ocsp_key(from_der(ALICE.der), from_der(ISSUING.der), 0, "http://r/")
        key = key._replace(tolerance=rules.trusts["staff"].clock_tolerance)
        return evaluate(rules, request(ALICE), NOW, {key: answer}).reason

    assert asked("") is Reason.ALLOWED
    assert asked("", [responder]) is (Reason.ALLOWED if nocheck else Reason.REVOCATION_UNKNOWN)
    for line in (f"sha256 {delegate.sha256}", f"spki_sha256 {delegate.spki_sha256}"):
        assert asked(line) is Reason.REVOCATION_UNKNOWN
