"""Read a policy's files on demand, for commands that run once and for a release that is tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sidecar.core.config.crl_place import is_address, shown
from sidecar.core.revocation.crl.index import Crl
from sidecar.core.revocation.denylist import Denylist, parse_denylist
from sidecar.core.x509.bundle import Bundle, read_bundle

from .crl_worker import CrlWorkers
from .files import MAX_BUNDLE, MAX_DENYLIST, crl_place, read_file, revoking_path


@dataclass(slots=True)
class DirectSources:
    """Read a policy's files, large CRLs in a worker process.

    The fetcher could put anything in their place, and the daemon tries a fleet's release by this.
    """

    base: Path
    state_dir: Path
    trusted_only: bool = False
    workers: CrlWorkers = field(default_factory=CrlWorkers)

    def certificates(self, path: str) -> Bundle:
        """Read the certificates of a file.  Raises OSError, ValueError."""
        return read_bundle(read_file(self.base / path, MAX_BUNDLE, trusted_only=self.trusted_only))

    def denylist(self, path: str) -> Denylist:
        """Read a denylist.  Raises OSError, PolicyError."""
        data = read_file(self.base / path, MAX_DENYLIST, trusted_only=self.trusted_only)
        return parse_denylist(data, str(self.base / path))

    def crls(
        self, place: str, trust: str, authorities: tuple[bytes, ...]
    ) -> tuple[Crl, ...] | None:
        """Read the CRLs of a file; return None for an address that wasn't fetched yet."""
        try:
            path = crl_place(self.base, self.state_dir, trust, place)
            # The state directory belongs to the daemon's user, not always to the command's user;
            # a fetched CRL is verified by its signature, so its owner doesn't matter.
            trusted_only = self.trusted_only and not is_address(place)
            read = self.workers.read_file
            found = read(path, shown(place), authorities, trusted_only=trusted_only).found
        except FileNotFoundError:
            if is_address(place):
                return None
            raise
        for mistake in found.mistakes:
            raise mistake
        return found.crls

    def revoking(self, place: str, trust: str, authorities: tuple[bytes, ...]) -> tuple[Crl, ...]:
        """What came last from an address and was refused.  Raises OSError."""
        if not is_address(place):
            return ()
        path = revoking_path(crl_place(self.base, self.state_dir, trust, place))
        try:
            read = self.workers.read_file
            return read(path, shown(place), authorities, trusted_only=False).found.crls
        except FileNotFoundError:
            return ()
