"""What `revoke NAME` and `revoke NAME/DEVICE` mean: certificates of the store."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import clients, invitations
from .attempts import stop_all_of
from .clients import IssuedCertificate
from .commands import load_settings
from .state_owner import as_owner_of
from .store import Store, StoreError


@dataclass(frozen=True, slots=True)
class EnrolledClients:
    """The clients of an enroll.yaml, which is read only when one is asked for."""

    config: str

    def find(self, target: str) -> list[IssuedCertificate] | None:
        """List the certificates of NAME or NAME/DEVICE; None where there is no such client.

        Raises OSError and `PolicyError`.
        """
        name, slash, device = target.partition("/")
        with self._store() as store, store.reading() as connection:
            if name not in clients.names(connection):
                return None
            found = clients.of_person(connection, name)
            if not slash:
                return found
            theirs = [each for each in found if each.device == device]
            invited = {(each.name, each.device) for each in invitations.all_of(connection, 0.0)}
            return theirs if theirs or (name, device) in invited else None

    def mark(self, target: str, sha256s: Sequence[str], now: float, reason: str) -> list[str]:
        """Note that these are revoked, and end the target's open invitations; their ids.

        What is being issued for the target at this moment, by a renewal, too, is not given out.

        Raises OSError and `PolicyError`.
        """
        name, slash, device = target.partition("/")
        with self._store() as store, store.changing() as connection:
            clients.mark_revoked(connection, sha256s, now, reason)
            stop_all_of(connection, name, device if slash else None)
            return invitations.cancel_all_of(connection, name, device if slash else None, now)

    def unmark(self, sha256s: Sequence[str]) -> None:
        """Note that these are revoked no more.  Raises OSError and `PolicyError`."""
        with self._store() as store, store.changing() as connection:
            clients.mark_valid(connection, sha256s)

    @contextlib.contextmanager
    def _store(self) -> Iterator[Store]:
        settings = load_settings(self.config)
        try:
            with as_owner_of(Path(settings.state_dir)):
                store = Store(settings.database)
                store.require()
                yield store
        except StoreError as error:
            raise OSError(errno.EIO, str(error)) from None
