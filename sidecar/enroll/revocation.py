"""What `revoke NAME` and `revoke NAME/DEVICE` mean: certificates of the store.

The store is read and changed in a process of its own, so that whatever its owner has put there
holds up no revocation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import clients, invitations
from .apart import apart
from .attempts import stop_all_of
from .clients import IssuedCertificate
from .commands import load_settings
from .store import Store

FIND_SECONDS = 10.0
"""Seconds that looking for a client may take: a revocation that needs no name waits for it, too."""

MARK_SECONDS = 30.0
"""Seconds that a change may take, after the certificates are denied."""


@dataclass(frozen=True, slots=True)
class EnrolledClients:
    """The clients of an enroll.yaml, which is read only when one is asked for."""

    config: str
    _slow: list[TimeoutError] = field(default_factory=list, repr=False, compare=False)

    def find(self, target: str) -> list[IssuedCertificate] | None:
        """List the certificates of NAME or NAME/DEVICE; None where there is no such client.

        Raises OSError and `PolicyError`.
        """
        found = self._apart(lambda store: _find(store, target), FIND_SECONDS)
        return None if found is None else _unpacked(found)

    def denied_by(self, kind: str, values: Sequence[str]) -> list[IssuedCertificate]:
        """List the certificates that a line of a denylist with one of these values denies.

        Raises OSError and `PolicyError`.
        """

        def find(store: Store) -> list[dict[str, Any]]:
            with store.reading() as connection:
                return _packed(clients.denied_by(connection, kind, values))

        return _unpacked(self._apart(find, FIND_SECONDS))

    def note(self, sha256s: Sequence[str], now: float, reason: str) -> None:
        """Note that these are revoked.  Raises OSError and `PolicyError`."""

        def change(store: Store) -> None:
            with store.changing() as connection:
                clients.mark_revoked(connection, sha256s, now, reason)

        self._apart(change, MARK_SECONDS)

    def mark(self, target: str, sha256s: Sequence[str], now: float, reason: str) -> list[str]:
        """Do as `note`, and end the target's open invitations; return their ids.

        What is being issued for the target at this moment, by a renewal, too, is not given out.

        Raises OSError and `PolicyError`.
        """
        name, slash, device = target.partition("/")

        def change(store: Store) -> list[str]:
            with store.changing() as connection:
                clients.mark_revoked(connection, sha256s, now, reason)
                stop_all_of(connection, name, device if slash else None)
                return invitations.cancel_all_of(connection, name, device if slash else None, now)

        return list(map(str, self._apart(change, MARK_SECONDS)))

    def unmark(self, sha256s: Sequence[str]) -> None:
        """Note that these are revoked no more.  Raises OSError and `PolicyError`."""

        def change(store: Store) -> None:
            with store.changing() as connection:
                clients.mark_valid(connection, sha256s)

        self._apart(change, MARK_SECONDS)

    def _apart(self, use: Callable[[Store], Any], seconds: float) -> Any:
        settings = load_settings(self.config)

        def work() -> Any:
            store = Store(settings.database)
            store.require()
            return use(store)

        if self._slow:  # it would be waited for again
            raise self._slow[0]
        try:
            return apart(Path(settings.state_dir), work, seconds)
        except TimeoutError as error:
            self._slow.append(error)
            raise


def _find(store: Store, target: str) -> list[dict[str, Any]] | None:
    name, slash, device = target.partition("/")
    with store.reading() as connection:
        if name not in clients.names(connection):
            return None
        found = clients.of_person(connection, name)
        if slash:
            theirs = [each for each in found if each.device == device]
            invited = {(each.name, each.device) for each in invitations.all_of(connection, 0.0)}
            if not theirs and (name, device) not in invited:
                return None
            found = theirs
    return _packed(found)


def _packed(found: Sequence[IssuedCertificate]) -> list[dict[str, Any]]:
    return [{**asdict(each), "der": each.der.hex()} for each in found]


def _unpacked(found: list[dict[str, Any]]) -> list[IssuedCertificate]:
    return [IssuedCertificate(**{**each, "der": bytes.fromhex(each["der"])}) for each in found]
