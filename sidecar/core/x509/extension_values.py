"""Parse the extensions that path building needs, each separately.

With `cryptography`, one invalid extension makes all of them unreadable.  A value that RFC 5280 does
not allow raises ValueError.  The meaning of the values is not checked here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .canonical_name import canonical_name
from .certificate import ClientCert
from .der import BOOLEAN, INTEGER, OCTET_STRING, OID, SEQUENCE, Tlv, children, only

BIT_STRING = 0x03

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
    octets = der[at.start : at.stop]
    if at.tag != BOOLEAN or octets not in (b"\0", b"\xff"):
        raise ValueError("a broken BOOLEAN")
    return octets == b"\xff"


def _integer(der: bytes, at: Tlv) -> int:
    if at.tag != INTEGER or at.start == at.stop:
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
    if not octets or octets[0] > 7 or (octets[0] and len(octets) < 2):
        raise ValueError("a broken BIT STRING")
    if len(octets) < 2:
        return 0
    return octets[1] & (0xFF << octets[0] if len(octets) == 2 else 0xFF) & 0xFF


def oids(value: bytes) -> list[bytes]:
    """Return the OIDs (DER) of a SEQUENCE of them.  Raises ValueError."""
    found = []
    start = only(value, SEQUENCE).start
    for part in _sequence(value):
        if part.tag != OID or part.start == part.stop:
            raise ValueError("a list of OIDs contains another type")
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
        elif part.tag == 0x82 and octets:
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
        kind, value = children(der, at.start, at.stop)
        if kind.tag != OID or value.tag != 0xA0:
            raise ValueError("a broken otherName")
        _check_all(der, value)
    elif name.tag in (X400, EDI):
        _check_all(der, at)
    elif name.tag not in (MAIL, DNS, URI, IP, REGISTERED):
        raise ValueError("a value that is not a GeneralName")
    return name


def _check_all(der: bytes, at: Tlv) -> None:
    """Check the lengths of all nested values.  Raises ValueError."""
    for _ in children(der, at.start, at.stop):
        pass


def check_crl_points(value: bytes) -> None:
    """Check the form of cRLDistributionPoints; its values are not used.  Raises ValueError."""
    for point in _sequence(value):
        if point.tag != SEQUENCE:
            raise ValueError("broken cRLDistributionPoints")
        for part in children(value, point.start, point.stop):
            _check_point(value, part)


def _check_point(value: bytes, part: Tlv) -> None:
    if part.tag == 0xA0:
        (name,) = children(value, part.start, part.stop)
        if name.tag == 0xA0:
            _names(value, name.start, name.stop)
        elif name.tag == 0xA1:
            _check_all(value, name)
        else:
            raise ValueError("broken cRLDistributionPoints")
    elif part.tag == 0xA2:
        _names(value, part.start, part.stop)
    elif part.tag != 0x81:
        raise ValueError("broken cRLDistributionPoints")


def subtrees(value: bytes) -> Iterator[tuple[bool, GeneralName]]:
    """Yield the subtrees of nameConstraints: whether permitted, and the base.  Raises ValueError.

    As in OpenSSL, a subtree with a minimum or maximum is refused (RFC 5280, 4.2.1.10).
    """

    for part in _sequence(value):
        if part.tag not in (0xA0, 0xA1):
            raise ValueError("broken nameConstraints")
        for subtree in children(value, part.start, part.stop):
            if subtree.tag != SEQUENCE:
                raise ValueError("broken nameConstraints")
            (base,) = children(value, subtree.start, subtree.stop)
            yield part.tag == 0xA0, general_name(value, base)
