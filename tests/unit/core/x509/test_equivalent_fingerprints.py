"""A holder who alters his certificate's signature, validly: what refused him still does."""

from __future__ import annotations

import asking
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from der import tlv
from pki import CA, Leaf

from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.equivalent_fingerprints import equivalent_fingerprints

CURVES: list[type[ec.EllipticCurve]] = [
    ec.SECP256R1, ec.SECP384R1, ec.SECP521R1, ec.SECP256K1, ec.BrainpoolP256R1,
]  # fmt: skip


def turned_over(leaf: Leaf) -> Leaf:
    """The certificate with (r, n - s) for its (r, s)."""
    assert leaf.issuer is not None
    key = leaf.issuer.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(leaf.cert.signature)
    other = encode_dss_signature(r, key.curve.group_order - s)
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    der = tlv(0x30, leaf.cert.tbs_certificate_bytes, algorithm, tlv(0x03, b"\0", other))
    return Leaf(leaf.name, der, leaf.private, leaf.issuer)


@pytest.mark.parametrize("curve", CURVES)
def test_the_twin_is_valid_and_known(curve: type[ec.EllipticCurve]) -> None:
    """Both verify by the issuer's key, and each one's fingerprint is among the other's twins."""
    authority = CA("EC", key=ec.generate_private_key(curve()))
    leaf = authority.issue("alice")
    twin = turned_over(leaf)
    twin.cert.verify_directly_issued_by(authority.cert)
    assert twin.sha256 != leaf.sha256
    assert twin.sha256 in equivalent_fingerprints(from_der(leaf.der))
    assert leaf.sha256 in equivalent_fingerprints(from_der(twin.der))


def test_rsa_signatures_have_no_twin() -> None:
    """A certificate that an RSA authority signed has one fingerprint."""
    assert equivalent_fingerprints(from_der(CA("RSA", key="rsa").issue("alice").der)) == ()


STAFF = CA("Staff")
ALICE = STAFF.issue("alice")
TRUST = "version: 1\ntrust: {t: {ca: ca.crt, revocation: off, denylist: [deny.txt]}}\n"
SITE = TRUST + "locations: [{name: site, allow: [ALLOW], deny: [DENY]}]\n"


@pytest.mark.parametrize(
    ("allow", "deny", "line", "reason", "of_twin"),
    [
        ("{cn: alice}", "", "", "allowed", "allowed"),
        ("{cn: alice}", "", "sha256 SHA", "revoked", "revoked"),
        ("{cn: alice}", "{sha256: SHA}", "", "denied_by_rule", "denied_by_rule"),
        ("{cn: alice, not: {sha256: SHA}}", "", "", "not_allowed", "not_allowed"),
        ("{sha256: SHA}", "", "", "allowed", "not_allowed"),
    ],
)
def test_what_refuses_a_fingerprint_refuses_the_twin(
    allow: str, deny: str, line: str, reason: str, of_twin: str
) -> None:
    """By denylist, `deny` or `not`; what grants by a fingerprint grants that one only."""
    text = SITE.replace("ALLOW", allow).replace("DENY", deny).replace("SHA", ALICE.sha256)
    listed = line.replace("SHA", ALICE.sha256).encode() + b"\n"
    rules = asking.policy(text, ca_crt=STAFF.pem, deny_txt=listed)
    assert asking.ask(rules, ALICE).reason == reason
    assert asking.ask(rules, turned_over(ALICE)).reason == of_twin
