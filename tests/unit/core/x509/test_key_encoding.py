"""Refuse public keys that OpenSSL reads but that aren't DER."""

from __future__ import annotations

from collections.abc import Callable

import asking
import libcrypto
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from der import der_int, tlv
from pki import CA, Leaf, new_key, spki

from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.der import SEQUENCE, value_of, within

STAFF = CA("Staff")
TEXT = "version: 1\nlocations: [{name: site, allow: verified}]\n"
_RSA, _EC = STAFF.issue("alice", key="rsa"), STAFF.issue("alice")


def certified(leaf: Leaf, key: bytes) -> Leaf:
    """The certificate, issued again with this SubjectPublicKeyInfo."""
    tbs = leaf.cert.tbs_certificate_bytes
    body = tbs[value_of(tbs, 0) :].replace(spki(leaf.private), key)
    return Leaf(leaf.name, STAFF.sign_tbs(tlv(0x30, body)), leaf.private, STAFF)


def parts(leaf: Leaf) -> tuple[bytes, bytes]:
    algorithm, bits = within(spki(leaf.private), SEQUENCE)
    return algorithm, bits[value_of(bits, 0) + 1 :]


def with_bits(algorithm: bytes, octets: bytes, unused: int = 0) -> bytes:
    return tlv(0x30, algorithm, tlv(0x03, bytes([unused]), octets))


def rsa_forms() -> dict[str, bytes]:
    algorithm, key = parts(_RSA)
    public = _RSA.private.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    n = public.public_numbers().n.to_bytes(256)
    e = der_int(65537)
    long = tlv(0x02, b"\0" + n)
    return {
        "leading zeros": with_bits(algorithm, tlv(0x30, tlv(0x02, b"\0\0" + n), e)),
        "a negative modulus": with_bits(algorithm, tlv(0x30, tlv(0x02, n), e)),
        "zeros before the exponent": with_bits(algorithm, tlv(0x30, long, tlv(0x02, b"\0\1\0\1"))),
        "octets behind": with_bits(algorithm, key + b"behind"),
        "a long length": with_bits(algorithm, tlv(0x30, long, b"\2\x81\3" + e[2:])),
        "no definite length": with_bits(algorithm, b"\x30\x80" + long + e + b"\0\0"),
        "a long length in the algorithm": with_bits(
            tlv(0x30, b"\6\x81\x09" + algorithm[4:13] + b"\5\0"), key
        ),
    }


def with_unused_bit(key: bytes) -> bytes:
    """The key, which ends in a bit 0, with this bit unused and set."""
    algorithm, bits = within(key, SEQUENCE)
    octets = bits[value_of(bits, 0) + 1 :]
    return with_bits(algorithm, octets[:-1] + bytes([octets[-1] | 1]), 1)


def even(new: Callable[[], bytes]) -> bytes:
    """A SubjectPublicKeyInfo that ends in a bit 0."""
    return next(key for _ in range(100) if not (key := new())[-1] & 1)


def ed25519_key() -> bytes:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


FORMS = {
    **rsa_forms(),
    "an unused bit of P-256": with_unused_bit(even(lambda: spki(new_key()))),
    "an unused bit of Ed25519": with_unused_bit(even(ed25519_key)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_key_in_a_form_that_is_not_der_is_malformed(form: str) -> None:
    """OpenSSL reads each as the same key; with it, nobody evades a refused `spki_sha256`."""
    key = FORMS[form]
    assert libcrypto.is_key(key)
    decision = asking.ask(asking.policy(TEXT), certified(_EC, key))
    assert decision.reason == "malformed_certificate"


def test_keys_as_libraries_write_them_are_read() -> None:
    """A key in DER stays readable."""
    for key in (spki(_RSA.private), spki(_EC.private), ed25519_key()):
        assert from_der(certified(_EC, key).der).spki == key


def test_an_algorithm_that_is_not_an_oid_and_parameters_is_malformed() -> None:
    """Nothing, or three parts, is no AlgorithmIdentifier; two numbers make an RSA key."""
    algorithm, octets = parts(_RSA)
    for key in (
        with_bits(tlv(0x30, algorithm[2:], b"\5\0"), octets),
        with_bits(tlv(0x30), octets),
        with_bits(tlv(0x30, b"\5\0"), octets),
        with_bits(algorithm, tlv(0x30, der_int(15))),
        tlv(0x30, algorithm, b"\3\0"),
    ):
        decision = asking.ask(asking.policy(TEXT), certified(_RSA, key))
        assert decision.reason == "malformed_certificate"
