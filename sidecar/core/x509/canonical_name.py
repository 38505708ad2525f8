"""Compare names as OpenSSL does, ignoring extra blanks and the case of ASCII letters.

RFC 5280, 7.1 (`der.comparable_name`) also ignores the case of other letters and normalizes.  Names
that are equal here are also equal there.
"""

from __future__ import annotations

from functools import lru_cache

from .der import BIT_STRING, NO_STRINGS, OID, SEQUENCE, Tlv, children, dotted, is_bits, only

CanonicalName = tuple[tuple[bytes, ...], ...]
"""Relative names in their order, each with its attributes sorted."""

SET, UTF8, BMP, UNIVERSAL = 0x31, 0x0C, 0x1E, 0x1C
_ENCODINGS = {UTF8: "utf-8", BMP: "utf-16-be", UNIVERSAL: "utf-32-be"}
_SINGLE_OCTET = (0x13, 0x14, 0x16)
"""PrintableString, T61String, IA5String: OpenSSL reads all three as Latin-1."""
_AS_THEY_ARE = (*NO_STRINGS, 0x12)
"""These and NumericString are compared octet by octet.  OpenSSL reads no other type."""

MAX_NAME = 16384


@lru_cache(maxsize=512)
def canonical_name(der: bytes) -> CanonicalName:
    """Convert a DER Name to the form that OpenSSL compares.  Raises ValueError."""
    if len(der) > MAX_NAME:
        raise ValueError(f"a name of more than {MAX_NAME} octets")
    outer = only(der, SEQUENCE)
    return tuple(_relative(der, rdn) for rdn in children(der, outer.start, outer.stop))


def _relative(der: bytes, rdn: Tlv) -> tuple[bytes, ...]:
    if rdn.tag != SET:
        raise ValueError("a relative name that is not a SET")
    if rdn.start == rdn.stop:
        raise ValueError("a relative name without an attribute")
    return tuple(sorted(canonical_attribute(der, a) for a in children(der, rdn.start, rdn.stop)))


def canonical_attribute(der: bytes, at: Tlv) -> bytes:
    """Convert one attribute to the form that OpenSSL compares.  Raises ValueError."""
    kind, value = children(der, at.start, at.stop)
    if at.tag != SEQUENCE or kind.tag != OID:
        raise ValueError("an attribute that is not a type and value")
    dotted(der[kind.start : kind.stop])
    octets = der[value.start : value.stop]
    if value.tag in _ENCODINGS or value.tag in _SINGLE_OCTET:
        text = text_of(value.tag, octets).encode()
        # bytes.split and bytes.lower handle ASCII only, as OpenSSL does
        return der[at.start : kind.stop] + b"\x0c" + b" ".join(text.split()).lower()
    if value.tag not in _AS_THEY_ARE:
        raise ValueError("an attribute of a type that OpenSSL doesn't read in names")
    if value.tag == BIT_STRING and not is_bits(octets):
        raise ValueError("a broken BIT STRING")
    return der[at.start : kind.stop] + bytes([value.tag]) + octets


def text_of(tag: int, octets: bytes) -> str:
    """Decode the octets of an ASN.1 string type.  Raises ValueError."""
    text = octets.decode(_ENCODINGS.get(tag, "latin-1"))
    if tag == BMP and any(ord(letter) > 0xFFFF for letter in text):
        raise ValueError("a BMPString with a character above U+FFFF")
    return text


def attributes(der: bytes) -> list[tuple[bytes, int, bytes]]:
    """Return OID (DER), tag and octets of every attribute of a DER Name.  Raises ValueError."""
    found = []
    outer = only(der, SEQUENCE)
    for rdn in children(der, outer.start, outer.stop):
        for attribute in children(der, rdn.start, rdn.stop):
            kind, value = children(der, attribute.start, attribute.stop)
            octets = der[value.start : value.stop]
            found.append((der[attribute.start : kind.stop], value.tag, octets))
    return found
