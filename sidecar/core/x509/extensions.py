"""Parse the certificate extensions that rules can ask about, from their DER.

The form of each Extension is checked completely, and a repeated one is refused (RFC 5280, 4.2).
The values of subjectAltName, extKeyUsage and certificatePolicies are parsed; a kind of value that
can't be parsed is listed in `unreadable`: it never grants and always refuses.  The values of other
extensions are not parsed here.  Most extensions of an organization's certificates are identical
octet by octet, so parsed extensions are cached by their DER.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import NamedTuple

from sidecar.core.bounded import put_bounded
from sidecar.core.errors import MalformedCertificate
from sidecar.core.ip_address import address_text

from .der import (
    BMP_STRING,
    BOOLEAN,
    IA5_STRING,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    UTF8_STRING,
    VISIBLE_STRING,
    check_values,
    children,
    dotted,
    slices,
    string,
    value_of,
    within,
)
from .subject import clean, read_name

MAX_EXTENSIONS = 64
"""Most extensions of one certificate."""

MAX_NAMES = 4096
"""Most alternative names of one certificate."""

MAX_ADDRESSES = 512
"""Most IP addresses among them: their text takes longest to make."""

MAX_OTHER = 8192
"""Most octets of alternative names that aren't texts or addresses, of one certificate."""

MAX_OIDS = 128
"""Most usages, and most policies, of one certificate."""

_Texts = tuple[str, ...]


class RuleExtensions(NamedTuple):
    """Alternative names by kind, extended key usages and certificate policies (dotted OIDs)."""

    dns: _Texts = ()
    uri: _Texts = ()
    ip: _Texts = ()
    email: _Texts = ()
    upn: _Texts = ()
    mailbox: _Texts = ()
    eku: _Texts = ()
    policy_oid: _Texts = ()
    unreadable: frozenset[str] = frozenset()


class _Known(NamedTuple):
    """One parsed Extension: the contents of its OID, and the value of alternative names."""

    oid: bytes
    eku: _Texts = ()
    policy_oid: _Texts = ()
    unreadable: frozenset[str] = frozenset()
    value: bytes = b""


_ALTERNATIVE_NAME = bytes.fromhex("551d11")
_USAGES, _POLICIES = bytes.fromhex("551d25"), bytes.fromhex("551d20")
_KEY_IDENTIFIER = bytes.fromhex("551d0e")

_KNOWN: dict[bytes, _Known] = {}
"""Extensions by their DER."""
_MOST, _LONGEST = 1000, 1000

NAMES = frozenset({"dns", "uri", "ip", "email", "upn"})
"""The kinds of alternative names that rules ask about."""


def split_extensions(field: bytes) -> list[bytes]:
    """Split a certificate's `[3]` field into its Extensions.  Raises ValueError."""
    (listed,) = within(field, 0xA3)
    found = within(listed, SEQUENCE, MAX_EXTENSIONS + 1)
    if len(found) > MAX_EXTENSIONS:
        raise ValueError(f"more than {MAX_EXTENSIONS} extensions")
    return found


def read_extensions(listed: list[bytes]) -> RuleExtensions:
    """Parse the values that rules can ask about.

    Raises ValueError for an extension that isn't DER, and `MalformedCertificate`.
    """
    oids = set()
    names = _NO_NAMES
    eku: _Texts = ()
    policies: _Texts = ()
    unreadable = _NOTHING
    for octets in listed:
        known = _KNOWN.get(octets) or _read(octets)
        oids.add(known.oid)
        eku = known.eku or eku
        policies = known.policy_oid or policies
        if known.value:
            names, broken = read_names(known.value)
            unreadable |= broken
        elif known.unreadable:
            unreadable |= known.unreadable
    if len(oids) != len(listed):
        raise ValueError("an extension is repeated")
    return RuleExtensions(*names, eku, policies, unreadable)


def _read(octets: bytes) -> _Known:
    oid, value = split_extension(octets)
    if oid == _ALTERNATIVE_NAME:
        return _Known(oid, unreadable=NAMES, value=value)
    known = _Known(oid)
    if oid == _USAGES:
        eku = _read_oids(value, _usage)
        known = _Known(oid, unreadable=frozenset({"eku"})) if eku is None else _Known(oid, eku=eku)
    elif oid == _POLICIES:
        policies = _read_policies(value)
        if policies is None:
            known = _Known(oid, unreadable=frozenset({"policy_oid"}))
        else:
            known = _Known(oid, policy_oid=policies)
    if oid != _KEY_IDENTIFIER and len(octets) <= _LONGEST:
        put_bounded(_KNOWN, octets, known, _MOST)
    return known


def split_extension(octets: bytes) -> tuple[bytes, bytes]:
    """Return the contents of an Extension's OID, and its value.  Raises ValueError.

    An explicit `critical FALSE` is accepted, although DER omits the default.
    """
    parts = within(octets, SEQUENCE)
    if len(parts) == 3:
        critical = parts.pop(1)
        if critical[0] != BOOLEAN or len(critical) != 3:
            raise ValueError("an extension's `critical` is not a BOOLEAN")
    if len(parts) != 2 or parts[0][0] != OID or parts[1][0] != OCTET_STRING:
        raise ValueError("an extension is not an OID and OCTET STRING")
    oid, value = parts
    oid = oid[value_of(oid, 0) :]
    dotted(oid)
    return oid, value[value_of(value, 0) :]


def is_critical(octets: bytes) -> bool:
    """Return whether an Extension that `split_extension` has accepted is critical."""
    flag = within(octets, SEQUENCE)[1]
    return flag[0] == BOOLEAN and flag[2] != 0


# -- usages and policies --------------------------------------------------------------------------


def _read_oids(value: bytes, read: Callable[[bytes], str]) -> _Texts | None:
    """Parse a SEQUENCE OF items with `read`; return None if it can't be parsed."""
    try:
        found = within(value, SEQUENCE, MAX_OIDS + 1)
        return tuple([read(each) for each in found]) if len(found) <= MAX_OIDS else None
    except ValueError:
        return None


def _read_policies(value: bytes) -> _Texts | None:
    """Parse certificatePolicies; return None if they can't be parsed, or are too many values."""
    try:
        check_values(value, 0, len(value))
    except ValueError:
        return None
    return _read_oids(value, _policy)


def _usage(octets: bytes) -> str:
    """Parse a KeyPurposeId.  Raises ValueError."""
    if octets[0] != OID:
        raise ValueError("a key usage is not an OID")
    return dotted(octets[value_of(octets, 0) :])


def _policy(octets: bytes) -> str:
    """Parse a PolicyInformation; the values of its qualifiers were checked.  Raises ValueError."""
    policy, *qualifiers = within(octets, SEQUENCE) or [b"\0"]
    if len(qualifiers) > 1:
        raise ValueError("a policy is not an OID and qualifiers")
    for each in qualifiers:
        for qualifier in within(each, SEQUENCE):
            oid, qualified = within(qualifier, SEQUENCE)
            _usage(oid)
            kind = oid[value_of(oid, 0) :]
            if kind == _CPS and qualified[0] != IA5_STRING:
                raise ValueError("a CPS is not an IA5String")
            if kind == _NOTICE:
                _check_notice(qualified)
    return _usage(policy)


def _check_notice(octets: bytes) -> None:
    """Check a UserNotice as OpenSSL parses it (RFC 5280, 4.2.1.4).  Raises ValueError."""
    parts = within(octets, SEQUENCE)
    if parts and parts[0][0] == SEQUENCE:
        organization, numbers = within(parts.pop(0), SEQUENCE)
        if organization[0] not in _DISPLAYED:
            raise ValueError("a notice's organization is not a text")
        if any(number[0] != INTEGER for number in within(numbers, SEQUENCE)):
            raise ValueError("a notice's number is not an INTEGER")
    if [part for part in parts if part[0] not in _DISPLAYED] or len(parts) > 1:
        raise ValueError("a notice is not a reference and a text")


_CPS = bytes.fromhex("2b06010505070201")
_NOTICE = bytes.fromhex("2b06010505070202")
"""The qualifiers that OpenSSL reads."""

_DISPLAYED = (IA5_STRING, VISIBLE_STRING, BMP_STRING, UTF8_STRING)


# -- alternative names ----------------------------------------------------------------------------

_Kinds = tuple[_Texts, _Texts, _Texts, _Texts, _Texts, _Texts]
_NO_NAMES: _Kinds = ((), (), (), (), (), ())
_NOTHING: frozenset[str] = frozenset()
_OTHER, _EMAIL, _DNS, _X400, _DIRECTORY, _EDI, _URI, _IP, _REGISTERED = (
    0xA0, 0x81, 0x82, 0xA3, 0xA4, 0xA5, 0x86, 0x87, 0x88,
)  # fmt: skip
_TEXTS = {_DNS: "dns", _URI: "uri", _EMAIL: "email"}

UPN = bytes.fromhex("2b060104018237140203")
"""The otherName that is a Microsoft user principal name (1.3.6.1.4.1.311.20.2.3)."""

MAILBOX = bytes.fromhex("2b06010505070809")
"""The otherName that is a mail address with other letters than ASCII (RFC 9598)."""

_OTHERS = {UPN: "upn", MAILBOX: "mailbox"}


def read_names(value: bytes) -> tuple[_Kinds, frozenset[str]]:
    """Parse the alternative names by kind (RFC 5280, 4.2.1.6); also return the unreadable kinds.

    Every name is checked for control characters, also names that no rule can ask about.  If one
    name of a kind can't be parsed, the kind has no names.  Raises `MalformedCertificate`.
    """
    kinds = ("dns", "uri", "ip", "email", "upn", "mailbox")
    found: dict[str, list[str]] = {kind: [] for kind in kinds}
    broken = set()
    try:
        names = within(value, SEQUENCE, MAX_NAMES + 1)
        _check_amount(names)
        for name in names:
            kind = _TEXTS.get(name[0])
            if kind is None:
                kind, text = _other_name(name)
            else:
                text = _ia5(name[value_of(name, 0) :])
            if text is not None:
                found[kind].append(text)
            elif kind:
                broken.add("email" if kind == "mailbox" else kind)
    except MalformedCertificate:
        raise
    except ValueError:
        return _NO_NAMES, NAMES
    for kind in broken:
        found[kind] = []
    dns, uri, ip, email, upn, mailbox = map(tuple, found.values())
    return (dns, uri, ip, email, upn, mailbox), frozenset(broken) if broken else _NOTHING


def _check_amount(names: list[bytes]) -> None:
    """Refuse more names than can be read in short time.  Raises `MalformedCertificate`."""
    if len(names) > MAX_NAMES:
        raise MalformedCertificate(f"more than {MAX_NAMES} alternative names")
    others = [name for name in names if name[0] not in _TEXTS]
    addresses = [name for name in others if name[0] == _IP]
    if len(addresses) > MAX_ADDRESSES:
        raise MalformedCertificate(f"more than {MAX_ADDRESSES} addresses among its names")
    if sum(map(len, others)) - sum(map(len, addresses)) > MAX_OTHER:
        raise MalformedCertificate(f"more than {MAX_OTHER} octets of unusual alternative names")


def _ia5(octets: bytes) -> str | None:
    """Decode an IA5String; return None if an octet is not ASCII.

    Raises `MalformedCertificate` for control characters.
    """
    if octets.isascii():
        return clean(octets.decode())
    clean(_NOT_ASCII.sub(b"?", octets).decode())
    return None


_NOT_ASCII = re.compile(rb"[^\x00-\x7f]")


def _other_name(name: bytes) -> tuple[str, str | None]:
    """Parse a name that isn't dns, uri or email: its kind, and its text (None: unreadable).

    The kind is "" if no rule can ask about it.  Raises ValueError for a value that OpenSSL refuses
    as well, and `MalformedCertificate`.
    """
    tag, value = name[0], name[value_of(name, 0) :]
    if tag == _IP:
        return "ip", address_text(value) if len(value) in (4, 16) else None
    if tag == _OTHER:
        return _other_kind(value)
    if tag == _DIRECTORY:
        read_name(value)
    elif tag == _REGISTERED:
        dotted(value)
    elif tag in (_X400, _EDI):
        check_values(value, 0, len(value))
        _check_strings(value, 0, len(value))
    else:
        raise ValueError(f"an alternative name has the tag {tag:#x}")
    return "", None


def _other_kind(value: bytes) -> tuple[str, str | None]:
    """Parse an otherName's OID and `[0]` value as `_other_name` does: upn, mailbox or ""."""
    oid, *rest = slices(value, 0, len(value))
    (inner,) = within(rest[0], 0xA0) if len(rest) == 1 else (b"",)
    if oid[0] != OID or not inner:
        raise ValueError("an otherName is not an OID and value")
    check_values(oid + inner, 0, len(oid) + len(inner))
    kind = _OTHERS.get(oid[value_of(oid, 0) :], "")
    if not kind:
        _check_strings(inner, 0, len(inner))
        return "", None
    try:
        text = string(inner[0], inner[value_of(inner, 0) :])
    except ValueError:
        return kind, None
    return kind, None if text is None else clean(text)


_OTHER_STRINGS = (0x15, 0x19, 0x1B)
"""VideotexString, GraphicString, GeneralString (as in Kerberos names): no string of a Name."""


def _check_strings(data: bytes, start: int, stop: int) -> None:
    """Refuse control characters in strings at any level of values whose form was checked.

    Raises `MalformedCertificate`, and ValueError.
    """
    for found in children(data, start, stop):
        octets = data[found.start : found.stop]
        if found.tag & 0x20:
            _check_strings(data, found.start, found.stop)
        elif found.tag in _OTHER_STRINGS:
            clean(octets.decode("latin-1"))
        else:
            with contextlib.suppress(UnicodeDecodeError):
                clean(string(found.tag, octets) or "")


# -- constraints ----------------------------------------------------------------------------------

BASIC_CONSTRAINTS = bytes.fromhex("551d13")


def read_basic_constraints(value: bytes) -> tuple[bool, int | None]:
    """Parse `cA` and `pathLenConstraint` (RFC 5280, 4.2.1.9) as OpenSSL does.  Raises ValueError.

    An explicit default and a path length without `cA` are accepted.
    """
    parts = within(value, SEQUENCE)
    tags = bytes([each[0] for each in parts])
    if tags not in (b"", b"\1", b"\2", b"\1\2") or any(len(each) < 3 for each in parts):
        raise ValueError("basicConstraints can't be read")
    is_ca, length = False, None
    for each in parts:
        if each[0] == INTEGER:
            length = int.from_bytes(each[value_of(each, 0) :], "big", signed=True)
        elif len(each) == 3:
            is_ca = each[2] != 0
        else:
            raise ValueError("cA is not a BOOLEAN")
    return is_ca, length
