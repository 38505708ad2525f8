"""As much DER as CRLs need beside `cryptography`: TLVs, and names made comparable.

Lengths are definite and tags have one octet (X.690, 10.1; X.509 uses no other).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

INTEGER, OID, SEQUENCE = 0x02, 0x06, 0x30
BOOLEAN, ENUMERATED, OCTET_STRING = 0x01, 0x0A, 0x04
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18


class Tlv(NamedTuple):
    """Where a value is: its tag, its first octet and the one behind its last."""

    tag: int
    start: int
    stop: int


_new = tuple.__new__  # what the class does, without its call


def tlv(data: bytes, at: int, end: int) -> Tlv:
    """The TLV that begins at `at` and ends by `end`.  Raises ValueError."""
    if at + 2 > end:
        raise ValueError(f"the DER breaks off at octet {at}")
    length = data[at + 1]
    start = at + 2
    if length >= 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= 8:
            raise ValueError(f"a DER length at octet {at} is not definite")
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
    if start + length > end:
        raise ValueError(f"the DER value at octet {at} is longer than what holds it")
    return _new(Tlv, (data[at], start, start + length))


def children(data: bytes, start: int, stop: int) -> Iterator[Tlv]:
    """The TLVs that follow each other from `start` to `stop`.  Raises ValueError."""
    while start < stop:
        found = tlv(data, start, stop)
        yield found
        start = found.stop


def slices(data: bytes, at: int, stop: int, most: int = 0) -> list[bytes]:
    """The TLVs that follow each other from `at` to `stop`, whole.

    At most the first `most`, if that is said.  Raises ValueError.
    """
    found: list[bytes] = []
    try:
        while at < stop:
            length = data[at + 1]
            if length < 0x80:
                end = at + 2 + length
            elif length == 0x82:
                end = at + 4 + (data[at + 2] << 8 | data[at + 3])
            else:
                end = tlv(data, at, stop).stop
            if end > stop:
                raise ValueError(f"the DER value at octet {at} is longer than what holds it")
            found.append(data[at:end])
            at = end
            if len(found) == most:
                break
    except IndexError:
        raise ValueError(f"the DER breaks off at octet {at}") from None
    return found


def value_of(data: bytes, at: int) -> int:
    """Where the value begins of the TLV at `at`, which is known to be well-formed."""
    length = data[at + 1]
    return at + 2 if length < 0x80 else at + 2 + (length & 0x7F)


def only(data: bytes, tag: int) -> Tlv:
    """The one TLV that the data is, of this tag.  Raises ValueError."""
    found = tlv(data, 0, len(data))
    if found.tag != tag or found.stop != len(data):
        raise ValueError(f"expected one DER value with tag {tag:#x}")
    return found


# UTF8String, NumericString, PrintableString, TeletexString, IA5String, VisibleString,
# UniversalString, BMPString: how their octets become text.
_TEXT = {
    0x0C: "utf-8",
    0x12: "latin-1",
    0x13: "latin-1",
    0x14: "latin-1",
    0x16: "latin-1",
    0x1A: "latin-1",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}


MAX_NAME = 16384
"""Octets of the longest name that is compared: the memory of a few is bounded by that."""


@lru_cache(maxsize=512)
def comparable_name(der: bytes) -> bytes:
    """A DER Name in a form that is equal for equal names (RFC 5280, section 7.1).

    The string type, case and the amount of blanks do not count (as by stringprep, RFC 4518,
    nearly: normalization is NFKC, and no character is prohibited).  Raises ValueError, also for
    names longer than `MAX_NAME`.
    """
    if len(der) > MAX_NAME:
        raise ValueError(f"a name of more than {MAX_NAME} octets")
    parts = []
    for rdn in children(der, *only(der, SEQUENCE)[1:]):
        attributes = (_attribute(der, a) for a in children(der, rdn.start, rdn.stop))
        parts.append(_list(sorted(attributes)))
    return _list(parts)


def _list(parts: list[bytes]) -> bytes:
    """Parts joined so that no two lists give the same octets."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _attribute(der: bytes, at: Tlv) -> bytes:
    kind, value = children(der, at.start, at.stop)
    octets = der[value.start : value.stop]
    encoding = _TEXT.get(value.tag)
    if encoding is None:
        return _list([der[kind.start : kind.stop], bytes([value.tag]), octets])
    try:
        text = unicodedata.normalize("NFKC", octets.decode(encoding)).casefold()
    except UnicodeDecodeError:
        return _list([der[kind.start : kind.stop], bytes([value.tag]), octets])
    return _list(
        [der[kind.start : kind.stop], b"", " ".join(text.split()).encode("utf-8", "replace")]
    )
