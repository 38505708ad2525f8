"""No octet outside the signed part lets a certificate pass under another fingerprint.

Whoever holds a certificate may change what its signature doesn't cover.  For each variant that
OpenSSL still finds signed (and for what OpenSSL, and so nginx, writes of it) one thing must hold:
it is malformed here, or a `sha256` of the original refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import libcrypto
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from der import der_int, tlv

from sidecar.core.errors import MalformedCertificate
from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.der import within
from sidecar.core.x509.equivalent_fingerprints import equivalent_fingerprints
from sidecar.core.x509.signature import is_signed_by

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, tuple[Any, Any, padding.PSS | None]] = {
    "p256": (ec.generate_private_key(ec.SECP256R1()), hashes.SHA256(), None),
    "p521": (ec.generate_private_key(ec.SECP521R1()), hashes.SHA512(), None),
    "rsa": (RSA, hashes.SHA256(), None),
    "pss": (RSA, hashes.SHA256(), padding.PSS(padding.MGF1(hashes.SHA256()), 32)),
    "ed25519": (ed25519.Ed25519PrivateKey.generate(), None, None),
    "ed448": (ed448.Ed448PrivateKey.generate(), None, None),
}


def issue(kind: str, serial: int = 7) -> bytes:
    key, algorithm, rsa_padding = KEYS[kind]
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    return builder.sign(key, algorithm, rsa_padding=rsa_padding).public_bytes(Encoding.DER)


@cache
def original(kind: str) -> bytes:
    """One whose signature begins with a zero octet, where it is RSA's: zeros may go or come."""
    for serial in range(7, 5000):
        der = issue(kind, serial)
        if kind not in ("rsa", "pss") or from_der(der).signature[0] == 0:
            return der
    raise AssertionError("no signature begins with a zero octet")


def is_another(kind: str, der: bytes) -> bool:
    """Whether it is read, signed by the authority, and no `sha256` of the original refuses it."""
    try:
        cert = from_der(der)
    except MalformedCertificate:
        return False
    key = KEYS[kind][0].public_key()
    if not is_signed_by(key, cert.signed, cert.algorithm, cert):
        # Where no trust is named, nginx alone checks the signature.
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if not libcrypto.is_signed_by(der, spki):
            return False
    return from_der(original(kind)).sha256 not in (cert.sha256, *equivalent_fingerprints(cert))


def assert_none_is_another(kind: str, variants: Iterator[bytes]) -> None:
    for der in variants:
        assert not is_another(kind, der), der.hex()
        written = libcrypto.reencoded(der)
        assert written is None or not is_another(kind, written), der.hex()


@pytest.mark.parametrize("kind", KEYS)
def test_no_octet_outside_the_signed_part_makes_another_certificate(kind: str) -> None:
    """Each unsigned octet is changed, removed and doubled; every result is refused."""
    der = original(kind)
    signed = within(der, 0x30)[0]
    start = der.index(signed)
    outside = [*range(start), *range(start + len(signed), len(der))]

    def variants() -> Iterator[bytes]:
        for at in outside:
            before, octet, behind = der[:at], der[at], der[at + 1 :]
            for bit in range(8):
                yield before + bytes([octet ^ 1 << bit]) + behind
            yield before + b"\0" + behind
            yield before + b"\xff" + behind
            yield before + behind
            yield before + bytes([octet, octet]) + behind

    assert_none_is_another(kind, variants())


def long_form(tag: int, body: bytes, octets: int) -> bytes:
    return bytes([tag, 0x80 | octets]) + len(body).to_bytes(octets) + body


def encodings(tag: int, body: bytes) -> Iterator[bytes]:
    """One value in each way that BER allows."""
    for octets in (1, 2, 3, 4):
        if len(body) < 256**octets:
            yield long_form(tag, body, octets)
    yield bytes([tag | 0x20, 0x80]) + body + b"\0\0"
    yield bytes([tag | 0x20]) + tlv(tag, tlv(tag, body))[1:]
    yield tlv(tag | 0x20, tlv(tag, body))
    half = len(body) // 2
    yield tlv(tag | 0x20, tlv(tag, body[:half]), tlv(tag, b"\0" + body[half:]))


@pytest.mark.parametrize("kind", KEYS)
def test_no_other_encoding_makes_another_certificate(kind: str) -> None:
    """Other lengths, pieces and trailing octets are refused."""
    der = original(kind)
    signed, algorithm, signature = within(der, 0x30)
    bits = b"\0" + from_der(der).signature

    def variants() -> Iterator[bytes]:
        yield from encodings(0x30, signed + algorithm + signature)
        for each in encodings(0x30, algorithm[2:]):
            yield tlv(0x30, signed, each, signature)
        for each in encodings(0x03, bits):
            yield tlv(0x30, signed, algorithm, each)
        for body in _algorithms(algorithm):
            yield tlv(0x30, signed, tlv(0x30, body), signature)
        for unused in range(1, 256):
            yield tlv(0x30, signed, algorithm, tlv(0x03, bytes([unused]), bits[1:]))
            yield tlv(0x30, signed, algorithm, tlv(0x03, bytes([unused]), bits[1:], b"\0"))
        for more in (b"\0", b"\0\0", b"\x05\0", signature):
            yield der + more
            yield tlv(0x30, signed, algorithm, signature, more)

    assert_none_is_another(kind, variants())


def _algorithms(algorithm: bytes) -> Iterator[bytes]:
    """An AlgorithmIdentifier with other parameters: NULL, none, empty ones, one more."""
    oid, *parameters = within(algorithm, 0x30)
    for more in (b"", b"\x05\0", b"\x05\x81\0", tlv(0x30), b"".join(parameters) + b"\x05\0"):
        yield oid + more


@pytest.mark.parametrize("kind", KEYS)
def test_no_other_signature_of_the_same_makes_another_certificate(kind: str) -> None:
    """Other encodings of the same signature are refused."""
    der = original(kind)
    signed, algorithm, _ = within(der, 0x30)
    signature = from_der(der).signature

    def variants() -> Iterator[bytes]:
        for each in _signatures(kind, signature):
            yield tlv(0x30, signed, algorithm, tlv(0x03, b"\0", each))

    assert_none_is_another(kind, variants())


def _signatures(kind: str, signature: bytes) -> Iterator[bytes]:
    for zeros in (1, 2, 8):
        yield bytes(zeros) + signature
        yield signature + bytes(zeros)
    yield signature.lstrip(b"\0")
    key = KEYS[kind][0]
    if isinstance(key, rsa.RSAPrivateKey):
        modulus = key.public_key().public_numbers().n
        number = int.from_bytes(signature)
        for other in (number + modulus, modulus - number):
            yield other.to_bytes((other.bit_length() + 7) // 8)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        order = key.curve.group_order
        r, s = decode_dss_signature(signature)
        for first in (r, r + order, r - order, -r):
            for second in (s, order - s, s + order, s - order, -s):
                yield tlv(0x30, der_int(first), der_int(second))
        yield tlv(0x30, tlv(2, b"\0" + der_int(r)[2:]), der_int(s))
        yield tlv(0x30, der_int(r), tlv(2, b"\0\0" + der_int(order - s)[2:]))
        yield tlv(0x30, der_int(r), der_int(s), b"\x05\0")
        yield encode_dss_signature(r, order - s) + b"\0"
        yield from encodings(0x30, der_int(r) + der_int(order - s))


def test_unused_bits_of_a_signature_come_through_nginx() -> None:
    """OpenSSL accepts unused bits and writes them, so they are refused here."""
    number = next(n for n in range(7, 999) if from_der(issue("rsa", n)).signature[-1] % 2 == 0)
    signed, algorithm, signature = within(issue("rsa", number), 0x30)
    at = len(signature) - 257
    assert signature[at] == 0
    variant = tlv(0x30, signed, algorithm, signature[:at] + b"\1" + signature[at + 1 :])
    assert libcrypto.reencoded(variant) == variant
    RSA.public_key().verify(signature[at + 1 :], signed, padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(MalformedCertificate, match="whole octets"):
        from_der(variant)
