"""Build a certificate from a description of its fields, for tests of a policy and for examples.

The fields are encoded as DER and parsed by the parser of real certificates, so that the result
equals a real certificate with these names.  It has no valid signature: the caller says which trust
counts as its issuer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from .certificate import ClientCert, from_der
from .der import encode

_SEQUENCE, _SET, _OID, _UTF8, _INTEGER, _BITS, _OCTETS = 0x30, 0x31, 0x06, 0x0C, 0x02, 0x03, 0x04
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18

_TYPES = {"cn": "550403", "o": "55040a", "ou": "55040b"}
_SAN, _EKU, _POLICIES = (bytes.fromhex(each) for each in ("551d11", "551d25", "551d20"))
_UPN = encode(_OID, bytes.fromhex("2b060104018237140203"))
_EMAIL, _DNS, _URI, _IP = 0x81, 0x82, 0x86, 0x87

_P256 = bytes.fromhex(
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004"
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
"""A SubjectPublicKeyInfo whose point is P-256's generator, so nobody uses this key."""

_ECDSA = bytes.fromhex("300a06082a8648ce3d040302")
_UNSIGNED = bytes.fromhex("3006020101020101")

SERIAL = 0x7E57
"""The serial number of a certificate that gives none."""

ALWAYS = (0.0, datetime(9999, 12, 31, tzinfo=UTC).timestamp())
"""The validity of a description without dates."""


@dataclass(frozen=True, slots=True)
class Described:
    """The fields of a certificate; times in seconds since the epoch, `eku` in dotted OIDs.

    `sha256` and `spki_sha256`, in lower-case hex, stand for the fingerprints that the real
    certificate and its key have.
    """

    cn: Sequence[str] = ()
    o: Sequence[str] = ()
    ou: Sequence[str] = ()
    dns: Sequence[str] = ()
    uri: Sequence[str] = ()
    ip: Sequence[str] = ()
    email: Sequence[str] = ()
    issuer_cn: Sequence[str] = ()
    eku: Sequence[str] = ("1.3.6.1.5.5.7.3.2",)
    serial: int = SERIAL
    not_before: float = ALWAYS[0]
    not_after: float = ALWAYS[1]
    sha256: str = ""
    spki_sha256: str = ""
    upn: Sequence[str] = ()
    policy_oid: Sequence[str] = ()


def build(fields: Described) -> ClientCert:
    """Build the certificate.  Raises `MalformedCertificate` for names that are not allowed."""
    cert = from_der(_certificate(fields))
    sha256, spki_sha256 = fields.sha256 or cert.sha256, fields.spki_sha256 or cert.spki_sha256
    return replace(cert, sha256=sha256, spki_sha256=spki_sha256)


def _certificate(fields: Described) -> bytes:
    subject = _name(
        [("o", value) for value in fields.o],
        [("ou", value) for value in fields.ou],
        [("cn", value) for value in fields.cn],
    )
    signed = encode(
        _SEQUENCE,
        bytes.fromhex("a003020102")
        + encode(_INTEGER, _integer(fields.serial))
        + _ECDSA
        + _name([("cn", value) for value in fields.issuer_cn])
        + encode(_SEQUENCE, _time(fields.not_before) + _time(fields.not_after))
        + subject
        + _P256
        + _extensions(fields),
    )
    return encode(_SEQUENCE, signed + _ECDSA + encode(_BITS, b"\0" + _UNSIGNED))


def _name(*kinds: Iterable[tuple[str, str]]) -> bytes:
    relatives = [
        encode(
            _SET,
            encode(
                _SEQUENCE,
                encode(_OID, bytes.fromhex(_TYPES[kind])) + encode(_UTF8, value.encode()),
            ),
        )
        for values in kinds
        for kind, value in values
    ]
    return encode(_SEQUENCE, b"".join(relatives))


def _integer(number: int) -> bytes:
    return number.to_bytes(max(number, ~number).bit_length() // 8 + 1, "big", signed=True)


def _time(moment: float) -> bytes:
    """Encode a time (RFC 5280, 4.1.2.5): UTCTime until 2049, GeneralizedTime after it."""
    at = datetime.fromtimestamp(moment, UTC)
    if at.year < 2050:
        return encode(_UTC_TIME, f"{at:%y%m%d%H%M%SZ}".encode())
    return encode(_GENERALIZED_TIME, f"{at:%Y%m%d%H%M%SZ}".encode())


def _extensions(fields: Described) -> bytes:
    names = b"".join(
        encode(tag, value)
        for tag, values in (
            (_DNS, [v.encode() for v in fields.dns]),
            (_URI, [v.encode() for v in fields.uri]),
            (_IP, [ipaddress.ip_address(v).packed for v in fields.ip]),
            (_EMAIL, [v.encode() for v in fields.email]),
            (0xA0, [_UPN + encode(0xA0, encode(_UTF8, v.encode())) for v in fields.upn]),
        )
        for value in values
    )
    usages = b"".join(encode(_OID, _oid(usage)) for usage in fields.eku)
    policies = b"".join(
        encode(_SEQUENCE, encode(_OID, _oid(policy))) for policy in fields.policy_oid
    )
    found = [
        encode(_SEQUENCE, encode(_OID, oid) + encode(_OCTETS, encode(_SEQUENCE, content)))
        for oid, content in ((_SAN, names), (_EKU, usages), (_POLICIES, policies))
        if content
    ]
    return encode(0xA3, encode(_SEQUENCE, b"".join(found))) if found else b""


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    return b"".join(map(_base128, (first * 40 + second, *rest)))


def _base128(number: int) -> bytes:
    octets = [number & 0x7F]
    while number := number >> 7:
        octets.append(number & 0x7F | 0x80)
    return bytes(reversed(octets))
