"""Keep the OCSP answers across a restart in one file of the state directory.

Requests would otherwise be denied until each answer was asked for again, and with the fetcher down
for as long as it is.  The file is no authority: each response is verified again when it is read,
for an authority of the trust as the policy names it now.  A file that is broken is set aside and
reported; it never keeps the daemon from starting.  One line is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from sidecar.core.policy.model import Trust
from sidecar.runtime import fetch_protocol
from sidecar.runtime.files import read_file, set_aside, write_file

from .ocsp_answers import MAX_ANSWERS, OcspAnswers, StoredResponse

log = logging.getLogger("mtls-sidecar")

NAME = "ocsp-answers.jsonl"

MAX_SIZE = 128 * 2**20
"""Largest file that is read, in bytes."""

SAVE_SECONDS = 5.0
"""How long what has changed waits to be written; a revocation doesn't wait."""

RETRY_SECONDS = 60.0
"""How long to wait after the file couldn't be written."""

_BINARY = ("cert", "issuer", "response")


class OcspFile:
    """Reads the answers at start, and writes them as they change."""

    def __init__(self, state_dir: Path, answers: OcspAnswers) -> None:
        self.path = state_dir / NAME
        self._answers = answers
        self._saved = (answers.version, answers.turns)
        self._next = 0.0

    def load(self, trusts: Mapping[str, Trust]) -> None:
        """Take what is still right.  Never raises."""
        try:
            lines = read_file(self.path, MAX_SIZE).splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            self._refuse(f"can't be read: {error.strerror or error}")
            return
        broken = taken = 0
        for line in lines[-MAX_ANSWERS:]:
            try:
                taken += self._take(_read(line), trusts)
            except Exception:  # noqa: BLE001 - a hostile file, read by parsers of many errors
                broken += 1
        self._saved = (self._answers.version, self._answers.turns)
        if broken:
            self._refuse(f"{broken} of its lines are no OCSP answers")
        if lines:
            log.info("%d of %d OCSP answers kept from before are in force", taken, len(lines))

    def _take(self, record: StoredResponse, trusts: Mapping[str, Trust]) -> bool:
        """Whether the present policy knows its issuer, and the response is right."""
        trust = trusts.get(record.trust)
        if trust is None or not trust.ocsp or record.issuer not in trust.anchors.der:
            return False
        return self._answers.restore(record, trust.clock_tolerance)

    def _refuse(self, why: str) -> None:
        log.error("%s: %s; it is set aside as %s.broken", self.path, why, self.path.name)
        set_aside(self.path)
        self._saved = -1, -1

    async def keep(self) -> None:
        """Write what has changed, until cancelled."""
        while True:
            await asyncio.sleep(1)
            version, turns = self._answers.version, self._answers.turns
            waits = turns == self._saved[1] and time.monotonic() < self._next
            if (version, turns) != self._saved and not waits:
                await self._save_aside(version, turns)

    async def _save_aside(self, version: int, turns: int) -> None:
        records = self._answers.records()
        start = time.monotonic()
        self._saved = version, turns
        wait = SAVE_SECONDS
        try:
            await asyncio.to_thread(_write, self.path, records)
        except OSError as error:
            self._saved = -1, turns
            wait = RETRY_SECONDS
            log.warning("OCSP answers aren't kept across restarts: %s", error)
        now = time.monotonic()
        self._next = now + max(wait, 20 * (now - start))  # many take longer

    def save(self) -> None:
        """Write what is held, at the end."""
        if (self._answers.version, self._answers.turns) == self._saved:
            return
        try:
            _write(self.path, self._answers.records())
        except OSError as error:
            log.warning("OCSP answers aren't kept across restarts: %s", error)


def _write(path: Path, records: list[StoredResponse]) -> None:
    write_file(path, b"".join(_lines(records)))


def _lines(records: list[StoredResponse]) -> Iterator[bytes]:
    for record in records:
        binary = {name: fetch_protocol.pack(getattr(record, name)) for name in _BINARY}
        yield json.dumps({"trust": record.trust, "at": record.at, **binary}).encode() + b"\n"


def _read(line: bytes) -> StoredResponse:
    """Raises ValueError, and what else parsers raise for hostile text."""
    found = json.loads(line)
    at, trust = found["at"], found["trust"]
    if not isinstance(at, float) or not math.isfinite(at) or not isinstance(trust, str):
        raise ValueError("no such record")
    cert, issuer, response = (fetch_protocol.unpack({"": found[name]}, "") for name in _BINARY)
    return StoredResponse(trust, cert, issuer, response, at)
