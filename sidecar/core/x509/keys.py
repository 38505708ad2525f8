"""Load the public key of a certificate and check its strength.  No signature is verified here."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sidecar.core.errors import brief

from .der import OID, SEQUENCE, children, only

MIN_RSA_BITS, MIN_EC_BITS = 2048, 224
"""112 bits of security: OpenSSL's level 2 (NIST SP 800-57, table 2)."""

RSA_PSS = bytes.fromhex("06092a864886f70d01010a")
_EC = bytes.fromhex("06072a8648ce3d0201")

_STRONG = (
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
    mldsa.MLDSA44PublicKey,
    mldsa.MLDSA65PublicKey,
    mldsa.MLDSA87PublicKey,
)


class UnusableKey(ValueError):
    """The public key can't verify a signature here; the text says why."""


def public_key(spki: bytes) -> object:
    """Load the public key of a SubjectPublicKeyInfo (DER).  Raises `UnusableKey` only."""
    try:
        return load_der_public_key(spki)
    except Exception as error:  # many classes: unknown curve or algorithm, a point off the curve
        raise UnusableKey(f"its public key can't be used: {brief(error)}") from error


def weakness(key: object) -> str:
    """Explain why OpenSSL's security level 2 refuses a key; return "" if it accepts the key.

    DSA keys and keys that can't sign are always refused.
    """
    if isinstance(key, rsa.RSAPublicKey):
        return f"its RSA key has {key.key_size} bits" if key.key_size < MIN_RSA_BITS else ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        bits = key.curve.group_order.bit_length()
        return f"its curve {key.curve.name} has {bits} bits" if bits < MIN_EC_BITS else ""
    return "" if isinstance(key, _STRONG) else "its key is of a type that isn't accepted"


def key_algorithm(spki: bytes) -> tuple[bytes, bytes]:
    """Return OID and parameters (DER) of a SubjectPublicKeyInfo's algorithm.  Raises ValueError."""
    outer = only(spki, SEQUENCE)
    algorithm, *_ = children(spki, outer.start, outer.stop)
    oid, *rest = children(spki, algorithm.start, algorithm.stop)
    return spki[algorithm.start : oid.stop], spki[oid.stop : algorithm.stop] if rest else b""


def has_explicit_curve(spki: bytes) -> bool:
    """Return whether an EC key has explicit curve parameters; OpenSSL refuses them in a chain."""
    oid, parameters = key_algorithm(spki)
    return oid == _EC and parameters[:1] != bytes([OID])
