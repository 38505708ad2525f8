"""Parse DER: TLVs, object identifiers, times, strings, and names in a comparable form.

Lengths must be definite and minimal, and tags must have one octet (X.690, 10.1).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from datetime import date
from functools import lru_cache
from typing import NamedTuple

INTEGER, OID, SEQUENCE, SET = 0x02, 0x06, 0x30, 0x31
BOOLEAN, ENUMERATED, BIT_STRING, OCTET_STRING = 0x01, 0x0A, 0x03, 0x04
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
UTF8_STRING, IA5_STRING, VISIBLE_STRING, BMP_STRING = 0x0C, 0x16, 0x1A, 0x1E
NO_STRINGS = (BIT_STRING, SEQUENCE, 7, 8, 9, 11, 13, 14, 15, 29)
"""Types that OpenSSL accepts beside strings in names (`ASN1_PRINTABLE`), and prints in hex."""


class Tlv(NamedTuple):
    """The position of a value: its tag, its first octet, and the octet after its last."""

    tag: int
    start: int
    stop: int


_new = tuple.__new__  # as the class does it, without the cost of the call


def begins_as_der(data: bytes) -> bool:
    """Return whether a file begins as a SEQUENCE of 128 octets or more, which no text does.

    Every certificate and CRL is one; text before a PEM block may begin with the digit 0 (0x30).
    """
    return data[:1] == b"\x30" and b"\x80" < data[1:2] <= b"\x88"


def tlv(data: bytes, at: int, end: int) -> Tlv:
    """Parse the TLV at `at`, which must end at `end` at the latest.  Raises ValueError."""
    if at + 2 > end:
        raise ValueError(f"the DER breaks off at octet {at}")
    if data[at] & 0x1F == 0x1F:
        raise ValueError(f"a DER tag at octet {at} has more than one octet")
    length = data[at + 1]
    start = at + 2
    if length >= 0x80:
        octets = length & 0x7F
        if not 1 <= octets <= 8:
            raise ValueError(f"a DER length at octet {at} is not definite")
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
        if length < 0x80 or length >> 8 * (octets - 1) == 0:
            raise ValueError(f"a DER length at octet {at} is not minimal")
    if start + length > end:
        raise ValueError(f"the DER value at octet {at} is longer than what holds it")
    return _new(Tlv, (data[at], start, start + length))


def children(data: bytes, start: int, stop: int) -> Iterator[Tlv]:
    """Yield the consecutive TLVs from `start` to `stop`.  Raises ValueError."""
    while start < stop:
        found = tlv(data, start, stop)
        yield found
        start = found.stop


def slices(data: bytes, at: int, stop: int, most: int = 0) -> list[bytes]:
    """Return the octets of the consecutive TLVs from `at` to `stop`.

    `most`, if given, limits their number.  Raises ValueError.  The caller must check the tags: a
    tag that means "more octets follow" is not refused.
    """
    found: list[bytes] = []
    try:
        while at < stop:
            length = data[at + 1]
            if length < 0x80:
                end = at + 2 + length
            elif length == 0x82 and data[at + 2]:
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
    """Return the position of the value of a well-formed TLV at `at`."""
    length = data[at + 1]
    return at + 2 if length < 0x80 else at + 2 + (length & 0x7F)


def only(data: bytes, tag: int) -> Tlv:
    """Parse data that is exactly one TLV with this tag.  Raises ValueError."""
    found = tlv(data, 0, len(data))
    if found.tag != tag or found.stop != len(data):
        raise ValueError(f"expected one DER value with tag {tag:#x}")
    return found


def within(data: bytes, tag: int, most: int = 0) -> list[bytes]:
    """Return the TLVs inside data that is exactly one TLV with this tag.  Raises ValueError.

    With `most`, splitting stops behind that many: pass one more than are allowed, and count.
    """
    if len(data) > 1 and data[0] == tag and data[1] == len(data) - 2 < 0x80:
        return slices(data, 2, len(data), most)
    found = only(data, tag)
    return slices(data, found.start, found.stop, most)


def encode(tag: int, value: bytes) -> bytes:
    """Encode one TLV."""
    length = len(value)
    if length < 0x80:
        return bytes((tag, length)) + value
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + value


MAX_NESTING = 16
"""Maximum nesting of values that are only checked for their form."""

MAX_VALUES = 1024
"""Maximum number of such values, at all levels together."""


def check_values(
    data: bytes, start: int, stop: int, depth: int = MAX_NESTING, left: int = MAX_VALUES
) -> int:
    """Check the form of values: every length fits, and each value is valid for its type.

    Return how many more than these may follow, of `left`.  Raises ValueError.
    """
    if not depth:
        raise ValueError(f"DER values are nested deeper than {MAX_NESTING} levels")
    for found in children(data, start, stop):
        left -= 1
        if left < 0:
            raise ValueError(f"more than {MAX_VALUES} DER values")
        if found.tag & 0x20:
            if 0x21 <= found.tag < 0x40 and found.tag not in (SEQUENCE, SET):
                raise ValueError("a DER value has the constructed form of a primitive type")
            left = check_values(data, found.start, found.stop, depth - 1, left)
        elif found.tag in _CHECKS and not _CHECKS[found.tag](data[found.start : found.stop]):
            raise ValueError(f"a DER value is invalid for its type, {found.tag:#x}")
    return left


def is_bits(octets: bytes) -> bool:
    """Return whether these can be the contents of a BIT STRING."""
    return bool(octets) and octets[0] < 8 and (len(octets) > 1 or not octets[0])


def is_integer(octets: bytes) -> bool:
    """Return whether these can be the contents of an INTEGER in minimal form (X.690, 8.3.2)."""
    return bool(octets) and not (len(octets) > 1 and (octets[0], octets[1] >> 7) in _PADDING)


_PADDING = ((0x00, 0), (0xFF, 1))


def _is_oid(octets: bytes) -> bool:
    try:
        return bool(dotted(octets))
    except ValueError:
        return False


_CHECKS: dict[int, Callable[[bytes], bool]] = {
    BOOLEAN: lambda octets: len(octets) == 1,
    INTEGER: is_integer,
    ENUMERATED: is_integer,
    BIT_STRING: is_bits,
    OID: _is_oid,
    **dict.fromkeys((0x00, 0x10, 0x11), lambda _: False),  # SEQUENCE and SET are constructed
    0x05: lambda octets: not octets,
    0x1C: lambda octets: len(octets) % 4 == 0,
    BMP_STRING: lambda octets: len(octets) % 2 == 0,
}


MAX_OID = 64
"""Maximum octets of an object identifier."""


@lru_cache(maxsize=1024)
def dotted(octets: bytes) -> str:
    """Convert an object identifier's contents to dotted form.  Raises ValueError."""
    if not octets or len(octets) > MAX_OID or octets[-1] & 0x80:
        raise ValueError("an object identifier can't be read")
    arcs, arc = [], 0
    for octet in octets:
        if arc == 0 and octet == 0x80:
            raise ValueError("an object identifier is not in minimal form")
        arc = arc << 7 | octet & 0x7F
        if octet < 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def parse_time(data: bytes) -> float:
    """Parse a Time to seconds since the epoch (RFC 5280, 4.1.2.5: whole seconds, `Z`).

    Raises ValueError.
    """
    digits = data[2:-1]
    if data[:2] == b"\x17\x0d":
        digits = (b"19" if digits >= b"5" else b"20") + digits
    elif data[:2] != b"\x18\x0f":
        raise ValueError("a time is written in no form that X.509 has")
    if len(digits) != 14 or not digits.isdigit() or data[-1:] != b"Z":
        raise ValueError("a time is written in no form that X.509 has")
    day, seconds = divmod(int(digits), 1000000)
    hour, seconds = divmod(seconds, 10000)
    minute, second = divmod(seconds, 100)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("a time has no such hour, minute or second")
    days = date(day // 10000, day // 100 % 100, day % 100).toordinal() - _EPOCH
    return float(days * 86400 + hour * 3600 + minute * 60 + second)


_EPOCH = date(1970, 1, 1).toordinal()


def string(tag: int, octets: bytes) -> str | None:
    """Decode an ASN.1 string as OpenSSL's `ASN1_STRING_to_UTF8` does; None for any other type.

    Types with one octet per character are decoded as Latin-1.  A BMPString must have no
    surrogates.  Raises ValueError.
    """
    encoding = _TEXT.get(tag)
    if encoding is None:
        return None
    text = octets.decode(encoding)
    if tag == BMP_STRING and len(text) * 2 != len(octets):
        raise ValueError("a BMPString holds surrogates")
    return text


# UTF8String, NumericString, PrintableString, TeletexString, IA5String, VisibleString,
# UniversalString, BMPString: how their octets become text.
_TEXT = {
    UTF8_STRING: "utf-8",
    0x12: "latin-1",
    0x13: "latin-1",
    0x14: "latin-1",
    IA5_STRING: "latin-1",
    VISIBLE_STRING: "latin-1",
    0x1C: "utf-32-be",
    BMP_STRING: "utf-16-be",
}


MAX_NAME = 16384
"""Maximum octets of a name."""

MAX_NORMALIZED = 4096
"""Maximum octets of a name that is normalized: anybody can make a certificate with a long name."""

_MAX_CACHED = 512
"""Maximum octets of a name whose normalized form, up to 17 times as long, is cached."""


def comparable_name(der: bytes) -> bytes:
    """Convert a DER Name to a form that is equal for equal names (RFC 5280, section 7.1).

    The string type, case and the number of blanks are ignored.  This is almost stringprep (RFC
    4518): normalization is NFKC, and no character is prohibited.  A name longer than
    `MAX_NORMALIZED` equals only itself, octet by octet.  Raises ValueError.
    """
    if len(der) > MAX_NORMALIZED:
        only(der, SEQUENCE)
        return der
    return _known(der) if len(der) <= _MAX_CACHED else _normalized(der)


def _normalized(der: bytes) -> bytes:
    parts = []
    for rdn in children(der, *only(der, SEQUENCE)[1:]):
        attributes = (_attribute(der, a) for a in children(der, rdn.start, rdn.stop))
        parts.append(_list(sorted(attributes)))
    return _list(parts)


_known = lru_cache(maxsize=1024)(_normalized)


def _list(parts: list[bytes]) -> bytes:
    """Join parts so that different lists give different octets."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _attribute(der: bytes, at: Tlv) -> bytes:
    kind, value = children(der, at.start, at.stop)
    octets = der[value.start : value.stop]
    encoding = _TEXT.get(value.tag)
    if encoding is None:
        return _list([der[kind.start : kind.stop], bytes([value.tag]), octets])
    try:
        text = comparable_text(octets.decode(encoding))
    except UnicodeDecodeError:
        return _list([der[kind.start : kind.stop], bytes([value.tag]), octets])
    return _list([der[kind.start : kind.stop], b"", text.encode("utf-8", "replace")])


def comparable_text(text: str) -> str:
    """Convert a string of a name to a form that is equal for equal strings, as above."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
