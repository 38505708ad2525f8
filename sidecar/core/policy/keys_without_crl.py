"""Warn of a CA with several keys of which one has no CRL in force, where another's says good."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.core.config.schema import Report
from sidecar.core.revocation.crl.index import Crl
from sidecar.core.revocation.crl.signers import key_digest
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.der import comparable_name
from sidecar.core.x509.path_building import Authority

from .lockouts import Revocable, complete_by_issuer, issuers_of_others
from .spec import TrustSpec


def warn_about_keys_without_crl(spec: TrustSpec, trust: Revocable, report: Report) -> None:
    """Report each key of a CA without a complete CRL, if that of another key covers its clients.

    By RFC 5280, 5, it lists them, too.  But there are CAs with a CRL for each key (Windows), and
    nothing in one says so.  A key that signs CRLs alone always does it for another one.
    """
    complete = complete_by_issuer(crl for crl in trust.crl_list if not crl.unusable)
    if trust.revocation == "off" or trust.missing or not complete:
        return
    authorities = trust.anchors.certificates
    silent = set() if trust.chain_all else issuers_of_others(authorities)
    named: dict[bytes, list[ClientCert]] = {}
    for authority in authorities:
        name = comparable_name(authority.subject_name)
        if name in complete and name not in silent:
            named.setdefault(name, []).append(authority)
    for name, alike in named.items():
        _look_at_keys(spec, alike, complete[name], report)


def _look_at_keys(
    spec: TrustSpec, alike: Sequence[ClientCert], crls: Sequence[Crl], report: Report
) -> None:
    keys: dict[bytes, list[ClientCert]] = {}
    for authority in alike:
        if Authority.of(authority).is_ca:
            keys.setdefault(key_digest(authority), []).append(authority)
    signed = {crl.signer_key for crl in crls}
    for key in keys.keys() - signed:
        others = (c.source for c in crls if c.may_cover(key) and c.signer_key in keys)
        source = next(others, None)
        if source is not None:
            newest = max(keys[key], key=lambda each: each.not_after)
            report.warn(
                spec.node,
                f"no CRL is in force by the key of CA {newest.dn[:100]!r} with the serial number "
                f"{newest.serial:X}: {source}, by another key of that CA, says good of its clients",
                "if the CA has a CRL for each of its keys (Windows), name that one in `crl`, too",
                until=newest.not_after + 1,
            )
