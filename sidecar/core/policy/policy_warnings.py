"""Warn about parts of a policy that are valid and can have no effect.

A warning may begin at a later time, such as a rule's `until` or the end of a CA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sidecar.core.config.schema import Located, Report
from sidecar.core.config.yaml_tree import Node
from sidecar.core.x509.certificate import ClientCert

from .patterns import KEY_COMPARISONS, ComparedValue, KeyComparison, Pattern
from .spec import BehaviourSpec, LocationSpec, PolicySpec, RuleSpec, TrustSpec

_AFTER_PUBLIC = (
    "trust",
    "deny",
    "san_matches_host",
    "sni_matches_host",
    "public_methods",
    "same_origin",
    "forward_cert",
    "cache_seconds",
    "without_certificate",
    "stale",
)
"""Keys that have no effect if a location is public."""


def warn_about_policy(spec: PolicySpec, report: Report) -> None:
    """Add all warnings about a policy to the report."""
    for rules in spec.groups.values():
        _warn_about_ends(rules, report)
    for layer in (spec.defaults, *spec.locations):
        _warn_about_ends(layer.allow or (), report)
        _warn_about_ends(layer.deny or (), report)
        _warn_about_ends(layer.without_certificate or (), report)
    for location in spec.locations:
        _warn_about_location(location, spec.defaults, report)
    for name, trust in spec.trust.items():
        _warn_about_trust(name, trust, report)
    _warn_about_unused_trusts(spec, report)
    if not spec.locations:
        report.warn(spec.node, "no locations: everything is denied", "add one")


def warn_about_issuers(spec: PolicySpec, authorities: Sequence[ClientCert], report: Report) -> None:
    """Warn about each issuer in a rule that is no authority of a trust: it matches no client.

    A client's issuer is one of them.  An authority that is a client itself may have another.
    """
    if not spec.trust or any("cn" in each.unreadable for each in authorities):
        return
    layers = (spec.defaults, *spec.locations)
    for granting in (*spec.groups.values(), *(layer.allow or () for layer in layers)):
        for rule in _rules(granting):
            _warn_about_issuer(rule, authorities, report, _AS_SUBJECTS)
    for refusing in (layer.deny or () for layer in layers):
        for rule in _rules(refusing):
            _warn_about_issuer(rule, authorities, report, _AS_ISSUERS)


_AS_ISSUERS = {key: KEY_COMPARISONS[key] for key in ("issuer_cn", "issuer_dn")}
_AS_SUBJECTS = {"issuer_cn": KEY_COMPARISONS["cn"], "issuer_dn": KEY_COMPARISONS["dn"]}
"""What grants by an issuer compares it like a subject: case and blanks count."""


def _warn_about_issuer(
    rule: RuleSpec,
    authorities: Sequence[ClientCert],
    report: Report,
    compared: Mapping[str, KeyComparison],
) -> None:
    for key, patterns in rule.tests:
        if key not in compared:
            continue
        kind = compared[key]
        names: list[str | bytes]
        if key == "issuer_cn":
            names = [name for each in authorities for name in (*each.cn, *each.issuer_cn)]
            shown = [name for each in authorities for name in each.cn]
        else:
            names = [name for each in authorities for name in (each.subject_name, each.issuer_name)]
            shown = [each.dn for each in authorities]
        values = [kind.refuses(name) for name in dict.fromkeys(names)]
        for pattern in patterns:
            refusing = kind.parse(pattern.text).on(True)
            if not any(_matches(refusing, value) for value in values):
                found = ", ".join(repr(name[:100]) for name in list(dict.fromkeys(shown))[:3])
                report.warn(
                    rule.node,
                    f"{key}: no authority of the policy's trusts has the name {pattern.text!r}",
                    f"they have {found}",
                )


def _matches(pattern: Pattern, value: ComparedValue) -> bool:
    if any(key in pattern.exact for key in value.keys):
        return True
    return pattern.test is not None and any(map(pattern.test, value.texts))


def _rules(rules: Sequence[RuleSpec | Located]) -> Iterator[RuleSpec]:
    """Yield the rules of a list and the rules nested in them; named groups are not expanded."""
    for rule in rules:
        if isinstance(rule, RuleSpec):
            yield rule
            for part in (rule.any, rule.all, rule.not_):
                yield from _rules(part or ())


def _warn_about_ends(rules: Sequence[RuleSpec | Located], report: Report) -> None:
    for rule in _rules(rules):
        if rule.until is not None and rule.until_node is not None:
            report.warn(
                rule.until_node,
                f"`until: {rule.until_node.text}` is past: the rule no longer matches",
                "remove the rule, or write a later date",
                since=rule.until,
            )


def _key(node: Node, name: str) -> Node | None:
    """Return the node of a key in a mapping, or None if it is absent."""
    return next((key for key, _ in node.pairs or () if key.text == name), None)


def _is_public(rules: tuple[RuleSpec | Located, ...] | None) -> bool:
    first = rules[0] if rules else None
    return isinstance(first, Located) and first.text == "public"


def _warn_about_location(location: LocationSpec, defaults: BehaviourSpec, report: Report) -> None:
    allow = defaults.allow if location.allow is None else location.allow
    if allow is None:
        report.warn(
            location.node,
            f"location {location.name!r} has no `allow`: everybody is denied",
            "add allow, or allow: [] if that is intended",
        )
    deny = _key(location.node, "deny")
    if deny is not None and location.deny == () and defaults.deny:
        report.warn(
            deny,
            f"an empty `deny` in location {location.name!r} removes the deny rules of defaults",
            "remove it to keep them",
        )
    if not _is_public(allow):
        return
    for name in _AFTER_PUBLIC:
        key = _key(location.node, name)
        if key is not None and getattr(location, name) not in (None, False, 0, ()):
            report.warn(
                key,
                f"`{name}` has no effect here: `allow: public` already lets everybody in",
                f"remove {name}, or restrict allow",
            )


def _warn_about_trust(name: str, trust: TrustSpec, report: Report) -> None:
    asks = bool(trust.crl or trust.ocsp)
    key = _key(trust.node, "revocation")
    if key is not None and asks and trust.revocation == "off":
        report.warn(
            key,
            f"trust {name!r} names crl or ocsp, but `revocation: off` uses neither",
            "write revocation: required or best_effort",
        )
    if key is not None and not asks and trust.revocation == "best_effort":
        report.warn(key, f"trust {name!r} names neither crl nor ocsp", "name one")
    grace = _key(trust.node, "crl_grace")
    if grace is not None and trust.crl_grace and not trust.crl:
        report.warn(grace, "`crl_grace` has no effect without crl", "remove it")


def _warn_about_unused_trusts(spec: PolicySpec, report: Report) -> None:
    """Warn about unused trusts; a location without `trust` uses all of them."""
    named: set[str] = set()
    for location in spec.locations:
        trusts = spec.defaults.trust if location.trust is None else location.trust
        if trusts is None:
            return
        named |= {each.text for each in trusts}
    for name, trust in spec.trust.items():
        if spec.locations and name not in named:
            report.warn(trust.node, f"no location names trust {name!r}", "name it, or remove it")
