"""The other fingerprints that a certificate's holder can give it.

Of an ECDSA signature (r, s) the pair (r, n - s) is as valid, n being the order of the curve, and
anybody can compute it (SEC 1, 4.1.4 verifies both; X.509 demands neither).  So a certificate that
an EC authority signed has a twin with the same contents, the same key and another SHA-256.  What
refuses a fingerprint must refuse the twin's as well; what grants by one grants that one only.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from .certificate import ClientCert

_ECDSA = "1.2.840.10045."
_SLACK = 64
"""Bits by which both numbers of a signature are never shorter than the order (but for 2^-64)."""

_ORDERS = tuple(
    curve.group_order
    for curve in (
        ec.SECP192R1, ec.SECP224R1, ec.SECP256R1, ec.SECP384R1, ec.SECP521R1, ec.SECP256K1,
        ec.BrainpoolP256R1, ec.BrainpoolP384R1, ec.BrainpoolP512R1,
    )
)  # fmt: skip


def twins(cert: ClientCert) -> tuple[str, ...]:
    """SHA-256, in hex, of the certificate with its signature turned over, by every likely curve.

    The certificate doesn't say its issuer's curve, and its holder doesn't choose it.
    """
    if not cert.x509.signature_algorithm_oid.dotted_string.startswith(_ECDSA):
        return ()
    try:
        r, s = decode_dss_signature(cert.x509.signature)
    except ValueError:
        return ()
    signed = cert.signed + cert.algorithm
    length = max(r, s).bit_length()
    likely = {n for n in _ORDERS if max(r, s) < n and n.bit_length() - length < _SLACK}
    return tuple(_sha256(signed, encode_dss_signature(r, n - s)) for n in sorted(likely))


def _sha256(signed: bytes, signature: bytes) -> str:
    bits = b"\0" + signature
    return hashlib.sha256(_tlv(0x30, signed + _tlv(0x03, bits))).hexdigest()


def _tlv(tag: int, value: bytes) -> bytes:
    length = len(value)
    if length < 0x80:
        return bytes((tag, length)) + value
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + value
