"""Parse names (RFC 5280, 4.1.2.4) as OpenSSL does, and refuse control characters.

Names of issuers, and RDNs that many certificates share, are cached.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sidecar.core.bounded import put_bounded
from sidecar.core.errors import MalformedCertificate

from .der import (
    BIT_STRING,
    MAX_NAME,
    NO_STRINGS,
    OID,
    SEQUENCE,
    SET,
    VISIBLE_STRING,
    dotted,
    is_bits,
    string,
    value_of,
    within,
)

MAX_ATTRIBUTES = 128
"""Maximum number of attributes of one name."""


class NameAttribute(NamedTuple):
    """One AttributeTypeAndValue: `CN`, `alice`, `CN=alice`.

    `type` is a short name of `TYPES`, or a dotted OID.  `value` is None if the value is not a
    string; `text`, in RFC 4514 form, then has the DER in hex.
    """

    type: str
    value: str | None
    text: str


class ParsedName(NamedTuple):
    """Values by type, in certificate order, and the DN in RFC 4514 form (last RDN first).

    `unreadable` lists which of `cn`, `o` and `ou` have a value that is not a string.
    """

    cn: tuple[str, ...]
    o: tuple[str, ...]
    ou: tuple[str, ...]
    dn: str
    rdns: tuple[tuple[NameAttribute, ...], ...]
    unreadable: frozenset[str]


def clean(text: str) -> str:
    """Return the text unchanged.

    Raises `MalformedCertificate` for control characters (Unicode category Cc, which includes NUL).
    """
    if _CONTROL.search(text):
        raise MalformedCertificate(f"control character in the name {text[:80]!r}")
    return text


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

_MOST = 1000
"""Maximum number of entries in each cache: anybody can send certificates with new names."""

_ISSUERS: dict[bytes, ParsedName] = {}
"""Cache of issuers' names by their DER; there are few."""


def read_issuer(der: bytes) -> ParsedName:
    """Parse a Name as `read_name` does, and cache the result."""
    name = _ISSUERS.get(der)
    if name is None:
        name = read_name(der)
        if len(der) < 1000:
            put_bounded(_ISSUERS, der, name, _MOST)
    return name


def read_name(der: bytes) -> ParsedName:
    """Parse a Name.  Raises ValueError if it isn't DER, and `MalformedCertificate`."""
    if len(der) > MAX_NAME:
        raise ValueError(f"a name of more than {MAX_NAME} octets")
    rdns = []
    left = MAX_ATTRIBUTES
    for octets in within(der, SEQUENCE, MAX_ATTRIBUTES + 1):
        shared = _SHARED.get(octets)
        rdn = (shared,) if shared else _read_relative(octets)
        left -= len(rdn)
        if left < 0:
            raise ValueError(f"a name of more than {MAX_ATTRIBUTES} attributes")
        rdns.append(rdn)
    return _name(tuple(rdns))


def _name(rdns: tuple[tuple[NameAttribute, ...], ...]) -> ParsedName:
    flat = [attribute for rdn in rdns for attribute in rdn]
    if len(flat) == len(rdns):
        text = ",".join([a.text for a in reversed(flat)])
    else:
        text = ",".join(["+".join([a.text for a in rdn]) for rdn in reversed(rdns)])
    unreadable = [a.type.lower() for a in flat if a.value is None and a.type in _ASKED]
    return ParsedName(
        tuple([a.value for a in flat if a.type == "CN" and a.value is not None]),
        tuple([a.value for a in flat if a.type == "O" and a.value is not None]),
        tuple([a.value for a in flat if a.type == "OU" and a.value is not None]),
        text,
        rdns,
        frozenset(unreadable) if unreadable else _NOTHING,
    )


_NOTHING: frozenset[str] = frozenset()
_ASKED = frozenset({"CN", "O", "OU"})

# The names of RFC 4514, section 3, and further ones that OpenSSL, and therefore nginx, writes.
TYPES = {
    bytes.fromhex("550403"): "CN",
    bytes.fromhex("550404"): "SN",
    bytes.fromhex("550405"): "serialNumber",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("550409"): "STREET",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("55040c"): "title",
    bytes.fromhex("55042a"): "GN",
    bytes.fromhex("0992268993f22c640119"): "DC",
    bytes.fromhex("0992268993f22c640101"): "UID",
    bytes.fromhex("2a864886f70d010901"): "emailAddress",
}
"""Attribute types by the octets of their OID."""

_SHARED: dict[bytes, NameAttribute] = {}
"""Cache of RDNs by their DER; only types that do not identify one person."""
_LONGEST = 0x80
_OWN = {"CN", "UID", "emailAddress", "serialNumber", "SN", "GN"}


def _read_relative(octets: bytes) -> tuple[NameAttribute, ...]:
    """Parse an RDN: SET OF SEQUENCE { OID, ANY }.  Raises ValueError."""
    rdn = tuple([_read_attribute(*each) for each in _split(octets)])
    if len(rdn) == 1 and len(octets) <= _LONGEST and rdn[0].type not in _OWN:
        put_bounded(_SHARED, octets, rdn[0], _MOST)
    return rdn


def _split(octets: bytes) -> list[tuple[bytes, bytes]]:
    """Return the contents of each OID in an RDN, and its value's TLV.  Raises ValueError."""
    size = len(octets)
    if 8 <= size < 0x80 and octets[:5] == bytes((SET, size - 2, SEQUENCE, size - 4, OID)):
        at = 6 + octets[5]  # the usual case: one attribute, all lengths in one octet
        if at + 1 < size and octets[at + 1] == size - at - 2 < 0x80:
            return [(octets[6:at], octets[at:])]
    found = []
    for attribute in within(octets, SET, MAX_ATTRIBUTES + 1):
        parts = within(attribute, SEQUENCE)
        if len(parts) != 2 or parts[0][0] != OID:
            raise ValueError("an attribute of a name is not a type and value")
        oid, value = parts
        found.append((oid[value_of(oid, 0) :], value))
    if not found:
        raise ValueError("an RDN has no attribute")
    return found


def _read_attribute(oid: bytes, value: bytes) -> NameAttribute:
    kind = TYPES.get(oid) or dotted(oid)
    text = string(value[0], value[value_of(value, 0) :]) if value[0] != VISIBLE_STRING else None
    if text is None:
        bits = value[0] != BIT_STRING or is_bits(value[value_of(value, 0) :])
        if value[0] not in NO_STRINGS or not bits:
            raise ValueError(f"a value of {kind} has a type that a name can't contain")
        return NameAttribute(kind, None, f"{kind}=#{value.hex().upper()}")
    if _SPECIAL.search(text):
        return NameAttribute(kind, clean(text), f"{kind}={_escape(text)}")
    return NameAttribute(kind, text, f"{kind}={text}")


_SPECIAL = re.compile('[\x00-\x1f\x7f-\x9f\\\\"+,;<>]|^[# ]| $')
"""Characters that RFC 4514, 2.4, escapes, and control characters."""


def _escape(text: str) -> str:
    """Escape a value as in RFC 4514, 2.4."""
    return _SPECIAL.sub(r"\\\g<0>", text)
