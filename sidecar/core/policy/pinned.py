"""Warn about clients' own certificates among the anchors that may issue others.

`openssl req -x509` makes a CA (CA:TRUE, no keyUsage) unless it is told otherwise.  A client's
certificate made so and named in `ca` lets its holder issue certificates of any name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sidecar.core.config.schema import Located, Report
from sidecar.core.x509.certificate import ClientCert
from sidecar.core.x509.path_building import Authority

from .model import Trust
from .patterns import KEY_COMPARISONS
from .spec import PolicySpec, RuleSpec

_SAME = ("cn", "dns", "email", "uri", "upn", "ip", "serial", "sha256", "spki_sha256")
_VALUES = {"dn": "subject_name", **dict(zip(_SAME, _SAME, strict=True))}
"""The keys of a rule that name one client, and where their values are."""

_HINT = (
    "make a client's own certificate with CA:FALSE: openssl req -x509 "
    "-addext basicConstraints=critical,CA:FALSE"
)


def warn_about_pinned(spec: PolicySpec, trusts: Mapping[str, Trust], report: Report) -> None:
    """Warn about each rule that lets in a self-signed authority of a trust by its own name."""
    known = {
        trust: [cert for cert in found.anchors.certificates if _is_root(cert)]
        for trust, found in trusts.items()
    }
    lists = [*spec.groups.values()]
    lists += [layer.allow or () for layer in (spec.defaults, *spec.locations)]
    for rule in (rule for rules in lists for rule in _granting(rules)):
        for trust, roots in known.items():
            for text in _named(rule, roots):
                report.warn(
                    rule.node,
                    f"{text!r} names a CA of trust {trust!r}: whoever has its key can issue "
                    "certificates of any name",
                    _HINT,
                )


def _is_root(cert: ClientCert) -> bool:
    return cert.subject_name == cert.issuer_name and Authority.of(cert).is_ca


def _granting(rules: Sequence[RuleSpec | Located]) -> Iterator[RuleSpec]:
    for rule in rules:
        if isinstance(rule, RuleSpec):
            yield rule
            yield from _granting(rule.any or ())
            yield from _granting(rule.all or ())


def _named(rule: RuleSpec, roots: Sequence[ClientCert]) -> Iterator[str]:
    """Yield the exact patterns of a rule that one of these certificates matches."""
    for key, patterns in rule.tests:
        for root in roots if key in _VALUES else ():
            found = getattr(root, _VALUES[key])
            values = found if isinstance(found, tuple) else (found,)
            keys = {each for value in values for each in KEY_COMPARISONS[key].grants(value).keys}
            yield from (pattern.text for pattern in patterns if not keys.isdisjoint(pattern.exact))
