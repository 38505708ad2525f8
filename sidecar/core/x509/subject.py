"""The names of a certificate's subject and issuer; none of them carries a control character.

`cryptography` has read the whole certificate before, but its objects for a name cost more than all
the rest.  So a subject is read here from its DER where it is as plain as most are, and what is
alike in all certificates of a company is read once.  Any other is left to `cryptography`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID

from sidecar.core.bounded import remember
from sidecar.core.errors import MalformedCertificate

from .der import slices, value_of

# The names of RFC 4514, section 3, and beyond them those that OpenSSL, and so nginx, prints.
_DN_NAMES = {
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.SURNAME: "SN",
    NameOID.GIVEN_NAME: "GN",
    NameOID.TITLE: "title",
}


class Subject(NamedTuple):
    """Values by type, in their order, and the DN as RFC 4514 writes it (last RDN first)."""

    cn: tuple[str, ...]
    o: tuple[str, ...]
    ou: tuple[str, ...]
    dn: str


def clean(text: str) -> str:
    """The text itself; control characters (Unicode category Cc, NUL among them) are refused.

    Raises `MalformedCertificate`.
    """
    if _CONTROL.search(text):
        raise MalformedCertificate(f"control character in the name {text[:80]!r}")
    return text


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def values(name: x509.Name) -> dict[x509.ObjectIdentifier, tuple[str, ...]]:
    """A Name's values by type.  Raises `MalformedCertificate` for a control character in any."""
    found: dict[x509.ObjectIdentifier, tuple[str, ...]] = {}
    for attribute in name:
        value = attribute.value
        text = clean(value) if isinstance(value, str) else str(value)
        found[attribute.oid] = (*found.get(attribute.oid, ()), text)
    return found


def dn(name: x509.Name) -> str:
    """A Name as RFC 4514 writes it."""
    return name.rfc4514_string(_DN_NAMES)


def read_subject(cert: x509.Certificate, name: bytes) -> Subject:
    """The subject of a certificate, whose DER is `name`.  Raises `MalformedCertificate`."""
    return _plain_subject(name) or _any_subject(cert.subject)


def _any_subject(name: x509.Name) -> Subject:
    found = values(name)
    return Subject(
        cn=found.get(NameOID.COMMON_NAME, ()),
        o=found.get(NameOID.ORGANIZATION_NAME, ()),
        ou=found.get(NameOID.ORGANIZATIONAL_UNIT_NAME, ()),
        dn=dn(name),
    )


_MOST = 1000
"""Names kept of a kind; strangers make as many as they like."""

_CHECKED: dict[bytes, None] = {}
"""Issuer names that were found readable, as there are few: reading one takes microseconds."""


def check_issuer(cert: x509.Certificate, name: bytes) -> None:
    """An issuer's name has to be as readable as a subject's: rules and the log speak of it.

    `name` is its DER.  Raises `MalformedCertificate`.
    """
    if name in _CHECKED:
        return
    values(cert.issuer)
    if len(name) < 1000:
        remember(_CHECKED, name, None, _MOST)


# -- subjects that are plain ----------------------------------------------------------------------


class _Relative(NamedTuple):
    """A relative name with one attribute: `CN`, `alice`, `CN=alice`."""

    kind: str
    value: str
    text: str


# RFC 4514, section 3, and beyond it as OpenSSL, and so nginx, writes them.
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

_UTF8, _PRINTABLE, _IA5 = 0x0C, 0x13, 0x16
_NOT_PLAIN = re.compile('[\x00-\x1f\x7f-\x9f\\\\"+,;<>]|^[# ]| $')
"""What RFC 4514, 2.4, escapes, and control characters."""

_PLAIN: dict[bytes, _Relative] = {}
"""Relative names that many share, by their DER: all kinds but those that name one person."""
_LONGEST = 0x7F
_OWN = {"CN", "UID", "emailAddress", "serialNumber", "SN", "GN"}


def _plain_subject(name: bytes) -> Subject | None:
    """Read a Name (DER, known to be well-formed), or None where it isn't plain."""
    relatives = []
    for octets in slices(name, value_of(name, 0), len(name)):
        relative = _PLAIN.get(octets) or _read(octets)
        if relative is None:
            return None
        relatives.append(relative)
    return Subject(
        tuple([value for kind, value, _ in relatives if kind == "CN"]),
        tuple([value for kind, value, _ in relatives if kind == "O"]),
        tuple([value for kind, value, _ in relatives if kind == "OU"]),
        ",".join([text for _, _, text in reversed(relatives)]),
    )


def _read(octets: bytes) -> _Relative | None:
    """SET { SEQUENCE { OID, string } }, all lengths in one octet."""
    size = len(octets)
    if not 11 <= size <= _LONGEST:
        return None
    behind = 6 + octets[5]
    kind = TYPES.get(octets[6:behind])
    if kind is None or octets[behind + 1] != size - behind - 2:
        return None
    text = _text(octets[behind], octets[behind + 2 :])
    if not text or _NOT_PLAIN.search(text):
        return None
    relative = _Relative(kind, text, f"{kind}={text}")
    if kind not in _OWN:
        remember(_PLAIN, octets, relative, _MOST)
    return relative


def _text(tag: int, octets: bytes) -> str:
    """The text of a string, or nothing."""
    try:
        if tag == _UTF8:
            return octets.decode()
        if tag in (_PRINTABLE, _IA5):
            return octets.decode("ascii")
    except UnicodeDecodeError:
        pass
    return ""
