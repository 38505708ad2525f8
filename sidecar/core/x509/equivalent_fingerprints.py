"""Compute the other fingerprints that a certificate's holder can produce for it.

If (r, s) is a valid ECDSA signature, so is (r, n - s), where n is the order of the curve; anybody
can compute it (SEC 1, 4.1.4 verifies both; X.509 requires neither).  OpenSSL accepts an RSASSA-PSS
signature with and without its leading zeros.  So one certificate can have several valid encodings,
each with its own SHA-256.  A rule that refuses one of these fingerprints refuses all of them; a
rule that grants one grants no other.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from .certificate import ClientCert
from .curve_orders import ORDERS
from .der import BIT_STRING, SEQUENCE, encode

_LONGEST = 160
"""Maximum octets of an ECDSA signature: two numbers of 571 bits."""
_SLACK = 64
"""Bits by which r and s may be shorter than the order (more has a probability of 2^-64)."""


def equivalent_fingerprints(cert: ClientCert) -> tuple[str, ...]:
    """Return the SHA-256, in hex, of the certificate with each equivalent signature."""
    if cert.signature[:1] == b"\x30" and len(cert.signature) <= _LONGEST:
        others = _with_negated_s(cert.signature)
    elif _PSS in cert.algorithm:
        others = _with_other_padding(cert.signature)
    else:
        return ()
    signed = cert.signed + cert.algorithm
    return tuple([_sha256(signed, other) for other in others])


def _with_negated_s(signature: bytes) -> list[bytes]:
    """Return (r, n - s) for every curve whose order has about the size of the numbers.

    The certificate doesn't name its issuer's curve, and its holder can't choose it.
    """
    try:
        r, s = decode_dss_signature(signature)
    except ValueError:
        return []
    length = max(r, s).bit_length()
    likely = {n for n in ORDERS if max(r, s) < n and n.bit_length() - length < _SLACK}
    return [encode_dss_signature(r, n - s) for n in sorted(likely)]


_PSS = bytes.fromhex("2a864886f70d01010a")
_STEP = 32
"""The usual lengths of RSA keys in octets are multiples of this."""


def _with_other_padding(signature: bytes) -> list[bytes]:
    """Return the signature with fewer leading zeros, and with more up to a usual length."""
    bare = signature.lstrip(b"\0")
    most = max(len(signature), -(-len(bare) // _STEP) * _STEP)
    most = min(most, len(bare) + _STEP)
    padded = [bytes(zeros) + bare for zeros in range(most - len(bare) + 1)]
    return [other for other in padded if other != signature]


def _sha256(signed: bytes, signature: bytes) -> str:
    bits = encode(BIT_STRING, b"\0" + signature)
    return hashlib.sha256(encode(SEQUENCE, signed + bits)).hexdigest()
