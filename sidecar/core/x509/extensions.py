"""What of a certificate's extensions rules ask for.

`cryptography` reads them, every one, and refuses what it can't read.  But for the subject's key
identifier and its alternative names a company's certificates all have the same extensions, octet
by octet: what was read once is known again, and those two are read here where they are plain.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat import asn1

from sidecar.core.bounded import remember

from .der import BOOLEAN, OCTET_STRING, slices, value_of
from .subject import clean, values

UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")


class Extensions(NamedTuple):
    """Alternative names by kind, extended key usages and certificate policies (dotted OIDs)."""

    dns: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    upn: tuple[str, ...] = ()
    eku: tuple[str, ...] = ()
    policy_oid: tuple[str, ...] = ()


def read_extensions(cert: x509.Certificate, field: bytes) -> Extensions:
    """The extensions of a certificate; `field` is their DER, `[3]` and all, or empty.

    Raises `MalformedCertificate`, and what `cryptography` raises for what it can't read.
    """
    if not field:
        return Extensions()
    listed = slices(field, value_of(field, value_of(field, 0)), len(field))
    return _read_plain(listed) or _read_any(cert, listed)


class _Known(NamedTuple):
    """An extension that was read before: its OID (DER), and what rules ask of it."""

    oid: bytes
    eku: tuple[str, ...] = ()
    policy_oid: tuple[str, ...] = ()


_KNOWN: dict[bytes, _Known] = {}
"""Extensions by their DER."""
_MOST, _LONGEST = 1000, 1000

_KEY_IDENTIFIER = bytes.fromhex("0603551d0e")
_ALTERNATIVE_NAME = bytes.fromhex("0603551d11")


def _read_any(cert: x509.Certificate, listed: list[bytes]) -> Extensions:
    """Read by `cryptography`, which refuses repeated ones; remember what others may have too."""
    found = Extensions()
    for octets, extension in zip(listed, cert.extensions, strict=True):
        value = extension.value
        known = _Known(slices(octets, value_of(octets, 0), len(octets), 1)[0])
        match value:
            case x509.SubjectAlternativeName():
                found = found._replace(**_names(value))
            case x509.ExtendedKeyUsage():
                known = known._replace(eku=tuple(usage.dotted_string for usage in value))
                found = found._replace(eku=known.eku)
            case x509.CertificatePolicies():
                policies = tuple(policy.policy_identifier.dotted_string for policy in value)
                known = known._replace(policy_oid=policies)
                found = found._replace(policy_oid=policies)
        if known.oid not in (_KEY_IDENTIFIER, _ALTERNATIVE_NAME) and len(octets) <= _LONGEST:
            remember(_KNOWN, octets, known, _MOST)
    return found


def _names(san: x509.SubjectAlternativeName) -> dict[str, tuple[str, ...]]:
    """The subject's alternative names by kind (RFC 5280, 4.2.1.6), every one checked."""
    found: dict[str, list[str]] = {"dns": [], "uri": [], "ip": [], "email": [], "upn": []}
    for name in san:
        match name:
            case x509.DNSName():
                found["dns"].append(clean(name.value))
            case x509.UniformResourceIdentifier():
                found["uri"].append(clean(name.value))
            case x509.IPAddress():
                found["ip"].append(str(name.value))
            case x509.RFC822Name():
                found["email"].append(clean(name.value))
            case x509.DirectoryName():
                values(name.value)
            case x509.OtherName() if name.type_id == UPN:
                found["upn"].append(clean(_utf8_string(name.value)))
    return {kind: tuple(texts) for kind, texts in found.items()}


def _utf8_string(der: bytes) -> str:
    """The text of one DER UTF8String, which is what a Microsoft user principal name is."""
    text: str = asn1.decode_der(str, der)
    return text


# -- extensions that are plain --------------------------------------------------------------------


def _read_plain(listed: list[bytes]) -> Extensions | None:
    """Read by what is known already; None where that doesn't suffice."""
    oids = set()
    names = _NO_NAMES
    eku: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    for octets in listed:
        known = _KNOWN.get(octets)
        if known is not None:
            oids.add(known.oid)
            eku = known.eku or eku
            policies = known.policy_oid or policies
        elif octets.startswith(_KEY_IDENTIFIER, 2) and _is_plain_identifier(octets):
            oids.add(_KEY_IDENTIFIER)
        elif octets.startswith(_ALTERNATIVE_NAME, value_of(octets, 0)):
            oids.add(_ALTERNATIVE_NAME)
            plain = _plain_names(octets)
            if plain is None:
                return None
            names = plain
        else:
            return None
    return Extensions(*names, eku, policies) if len(oids) == len(listed) else None


def _is_plain_identifier(octets: bytes) -> bool:
    """SEQUENCE { OID, OCTET STRING { OCTET STRING } } and nothing else, all lengths short."""
    size = len(octets)
    return (
        size > 11
        and octets[7] == octets[9] == OCTET_STRING
        and octets[8] == size - 9
        and octets[10] == size - 11
    )


_Texts = tuple[str, ...]
_Kinds = tuple[_Texts, _Texts, _Texts, _Texts, _Texts]
_NO_NAMES: _Kinds = ((), (), (), (), ())
_DNS, _EMAIL, _URI, _IP = 0x82, 0x81, 0x86, 0x87


def _plain_names(octets: bytes) -> _Kinds | None:
    """The names of a subjectAltName: `dns`, `uri`, `ip`, `email`, and no `upn`."""
    at = value_of(octets, 0) + len(_ALTERNATIVE_NAME)
    if octets[at] == BOOLEAN:
        at += 3
    at = value_of(octets, value_of(octets, at))  # an OCTET STRING, in it a SEQUENCE
    found: dict[int, list[str]] = {_DNS: [], _URI: [], _IP: [], _EMAIL: []}
    for name in slices(octets, at, len(octets)):
        tag, value = name[0], name[2:]
        if tag not in found or name[1] != len(value) or not value:
            return None
        if tag == _IP:
            if len(value) not in (4, 16):
                return None
            text = str(ipaddress.ip_address(value))
        else:
            text = value.decode("latin-1")
            if not (text.isascii() and text.isprintable()):
                return None
        found[tag].append(text)
    dns, uri, ip, email = map(tuple, found.values())
    return (dns, uri, ip, email, ()) if at < len(octets) else None
