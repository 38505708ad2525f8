"""Refuse a certificate also after its holder has changed its signature to an equivalent one."""

from __future__ import annotations

import hashlib
import re
import ssl
from pathlib import Path

import asking
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from der import tlv
from pki import CA, Leaf
from tools import need, openssl

from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.curve_orders import ORDERS
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
    """Both signatures verify, and each fingerprint is among the other's equivalents."""
    authority = CA("EC", key=ec.generate_private_key(curve()))
    leaf = authority.issue("alice")
    twin = turned_over(leaf)
    twin.cert.verify_directly_issued_by(authority.cert)
    assert twin.sha256 != leaf.sha256
    assert twin.sha256 in equivalent_fingerprints(from_der(leaf.der))
    assert leaf.sha256 in equivalent_fingerprints(from_der(twin.der))


def test_rsa_signatures_have_no_twin() -> None:
    """A certificate signed with RSA (PKCS #1 v1.5) has only one fingerprint."""
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
    """Denylist, `deny` and `not` refuse both; a granting rule matches only one."""
    text = SITE.replace("ALLOW", allow).replace("DENY", deny).replace("SHA", ALICE.sha256)
    listed = line.replace("SHA", ALICE.sha256).encode() + b"\n"
    rules = asking.policy(text, ca_crt=STAFF.pem, deny_txt=listed)
    assert asking.ask(rules, ALICE).reason == reason
    assert asking.ask(rules, turned_over(ALICE)).reason == of_twin


def curve_orders() -> dict[str, int]:
    """The order of every curve that this machine's OpenSSL has a name for."""
    listed = _openssl("ecparam", "-list_curves")
    found = {}
    for name in re.findall(r"^ +([\w-]+) *:", listed, re.MULTILINE):
        text = _openssl("ecparam", "-name", name, "-param_enc", "explicit", "-text", "-noout")
        digits = re.search(r"Order:((?:\s+[0-9a-f:]+\n)+)|Order: (\d+) ", text)
        assert digits is not None
        hexadecimal, decimal = digits.groups()
        found[name] = int(decimal) if decimal else int(re.sub(r"[\s:]", "", hexadecimal), 16)
    return found


def _openssl(*arguments: str) -> str:
    return need(openssl()).run(*arguments, check=True, capture_output=True, text=True).stdout


def test_the_order_of_every_named_curve_is_known() -> None:
    """Equivalents are found for every curve that OpenSSL has a name for."""
    orders = curve_orders()
    assert len(orders) >= 40
    assert {name for name, order in orders.items() if order not in ORDERS} == set()


@pytest.mark.parametrize("curve", ["sect283k1", "sect571r1", "brainpoolP320r1", "prime239v1"])
def test_the_twin_by_an_uncommon_curve_is_known(tmp_path: Path, curve: str) -> None:
    """OpenSSL verifies both, although `cryptography` lacks the curve."""
    key, ca, leaf, twin = (str(tmp_path / name) for name in ("key", "ca", "leaf", "twin"))
    _openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", key)
    new = ("req", "-x509", "-key", key, "-sha256", "-days", "2")
    _openssl(*new, "-subj", "/CN=Odd", "-out", ca)
    more = ("-addext", "basicConstraints=critical,CA:FALSE")
    _openssl(*new, "-subj", "/CN=alice", "-CA", ca, "-CAkey", key, *more, "-out", leaf)
    cert = from_der(ssl.PEM_cert_to_DER_cert(Path(leaf).read_text()))
    r, s = decode_dss_signature(cert.signature)
    other = encode_dss_signature(r, curve_orders()[curve] - s)
    der = tlv(0x30, cert.signed, cert.algorithm, tlv(0x03, b"\0", other))
    Path(twin).write_text(ssl.DER_cert_to_PEM_cert(der))
    for each in (leaf, twin):
        assert "OK" in _openssl("verify", "-CAfile", ca, each)
    assert hashlib.sha256(der).hexdigest() in equivalent_fingerprints(cert)
