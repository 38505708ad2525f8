"""Describe a location's rules in plain English, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sidecar.core.config.schema import Located

from .patterns import Pattern
from .rule_lines import Rules, rules_of
from .spec import LocationSpec, PolicySpec, RuleSpec

_KEYS = {
    "cn": "the CN",
    "o": "the organization",
    "ou": "the organizational unit",
    "dn": "the subject",
    "email": "a mail address",
    "dns": "a DNS name",
    "uri": "a URI",
    "ip": "an IP address of the certificate",
    "upn": "a user principal name",
    "issuer_cn": "the issuer's CN",
    "issuer_dn": "the issuer",
    "serial": "the serial number",
    "sha256": "the certificate's SHA-256",
    "spki_sha256": "the key's SHA-256",
    "eku": "an extended key usage",
    "policy_oid": "a certificate policy",
    "client_ip": "the client's address",
    "method": "the method",
}
_WHAT = {
    "deny": "denies",
    "allow": "allows",
    "without_certificate": "lets in without a certificate",
}
_DEPTH = 40
"""Maximum nesting that is described; the compiler refuses deeper nesting."""


def rules_in_words(policy: PolicySpec, location: LocationSpec) -> list[str]:
    """Describe the rules of `deny`, `allow` and `without_certificate`, with groups expanded."""
    found = []
    if (location.mode or policy.defaults.mode) == "monitor":
        found.append("lets everybody in, and records what these rules would decide: mode: monitor")
    for section, verb in _WHAT.items():
        rules = rules_of(policy, location, section)
        if section == "allow" and len(rules) == 1:
            word = _word(rules[0], location)
            if word:
                found.append(word)
                continue
        found += [f"{verb} {each}" for each in _lines(policy, rules, section)]
        if section == "allow" and not rules:
            found.append(f"allows nobody (line {location.node.line})")
    return found


def _word(rule: RuleSpec | Located, location: LocationSpec) -> str:
    if not isinstance(rule, Located) or rule.text not in ("public", "verified"):
        return ""
    who = "everybody" if rule.text == "public" else "any certificate that verifies"
    return f"allows {who}: {rule.text} (line {rule.node.line or location.node.line})"


def _lines(policy: PolicySpec, rules: Rules, label: str) -> Iterator[str]:
    for position, rule in enumerate(rules):
        if isinstance(rule, Located):
            yield from _lines(policy, policy.groups.get(rule.text, ()), rule.text)
            continue
        name = rule.name or f"{label}[{position}]"
        yield f"if {_said(policy, rule)}: {name} (line {rule.node.line})"


def _said(policy: PolicySpec, rule: RuleSpec | Located, depth: int = 0) -> str:
    if depth > _DEPTH:
        return "…"
    if isinstance(rule, Located):
        return _joined(policy, policy.groups.get(rule.text, ()), "or", depth)
    parts = [_key(key, patterns) for key, patterns in rule.tests]
    if rule.from_ is not None:
        parts.append(f"it is {_moment(rule.from_)} or later")
    if rule.until is not None:
        parts.append(f"it is before {_moment(rule.until)}")
    for inner, word, prefix in (
        (rule.any, "or", ""),
        (rule.all, "and", ""),
        (rule.not_, "or", "not "),
    ):
        if inner is not None:
            parts.append(f"{prefix}({_joined(policy, inner, word, depth)})")
    said = " and ".join(parts)
    return said + (f", with the roles {', '.join(rule.roles)}" if rule.roles else "")


def _joined(policy: PolicySpec, rules: Rules, word: str, depth: int) -> str:
    said = []
    for rule in rules:
        found = _said(policy, rule, depth + 1)
        several = isinstance(rule, Located) and len(policy.groups.get(rule.text, ())) > 1
        said.append(f"({found})" if several and word == "and" else found)
    return f" {word} ".join(said)


def _key(key: str, patterns: Sequence[Pattern]) -> str:
    return f"{_KEYS[key]} {' or '.join(_pattern(key, each.text) for each in patterns)}"


def _pattern(key: str, text: str) -> str:
    if text.startswith("~"):
        return f"matches the regular expression {text[1:]}"
    if "*" in text:
        return f"is like {text}"
    if key in ("ip", "client_ip") and "/" in text:
        return f"is in {text}"
    return f"is {text}"


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
