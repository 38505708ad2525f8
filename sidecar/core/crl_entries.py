"""The entries of a CRL: read fast, kept small, found at once.

A list of a million entries is read in a few seconds and kept in about its serials' own size:
fixed-width records in a few bytes objects, which go from one process to another as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import accumulate
from typing import NamedTuple
from zlib import crc32

from .der import (
    BOOLEAN,
    ENUMERATED,
    GENERALIZED_TIME,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    UTC_TIME,
    children,
    comparable_name,
    only,
    tlv,
)

HOLD, REMOVE = 6, 8

# RFC 5280, 5.3.1
REASONS = (
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "reason 7",
    "removeFromCRL",
    "privilegeWithdrawn",
    "aACompromise",
)

_EPOCH = date(1970, 1, 1)


class Entry(NamedTuple):
    """What a CRL says about one serial number: the day, counted from 1970, and the reason."""

    day: int
    reason: int

    def __str__(self) -> str:
        reason = REASONS[self.reason] if self.reason < len(REASONS) else f"reason {self.reason}"
        return f"revoked {_EPOCH + timedelta(days=self.day)} ({reason})"


_TAIL = struct.Struct(">HB")
_BOUNDS = struct.Struct("<II")
_WIDEST = 20
_PER_BUCKET = 8
_MEMO = 4096


@dataclass(frozen=True, slots=True)
class Table:
    """The serials of one certificate issuer, as numbers.

    `data` holds records of `width` octets of serial (big-endian, unsigned), two of day and one
    of reason, ordered by bucket (CRC-32 of the serial); `starts`, 32-bit little-endian, says
    where in `data` each bucket begins.  Serials that are negative or wider are in `odd`.
    """

    width: int
    data: bytes
    starts: bytes
    odd: Mapping[int, Entry]

    def find(self, serial: int) -> Entry | None:
        """The entry of a serial number; of several, one that revokes."""
        try:
            key = serial.to_bytes(self.width, "big")
        except OverflowError:
            return self.odd.get(serial)
        bucket = crc32(key) & (len(self.starts) // 4 - 2)
        start, stop = _BOUNDS.unpack_from(self.starts, bucket * 4)
        width, found = self.width, None
        at = self.data.find(key, start, stop)
        while at >= 0:
            if (at - start) % (width + _TAIL.size) == 0:
                found = Entry(*_TAIL.unpack_from(self.data, at + width))
                if found.reason != REMOVE:
                    break
            at = self.data.find(key, at + 1, stop)
        return found


def build_table(rows: list[bytes], odd: Mapping[int, Entry]) -> Table:
    """A table of rows: `_WIDEST` octets of serial, then day and reason."""
    widest = max((len(row[:_WIDEST].lstrip(b"\0")) for row in rows), default=1)
    width = max(widest, 1)
    spare = _WIDEST - width
    mask = (1 << max(0, (len(rows) // _PER_BUCKET).bit_length())) - 1
    buckets: list[list[bytes]] = [[] for _ in range(mask + 1)]
    for row in rows:
        buckets[crc32(row[spare:_WIDEST]) & mask].append(row[spare:])
    size = width + _TAIL.size
    starts = accumulate((len(bucket) * size for bucket in buckets), initial=0)
    packed = struct.pack(f"<{mask + 2}I", *starts)
    return Table(width, b"".join(map(b"".join, buckets)), packed, dict(odd))


@dataclass(frozen=True, slots=True)
class Extensions:
    """What an entry's extensions say.  `issuer`: a comparable name, where it changes."""

    reason: int = 0
    issuer: bytes | None = None
    unusable: str = ""


@dataclass(slots=True)
class _Rows:
    rows: list[bytes] = field(default_factory=list)
    odd: dict[int, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entries:
    """All entries of a CRL, by the certificates' issuer (a comparable name)."""

    tables: Mapping[bytes, Table]
    count: int = 0
    unusable: str = ""

    def find(self, issuer: bytes, serial: int) -> Entry | None:
        """What is said about the certificate with this issuer and serial number."""
        table = self.tables.get(issuer)
        return table.find(serial) if table is not None else None


NO_ENTRIES = Entries({})


def read_entries(tbs: bytes, issuer: bytes, *, indirect: bool) -> Entries:
    """The entries of a TBSCertList, whose issuer has this comparable name.

    `unusable` says what in them is not understood (RFC 5280, 5.3): then nothing of the CRL may
    be used, and no entry is kept.  Raises ValueError where the DER is broken.
    """
    reader = _Reader(tbs, issuer, indirect)
    reader.read()
    if reader.unusable:
        return Entries({}, reader.count, reader.unusable)
    tables = {name: build_table(found.rows, found.odd) for name, found in reader.found.items()}
    return Entries(tables, reader.count)


@dataclass(slots=True)
class _Reader:
    """One pass over `revokedCertificates`."""

    data: bytes
    issuer: bytes
    indirect: bool
    found: dict[bytes, _Rows] = field(default_factory=dict)
    count: int = 0
    unusable: str = ""
    _days: dict[bytes, int] = field(default_factory=dict)
    _extensions: dict[bytes, Extensions] = field(default_factory=dict)

    def read(self) -> None:
        """Read all entries.  The loop is the hot path: about a microsecond an entry."""
        data = self.data
        at, end = _revoked(data)
        here = self.found.setdefault(self.issuer, _Rows())
        while at < end:
            _, body, stop = (
                tlv(data, at, end)
                if data[at + 1] >= 0x80
                else (
                    data[at],
                    at + 2,
                    at + 2 + data[at + 1],
                )
            )
            if data[at] != SEQUENCE or stop > end:
                raise ValueError(f"the CRL entry at octet {at} is broken")
            at = stop
            serial, when = self._serial(body, stop)
            day, rest = self._day(when, stop)
            said = self._said(rest, stop)
            if said.unusable:
                self.unusable = said.unusable
                return
            if said.issuer is not None:
                here = self.found.setdefault(said.issuer, _Rows())
            self.count += 1
            if len(serial) <= _WIDEST:
                here.rows.append(serial.rjust(_WIDEST, b"\0") + _TAIL.pack(day, said.reason))
            else:
                self._add_odd(here, serial, Entry(day, said.reason))

    def _serial(self, at: int, end: int) -> tuple[bytes, int]:
        """The serial's magnitude, or if it is negative 21 octets and more of two's complement."""
        data = self.data
        length = data[at + 1]
        if length >= 0x80:
            _, start, stop = tlv(data, at, end)
        else:
            start, stop = at + 2, at + 2 + length
        if data[at] != INTEGER or start == stop or stop > end:
            raise ValueError(f"the serial number at octet {at} is broken")
        if data[start] & 0x80:
            return data[start:stop].rjust(_WIDEST + 1, b"\xff"), stop
        magnitude = data[start:stop].lstrip(b"\0")
        # a sign is put back where a wide positive one would read as negative
        return (b"\0" + magnitude if len(magnitude) > _WIDEST else magnitude), stop

    def _add_odd(self, here: _Rows, serial: bytes, entry: Entry) -> None:
        number = int.from_bytes(serial, "big", signed=True)
        known = here.odd.get(number)
        if known is None or known.reason == REMOVE:
            here.odd[number] = entry

    def _day(self, at: int, end: int) -> tuple[int, int]:
        """The day of a Time, counted from 1970 (clamped to 1970..2149), and where it ends."""
        data = self.data
        tag, stop = data[at], at + 2 + data[at + 1]
        if stop > end or tag not in (UTC_TIME, GENERALIZED_TIME):
            raise ValueError(f"the time at octet {at} is broken")
        text = data[at : at + (8 if tag == UTC_TIME else 10)]
        day = self._days.get(text)
        if day is None:
            day = self._days[text] = _day_number(text[2:])
        return day, stop

    def _said(self, at: int, end: int) -> Extensions:
        """What the extensions between these octets say; few distinct ones are in any CRL."""
        octets = self.data[at:end]
        said = self._extensions.get(octets)
        if said is None:
            said = _read_extensions(octets, self.indirect) if octets else Extensions()
            if len(self._extensions) >= _MEMO:
                self._extensions.clear()
            self._extensions[octets] = said
        return said


def _revoked(data: bytes) -> tuple[int, int]:
    """Where the entries of a TBSCertList begin and end (RFC 5280, 5.1.2)."""
    fields = list(children(data, *only(data, SEQUENCE)[1:]))
    at = 1 if fields[0].tag == INTEGER else 0
    at += 3  # signature, issuer, thisUpdate
    if at < len(fields) and fields[at].tag in (UTC_TIME, GENERALIZED_TIME):
        at += 1
    if at < len(fields) and fields[at].tag == SEQUENCE:
        return fields[at].start, fields[at].stop
    return 0, 0


def _day_number(text: bytes) -> int:
    """YYMMDD (RFC 5280, 4.1.2.5.1) or YYYYMMDD.  Raises ValueError."""
    if not text.isdigit() or len(text) not in (6, 8):
        raise ValueError(f"{text!r} is no date")
    year = int(text[:-4])
    if len(text) == 6:
        year += 1900 if year >= 50 else 2000
    day = (date(year, int(text[-4:-2]), int(text[-2:])) - _EPOCH).days
    return min(max(day, 0), 0xFFFF)


_REASON_CODE = bytes.fromhex("551d15")
_INVALIDITY_DATE = bytes.fromhex("551d18")
_CERTIFICATE_ISSUER = bytes.fromhex("551d1d")
_DIRECTORY_NAME = 0xA4


def _read_extensions(octets: bytes, indirect: bool) -> Extensions:
    """crlEntryExtensions (RFC 5280, 5.3).  Raises ValueError where the DER is broken."""
    reason, issuer = 0, None
    seen = set()
    for extension in children(octets, *only(octets, SEQUENCE)[1:]):
        oid, critical, value = _read_extension(octets, extension.start, extension.stop)
        if oid in seen:
            return Extensions(unusable="an entry has the same extension twice")
        seen.add(oid)
        if oid == _REASON_CODE:
            reason = _reason(value)
        elif oid == _CERTIFICATE_ISSUER:
            if not indirect:
                return Extensions(unusable="certificateIssuer in a CRL that is not indirect")
            issuer = _directory_name(value)
            if issuer is None:
                return Extensions(unusable="a certificateIssuer is no directoryName")
        elif critical and oid != _INVALIDITY_DATE:
            return Extensions(unusable=f"unknown critical entry extension {_dotted(oid)}")
    return Extensions(reason, issuer)


def _read_extension(octets: bytes, start: int, stop: int) -> tuple[bytes, bool, bytes]:
    parts = list(children(octets, start, stop))
    tags = [part.tag for part in parts]
    if tags not in ([OID, OCTET_STRING], [OID, BOOLEAN, OCTET_STRING]):
        raise ValueError("an entry's extension is broken")
    oid, value = octets[parts[0].start : parts[0].stop], octets[parts[-1].start : parts[-1].stop]
    critical = len(parts) == 3 and any(octets[parts[1].start : parts[1].stop])
    return oid, critical, value


def _reason(value: bytes) -> int:
    found = only(value, ENUMERATED)
    reason = int.from_bytes(value[found.start : found.stop], "big", signed=True)
    return reason if 0 <= reason <= 0xFF else 0


def _directory_name(value: bytes) -> bytes | None:
    """The one directoryName of GeneralNames, comparable."""
    names = list(children(value, *only(value, SEQUENCE)[1:]))
    directory = [name for name in names if name.tag == _DIRECTORY_NAME]
    if len(directory) != 1:
        return None
    return comparable_name(value[directory[0].start : directory[0].stop])


def _dotted(oid: bytes) -> str:
    """Dotted decimals of an OID's octets (X.690, 8.19); hex if they are broken."""
    arcs, value = [], 0
    for octet in oid:
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            arcs.append(value)
            value = 0
    if not arcs or value:
        return oid.hex()
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))
