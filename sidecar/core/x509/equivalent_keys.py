"""Compute the other encodings of a certificate's public key.

A client whose key is refused can get the same key certified again in another encoding: an elliptic
curve point compressed, uncompressed or hybrid (SEC 1, 2.3.3), an RSA key's algorithm with or
without its NULL, with other parameters, or as RSASSA-PSS, a DSA key's under another OID.  A rule
that refuses a key must refuse it in every encoding.  Not covered: a refused key that was RSASSA-PSS
with unusual parameters, or had explicit curve parameters (OpenSSL refuses these in a chain).
`key_encoding` refuses what is not DER, and a compressed point of a curve that the library lacks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import ec

from .certificate import ClientCert
from .der import BIT_STRING, INTEGER, SEQUENCE, encode, value_of, within
from .key_encoding import DSA, RSA, is_dsa, is_ec, is_rsa
from .keys import UnusableKey, public_key

_RSA_ENCRYPTION, _RSA_PSS, _ = RSA
_MGF1 = bytes.fromhex("06092a864886f70d010108")


def _pss_parameters() -> Iterator[bytes]:
    """Yield the parameters of RSASSA-PSS keys that OpenSSL writes and TLS 1.3 uses (RFC 4055)."""
    for arc, salt in ((1, 32), (2, 48), (3, 64)):  # SHA-256, SHA-384, SHA-512
        digest = bytes.fromhex(f"300d060960864801650304020{arc}0500")
        mask = encode(SEQUENCE, _MGF1 + digest)
        yield encode(SEQUENCE, encode(0xA0, digest))
        length = encode(0xA2, encode(INTEGER, bytes([salt])))
        yield encode(SEQUENCE, encode(0xA0, digest) + encode(0xA1, mask) + length)


_RSA = tuple(
    encode(SEQUENCE, algorithm)
    for algorithm in (
        _RSA_ENCRYPTION + b"\5\0",
        _RSA_ENCRYPTION,
        _RSA_PSS,
        *(_RSA_PSS + parameters for parameters in _pss_parameters()),
    )
)


def equivalent_keys(cert: ClientCert) -> tuple[str, ...]:
    """Return the SHA-256, in hex, of the SubjectPublicKeyInfo in each other encoding."""
    algorithm, bits = within(cert.spki, SEQUENCE)
    if is_rsa(algorithm):
        others = [encode(SEQUENCE, each + bits) for each in _RSA]
    elif is_dsa(algorithm):
        _, *parameters = within(algorithm, SEQUENCE)
        named = [encode(SEQUENCE, b"".join([oid, *parameters])) for oid in DSA]
        others = [encode(SEQUENCE, each + bits) for each in named]
    elif is_ec(algorithm):
        points = _points(cert.spki, bits[value_of(bits, 0) + 1 :])
        others = [encode(SEQUENCE, algorithm + encode(BIT_STRING, b"\0" + p)) for p in points]
    else:
        return ()
    return tuple([hashlib.sha256(each).hexdigest() for each in others if each != cert.spki])


def _points(spki: bytes, point: bytes) -> list[bytes]:
    """Encode a point in all forms; none if it can't be decoded.

    Both signs are encoded: which one it is depends on the field of the curve, which the library may
    lack.  The other one is the point's negative, whose private key follows from the point's.
    """
    if point[:1] in (b"\2", b"\3"):
        try:
            key = public_key(spki)
        except UnusableKey:
            return []
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return []
        numbers, size = key.public_numbers(), len(point) - 1
        both = numbers.x.to_bytes(size) + numbers.y.to_bytes(size)
    elif point[:1] in (b"\4", b"\6", b"\7") and len(point) % 2:
        both = point[1:]
    else:
        return []
    half = both[: len(both) // 2]
    return [b"\4" + both, b"\2" + half, b"\3" + half, b"\6" + both, b"\7" + both]
