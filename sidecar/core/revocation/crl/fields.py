"""Split a CertificateList into its fields (RFC 5280, 5.1), and parse its extensions (5.2).

Only the necessary parts of the DER are parsed, so that an unusual encoding elsewhere, such as in
the issuer's name or in an unused extension, does no harm.  No signature is verified here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from sidecar.core.x509.der import (
    INTEGER,
    SEQUENCE,
    Tlv,
    children,
    dotted,
    is_integer,
    only,
    parse_time,
    tlv,
    value_of,
    within,
)
from sidecar.core.x509.extensions import is_critical, split_extension

from .points import EVERYTHING, Scope, read_scope


class CrlFields(NamedTuple):
    """The fields of a CertificateList.  Times are seconds since the epoch.

    `signed`, `algorithm` and `issuer` are DER.  `next_update` is None if it is absent or invalid;
    an invalid `this_update` is 0.  `extensions` is the DER of their SEQUENCE, or empty.
    `unusable`: why the CRL only revokes ("": it can also say good).
    """

    signed: bytes
    algorithm: bytes
    signature: bytes
    issuer: bytes
    this_update: float
    next_update: float | None
    extensions: bytes
    unusable: str = ""


_SHAPE = re.compile(rb"\x02?\x30\x30[\x17\x18][\x17\x18]?\x30?\xa0?", re.DOTALL)
"""Tags: version, signature, issuer, thisUpdate, nextUpdate, revokedCertificates, extensions."""
_MOST = 8


def take_apart(der: bytes) -> CrlFields:
    """Split a CertificateList into its fields.  Raises ValueError if it is not one."""
    outer = only(der, SEQUENCE)
    parts = list(islice(children(der, outer.start, outer.stop), 4))
    if bytes(part.tag for part in parts) != b"\x30\x30\x03":
        raise ValueError("it isn't a sequence of a signed part, an algorithm and a signature")
    signed, algorithm = der[outer.start : parts[0].stop], der[parts[0].stop : parts[1].stop]
    signature = der[parts[2].start : parts[2].stop]
    if signature[:1] != b"\0":
        raise ValueError("the signature isn't whole octets")
    body = tlv(signed, 0, len(signed))
    found = list(islice(children(signed, body.start, body.stop), _MOST))
    if not _SHAPE.fullmatch(bytes(field.tag for field in found)):
        raise ValueError("its signed part doesn't have the fields of RFC 5280, 5.1.2")
    unusable = ""
    if found[0].tag == INTEGER and _number(signed, found.pop(0)) != 1:
        unusable = "its version is not 2"
    if signed[found[0].start : found[0].stop] != algorithm[value_of(algorithm, 0) :]:
        raise ValueError("the signature algorithms inside and outside the signed part differ")
    issuer = signed[found[0].stop : found[1].stop]
    this_update = _time_or_none(signed[found[1].stop : found[2].stop])
    if this_update is None:
        this_update, unusable = 0.0, "its thisUpdate can't be read"
    has_next = len(found) > 3 and found[3].tag not in (SEQUENCE, 0xA0)
    next_update = _time_or_none(signed[found[2].stop : found[3].stop]) if has_next else None
    last = found[-1]
    extensions = signed[last.start : last.stop] if last.tag == 0xA0 else b""
    return CrlFields(
        signed, algorithm, signature[1:], issuer, this_update, next_update, extensions, unusable
    )


def _number(data: bytes, at: Tlv) -> int:
    return int.from_bytes(data[at.start : at.stop], "big", signed=True)


def _time_or_none(octets: bytes) -> float | None:
    try:
        return parse_time(octets)
    except ValueError:
        return None


# -- extensions ----------------------------------------------------------------------------------

_CRL_NUMBER, _DELTA, _POINT, _AUTHORITY_KEY = (
    bytes.fromhex(oid) for oid in ("551d14", "551d1b", "551d1c", "551d23")
)
_PROCESSED = frozenset({_CRL_NUMBER, _DELTA, _POINT, _AUTHORITY_KEY})

MAX_EXTENSIONS = 64
"""Maximum number of extensions of one CRL."""


@dataclass(frozen=True, slots=True)
class CrlExtensions:
    """The values of a CRL's extensions.  `unusable`: why it never says good ("": it can)."""

    number: int | None = None
    delta_base: int | None = None
    scope: Scope = EVERYTHING
    unusable: str = ""


_ANY = Scope(indirect=True)
"""The scope of a CRL whose scope can't be parsed: it may list certificates of other issuers."""


def read_extensions(octets: bytes, issuer: bytes) -> CrlExtensions:
    """Parse `CrlFields.extensions`.  Never raises: an invalid extension makes the CRL unusable."""
    if not octets:
        return CrlExtensions()
    try:
        listed = within(octets, SEQUENCE)
        if len(listed) > MAX_EXTENSIONS:
            raise ValueError(f"more than {MAX_EXTENSIONS} extensions")
        values = dict(map(split_extension, listed))
        if len(values) != len(listed):
            raise ValueError("an extension is repeated")
        critical = {split_extension(each)[0] for each in listed if is_critical(each)}
        unknown = [oid for oid in values if oid in critical and oid not in _PROCESSED]
        return _understood(values, unknown, issuer)
    except ValueError as error:
        return CrlExtensions(scope=_ANY, unusable=f"its extensions can't be read: {error}")


def _understood(values: dict[bytes, bytes], unknown: list[bytes], issuer: bytes) -> CrlExtensions:
    number, delta = values.get(_CRL_NUMBER), values.get(_DELTA)
    point = values.get(_POINT)
    unusable = f"unknown critical extension {dotted(unknown[0])}" if unknown else ""
    if delta is not None and number is None:
        unusable = unusable or "a delta CRL without a number"
    return CrlExtensions(
        number=None if number is None else _in_bounds(_integer(number)),
        delta_base=None if delta is None else _integer(delta),
        scope=EVERYTHING if point is None else read_scope(point, issuer),
        unusable=unusable,
    )


def _integer(value: bytes) -> int:
    found = only(value, INTEGER)
    if not is_integer(value[found.start : found.stop]):
        raise ValueError("a CRL number is not an INTEGER")
    return _number(value, found)


def _in_bounds(number: int) -> int | None:
    """Return the number, or None if it has more than 20 octets (RFC 5280, 5.2.3)."""
    return number if 0 <= number < 1 << 159 else None
