"""Public keys: which can be used, and which OpenSSL's security level 2 refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pki import CA, spki

from sidecar.core.x509.keys import (
    UnusableKey,
    has_explicit_curve,
    key_algorithm,
    public_key,
    weakness,
)


@pytest.mark.parametrize(
    ("new_key", "told"),
    [
        (lambda: ec.generate_private_key(ec.SECP256R1()), ""),
        (lambda: ec.generate_private_key(ec.SECP192R1()), "its curve secp192r1 has 192 bits"),
        (lambda: rsa.generate_private_key(65537, 2048), ""),
        (lambda: rsa.generate_private_key(65537, 1024), "its RSA key has 1024 bits"),
        (ed25519.Ed25519PrivateKey.generate, ""),
        (ed448.Ed448PrivateKey.generate, ""),
        (x25519.X25519PrivateKey.generate, "its key is of a type that isn't accepted"),
        (lambda: dsa.generate_private_key(2048), "its key is of a type that isn't accepted"),
    ],
    ids=["P-256", "P-192", "RSA 2048", "RSA 1024", "Ed25519", "Ed448", "X25519", "DSA"],
)
def test_which_keys_are_strong_enough(new_key: Callable[[], Any], told: str) -> None:
    """112 bits of security at least; DSA, and a key that signs nothing, whatever their size."""
    assert weakness(new_key().public_key()) == told


@pytest.mark.parametrize("octets", [b"", b"\x30\x00", b"garbage"])
def test_what_is_no_key_has_one_error(octets: bytes) -> None:
    """Whatever the library raises, it is `UnusableKey` with a text."""
    with pytest.raises(UnusableKey, match="its public key can't be used: "):
        public_key(octets)


def test_a_named_curve_is_not_an_explicit_one() -> None:
    """The algorithm's parameters are an OID, or the curve written out."""
    named = spki(CA("x").key)
    oid, parameters = key_algorithm(named)
    assert not has_explicit_curve(named)
    algorithm = oid + b"\x30\x00"  # a SEQUENCE stands for the curve's parameters
    head = b"\x30" + bytes([len(algorithm)]) + algorithm
    assert has_explicit_curve(b"\x30" + bytes([len(head) + 2]) + head + b"\x03\x00")
    assert parameters[:1] == b"\x06"
    plain = ed25519.Ed25519PrivateKey.generate().public_key()
    der = plain.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key_algorithm(der)[1] == b""
    assert not has_explicit_curve(der)
