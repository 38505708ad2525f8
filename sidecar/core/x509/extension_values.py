"""Parse the extensions that path building needs, each separately.

With `cryptography`, one invalid extension makes all of them unreadable.  A value that RFC 5280 does
not allow raises ValueError, at every level that OpenSSL parses (it marks such a certificate as
invalid).  The meaning of the values is not checked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .canonical_name import canonical_attribute, canonical_name
from .certificate import ClientCert
from .der import (
    BIT_STRING,
    BMP_STRING,
    BOOLEAN,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    Tlv,
    check_values,
    children,
    dotted,
    is_bits,
    is_integer,
    only,
    string,
)

KEY_USAGE = bytes.fromhex("0603551d0f")
ALTERNATIVE_NAME = bytes.fromhex("0603551d11")
BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")
NAME_CONSTRAINTS = bytes.fromhex("0603551d1e")
CRL_POINTS = bytes.fromhex("0603551d1f")
POLICIES = bytes.fromhex("0603551d20")
POLICY_MAPPINGS = bytes.fromhex("0603551d21")
AUTHORITY_KEY = bytes.fromhex("0603551d23")
POLICY_CONSTRAINTS = bytes.fromhex("0603551d24")
EXTENDED_USAGE = bytes.fromhex("0603551d25")
INHIBIT_ANY_POLICY = bytes.fromhex("0603551d36")
SUBJECT_KEY = bytes.fromhex("0603551d0e")
NETSCAPE_TYPE = bytes.fromhex("06096086480186f8420101")
OCSP_NO_CHECK = bytes.fromhex("06092b0601050507300105")
PROXY = bytes.fromhex("06082b0601050507010e")
IP_BLOCKS = bytes.fromhex("06082b06010505070107")
AS_NUMBERS = bytes.fromhex("06082b06010505070108")

OTHER, MAIL, DNS, X400, DIRECTORY, EDI, URI, IP, REGISTERED = (
    0xA0, 0x81, 0x82, 0xA3, 0xA4, 0xA5, 0x86, 0x87, 0x88,
)  # fmt: skip


class Extension(NamedTuple):
    """One extension: whether it is critical, and its value's DER."""

    critical: bool
    value: bytes


class GeneralName(NamedTuple):
    """A GeneralName: its tag and its octets."""

    tag: int
    octets: bytes


def extensions_of(cert: ClientCert) -> dict[bytes, Extension]:
    """Map the OID (DER) of each extension of a certificate to its value.

    Raises ValueError, also for a repeated extension.
    """
    found: dict[bytes, Extension] = {}
    for der in cert.extensions:
        each = only(der, SEQUENCE)
        oid, *flag, value = children(der, each.start, each.stop)
        name = der[each.start : oid.stop]
        if oid.tag != OID or value.tag != OCTET_STRING or len(flag) > 1 or name in found:
            raise ValueError("an extension that is broken or repeated")
        critical = any(_boolean(der, at) for at in flag)
        found[name] = Extension(critical, der[value.start : value.stop])
    return found


def _boolean(der: bytes, at: Tlv) -> bool:
    """Parse a BOOLEAN as OpenSSL does: TRUE may be any octet but zero.  Raises ValueError."""
    octets = der[at.start : at.stop]
    if at.tag != BOOLEAN or len(octets) != 1:
        raise ValueError("a broken BOOLEAN")
    return octets != b"\0"


def _integer(der: bytes, at: Tlv) -> int:
    if at.tag != INTEGER or not is_integer(der[at.start : at.stop]):
        raise ValueError("a broken INTEGER")
    return int.from_bytes(der[at.start : at.stop], "big", signed=True)


def _sequence(value: bytes) -> list[Tlv]:
    outer = only(value, SEQUENCE)
    return list(children(value, outer.start, outer.stop))


def basic_constraints(value: bytes) -> tuple[bool, int | None]:
    """Parse basicConstraints: whether it is a CA, and its path length.  Raises ValueError."""
    parts = _sequence(value)
    is_ca = bool(parts) and parts[0].tag == BOOLEAN and _boolean(value, parts.pop(0))
    length = _integer(value, parts.pop(0)) if parts else None
    if parts or (length is not None and not 0 <= length < 1 << 31):
        raise ValueError("broken basicConstraints")
    return is_ca, length


def bits(value: bytes) -> int:
    """Return the first eight bits of a BIT STRING, most significant first.  Raises ValueError."""
    at = only(value, BIT_STRING)
    octets = value[at.start : at.stop]
    if not is_bits(octets):
        raise ValueError("a broken BIT STRING")
    if len(octets) < 2:
        return 0
    return octets[1] & (0xFF << octets[0] if len(octets) == 2 else 0xFF) & 0xFF


def oids(value: bytes) -> list[bytes]:
    """Return the OIDs (DER) of a SEQUENCE of them.  Raises ValueError."""
    found = []
    start = only(value, SEQUENCE).start
    for part in _sequence(value):
        if part.tag != OID:
            raise ValueError("a list of OIDs contains another type")
        dotted(value[part.start : part.stop])
        found.append(value[start : part.stop])
        start = part.stop
    return found


def key_identifier(value: bytes) -> bytes:
    """Parse a subjectKeyIdentifier.  Raises ValueError."""
    at = only(value, OCTET_STRING)
    return value[at.start : at.stop]


class AuthorityKey(NamedTuple):
    """The fields of an authorityKeyIdentifier: key identifier, issuer's issuer, issuer's serial."""

    key: bytes | None = None
    issuer: bytes | None = None
    serial: int | None = None


def authority_key(value: bytes) -> AuthorityKey:
    """Read an authorityKeyIdentifier.  Raises ValueError."""
    found = AuthorityKey()
    last = -1
    for part in _sequence(value):
        octets, number = value[part.start : part.stop], part.tag & 0x1F
        if number <= last:
            raise ValueError("a broken authorityKeyIdentifier")
        last = number
        if part.tag == 0x80:
            found = found._replace(key=octets)
        elif part.tag == 0xA1:
            names = [n.octets for n in _names(value, part.start, part.stop) if n.tag == DIRECTORY]
            found = found._replace(issuer=names[0] if names else None)
        elif part.tag == 0x82 and is_integer(octets):
            found = found._replace(serial=int.from_bytes(octets, "big", signed=True))
        else:
            raise ValueError("a broken authorityKeyIdentifier")
    return found


# -- general names --------------------------------------------------------------------------------


def general_names(value: bytes) -> list[GeneralName]:
    """Parse a SEQUENCE of GeneralName.  Raises ValueError if one is malformed."""
    outer = only(value, SEQUENCE)
    return _names(value, outer.start, outer.stop)


def _names(der: bytes, start: int, stop: int) -> list[GeneralName]:
    return [general_name(der, at) for at in children(der, start, stop)]


def general_name(der: bytes, at: Tlv) -> GeneralName:
    """Parse one GeneralName (RFC 5280, 4.2.1.6).  Raises ValueError."""
    name = GeneralName(at.tag, der[at.start : at.stop])
    if name.tag == DIRECTORY:
        canonical_name(name.octets)
    elif name.tag == OTHER:
        _check_other(der, at)
    elif name.tag == EDI:
        _check_parties(der, at)
    elif name.tag == X400:
        check_values(der, at.start, at.stop)
    elif name.tag == REGISTERED:
        dotted(name.octets)
    elif name.tag not in (MAIL, DNS, URI, IP):
        raise ValueError("a value that is not a GeneralName")
    return name


def _check_other(der: bytes, at: Tlv) -> None:
    """Check an otherName: an OID, and `[0]` with one value.  Raises ValueError."""
    kind, value = children(der, at.start, at.stop)
    if kind.tag != OID or value.tag != 0xA0:
        raise ValueError("a broken otherName")
    dotted(der[kind.start : kind.stop])
    (_,) = children(der, value.start, value.stop)
    check_values(der, value.start, value.stop)


_DIRECTORY_STRINGS = (0x0C, 0x13, 0x14, 0x1C, BMP_STRING)


def _check_parties(der: bytes, at: Tlv) -> None:
    """Check an ediPartyName: `[0]` nameAssigner, if present, and `[1]` partyName.

    Raises ValueError.
    """
    parts = list(children(der, at.start, at.stop))
    if [part.tag for part in parts] not in ([0xA1], [0xA0, 0xA1]):
        raise ValueError("a broken ediPartyName")
    for part in parts:
        (text,) = children(der, part.start, part.stop)
        if text.tag not in _DIRECTORY_STRINGS:
            raise ValueError("a broken ediPartyName")
        string(text.tag, der[text.start : text.stop])


def check_crl_points(value: bytes) -> None:
    """Check the form of cRLDistributionPoints; its values are not used.  Raises ValueError.

    As in OpenSSL, each has a distributionPoint or a cRLIssuer.
    """
    for point in _sequence(value):
        if point.tag != SEQUENCE:
            raise ValueError("broken cRLDistributionPoints")
        parts = list(children(value, point.start, point.stop))
        tags = bytes([part.tag for part in parts])
        if tags not in _POINTS:
            raise ValueError("broken cRLDistributionPoints")
        for part in parts:
            _check_point(value, part)


_POINTS = (b"\xa0", b"\xa0\x81", b"\xa0\xa2", b"\xa0\x81\xa2", b"\xa2", b"\x81\xa2")


def _check_point(value: bytes, part: Tlv) -> None:
    if part.tag == 0x81:
        if not is_bits(value[part.start : part.stop]):
            raise ValueError("broken reasons in cRLDistributionPoints")
    elif part.tag == 0xA2:
        if not _names(value, part.start, part.stop):
            raise ValueError("an empty cRLIssuer in cRLDistributionPoints")
    else:
        (name,) = children(value, part.start, part.stop)
        if name.tag == 0xA0:
            _names(value, name.start, name.stop)
        elif name.tag == 0xA1 and name.start < name.stop:
            for attribute in children(value, name.start, name.stop):
                canonical_attribute(value, attribute)
        else:
            raise ValueError("broken cRLDistributionPoints")


def subtrees(value: bytes) -> Iterator[tuple[bool, GeneralName]]:
    """Yield the subtrees of nameConstraints: whether permitted, and the base.  Raises ValueError.

    As in OpenSSL, a subtree with a minimum or maximum is refused (RFC 5280, 4.2.1.10).
    """

    parts = _sequence(value)
    if [part.tag for part in parts] not in ([0xA0], [0xA1], [0xA0, 0xA1], []):
        raise ValueError("broken nameConstraints")
    for part in parts:
        for subtree in children(value, part.start, part.stop):
            if subtree.tag != SEQUENCE:
                raise ValueError("broken nameConstraints")
            (base,) = children(value, subtree.start, subtree.stop)
            yield part.tag == 0xA0, general_name(value, base)
