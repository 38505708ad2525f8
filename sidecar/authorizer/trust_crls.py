"""Collect the CRLs of one trust, verified with one set of authorities: in force, or only revoking.

In force is the newest valid CRL of each scope at each place.  Other CRLs that were last read there
(refused as older, from the future, or in a file with an invalid one) only revoke, until another
version of the file can be read; they never say good.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.core.config.crl_place import is_address, shown
from sidecar.core.config.schema import Located
from sidecar.core.errors import Diagnostic
from sidecar.core.policy.spec import TrustSpec
from sidecar.core.policy.trust import file_mistake
from sidecar.core.revocation.crl.index import Crl, CrlError, scope_key, supersedes
from sidecar.runtime.files import MAX_CRL, revoking_path

from .last_good import InForce, beside
from .trust_sources import GoodCrls, Key, TrustSources

MAX_TRUST = MAX_CRL
"""Maximum octets of the CRLs of one trust together."""

MAX_ENTRIES = 8_000_000
"""Maximum entries of the CRLs of one trust together: about 200 MiB of memory."""


@dataclass(slots=True)
class CrlSet:
    """The CRLs of a trust's places.

    `full` are in force; `refused` only revoke.  The set is unusable if a place has no usable CRL
    (`out_of_place`).  `ahead`: moments at which CRLs from the future come into force.
    """

    fits: bool = True
    pending: bool = False
    full: list[Crl] = field(default_factory=list)
    refused: list[Crl] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problems: list[Diagnostic] = field(default_factory=list)
    out_of_place: list[Located] = field(default_factory=list)
    ahead: list[float] = field(default_factory=list)
    entries: int = 0
    good: dict[Key, Any] = field(default_factory=dict)
    files: dict[Key, InForce] = field(default_factory=dict)


@dataclass(slots=True)
class CrlPlaces:
    """The places of the CRLs of one trust, in one reload."""

    sources: TrustSources
    file: str
    name: str
    spec: TrustSpec
    now: float

    def verified_with(self, authorities: tuple[bytes, ...]) -> CrlSet:
        """Read the CRLs of all places, verified with these authorities."""
        reading = _Reading(self, authorities)
        room = MAX_TRUST
        for place in self.spec.crl:
            room -= self._size(place)
            if room < 0:
                why = f"the CRLs of trust {self.name!r} have more than {MAX_TRUST >> 20} MiB"
                reading.fall_back(place, _too_large(why))
            else:
                reading.take(place)
        for place in self.spec.crl:
            if is_address(place.text):
                room -= self._size(place, revoking=True)
                reading.take_revoking(place, room)
        return reading.found

    def _size(self, place: Located, *, revoking: bool = False) -> int:
        path = self.sources.place_of(self.name, place.text)
        seen = self.sources.readings.file_versions.at(revoking_path(path) if revoking else path)
        return seen.size if seen is not None and seen.size <= MAX_CRL else 0

    def is_ahead(self, crl: Crl) -> bool:
        """Return whether a CRL is from the future."""
        return crl.this_update > self.now + self.spec.clock_tolerance


def _too_large(why: str) -> CrlError:
    return CrlError(why, "have the CA issue smaller CRLs, or use OCSP")


class _Reading:
    """Read the places of a trust, one after the other, with one set of authorities."""

    def __init__(self, places: CrlPlaces, authorities: tuple[bytes, ...]) -> None:
        self.places, self.authorities = places, authorities
        self.sources, self.name = places.sources, places.name
        self.found = CrlSet()

    def take(self, place: Located) -> None:
        """Put the CRLs of a place into force, or else the last good ones of this place."""
        outcome = self.sources.crls(self.name, place.text, self.authorities)
        if outcome is None:
            self.fall_back(place, None)
        elif outcome.error is not None:
            self._unread(place, outcome.error)
        else:
            crls, mistakes = outcome.value.found
            self.found.entries += sum(crl.entry_count for crl in crls)
            if self.found.entries > MAX_ENTRIES:
                why = f"the CRLs of trust {self.name!r} have more than {MAX_ENTRIES} entries"
                self.fall_back(place, _too_large(why))
            else:
                version = InForce(
                    self.sources.place_of(self.name, place.text), outcome.value.digest
                )
                self._judge(place, crls, mistakes, version, outcome.version)

    def take_revoking(self, place: Located, room: int) -> None:
        """Let the last refused download of an address revoke; it has no other effect.

        While the file can't be read, its last contents stay in effect.  `room`: remaining octets.
        """
        key = ("revoking", self.name, place.text)
        last: GoodCrls | None = self.sources.good.get(key)
        found = last.crls if last is not None and last.authorities == self.authorities else ()
        outcome = self.sources.revoking(self.name, place.text, self.authorities)
        path = revoking_path(self.sources.place_of(self.name, place.text))
        if outcome is not None and outcome.error is None:
            read = outcome.value.found.crls
            entries = self.found.entries + sum(crl.entry_count for crl in read)
            if room >= 0 and entries <= MAX_ENTRIES:
                found, self.found.entries = read, entries
                self.found.files[key] = InForce(path, outcome.value.digest)
            else:
                why = f"a CRL that was refused has no room beside the others of {self.name!r}"
                self.found.problems.append(file_mistake(self.places.file, place, _too_large(why)))
        elif outcome is not None and isinstance(outcome.error, FileNotFoundError):
            found = ()
        elif outcome is not None and outcome.error is not None:
            self.found.problems.append(file_mistake(self.places.file, place, outcome.error))
            kept = self.sources.kept_crls(self.name, place.text, self.authorities, "revoking")
            found = found or tuple(crl for version in kept for crl in version)
        if found:
            self.found.refused += found
            self.found.good[key] = GoodCrls(self.authorities, found)

    def _judge(
        self,
        place: Located,
        crls: Sequence[Crl],
        mistakes: Sequence[CrlError],
        version: InForce,
        file_version: object,
    ) -> None:
        key = self._key(place)
        accepted, refused = [], []
        for crl in crls:
            back = self.sources.marks.refuses(crl)
            if back:
                mistakes = (*mistakes, CrlError(f"refused: {back}", "put the newest CRL there"))
                refused.append(crl)
                self.sources.backwards.add((*key, file_version))
            else:
                accepted.append(crl)
        ahead = [crl for crl in accepted if self.places.is_ahead(crl)]
        if crls:
            self.found.files[beside(key) if mistakes or ahead else key] = version
        if mistakes:
            self.fall_back(place, mistakes[0], accepted, refused if crls else None)
            return
        older = self._older(place) if ahead else None
        scopes = {scope_key(crl) for crl in ahead}
        carried = [crl for crl in older.crls if scope_key(crl) in scopes] if older else []
        self._put(place, accepted, carried, ())

    def fall_back(
        self,
        place: Located,
        error: BaseException | None,
        accepted: Sequence[Crl] = (),
        refused: Sequence[Crl] | None = None,
    ) -> None:
        """Use the last good CRLs of a place, in addition to those that can be read there now.

        `refused` None means that nothing can be read: the CRLs that last only revoked still do.
        """
        older = self._older(place)
        if error is not None:
            self.found.problems.append(file_mistake(self.places.file, place, error))
        if refused is None:
            refused = older.revoking if older else ()
        if older is None or not (older.crls or self._key(place) in self.sources.good):
            self.found.fits = False
            self.found.pending = self.found.pending or error is None
            self.found.out_of_place.append(place)
            self.found.refused += [*accepted, *refused]
            return
        self._put(place, accepted, older.crls, refused)

    def _put(
        self,
        place: Located,
        accepted: Sequence[Crl],
        older: Sequence[Crl],
        refused: Sequence[Crl],
    ) -> None:
        """Put CRLs into force; use an older one only if its scope has no newer one."""
        in_force = [crl for crl in accepted if not self.places.is_ahead(crl)]
        ahead = [crl for crl in accepted if self.places.is_ahead(crl)]
        newer = {scope_key(crl) for crl in in_force}
        carried = [crl for crl in older if scope_key(crl) not in newer]
        found = self.found
        found.full += [*accepted, *carried]
        found.refused += refused
        found.ahead += [crl.this_update - self.places.spec.clock_tolerance for crl in ahead]
        found.good[self._key(place)] = GoodCrls(
            self.authorities, (*in_force, *carried), (*ahead, *refused)
        )

    def _unread(self, place: Located, error: BaseException) -> None:
        """Report a missing file or download, or an address from which nothing was fetched yet."""
        if isinstance(error, FileNotFoundError) and is_address(place.text):
            if self._older(place) is None and self._key(place) not in self.sources.good:
                self.found.missing.append(shown(place.text))
                return
            why = "what was fetched is gone; restart mtls-sidecar-fetch"
            error = FileNotFoundError(errno.ENOENT, why, error.filename)
        self.fall_back(place, error)

    def _older(self, place: Located) -> GoodCrls | None:
        """Return the CRLs last in force at a place, if these authorities verify them."""
        good: GoodCrls | None = self.sources.good.get(self._key(place))
        if good is not None:
            return good if good.authorities == self.authorities else None
        kept = self.sources.kept_crls(self.name, place.text, self.authorities)
        marks = self.sources.marks
        newest: dict[str, Crl] = {}
        revoking: list[Crl] = []
        for crl in (crl for version in kept for crl in version):
            last = newest.get(scope_key(crl))
            is_older = last is not None and not supersedes(crl, last)
            if marks.refuses(crl) or self.places.is_ahead(crl) or is_older:
                revoking.append(crl)
            else:
                newest[scope_key(crl)] = crl
        if not newest and not revoking:
            return None
        return GoodCrls(self.authorities, tuple(newest.values()), tuple(revoking))

    def _key(self, place: Located) -> Key:
        return ("crl", self.name, place.text)
