"""The state of a fleet: what a chain of signed entries says, one entry after the other.

An entry is taken only if it is this fleet's, its number follows, it names the hash of the one
before, and a key that counts at this point signed it.  Nothing here trusts where it came from.
What this does not check: that nothing newer exists, which only a head tells (`take_head`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sidecar.core.revocation.denylist import Denylist, DenylistEntry, of_entries

from .bodies import KeyChange, Release, Revocation, Undo, issued_at, parse_body
from .entry import NOTHING_BEFORE, Entry, Refused, SignedEntry
from .keys import PublicKey

MAX_KEYS = 64


@dataclass(frozen=True, slots=True)
class Head:
    """What a keeper said last: the log ends at this number.  Times in seconds since the epoch."""

    sequence: int
    issued: float
    not_after: float


class Chain:
    """The state after the entries taken so far.  `accept` changes it wholly or not at all."""

    def __init__(self, fleet: str, pinned: Sequence[PublicKey], epoch: int = 1) -> None:
        self.fleet = fleet
        self.epoch = epoch
        self.sequence = 0
        self.hash = NOTHING_BEFORE
        self.keys = {key.id: key for key in pinned}
        self.releases: list[Release] = []
        self.revocations: dict[int, Revocation] = {}
        self.head: Head | None = None
        self.issued = 0.0
        self.not_understood = 0
        self._hashes = bytearray(bytes.fromhex(NOTHING_BEFORE))
        self._denylist: Denylist | None = None

    # -- the log

    def accept(self, signed: SignedEntry) -> bool:
        """Take the next entry; False for one that was taken before.

        Raises `Refused`.  An entry that is the next one, but says what this version does not
        understand, is refused and passed over: the state is otherwise as before, and
        `not_understood` says so, while later revocations still count.
        """
        entry = signed.entry
        self._check_place(entry)
        if entry.kind == "head":
            raise Refused("malformed", "a head is not part of the log")
        if entry.sequence <= self.sequence:
            return self._refuse_old(signed)
        digest = hashlib.sha256(self._verified(signed)).hexdigest()
        if entry.sequence > self.sequence + 1:
            raise Refused("gap", f"{entry.sequence} after {self.sequence}")
        if entry.previous != self.hash:
            raise Refused("fork", f"{entry.sequence} follows another entry than ours")
        try:
            self._take(entry)
        except Refused:
            self.not_understood = entry.sequence
            self._advance(entry.sequence, digest)
            raise
        self._advance(entry.sequence, digest)
        return True

    def _advance(self, sequence: int, digest: str) -> None:
        self.sequence, self.hash = sequence, digest
        self._hashes += bytes.fromhex(digest)

    def _hash_of(self, sequence: int) -> str:
        """The hash of an entry that was taken; all are kept, so that each is known again."""
        return self._hashes[sequence * 32 : sequence * 32 + 32].hex()

    def _check_place(self, entry: Entry) -> None:
        if entry.fleet != self.fleet:
            raise Refused("wrong_fleet", f"it is for {entry.fleet!r}, not {self.fleet!r}")
        if entry.epoch < self.epoch:
            raise Refused("rollback", f"epoch {entry.epoch} after {self.epoch}")
        if entry.epoch > self.epoch:
            raise Refused("gap", f"epoch {entry.epoch}, and here it is {self.epoch}")

    def _verified(self, signed: SignedEntry) -> bytes:
        """The octets that were signed.  Raises `Refused`."""
        key = self.keys.get(signed.key)
        if key is None or (key.heads_only and signed.entry.kind != "head"):
            raise Refused(
                "unknown_key", f"key {signed.key} may not sign a {signed.entry.kind[:32]}"
            )
        content = signed.entry.content()
        if not key.verifies(signed.signature, content):
            raise Refused("bad_signature", f"entry {signed.entry.sequence}, key {signed.key}")
        return content

    def _refuse_old(self, signed: SignedEntry) -> bool:
        """False for an entry that was taken, whose key may count no longer.  Raises `Refused`."""
        entry = signed.entry
        if entry.sequence and entry.hash == self._hash_of(entry.sequence):
            return False
        self._verified(signed)
        raise Refused("fork", f"another entry {entry.sequence} than the one that was taken")

    def _take(self, entry: Entry) -> None:
        said = parse_body(entry)
        match said:
            case Release():
                self._take_release(said)
            case Revocation():
                self.revocations[said.sequence] = said
                self._denylist = None
            case Undo():
                self.revocations.pop(said.sequence, None)
                self._denylist = None
            case KeyChange():
                self._change_keys(said)
        self.issued = issued_at(entry)

    def _take_release(self, release: Release) -> None:
        if release.to.is_everyone:
            self.releases.clear()
            self.not_understood = 0
        self.releases.append(release)

    def _change_keys(self, change: KeyChange) -> None:
        keys = {id: key for id, key in self.keys.items() if id not in change.remove}
        keys.update({key.id: key for key in change.add})
        if all(key.heads_only for key in keys.values()) or len(keys) > MAX_KEYS:
            raise Refused("malformed", "no key would be left that signs, or too many")
        self.keys = keys

    # -- the head

    def take_head(self, signed: SignedEntry) -> bool:
        """Take a head if it is newer than the last; False if it isn't, or is not ours to judge.

        Raises `Refused`: a `gap` where it tells of entries that are missing here.
        """
        entry = signed.entry
        self._check_place(entry)
        if entry.kind != "head":
            raise Refused("malformed", f"a {entry.kind[:32]} is not a head")
        self._verified(signed)
        try:
            issued = issued_at(entry)
        except ValueError as error:
            raise Refused("malformed", str(error)) from None
        if entry.not_after is None or set(entry.body) != {"issued"}:
            raise Refused("malformed", "a head has an end, and says nothing else")
        if self.head is not None and issued <= self.head.issued:
            return False
        if entry.sequence > self.sequence:
            raise Refused("gap", f"the log ends at {entry.sequence}, and here at {self.sequence}")
        if self._hash_of(entry.sequence) != entry.previous:
            raise Refused("fork", f"the head names another entry {entry.sequence}")
        self.head = Head(entry.sequence, issued, entry.not_after)
        return True

    # -- what follows

    def release_for(self, node: str, labels: Collection[str]) -> Release | None:
        """The release that is due on a node."""
        for release in reversed(self.releases):
            if release.to.includes(self.fleet, node, labels):
                return release
        return None

    @property
    def denylist(self) -> Denylist:
        """Every revocation that was not taken back."""
        if self._denylist is None:
            name = f"fleet {self.fleet}"
            self._denylist = of_entries(
                name, (_line(name, each) for each in self.revocations.values())
            )
        return self._denylist


def _line(name: str, said: Revocation) -> DenylistEntry:
    until = math.inf if said.not_after is None else float(said.not_after)
    return DenylistEntry((said.kind, int(said.value, 16)), until, said.comment, name, said.sequence)
