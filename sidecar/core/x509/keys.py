"""Load the public key of a certificate and check that it is strong enough.

No signature is verified here.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sidecar.core.errors import brief

from .der import OID, SEQUENCE, children, only

MIN_RSA_BITS, MIN_EC_BITS = 2048, 224
"""112 bits of security: OpenSSL's level 2 (NIST SP 800-57, table 2)."""

VERSION = 0xA0
"""The tag of a certificate's version, which is left out where that is 1."""

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
    """A public key that can't verify anything here; the text says why."""


def public_key(spki: bytes) -> object:
    """The public key of a SubjectPublicKeyInfo, DER.  Raises `UnusableKey`, nothing else."""
    try:
        return load_der_public_key(spki)
    except Exception as error:  # of many classes: unknown curve or algorithm, a point off the curve
        raise UnusableKey(f"its public key can't be used: {brief(error)}") from error


def subject_public_key_info(signed: bytes) -> bytes:
    """The SubjectPublicKeyInfo, DER, of a TBSCertificate.  Raises ValueError."""
    outer = only(signed, SEQUENCE)
    fields = list(children(signed, outer.start, outer.stop))
    at = 6 if fields and fields[0].tag == VERSION else 5
    if len(fields) <= at:
        raise ValueError("a certificate without a public key")
    return signed[fields[at - 1].stop : fields[at].stop]


def weakness(key: object) -> str:
    """Why OpenSSL's security level 2 refuses a key, or nothing.

    DSA keys and those that sign nothing are refused whatever their size.
    """
    if isinstance(key, rsa.RSAPublicKey):
        return f"its RSA key has {key.key_size} bits" if key.key_size < MIN_RSA_BITS else ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        bits = key.curve.group_order.bit_length()
        return f"its curve {key.curve.name} has {bits} bits" if bits < MIN_EC_BITS else ""
    return "" if isinstance(key, _STRONG) else "its key is of a kind that isn't taken"


def key_algorithm(spki: bytes) -> tuple[bytes, bytes]:
    """The algorithm's OID and parameters, DER, of a SubjectPublicKeyInfo.  Raises ValueError."""
    outer = only(spki, SEQUENCE)
    algorithm, *_ = children(spki, outer.start, outer.stop)
    oid, *rest = children(spki, algorithm.start, algorithm.stop)
    return spki[algorithm.start : oid.stop], spki[oid.stop : algorithm.stop] if rest else b""


def has_explicit_curve(spki: bytes) -> bool:
    """Whether an EC key spells out its curve's parameters, which OpenSSL refuses in a chain."""
    oid, parameters = key_algorithm(spki)
    return oid == _EC and parameters[:1] != bytes([OID])
