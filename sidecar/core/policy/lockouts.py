"""Warn about a trust that denies everybody, now or later, because CAs or CRLs expire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sidecar.core.config.schema import Report
from sidecar.core.revocation.crl.index import Crl
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
    def crl_list(self) -> tuple[Crl, ...]: ...
    @property
    def ocsp(self) -> str: ...
    @property
    def missing(self) -> tuple[str, ...]: ...


def warn_about_lockouts(spec: TrustSpec, trust: Revocable, report: Report) -> None:
    """Warn about each CA that expires, and each CA whose required CRL is missing or expires."""
    authorities = trust.anchors.certificates
    for authority in authorities:
        report.warn(
            spec.node,
            f"CA {_shown(authority)} has ended: all its clients are denied",
            "add its successor",
            since=authority.not_after + 1,
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
    for authority in authorities:
        if trust.chain_all or not _issues_authorities(authority, authorities):
            _note_crls(spec, trust, authority, report)


def _note_crls(spec: TrustSpec, trust: Revocable, authority: ClientCert, report: Report) -> None:
    name = comparable_name(authority.subject_name)
    if any(crl.issuer not in _names(trust.anchors.certificates) for crl in trust.crl_list):
        return  # an indirect CRL: it alone says which certificates it covers
    complete = [crl for crl in trust.crl_list if crl.issuer == name and crl.delta_base is None]
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


def _issues_authorities(authority: ClientCert, authorities: Sequence[ClientCert]) -> bool:
    """Return whether the CA issued another CA of the trust, so that it probably issues no leaf."""
    name = comparable_name(authority.subject_name)
    return any(
        comparable_name(other.issuer_name) == name and other is not authority
        for other in authorities
        if comparable_name(other.subject_name) != name
    )


def _shown(authority: ClientCert) -> str:
    return repr(authority.dn[:100])
