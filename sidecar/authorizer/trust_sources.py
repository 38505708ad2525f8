"""Read the files of trusts, and remember the last good content of each.

Each version of a file is read once (`Readings`).  A copy of an earlier process is read only if the
current file can't be used.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.core.config.crl_place import is_address, shown
from sidecar.core.errors import Diagnostic
from sidecar.core.revocation.crl.index import Crl
from sidecar.core.revocation.crl.parse import issuers
from sidecar.core.revocation.crl.succession import Effort
from sidecar.core.revocation.denylist import Denylist, DenylistReader
from sidecar.core.x509.bundle import Bundle, read_bundle
from sidecar.core.x509.certificate import from_der
from sidecar.core.x509.der import comparable_name
from sidecar.runtime.crl_worker import HERE, MAX_OCTETS, CrlReading
from sidecar.runtime.files import (
    MAX_BUNDLE,
    MAX_DENYLIST,
    crl_place,
    may_pass,
    read_file,
    revoking_path,
)

from .lanes import CrlReaders
from .last_good import CRL_KINDS, MAX_HELD, InForce, LastGood, beside, earlier, held
from .readings import Outcome, Readings
from .watermarks import Watermarks

MAX_LAPSED = 64
"""Maximum number of CRLs of a place that earlier versions of its file had, and this one lacks: as
many as a file may have."""

MAX_EARLIER = 2 * MAX_LAPSED
"""Maximum number of earlier versions of a place's file, of which something is in force."""

Key = tuple[Hashable, ...]


class FileReading(NamedTuple):
    """The parsed content of a file, and the SHA-256 of its octets."""

    value: Any
    digest: str


class DenylistReading(NamedTuple):
    """A denylist's entries, and the mistakes of its invalid lines."""

    entries: Denylist
    mistakes: tuple[Diagnostic, ...]


class CopyUnread(OSError):
    """A copy can't be read for now: what it revokes is not known."""


class CopyBeingRead(CopyUnread):
    """A copy is being read, without a mistake so far."""


class KeptFile(NamedTuple):
    """The CRLs of a copy."""

    crls: Sequence[Crl]
    version: InForce


class KeptCrls(NamedTuple):
    """The copies of a place's CRLs: of the version last in force, and of others.

    `beside`: a newer version, of which some or all CRLs were refused, or are from the future.
    `earlier`: versions with CRLs that the last one lacks.  `held`: newer versions of which a part
    is in force.
    """

    last: KeptFile | None
    beside: KeptFile | None
    earlier: Sequence[KeptFile]
    held: Sequence[KeptFile] = ()


@dataclass(frozen=True, slots=True)
class GoodCrls:
    """CRLs of one place that are in force, and the authorities that verified them.

    `revoking`: CRLs of the last readable version that were refused, or are from the future.
    `lapsed`: CRLs that only revoke, since the file lacks them and has none that follow them.
    `versions`: the file of each of `crls`; `files`: the files of all CRLs.
    """

    authorities: tuple[bytes, ...]
    crls: tuple[Crl, ...]
    revoking: tuple[Crl, ...] = ()
    versions: tuple[InForce, ...] = ()
    lapsed: tuple[tuple[Crl, InForce], ...] = ()
    files: tuple[InForce, ...] = ()

    @property
    def all(self) -> tuple[Crl, ...]:
        """All of them: what revokes."""
        return (*self.crls, *self.revoking, *(crl for crl, _ in self.lapsed))


@dataclass(slots=True)
class TrustSources:
    """Read the trusts' files, and keep the last good content of each.

    What the fetcher has brought is parsed by workers of its own (`fetched`), and so are `copies`:
    whatever it puts there, or put there before, holds up no other CRL.

    `efforts` are those of one reload, by the authorities that verify what is compared: a CA with
    many trusts has no more, and takes none of another CA's.
    """

    base: Path
    state_dir: Path
    trusted_only: bool
    marks: Watermarks
    readings: Readings
    last_good: LastGood
    workers: CrlReaders
    clock: Callable[[], float] = time.time
    fetched: CrlReaders = field(default_factory=CrlReaders)
    copies: CrlReaders = field(default_factory=CrlReaders)
    good: dict[Key, Any] = field(default_factory=dict)
    former: dict[Key, GoodCrls | None] = field(default_factory=dict)
    _formers: dict[bytes | None, list[tuple[int, Key]]] | None = None
    backwards: set[Key] = field(default_factory=set)
    readers: dict[str, DenylistReader] = field(default_factory=dict)
    efforts: defaultdict[tuple[bytes, ...], Effort] = field(
        default_factory=partial(defaultdict, Effort)
    )

    def look_for_former(self, named: set[Key]) -> None:
        """Find the CRLs last in force at places that the policy no longer names.

        At the start, these are copies, which an earlier process kept under other names: None.  So
        are those of another instance that this one never read.  A key of the kind "former" was
        found before and is still in effect.
        """
        found = {k: v for k, v in self.good.items() if k[0] in CRL_KINDS and k not in named}
        keys = [each for key in named for each in (key, beside(key), *_held(key), *_earlier(key))]
        crls = (each for each in self.good.values() if isinstance(each, GoodCrls))
        known = {file.digest for each in crls for file in each.files}
        copies = (digest for digest in self.last_good.unnamed(keys) if digest not in known)
        self.former = {**found, **{self._former_key(digest): None for digest in copies}}
        self._formers = None

    def formers_of(self, authorities: tuple[bytes, ...]) -> list[Key]:
        """Return the keys of `former` that may have a CRL which these authorities verify.

        Each trust reads its own ones alone, though hundreds of places get other names at once.
        """
        if self._formers is None:
            self._formers = {}
            for number, (key, good) in enumerate(self.former.items()):
                for issuer in self._issuers_of(str(key[-1]), good):
                    self._formers.setdefault(issuer, []).append((number, key))
        names = (None, *_subjects(authorities))
        found = {each for name in names for each in self._formers.get(name, ())}
        return [key for _, key in sorted(found, key=lambda each: each[0])]

    def _issuers_of(self, digest: str, good: GoodCrls | None) -> Iterable[bytes | None]:
        """Return who issued CRLs of a former place; None is anybody, where that isn't known."""
        if good is not None:
            return {crl.issuer for crl in good.all}
        path = self.last_good.path_of(digest)
        asked = self.readings.ask(
            ("issuers", digest),
            path,
            lambda: issuers(read_file(path, HERE)),
            is_whole=True,
            readers=self.copies,
        )
        return [None] if asked is None or asked.error is not None else asked.value

    def _former_key(self, digest: str) -> Key:
        key = ("former", digest)
        return key if self.last_good.copy_of(*key) else ("crl", "", digest)

    def place_of(self, trust: str, crl: str) -> Path:
        """Return the file of a CRL."""
        return crl_place(self.base, self.state_dir, trust, crl)

    # -- the files as they are

    def bundle(self, path: str) -> Outcome | None:
        """Read the certificates of a PEM file."""
        place = self.base / path
        return self.readings.ask(("ca", path), place, lambda: self._bundle(place))

    def denylist(self, path: str) -> Outcome | None:
        """Read the lines of a denylist."""
        place = self.base / path
        reader = self.readers.setdefault(path, DenylistReader(str(place)))
        return self.readings.ask(("denylist", path), place, lambda: self._denylist(place, reader))

    def keep_readers(self, named: set[str]) -> None:
        """Forget the lines of denylists that no trust names any more."""
        self.readers = {path: each for path, each in self.readers.items() if path in named}

    def crls(self, trust: str, place: str, authorities: tuple[bytes, ...]) -> Outcome | None:
        """Read the CRLs of a place, verified with these authorities."""
        path = self.place_of(trust, place)
        key = ("crl", trust, place, _digest(authorities))
        # Whoever could replace what was fetched could not sign it.
        trusted_only = self.trusted_only and not is_address(place)
        readers = self.fetched if is_address(place) else self.workers
        return self.readings.ask(
            key,
            path,
            lambda: self._crls(readers, path, shown(place), authorities, trusted_only),
            is_fetched=is_address(place),
            readers=readers,
            owner=authorities,
        )

    def revoking(self, trust: str, place: str, authorities: tuple[bytes, ...]) -> Outcome | None:
        """What came last from an address and was refused there."""
        path = revoking_path(self.place_of(trust, place))
        key = ("revoking", trust, place, _digest(authorities))
        return self.readings.ask(
            key,
            path,
            lambda: self._crls(self.fetched, path, shown(place), authorities, False),
            is_fetched=True,
            readers=self.fetched,
            owner=authorities,
        )

    def watch(self, path: Path) -> None:
        """Look again when a file changes, of which nothing is read now."""
        self.readings.ask(("watched", path), path, lambda: None, is_news=False, is_whole=True)

    # -- copies of an earlier process

    def look_at_others(self) -> None:
        """Take over the copies and watermarks of other instances, and watch for more."""
        copies, marks = self.last_good, self.marks
        looks = {("copies",): (copies.manifest, copies.look_again)}
        if marks.path is not None:
            looks["marks",] = marks.path, marks.look_again
        for key, (path, look) in looks.items():
            self.readings.ask(key, path, look, is_news=False, is_whole=True)

    def kept_bundle(self, path: str, *, whole: bool) -> Bundle | None:
        """Return the certificates last in force; unless `whole`, without removed ones."""
        kept: Bundle | None = self._kept(("ca", path), self._bundle)
        newer = None if whole or kept is None else self._kept(beside(("ca", path)), self._bundle)
        return kept if kept is None or newer is None else without_withdrawn(kept, newer)

    def kept_denylist(self, path: str) -> Denylist | None:
        """Return the denylist entries last in force here or in another instance."""
        reader = DenylistReader(str(self.base / path))
        found: DenylistReading | None = self._kept(
            ("denylist", path), lambda copy: self._denylist(copy, reader)
        )
        return None if found is None else found.entries

    def digests_of(self, trust: str, place: str, kind: str = "crl") -> set[str]:
        """Return the SHA-256 of each copy of a place's CRLs that were in force, or only revoked."""
        key = (kind, trust, place)
        names = (key, *_held(key), *_earlier(key))
        return {copy[1] for name in names if (copy := self.last_good.copy_of(*name))}

    def kept_crls(
        self, trust: str, place: str, authorities: tuple[bytes, ...], kind: str = "crl"
    ) -> KeptCrls:
        """Return the CRLs last in force, and those of a newer version that was partly refused."""
        key, source = (kind, trust, place), shown(place)

        def read(*names: Key) -> list[KeptFile]:
            files = (self._kept_file(name, source, authorities) for name in names)
            return [file for file in files if file is not None]

        return KeptCrls(
            self._kept_file(key, source, authorities),
            self._kept_file(beside(key), source, authorities),
            read(*_earlier(key)),
            read(*_held(key)),
        )

    def former_crls(self, digest: str, authorities: tuple[bytes, ...]) -> KeptFile | None:
        """Return the CRLs of a copy whose place the policy no longer names."""
        copy = self.last_good.path_of(digest)
        return self._read_kept(("former", digest), copy, digest, "of a former address", authorities)

    def _kept_file(self, name: Key, source: str, authorities: tuple[bytes, ...]) -> KeptFile | None:
        copy = self.last_good.copy_of(*name)
        return None if copy is None else self._read_kept(name, *copy, source, authorities)

    def _read_kept(
        self, name: Key, path: Path, digest: str, source: str, authorities: tuple[bytes, ...]
    ) -> KeptFile | None:
        asked = self.readings.ask(
            ("kept", *name, _digest(authorities)),
            path,
            lambda: self.copies.read_file(path, source, authorities, trusted_only=False),
            is_whole=True,
            readers=self.copies,
            owner=authorities,
        )
        outcome = _known(asked, path)
        if outcome.error is not None or outcome.value.digest != digest:
            return None
        return KeptFile(outcome.value.found.crls, InForce(path, digest))

    def _kept(self, key: Key, read: Callable[[Path], FileReading]) -> Any:
        """Return the content of a copy, or None if there is no valid one.  Raises `CopyUnread`."""
        copy = self.last_good.copy_of(*key)
        if copy is None:
            return None
        path, digest = copy
        asked = self.readings.ask(("kept", *key), path, lambda: read(path), is_whole=True)
        outcome = _known(asked, path)
        if outcome.error is not None or outcome.value.digest != digest:
            return None
        return outcome.value.value

    # -- reading

    def _bundle(self, path: Path) -> FileReading:
        data = read_file(path, MAX_BUNDLE, trusted_only=self.trusted_only)
        return FileReading(read_bundle(data), hashlib.sha256(data).hexdigest())

    def _crls(
        self,
        workers: CrlReaders,
        path: Path,
        source: str,
        authorities: tuple[bytes, ...],
        trusted_only: bool,
    ) -> CrlReading:
        """Read a file of CRLs; a large one's octets are held until it is copied."""
        reading = workers.read_file(
            path, source, authorities, trusted_only=trusted_only, to_keep=True
        )
        if reading.octets is None or len(reading.octets) <= MAX_OCTETS:
            return reading
        self.last_good.lend(reading.digest, reading.octets)
        return reading._replace(octets=None)

    def _denylist(self, path: Path, reader: DenylistReader) -> FileReading:
        data = read_file(path, MAX_DENYLIST, trusted_only=self.trusted_only)
        found = DenylistReading(*reader.read(data))
        return FileReading(found, hashlib.sha256(data).hexdigest())


def _known(outcome: Outcome | None, path: Path) -> Outcome:
    """Return an outcome that stays.  Raises `CopyUnread` if there is none yet."""
    if outcome is None:
        raise CopyBeingRead(errno.EAGAIN, "its last good copy is still being read", str(path))
    if may_pass(outcome.error):
        why = getattr(outcome.error, "strerror", None) or type(outcome.error).__name__
        raise CopyUnread(errno.EAGAIN, f"its last good copy can't be read now: {why}", str(path))
    return outcome


def _held(key: Key) -> list[Key]:
    return [held(key, number) for number in range(MAX_HELD)]


def _earlier(key: Key) -> list[Key]:
    return [earlier(key, number) for number in range(MAX_EARLIER)]


def without_withdrawn(old: Bundle, new: Sequence[object]) -> Bundle:
    """Return the certificates that a newer bundle still has; all if none would remain."""
    listed = {getattr(cert, "sha256", None) for cert in new}
    left = tuple(cert for cert in old if cert.sha256 in listed)
    return Bundle(left, old.remarks) if left else old


@lru_cache(maxsize=1024)
def _subjects(authorities: tuple[bytes, ...]) -> frozenset[bytes]:
    """Return the comparable names of authorities."""
    found = set()
    for der in authorities:
        with contextlib.suppress(ValueError):
            found.add(comparable_name(from_der(der).subject_name))
    return frozenset(found)


@lru_cache(maxsize=64)
def _digest(authorities: tuple[bytes, ...]) -> str:
    """Return a short identifier of a set of authorities."""
    return hashlib.sha256(b"".join(hashlib.sha256(der).digest() for der in authorities)).hexdigest()
