"""Signed entries, as a publisher makes them, and what an attacker would make of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.core.fleet.entry import NOTHING_BEFORE, Entry, SignedEntry
from sidecar.core.fleet.keys import PublicKey

ISSUED = 1_790_000_000_000
"""The time of entries that don't say another, in milliseconds."""


def public_of(key: Ed25519PrivateKey, *, heads_only: bool = False) -> PublicKey:
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PublicKey(raw, heads_only)


def listed(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Files as a release's body lists them."""
    return [
        {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in sorted(files.items())
    ]


@dataclass
class Author:
    """Signs one entry behind the other."""

    fleet: str = "prod"
    epoch: int = 1
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    sequence: int = 0
    previous: str = NOTHING_BEFORE

    @property
    def public(self) -> PublicKey:
        return public_of(self.key)

    def sign(self, entry: Entry, key: Ed25519PrivateKey | None = None) -> SignedEntry:
        key = key or self.key
        return SignedEntry(entry, public_of(key).id, key.sign(entry.content()))

    def entry(self, kind: str, body: Mapping[str, Any], not_after: int | None = None) -> Entry:
        """The next entry, which is not taken as the log's last."""
        body = {"issued": ISSUED, **body}
        number = self.sequence + 1
        return Entry(self.fleet, self.epoch, number, self.previous, kind, body, not_after)

    def next(self, kind: str, body: Mapping[str, Any], not_after: int | None = None) -> SignedEntry:
        """Sign the next entry of the log."""
        entry = self.entry(kind, body, not_after)
        self.sequence, self.previous = entry.sequence, entry.hash
        return self.sign(entry)

    def release(
        self,
        files: Mapping[str, bytes] | None = None,
        to: dict[str, Any] | None = None,
        **more: Any,
    ) -> SignedEntry:
        files = {"policy.yaml": b"version: 1\nlocations: []\n"} if files is None else files
        return self.next("release", {"files": listed(files), "to": to, "comment": "", **more})

    def revocation(
        self, value: str = "ab" * 32, kind: str = "sha256", not_after: int | None = None
    ) -> SignedEntry:
        return self.next("revocation", {"deny": kind, "value": value, "comment": ""}, not_after)

    def undo(self, sequence: int) -> SignedEntry:
        return self.next("undo", {"sequence": sequence})

    def keys(self, add: list[PublicKey], remove: list[str]) -> SignedEntry:
        return self.next("key", {"add": list(map(str, add)), "remove": remove})

    def head(
        self, issued: int = ISSUED, key: Ed25519PrivateKey | None = None, **other: Any
    ) -> SignedEntry:
        """A head for the log as it is; `other` fields in place of the true ones."""
        entry = Entry(
            self.fleet,
            self.epoch,
            self.sequence,
            self.previous,
            "head",
            {"issued": issued},
            issued // 1000 + 60,
        )
        return self.sign(replace(entry, **other), key)
