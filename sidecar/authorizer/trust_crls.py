"""Collect the CRLs of one trust, verified with one set of authorities: in force, or only revoking.

In force is the newest valid CRL of each scope at each place.  Other CRLs that were last read there
(refused as older, from the future, or in a file with an invalid one) only revoke, until another
version of the file can be read; they never say good.  So does a CRL that was in force and that the
file lacks now, until a newer one follows it; and one of a place that the policy no longer names, if
it names a new one instead.  What an address gave and what only revokes goes on until a newer
one is in force, whatever the address gives then.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.core.config.crl_place import is_address, shown
from sidecar.core.config.schema import Located
from sidecar.core.errors import Diagnostic
from sidecar.core.policy.spec import TrustSpec
from sidecar.core.policy.trust import file_mistake
from sidecar.core.revocation.crl.index import Crl, CrlError
from sidecar.core.revocation.crl.succession import (
    follows,
    is_past,
    omission,
    omitted,
    replaces,
)
from sidecar.runtime.crl_worker import CrlReading
from sidecar.runtime.files import MAX_CRL, revoking_path

from .kept_crls import (
    Pair,
    crls_of,
    distinct,
    formers,
    identity,
    in_force,
    is_equal_to_any,
    joined,
    kept_at,
)
from .last_good import MAX_HELD, InForce, beside, earlier, held
from .readings import Outcome
from .trust_sources import (
    MAX_EARLIER,
    MAX_LAPSED,
    CopyBeingRead,
    CopyUnread,
    GoodCrls,
    Key,
    TrustSources,
)
from .watermarks import place_name

log = logging.getLogger("mtls-sidecar")

MAX_TRUST = MAX_CRL
"""Maximum octets of the CRLs of one trust together."""

MAX_ENTRIES = 8_000_000
"""Maximum entries of the CRLs of one trust together: about 200 MiB of memory.  What earlier
versions of their files had, and what revokes on, has as much room beside."""


@dataclass(slots=True)
class CrlSet:
    """The CRLs of a trust's places.

    `full` are in force; `refused` only revoke.  The set is unusable if a place has no usable CRL
    (`out_of_place`): not yet while it is `pending`, or copies of `unread` places are.  `ahead`:
    moments at which CRLs from the future come into force.
    """

    fits: bool = True
    pending: bool = False
    unread: list[str] = field(default_factory=list)
    full: list[Crl] = field(default_factory=list)
    refused: list[Crl] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problems: list[Diagnostic] = field(default_factory=list)
    out_of_place: list[Located] = field(default_factory=list)
    ahead: list[float] = field(default_factory=list)
    entries: int = 0
    good: dict[Key, Any] = field(default_factory=dict)
    files: dict[Key, InForce] = field(default_factory=dict)


class Lacking(NamedTuple):
    """What a trust in force lacks: the addresses without a usable CRL, as they are shown.

    `authorities` verified its CRLs, `revoking` are those of them that only revoke.
    """

    authorities: tuple[bytes, ...]
    missing: tuple[str, ...]
    revoking: tuple[Crl, ...]


NOTHING = Lacking((), (), ())


class _Lapsed(NamedTuple):
    """What was in force at a place: now (`new`) or `before` no longer, or though its file lacks it.

    The latter is `carried` on.
    """

    place: Located
    new: Sequence[Pair]
    before: Sequence[Pair]
    carried: Sequence[Pair]


class _Beside(NamedTuple):
    """What was refused at an address: `found` in its file now, and `kept` of earlier ones.

    `last`: what revoked there in the last reload.
    """

    place: Located
    last: GoodCrls | None
    found: Sequence[Pair]
    kept: Sequence[Pair]


@dataclass(slots=True)
class CrlPlaces:
    """The places of the CRLs of one trust, in one reload.  `lacking`: by the trust in force."""

    sources: TrustSources
    file: str
    name: str
    spec: TrustSpec
    now: float
    lacking: Lacking = NOTHING

    def verified_with(self, authorities: tuple[bytes, ...]) -> CrlSet:
        """Read the CRLs of all places, verified with these authorities.

        Where what revoked leaves no room for more of a signer, what is new of that signer in a
        file is refused, and nothing goes out of force: whoever writes it must not take anybody off.
        """
        crowded: set[Crowded] = set()
        while True:
            reading = self._read(authorities, crowded)
            if reading.crowding <= crowded:
                return reading.found
            crowded |= reading.crowding

    def _read(self, authorities: tuple[bytes, ...], crowded: set[Crowded]) -> _Reading:
        """Read the CRLs of all places; those of `crowded` signers that are new only revoke."""
        reading = _Reading(self, authorities, crowded)
        with_room = self._with_room()
        places = sorted(self.spec.crl, key=self._turn)
        for place in places:
            if (place, False) in with_room:
                reading.safely(place, partial(reading.take, place))
            else:
                self.sources.watch(self.sources.place_of(self.name, place.text))
                why = f"the CRLs of trust {self.name!r} have more than {MAX_TRUST >> 20} MiB"
                reading.safely(place, partial(reading.fall_back, place, _too_large(why)))
        for place in places:
            if is_address(place.text):
                has_room = (place, True) in with_room
                reading.safely(place, partial(reading.take_revoking, place, has_room))
        reading.take_kept()
        if self.spec.crl:
            reading.safely(self.spec.crl[0], reading.take_former)
        return reading

    def _turn(self, place: Located, *, revoking: bool = False) -> tuple[bool, int]:
        """Return what comes first: files before what the fetcher has brought, then the smallest.

        Whoever signs a huge CRL of his own leaves the others of a trust their room.
        """
        return is_address(place.text), self.octets(place, revoking=revoking)

    def _with_room(self) -> set[tuple[Located, bool]]:
        """Return the places whose file has room, and those whose refused download has (True)."""
        files = [(place, False) for place in self.spec.crl]
        files += [(place, True) for place in self.spec.crl if is_address(place.text)]
        found, room = set(), MAX_TRUST
        for place, revoking in sorted(
            files, key=lambda file: self._turn(file[0], revoking=file[1])
        ):
            room -= self.octets(place, revoking=revoking)
            if room >= 0:
                found.add((place, revoking))
        return found

    def octets(self, place: Located, *, revoking: bool = False) -> int:
        """Return the size of the file of a place, 0 if it has none or is too large."""
        path = self.sources.place_of(self.name, place.text)
        seen = self.sources.readings.version_of(revoking_path(path) if revoking else path)
        return seen.size if seen is not None and seen.size <= MAX_CRL else 0

    @property
    def latest(self) -> float:
        """Return the moment (seconds since the epoch) from which on the future begins."""
        return self.now + self.spec.clock_tolerance

    def is_ahead(self, crl: Crl) -> bool:
        """Return whether a CRL is from the future."""
        return crl.this_update > self.latest


Crowded = tuple[str, bytes]
"""A place, and the key of a signer (SHA-256) whose CRLs are too many or too large there."""

CROWDING = CrlError(
    "refused: what earlier versions of it had revokes on, and leaves this one no room",
    "put the newest CRL of each of their issuers there",
)


def _too_large(why: str) -> CrlError:
    return CrlError(why, "have the CA issue smaller CRLs, or use OCSP")


class _Reading:
    """Read the places of a trust, one after the other, with one set of authorities.

    `crowding` are those of whom so much goes on to revoke at a place that what is new of them is to
    be refused there; that of `crowded` is.
    """

    def __init__(
        self, places: CrlPlaces, authorities: tuple[bytes, ...], crowded: set[Crowded]
    ) -> None:
        self.places, self.authorities = places, authorities
        self.crowded, self.crowding = crowded, set[Crowded]()
        self.sources, self.name = places.sources, places.name
        self.found = CrlSet()
        self.lapsed: list[_Lapsed] = []
        self.unread: dict[Key, list[InForce]] = {}
        self.read: dict[str, list[Pair]] = {}
        self.current: dict[str, list[Crl]] = {}
        self.number = -1  # of `found.full`, of which `current` was made
        self.copies: dict[str, set[str]] = {}
        self.effort = self.sources.efforts[authorities]
        self.formers: dict[str, list[Crl]] | None = None  # by their keys
        self.beside: list[_Beside] = []
        self.size_of = cache(self.sources.last_good.size_of)
        self.kept = Counter[bytes]()  # entries of what its file lacks, by their signers
        self.is_behind = False  # whether a place couldn't be read as it is now

    def safely(self, place: Located, step: Callable[[], None]) -> None:
        """Take a step; if a copy can't be read for now, this set can't be used yet."""
        try:
            step()
        except CopyUnread as error:
            is_missing = self._is_still_missing(place)
            if is_missing or not isinstance(error, CopyBeingRead):
                self.found.problems.append(file_mistake(self.places.file, place, error))
            if is_missing:
                self._leave_missing(place)
                return
            self.found.fits, self.found.pending = False, True
            self.found.unread.append(shown(place.text))

    def take(self, place: Located) -> None:
        """Put the CRLs of a place into force, or else the last good ones of this place."""
        outcome = self.sources.crls(self.name, place.text, self.authorities)
        if outcome is None:
            self.fall_back(place, None)
        elif outcome.error is not None:
            self._unread(place, outcome.error)
        else:
            crls, mistakes = outcome.value.found
            entries = self.found.entries + sum(crl.entry_count for crl in crls)
            if entries > MAX_ENTRIES:
                why = f"the CRLs of trust {self.name!r} have more than {MAX_ENTRIES} entries"
                self.fall_back(place, _too_large(why))
            else:
                self.found.entries = entries
                version = _version(self.sources.place_of(self.name, place.text), outcome.value)
                self._judge(place, crls, mistakes, version, outcome.version)

    def take_revoking(self, place: Located, has_room: bool) -> None:
        """Let refused downloads of an address revoke; they have no other effect.

        While the file can't be read, its last contents stay in effect.
        """
        key = ("revoking", self.name, place.text)
        last = self._known(key)
        found = in_force(last)
        path = revoking_path(self.sources.place_of(self.name, place.text))
        if not has_room:  # what is refused for its size takes no memory
            self.sources.watch(path)
            self._tell_no_room(place)
        else:
            found = self._read_revoking(place, path, found)
        kept = self._kept_revoking(place, last)
        self.beside.append(_Beside(place, last, found, kept))

    def _read_revoking(self, place: Located, path: Path, found: list[Pair]) -> list[Pair]:
        """Return the CRLs of the file of what was refused, else those `found` there last."""
        outcome = self.sources.revoking(self.name, place.text, self.authorities)
        read, error = _contents(outcome)
        if isinstance(error, FileNotFoundError):
            return []
        if error is not None:
            self.found.problems.append(file_mistake(self.places.file, place, error))
            kept = self.sources.kept_crls(self.name, place.text, self.authorities, "revoking")
            if not found and kept.last is not None:
                return [(crl, kept.last.version) for crl in kept.last.crls]
        elif outcome is not None:
            entries = self.found.entries + sum(crl.entry_count for crl in read)
            if entries <= MAX_ENTRIES:
                self.found.entries = entries
                version = _version(path, outcome.value)
                return [(crl, version) for crl in read]
            self._tell_no_room(place)
        return found

    def _tell_no_room(self, place: Located) -> None:
        why = f"a CRL that was refused has no room beside the others of {self.name!r}"
        self.found.problems.append(file_mistake(self.places.file, place, _too_large(why)))

    def _kept_revoking(self, place: Located, last: GoodCrls | None) -> list[Pair]:
        """Return what only revoked at an address, here and, by its copies, in another instance."""
        own = [] if last is None else list(last.lapsed)
        if last is not None:
            copies = self.sources.digests_of(self.name, place.text, "revoking")
            if not copies - {file.digest for file in last.files}:
                return own
        try:
            kept = self.sources.kept_crls(self.name, place.text, self.authorities, "revoking")
        except CopyUnread:
            if last is None:
                raise
            return own
        pairs = [(crl, file.version) for file in kept.earlier for crl in file.crls]
        return [*own, *(pair for pair in pairs if not is_equal_to_any(pair[0], crls_of(own)))]

    def _still_revoking(self, beside: _Beside) -> tuple[list[Pair], list[Pair]]:
        """Return what an address gave and what only revokes, until something newer is in force.

        Whoever gave it may take it away again, and give what was before it.  The first are those
        that only revoked before.
        """
        new = [*self.read.get(beside.place.text, ()), *beside.found]
        kept = beside.kept
        pairs = [*new, *(pair for pair in kept if not is_equal_to_any(pair[0], crls_of(new)))]
        left = [pair for pair in pairs if not self._is_replaced(pair[0])]
        current = [crl for crl, _ in left if not self.places.is_ahead(crl)]
        left = [
            pair
            for pair in left
            if not any(follows(crl, pair[0], effort=self.effort) for crl in current)
        ]
        before = {identity(crl) for crl, _ in kept}
        stay = [pair for pair in left if identity(pair[0]) in before]
        return stay, [pair for pair in left if identity(pair[0]) not in before]

    def _keep_beside(self, beside: _Beside, stay: Sequence[Pair], new: Sequence[Pair]) -> None:
        """Let what an address gave revoke on, as far as there is room for it.

        What comes after as many of one signer pushes nothing out.
        """
        lapsed = list(stay)
        for pair in sorted(new, key=_moment, reverse=True):
            self._count([pair])
            if pair[0].signer_key in self._overfull([*lapsed, pair]):
                self.kept[pair[0].signer_key] -= pair[0].entry_count
            else:
                lapsed.append(pair)
        place, last, found, kept = beside
        if not found and not lapsed:
            return
        key = ("revoking", self.name, place.text)
        self.found.refused += [crl for crl, _ in (*found, *lapsed)]
        crls, versions = tuple(crl for crl, _ in found), tuple(file for _, file in found)
        copies = self.sources.digests_of(self.name, place.text, "revoking")
        seen = [] if last is None else [file for file in last.files if file.digest in copies]
        files = tuple(dict.fromkeys([*seen, *(file for _, file in (*found, *lapsed, *kept))]))
        good = GoodCrls(self.authorities, crls, (), versions, tuple(lapsed), files)
        self.found.good[key] = good
        if versions:
            self.found.files[key] = versions[0]
        parts = dict.fromkeys(sorted((file for _, file in lapsed), key=_digest))
        self.found.files.update({earlier(key, n): file for n, file in enumerate(parts)})

    def _judge(
        self,
        place: Located,
        crls: Sequence[Crl],
        mistakes: Sequence[CrlError],
        version: InForce,
        file_version: object,
    ) -> None:
        key = self._key(place)
        self.read[place.text] = [(crl, version) for crl in crls]
        before = self._before(place, crls, version)
        is_read = not mistakes
        accepted, refused = [], []
        older = {id(crl): why for crl in crls if (why := self._refusal(place, crl, version))}
        sound = [crl for crl in crls if id(crl) not in older]
        known = self._former(place, crls) if before is None else before.crls
        left_out = omitted(crls, known, self.effort)
        for crl in crls:
            why = None if is_past(crl, sound, self.places.latest) else older.get(id(crl))
            back = why or omission(crl, left_out)
            if not back and self._has_no_room(place, crl, before):
                refused.append(crl)
            elif back:
                mistakes = (*mistakes, CrlError(f"refused: {back}", "put the newest CRL there"))
                refused.append(crl)
                self.sources.backwards.add((*key, file_version))
            else:
                accepted.append(crl)
        if any(where == place.text for where, _ in self.crowded):
            mistakes = (*mistakes, CROWDING)
        ahead = [crl for crl in accepted if self.places.is_ahead(crl)]
        if crls:
            self.found.files[beside(key) if mistakes or ahead else key] = version
        if mistakes:
            last = before if is_read else self._older(place)
            self._fall_back_to(
                last, place, mistakes[0], accepted, refused if crls else None, version
            )
            return
        scopes = {crl.key for crl in ahead}
        carried = [pair for pair in in_force(before) if pair[0].key in scopes]
        self._put(place, accepted, before, (), version, _less(carried, accepted, ahead))

    def _has_no_room(self, place: Located, crl: Crl, before: GoodCrls | None) -> bool:
        """Return whether a CRL is new at a place where its signer's are too many already.

        It is not if it follows one there, and all that follow ones there would be few together.
        """
        if (place.text, crl.signer_key) not in self.crowded:
            return False
        known = () if before is None else (*before.crls, *crls_of(before.lapsed))
        is_known = any(each.key == crl.key for each in known)
        is_small = crl.entry_count * MAX_LAPSED <= self._share(MAX_ENTRIES) and self.places.octets(
            place
        ) * MAX_LAPSED <= self._share(MAX_TRUST)
        return not (is_known and is_small)

    def fall_back(self, place: Located, error: BaseException | None) -> None:
        """Use the last good CRLs of a place, of which nothing can be read now."""
        self._fall_back_to(self._older(place), place, error)

    def _fall_back_to(
        self,
        older: GoodCrls | None,
        place: Located,
        error: BaseException | None,
        accepted: Sequence[Crl] = (),
        refused: Sequence[Crl] | None = None,
        version: InForce | None = None,
    ) -> None:
        """Use the last good CRLs of a place, in addition to those that can be read there now.

        `refused` None means that nothing can be read: the CRLs that last only revoked still do.
        """
        self.is_behind = True
        if error is not None:
            self.found.problems.append(file_mistake(self.places.file, place, error))
        if refused is None:
            refused = older.revoking if older else ()
        if older is None or not (older.crls or self._known(self._key(place)) is not None):
            lapsed = older.lapsed if older else ()
            self._only_revoke(place, [*accepted, *refused, *(c for c, _ in lapsed)], version)
            if error is None and self._is_still_missing(place):
                self._leave_missing(place)
                return
            self.found.fits = False
            self.found.pending = self.found.pending or error is None
            self.found.out_of_place.append(place)
            return
        ahead = [crl for crl in accepted if self.places.is_ahead(crl)]
        carried = _less(in_force(older), accepted, ahead)
        self._put(place, accepted, older, refused, version, carried)

    def _is_still_missing(self, place: Located) -> bool:
        """Return whether the trust in force has no CRL of an address, of which one is read now.

        It stays so until that is done: what else revokes doesn't wait for it.
        """
        lacking = self.places.lacking
        return lacking.authorities == self.authorities and shown(place.text) in lacking.missing

    def _leave_missing(self, place: Located) -> None:
        self.found.missing.append(shown(place.text))
        self.found.refused += self.places.lacking.revoking

    def _only_revoke(self, place: Located, crls: Sequence[Crl], version: InForce | None) -> None:
        """Let CRLs of a place without a usable one revoke, and those that revoked there before.

        The latter are those that were in force with other authorities and, without a `version`
        that can be read, those that were read last.
        """
        key = ("unusable", self.name, place.text)
        former: GoodCrls | None = self.sources.good.get(self._key(place))
        last: GoodCrls | None = self.sources.good.get(key)
        before = [] if former is None else [*in_force(former), *former.lapsed]
        before += () if last is None else last.lapsed
        lapsed = [
            pair
            for pair in before
            if not any(replaces(crl, pair[0], effort=self.effort) for crl in crls)
        ]
        if version is None:
            older = [each.revoking for each in (former, last) if each is not None]
            crls = list({id(crl): crl for crl in [*crls, *chain(*older)]}.values())
        if crls or lapsed:
            self.found.refused += [*crls, *(crl for crl, _ in lapsed)]
            self.found.good[key] = GoodCrls((), (), tuple(crls), lapsed=tuple(lapsed))

    def _put(
        self,
        place: Located,
        accepted: Sequence[Crl],
        older: GoodCrls | None,
        refused: Sequence[Crl],
        version: InForce | None,
        carried: Sequence[Pair],
    ) -> None:
        """Put CRLs into force, and older ones that are `carried`; the rest of those only revoke."""
        current = [crl for crl in accepted if not self.places.is_ahead(crl)]
        ahead = [crl for crl in accepted if self.places.is_ahead(crl)]
        found, key = self.found, self._key(place)
        new = [pair for pair in in_force(older) if not _is_in(pair, carried)]
        before = [] if older is None else list(older.lapsed)
        self.lapsed.append(_Lapsed(place, new, before, carried))
        found.full += [*accepted, *(crl for crl, _ in carried)]
        found.refused += refused
        later = [*ahead, *(crl for crl, _ in carried if self.places.is_ahead(crl))]
        found.ahead += [crl.this_update - self.places.spec.clock_tolerance for crl in later]
        versions = [file for _, file in carried]
        if version is not None:
            versions = [*(version for _ in current), *versions]
        if key not in found.files:
            parts = sorted(list(dict.fromkeys(versions))[:MAX_HELD], key=_digest)
            found.files.update({held(key, n): file for n, file in enumerate(parts)})
        others = older.files if older is not None and version is None else [version]
        found.good[key] = GoodCrls(
            self.authorities,
            (*current, *(crl for crl, _ in carried)),
            (*ahead, *refused),
            tuple(versions),
            files=tuple(dict.fromkeys(f for f in (*others, *versions) if f is not None)),
        )

    def take_kept(self) -> None:
        """Let CRLs that their file lacks now revoke, until one in force anywhere replaces them.

        None of them is dropped: where there is no room, the version of the file that lacks them is
        refused.  What revoked before has its room first, at every place.
        """
        beside = [(each, *self._still_revoking(each)) for each in self.beside]
        lapsed = [
            (each, self._not_replaced(each.new), self._not_replaced(each.before))
            for each in self.lapsed
        ]
        for _, stay, _ in beside:
            self._count(stay)
        for each, _, stay in lapsed:
            self._count([*stay, *each.carried])
        for each, left, before in lapsed:
            place, carried = each.place, each.carried
            new = distinct(left, self.places.latest)
            self._count(new)
            every = distinct([*before, *new])
            if new or carried:
                overfull = self._overfull([*every, *carried])
                self.crowding.update((place.text, signer) for signer in overfull)
            self._take_lapsed(place, every)
        for kept, before, new in beside:
            self._keep_beside(kept, before, new)

    def _count(self, pairs: Sequence[Pair]) -> None:
        for crl, _ in pairs:
            self.kept[crl.signer_key] += crl.entry_count

    def _overfull(self, pairs: Sequence[Pair]) -> set[bytes]:
        """Return the signers that have no room for more, where these CRLs of a place are kept.

        Each authority has its share of the trust's room, and more while others leave it.
        """
        number, octets = Counter[bytes](), Counter[bytes]()
        for crl, _ in pairs:
            number[crl.signer_key] += 1
        for signer, digest in {(crl.signer_key, file.digest) for crl, file in pairs}:
            octets[signer] += self.size_of(digest)
        found = set[bytes]()
        limits = (number, MAX_LAPSED), (octets, MAX_TRUST), (self.kept, MAX_ENTRIES)
        for much, limit in limits:
            if much.total() > limit:
                found.update(signer for signer in number if much[signer] > self._share(limit))
        return found

    def _share(self, limit: int) -> int:
        return max(1, limit // len(self.authorities))

    def _not_replaced(self, pairs: Sequence[Pair]) -> list[Pair]:
        return [pair for pair in pairs if not self._is_replaced(pair[0])]

    def _take_lapsed(self, place: Located, lapsed: Sequence[Pair]) -> None:
        key = self._key(place)
        found, good = self.found, self.found.good[key]
        files = dict.fromkeys([*(file for _, file in lapsed), *self._without_copy(key, good)])
        found.refused += [crl for crl, _ in lapsed]
        known = {file.digest: file for file in (*files, *self.unread.get(key, ()))}
        parts = [known[digest] for digest in sorted(known)]  # as in other instances
        if len(parts) > MAX_EARLIER:
            crls = (*good.crls, *crls_of(lapsed))
            self.crowding.update((place.text, crl.signer_key) for crl in crls)
        found.files.update({earlier(key, n): file for n, file in enumerate(parts)})
        every = tuple(dict.fromkeys((*good.files, *files)))
        found.good[key] = replace(good, lapsed=tuple(lapsed), files=every)

    def _without_copy(self, key: Key, good: GoodCrls) -> list[InForce]:
        """Return the files of CRLs in force that are neither the last one nor the one beside it."""
        copy = self.sources.last_good.copy_of(*key)
        known = {
            copy[1] if copy else "",
            *(f.digest for f in map(self.found.files.get, (key, beside(key))) if f),
        }
        return [file for file in good.versions if file.digest not in known]

    def _is_replaced(self, crl: Crl) -> bool:
        """Return whether one in force replaces a CRL: only one of its issuer and scope can."""
        if self.number != len(self.found.full):
            self.number, self.current = len(self.found.full), defaultdict(list)
            for new in self.found.full:
                if not self.places.is_ahead(new):
                    self.current[new.covers].append(new)
        alike = self.current.get(crl.covers, ())
        return any(new is crl for new in alike) or any(
            replaces(new, crl, alike, self.effort) for new in alike
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
            return self._shared(place, good) if good.authorities == self.authorities else None
        return self._kept(place)

    def _before(self, place: Located, crls: Sequence[Crl], version: InForce) -> GoodCrls | None:
        """Return what was in force at a place before this version of its file, if anything.

        Copies are read only if they differ from the file, or if the authorities are others now; and
        at a start with a clock that is behind, when what was in force is from the future.
        """
        good = self._known(self._key(place))
        if good is not None:
            return self._shared(place, good, version.digest)
        copies = self._digests_of(place)
        is_known = not copies - {version.digest} and not any(map(self.places.is_ahead, crls))
        return None if is_known else self._kept(place)

    def _shared(self, place: Located, good: GoodCrls, known: str = "") -> GoodCrls:
        """Return what was in force here, and in another instance: this one may have hung then."""
        seen = {known, *(file.digest for file in good.files)}
        new = self._digests_of(place) - seen
        if not new:
            return good
        try:
            kept = self._kept(place)
        except CopyUnread as unread:
            if not isinstance(unread, CopyBeingRead):
                self.found.problems.append(file_mistake(self.places.file, place, unread))
            path_of = self.sources.last_good.path_of
            self.unread[self._key(place)] = [InForce(path_of(each), each) for each in new]
            return good
        return good if kept is None else joined(good, kept)

    def _former(self, place: Located, crls: Sequence[Crl]) -> list[Crl]:
        """Return what was in force at former places, for one that the policy names anew.

        Only what has the issuer and scope of one of its CRLs can be compared with these.
        """
        sources = self.sources
        is_known = self._key(place) in sources.good or self._digests_of(place)
        if is_known or not sources.former:
            return []
        if self.formers is None:
            self.formers = defaultdict(list)
            for _, good in formers(sources, self.authorities):
                for crl in (*good.crls, *(c for c, _ in good.lapsed)):
                    self.formers[crl.key].append(crl)
        keys = dict.fromkeys(crl.key for crl in crls)
        return [crl for key in keys for crl in self.formers.get(key, ())]

    def _refusal(self, place: Located, crl: Crl, version: InForce) -> str | None:
        """Explain why a CRL is older than one that was in force.

        Of a version that was in force at this very place, other places' watermarks say nothing.
        """
        was_in_force = version.digest in self._digests_of(place)
        name = place_name(self.name, place.text)
        marks = self.sources.marks
        return marks.refuses(crl, self.places.latest, name, former=not was_in_force)

    def _kept(self, place: Located) -> GoodCrls | None:
        latest, asked = self.places.latest, self.authorities
        return kept_at(self.sources, self.name, place.text, asked, latest, self.effort)

    def take_former(self) -> None:
        """Let CRLs of former places revoke, until others replace them.

        They do if a place is new.  If none is, they do while one isn't read as it is now, which may
        have what these had.
        """
        is_new = any(map(self._is_new, self.places.spec.crl))
        for key, good in formers(self.sources, self.authorities):
            kind = "former" if is_new or key[0] == "former" else "removed"
            left = [crl for crl in good.all if not self._is_replaced(crl)]
            if left and (kind == "former" or self.is_behind):
                self.found.refused += left
                name = key if key[0] == kind else (kind, *key)
                self.found.good[name] = good
                self.found.files.update({(kind, file.digest): file for file in good.files})

    def _known(self, key: Key) -> GoodCrls | None:
        """Return what this process had in force, if it was verified with these authorities."""
        good: GoodCrls | None = self.sources.good.get(key)
        return good if good is not None and good.authorities == self.authorities else None

    def _is_new(self, place: Located) -> bool:
        """Return whether no CRL has been in force at a place yet."""
        return self._key(place) not in self.sources.good and not self._digests_of(place)

    def _key(self, place: Located) -> Key:
        return ("crl", self.name, place.text)

    def _digests_of(self, place: Located) -> set[str]:
        """Return the copies of a place, looked up once: each has two dozen names."""
        if place.text not in self.copies:
            self.copies[place.text] = self.sources.digests_of(self.name, place.text)
        return self.copies[place.text]


def _contents(outcome: Outcome | None) -> tuple[Sequence[Crl], BaseException | None]:
    """Return the CRLs of a file, and an error if nothing can be read."""
    if outcome is None or outcome.error is not None:
        return (), None if outcome is None else outcome.error
    crls, mistakes = outcome.value.found
    return crls, mistakes[0] if mistakes and not crls else None


def _version(path: Path, reading: CrlReading) -> InForce:
    """Return a file that was read, with its octets: it may be another one when it is copied."""
    return InForce(path, reading.digest, reading.octets)


def _digest(file: InForce) -> str:
    return file.digest


def _less(pairs: Sequence[Pair], accepted: Sequence[Crl], ahead: Sequence[Crl]) -> list[Pair]:
    """Leave out the CRLs of each scope that has an accepted one now."""
    later = {id(crl) for crl in ahead}
    scopes = {crl.key for crl in accepted if id(crl) not in later}
    return [pair for pair in pairs if pair[0].key not in scopes]


def _moment(pair: Pair) -> float:
    return pair[0].this_update


def _is_in(pair: Pair, pairs: Sequence[Pair]) -> bool:
    return any(pair[0] is crl for crl, _ in pairs)
