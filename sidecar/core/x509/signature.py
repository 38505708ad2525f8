"""Verify an issuer's signature over the octets that were received.

`cryptography` encodes certificates and CRLs again before it verifies them, which costs as much as
parsing.  Here the verified octets are exactly those that `certificate` and `crl` parse.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.hashes import HashAlgorithm

from .der import (
    BIT_STRING,
    INTEGER,
    SEQUENCE,
    UTC_TIME,
    check_values,
    encode,
    only,
    slices,
    value_of,
    within,
)

Parameters = padding.PSS | padding.PKCS1v15 | ec.ECDSA | None


class HasSignature(Protocol):
    """A parsed certificate or CRL."""

    @property
    def signature(self) -> bytes:
        """The signature's octets."""


class SignedParts(NamedTuple):
    """Parts of a Certificate or CertificateList (DER): `tbs…`, algorithm, and first fields."""

    signed: bytes
    algorithm: bytes
    fields: list[bytes]


def take_apart(der: bytes, most: int = 3) -> SignedParts:
    """Split DER into the signed part, its algorithm, and the first fields of the signed part.

    Raises ValueError for invalid DER, and if the algorithms inside and outside the signed part
    differ (RFC 5280, 4.1.1.2 and 5.1.1.2).
    """
    outer = only(der, SEQUENCE)
    signed, algorithm = slices(der, outer.start, outer.stop, 2)
    fields = slices(signed, value_of(signed, 0), len(signed), most)
    for inner in fields:  # behind version and serial number
        if inner[0] == SEQUENCE:
            break
    if inner != algorithm:
        raise ValueError("the signature algorithms inside and outside the signed part differ")
    return SignedParts(signed, algorithm, fields)


def is_signed_by(key: object, signed: bytes, algorithm: bytes, value: HasSignature) -> bool:
    """Return whether the key made the signature: RSA (v1.5, PSS), ECDSA, Ed25519, Ed448, ML-DSA.

    `signed` and `algorithm` are results of `take_apart` for the value's DER.
    """
    try:
        parameters, hashing = scheme(algorithm)
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(parameters, ec.ECDSA):
            key.verify(value.signature, signed, parameters)
        elif isinstance(key, rsa.RSAPublicKey) and isinstance(parameters, _PADDINGS):
            # OpenSSL accepts a PSS signature without its leading zeros too; it is the same number.
            if hashing is None or len(value.signature) != (key.key_size + 7) // 8:
                return False
            key.verify(value.signature, signed, parameters, hashing)
        elif isinstance(key, _PURE) and hashing is None:
            key.verify(value.signature, signed)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


class Scheme(NamedTuple):
    """The meaning of an AlgorithmIdentifier.  `hashing` is None if the algorithm fixes the hash."""

    parameters: Parameters
    hashing: HashAlgorithm | None


_SCHEMES: dict[bytes, Scheme] = {}
"""Cache of schemes by AlgorithmIdentifier (DER); few are in use."""


def scheme(algorithm: bytes) -> Scheme:
    """Parse an AlgorithmIdentifier (DER).  Raises ValueError and `UnsupportedAlgorithm`.

    `cryptography` parses it as a part of a minimal certificate, so that other invalid parts of the
    real certificate, such as a name, have no influence.
    """
    known = _SCHEMES.get(algorithm)
    if known is None:
        usual = _with_usual_parameters(algorithm)
        cert = x509.load_der_x509_certificate(bare_certificate(algorithm=usual))
        known = Scheme(cert.signature_algorithm_parameters, cert.signature_hash_algorithm)
        if len(_SCHEMES) < 100 and len(algorithm) < 200:  # a peer can send any number of others
            _SCHEMES[algorithm] = known
    return known


_RSA_V15 = tuple(
    bytes.fromhex(oid)
    for oid in (
        *(f"06092a864886f70d0101{arc:02x}" for arc in (2, 4, 5, *range(0x0B, 0x11))),
        *(f"06096086480165030403{arc:02x}" for arc in range(0x0D, 0x11)),
    )
)
_ECDSA = tuple(
    bytes.fromhex(oid)
    for oid in (
        "06072a8648ce3d0401",
        *(f"06082a8648ce3d0403{arc:02x}" for arc in range(1, 5)),
        *(f"06096086480165030403{arc:02x}" for arc in range(9, 0x0D)),
    )
)


_PSS = bytes.fromhex("06092a864886f70d01010a")
_MGF1 = bytes.fromhex("06092a864886f70d010108")
_SHA1 = [encode(SEQUENCE, bytes.fromhex("06052b0e03021a") + null) for null in (b"", b"\5\0")]
_TRAILER = 0xA3
_PSS_DEFAULTS = (
    *(encode(0xA0, sha1) for sha1 in _SHA1),
    *(encode(0xA1, encode(SEQUENCE, _MGF1 + sha1)) for sha1 in _SHA1),
    encode(0xA2, bytes((INTEGER, 1, 20))),
    encode(_TRAILER, bytes((INTEGER, 1, 1))),
)
"""The fields of RSASSA-PSS-params that DER leaves out (RFC 4055, 3.1)."""


def _with_usual_parameters(algorithm: bytes) -> bytes:
    """Return an AlgorithmIdentifier with the parameters that RFC 4055 and 5758 demand.

    OpenSSL ignores those of RSA (v1.5) and ECDSA, and older Java writes NULL for ECDSA, which
    `cryptography` refuses.  So it does with defaults of RSASSA-PSS that are written out.  Raises
    ValueError.
    """
    oid, *parameters = within(algorithm, SEQUENCE, 3)
    if len(parameters) > 1:
        raise ValueError("a signature algorithm is not an OID and parameters")
    check_values(algorithm, 0, len(algorithm))
    if oid in _RSA_V15:
        return encode(SEQUENCE, oid + b"\5\0")
    if oid == _PSS and parameters:
        return encode(SEQUENCE, oid + pss_without_defaults(parameters[0]))
    return encode(SEQUENCE, oid) if oid in _ECDSA else algorithm


def pss_without_defaults(parameters: bytes) -> bytes:
    """Return RSASSA-PSS-params without the fields that have their default.  Raises ValueError."""
    fields = within(parameters, SEQUENCE)
    tags = [each[0] for each in fields]
    if tags != sorted(set(tags)):
        raise ValueError("the parameters of RSASSA-PSS are repeated or out of order")
    given = [each for each in fields if each not in _PSS_DEFAULTS]
    if any(each[0] == _TRAILER for each in given):
        raise ValueError("the trailer of RSASSA-PSS isn't 1")
    return encode(SEQUENCE, b"".join(given))


_ED25519 = bytes.fromhex("300506032b6570")


def bare_certificate(
    issuer: bytes = b"\x30\0", extensions: Iterable[bytes] = (), algorithm: bytes = _ED25519
) -> bytes:
    """Encode a certificate (DER) with only these parts, for `cryptography` to parse them."""
    bits = encode(BIT_STRING, b"\0" + bytes(32))
    validity = encode(SEQUENCE, 2 * encode(UTC_TIME, b"260101000000Z"))
    key = encode(SEQUENCE, _ED25519 + bits)
    more = encode(0xA3, encode(SEQUENCE, b"".join(extensions)))
    start = bytes.fromhex("a003020102020101")
    signed = start + algorithm + issuer + validity + b"\x30\0" + key + more
    return encode(SEQUENCE, encode(SEQUENCE, signed) + algorithm + bits)


_PADDINGS = (padding.PKCS1v15, padding.PSS)
_PURE = (
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
    mldsa.MLDSA44PublicKey,
    mldsa.MLDSA65PublicKey,
    mldsa.MLDSA87PublicKey,
)
"""Keys whose algorithm has no parameters."""
