"""Publish entries: sign what follows on the log's end, and have the servers store it.

A publisher keeps the log that it has verified, as a node does.  So it notices servers that were
set back to an older state, and publishes nothing on top of that.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.core.fleet.bodies import Release, Revocation, parse_body
from sidecar.core.fleet.entry import Entry, Refused, SignedEntry, parse_line
from sidecar.core.fleet.manifest import File, as_body, check_files

from .copies import Copies
from .following import catch_up, has_last
from .ledger import Ledger
from .nats_client import Bus, SetBack, Taken, Unreachable
from .signer import Signer
from .streams import require_leader

BEHIND_TRIES, BEHIND_SECONDS = 4, 0.5
"""How often, and after which pause, a server that lacks the last entry is asked again."""

ATTEMPTS = 5
"""How often something is published anew whose place another publisher took."""


class Beaten(ValueError):
    """Another publisher was first."""


def _another_history(number: int) -> ValueError:
    return ValueError(
        f"the servers have another entry {number} than this machine's log: somebody published on "
        "top of an older state",
        "see the other one with `fleet log --state-dir` of an empty directory; to go on, begin a "
        "higher `epoch` (docs/fleet.md)",
    )


@dataclass(slots=True)
class Publisher:
    """One publisher.  `clock` gives seconds since the epoch."""

    bus: Bus
    ledger: Ledger
    signer: Signer | None = None
    clock: Callable[[], float] = time.time
    set_back: str = ""
    """What is wrong with the servers, where only reading goes on all the same."""

    async def sync(self) -> None:
        """Take what was published.

        A server of a cluster can be a moment behind in what it reads: one that lacks the last entry
        is asked again before it counts as set back.  Raises `SetBack`, `Unreachable`.
        """
        await catch_up(self.bus, self.ledger)
        for tries in range(BEHIND_TRIES + 1):
            if await has_last(self.bus, self.ledger):
                return
            if tries < BEHIND_TRIES:
                await asyncio.sleep(BEHIND_SECONDS)
        await require_leader(self.bus)
        raise SetBack(
            f"the servers don't have entry {self.ledger.chain.sequence}, which was published: they "
            "were set back or emptied; write the log again with `mtls-sidecar fleet restore`"
        )

    async def publish(
        self, kind: str, body: Mapping[str, Any], not_after: int | None = None
    ) -> SignedEntry:
        """Sign the next entry and have it stored.

        Raises `Beaten` where another publisher was first, `Unreachable`, ValueError.
        """
        assert self.signer is not None
        chain = self.ledger.chain
        entry = Entry(
            fleet=chain.fleet,
            epoch=chain.epoch,
            sequence=chain.sequence + 1,
            previous=chain.hash,
            kind=kind,
            body={**body, "issued": int(self.clock() * 1000)},
            not_after=not_after,
        )
        self._check(entry)
        signed = self.signer.sign(entry)
        line = signed.line()
        parse_line(line)
        try:
            await self.bus.put(entry.sequence, line)
        except Taken:
            await self.sync()
            raise Beaten(
                f"another publisher was first with entry {entry.sequence}",
                "see `mtls-sidecar fleet log`, and publish again if it is still wanted",
            ) from None
        except Unreachable:
            await self._look_whether_stored(signed)
        self.ledger.take([line])
        return signed

    def _check(self, entry: Entry) -> None:
        """Refuse to sign what nodes would refuse."""
        assert self.signer is not None
        known = self.ledger.chain.keys.get(self.signer.public.id)
        if known is not None and known.heads_only:
            raise ValueError(
                f"the key {known} is a keeper's: it signs heads and nothing else",
                "name the publisher's: --signing-key FILE",
            )
        if known is None:
            raise ValueError(
                f"the key {self.signer.public} may not sign for fleet {entry.fleet}",
                "add it to `keys` of sidecar.yaml on every host, or use the key that is there",
            )
        try:
            parse_body(entry)
        except Refused as error:
            raise ValueError(error.detail) from None

    async def _look_whether_stored(self, signed: SignedEntry) -> None:
        """After no answer: go on if the entry is stored all the same."""
        await self.sync()
        if self.ledger.chain.hash != signed.entry.hash:
            raise Unreachable(
                f"the servers did not confirm entry {signed.entry.sequence} in time, and may store "
                "it yet: see `mtls-sidecar fleet log` before it is published again"
            )

    async def put_files(self, files: Mapping[str, bytes]) -> list[dict[str, Any]]:
        """Have the servers hold the files, before an entry names them; the body's list of them."""
        listed = []
        for name, data in sorted(files.items()):
            digest = hashlib.sha256(data).hexdigest()
            listed.append(File(name, digest, len(data)))
        check_files(listed)
        self._copies.keep(files.values())
        for file in listed:
            if await self.bus.blob(file.sha256, file.size) != files[file.name]:
                await self.bus.put_blob(file.sha256, files[file.name])
        return as_body(listed)

    # -- the log so far

    def release(self, sequence: int) -> Release:
        """A release of the log.  Raises ValueError."""
        said = self._said(sequence)
        if not isinstance(said, Release):
            raise ValueError(f"entry {sequence} is no release", "see `mtls-sidecar fleet log`")
        return said

    def revocation(self, sequence: int) -> Revocation:
        """A revocation that is in force.  Raises ValueError."""
        if sequence in self.ledger.chain.revocations:
            return self.ledger.chain.revocations[sequence]
        if isinstance(self._said(sequence), Revocation):
            raise ValueError(f"entry {sequence} was taken back already")
        raise ValueError(
            f"entry {sequence} is no revocation",
            "see `mtls-sidecar fleet log`; a release is replaced: `fleet rollback SEQ`",
        )

    def _said(self, sequence: int) -> object:
        for number, line in self.ledger.lines(sequence):
            if number == sequence:
                return parse_body(parse_line(line).entry)
        last = self.ledger.chain.sequence
        ends = f"it ends at {last}" if last else "nothing was published yet"
        raise ValueError(f"the log has no entry {sequence}", ends)

    async def restore(self) -> int:
        """Write to the servers what they don't have of this machine's log; how many entries.

        Nothing is written where they have another history.  Raises ValueError, `Unreachable`.
        """
        missing = []
        for number, line in self.ledger.lines():
            found = await self.bus.entry(number)
            if found is None:
                missing.append((number, line))
            elif found != line:
                raise _another_history(number)
        for number, line in missing:
            try:
                await self.bus.put(number, line)
            except Taken:
                if await self.bus.entry(number) != line:
                    raise _another_history(number) from None
        return len(missing)

    async def restore_files(self) -> list[str]:
        """Bring the files of the releases that count to the servers; those that aren't here."""
        missing = []
        for release in self.ledger.chain.releases:
            for file in release.files:
                if await self.bus.blob(file.sha256, file.size) is not None:
                    continue
                data = self._copies.get(file)
                if data is None:
                    missing.append(f"{file.name} of release {release.sequence}")
                else:
                    await self.bus.put_blob(file.sha256, data)
        return missing

    @property
    def _copies(self) -> Copies:
        return Copies(self.ledger.directory / "files")
