"""Check that a SubjectPublicKeyInfo is DER, down to the numbers of an RSA or DSA key.

OpenSSL accepts more encodings of one key: unused bits (it sets them to zero), lengths of more
octets than needed, and in an RSA key leading zeros, a negative modulus and octets behind the
numbers; in a DSA key, octets behind the number.  The holder of a refused key could have it
certified again in one of them, with another SHA-256.  For the same reason a compressed point must
be one that the library can decompress.  Otherwise, whether the key can be used is not checked.
"""

from __future__ import annotations

from .der import INTEGER, OID, SEQUENCE, check_values, encode, is_integer, slices, value_of, within
from .keys import UnusableKey, public_key

RSA = (
    bytes.fromhex("06092a864886f70d010101"),
    bytes.fromhex("06092a864886f70d01010a"),
    bytes.fromhex("060455080101"),
)
"""Algorithms of an RSA key that OpenSSL accepts: rsaEncryption, RSASSA-PSS and X.509's rsa."""

DSA = (
    bytes.fromhex("06072a8648ce380401"),
    bytes.fromhex("06072a8648ce380403"),
    bytes.fromhex("06052b0e03020c"),
    bytes.fromhex("06052b0e03020d"),
    bytes.fromhex("06052b0e03021b"),
)
"""Algorithms of a DSA key that OpenSSL accepts: id-dsa, and four that were for signatures."""

_EC = bytes.fromhex("06072a8648ce3d0201")

_USUAL = frozenset(
    bytes.fromhex(algorithm)
    for algorithm in (
        "300d06092a864886f70d0101010500",  # rsaEncryption
        "301306072a8648ce3d020106082a8648ce3d030107",  # P-256
        "301006072a8648ce3d020106052b81040022",  # P-384
        "300506032b6570",  # Ed25519
    )
)
"""Algorithms that need no check, as they are the usual ones."""


def check_key(algorithm: bytes, bits: bytes) -> None:
    """Check the AlgorithmIdentifier and BIT STRING of a SubjectPublicKeyInfo.  Raises ValueError.

    The lengths of both must have been checked.
    """
    start = value_of(bits, 0)
    if bits[start : start + 1] != b"\0":
        raise ValueError("its public key isn't whole octets")
    if algorithm not in _USUAL:
        _check_algorithm(algorithm)
    if is_rsa(algorithm):
        _check_numbers(within(bits[start + 1 :], SEQUENCE), 2)
    elif is_dsa(algorithm):
        _check_numbers(slices(bits, start + 1, len(bits)), 1)
    elif is_ec(algorithm) and bits[start + 1 : start + 2] in (b"\2", b"\3"):
        _check_point(encode(SEQUENCE, algorithm + bits))


def is_rsa(algorithm: bytes) -> bool:
    """Return whether an AlgorithmIdentifier is an RSA key's, with any parameters."""
    return algorithm[value_of(algorithm, 0) :].startswith(RSA)


def is_dsa(algorithm: bytes) -> bool:
    """Return whether an AlgorithmIdentifier is a DSA key's, with any parameters."""
    return algorithm[value_of(algorithm, 0) :].startswith(DSA)


def is_ec(algorithm: bytes) -> bool:
    """Return whether an AlgorithmIdentifier is an elliptic curve key's, with any parameters."""
    return algorithm[value_of(algorithm, 0) :].startswith(_EC)


def _check_point(spki: bytes) -> None:
    try:
        public_key(spki)
    except UnusableKey:
        raise ValueError(
            "its public key is a compressed point that can't be decompressed here"
        ) from None


def _check_algorithm(algorithm: bytes) -> None:
    parts = within(algorithm, SEQUENCE)
    if len(parts) not in (1, 2) or parts[0][0] != OID:
        raise ValueError("the algorithm of its public key is not an OID and parameters")
    check_values(algorithm, 0, len(algorithm))


def _check_numbers(numbers: list[bytes], amount: int) -> None:
    """Check the numbers of an RSAPublicKey (RFC 8017, A.1.1) or DSAPublicKey (RFC 3279, 2.3.2)."""
    if [each[0] for each in numbers] != [INTEGER] * amount:
        raise ValueError(f"its RSA or DSA key is not {amount} numbers")
    values = [each[value_of(each, 0) :] for each in numbers]
    if not all(is_integer(value) and value[0] < 0x80 for value in values):
        raise ValueError("a number of its key is not positive, or has leading zeros")
