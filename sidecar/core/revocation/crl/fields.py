"""A CertificateList, taken apart (RFC 5280, 5.1), and what its extensions say (5.2).

Read from its DER, and no further than need be: how its issuer's name is written, or what stands in
an extension that nobody asks about, spoils nothing.  Nothing here checks a signature.
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
    """A CertificateList.  `signed`, `algorithm` and `issuer` are DER; times since the epoch.

    `next_update` is None where there is none that can be read.  `extensions` is the DER of their
    SEQUENCE, or nothing.
    """

    signed: bytes
    algorithm: bytes
    signature: bytes
    issuer: bytes
    this_update: float
    next_update: float | None
    extensions: bytes


_SHAPE = re.compile(rb"\x02?\x30\x30[\x17\x18][\x17\x18]?\x30?\xa0?", re.DOTALL)
"""Tags: version, signature, issuer, thisUpdate, nextUpdate, revokedCertificates, extensions."""
_MOST = 8


def take_apart(der: bytes) -> CrlFields:
    """Take a CertificateList apart.  Raises ValueError where it is none."""
    outer = only(der, SEQUENCE)
    parts = list(islice(children(der, outer.start, outer.stop), 4))
    if bytes(part.tag for part in parts) != b"\x30\x30\x03":
        raise ValueError("it isn't made of a signed part, an algorithm and a signature")
    signed, algorithm = der[outer.start : parts[0].stop], der[parts[0].stop : parts[1].stop]
    signature = der[parts[2].start : parts[2].stop]
    if signature[:1] != b"\0":
        raise ValueError("the signature isn't whole octets")
    body = tlv(signed, 0, len(signed))
    found = list(islice(children(signed, body.start, body.stop), _MOST))
    if not _SHAPE.fullmatch(bytes(field.tag for field in found)):
        raise ValueError("its signed part isn't made as RFC 5280 has it")
    if found[0].tag == INTEGER and _number(signed, found.pop(0)) != 1:
        raise ValueError("its version is not 2")
    if signed[found[0].start : found[0].stop] != algorithm[value_of(algorithm, 0) :]:
        raise ValueError("the signature algorithms within and without differ")
    issuer = signed[found[0].stop : found[1].stop]
    this_update = parse_time(signed[found[1].stop : found[2].stop])
    has_next = len(found) > 3 and found[3].tag not in (SEQUENCE, 0xA0)
    next_update = _time_or_none(signed[found[2].stop : found[3].stop]) if has_next else None
    last = found[-1]
    extensions = signed[last.start : last.stop] if last.tag == 0xA0 else b""
    return CrlFields(signed, algorithm, signature[1:], issuer, this_update, next_update, extensions)


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
"""Most extensions of one CRL."""


@dataclass(frozen=True, slots=True)
class CrlExtensions:
    """What a CRL says of itself.  `unusable`: why nothing is good by it, or nothing."""

    number: int | None = None
    delta_base: int | None = None
    scope: Scope = EVERYTHING
    unusable: str = ""


_ANY = Scope(indirect=True)
"""The scope of a CRL of which that can't be read: it may speak of other issuers' certificates."""


def read_extensions(octets: bytes, issuer: bytes) -> CrlExtensions:
    """Read `CrlFields.extensions`.  Never raises: what can't be read makes the CRL unusable."""
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
        raise ValueError("a CRL number is no INTEGER")
    return _number(value, found)


def _in_bounds(number: int) -> int | None:
    """The number, or None for one of more than 20 octets (RFC 5280, 5.2.3): as good as none."""
    return number if 0 <= number < 1 << 159 else None
