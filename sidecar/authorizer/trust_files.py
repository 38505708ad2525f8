"""What each trust of a policy is made of: the files that can be used now, and else the last good.

Each file is a source of its own with a last good value.  Certificates and CRLs of one trust go
together: where a new CA file doesn't fit the CRLs at hand, that trust keeps its last good
certificates and CRLs, while the other trusts move on.  Denylists, and whatever a verified CRL
lists, take effect at once and always: also lines beside a broken one, and CRLs that are refused
as going backwards or as not fitting.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.core.config.schema import DatedWarning, Located, Report
from sidecar.core.errors import Diagnostic, brief
from sidecar.core.policy.compile import Draft
from sidecar.core.policy.lockouts import warn_about_lockouts
from sidecar.core.policy.spec import TrustSpec, is_address, shown
from sidecar.core.policy.trust import (
    Trust,
    at_node,
    build_trust,
    bundle_remarks,
    file_mistake,
    unusable_crls,
)
from sidecar.core.revocation.crl.index import Crl, CrlError, scope_key
from sidecar.core.revocation.denylist import Denylist, joined, read_denylist
from sidecar.core.x509.bundle import Bundle, read_bundle
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.path_building import Anchors
from sidecar.runtime.crl_worker import CrlReading, CrlWorkers, read_crl_file
from sidecar.runtime.files import (
    MAX_BUNDLE,
    MAX_CRL,
    MAX_DENYLIST,
    crl_place,
    read_file,
    signature,
)

from .last_good import InForce, LastGood
from .readings import Outcome, Readings
from .watermarks import Watermarks

log = logging.getLogger("mtls-sidecar")

LARGE_CRL = 1024 * 1024
"""CRLs from this size on, in octets, are read in a process of their own."""

MAX_TRUST = MAX_CRL
"""Most octets that the CRLs of one trust may have together."""

MAX_ENTRIES = 8_000_000
"""Most entries of the CRLs of one trust together: about 200 MiB of memory."""

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
    """CRLs of one place that are in force, and the authorities that they were verified with."""

    authorities: tuple[bytes, ...]
    crls: tuple[Crl, ...]


class Issuers(NamedTuple):
    """A trust's authorities; `certs` tell one set from another: SHA-256 of anchors and others."""

    anchors: Anchors
    certs: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Made:
    """What a trust in force was made of."""

    names: tuple[tuple[str, ...], ...]
    issuers: Issuers
    trust: Trust
    parts: tuple[object, ...]


@dataclass(slots=True)
class Resolved:
    """What became of one trust.  Without a `trust` it can't be built, now or yet (`pending`)."""

    trust: Trust | None = None
    problems: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    dated: list[DatedWarning] = field(default_factory=list)
    pending: bool = False
    made: Made | None = None
    good: dict[Key, Any] = field(default_factory=dict)
    in_force: list[Crl] = field(default_factory=list)
    ahead: list[float] = field(default_factory=list)
    files: dict[Key, InForce] = field(default_factory=dict)


@dataclass(slots=True)
class TrustFiles:
    """The trusts' files, what was last good of each, and what each trust in force is made of."""

    base: Path
    state_dir: Path
    trusted_only: bool
    marks: Watermarks
    readings: Readings
    last_good: LastGood
    workers: CrlWorkers
    clock: Callable[[], float] = time.time
    good: dict[Key, Any] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)
    backwards: set[Key] = field(default_factory=set)

    def resolve(self, draft: Draft) -> dict[str, Resolved]:
        """Every trust of a policy, of the files as they are now."""
        self.backwards = set()
        return {
            name: self._resolve(draft.file, name, spec) for name, spec in draft.spec.trust.items()
        }

    def _resolve(self, file: str, name: str, spec: TrustSpec) -> Resolved:
        """One trust; whatever a mistake of our own raises there is no other trust's business."""
        resolver = _Resolver(self, file, name, spec)
        try:
            return resolver.resolve()
        except Exception as error:
            log.exception("trust %s can't be built of its files", name)
            return resolver.stay(error)

    def commit(self, resolved: Mapping[str, Resolved]) -> None:
        """Take what came into force as last good; what no policy names any more is forgotten."""
        self.good, made = {}, {}
        for name, each in resolved.items():
            self.good.update(each.good)
            self.marks.note(each.in_force)
            if each.made is not None:
                made[name] = each.made
        self.made = made

    # -- reading one file

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
        path = crl_place(self.base, self.state_dir, trust, place)
        key = ("crl", trust, place, _digest(authorities))
        return self.readings.ask(
            key, path, lambda: self._crls(path, shown(place), authorities, self.trusted_only)
        )

    def kept(self, key: Key, authorities: tuple[bytes, ...] = ()) -> Any:
        """The copy of a last good file, kept by an earlier process; None without a sound one."""
        copy = self.last_good.copy_of(*key)
        if copy is None:
            return None
        path, digest = copy
        if key[0] == "ca":
            outcome = self.readings.ask(("kept", *key), path, lambda: self._bundle(path))
        elif key[0] == "denylist":
            place = self.base / str(key[1])
            outcome = self.readings.ask(("kept", *key), path, lambda: self._denylist(path, place))
        else:
            source = shown(str(key[2]))
            outcome = self.readings.ask(
                ("kept", *key, _digest(authorities)),
                path,
                lambda: self._crls(path, source, authorities, False),
            )
        if outcome is None or outcome.error is not None or outcome.value.digest != digest:
            return None
        return outcome.value

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


@dataclass(slots=True)
class _CrlSet:
    """The CRLs of a trust's places against one set of authorities.

    They don't fit where a place has none that can be used (`out_of_place`).
    """

    fits: bool = True
    pending: bool = False
    full: list[Crl] = field(default_factory=list)
    refused: list[Crl] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    problems: list[Diagnostic] = field(default_factory=list)
    out_of_place: list[Located] = field(default_factory=list)
    entries: int = 0
    good: dict[Key, Any] = field(default_factory=dict)
    files: dict[Key, InForce] = field(default_factory=dict)


class _Resolver:
    """One trust, once."""

    def __init__(self, files: TrustFiles, file: str, name: str, spec: TrustSpec) -> None:
        self.files, self.file, self.name, self.spec = files, file, name, spec
        self.found = Resolved()
        self.now = files.clock()
        self.names = tuple(
            tuple(place.text for place in places)
            for places in (spec.ca, spec.intermediates, spec.crl)
        )

    def resolve(self) -> Resolved:
        """The trust, if it can be had."""
        denylists = [self._denylist(place) for place in self.spec.denylist]
        made = self._issuers_and_crls()
        if made is not None:
            self.found.good.update(made[1].good)
            self.found.files.update(made[1].files)
            self.found.problems += made[1].problems
        whole = [each for each in denylists if each is not None]
        if made is not None and len(whole) == len(denylists):
            self._build(*made, whole)
        return self.found

    def stay(self, error: Exception) -> Resolved:
        """Leave the trust as it is in force, but for its denylists."""
        found = self.found = Resolved()
        made = self.files.made.get(self.name)
        message = f"trust {self.name!r} can't be built: {type(error).__name__}: {brief(error)}"
        told = at_node(self.file, self.spec.node, message, "see the log, and report this")
        if made is None or made.names != self.names:
            found.problems = [told]
            return found
        denylists = [self._denylist(place) for place in self.spec.denylist]
        found.problems.append(told)
        whole = [each for each in denylists if each is not None]
        trust = made.trust
        if len(whole) == len(denylists) and tuple(whole) != trust.denylists:
            trust = replace(trust, denylists=tuple(whole))
        crls = [("crl", self.name, place.text) for place in self.spec.crl]
        found.good.update({k: self.files.good[k] for k in crls if k in self.files.good})
        self._keep_bundles()
        found.trust, found.made = trust, Made(made.names, made.issuers, trust, ())
        return found

    # -- denylists

    def _denylist(self, place: Located) -> Denylist | None:
        """Every line that could be read; while some can't, also what was denied before."""
        key = ("denylist", place.text)
        outcome = self.files.denylist(place.text)
        older: Denylist | None = self.files.good.get(key)
        listed: Listed | None = None
        if outcome is None:
            self.found.pending = True
        elif outcome.error is not None:
            self._tell(place, outcome.error)
        else:
            listed = outcome.value.value
            self.found.problems += listed.mistakes
        if listed is not None and not listed.mistakes:
            self.found.files[key] = InForce(self.files.base / place.text, outcome.value.digest)  # type: ignore[union-attr]  # it was listed
            found: Denylist | None = listed.entries
        else:
            kept = self.files.kept(key) if older is None and outcome is not None else None
            older = kept.value.entries if kept is not None else older
            found = older
            if older is not None and listed is not None:
                found = joined(older, listed.entries)
        if found is not None:
            self.found.good[key] = found
        return found

    # -- certificates and CRLs

    def _issuers_and_crls(self) -> tuple[Issuers, _CrlSet] | None:
        """Those of now, or else those that were last good together."""
        made = self.files.made.get(self.name)
        last = made.issuers if made is not None and made.names == self.names else None
        fresh, read = self._fresh_issuers()
        unfit = None
        if fresh is not None:
            unfit = self._crls(fresh.anchors)
            if unfit.fits:
                self.found.good.update(read.good)
                self.found.files.update(read.files)
                return fresh, unfit
        if last is None and not self.found.pending and not (unfit and unfit.pending):
            last = self._kept_issuers()
        if last is not None and last is not fresh:
            found = self._crls(last.anchors)
            if found.fits:
                self._keep_bundles()
                if unfit is not None:  # say why the new ones aren't taken
                    found.problems = unfit.problems
                    found.refused += unfit.full + unfit.refused
                return last, found
        return self._without_fetched(fresh, read, unfit)

    def _without_fetched(
        self, fresh: Issuers | None, read: _CrlSet, unfit: _CrlSet | None
    ) -> tuple[Issuers, _CrlSet] | None:
        """Take what was fetched and can't be used for not fetched yet."""
        if unfit is None or fresh is None:
            return None
        self.found.pending = self.found.pending or unfit.pending
        if unfit.pending or not all(is_address(place.text) for place in unfit.out_of_place):
            self.found.problems += unfit.problems
            return None
        unfit.missing += [shown(place.text) for place in unfit.out_of_place]
        self.found.good.update(read.good)
        self.found.files.update(read.files)
        return fresh, unfit

    def _keep_bundles(self) -> None:
        """Leave the certificates that were last in force the last good ones."""
        keys = [("ca", place.text) for place in (*self.spec.ca, *self.spec.intermediates)]
        self.found.good.update({k: self.files.good[k] for k in keys if k in self.files.good})

    def _fresh_issuers(self) -> tuple[Issuers | None, _CrlSet]:
        """The authorities of the files as they are, and what to take for good if they serve."""
        read = _CrlSet()
        anchors = self._bundles(self.spec.ca, read)
        between = self._bundles(self.spec.intermediates, read)
        if anchors is None or between is None:
            return None, read
        return self._issuers(anchors, between), read

    def _issuers(
        self, anchors: Sequence[ClientCert], between: Sequence[ClientCert]
    ) -> Issuers | None:
        certs = tuple(c.sha256 for c in anchors), tuple(c.sha256 for c in between)
        made = self.files.made.get(self.name)
        if made is not None and made.issuers.certs == certs:
            return made.issuers
        try:
            return Issuers(Anchors(anchors, between), certs)
        except Exception as error:  # noqa: BLE001 - whatever a certificate's content raises
            self._tell((*self.spec.ca, *self.spec.intermediates)[0], error)
            return None

    def _bundles(self, places: Iterable[Located], read: _CrlSet) -> list[ClientCert] | None:
        """The certificates of these files, or of their last good versions; None without."""
        found: list[ClientCert] = []
        whole = True
        for place in places:
            certs = self._bundle(place, read)
            whole = whole and certs is not None
            found += certs or ()
        return found if whole else None

    def _bundle(self, place: Located, read: _CrlSet) -> Bundle | None:
        key = ("ca", place.text)
        outcome = self.files.bundle(place.text)
        certs: Bundle | None = self.files.good.get(key)
        if outcome is None:
            self.found.pending = self.found.pending or certs is None
        elif outcome.error is not None:
            self._tell(place, outcome.error)
            kept = self.files.kept(key) if certs is None else None
            certs = kept.value if kept is not None else certs
        else:
            certs = outcome.value.value
            read.files[key] = InForce(self.files.base / place.text, outcome.value.digest)
        if certs is not None:
            read.good[key] = certs
            verifies = self.spec.verify == "sidecar"
            self.found.warnings += bundle_remarks(self.file, place, certs, verifies)
        return certs

    def _kept_issuers(self) -> Issuers | None:
        """The certificates that were in force in an earlier process, all of them or none."""
        lists: list[list[ClientCert]] = []
        for places in (self.spec.ca, self.spec.intermediates):
            kept = [self.files.kept(("ca", place.text)) for place in places]
            if any(each is None for each in kept):
                return None
            lists.append([cert for each in kept for cert in each.value])
        return self._issuers(lists[0], lists[1]) if lists[0] else None

    def _crls(self, anchors: Anchors) -> _CrlSet:
        found = _CrlSet()
        room = MAX_TRUST
        for place in self.spec.crl:
            size = self._size(place)
            room -= size
            if room < 0:
                why = f"the CRLs of trust {self.name!r} have more than {MAX_TRUST >> 20} MiB"
                error = CrlError(why, "have the CA issue smaller CRLs, or use OCSP")
                self._fall_back(found, place, anchors.der, error, [])
            else:
                self._crl(found, place, anchors.der)
        return found

    def _size(self, place: Located) -> int:
        path = crl_place(self.files.base, self.files.state_dir, self.name, place.text)
        seen = signature(path)
        return seen.size if seen is not None and seen.size <= MAX_CRL else 0

    def _crl(self, found: _CrlSet, place: Located, authorities: tuple[bytes, ...]) -> None:
        key = ("crl", self.name, place.text)
        outcome = self.files.crls(self.name, place.text, authorities)
        if outcome is None:
            self._fall_back(found, place, authorities, None, [])
            return
        if outcome.error is not None:
            if isinstance(outcome.error, FileNotFoundError) and is_address(place.text):
                self._not_there(found, place, authorities, outcome.error)
            else:
                self._fall_back(found, place, authorities, outcome.error, [])
            return
        crls, mistakes = outcome.value.found
        found.entries += sum(crl.entry_count for crl in crls)
        if found.entries > MAX_ENTRIES:
            why = f"the CRLs of trust {self.name!r} have more than {MAX_ENTRIES} entries"
            mistakes = (CrlError(why, "have the CA issue smaller CRLs, or use OCSP"),)
            crls = ()
        accepted = []
        for crl in crls:
            back = self.files.marks.refuses(crl)
            if back:
                mistakes += (CrlError(f"refused: {back}", "put the newest CRL there"),)
                found.refused.append(crl)
                self.files.backwards.add((*key, outcome.signature))
            else:
                accepted.append(crl)
        if mistakes:
            self._fall_back(found, place, authorities, mistakes[0], accepted)
            return
        self._take(found, place, authorities, accepted)
        if not any(self._is_ahead(crl) for crl in accepted):
            path = crl_place(self.files.base, self.files.state_dir, self.name, place.text)
            found.files[key] = InForce(path, outcome.value.digest)

    def _take(
        self,
        found: _CrlSet,
        place: Located,
        authorities: tuple[bytes, ...],
        accepted: Sequence[Crl],
    ) -> None:
        """Put CRLs into force.  Beside one of the future the last that is in force stays."""
        in_force = [crl for crl in accepted if not self._is_ahead(crl)]
        ahead = [crl for crl in accepted if self._is_ahead(crl)]
        carried: list[Crl] = []
        if ahead:
            scopes = {scope_key(crl) for crl in ahead} - {scope_key(crl) for crl in in_force}
            older = self._older(place, authorities)
            carried = [crl for crl in older or () if scope_key(crl) in scopes]
        found.full += [*in_force, *ahead, *carried]
        self.found.ahead += [crl.this_update - self.spec.clock_tolerance for crl in ahead]
        found.good["crl", self.name, place.text] = GoodCrls(authorities, (*in_force, *carried))

    def _fall_back(
        self,
        found: _CrlSet,
        place: Located,
        authorities: tuple[bytes, ...],
        error: BaseException | None,
        accepted: Sequence[Crl],
    ) -> None:
        """Use what was last good at a place, beside what can be read there now."""
        older = self._older(place, authorities)
        if error is not None:
            found.problems.append(file_mistake(self.file, place, error))
        if older is None:
            found.fits = False
            found.pending = found.pending or error is None
            found.out_of_place.append(place)
            found.refused += accepted
            return
        newer = {scope_key(crl) for crl in accepted if not self._is_ahead(crl)}
        carried = [crl for crl in older if scope_key(crl) not in newer]
        found.full += [*accepted, *carried]
        in_force = [crl for crl in accepted if not self._is_ahead(crl)]
        found.good["crl", self.name, place.text] = GoodCrls(authorities, (*in_force, *carried))

    def _not_there(
        self, found: _CrlSet, place: Located, authorities: tuple[bytes, ...], error: OSError
    ) -> None:
        """Nothing was fetched from an address yet, or what was fetched is gone."""
        if self._older(place, authorities) is None and not self._was_fetched(place):
            found.missing.append(shown(place.text))
            return
        why = "what was fetched is gone; restart mtls-sidecar-fetch"
        gone = FileNotFoundError(errno.ENOENT, why, error.filename)
        self._fall_back(found, place, authorities, gone, [])

    def _was_fetched(self, place: Located) -> bool:
        return ("crl", self.name, place.text) in self.files.good

    def _older(self, place: Located, authorities: tuple[bytes, ...]) -> Sequence[Crl] | None:
        """The CRLs last in force at a place, if they are verified with these authorities."""
        key = ("crl", self.name, place.text)
        good: GoodCrls | None = self.files.good.get(key)
        if good is not None:
            return good.crls if good.authorities == authorities else None
        kept = self.files.kept(key, authorities)
        if kept is None or kept.found.mistakes:
            return None
        sound = [crl for crl in kept.found.crls if self.files.marks.refuses(crl) is None]
        return sound or None

    def _is_ahead(self, crl: Crl) -> bool:
        return crl.this_update > self.now + self.spec.clock_tolerance

    # -- the whole

    def _build(self, issuers: Issuers, crls: _CrlSet, denylists: Sequence[Denylist]) -> None:
        full = list({id(crl): crl for crl in crls.full}.values())
        revoking = [crl for crl in {id(c): c for c in crls.refused}.values() if crl not in full]
        parts = (
            self.spec,
            issuers.anchors,
            *full,
            None,
            *revoking,
            None,
            *denylists,
            *crls.missing,
        )
        made = self.files.made.get(self.name)
        if made is not None and _is_same(made.parts, parts):
            trust = made.trust
        else:
            trust = build_trust(
                self.name,
                self.spec,
                issuers.anchors,
                denylists=denylists,
                crls=full,
                revoking=revoking,
                missing=crls.missing,
            )
        found = self.found
        found.trust = trust
        report = Report(self.file)
        warn_about_lockouts(self.spec, trust, report)
        found.dated = report.warnings
        found.warnings += unusable_crls(self.file, self.spec, full)
        found.in_force = [crl for crl in full if not self._is_ahead(crl)]
        found.made = Made(self.names, issuers, trust, parts)

    def _tell(self, place: Located, error: BaseException) -> None:
        self.found.problems.append(file_mistake(self.file, place, error))


def _is_same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return len(one) == len(other) and all(
        a is b or (isinstance(a, str) and a == b) for a, b in zip(one, other, strict=True)
    )


def _digest(authorities: tuple[bytes, ...]) -> str:
    """A short name of a set of authorities."""
    return hashlib.sha256(b"".join(hashlib.sha256(der).digest() for der in authorities)).hexdigest()
