"""Refuse a key also in its other encodings."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from functools import cache

import asking
import libcrypto
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from der import der_oid, tlv
from pki import CA, Leaf, spki

from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.der import value_of, within
from sidecar.core.x509.equivalent_keys import equivalent_keys

STAFF = CA("Staff")
EC = STAFF.issue("alice")
RSA = STAFF.issue("alice", key="rsa")


def certified(leaf: Leaf, key: bytes) -> Leaf:
    """The certificate, issued again with this SubjectPublicKeyInfo."""
    tbs = leaf.cert.tbs_certificate_bytes
    body = tbs[4:] if tbs[1] == 0x82 else tbs[3:]
    changed = tlv(0x30, body.replace(spki(leaf.private), key))
    return Leaf(leaf.name, STAFF.sign_tbs(changed), leaf.private, STAFF)


def point(form: int) -> bytes:
    """The SubjectPublicKeyInfo of alice's key in one of SEC 1's forms."""
    key = EC.private.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    whole = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    sign = whole[-1] & 1
    octets = {
        2: key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
        4: whole,
        6: bytes([6 + sign]) + whole[1:],
    }[form]
    head = spki(EC.private)[2 : -len(whole) - 3]
    return tlv(0x30, head, tlv(0x03, b"\0", octets))


def rsa_key(algorithm: str) -> bytes:
    """The SubjectPublicKeyInfo of an RSA key with another AlgorithmIdentifier."""
    key = RSA.private.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    inner = key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return tlv(0x30, bytes.fromhex(algorithm), tlv(0x03, b"\0", inner))


WRITINGS = [
    (EC, point(2)),
    (EC, point(6)),
    (RSA, rsa_key("300b06092a864886f70d010101")),
    (RSA, rsa_key("300b06092a864886f70d01010a")),
    (RSA, rsa_key("301e06092a864886f70d01010a3011a00f300d06096086480165030402010500")),
    (
        RSA,
        rsa_key(
            "304106092a864886f70d01010a3034a00f300d06096086480165030402030500a11c301a06092a864886f7"
            "0d010108300d06096086480165030402030500a203020140"
        ),
    ),
]
TEXT = """
version: 1
trust: {t: {ca: ca.crt, revocation: off, denylist: [deny.txt]}}
locations: [{name: site, allow: [ALLOW], deny: [DENY]}]
"""


IDS = ["compressed", "hybrid", "no NULL", "PSS", "PSS with SHA-256", "PSS with SHA-512"]


@pytest.mark.parametrize(("leaf", "key"), WRITINGS, ids=IDS)
def test_what_refuses_a_key_refuses_its_other_writings(leaf: Leaf, key: bytes) -> None:
    """Denylist, `deny` and `not` refuse all encodings; a granting rule matches only one."""
    other = certified(leaf, key)
    for one, two in ((leaf, other), (other, leaf)):
        cert = from_der(two.der)
        sha = from_der(one.der).spki_sha256
        assert sha != cert.spki_sha256
        assert sha in equivalent_keys(cert)
        for allow, deny, listed, reason in (
            ("{cn: alice}", "", f"spki_sha256 {sha}", "revoked"),
            ("{cn: alice}", f"{{spki_sha256: {sha}}}", "", "denied_by_rule"),
            (f"{{cn: alice, not: {{spki_sha256: {sha}}}}}", "", "", "not_allowed"),
            (f"{{spki_sha256: {sha}}}", "", "", "not_allowed"),
            ("{cn: alice}", "", "", "allowed"),
        ):
            text = TEXT.replace("ALLOW", allow).replace("DENY", deny)
            rules = asking.policy(text, ca_crt=STAFF.pem, deny_txt=listed.encode())
            assert asking.ask(rules, two).reason == reason


@pytest.mark.parametrize(
    "algorithm",
    [
        "300e06092a864886f70d010101020105",
        "301006092a864886f70d0101010403616263",
        "3006060455080101",
        "300a06045508010102020800",
        "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d01"
        "0108300d06096086480165030402010500a203020115",
    ],
    ids=["a number", "octets", "X.509's rsa", "X.509's rsa with a size", "PSS with a salt of 21"],
)
def test_an_rsa_key_with_any_parameters_is_refused_by_its_usual_writing(algorithm: str) -> None:
    """OpenSSL ignores the parameters of rsaEncryption: the usual SPKI's hash refuses them all."""
    other = certified(RSA, rsa_key(algorithm))
    assert libcrypto.is_key(from_der(other.der).spki)
    sha = from_der(RSA.der).spki_sha256
    text = TEXT.replace("ALLOW", "{cn: alice}").replace("DENY", "")
    rules = asking.policy(text, ca_crt=STAFF.pem, deny_txt=f"spki_sha256 {sha}".encode())
    assert asking.ask(rules, other).reason == "revoked"


@cache
def dsa_key() -> tuple[bytes, bytes]:
    """The parameters and the octets of the bits of a DSA key."""
    public = dsa.generate_private_key(2048).public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    algorithm, bits = within(der, 0x30)
    return within(algorithm, 0x30)[1], bits[value_of(bits, 0) + 1 :]


def dsa_spki(oid: str, octets: bytes = b"") -> bytes:
    parameters, number = dsa_key()
    return tlv(0x30, tlv(0x30, der_oid(oid), parameters), tlv(0x03, b"\0", octets or number))


DSA = ("1.2.840.10040.4.1", "1.2.840.10040.4.3", "1.3.14.3.2.12", "1.3.14.3.2.13", "1.3.14.3.2.27")


@pytest.mark.parametrize("oid", DSA)
def test_a_dsa_key_is_refused_by_each_of_its_oids(oid: str) -> None:
    """nginx 1.22 and 1.31 take a DSA key under any of these for the same one."""
    other = certified(EC, dsa_spki(oid))
    assert libcrypto.is_key(dsa_spki(oid))
    for refused in DSA:
        sha = hashlib.sha256(dsa_spki(refused)).hexdigest()
        text = TEXT.replace("ALLOW", "{cn: alice}").replace("DENY", "")
        rules = asking.policy(text, ca_crt=STAFF.pem, deny_txt=f"spki_sha256 {sha}".encode())
        assert asking.ask(rules, other).reason == "revoked"


def test_octets_behind_a_dsa_keys_number_are_malformed() -> None:
    """OpenSSL passes over them."""
    key = dsa_spki(DSA[0], dsa_key()[1] + b"behind")
    assert libcrypto.is_key(key)
    rules = asking.site("verified")
    assert asking.ask(rules, certified(EC, key)).reason == "malformed_certificate"
    assert asking.ask(rules, certified(EC, dsa_spki(DSA[0]))).reason == "allowed"


def test_a_point_that_can_not_be_read_has_no_other_writing() -> None:
    """An invalid point, and a key of another type, has no other encoding."""
    cert = from_der(EC.der)
    for octets in (b"", b"\2" + 32 * b"\xff", b"\4\1", b"\x05\1\2"):
        key = tlv(0x30, point(4)[2:23], tlv(0x03, b"\0", octets))
        assert equivalent_keys(replace(cert, spki=key)) == ()
    ed = bytes.fromhex("302a300506032b6570032100") + hashlib.sha256(b"").digest()
    assert equivalent_keys(replace(cert, spki=ed)) == ()


@pytest.mark.parametrize("curve", ["secp224k1", "brainpoolP320r1", "sect283k1"])
def test_a_curve_that_the_library_lacks(curve: str) -> None:
    """Refused as a compressed or hybrid point, a key is refused as an uncompressed one; without a
    denylist a compressed one is malformed, so that it never evades a refusal of the others."""
    whole, compressed, hybrid = points(curve)
    malformed = asking.ask(asking.site("verified"), certified(EC, compressed))
    assert malformed.reason == "malformed_certificate"
    for refused in (whole, compressed, hybrid):
        text = TEXT.replace("ALLOW", "{cn: alice}").replace("DENY", "")
        listed = f"spki_sha256 {hashlib.sha256(refused).hexdigest()}"
        rules = asking.policy(text, ca_crt=STAFF.pem, deny_txt=listed.encode())
        for shown in (whole, hybrid):
            assert asking.ask(rules, certified(EC, shown)).reason == "revoked"


def points(curve: str) -> list[bytes]:
    """A key of OpenSSL's on a curve, in SEC 1's forms: uncompressed, compressed, hybrid."""
    made = ["openssl", "ecparam", "-name", curve, "-genkey", "-noout"]
    private = subprocess.run(made, capture_output=True, check=True).stdout
    write = ["openssl", "ec", "-pubout", "-outform", "DER", "-conv_form"]
    forms = ("uncompressed", "compressed", "hybrid")
    written = [subprocess.run([*write, f], input=private, capture_output=True) for f in forms]
    return [each.stdout for each in written]
