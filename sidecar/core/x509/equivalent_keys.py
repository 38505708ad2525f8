"""Compute the other encodings of a certificate's public key.

A client whose key is refused can get the same key certified again in another encoding: an elliptic
curve point compressed, uncompressed or hybrid (SEC 1, 2.3.3), an RSA key's algorithm with or
without its NULL, or as RSASSA-PSS.  A rule that refuses a key must refuse it in every encoding.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec

from .certificate import ClientCert
from .der import BIT_STRING, SEQUENCE, encode, value_of, within
from .keys import UnusableKey, public_key

_EC = bytes.fromhex("06072a8648ce3d0201")
_RSA = tuple(
    bytes.fromhex(algorithm)
    for algorithm in (
        "300d06092a864886f70d0101010500", "300b06092a864886f70d010101",
        "300b06092a864886f70d01010a",
    )
)  # fmt: skip


def equivalent_keys(cert: ClientCert) -> tuple[str, ...]:
    """Return the SHA-256, in hex, of the SubjectPublicKeyInfo in each other encoding."""
    algorithm, bits = within(cert.spki, SEQUENCE)
    if algorithm in _RSA:
        others = [encode(SEQUENCE, each + bits) for each in _RSA]
    elif algorithm[value_of(algorithm, 0) :].startswith(_EC):
        points = _points(cert.spki, bits[value_of(bits, 0) + 1 :])
        others = [encode(SEQUENCE, algorithm + encode(BIT_STRING, b"\0" + p)) for p in points]
    else:
        return ()
    return tuple([hashlib.sha256(each).hexdigest() for each in others if each != cert.spki])


def _points(spki: bytes, point: bytes) -> list[bytes]:
    """Encode a point of a curve over a prime field in all forms; none if it can't be decoded."""
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
    sign = both[-1] & 1
    return [b"\4" + both, bytes([2 + sign]) + both[: len(both) // 2], bytes([6 + sign]) + both]
