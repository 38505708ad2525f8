"""Warn of a trust whose CRL is older than another trust's of the same issuer and scope."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.core.config.schema import Report
from sidecar.core.revocation.crl.index import Crl, goes_back, watermark

from .model import Trust
from .spec import PolicySpec


def warn_about_older_crls(spec: PolicySpec, trusts: Mapping[str, Trust], report: Report) -> None:
    """Report each CRL of a trust that has none as new as another trust has.

    Each trust decides by its own CRLs, so whom only the newer one lists gets in by the older one.
    """
    newest: dict[str, tuple[Crl, str]] = {}
    for name, trust in trusts.items():
        for crl in trust.crl_list:
            known = newest.get(crl.key)
            if known is None or _is_older(known[0], crl):
                newest[crl.key] = crl, name
    for name, trust in trusts.items():
        own: dict[str, Crl] = {}
        for crl in trust.crl_list:
            key = crl.key
            if key not in own or _is_older(own[key], crl):
                own[key] = crl
        for key, crl in own.items():
            newer, other = newest[key]
            if other != name and _is_older(crl, newer):
                report.warn(
                    spec.trust[name].node,
                    f"trust {name!r}: {crl.source} is older than {newer.source} of trust "
                    f"{other!r}, by the same issuer: whom only the newer one revokes gets in here",
                    "put the newest CRL there, too",
                )


def _is_older(one: Crl, other: Crl) -> bool:
    return goes_back(watermark(other), one) is not None
