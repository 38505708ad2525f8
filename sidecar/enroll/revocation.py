"""What `revoke NAME` and `revoke NAME/DEVICE` mean: certificates of the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import clients, invitations
from .clients import IssuedCertificate
from .store import Store


@dataclass(frozen=True, slots=True)
class EnrolledClients:
    """The certificates of a person, or of one device of a person."""

    store: Store

    def find(self, target: str) -> list[IssuedCertificate]:
        """List whom a target names, revoked ones too; nobody for a target of another kind.

        Raises `StoreError`.
        """
        name, slash, device = target.partition("/")
        with self.store.reading() as connection:
            found = clients.of_person(connection, name)
        return [each for each in found if not slash or each.device == device]

    def mark(self, target: str, sha256s: Sequence[str], now: float, reason: str) -> list[str]:
        """Note that these are revoked, and end the target's open invitations; their ids.

        Raises `StoreError`.
        """
        name, slash, device = target.partition("/")
        with self.store.changing() as connection:
            clients.mark_revoked(connection, sha256s, now, reason)
            return invitations.cancel_all_of(connection, name, device if slash else None, now)

    def unmark(self, sha256s: Sequence[str]) -> None:
        """Note that these are revoked no more.  Raises `StoreError`."""
        with self.store.changing() as connection:
            clients.mark_valid(connection, sha256s)
