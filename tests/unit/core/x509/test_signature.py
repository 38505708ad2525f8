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
from der import tlv
from pki import CA

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
