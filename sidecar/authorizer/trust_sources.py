"""The files of trusts: how each kind is read, and what was last good of it.

Each is read once for each version of it (`Readings`).  What an earlier process kept is read only
where the present file can't be used.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.core.config.crl_place import shown
from sidecar.core.errors import Diagnostic
from sidecar.core.revocation.crl.index import Crl
from sidecar.core.revocation.denylist import Denylist, read_denylist
from sidecar.core.x509.bundle import Bundle, read_bundle
from sidecar.runtime.crl_worker import CrlReading, CrlWorkers, read_crl_file
from sidecar.runtime.files import (
    MAX_BUNDLE,
    MAX_CRL,
    MAX_DENYLIST,
    crl_place,
    read_file,
    signature,
)

from .last_good import LastGood, beside
from .readings import Outcome, Readings
from .watermarks import Watermarks

LARGE_CRL = 1024 * 1024
"""CRLs from this size on, in octets, are read in a process of their own."""

Key = tuple[Hashable, ...]


class Read(NamedTuple):
    """What a file's octets say, and their SHA-256."""

    value: Any
    digest: str


class Listed(NamedTuple):
    """A denylist's entries, and the lines that aren't any."""

    entries: Denylist
    mistakes: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class GoodCrls:
    """CRLs of one place that are in force, and the authorities that they were verified with.

    `revoking`: those that were refused there, or are of the future, when it could last be read.
    """

    authorities: tuple[bytes, ...]
    crls: tuple[Crl, ...]
    revoking: tuple[Crl, ...] = ()


@dataclass(slots=True)
class TrustSources:
    """The trusts' files and what was last good of each."""

    base: Path
    state_dir: Path
    trusted_only: bool
    marks: Watermarks
    readings: Readings
    last_good: LastGood
    workers: CrlWorkers
    clock: Callable[[], float] = time.time
    good: dict[Key, Any] = field(default_factory=dict)
    backwards: set[Key] = field(default_factory=set)

    def place_of(self, trust: str, crl: str) -> Path:
        """The file of a CRL."""
        return crl_place(self.base, self.state_dir, trust, crl)

    # -- the files as they are

    def bundle(self, path: str) -> Outcome | None:
        """The certificates of a PEM file."""
        place = self.base / path
        return self.readings.ask(("ca", path), place, lambda: self._bundle(place))

    def denylist(self, path: str) -> Outcome | None:
        """The lines of a denylist."""
        place = self.base / path
        return self.readings.ask(("denylist", path), place, lambda: self._denylist(place, place))

    def crls(self, trust: str, place: str, authorities: tuple[bytes, ...]) -> Outcome | None:
        """The CRLs of a place, verified against these authorities."""
        path = self.place_of(trust, place)
        key = ("crl", trust, place, _digest(authorities))
        return self.readings.ask(
            key, path, lambda: self._crls(path, shown(place), authorities, self.trusted_only)
        )

    # -- what an earlier process kept

    def kept_bundle(self, path: str, *, whole: bool) -> Bundle | None:
        """The certificates last in force; unless `whole`, without those that were withdrawn."""
        kept: Bundle | None = self._kept(("ca", path), self._bundle)
        newer = None if whole or kept is None else self._kept(beside(("ca", path)), self._bundle)
        return kept if kept is None or newer is None else without_withdrawn(kept, newer)

    def kept_denylist(self, path: str) -> Denylist | None:
        """All that was denied."""
        named = self.base / path
        found: Listed | None = self._kept(
            ("denylist", path), lambda copy: self._denylist(copy, named)
        )
        return None if found is None else found.entries

    def kept_crls(
        self, trust: str, place: str, authorities: tuple[bytes, ...]
    ) -> list[Sequence[Crl]]:
        """The CRLs last in force, and those of a newer version that wasn't taken whole."""
        key = ("crl", trust, place)
        found = []
        for name in (key, beside(key)):
            copy = self.last_good.copy_of(*name)
            if copy is None:
                continue
            path, digest = copy
            outcome = self.readings.ask(
                ("kept", *name, _digest(authorities)),
                path,
                lambda path=path: self._crls(path, shown(place), authorities, False),  # type: ignore[misc]  # mypy takes the default for an argument
            )
            if outcome and outcome.error is None and outcome.value.digest == digest:
                found.append(outcome.value.found.crls)
        return found

    def _kept(self, key: Key, read: Callable[[Path], Read]) -> Any:
        """What a copy says; None without a sound one."""
        copy = self.last_good.copy_of(*key)
        if copy is None:
            return None
        path, digest = copy
        outcome = self.readings.ask(("kept", *key), path, lambda: read(path))
        if outcome is None or outcome.error is not None or outcome.value.digest != digest:
            return None
        return outcome.value.value

    # -- reading

    def _bundle(self, path: Path) -> Read:
        data = read_file(path, MAX_BUNDLE, trusted_only=self.trusted_only)
        return Read(read_bundle(data), hashlib.sha256(data).hexdigest())

    def _denylist(self, path: Path, named: Path) -> Read:
        data = read_file(path, MAX_DENYLIST, trusted_only=self.trusted_only)
        return Read(Listed(*read_denylist(data, str(named))), hashlib.sha256(data).hexdigest())

    def _crls(
        self, path: Path, source: str, authorities: tuple[bytes, ...], trusted_only: bool
    ) -> CrlReading:
        found = signature(path)
        large = found is not None and LARGE_CRL <= found.size <= MAX_CRL
        read = self.workers.read if large else read_crl_file
        return read(path, source, authorities, trusted_only=trusted_only)


def without_withdrawn(old: Bundle, new: Sequence[object]) -> Bundle:
    """What of a bundle a newer version still has; all of it where nothing is left."""
    listed = {getattr(cert, "sha256", None) for cert in new}
    left = tuple(cert for cert in old if cert.sha256 in listed)
    return Bundle(left, old.remarks) if left else old


def _digest(authorities: tuple[bytes, ...]) -> str:
    """A short name of a set of authorities."""
    return hashlib.sha256(b"".join(hashlib.sha256(der).digest() for der in authorities)).hexdigest()
