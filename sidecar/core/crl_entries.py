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
    Tlv,
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
_MEMO = 65536


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
    largest = max(rows, default=b"")  # begins with the largest number, so with the widest
    width = max(len(largest[:_WIDEST].lstrip(b"\0")), 1)
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

    def add_odd(self, number: int, entry: Entry) -> None:
        """Put in a serial number that no row can hold."""
        known = self.odd.get(number)
        if known is None or known.reason == REMOVE:
            self.odd[number] = entry


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
    """One pass over `revokedCertificates`.

    `_days` and `_said` remember how the few octets that come again and again are to be read:
    day and reason as a row has them.
    """

    data: bytes
    issuer: bytes
    indirect: bool
    found: dict[bytes, _Rows] = field(default_factory=dict)
    count: int = 0
    unusable: str = ""
    _here: _Rows = field(default_factory=_Rows)
    _days: dict[bytes, bytes] = field(default_factory=dict)
    _said: dict[bytes, bytes] = field(default_factory=dict)

    def read(self) -> None:
        """Read all entries, or up to the first that isn't understood."""
        at, end = _revoked(self.data)
        self._here = self.found[self.issuer] = _Rows()
        while at < end and not self.unusable:
            rows = self._here.rows
            before = len(rows)
            at = self._read_usual(at, end, rows)
            self.count += len(rows) - before
            if at < end:
                at = self._read_one(at, end)

    def _read_usual(self, at: int, end: int, rows: list[bytes]) -> int:
        """Read entries as long as they are of the usual form; give where the first other begins.

        That is: short, the serial positive and of at most 20 octets, day and extensions seen
        before, all tags right.  The hot path: well under a microsecond each.
        """
        data, days, said = self.data, self._days, self._said
        # No index below can be out of range: at + 127 + 2 octets of them are there.
        last = min(end, len(data) - 2 * 0x81)
        while at < last:
            length, octets = data[at + 1], data[at + 3]
            when, stop = at + 4 + octets, at + 2 + length
            if length >= 0x80 or when + 10 > stop or data[at + 4] >= 0x80:
                break
            serial = data[at + 4 : when].lstrip(b"\0")
            day = days.get(data[when : when + 8])
            reason = said.get(data[when + 2 + data[when + 1] : stop])
            if (
                day is None
                or reason is None
                or not octets
                or len(serial) > _WIDEST
                or data[at] != SEQUENCE
                or data[at + 2] != INTEGER
                or when + 2 + data[when + 1] > stop
                or stop > end
            ):
                break
            rows.append(serial.rjust(_WIDEST, b"\0") + day + reason)
            at = stop
        return at

    def _read_one(self, at: int, end: int) -> int:
        """Read one entry of any form; give where the next begins.  Raises ValueError."""
        data = self.data
        tag, body, stop = tlv(data, at, end)
        serial, time, *rest = children(data, body, stop)
        if tag != SEQUENCE or serial.tag != INTEGER or len(rest) > 1:
            raise ValueError(f"the CRL entry at octet {at} is broken")
        octets = data[time.stop : stop]
        said = _read_extensions(octets, self.indirect) if octets else Extensions()
        if not said.unusable and said.issuer is None:
            _remember(self._said, octets, bytes([said.reason]))
        if said.issuer is not None:
            self._here = self.found.setdefault(said.issuer, _Rows())
        self.unusable = said.unusable
        self.count += 1
        self._add(serial, self._day(time), said.reason)
        return stop

    def _add(self, serial: Tlv, day: bytes, reason: int) -> None:
        if serial.start == serial.stop:
            raise ValueError("a serial number without octets")
        number = int.from_bytes(self.data[serial.start : serial.stop], "big", signed=True)
        try:
            octets = number.to_bytes(_WIDEST, "big")
        except OverflowError:
            entry = Entry(int.from_bytes(day, "big"), reason)
            self._here.add_odd(number, entry)
            return
        self._here.rows.append(octets + day + bytes([reason]))

    def _day(self, time: Tlv) -> bytes:
        """The day of a Time, counted from 1970 (clamped to 1970..2149)."""
        text = self.data[time.start : time.stop]
        if time.tag == UTC_TIME and len(text) == 13:
            day = _day_number(text[:6]).to_bytes(2, "big")
            _remember(self._days, self.data[time.start - 2 : time.start + 6], day)
        elif time.tag == GENERALIZED_TIME:
            day = _day_number(text[:8]).to_bytes(2, "big")  # rare: after 2049
        else:
            raise ValueError("the time of an entry is broken")
        return day


def _remember(memo: dict[bytes, bytes], key: bytes, value: bytes) -> None:
    """Keep it; a hostile CRL can't fill the memory with keys."""
    if len(memo) >= _MEMO:
        memo.clear()
    memo[key] = value


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
