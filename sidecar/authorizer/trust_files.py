"""Build the trusts of a policy from the usable files, and from the last good ones otherwise.

Each file is a separate source with a last good value.  Certificates and CRLs of one trust belong
together: if a new CA file doesn't fit the available CRLs, the trust keeps its last good
certificates and CRLs, except authorities that the new file no longer lists; other trusts are not
affected.  Denylists and the entries of every verified CRL always take effect at once: also lines
beside an invalid one, and CRLs that are refused as older or as inconsistent with the CA files.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from sidecar.core.config.crl_place import is_address, shown
from sidecar.core.config.schema import DatedWarning, Located, Report
from sidecar.core.errors import Diagnostic, brief
from sidecar.core.policy.compile import Draft
from sidecar.core.policy.keys_without_crl import warn_about_keys_without_crl
from sidecar.core.policy.lockouts import warn_about_lockouts
from sidecar.core.policy.model import Trust
from sidecar.core.policy.spec import TrustSpec
from sidecar.core.policy.trust import (
    at_node,
    build_trust,
    bundle_remarks,
    file_mistake,
    unusable_crls,
)
from sidecar.core.revocation.crl.index import Crl
from sidecar.core.revocation.denylist import Denylist, as_text, joined
from sidecar.core.x509.bundle import Bundle
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.path_building import Anchors

from .last_good import InForce, beside
from .readings import Outcome
from .trust_crls import NOTHING, CrlPlaces, CrlSet, Lacking
from .trust_sources import (
    CopyBeingRead,
    CopyUnread,
    DenylistReading,
    Key,
    TrustSources,
    without_withdrawn,
)
from .watermarks import place_name

log = logging.getLogger("mtls-sidecar")

FIRST_READING = 5.0
"""Seconds for which a new or changed trust waits for fetched CRLs that are being read."""

NO_LINES = Denylist("", {})

Certs = tuple[tuple[ClientCert, ...], tuple[ClientCert, ...]]
"""Anchors, and the intermediates below them."""


class TrustAuthorities(NamedTuple):
    """A trust's authorities.  `certs` identify the set.

    CRLs are verified with the `signers`: the last authorities that matched the CRLs.  Authorities
    that the files no longer list are not in `anchors`.
    """

    anchors: Anchors
    certs: tuple[tuple[str, ...], tuple[str, ...]]
    signers: Anchors
    signing: Certs


@dataclass(frozen=True, slots=True)
class TrustInputs:
    """The inputs of a trust in force, and the files whose copies are to stay."""

    names: tuple[tuple[str, ...], ...]
    issuers: TrustAuthorities
    trust: Trust
    parts: tuple[object, ...]
    files: Mapping[Key, InForce]


@dataclass(slots=True)
class Resolved:
    """The result for one trust.  `trust` is None if it can't be built, or not yet (`pending`).

    `waits`: it denies, since copies of what was in force before are still unread; they are to stay.
    What is later than `latest` is from the future.
    """

    trust: Trust | None = None
    problems: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    dated: list[DatedWarning] = field(default_factory=list)
    pending: bool = False
    waits: bool = False
    inputs: TrustInputs | None = None
    good: dict[Key, Any] = field(default_factory=dict)
    latest: float = 0.0
    ahead: list[float] = field(default_factory=list)
    files: dict[Key, InForce] = field(default_factory=dict)


@dataclass(slots=True)
class TrustFiles:
    """Build trusts, and remember the inputs of each trust in force.

    `unread`: those of trusts that deny until the copies of an earlier process are read.
    """

    sources: TrustSources
    inputs: dict[str, TrustInputs] = field(default_factory=dict)
    unread: dict[str, TrustInputs] = field(default_factory=dict)
    waiting: dict[str, tuple[object, float]] = field(default_factory=dict)

    def resolve(self, draft: Draft) -> dict[str, Resolved]:
        """Build every trust of a policy from the current files."""
        self.sources.backwards = set()
        self.sources.efforts.clear()
        named: set[Key] = {
            (kind, name, place.text)
            for name, spec in draft.spec.trust.items()
            for place in spec.crl
            for kind in ("crl", "revoking")
        }
        self.sources.look_for_former(named)
        self.sources.marks.named = frozenset(
            place_name(str(name), str(place)) for kind, name, place in named if kind == "crl"
        )
        self.sources.keep_readers(
            {place.text for spec in draft.spec.trust.values() for place in spec.denylist}
        )
        return {
            name: self._resolve(draft.file, name, spec) for name, spec in draft.spec.trust.items()
        }

    def _resolve(self, file: str, name: str, spec: TrustSpec) -> Resolved:
        """Build one trust; an internal error there doesn't affect other trusts."""
        resolver = _Resolver(self, file, name, spec)
        try:
            return resolver.resolve()
        except Exception as error:
            log.exception("trust %s can't be built of its files", name)
            return resolver.stay(error)

    def has_waited(self, name: str, names: object) -> bool:
        """Return whether a trust of these files has waited for a fetched CRL long enough."""
        waiting = self.waiting.get(name)
        if waiting is None or waiting[0] != names:
            waiting = self.waiting[name] = names, time.monotonic()
        return time.monotonic() - waiting[1] >= FIRST_READING

    def commit(self, resolved: Mapping[str, Resolved]) -> None:
        """Remember the trusts that came into force as last good, and discard unnamed ones."""
        good: dict[Key, Any] = {}
        inputs: dict[str, TrustInputs] = {}
        unread: dict[str, TrustInputs] = {}
        for name, each in resolved.items():
            good.update(each.good)
            self._note(each)
            if each.inputs is not None:
                (unread if each.waits else inputs)[name] = each.inputs
        self.sources.good, self.inputs, self.unread = good, inputs, unread
        in_force = {name: each.names for name, each in inputs.items()}
        self.waiting = {n: each for n, each in self.waiting.items() if in_force.get(n) != each[0]}

    def _note(self, each: Resolved) -> None:
        """Raise the watermarks of the places to the CRLs in force there."""
        for key, good in each.good.items():
            if key[0] == "crl":
                in_force = [crl for crl in good.crls if crl.this_update <= each.latest]
                self.sources.marks.note(in_force, each.latest, place_name(*map(str, key[1:])))


class _Resolver:
    """Build one trust in one reload."""

    def __init__(self, files: TrustFiles, file: str, name: str, spec: TrustSpec) -> None:
        self.files, self.file, self.name, self.spec = files, file, name, spec
        self.sources = files.sources
        self.found = Resolved()
        self.unread: list[str] = []  # denylists that aren't known wholly, nor by their copies
        self.names = tuple(
            tuple(place.text for place in places)
            for places in (spec.ca, spec.intermediates, spec.crl)
        )
        self.places = CrlPlaces(
            self.sources, file, name, spec, self.sources.clock(), self._lacking()
        )

    def _lacking(self) -> Lacking:
        inputs = self.files.inputs.get(self.name)
        if inputs is None or inputs.names != self.names:
            return NOTHING
        trust = inputs.trust
        return Lacking(inputs.issuers.signers.der, trust.missing, trust.revoking)

    def resolve(self) -> Resolved:
        """Build the trust, if possible."""
        denylists = [self._denylist(place) for place in self.spec.denylist]
        chosen = self._issuers_and_crls()
        self.found.waits = self.found.waits or bool(chosen and self.unread)
        if chosen is not None:
            if not self.found.waits:  # else its copies are to be read as if this were the start
                self.found.good.update(chosen[1].good)
                self.found.files.update(chosen[1].files)
            self.found.problems += chosen[1].problems
            self.found.ahead += chosen[1].ahead
        whole = [each for each in denylists if each is not None]
        if chosen is not None and len(whole) == len(denylists):
            self._build(*chosen, whole)
        return self.found

    def stay(self, error: Exception) -> Resolved:
        """Keep the trust in force, but update its denylists."""
        found = self.found = Resolved(waits=self.name in self.files.unread)
        inputs = self._known()
        message = f"trust {self.name!r} can't be built: {type(error).__name__}: {brief(error)}"
        told = at_node(self.file, self.spec.node, message, "see the log, and report this")
        if inputs is None or inputs.names != self.names:
            found.problems = [told]
            return found
        found.files.update(inputs.files)
        denylists = [self._denylist(place) for place in self.spec.denylist]
        found.problems.append(told)
        whole = [each for each in denylists if each is not None]
        trust = inputs.trust
        if len(whole) == len(denylists) and tuple(whole) != trust.denylists:
            trust = replace(trust, denylists=tuple(whole))
        kinds = ("crl", "revoking", "unusable")
        crls = [(kind, self.name, place.text) for place in self.spec.crl for kind in kinds]
        found.good.update({k: self.sources.good[k] for k in crls if k in self.sources.good})
        found.good.update({k: v for k, v in self.sources.former.items() if v is not None})
        if not found.waits:
            self._keep_bundles()
        found.trust = trust
        found.inputs = TrustInputs(inputs.names, inputs.issuers, trust, (), found.files)
        return found

    # -- denylists

    def _denylist(self, place: Located) -> Denylist | None:
        """Read all valid lines; while some are invalid, add the lines that were in force before.

        Another instance may have had lines in force that this one never saw, while it hung.
        """
        key = ("denylist", place.text)
        outcome = self.sources.denylist(place.text)
        older: Denylist | None = self.sources.good.get(key)
        is_unread = False
        if outcome is not None and not _is_whole(outcome):
            try:
                kept = self.sources.kept_denylist(place.text)
            except CopyUnread as error:
                self.found.pending = is_unread = True
                kept = None
                if older is None:  # whom it denies isn't known: the trust waits
                    return self._part_of_unread(place, outcome, error)
                self._tell(place, error)
            if kept is not None:
                older = kept if older is None else joined(older, kept)
        if outcome is None:
            self.found.pending = True
            found = older
        elif outcome.error is not None:
            self._tell(place, outcome.error)
            found = older
        else:
            listed: DenylistReading = outcome.value.value
            self.found.problems += listed.mistakes
            found = listed.entries
            file = InForce(
                self.sources.base / place.text,
                outcome.value.digest,
                substitute=partial(as_text, found),
            )
            is_partial = not _is_whole(outcome)
            if is_partial and older is not None:
                found = joined(older, listed.entries)
            if is_partial:
                text = as_text(found)
                file = InForce(file.path, hashlib.sha256(text).hexdigest(), text)
            if not (is_partial and is_unread):  # the copy may have more
                self.found.files[key] = file
        if found is not None:
            self.found.good[key] = found
        return found

    def _part_of_unread(
        self, place: Located, outcome: Outcome, error: CopyUnread
    ) -> Denylist | None:
        """Return the valid lines of a denylist whose other ones its unread copy has."""
        if not self._may_wait() or not isinstance(error, CopyBeingRead):
            self._tell(place, error)
        if not self._may_wait():
            return None
        self.unread.append(place.text)
        if outcome.error is not None:
            self._tell(place, outcome.error)
            return NO_LINES
        listed: DenylistReading = outcome.value.value
        self.found.problems += listed.mistakes
        return listed.entries

    def _may_wait(self) -> bool:
        """Return whether the trust may come into force before copies that it needs are read.

        It denies until then.  With another trust in force, what revoked there is in memory, and
        goes on; the policy before stays in force.
        """
        return not self.files.inputs or self.name in self.files.unread

    # -- certificates and CRLs

    def _issuers_and_crls(self) -> tuple[TrustAuthorities, CrlSet] | None:
        """Return the current authorities and CRLs, else the last good ones without removed ones.

        Where copies of these are unread, the trust denies, with all that revokes; so it goes on if
        nothing can be used once they are read.
        """
        inputs = self.files.inputs.get(self.name)
        last = inputs.issuers if inputs is not None and inputs.names == self.names else None
        fresh, read = self._fresh_issuers()
        unfit = found = None
        if fresh is not None:
            unfit = self._crls(fresh)
            if unfit.fits:
                self.found.good.update(read.good)
                self.found.files.update(read.files)
                return fresh, unfit
        if last is None and not self.found.pending and not (unfit and unfit.pending):
            last = self._kept_issuers()
        if last is not None and last is not fresh:
            found = self._crls(last)
            if found.fits or (unfit is not None and unfit.pending and self._goes_without(found)):
                self._keep_bundles()
                if unfit is not None and fresh is not None:
                    # report why the new ones are refused
                    found.problems = unfit.problems
                    found.refused += unfit.full + unfit.refused
                    last = self._less_withdrawn(last, fresh, read)
                return last, found
        several = [each for each in (unfit, found) if each is not None]
        unread = next((each for each in several if each.unread), None)
        if unread is None or not self._may_wait():
            chosen = self._without_fetched(fresh, read, unfit)
            before = self.files.unread.get(self.name)
            if chosen is not None or before is None:
                return chosen
            last = last or before.issuers
        issuers = fresh or last
        if issuers is None:
            return None
        self.found.waits = True
        return issuers, unread or next(iter(several), CrlSet())

    def _less_withdrawn(
        self, last: TrustAuthorities, fresh: TrustAuthorities, read: CrlSet
    ) -> TrustAuthorities:
        """Return the last good authorities that the files still list; all if none would remain."""
        left = [
            tuple(cert for cert in old if cert.sha256 in new) or old
            for old, new in zip(last.signing, fresh.certs, strict=True)
        ]
        for key, file in read.files.items():
            self.found.files[beside(key)] = file
        for key, bundle in read.good.items():
            good = self.found.good.get(key)
            if good is not None:
                self.found.good[key] = without_withdrawn(good, bundle)
        gone = sum(map(len, last.signing)) - sum(map(len, left))
        if gone:
            message = (
                f"trust {self.name!r}: {gone} authorities that its files no longer list are not "
                "trusted any more; the others stay unchanged until the CRLs match the files"
            )
            self.found.problems.append(at_node(self.file, self.spec.node, message))
        return self._issuers(left[0], left[1], last) or last

    def _without_fetched(
        self, fresh: TrustAuthorities | None, read: CrlSet, unfit: CrlSet | None
    ) -> tuple[TrustAuthorities, CrlSet] | None:
        """Treat fetched CRLs that can't be used as not fetched yet."""
        if unfit is None or fresh is None:
            return None
        if not self._goes_without(unfit):
            self.found.pending = self.found.pending or unfit.pending
            self.found.problems += unfit.problems
            return None
        self.found.good.update(read.good)
        self.found.files.update(read.files)
        return fresh, unfit

    def _goes_without(self, crls: CrlSet) -> bool:
        """Return whether CRLs that can't be used count as not fetched yet, and note them so.

        So does one that is still being read, however long that takes: a fetcher that writes it
        again and again holds up nothing else.  A trust in force was without it before.
        """
        if not all(is_address(place.text) for place in crls.out_of_place):
            return False
        inputs = self.files.inputs.get(self.name)
        waits = crls.pending and (inputs is None or inputs.names != self.names)
        if waits and (crls.unread or not self.files.has_waited(self.name, self.names)):
            return False
        crls.missing += [shown(place.text) for place in crls.out_of_place]
        return True

    def _keep_bundles(self) -> None:
        """Keep the certificates last in force as the last good ones."""
        for place in (*self.spec.ca, *self.spec.intermediates):
            key = ("ca", place.text)
            good = self.sources.good.get(key)
            good = self._kept_bundle(place, whole=False) if good is None else good
            if good is not None:
                self.found.good[key] = good

    def _fresh_issuers(self) -> tuple[TrustAuthorities | None, CrlSet]:
        """Return the authorities of the current files, and the files to remember if used."""
        read = CrlSet()
        anchors = self._bundles(self.spec.ca, read)
        between = self._bundles(self.spec.intermediates, read)
        if anchors is None or between is None:
            return None, read
        return self._issuers(anchors, between), read

    def _issuers(
        self,
        anchors: Sequence[ClientCert],
        between: Sequence[ClientCert],
        signers: TrustAuthorities | None = None,
    ) -> TrustAuthorities | None:
        """Build authorities; `signers` verify the CRLs, if they are different ones."""
        certs = tuple(c.sha256 for c in anchors), tuple(c.sha256 for c in between)
        signing = signers.signing if signers is not None else (tuple(anchors), tuple(between))
        inputs = self._known()
        if inputs is not None and inputs.issuers.certs == certs:
            known = [[c.sha256 for c in each] for each in inputs.issuers.signing]
            if known == [[c.sha256 for c in each] for each in signing]:
                return inputs.issuers
        try:
            found = Anchors(anchors, between)
        except Exception as error:  # noqa: BLE001 - whatever a certificate's content raises
            self._tell((*self.spec.ca, *self.spec.intermediates)[0], error)
            return None
        return TrustAuthorities(
            found, certs, signers.signers if signers is not None else found, signing
        )

    def _bundles(self, places: Iterable[Located], read: CrlSet) -> list[ClientCert] | None:
        """Return the certificates of these files or of their last good versions, or None."""
        found: list[ClientCert] = []
        whole = True
        for place in places:
            certs = self._bundle(place, read)
            whole = whole and certs is not None
            found += certs or ()
        return found if whole else None

    def _bundle(self, place: Located, read: CrlSet) -> Bundle | None:
        key = ("ca", place.text)
        outcome = self.sources.bundle(place.text)
        certs: Bundle | None = self.sources.good.get(key)
        if outcome is None:
            self.found.pending = self.found.pending or certs is None
        elif outcome.error is not None:
            self._tell(place, outcome.error)
            if certs is None:
                certs = self._kept_bundle(place, whole=False)
        else:
            certs = outcome.value.value
            read.files[key] = InForce(self.sources.base / place.text, outcome.value.digest)
        if certs is not None:
            read.good[key] = certs
            verifies = self.spec.verify == "sidecar"
            self.found.warnings += bundle_remarks(self.file, place, certs, verifies)
        return certs

    def _kept_bundle(self, place: Located, *, whole: bool) -> Bundle | None:
        """Return the certificates last in force, or None; the trust waits for an unread copy."""
        try:
            return self.sources.kept_bundle(place.text, whole=whole)
        except CopyUnread as error:
            self._tell(place, error)
            self.found.pending = True
            return None

    def _kept_issuers(self) -> TrustAuthorities | None:
        """Return the authorities in force in an earlier process, if all their files were kept."""
        lists: list[list[ClientCert]] = []
        for places in (self.spec.ca, self.spec.intermediates):
            kept = [self._kept_bundle(place, whole=True) for place in places]
            lists.append([cert for each in kept for cert in each or ()])
            if any(each is None for each in kept):
                return None
        return self._issuers(lists[0], lists[1]) if lists[0] else None

    def _crls(self, issuers: TrustAuthorities) -> CrlSet:
        return self.places.verified_with(issuers.signers.der)

    # -- the whole

    def _build(
        self, issuers: TrustAuthorities, crls: CrlSet, denylists: Sequence[Denylist]
    ) -> None:
        full = list({id(crl): crl for crl in crls.full}.values())
        alike: dict[str, list[Crl]] = {}  # of one `key`, without which no two are equal
        for crl in full:
            alike.setdefault(crl.key, []).append(crl)
        refused = {id(crl): crl for crl in crls.refused}.values()
        revoking = [crl for crl in refused if crl not in alike.get(crl.key, ())]
        unread = self._unread(crls) if self.found.waits else []
        parts = (
            self.spec,
            issuers.anchors,
            *full,
            None,
            *revoking,
            None,
            *denylists,
            *crls.missing,
            None,
            *unread,
        )
        inputs = self._known()
        if inputs is not None and _is_same(inputs.parts, parts):
            trust = inputs.trust
        else:
            trust = build_trust(
                self.name,
                self.spec,
                issuers.anchors,
                denylists=denylists,
                crls=full,
                revoking=revoking,
                missing=crls.missing,
                unread=unread,
                bundles={
                    place.text: self.found.good.get(("ca", place.text), ())
                    for place in (*self.spec.ca, *self.spec.intermediates)
                },
            )
        found = self.found
        found.trust = trust
        report = Report(self.file)
        if not unread:
            warn_about_lockouts(self.spec, trust, report)
            warn_about_keys_without_crl(self.spec, trust, report)
        found.dated = report.warnings
        found.warnings += unusable_crls(self.file, self.spec, full)
        found.latest = self.places.latest
        found.inputs = TrustInputs(self.names, issuers, trust, parts, found.files)

    def _known(self) -> TrustInputs | None:
        """Return what the trust in force was built of."""
        return self.files.inputs.get(self.name) or self.files.unread.get(self.name)

    def _unread(self, crls: CrlSet) -> list[str]:
        """Return the places for which the trust waits: never none."""
        found = dict.fromkeys((*crls.unread, *map(shown, self.unread)))
        return list(found) or [shown(place.text) for place in self.spec.crl] or [self.name]

    def _tell(self, place: Located, error: BaseException) -> None:
        self.found.problems.append(file_mistake(self.file, place, error))


def _is_whole(outcome: Outcome) -> bool:
    """Return whether a denylist was read completely, and not while it was being written."""
    return outcome.error is None and not outcome.value.value.mistakes and not outcome.restless


def _is_same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return len(one) == len(other) and all(
        a is b or (isinstance(a, str) and a == b) for a, b in zip(one, other, strict=True)
    )
