"""Compare distinguished names by their meaning, independent of the notation.

A name is parsed from DER, or from text as RFC 4514, RFC 2253, nginx or OpenSSL writes it.  The
comparison ignores the ASN.1 string type, the order within a multi-valued RDN, and the case of
attribute types, of DC and of the host of a mail address.  It respects the order of RDNs and the
case of everything else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice, permutations, product
from typing import NamedTuple

from .attribute_types import NAMES, OIDS
from .der import MAX_NAME, SEQUENCE, UTF8_STRING, children, comparable_text, encode, only
from .service_identity import fold_dns

_HINT = "write it as RFC 4514 does, the last RDN first: CN=alice,O=Example"


class ComparedAttribute(NamedTuple):
    """An attribute's type (dotted OID) and value: text, or DER if it is not a string.

    `der` is the DER of the value, and empty if the name was parsed from text.
    """

    oid: str
    value: str | bytes
    der: bytes = b""


ComparedName = tuple[tuple[ComparedAttribute, ...], ...]
"""RDNs in the certificate's order: the first RDN first."""

Key = tuple[tuple[tuple[str, str | bytes], ...], ...]
"""A form of a name that is equal for equal names."""


# -- comparison ------------------------------------------------------------------------------------

_DC, _MAIL, _UID, _UNIQUE = (
    OIDS[name] for name in ("dc", "emailaddress", "uid", "uniqueidentifier")
)


def fold_mail(address: str) -> str:
    """Convert a mail address's host to lower case, but not the local part (RFC 5280, 7.5)."""
    local, at, host = address.rpartition("@")
    return local + at + fold_dns(host)


def key_of(name: ComparedName, *, refusing: bool = False) -> Key:
    """Convert a name to a comparable key.

    With `refusing`, text is normalized to NFC, and OpenSSL's `uid` equals RFC 4514's `UID`.
    """
    return tuple(_sorted([_fold(attribute, refusing) for attribute in rdn]) for rdn in name)


def _fold(attribute: ComparedAttribute, refusing: bool) -> tuple[str, str | bytes]:
    oid, value, _ = attribute
    if isinstance(value, str):
        if refusing and not value.isascii():
            value = unicodedata.normalize("NFC", value)
        if oid == _DC:
            value = fold_dns(value)
        elif oid == _MAIL:
            value = fold_mail(value)
    if refusing and oid == _UNIQUE:
        oid = _UID
    return oid, value


def _sorted(rdn: list[tuple[str, str | bytes]]) -> tuple[tuple[str, str | bytes], ...]:
    """Sort the attributes of one RDN, which is a SET, into a fixed order."""
    return tuple(rdn if len(rdn) == 1 else sorted(rdn, key=_order))


def _order(attribute: tuple[str, str | bytes]) -> tuple[list[int], bytes]:
    oid, value = attribute
    octets = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
    return [int(arc) for arc in oid.split(".") if arc], octets


def comparable_values(
    name: ComparedName, form: Callable[[str], str] = comparable_text
) -> ComparedName:
    """Convert a name's strings to a form that is equal for equal names (RFC 5280, 7.1)."""
    return tuple(
        tuple(_with_form(each, form) if isinstance(each.value, str) else each for each in rdn)
        for rdn in name
    )


MAX_ORDERS = 24
"""Most orders in which a name is compared: those of four attributes in one RDN."""


def all_orders(name: ComparedName) -> list[ComparedName]:
    """Return a name with the attributes of each RDN, which is a SET, in every order."""
    orders = [list(islice(permutations(rdn), MAX_ORDERS)) for rdn in name]
    return list(islice(product(*orders), MAX_ORDERS))


def squeezed(text: str) -> str:
    """Remove the blanks that OpenSSL ignores; unlike `comparable_text`, keep all letters, so that a
    regular expression that has them still matches."""
    return re.sub(" +", " ", text).strip(" ")


def _with_form(attribute: ComparedAttribute, form: Callable[[str], str]) -> ComparedAttribute:
    text = form(str(attribute.value))
    der = encode(UTF8_STRING, text.encode("utf-8", "surrogatepass"))
    return ComparedAttribute(attribute.oid, text, der)


# -- from DER --------------------------------------------------------------------------------------

# How the octets of a string become text, as OpenSSL's ASN1_STRING_to_UTF8 reads them.
_ENCODINGS = {
    0x0C: "utf-8",
    0x12: "latin-1",
    0x13: "latin-1",
    0x14: "latin-1",
    0x16: "latin-1",
    0x1A: "latin-1",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}


@lru_cache(maxsize=128)
def read_compared_name(der: bytes) -> ComparedName:
    """Parse a DER Name for comparison.  Raises ValueError, also above `MAX_NAME` octets.

    `subject.read_name` parses a Name for display and for the keys `cn`, `o` and `ou`.
    """
    if len(der) > MAX_NAME:
        raise ValueError(f"a name of more than {MAX_NAME} octets")
    rdns = children(der, *only(der, SEQUENCE)[1:])
    return tuple(
        tuple(_read_attribute(der, at.start, at.stop) for at in children(der, rdn.start, rdn.stop))
        for rdn in rdns
    )


def _read_attribute(der: bytes, start: int, stop: int) -> ComparedAttribute:
    kind, value = children(der, start, stop)
    return ComparedAttribute(
        _dotted(der[kind.start : kind.stop]), *_value(der[kind.stop : value.stop])
    )


def _value(der: bytes) -> tuple[str | bytes, bytes]:
    """Decode the value of one TLV; return it with the DER of the TLV."""
    at = next(iter(children(der, 0, len(der))))
    encoding = _ENCODINGS.get(at.tag)
    if encoding is None:
        return der, der
    try:
        return der[at.start : at.stop].decode(encoding), der
    except UnicodeDecodeError:
        return der, der


def _dotted(octets: bytes) -> str:
    arcs, arc = [], 0
    for octet in octets:
        arc = arc << 7 | octet & 0x7F
        if octet < 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2) if arcs else 0
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:]) if arcs else ()))


# -- from text -------------------------------------------------------------------------------------

_TYPE = re.compile(r"\s*(?:oid\.)?(\d+(?:\.\d+)+|[A-Za-z][A-Za-z0-9-]*)\s*=", re.IGNORECASE)
_OID = re.compile(r"([01]\.[1-3]?[0-9]|2\.(0|[1-9][0-9]*))(\.(0|[1-9][0-9]*))*")
_HEX = re.compile(r"\s*#((?:[0-9A-Fa-f]{2})+)\s*(?=[,;+]|\Z)")
_PART = re.compile(r'\\([0-9A-Fa-f]{2})|\\(.)|([^\\,;+"]+|")', re.DOTALL)
_QUOTED_PART = re.compile(r'\\([0-9A-Fa-f]{2})|\\(.)|([^\\"]+)', re.DOTALL)
_ONELINE = re.compile(r"(?<!\\)([/+])(?=(?:\d+(?:\.\d+)+|[A-Za-z][A-Za-z0-9-]*)=)")
_ONELINE_ESCAPE = re.compile(r"\\x([0-9A-Fa-f]{2})|\\([/+])")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def as_logged(text: str) -> str:
    r"""Undo the escapes of nginx's access log: `\x5C` is a backslash, `\x22` a quotation mark.

    In `\\x22` the backslash is a value's own, which RFC 4514 escapes.
    """
    return _LOGGED.sub(lambda found: "\\" if found[1] == "5C" else '"', text)


_LOGGED = re.compile(r"(?<!\\)\\x(5C|22)")


def parse_name(text: str) -> ComparedName:
    r"""Parse a DN in the form of RFC 4514 or 2253, of nginx or OpenSSL, or `/O=Example/CN=alice`.

    Raises ValueError with the mistake and what to write instead.
    """
    text = as_logged(text)
    if text.startswith("/"):
        return _parse_oneline(text)
    rdns: list[tuple[ComparedAttribute, ...]] = []
    rdn: list[ComparedAttribute] = []
    at = 0
    while True:
        attribute, at = _parse_attribute(text, at)
        rdn.append(attribute)
        behind = text[at : at + 1]
        if behind != "+":
            rdns.append(tuple(rdn))
            rdn = []
        if not behind:
            return tuple(reversed(rdns))
        at += 1


def _parse_attribute(text: str, at: int) -> tuple[ComparedAttribute, int]:
    found = _TYPE.match(text, at)
    if found is None:
        raise ValueError(f"{text!r} is not a DN: no `type=` in {text[at:][:40]!r}", _HINT)
    oid, at = _oid(found[1]), found.end()
    hexadecimal = _HEX.match(text, at)
    if hexadecimal is not None:
        return ComparedAttribute(oid, _from_hex(hexadecimal[1])), hexadecimal.end()
    while text[at : at + 1] == " ":
        at += 1
    if text[at : at + 1] == '"':
        value, at = _parse_quoted(text, at + 1)
    else:
        value, at = _parse_value(text, at)
    return ComparedAttribute(oid, _checked(value, text)), at


def _oid(name: str) -> str:
    oid = name if _OID.fullmatch(name) else OIDS.get(name.lower(), "")
    if not oid:
        raise ValueError(f"unknown attribute type {name!r}", "write its OID: 2.5.4.3=alice")
    return oid


def _from_hex(digits: str) -> str | bytes:
    try:
        der = bytes.fromhex(digits)
        tag = der[0]
        only(der, tag)
        return _value(der)[0]
    except ValueError as error:
        raise ValueError(f"#{digits} is not a DER value: {error}", _HINT) from None


def _parse_value(text: str, at: int) -> tuple[bytes, int]:
    """Parse an unquoted value up to a separator; drop unescaped blanks at its end."""
    octets, kept = b"", 0
    while found := _PART.match(text, at):
        at = found.end()
        octets += _octets(found)
        plain = found[3]
        kept = len(octets) - len(plain) + len(plain.rstrip(" ")) if plain else len(octets)
    return octets[:kept], at


def _parse_quoted(text: str, at: int) -> tuple[bytes, int]:
    octets = b""
    while found := _QUOTED_PART.match(text, at):
        at = found.end()
        octets += _octets(found)
    rest = re.compile(r'" *(?=[,;+]|\Z)').match(text, at)
    if rest is None:
        raise ValueError(f"{text!r} is not a DN: a quotation mark has no partner", _HINT)
    return octets, rest.end()


def _octets(found: re.Match[str]) -> bytes:
    if found[1]:
        return bytes.fromhex(found[1])
    return (found[2] or found[3]).encode("utf-8", "surrogatepass")


def _checked(octets: bytes, text: str) -> str:
    try:
        value = octets.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{text!r} is not a DN: its escapes are not UTF-8", _HINT) from None
    if _CONTROL.search(value):
        raise ValueError(f"{text!r}: a certificate with a control character is refused", _HINT)
    return value


def _parse_oneline(text: str) -> ComparedName:
    """Parse `/O=Example/CN=alice`, the first RDN first, of X509_NAME_oneline and older nginx."""
    _, *parts = _ONELINE.split(text)
    if not parts or not _ONELINE.match(text):
        raise ValueError(f"{text!r} is not a DN", _HINT)
    rdns: list[tuple[ComparedAttribute, ...]] = []
    for separator, part in zip(parts[::2], parts[1::2], strict=True):
        kind, _, raw = part.partition("=")
        octets = b""
        at = 0
        for found in _ONELINE_ESCAPE.finditer(raw):
            octets += raw[at : found.start()].encode("utf-8", "surrogatepass")
            octets += bytes.fromhex(found[1]) if found[1] else found[2].encode()
            at = found.end()
        value = _checked(octets + raw[at:].encode("utf-8", "surrogatepass"), text)
        attribute = ComparedAttribute(_oid(kind), value)
        if separator == "+" and rdns:
            rdns[-1] = (*rdns[-1], attribute)
        else:
            rdns.append((attribute,))
    return tuple(rdns)


# -- to text ---------------------------------------------------------------------------------------

_SPECIAL = re.compile('[\\\\"+,;<>]|^[# ]| $')


def canonical_text(name: ComparedName, *, in_order: bool = False) -> str:
    r"""Write a name in the form that globs and regular expressions are matched against.

    The form is RFC 4514's, the last RDN first; attributes of one RDN in the order of their OIDs;
    types by OpenSSL's short names, or dotted; a value that is not a string as `#` and its DER in
    hex.  Characters that RFC 4514 escapes are written in hex (`\2C`), so that a `,` or `+` in a
    pattern never matches a part of a value.  `in_order` keeps the attributes of an RDN as they are.
    """
    rdns = [[(a.oid, a.value) for a in rdn] for rdn in name]
    return ",".join(
        "+".join(f"{NAMES.get(oid, oid)}={_canonical_value(value)}" for oid, value in rdn)
        for rdn in reversed(rdns if in_order else list(map(_sorted, rdns)))
    )


def _canonical_value(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return "#" + value.hex().upper()
    return _SPECIAL.sub(lambda found: escape_in_hex(found[0]), value)


def escape_in_hex(character: str) -> str:
    r"""Write one character of ASCII as `\2C`."""
    return f"\\{ord(character):02X}"


def spellings(name: ComparedName) -> Iterator[str]:
    """Yield a name in the forms of nginx and OpenSSL.

    They are RFC 2253 with escapes, `O = Ex, CN = a`, `O=Ex, CN=a` with few escapes or none (OpenSSL
    3.2 and newer), and two of one line.  Refusing rules are matched against these forms too.
    `name` must be parsed from DER.
    """
    yield ",".join("+".join(map(_rfc2253, reversed(rdn))) for rdn in reversed(name))
    yield ", ".join(" + ".join(map(_spaced, rdn)) for rdn in name)
    yield from (", ".join(" + ".join(map(form, rdn)) for rdn in name) for form in (_bare, _escaped))
    yield "".join(_oneline(rdn, escape=True) for rdn in name)
    yield "".join(_oneline(rdn, escape=False) for rdn in name)


def _short(oid: str) -> str:
    return "street" if oid == "2.5.4.9" else NAMES.get(oid, oid)


def _escape_octets(value: str) -> str:
    """Escape octets above 0x7f as OpenSSL's ASN1_STRFLGS_ESC_MSB does."""
    if value.isascii():
        return value
    octets = value.encode("utf-8", "surrogatepass")
    return "".join(chr(octet) if octet < 0x80 else f"\\{octet:02X}" for octet in octets)


def _rfc2253(attribute: ComparedAttribute) -> str:
    oid, value, der = attribute
    if isinstance(value, bytes) or oid not in NAMES:
        return f"{_short(oid)}=#{der.hex().upper()}"
    text = value if value == "#" else _SPECIAL.sub(r"\\\g<0>", value)  # as OpenSSL, alone
    return f"{_short(oid)}={_escape_octets(text)}"


_QUOTED = re.compile("[+,;<>]|^[# ]| $")
"""What OpenSSL puts quotation marks around, in the form of one line."""


def _spaced(attribute: ComparedAttribute) -> str:
    oid, value, der = attribute
    if isinstance(value, bytes):
        return f"{_short(oid)} = #{der.hex().upper()}"
    text = _escape_octets(re.sub(r'[\\"]', r"\\\g<0>", value))
    quoted = value != "#" and _QUOTED.search(value)
    return f'{_short(oid)} = "{text}"' if quoted else f"{_short(oid)} = {text}"


def _bare(attribute: ComparedAttribute) -> str:
    """Write `type=value` as `openssl x509 -subject` of OpenSSL 3.2 to 3.6 does."""
    return f"{_short(attribute.oid)}={_octets_of(attribute)}"


def _escaped(attribute: ComparedAttribute) -> str:
    """Write `type=value` as OpenSSL 4.0 does."""
    oid, _, der = attribute
    if oid not in NAMES:
        return f"{oid}=#{der.hex().upper()}"
    return f"{_short(oid)}={_CONTROL_OR_BACKSLASH.sub(_escape_control, _octets_of(attribute))}"


_CONTROL_OR_BACKSLASH = re.compile(r"[\0-\x1f\x7f]|\\")


def _escape_control(found: re.Match[str]) -> str:
    return r"\\" if found[0] == "\\" else escape_in_hex(found[0])


def _octets_of(attribute: ComparedAttribute) -> str:
    """Return the text, or the octets of what is none."""
    _, value, der = attribute
    if isinstance(value, str):
        return value
    return _contents(der).decode("latin-1")


def _contents(der: bytes) -> bytes:
    at = next(iter(children(der, 0, len(der))))
    return der if at.tag == SEQUENCE else der[at.start + (at.tag == 0x03) : at.stop]


def _oneline(rdn: Iterable[ComparedAttribute], *, escape: bool) -> str:
    """Write `/type=value` as X509_NAME_oneline of OpenSSL 3 (`escape`) or of older versions."""
    found = ""
    for oid, _, der in rdn:
        octets = _contents(der)
        value = "".join(
            f"\\{chr(o)}"
            if escape and o in b"/+"
            else chr(o)
            if 0x20 <= o < 0x7F
            else f"\\x{o:02X}"
            for o in octets
        )
        found += f"{'+' if escape and found else '/'}{_short(oid)}={value}"
    return found
