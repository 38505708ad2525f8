"""Read, search and write denylists.

A denylist is a text file with one entry per line; each entry denies at once:

    serial 0A:1B:2C until 2027-01-31        # alice's laptop, stolen; bob, ticket 4711
    sha256 ab12…                            # one certificate, or every one with a key of this hash
    spki_sha256 cd34…                       # every certificate with this key

A line ends with LF, CR LF or CR alone.  What word processors and editors end lines or pages with
inside of one (VT, FF, NEL, U+2028, U+2029) ends its comment: what follows is read on its own.
A byte order mark at the beginning of a line counts for nothing.  Lines in UTF-16 are a mistake, and
take effect.

Serial numbers are hexadecimal and compared as numbers: leading zeros, a `0x` and a leading `-` are
accepted.  Fingerprints are SHA-256.  Colons are accepted everywhere.  `until DATE` is a day, which
is included (UTC), or an RFC 3339 time at which the entry stops denying.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from sidecar.core.config.dates import parse_date
from sidecar.core.config.schema import suggest
from sidecar.core.errors import Diagnostic, PolicyError
from sidecar.core.policy.patterns import PatternError, parse_fingerprint, parse_serial
from sidecar.core.revocation.status import Answer, RevocationStatus
from sidecar.core.x509.certificate import refused_serials, serial_hex

ENTRY_KINDS = {
    "serial": "a serial number",
    "sha256": "a certificate",
    "spki_sha256": "a public key",
}
"""The kinds of an entry, each with a description."""

_ONE = {kind: kind for kind in ENTRY_KINDS}
"""One object for each kind, however many lines there are."""

MAX_DIAGNOSTICS = 1000
"""Maximum number of reported mistakes: a file that isn't a denylist has one in each line."""


class DenylistEntry(NamedTuple):
    """One line of a denylist.  At `until` (seconds since the epoch) it stops denying.

    `key` is the kind, and the value as a number: the smallest form, as a list may be long.
    """

    key: tuple[str, int]
    until: float
    comment: str
    file: str
    line: int

    @property
    def kind(self) -> str:
        """One of `ENTRY_KINDS`."""
        return self.key[0]

    @property
    def value(self) -> str:
        """The serial number as `serial_hex` writes it, or the fingerprint in lower-case hex."""
        kind, number = self.key
        return serial_hex(number) if kind == "serial" else f"{number:064x}"

    def answer(self) -> Answer:
        """Return the answer that this entry gives while it is in force."""
        end = "" if self.until == math.inf else f" until {_utc(self.until)}"
        why = f" # {self.comment}" if self.comment else ""
        detail = f"{self.kind} {self.value}{end}{why}"
        return Answer(
            RevocationStatus.REVOKED, f"denylist {self.file}:{self.line}", detail, self.until
        )


@dataclass(frozen=True, slots=True, eq=False)
class Denylist:
    """The entries of one file.  Of several entries with the same value, the longest is kept."""

    file: str
    entries: Mapping[tuple[str, int], DenylistEntry]

    def lookup(
        self, serial: int | None, sha256: str, spki_sha256: str, now: float
    ) -> Answer | None:
        """Return REVOKED, or None; a denylist never says good.  Fingerprints are in hex.

        `serial` None compares no serial number.  A `sha256` line denies a key, too: who revokes by
        64 digits may have hashed either, and nothing else has this hash.
        """
        cert, spki = int(sha256, 16), int(spki_sha256, 16)
        fingerprints = (("sha256", cert), ("spki_sha256", spki), ("sha256", spki))
        serials = () if serial is None else refused_serials(serial)
        for key in (*(("serial", number) for number in serials), *fingerprints):
            entry = self.entries.get(key)
            if entry is not None and now < entry.until:
                return entry.answer()
        return None


class DenylistReader:
    """Reads the versions of one file: a line that the last one had, too, is not parsed again.

    So a line that is added to a list of hundreds of thousands takes effect as soon as to a short
    one.  An instance is for one thread at a time.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._known: dict[bytes, DenylistEntry | None] = {}

    def read(self, data: bytes) -> tuple[Denylist, tuple[Diagnostic, ...]]:
        """Read every valid line, and report the mistakes of the others.  Never raises."""
        file = self._file
        mistakes: list[Diagnostic] = []
        entries: dict[tuple[str, int], DenylistEntry] = {}
        known_before, known_now = self._known, dict[bytes, DenylistEntry | None]()
        for number, raw in _lines(data):
            known = known_before.pop(raw, _NEW)  # so that no line is held twice meanwhile
            if known is _NEW:
                known = known_now.get(raw, _NEW)
            if known is _NEW:
                entry, mistake = _read_any(raw, file, number)
                if mistake is not None:
                    if len(mistakes) < MAX_DIAGNOSTICS:
                        mistakes.append(mistake)
                    if entry is not None:
                        _add(entries, entry)
                    continue
                known = entry
            if known is not None:
                key, until, comment, _, line = known
                if line != number:
                    known = DenylistEntry(key, until, comment, file, number)
                other = entries.setdefault(key, known)
                if other is not known and other.until < until:
                    entries[key] = known
            known_now[raw] = known
        self._known = known_now
        return Denylist(file, entries), tuple(mistakes)


_NEW = DenylistEntry(("", 0), 0.0, "", "", 0)


def read_denylist(data: bytes, file: str) -> tuple[Denylist, tuple[Diagnostic, ...]]:
    """Read every valid line, and report the mistakes of the others.  Never raises."""
    return DenylistReader(file).read(data)


def _read_any(raw: bytes, file: str, number: int) -> tuple[DenylistEntry | None, Diagnostic | None]:
    """Return the entry of a line, and its mistake: both where only its comment is invalid."""
    try:
        return _read_line(raw, file, number), None
    except _Mistake as mistake:
        found = Diagnostic(file, number, *mistake.args)
    return _read_anyway(raw, file, number), found


def parse_denylist(data: bytes, file: str) -> Denylist:
    """Read a denylist.  Raises `PolicyError` with every mistake in it, by line and column."""
    found, mistakes = read_denylist(data, file)
    if mistakes:
        raise PolicyError(mistakes)
    return found


def joined(older: Denylist, newer: Denylist) -> Denylist:
    """Merge two denylists: for a file in which some lines are invalid at the moment.

    Which of them is the older one decides nothing, so that several instances come to the same.
    """
    entries = dict(older.entries)
    for key, entry in newer.entries.items():
        other = entries.setdefault(key, entry)
        if (other.until, other.comment) < (entry.until, entry.comment):
            entries[key] = entry
    return older if entries == older.entries else Denylist(newer.file, entries)


def of_entries(file: str, entries: Iterable[DenylistEntry]) -> Denylist:
    """Build a denylist from entries."""

    found: dict[tuple[str, int], DenylistEntry] = {}
    for entry in entries:
        _add(found, entry)
    return Denylist(file, found)


def as_text(denylist: Denylist) -> bytes:
    """Write a file that denies at least what these entries deny, and at least as long.

    Equal entries give equal octets.
    """
    lines = []
    for _, entry in sorted(denylist.entries.items()):
        words = [entry.kind, entry.value]
        with contextlib.suppress(ValueError, OverflowError, OSError):  # beyond datetime: no end
            words += ["until", _utc_text(math.ceil(entry.until))] if entry.until < math.inf else []
        lines.append(" ".join([*words, "#", entry.comment]))
    return "".join(f"{line}\n" for line in lines).encode()


def _utc_text(moment: float) -> str:
    """Format a time as RFC 3339.  Raises ValueError, OverflowError, OSError beyond datetime."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _add(entries: dict[tuple[str, int], DenylistEntry], entry: DenylistEntry) -> None:
    """Add an entry; of two entries with the same value keep the one that denies longer."""
    other = entries.setdefault(entry.key, entry)
    if other.until < entry.until:
        entries[entry.key] = entry


def _read_anyway(raw: bytes, file: str, number: int) -> DenylistEntry | None:
    """Return the entry of a line whose mistake is its UTF-16, or that its comment isn't UTF-8."""
    plain = raw.replace(b"\0", b"")  # before a mark, too: the half of a line end in UTF-16
    for mark in _WIDE_MARKS:
        plain = plain.removeprefix(mark)
    for text in dict.fromkeys((plain, plain.partition(b"#")[0])):
        with contextlib.suppress(_Mistake):
            return _read_line(text, file, number)
    return None


class _Mistake(Exception):
    """Arguments: column, message, hint."""


_USUAL = re.compile(rb"(sha256|spki_sha256)[ \t]+([0-9a-f]{64})[ \t]*(?:#([ -~]*))?")
"""A line as `revoke` writes it: the fast path for lists of many thousands."""


def _read_line(raw: bytes, file: str, number: int) -> DenylistEntry | None:
    usual = _USUAL.fullmatch(raw)
    if usual is not None:
        kind, digits, note = (each.decode() for each in usual.groups(b""))
        note = " ".join(note.split())
        return DenylistEntry((_ONE[kind], int(digits, 16)), math.inf, note, file, number)
    raw = raw.removeprefix(_BOM)
    if b"\0" in raw or raw.startswith(_WIDE_MARKS):
        raise _Mistake(1, "UTF-16 or a NUL, not UTF-8", "save the file as UTF-8")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _Mistake(error.start + 1, "not UTF-8", "save the file as UTF-8") from None
    body, _, comment = text.partition("#")
    words = list(_words(body))
    if not words:
        return None
    column, kind = words[0]
    if kind not in ENTRY_KINDS:
        message = f"{_shape(kind)}, and no kind of entry"
        raise _Mistake(column, message, suggest(kind[:80], ENTRY_KINDS))
    if len(words) < 2:
        hint = f"write {kind} and {ENTRY_KINDS[kind]} in hexadecimal"
        raise _Mistake(column, f"{kind} without a value", hint)
    value = _value(kind, *words[1])
    key = _ONE[kind], value
    return DenylistEntry(key, _until(words[2:]), _one_line(comment), file, number)


def _words(text: str) -> Iterator[tuple[int, str]]:
    for found in re.finditer(r"\S+", text):
        yield found.start() + 1, found.group()


def _value(kind: str, column: int, word: str) -> int:
    """Parse a serial number or a fingerprint."""
    try:
        return parse_serial(word) if kind == "serial" else int(parse_fingerprint(word), 16)
    except PatternError as error:
        _, *hint = error.args
        message = f"{_shape(word)}, and not {ENTRY_KINDS[kind]} in hexadecimal"
        raise _Mistake(column, message, *hint[:1] or ("",)) from None


def _until(words: list[tuple[int, str]]) -> float:
    if not words:
        return math.inf
    column, word = words[0]
    if word != "until":
        message = f"{_shape(word)}, and not `until`"
        raise _Mistake(column, message, "write until DATE, or put # before a comment")
    if len(words) == 1:
        raise _Mistake(column, "`until` without a date", "write until 2027-01-31")
    if len(words) > 2:
        column, word = words[2]
        raise _Mistake(column, f"{_shape(word)} behind the date", "put # before a comment")
    try:
        return parse_date(words[1][1], end=True)
    except ValueError as error:
        _, *hint = error.args
        message = f"{_shape(words[1][1])}, and not a date"
        raise _Mistake(words[1][0], message, *hint[:1] or ("",)) from None


def _shape(word: str) -> str:
    """Describe a word without its contents: any file may be named as a denylist, and who asks
    `/readyz` or reads the log may not read it."""
    length = len(word)
    return f"a word of {length} character{'s' * (length != 1)}"


def _one_line(text: str) -> str:
    """Remove control characters and similar ones, which could forge a line of a log or file."""
    if text.isprintable():
        return " ".join(text.split())
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _utc(moment: float) -> str:
    """Format a time as RFC 3339, or as plain seconds beyond the range of datetime."""
    try:
        return _utc_text(moment)
    except (ValueError, OverflowError, OSError):
        return "the end of 9999"


# -- writing one line, for `revoke` --------------------------------------------------------------


def format_entry(kind: str, value: str, until: str = "", comment: str = "") -> str:
    """Write one line of a denylist, without a line feed; parsing it gives the same entry.

    `value` and `until` (a day, an RFC 3339 time, or "") are in the form of a denylist.  In the
    comment, line breaks become blanks.  Raises ValueError with a message and a hint.
    """
    words = [kind, value, *(["until", until] if until else [])]
    if until:
        parse_date(until, end=True)  # its message says what was given
    try:
        if not kind or not value or any("#" in word or len(word.split()) != 1 for word in words):
            raise _Mistake(0, f"{' '.join(words)[:80]!r} is not an entry", "")
        entry = _read_line(" ".join(words).encode(), "", 1)
    except _Mistake as mistake:
        raise ValueError(*mistake.args[1:]) from None
    if entry is None:
        raise ValueError(f"{' '.join(words)[:80]!r} is not an entry", "")
    line = " ".join([kind, entry.value, *words[2:]])
    note = _one_line(comment)
    return f"{line} # {note}" if note else line


def one_entry(kind: str, value: str, until: str = "") -> DenylistEntry:
    """Return the entry that `format_entry` would write.  Raises ValueError."""
    entry = _read_line(format_entry(kind, value, until).encode(), "", 1)
    assert entry is not None  # `format_entry` made it
    return entry


def read_lines(data: bytes, file: str) -> Iterator[tuple[bytes, DenylistEntry | Diagnostic | None]]:
    """Yield every line with its line end, and its meaning: an entry, a mistake, or None."""
    start = data[: len(data) - len(data.removeprefix(_BOM))]
    for number, line in _lines(data, ends=True):
        raw, start = start + line, b""
        entry, mistake = _read_any(line.rstrip(b"\r\n"), file, number)
        yield raw, entry or mistake


_BOM = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_ENDS_OF_PARTS = (b"\x0b", b"\x0c", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9")
_PART = re.compile(rb"(?<=[\x0b\x0c])|(?<=\xc2\x85)|(?<=\xe2\x80[\xa8\xa9])")


_PORTION = 256 * 1024
"""Octets that are split into lines at a time: meanwhile no other thread runs."""


def _lines(data: bytes, *, ends: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yield each line with its number, and each part of a line separately; with `ends` as it is."""
    number, start = 0, len(data) - len(data.removeprefix(_BOM))
    while start < len(data):
        end = data.find(b"\n", start + _PORTION) + 1 or len(data)
        portion = data[start:end]
        start = end
        lines = portion.splitlines(keepends=ends)
        if any(each in portion for each in _ENDS_OF_PARTS):
            for line in lines:
                number += 1
                yield from ((number, part) for part in _PART.split(line))
        else:
            yield from enumerate(lines, number + 1)
            number += len(lines)


def is_same(entry: DenylistEntry, other: DenylistEntry) -> bool:
    """Return whether two entries have the same kind and value."""
    return entry.key == other.key
