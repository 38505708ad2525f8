"""Warn about a trust that denies everybody, now or later, by its CAs, CRLs and denylists."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from sidecar.core.config.schema import Report
from sidecar.core.revocation.crl.entries import HOLD, REMOVE
from sidecar.core.revocation.crl.index import Crl
from sidecar.core.revocation.crl.signers import key_digest
from sidecar.core.revocation.denied import denied_above
from sidecar.core.revocation.denylist import Denylist
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.der import comparable_name
from sidecar.core.x509.path_building import Anchors

from .spec import TrustSpec


class Revocable(Protocol):
    """The parts of a trust that are needed here."""

    @property
    def anchors(self) -> Anchors: ...
    @property
    def revocation(self) -> str: ...
    @property
    def chain_all(self) -> bool: ...
    @property
    def denylists(self) -> tuple[Denylist, ...]: ...
    @property
    def crl_list(self) -> tuple[Crl, ...]: ...
    @property
    def ocsp(self) -> str: ...
    @property
    def missing(self) -> tuple[str, ...]: ...


def warn_about_lockouts(spec: TrustSpec, trust: Revocable, report: Report) -> None:
    """Warn about each CA whose clients are all denied, and from or until when.

    It expires, isn't valid yet, leads to no anchor, is revoked, or its required CRL is missing or
    expires.
    """
    authorities = trust.anchors.certificates
    for authority in authorities:
        report.warn(
            spec.node,
            f"CA {_shown(authority)} has ended: all its clients are denied",
            "add its successor",
            since=authority.not_after + 1,
        )
        report.warn(
            spec.node,
            f"CA {_shown(authority)} is not valid yet: all its clients are denied",
            "add its predecessor, or correct the clock",
            until=authority.not_before,
        )
        _note_revoked(spec, trust, authority, report)
    for authority in _without_anchor(trust.anchors):
        report.warn(
            spec.node,
            f"CA {_shown(authority)} leads to no anchor of the trust: all its clients are denied",
            "add what issued it: to `ca` if it is an anchor, else to `intermediates`",
        )
    if trust.revocation == "off" or not spec.crl or trust.ocsp:
        return
    if trust.missing:
        if trust.revocation == "required":
            places = ", ".join(trust.missing)
            report.warn(
                spec.node,
                f"nothing was fetched yet from {places}: certificates that it covers are denied",
                "start mtls-sidecar-fetch",
            )
        return
    names = _names(authorities)
    if any(crl.issuer not in names for crl in trust.crl_list):
        return  # an indirect CRL: it alone says which certificates it covers
    # A CA that has issued another one of the trust probably issues no leaf.
    issuing = set() if trust.chain_all else issuers_of_others(authorities)
    complete = complete_by_issuer(trust.crl_list)
    for authority in authorities:
        name = comparable_name(authority.subject_name)
        if name not in issuing:
            own = [crl for crl in complete.get(name, ()) if crl.may_cover(key_digest(authority))]
            _note_crls(spec, trust, authority, own, report)


def _note_revoked(spec: TrustSpec, trust: Revocable, authority: ClientCert, report: Report) -> None:
    """Warn about an authority on a denylist or, if the whole chain is checked, on a CRL."""
    listed = denied_above(trust.denylists, [authority], -math.inf)
    places = [] if listed is None else [(listed.source, listed.until)]
    if trust.chain_all and trust.revocation != "off" and not trust.anchors.is_anchor(authority):
        issuer = comparable_name(authority.issuer_name)
        asked = (c for c in trust.crl_list if c.issuer == issuer or len(c.entries.others.data))
        found = ((crl, crl.find(issuer, authority.serial)) for crl in asked)
        # A delta CRL may lift a hold.
        on = (crl for crl, entry in found if entry and entry.reason not in (HOLD, REMOVE))
        places += [(f"CRL {crl.source}", math.inf) for crl in on]
    for place, until in places[:1]:
        report.warn(
            spec.node,
            f"CA {_shown(authority)} is revoked by {place}: all its clients are denied",
            "remove the CA, if that is meant",
            until=until,
        )


def _without_anchor(anchors: Anchors) -> list[ClientCert]:
    """Return the authorities whose name no chain of names leads from to an anchor."""
    left = [each for each in anchors.certificates if not anchors.is_anchor(each)]
    issued: dict[bytes, list[bytes]] = {}
    for each in left:
        name = comparable_name(each.subject_name)
        issued.setdefault(comparable_name(each.issuer_name), []).append(name)
    reached = _names([each for each in anchors.certificates if anchors.is_anchor(each)])
    waiting = [*reached]
    while waiting:
        new = set(issued.get(waiting.pop(), ())) - reached
        reached |= new
        waiting += new
    return [each for each in left if comparable_name(each.subject_name) not in reached]


def _note_crls(
    spec: TrustSpec,
    trust: Revocable,
    authority: ClientCert,
    complete: Sequence[Crl],
    report: Report,
) -> None:
    """Warn about an authority's complete CRLs: of none, of the future, or ended."""
    required = trust.revocation == "required"
    if not complete:
        if required:
            report.warn(
                spec.node,
                f"no CRL of CA {_shown(authority)}, and `revocation: required`: "
                "all its clients are denied",
                "add its CRL, or remove the CA",
            )
        return
    effect = "all its clients are denied" if required else "it only revokes, and never says good"
    first = min(complete, key=lambda crl: crl.this_update)
    report.warn(
        spec.node,
        f"CRL {first.source} of CA {_shown(authority)} is from the future: {effect}",
        "put the one of now there, or correct the clock",
        until=first.this_update - spec.clock_tolerance,
    )
    last = max(complete, key=lambda crl: crl.next_update or 0.0)
    ended = "has ended" if last.next_update else "has no nextUpdate"
    report.warn(
        spec.node,
        f"CRL {last.source} of CA {_shown(authority)} {ended}: {effect}",
        "put a newer one there",
        since=(last.next_update or float("-inf")) + spec.clock_tolerance + spec.crl_grace,
    )


def _names(certificates: Sequence[ClientCert]) -> set[bytes]:
    return {comparable_name(each.subject_name) for each in certificates}


def complete_by_issuer(crls: Iterable[Crl]) -> dict[bytes, list[Crl]]:
    """Return the complete CRLs of each issuer, by its comparable name."""
    found: dict[bytes, list[Crl]] = {}
    for crl in crls:
        if crl.delta_base is None:
            found.setdefault(crl.issuer, []).append(crl)
    return found


def issuers_of_others(certificates: Sequence[ClientCert]) -> set[bytes]:
    """Return the names of those who issued a certificate of another name."""
    pairs = [
        (comparable_name(c.issuer_name), comparable_name(c.subject_name)) for c in certificates
    ]
    return {issuer for issuer, subject in pairs if issuer != subject}


def _shown(authority: ClientCert) -> str:
    return repr(authority.dn[:100])
