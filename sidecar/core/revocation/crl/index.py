"""Check one certificate against the CRLs of a trust (RFC 5280, section 6.3).

Where the RFC leaves a choice, the stricter rule applies:

- A certificate that any CRL of its issuer lists is REVOKED.  This includes a CRL after its
  `nextUpdate`, one from the future, one for another distribution point or other reasons (issuer and
  serial number identify one certificate), and one with an unknown critical extension or an
  unreadable part (by RFC 5280, 5.2 and 5.3, such a CRL says nothing; here it never says good).
  Only CRLs for attribute certificates are ignored, since those have serial numbers of their own.  A
  revocation date in the future takes effect at once.
- GOOD needs CRLs that are fresh and together cover all reasons.  A CRL without `nextUpdate`
  (RFC 5280, 5.1.2.5, demands one) is never fresh.
- A delta CRL removes only a `certificateHold`, only while it is fresh, and only of its own base.
- Of several CRLs with the same issuer, scope and signing key, the newest is used.  One that isn't
  older by both number and `thisUpdate` revokes beside it.
- A CRL may be signed by another key of its issuer if that key's certificate leads to the same
  anchor as the certificate's issuer.  If that signer is itself revoked, by a CRL or a denylist, its
  CRLs only revoke.  With `whole_chain`, the signer must be known to be GOOD.
- It never says good beside a CRL in force by the key of the certificate's issuer, unless it lists
  that one's certificates: each key has a CRL of its own there (Windows), which may have ended.
- Names are compared by RFC 5280, section 7.1 (`der.comparable_name`); URIs octet by octet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from typing import NamedTuple

from sidecar.core.revocation.status import Answer, RevocationStatus
from sidecar.core.x509.certificate import ClientCert, from_der, refused_serials

from .entries import HOLD, REMOVE, CrlEntry
from .parse import (
    Crl,
    CrlError,
    CrlFile,
    Watermark,
    goes_back,
    read_crl,
    read_crls,
    supersedes,
    watermark,
)
from .scope import ALL_REASONS, EVERYTHING, CertFacts, Scope, covered, crl_facts, implied_point
from .signers import Signer, key_digest
from .succession import Effort, covers_other_key

__all__ = [
    "CertFacts",
    "Crl",
    "CrlError",
    "CrlFile",
    "CrlIndex",
    "Watermark",
    "crl_facts",
    "goes_back",
    "read_crl",
    "read_crls",
    "supersedes",
    "watermark",
]


Denies = Callable[[ClientCert], Answer | None]
"""Return REVOKED if a denylist denies the certificate of a CRL's signer, else None."""


def _denies_nobody(_: ClientCert) -> None:
    return None


class _Listed(NamedTuple):
    """A CRL lists the certificate."""

    crl: Crl
    entry: CrlEntry


class _Fresh(NamedTuple):
    """The freshness of a group: its end (0: not fresh), the source, and why it is not fresh."""

    until: float
    source: str
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class _FreshnessRule:
    """Clock tolerance and grace period after `nextUpdate`, in seconds."""

    tolerance: float
    grace: float

    def is_future(self, crl: Crl, now: float) -> bool:
        """Return whether the CRL's `thisUpdate` is in the future."""
        return crl.this_update > now + self.tolerance

    def fresh_until(self, crl: Crl, now: float) -> float:
        """Return the moment at which the CRL stops being fresh; 0 if it is not fresh."""
        if crl.next_update is None or self.is_future(crl, now):
            return 0.0
        if now < crl.next_update:
            return crl.next_update
        end = crl.next_update + self.tolerance + self.grace
        return end if now < end else 0.0


@dataclass(slots=True, eq=False)
class _Group:
    """The CRLs with the same issuer, scope and signing key, newest first.

    `any` is one of them, for their common fields.  Without `clears` they only revoke.  `not_of` are
    other keys of the issuer (SHA-256), whose certificates they don't cover.
    """

    clock: _FreshnessRule
    crls: InitVar[Sequence[Crl]]
    clears: bool = True
    not_of: frozenset[bytes] = frozenset()
    any: Crl = field(init=False)
    complete: list[Crl] = field(init=False)
    deltas: list[Crl] = field(init=False)
    speaks_of_all: bool = field(init=False)

    def __post_init__(self, crls: Sequence[Crl]) -> None:
        newest = sorted(crls, key=_age, reverse=True)
        self.complete = [crl for crl in newest if crl.delta_base is None]
        self.deltas = [crl for crl in newest if crl.delta_base is not None]
        self.any = (self.complete or self.deltas)[0]
        self.speaks_of_all = self.scope == EVERYTHING

    @property
    def scope(self) -> Scope:
        """The scope of the CRLs."""
        return self.any.scope

    def _base(self, now: float) -> Crl | None:
        for crl in self.complete:
            if not self.clock.is_future(crl, now):
                return crl
        return None

    def listed(self, issuer: bytes, serial: int, now: float) -> _Listed | None:
        """Return the entry that revokes the certificate, if there is one.

        All CRLs are asked but those that are certainly older than the base.
        """
        base = self._base(now)
        held = self._entries(self.complete, base, issuer, serial)
        deltas = self._entries(self.deltas, base, issuer, serial)
        for delta, entry in deltas:
            if entry.reason == HOLD:
                return _Listed(delta, entry)
            if entry.reason == REMOVE and self._lifts(delta, base, held, now):
                held = []
                break
        lasting = (each for each in deltas if each.entry.reason not in (HOLD, REMOVE))
        return next(lasting, held[0] if held else None)

    @staticmethod
    def _entries(
        crls: Sequence[Crl], base: Crl | None, issuer: bytes, serial: int
    ) -> list[_Listed]:
        """Return the certificate's entries, without CRLs that are older than the base."""
        newer = (crl for crl in crls if crl is base or not _is_past(crl, base))
        found = ((crl, crl.find(issuer, serial)) for crl in newer)
        return [_Listed(crl, entry) for crl, entry in found if entry is not None]

    def _lifts(self, delta: Crl, base: Crl | None, held: list[_Listed], now: float) -> bool:
        """Return whether a delta's removeFromCRL removes the base's entry (RFC 5280, 5.3.1)."""
        if not held or any(crl is not base or entry.reason != HOLD for crl, entry in held):
            return False
        return _is_applicable(delta, base) and self.clock.fresh_until(delta, now) > 0.0

    def fresh(self, now: float) -> _Fresh:
        """Determine whether the group is fresh.

        A fresh delta makes an old base current again (RFC 5280, 5.2.4 a).
        """
        base = self._base(now)
        if base is None:
            return _Fresh(0.0, self.any.source, self._absent(now))
        until = self.clock.fresh_until(base, now)
        for delta in self.deltas:
            if _is_applicable(delta, base):
                ends = self.clock.fresh_until(delta, now)
                until = min(until, ends) if until and ends else until or ends
        return _Fresh(until, base.source, "" if until else _stale(base))

    def turns(self, now: float) -> float:
        """Return the first moment at which a CRL from the future is current, or a delta ends.

        From then on another base counts, or no hold is lifted.
        """
        begins = (crl.this_update - self.clock.tolerance for crl in self.complete + self.deltas)
        ends = (self.clock.fresh_until(delta, now) for delta in self.deltas)
        return min((turn for turn in (*begins, *ends) if turn > now), default=math.inf)

    def _absent(self, now: float) -> str:
        future = [crl for crl in self.complete if self.clock.is_future(crl, now)]
        return "it is from the future" if future else "a delta CRL without its complete CRL"


def _find_other_keys(groups: Sequence[_Group], effort: Effort) -> None:
    """Note for each group of an issuer which other keys have CRLs of their own.

    What these list is revoked in any case, so short serial numbers count: a small authority that
    has changed its key locks nobody out by the last CRL of the key before.
    """
    for group in groups:
        if group.clears and group.complete:
            group.not_of = frozenset(
                other.any.signer_key
                for other in groups
                if other.any.signer_key != group.any.signer_key
                and other.clears
                and other.complete
                and other.any.covers == group.any.covers
                and not covers_other_key(
                    group.complete[0], other.complete[0], effort, by_short=True
                )
            )


def _age(crl: Crl) -> tuple[float, int]:
    """Return a key that is larger for a newer CRL of a group."""
    return crl.this_update, -1 if crl.number is None else crl.number


def _is_past(crl: Crl, base: Crl | None) -> bool:
    """Return whether the base is certainly newer than a CRL, or includes a delta.

    If number and `thisUpdate` contradict each other, it isn't certain: a CA may round `thisUpdate`,
    number its deltas separately, or write no numbers.
    """
    if base is None or crl.this_update > base.this_update:
        return False
    if crl.number is not None and base.number is None:
        return False  # `goes_back` takes the one without a number for the older one
    if crl.number is None or base.number is None:
        return crl.delta_base is None and crl.this_update < base.this_update
    if crl.delta_base is not None:
        return crl.number <= base.number
    return crl.number <= base.number and _age(crl) < _age(base)


def _is_applicable(delta: Crl, base: Crl | None) -> bool:
    """Return whether a delta can be combined with a base (RFC 5280, 5.2.4)."""
    if base is None or base.number is None or delta.number is None or delta.delta_base is None:
        return False
    return delta.delta_base <= base.number < delta.number


def _stale(crl: Crl) -> str:
    return "it has no nextUpdate" if crl.next_update is None else "its nextUpdate has passed"


class _SignerStanding(NamedTuple):
    """Whether a group can revoke, and why it can't say good."""

    revokes: bool
    why: str
    until: float = math.inf


_TOLD = 4
"""Maximum number of CRLs that an answer tells of."""


@dataclass(slots=True)
class _Findings:
    """The reasons collected for an UNKNOWN answer."""

    notes: list[tuple[str, str]] = field(default_factory=list)
    retry: float = math.inf

    def add(self, source: str, why: str) -> None:
        """Record why a CRL gave no answer; of many, the first few are told."""
        if len(self.notes) < _TOLD and (source, why) not in self.notes:
            self.notes.append((source, why))

    def answer(self, nothing: str) -> Answer:
        """Return UNKNOWN with the reasons, or with the text `nothing` if there are none."""
        if not self.notes:
            return Answer(RevocationStatus.UNKNOWN, "crl", nothing, self.retry)
        source, why = self.notes[0]
        more = [f"{s}: {w}" for s, w in self.notes[1:]]
        return Answer(
            RevocationStatus.UNKNOWN, f"crl {source}", "; ".join([why, *more]), self.retry
        )


class CrlIndex:
    """The CRLs of one trust.  `tolerance` and `grace` in seconds.

    `revoking` are refused CRLs: older than an accepted one, or inconsistent with the others.  They
    revoke, but never say good.  The same applies to unusable CRLs of `crls`.
    """

    def __init__(
        self,
        crls: Sequence[Crl],
        tolerance: float = 0.0,
        grace: float = 0.0,
        *,
        whole_chain: bool = False,
        revoking: Sequence[Crl] = (),
    ) -> None:
        self._clock = _FreshnessRule(tolerance, grace)
        self._whole_chain = whole_chain
        alike: dict[tuple[str, bytes], list[Crl]] = {}
        for crl in crls:
            if not crl.unusable and crl.scope.only != "attribute":
                alike.setdefault((crl.covers, crl.signer_key), []).append(crl)
        groups = [_Group(self._clock, several) for several in alike.values()]
        unusable = [crl for crl in crls if crl.unusable]
        only_revoke = (c for c in (*unusable, *revoking) if c.scope.only != "attribute")
        only_revoking = (_Group(self._clock, [c], clears=False) for c in only_revoke)
        all_groups = [*groups, *only_revoking]
        self._groups: dict[bytes, list[_Group]] = {}
        for group in all_groups:
            self._groups.setdefault(group.any.issuer, []).append(group)
        effort = Effort()
        for several in self._groups.values():
            _find_other_keys(several, effort)
        self._indirect = any(group.scope.indirect for group in all_groups)
        self._certs: dict[bytes, ClientCert] = {}

    def status(
        self, cert: CertFacts, issuer: ClientCert, now: float, denies: Denies = _denies_nobody
    ) -> Answer:
        """Check a certificate that `issuer` issued, at `now` (epoch seconds).

        The caller must have verified that `issuer` issued the certificate and is trusted, and is on
        no denylist; other signers are asked about here.
        """
        return self._status(cert, issuer, now, denies, frozenset())

    def why_unfit(self, now: float) -> str:
        """Explain why no CRL can say good of any certificate at `now`; "" if one can."""
        why = "there is no CRL"
        for groups in self._groups.values():
            for group in groups:
                fresh = group.fresh(now)
                if group.clears and fresh.until:
                    return ""
                if group.clears:
                    why = f"{fresh.source}: {fresh.why}"
        return why

    def _status(
        self,
        cert: CertFacts,
        issuer: ClientCert,
        now: float,
        denies: Denies,
        asking: frozenset[bytes],
    ) -> Answer:
        found = _Findings()
        clearing: list[tuple[_Group, float]] = []
        turn = math.inf
        key, serials = key_digest(issuer), refused_serials(cert.serial)
        for group in self._candidates(cert):
            standing = self._standing(group.any, key, now, denies, asking)
            for serial in serials if standing.revokes else ():
                listed = group.listed(cert.issuer, serial, now)
                if listed is not None:
                    return self._revoked(listed, now)
            turn = min(turn, group.turns(now))
            if not group.clears:
                why = group.any.unusable or "it was refused, so it only revokes"
                found.add(group.any.source, why)
            elif key in group.not_of:
                found.add(group.any.source, "it is of another key of the issuer, which has its own")
            elif standing.why:
                found.add(group.any.source, standing.why)
                found.retry = min(found.retry, standing.until)
            else:
                clearing.append((group, standing.until))
        answer = self._cleared(cert, clearing, now, found)
        answer = answer or found.answer("no CRL by the certificate's issuer")
        return answer._replace(until=min(answer.until, turn))

    def _candidates(self, cert: CertFacts) -> Iterator[_Group]:
        """Yield the groups of the issuer, and the indirect ones that the certificate names."""
        yield from self._groups.get(cert.issuer, ())
        if self._indirect:
            others = {name for point in cert.points for name in point.issuers} - {cert.issuer}
            for name in sorted(others):
                yield from (g for g in self._groups.get(name, ()) if g.scope.indirect)

    def _revoked(self, listed: _Listed, now: float) -> Answer:
        crl, detail = listed.crl, str(listed.entry)
        if not self._clock.fresh_until(crl, now):
            detail += ", by a CRL that is not current"
        return Answer(RevocationStatus.REVOKED, f"crl {crl.source}", detail)

    def _cleared(
        self,
        cert: CertFacts,
        groups: list[tuple[_Group, float]],
        now: float,
        found: _Findings,
    ) -> Answer | None:
        """Return GOOD if fresh CRLs cover all reasons (RFC 5280, 6.3.3), else None."""
        reasons, until, sources = 0, math.inf, []
        for group, ends in groups:
            covers = self._covers(group, cert)
            if not covers:
                found.add(group.any.source, "its scope doesn't include this certificate")
            if not covers & ~reasons:
                continue
            fresh = group.fresh(now)
            if not fresh.until:
                found.add(fresh.source, fresh.why)
                continue
            reasons |= covers
            until = min(until, fresh.until, ends)
            sources.append(fresh.source)
            if reasons == ALL_REASONS:
                return Answer(
                    RevocationStatus.GOOD, f"crl {', '.join(sources)}", "not listed", until
                )
        if reasons:
            found.add(", ".join(sources), "it covers only some reasons")
        return None

    @staticmethod
    def _covers(group: _Group, cert: CertFacts) -> int:
        """Return the reasons that a group covers for a certificate, by any distribution point."""
        crl = group.any
        if group.speaks_of_all and crl.issuer == cert.issuer:
            return ALL_REASONS
        reasons = 0
        for point in (implied_point(cert.issuer), *cert.points):
            reasons |= covered(crl.scope, crl.issuer, point, cert)
        return reasons

    # -- whether a CRL's signer may speak

    def _standing(
        self, crl: Crl, key: bytes, now: float, denies: Denies, asking: frozenset[bytes]
    ) -> _SignerStanding:
        """Check whether a CRL may cover certificates issued with `key` (a SHA-256)."""
        if key == crl.signer_key:
            return _SignerStanding(True, "")
        if key not in crl.speaks_for:
            return _SignerStanding(
                False, "its signer is not under the anchor of the certificate's issuer"
            )
        for signer in crl.signers:  # certificates of one key
            denied = denies(self._cert(signer.cert))
            if denied is not None:
                why = "its signer's certificate is on a denylist"
                return _SignerStanding(True, why, denied.until)
        # Any valid path to an anchor is enough; without one, report the fault of the best.
        standings = [self._signer_standing(s, now, denies, asking) for s in crl.signers]
        if not standings:
            return _SignerStanding(False, "its signer leads to no anchor")
        best = min(standings, key=lambda s: (s.why != "", not s.revokes))
        return best._replace(until=min(s.until for s in standings)) if best.why else best

    def _signer_standing(
        self, signer: Signer, now: float, denies: Denies, asking: frozenset[bytes]
    ) -> _SignerStanding:
        status, until = RevocationStatus.UNKNOWN, math.inf
        if not signer.issuer:
            status = RevocationStatus.GOOD
        elif signer.cert not in asking:
            facts, issuer = crl_facts(self._cert(signer.cert)), self._cert(signer.issuer)
            answer = self._status(facts, issuer, now, denies, asking | {signer.cert})
            status, until = answer.status, answer.until
        if status is RevocationStatus.REVOKED:
            return _SignerStanding(True, "its signer's certificate is revoked")
        if status is RevocationStatus.UNKNOWN and self._whole_chain:
            why = "whether its signer's certificate is revoked is unknown"
            return _SignerStanding(True, why, until)
        for start, stop in signer.valid:
            if start <= now < stop:
                return _SignerStanding(True, "", min(stop, until))
        begins = min((start for start, _ in signer.valid if start > now), default=math.inf)
        return _SignerStanding(True, "its signer's certificate is not valid now", begins)

    def _cert(self, der: bytes) -> ClientCert:
        cert = self._certs.get(der)
        if cert is None:
            cert = self._certs[der] = from_der(der)
        return cert
