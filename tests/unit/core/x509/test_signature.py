"""Verify signatures over the received octets."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import libcrypto
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from der import der_oid, tlv
from pki import CA, spki

from sidecar.core.errors import MalformedCertificate
from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.der import within
from sidecar.core.x509.path_building import Anchors
from sidecar.core.x509.signature import is_signed_by, take_apart

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, tuple[Any, Any, padding.PSS | None]] = {
    "p256": (ec.generate_private_key(ec.SECP256R1()), hashes.SHA256(), None),
    "p384": (ec.generate_private_key(ec.SECP384R1()), hashes.SHA384(), None),
    "rsa": (RSA, hashes.SHA256(), None),
    "pss": (RSA, hashes.SHA256(), padding.PSS(padding.MGF1(hashes.SHA256()), 32)),
    "ed25519": (ed25519.Ed25519PrivateKey.generate(), None, None),
    "ed448": (ed448.Ed448PrivateKey.generate(), None, None),
    "mldsa": (mldsa.MLDSA44PrivateKey.generate(), None, None),
}


def certificate(kind: str, cn: str = "a") -> x509.Certificate:
    """A self-signed CA certificate by a key of that kind."""
    key, algorithm, rsa_padding = KEYS[kind]
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), 7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
    )
    return builder.sign(key, algorithm, rsa_padding=rsa_padding)


def others(kind: str) -> list[str]:
    """Kinds with another key: the two of RSA share one."""
    return [name for name in KEYS if KEYS[name][0] is not KEYS[kind][0]]


@pytest.mark.parametrize("kind", KEYS)
def test_each_algorithm_verifies_and_no_other_key_does(kind: str) -> None:
    """Only the signer's key verifies, and only for exactly these octets."""
    cert = certificate(kind)
    signed, algorithm, _ = take_apart(cert.public_bytes(Encoding.DER))
    assert signed == cert.tbs_certificate_bytes
    for _ in range(2):  # the second time the algorithm is known
        assert is_signed_by(cert.public_key(), signed, algorithm, cert)
        assert not is_signed_by(cert.public_key(), signed + b"\0", algorithm, cert)
        for other in others(kind):
            assert not is_signed_by(KEYS[other][0].public_key(), signed, algorithm, cert)
        assert not is_signed_by(None, signed, algorithm, cert)


@pytest.mark.parametrize("kind", KEYS)
def test_the_same_name_with_another_key_leads_nowhere(kind: str) -> None:
    """Only the anchor whose key made the signature is accepted."""
    leaf = from_der(certificate(kind).public_bytes(Encoding.DER))
    for other in others(kind):
        stranger = from_der(certificate(other).public_bytes(Encoding.DER))
        assert Anchors([stranger], []).issuing_path(leaf, NOW.timestamp()) is None


def test_the_algorithm_within_and_without_are_one() -> None:
    """Different algorithms inside and outside the signed part are refused (RFC 5280, 4.1.1.2)."""
    der = certificate("p256").public_bytes(Encoding.DER)
    sha256, sha384 = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040303")
    assert der.count(sha256) == 2
    changed = der.replace(sha256, sha384, 1)
    with pytest.raises(MalformedCertificate, match="differ"):
        from_der(changed)
    assert x509.load_der_x509_certificate(changed).serial_number == 7  # well-formed in all else


EC_CA, RSA_CA = CA("EC"), CA("RSA", key="rsa")
PARAMETERS = {
    "none": b"",
    "NULL": tlv(0x05),
    "an empty SEQUENCE": tlv(0x30),
    "a number": tlv(0x02, b"\1"),
    "a padded number": tlv(0x02, b"\0\1"),
    "a SEQUENCE without its bit": tlv(0x10),
    "half a value": b"\5",
    "two": tlv(0x05) * 2,
}


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("ca", [EC_CA, RSA_CA], ids=["ECDSA", "RSA"])
def test_parameters_that_openssl_ignores_are_ignored(ca: CA, parameters: str) -> None:
    """Java 11 and 17 wrote NULL behind ecdsa-with-SHA256."""
    oid, *_ = within(within(ca.der, 0x30)[1], 0x30)
    algorithm = tlv(0x30, oid, PARAMETERS[parameters])
    der = ca.forge("alice", algorithm=algorithm).der
    now = time.time()
    try:
        cert = from_der(der)
    except MalformedCertificate:
        cert = None
    trusted = Anchors([from_der(ca.der)], [])
    found = [cert and each(cert, now) for each in (trusted.issuing_path, trusted.verified_path)]
    taken = libcrypto.verdict([ca.der], [], der, now) == ""
    assert [path is not None for path in found] == [taken, taken]
    assert taken is (parameters in ("none", "NULL", "an empty SEQUENCE", "a number"))


SHA1, SHA256 = "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1"
HASHES: dict[str, hashes.HashAlgorithm] = {SHA1: hashes.SHA1(), SHA256: hashes.SHA256()}


def digest(oid: str, *parameters: bytes) -> bytes:
    return tlv(0x30, der_oid(oid), *parameters)


def hashed(oid: str, *parameters: bytes) -> bytes:
    return tlv(0xA0, digest(oid, *parameters))


def masked(oid: str, *parameters: bytes) -> bytes:
    return tlv(0xA1, tlv(0x30, der_oid("1.2.840.113549.1.1.8"), digest(oid, *parameters)))


def salted(octets: bytes) -> bytes:
    return tlv(0xA2, tlv(0x02, octets))


def trailed(number: int) -> bytes:
    return tlv(0xA3, tlv(0x02, bytes([number])))


NULL = tlv(0x05)
USUAL = hashed(SHA256, NULL) + masked(SHA256, NULL)
PSS = {
    "usual": (USUAL + salted(b"\x20"), SHA256, SHA256, 32, True),
    "no NULL": (hashed(SHA256) + masked(SHA256) + salted(b"\x20"), SHA256, SHA256, 32, True),
    "a salt of 20": (USUAL, SHA256, SHA256, 20, True),
    "a salt of 20, written": (USUAL + salted(b"\x14"), SHA256, SHA256, 20, True),
    "a trailer": (USUAL + salted(b"\x20") + trailed(1), SHA256, SHA256, 32, True),
    "all": (USUAL + salted(b"\x14") + trailed(1), SHA256, SHA256, 20, True),
    "mask": (hashed(SHA256) + masked(SHA1) + salted(b"\x20"), SHA256, SHA1, 32, True),
    "mask with NULL": (hashed(SHA256) + masked(SHA1, NULL), SHA256, SHA1, 20, True),
    "another salt": (USUAL + salted(b"\x14"), SHA256, SHA256, 32, False),
    "another trailer": (USUAL + salted(b"\x20") + trailed(2), SHA256, SHA256, 32, False),
    "twice": (USUAL + salted(b"\x14") + salted(b"\x20"), SHA256, SHA256, 32, False),
    "out of order": (masked(SHA1) + hashed(SHA256), SHA256, SHA1, 20, False),
    "a padded salt": (USUAL + salted(b"\0\x14"), SHA256, SHA256, 20, False),
    "octets behind": (USUAL + salted(b"\x20") + NULL, SHA256, SHA256, 32, False),
}
"""Parameters of RSASSA-PSS; hash, mask and salt of the signature; whether it holds."""


@pytest.mark.parametrize("form", PSS)
def test_defaults_of_rsassa_pss_may_be_written_out(form: str) -> None:
    """What DER leaves out, OpenSSL accepts; and what it refuses is refused."""
    parameters, hashing, mask, salt, holds = PSS[form]
    algorithm = tlv(0x30, der_oid("1.2.840.113549.1.1.10"), tlv(0x30, parameters))
    tbs = within(RSA_CA.forge("alice", algorithm=algorithm).der, 0x30)[0]
    assert isinstance(RSA_CA.key, rsa.RSAPrivateKey)
    how = padding.PSS(padding.MGF1(HASHES[mask]), salt)
    signature = RSA_CA.key.sign(tbs, how, HASHES[hashing])
    der = tlv(0x30, tbs, algorithm, tlv(0x03, b"\0", signature))
    assert libcrypto.is_signed_by(der, spki(RSA_CA.key)) is holds
    try:
        cert = from_der(der)
    except MalformedCertificate:
        cert = None
    trusted = Anchors([from_der(RSA_CA.der)], [])
    for find in (trusted.issuing_path, trusted.verified_path):
        assert (cert is not None and find(cert, time.time()) is not None) is holds
