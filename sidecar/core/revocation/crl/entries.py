"""Parse the entries of a CRL into a compact table with constant-time lookup.

A million entries take a few seconds to parse, and about as much memory as their serial numbers:
fixed-width records in a few bytes objects, which another process can map without a copy.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import accumulate
from typing import NamedTuple
from zlib import crc32

from sidecar.core.bounded import put_bounded
from sidecar.core.x509.der import (
    GENERALIZED_TIME,
    INTEGER,
    SEQUENCE,
    UTC_TIME,
    Tlv,
    children,
    only,
    tlv,
)

from .entry_extensions import EntryExtensions, read_extensions

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


class CrlEntry(NamedTuple):
    """The entry of one serial number in a CRL: the day, counted from 1970, and the reason."""

    day: int
    reason: int

    def __str__(self) -> str:
        reason = REASONS[self.reason] if self.reason < len(REASONS) else f"reason {self.reason}"
        return f"revoked {_EPOCH + timedelta(days=self.day)} ({reason})"


_TAIL = struct.Struct(">HB")
_BOUNDS = struct.Struct("<II")
_WIDEST = 20
_TOO_LARGE = 1 << 8 * _WIDEST
_PER_BUCKET = 8
_MAX_CACHED = 65536
_LEAST, _STRETCH = 0x82 + 2, 65536
"""Minimum octets for parsing entries by columns, and maximum octets of one run."""

_SHORTEST_RUN = 16
_USUAL_TIME = bytes((UTC_TIME, 13))


@dataclass(frozen=True, slots=True)
class Table:
    """A table from keys of at most 20 octets, such as serial numbers, to entries.

    `data` holds records of `width` octets of key (big-endian, unsigned), two of day and one
    of reason, ordered by bucket (CRC-32 of the key); `starts`, 32-bit little-endian, says
    where in `data` each bucket begins.  `digest` is the SHA-256 of `data`.
    """

    width: int
    data: bytes
    starts: bytes
    digest: bytes

    def find(self, number: int) -> CrlEntry | None:
        """Return the entry of a key; if it has several, one that revokes."""
        try:
            key = number.to_bytes(self.width, "big")
        except OverflowError:
            return None
        bucket = crc32(key) & (len(self.starts) // 4 - 2)
        start, stop = _BOUNDS.unpack_from(self.starts, bucket * 4)
        width, found = self.width, None
        at = self.data.find(key, start, stop)
        while at >= 0:
            if (at - start) % (width + _TAIL.size) == 0:
                found = CrlEntry(*_TAIL.unpack_from(self.data, at + width))
                if found.reason != REMOVE:
                    break
            at = self.data.find(key, at + 1, stop)
        return found


def build_table(rows: list[bytes]) -> Table:
    """Build a table of rows: `_WIDEST` octets of key, then day and reason.

    Clears `rows`, so that the memory of a large list is not needed twice.
    """
    largest = max(rows, default=b"")  # it begins with the largest number, which is the widest
    width = max(len(largest[:_WIDEST].lstrip(b"\0")), 1)
    spare = _WIDEST - width
    mask = (1 << max(0, (len(rows) // _PER_BUCKET).bit_length())) - 1
    buckets: list[list[bytes]] = [[] for _ in range(mask + 1)]
    while rows:
        row = rows.pop()
        buckets[crc32(row[spare:_WIDEST]) & mask].append(row[spare:])
    size = width + _TAIL.size
    starts = accumulate((len(bucket) * size for bucket in buckets), initial=0)
    packed = struct.pack(f"<{mask + 2}I", *starts)
    data = b"".join(map(b"".join, buckets))
    return Table(width, data, packed, hashlib.sha256(data).digest())


NO_TABLE = build_table([])


def digest_of(issuer: bytes, serial: int) -> bytes:
    """Return a key of 20 octets for a certificate that doesn't belong in the CRL's own table.

    So every entry of an indirect CRL takes the same space, independent of the number of issuers and
    of the length of serial numbers.
    """
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big", signed=True)
    return hashlib.sha256(issuer + b"\0" + octets).digest()[:_WIDEST]


@dataclass(frozen=True, slots=True)
class Entries:
    """All entries of a CRL.

    `own` holds the entries of the CRL's issuer (a comparable name), by serial number.  `others`
    holds, by `digest_of`, the entries of other issuers, and serial numbers that are negative or
    longer than 20 octets.
    """

    issuer: bytes = b""
    own: Table = NO_TABLE
    others: Table = NO_TABLE
    count: int = 0
    unusable: str = ""

    def find(self, issuer: bytes, serial: int) -> CrlEntry | None:
        """Return the entry of the certificate with this issuer and serial number, or None."""
        if issuer == self.issuer and 0 <= serial < _TOO_LARGE:
            return self.own.find(serial)
        if not len(self.others.data):
            return None
        return self.others.find(int.from_bytes(digest_of(issuer, serial), "big"))


NO_ENTRIES = Entries()


def read_entries(tbs: bytes, issuer: bytes, *, indirect: bool) -> Entries:
    """Parse the entries of a TBSCertList whose issuer has this comparable name.

    `unusable` of the result says which part is unknown or invalid (RFC 5280, 5.3): then the CRL
    never says good, but every certificate in the other entries is revoked.  Raises ValueError if
    the signed part is invalid.
    """
    reader = _Reader(tbs, issuer, indirect)
    reader.read()
    own, others = build_table(reader.own), build_table(reader.others)
    return Entries(issuer, own, others, reader.count, reader.unusable)


@dataclass(slots=True)
class _Reader:
    """A single pass over `revokedCertificates`.

    `own` collects the rows of the CRL's issuer, `others` those with a key of `digest_of`.  `_here`
    receives the rows of `_whose`, the issuer of the current entry.  `_days` and `_said` cache the
    parsed form of repeated octets: day and reason, as they are in a row.
    """

    data: bytes
    issuer: bytes
    indirect: bool
    own: list[bytes] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    count: int = 0
    unusable: str = ""
    _here: list[bytes] = field(init=False)
    _whose: bytes = field(init=False)
    _alike_from: int = 0
    _days: dict[bytes, bytes] = field(default_factory=dict)
    _said: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._here, self._whose = self.own, self.issuer

    def read(self) -> None:
        """Parse all entries; skip invalid ones as long as their lengths are valid."""
        at, end = _revoked(self.data)
        while at < end:
            rows = self._here
            before = len(rows)
            at = self._read_alike(at, end, rows)
            at = self._read_usual(at, min(end, at + _STRETCH), end, rows)
            self.count += len(rows) - before
            if at < end:
                at = self._read_or_skip(at, end)
        self._turn_to(self.issuer)

    def _read_or_skip(self, at: int, end: int) -> int:
        """Parse one entry of any form, or skip it; return the position of the next entry."""
        try:
            return self._read_one(at, end)
        except ValueError:
            self.unusable = f"the entry at octet {at} is broken"
        try:
            return tlv(self.data, at, end).stop
        except ValueError:
            return end

    def _turn_to(self, issuer: bytes) -> None:
        """Continue with the entries of another issuer (RFC 5280, 5.3.3)."""
        if issuer == self._whose:
            return
        if self._whose != self.issuer:
            while self._here:
                row = self._here.pop()
                serial = int.from_bytes(row[:_WIDEST], "big")
                self.others.append(digest_of(self._whose, serial) + row[_WIDEST:])
        self._here, self._whose = self.own if issuer == self.issuer else [], issuer

    def _read_alike(self, at: int, end: int, rows: list[bytes]) -> int:
        """Parse runs of entries with equal tags and lengths; return the position after them.

        A column of a run is every n-th octet, which is cheap to check.  After a place without a
        run, no run is tried for `_STRETCH` octets, so that the time stays linear.
        """
        while self._alike_from <= at <= end - _LEAST:
            found = self._run(at, min(end, at + _STRETCH))
            if not found:
                self._alike_from = at + _STRETCH
                break
            rows += found
            at += len(found) * (self.data[at + 1] + 2)
        return at

    def _run(self, at: int, end: int) -> list[bytes]:
        """Return the rows of the run of entries at `at`; none unless the run is certain."""
        data, days, said = self.data, self._days, self._said
        size, octets = data[at + 1] + 2, data[at + 3]
        when = 4 + octets
        rest = size - when - 15  # octets behind a UTCTime
        tags = data[at], data[at + 2], data[at + when : at + when + 2]
        usual = tags == (SEQUENCE, INTEGER, _USUAL_TIME) and 1 <= octets <= _WIDEST
        if not usual or rest < 0 or size >= 0x82:
            return []
        count = (end - at) // size
        for offset in (0, 1, 2, 3, when, when + 1):
            column = data[at + offset : at + count * size : size]
            count = len(column) - len(column.lstrip(column[:1]))
        stop = at + count * size
        if count < _SHORTEST_RUN or max(data[at + 4 : stop : size]) >= 0x80:  # a negative one
            return []
        run = list(struct.iter_unpack(f"4x{octets}s8s7x{rest}s", data[at:stop]))
        try:
            for day in {day for _, day, _ in run} - days.keys():
                put_bounded(days, day, _day_number(day[2:]).to_bytes(2, "big"), _MAX_CACHED)
            return [n.rjust(_WIDEST, b"\0") + days[day] + said[tail] for n, day, tail in run]
        except (KeyError, ValueError):  # extensions that are not in the cache, or a broken day
            return []

    def _read_usual(self, at: int, until: int, end: int, rows: list[bytes]) -> int:
        """Parse entries of the usual form; return the position of the first other entry.

        The usual form is short, with a positive serial number of at most 20 octets, cached day and
        extensions, and correct tags.  Parsing also stops at the first entry after `until`.  This is
        the hot path: well under a microsecond for each entry.
        """
        data, days, said = self.data, self._days, self._said
        # No index below can be out of range: at least 127 + 2 octets follow `at`.
        last = min(until, len(data) - 2 * 0x81)
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
        """Parse one entry of any form; return the position of the next.  Raises ValueError."""
        data = self.data
        tag, body, stop = tlv(data, at, end)
        serial, time, *rest = children(data, body, stop)
        if tag != SEQUENCE or serial.tag != INTEGER or len(rest) > 1:
            raise ValueError(f"the CRL entry at octet {at} is broken")
        octets = data[time.stop : stop]
        said = read_extensions(octets, self.indirect) if octets else EntryExtensions()
        self.unusable = said.unusable or self.unusable
        if said.issuer is None:
            put_bounded(self._said, octets, bytes([said.reason]), _MAX_CACHED)
        if said.issuer is not None:
            self._turn_to(said.issuer)
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
            self.others.append(digest_of(self._whose, number) + day + bytes([reason]))
            return
        self._here.append(octets + day + bytes([reason]))

    def _day(self, time: Tlv) -> bytes:
        """Return the day of a Time, counted from 1970 (limited to 1970..2149); 0 if invalid."""
        text = self.data[time.start : time.stop]
        try:
            if time.tag == UTC_TIME and len(text) == 13:
                day = _day_number(text[:6]).to_bytes(2, "big")
                put_bounded(
                    self._days, self.data[time.start - 2 : time.start + 6], day, _MAX_CACHED
                )
                return day
            if time.tag == GENERALIZED_TIME:  # rare: after 2049
                return _day_number(text[:8]).to_bytes(2, "big")
        except ValueError:
            pass
        self.unusable = "the time of an entry is broken"
        return bytes(2)


def _revoked(data: bytes) -> tuple[int, int]:
    """Find the start and the end of the entries of a TBSCertList (RFC 5280, 5.1.2)."""
    fields = list(children(data, *only(data, SEQUENCE)[1:]))
    at = 1 if fields[0].tag == INTEGER else 0
    at += 3  # signature, issuer, thisUpdate
    if at < len(fields) and fields[at].tag in (UTC_TIME, GENERALIZED_TIME):
        at += 1
    if at < len(fields) and fields[at].tag == SEQUENCE:
        return fields[at].start, fields[at].stop
    return 0, 0


def _day_number(text: bytes) -> int:
    """Convert YYMMDD (RFC 5280, 4.1.2.5.1) or YYYYMMDD to a day number.  Raises ValueError."""
    if not text.isdigit() or len(text) not in (6, 8):
        raise ValueError(f"{text!r} is not a date")
    year = int(text[:-4])
    if len(text) == 6:
        year += 1900 if year >= 50 else 2000
    day = (date(year, int(text[-4:-2]), int(text[-2:])) - _EPOCH).days
    return min(max(day, 0), 0xFFFF)
