"""An issuer's signature, checked over the very octets that came.

`cryptography` checks certificates and CRLs over what it makes of them anew, which costs as much
as reading them; and what is read elsewhere should be what was signed, octet by octet.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.hashes import HashAlgorithm

from .der import SEQUENCE, only, slices, value_of

Parameters = padding.PSS | padding.PKCS1v15 | ec.ECDSA | None


class Signed(Protocol):
    """A certificate or a CRL, as `cryptography` has read it."""

    @property
    def signature(self) -> bytes:
        """The signature's octets."""

    @property
    def signature_hash_algorithm(self) -> HashAlgorithm | None:
        """The hash; None where the algorithm has its own."""

    @property
    def signature_algorithm_parameters(self) -> Parameters:
        """Padding or curve scheme.  Raises `UnsupportedAlgorithm`."""


class Parts(NamedTuple):
    """A Certificate or a CertificateList, DER: its `tbs…` part, its algorithm, its first fields."""

    signed: bytes
    algorithm: bytes
    fields: list[bytes]


def take_apart(der: bytes, most: int = 3) -> Parts:
    """What a signature is over, by which algorithm, and the first fields of that.

    Raises ValueError where the DER is broken, or where the algorithm within isn't the one without
    (RFC 5280, 4.1.1.2 and 5.1.1.2).
    """
    outer = only(der, SEQUENCE)
    signed, algorithm = slices(der, outer.start, outer.stop, 2)
    fields = slices(signed, value_of(signed, 0), len(signed), most)
    for within in fields:  # behind version and serial number
        if within[0] == SEQUENCE:
            break
    if within != algorithm:
        raise ValueError("the signature algorithms within and without differ")
    return Parts(signed, algorithm, fields)


def is_signed_by(key: object, signed: bytes, algorithm: bytes, value: Signed) -> bool:
    """Whether the key made the signature: RSA (v1.5, PSS), ECDSA, Ed25519, Ed448, ML-DSA.

    `signed` and `algorithm` are what `take_apart` found in the value's DER.
    """
    try:
        scheme = _SCHEMES.get(algorithm)
        if scheme is None:
            scheme = _scheme(algorithm, value)
        parameters, hashing = scheme
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(parameters, ec.ECDSA):
            key.verify(value.signature, signed, parameters)
        elif isinstance(key, rsa.RSAPublicKey) and isinstance(parameters, _PADDINGS):
            if hashing is None:
                return False
            key.verify(value.signature, signed, parameters, hashing)
        elif isinstance(key, _PURE) and hashing is None:
            key.verify(value.signature, signed)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


_SCHEMES: dict[bytes, tuple[Parameters, HashAlgorithm | None]] = {}
"""What an AlgorithmIdentifier (DER) means, as there are few."""


def _scheme(algorithm: bytes, value: Signed) -> tuple[Parameters, HashAlgorithm | None]:
    scheme = value.signature_algorithm_parameters, value.signature_hash_algorithm
    if len(_SCHEMES) < 100 and len(algorithm) < 200:  # strangers make more
        _SCHEMES[algorithm] = scheme
    return scheme


_PADDINGS = (padding.PKCS1v15, padding.PSS)
_PURE = (
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
    mldsa.MLDSA44PublicKey,
    mldsa.MLDSA65PublicKey,
    mldsa.MLDSA87PublicKey,
)
"""Keys whose algorithm has no parameters."""
