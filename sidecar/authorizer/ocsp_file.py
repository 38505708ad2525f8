"""Keep the OCSP answers across a restart in one file of the state directory.

Otherwise requests would be denied after a restart until each answer is fetched again.  The file is
not trusted: each response is verified again when it is read, with the current authorities of the
trust.  An invalid file is renamed to NAME.broken and reported; it never prevents a start.  Each
line is one JSON object.

Several instances share the file.  Each looks every second for lines of the others, takes what it
doesn't know yet, and keeps in the file what it hasn't looked at, and what no trust of its policy
has issued (another instance's may be newer): no instance's answer is lost by another's writing, and
one that says revoked soon counts in all.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from sidecar.core.policy.model import Trust
from sidecar.core.x509.certificate import ClientCert, from_der
from sidecar.core.x509.der import comparable_name
from sidecar.runtime import fetch_protocol
from sidecar.runtime.files import (
    FileVersion,
    alone,
    file_version,
    may_pass,
    read_file,
    rename_broken,
    write_file,
)

from .ocsp_answers import MAX_ANSWERS, MAX_BYTES, OcspAnswers, StoredResponse

log = logging.getLogger("mtls-sidecar")

NAME = "ocsp-answers.jsonl"

MAX_SIZE = 128 * 2**20
"""Largest file that is read, in bytes."""

SAVE_SECONDS = 5.0
"""Seconds for which changes wait to be written; a revocation is written at once."""

RETRY_SECONDS = 60.0
"""Seconds to wait after writing the file has failed."""

AT_ONCE = 16
"""Lines of another instance that are verified without a pause for requests."""

Trusts = Mapping[str, Trust]

_BINARY = ("cert", "issuer", "response")


class OcspFile:
    """Read the answers at the start, and write them when they change."""

    def __init__(self, state_dir: Path, answers: OcspAnswers) -> None:
        self.path = state_dir / NAME
        self._answers = answers
        self._saved = (answers.version, answers.turns)
        self._next = 0.0
        self._lines: list[bytes] | None = None
        self._known: frozenset[bytes] = frozenset()
        self._version: FileVersion | None = None
        self.is_unread = False

    def read(self) -> BaseException | None:
        """Read the file for `load`, unless that is done; return an error that may pass."""
        if self._lines is None:
            try:
                self._version = file_version(self.path)
                self._lines = read_file(self.path, MAX_SIZE).splitlines()
            except FileNotFoundError:
                self._lines = []
            except (OSError, MemoryError) as error:
                self.is_unread = may_pass(error)
                if self.is_unread:
                    return error
                self._refuse(f"can't be read: {getattr(error, 'strerror', None) or error}")
                self._lines = []
        self.is_unread = False
        return None

    def load(self, trusts: Trusts) -> None:
        """Restore the answers that are still valid, out of what was read.  Never raises."""
        error = self.read()
        if error is not None:
            log.error("%s can't be read now, and isn't written: %s", self.path, error)
        lines, self._lines = self._lines or [], None
        issuers = Issuers(trusts)
        broken = taken = 0
        foreign = set()
        for line in lines[-MAX_ANSWERS:]:
            try:
                found = self._take(_read(line), issuers)
                taken += bool(found)
                if found is None:
                    foreign.add(_digest(line))
            except Exception:  # noqa: BLE001 - a hostile file, read by parsers of many errors
                broken += 1
        self._known = frozenset(map(_digest, lines)) - foreign
        self._saved = (self._answers.version, self._answers.turns)
        if broken:
            self._refuse(f"{broken} of its lines are not OCSP answers")
        if lines:
            log.info("%d of %d OCSP answers kept from before are in force", taken, len(lines))

    def _take(
        self, record: StoredResponse, issuers: Issuers, *, only_other: bool = False
    ) -> bool | None:
        """Restore a response if the current policy has its issuer (if not: None) and it is valid.

        One that says good must be by a responder that the policy still names.
        """
        found = issuers.of(record)
        if found is None:
            return None
        trust, issuer = found
        mine = record._replace(trust=trust.name, issuer=issuer.der, responder=trust.ocsp)
        return self._answers.restore(
            mine,
            trust.clock_tolerance,
            only_other=only_other,
            only_revoked=record.responder not in ("", _shown(trust.ocsp)),
        )

    def _refuse(self, why: str) -> None:
        log.error("%s: %s; it is set aside as %s.broken", self.path, why, self.path.name)
        rename_broken(self.path)
        self._saved = -1, -1

    async def keep(self, trusts: Callable[[], Trusts]) -> None:
        """Write changes, and take those of other instances, until cancelled."""
        while True:
            await asyncio.sleep(1)
            await self.take_others(trusts)
            version, turns = self._answers.version, self._answers.turns
            waits = turns == self._saved[1] and time.monotonic() < self._next
            if (version, turns) != self._saved and not waits:
                await self._save_aside(version, turns)

    async def take_others(self, trusts: Callable[[], Trusts]) -> None:
        """Take what another instance has written: what isn't known here, or says otherwise."""
        found = file_version(self.path)
        if self.is_unread or found == self._version:
            return
        try:
            lines = await asyncio.to_thread(_read_lines, self.path)
        except (OSError, MemoryError) as error:
            log.debug("%s can't be read: %s", self.path, error)
            return
        new = [line for line in lines[-MAX_ANSWERS:] if _digest(line) not in self._known]
        foreign = set()
        held: Trusts = {}
        issuers = Issuers(held)
        for number, line in enumerate(new, 1):
            if (now := trusts()) is not held:
                held, issuers = now, Issuers(now)
            with contextlib.suppress(Exception):  # as in `load`; the next writing leaves it out
                if self._take(_read(line), issuers, only_other=True) is None:
                    foreign.add(_digest(line))
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        self._known, self._version = frozenset(map(_digest, lines)) - foreign, found

    async def _save_aside(self, version: int, turns: int) -> None:
        if self.is_unread:
            return
        records = self._answers.records()
        start = time.monotonic()
        self._saved = version, turns
        wait = SAVE_SECONDS
        try:
            self._version, self._known = await asyncio.to_thread(
                _write, self.path, records, self._known
            )
        except OSError as error:
            self._saved = -1, turns
            wait = RETRY_SECONDS
            log.warning("OCSP answers aren't kept across restarts: %s", error)
        now = time.monotonic()
        self._next = now + max(wait, 20 * (now - start))  # a large file takes longer

    def save(self) -> None:
        """Write all answers at the end of the process."""
        if self.is_unread or (self._answers.version, self._answers.turns) == self._saved:
            return
        try:
            _write(self.path, self._answers.records(), self._known)
        except OSError as error:
            log.warning("OCSP answers aren't kept across restarts: %s", error)


class Issuers:
    """The authorities of trusts with a responder, by name and key: there may be hundreds of trusts,
    and thousands of answers."""

    def __init__(self, trusts: Trusts) -> None:
        self._found: dict[tuple[bytes, bytes], dict[str, list[ClientCert]]] = {}
        self._trusts = trusts
        for name, trust in trusts.items():
            for cert in trust.anchors.certificates if trust.ocsp else ():
                alike = self._found.setdefault(_name_and_key(cert), {})
                alike.setdefault(name, []).append(cert)

    def of(self, record: StoredResponse) -> tuple[Trust, ClientCert] | None:
        """Return a trust that has the issuer, and its certificate there; the same one if it can.

        Trusts of its responder come first, of them the one of its name: it may have been renamed.
        """
        issuer = from_der(record.issuer)
        found = self._found.get(_name_and_key(issuer), {})

        def distance(name: str) -> tuple[bool, bool]:
            shown = _shown(self._trusts[name].ocsp)
            return shown != record.responder, name != record.trust

        if not found:
            return None
        name = min(found, key=distance)
        same = found[name]
        return self._trusts[name], next((c for c in same if c.der == issuer.der), same[0])


def _name_and_key(authority: ClientCert) -> tuple[bytes, bytes]:
    """Return what is alike in all certificates of an authority: its name may be encoded anew."""
    try:
        return comparable_name(authority.subject_name), authority.spki
    except ValueError:
        return authority.subject_name, authority.spki


@lru_cache(maxsize=1024)
def _shown(address: str) -> str:
    """Return what stands for a responder's address, which may hold a password, in the file."""
    return hashlib.sha256(address.encode()).hexdigest()


def _write(
    path: Path, records: list[StoredResponse], known: frozenset[bytes]
) -> tuple[FileVersion | None, frozenset[bytes]]:
    """Write records behind which stay the lines that are not known; return what is known then.

    The version is None if there are such lines: they are still to be looked at.
    """
    mine = list(_lines(records))
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        others = [line for line in _others(path) if _digest(line) not in known]
        write_file(path, mine + [line + b"\n" for line in _newest(others)])
        return None if others else file_version(path), frozenset(map(_digest, mine))


def _newest(lines: list[bytes]) -> list[bytes]:
    """Return the last ones, as many and as large as an instance's own may be."""
    room, first = 2 * MAX_BYTES, len(lines)
    while first > max(0, len(lines) - MAX_ANSWERS) and (room := room - len(lines[first - 1])) >= 0:
        first -= 1
    return lines[first:]


def _others(path: Path) -> list[bytes]:
    with contextlib.suppress(OSError, MemoryError):
        return _read_lines(path)
    return []


def _read_lines(path: Path) -> list[bytes]:
    return read_file(path, MAX_SIZE).splitlines()


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line.rstrip(b"\n")).digest()


def _lines(records: list[StoredResponse]) -> Iterator[bytes]:
    for record in records:
        binary = {name: fetch_protocol.pack(getattr(record, name)) for name in _BINARY}
        known = {"trust": record.trust, "at": record.at, "responder": _shown(record.responder)}
        yield json.dumps({**known, **binary}).encode() + b"\n"


def _read(line: bytes) -> StoredResponse:
    """Parse a line, in which `responder` may be missing.

    Raises ValueError, and other errors of parsers for hostile text.
    """
    found = json.loads(line)
    at, trust, responder = found["at"], found["trust"], found.get("responder", "")
    texts = isinstance(trust, str) and isinstance(responder, str)
    if not isinstance(at, float) or not math.isfinite(at) or not texts:
        raise ValueError("a record of another form")
    cert, issuer, response = (fetch_protocol.unpack({"": found[name]}, "") for name in _BINARY)
    return StoredResponse(trust, cert, issuer, response, at, responder)
