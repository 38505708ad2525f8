"""Write as a formula what a location allows.

The formula follows `evaluate` step by step and `rules` rule by rule; whatever is found with its
help is decided again by `evaluate` before it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sidecar.core.config.schema import Located
from sidecar.core.ip_address import parse_ip_address
from sidecar.core.policy.model import Location, Policy, Trust
from sidecar.core.policy.patterns import KEY_COMPARISONS
from sidecar.core.policy.rule_lines import rules_of
from sidecar.core.policy.rules import REQUEST_KEYS
from sidecar.core.policy.spec import LocationSpec, PolicySpec, RuleSpec
from sidecar.core.x509.service_identity import fold_dns, san_matches_host

from .atoms import Atoms
from .terms import FALSE, TRUE, Term, Terms

Rules = Sequence[RuleSpec | Located]

SUCCESS, FAILED = "SUCCESS", "FAILED:self-signed certificate"
"""nginx's verdicts that a policy can tell apart."""

CERT, ORIGIN, HOST, SNI = "cert", "origin", "host", "sni"
"""Flags: a certificate is there, another site asks, the host is covered, the SNI is the host."""


@dataclass(slots=True)
class Formulas:
    """Writes the formulas of both policies, over the same atoms.

    Formulas, atoms and groups may be shared by many pairs of locations of the same two policies.
    `host` is the host that is asked for, where it is given; `served` is one that the location
    serves, to show where any would do.  `denied` are the entries of denylists
    that tell the policies apart, or that a rule names: the others never matter.
    """

    host: str = ""
    served: str = ""
    terms: Terms = field(default_factory=Terms)
    atoms: Atoms = field(default_factory=Atoms)
    denied: frozenset[tuple[str, int]] = frozenset()
    groups: dict[tuple[int, str, bool, bool], Term] = field(default_factory=dict)

    def allowed(self, policy: Policy, spec: PolicySpec, location: Location | None) -> Term:
        """Whether nginx is told to let a request to the location through."""
        if location is None:
            return FALSE
        if location.monitor or location.public:
            return TRUE
        written = next(each for each in spec.locations if each.name == location.name)
        return self.terms.any(
            [
                self._public_method(location),
                self._without_certificate(spec, written, location),
                self._with_certificate(policy, spec, written, location),
            ]
        )

    def _public_method(self, location: Location) -> Term:
        if not location.public_methods:
            return FALSE
        kind = KEY_COMPARISONS["method"]
        patterns = [kind.parse(each) for each in sorted(location.public_methods)]
        return self.terms.atom(self.atoms.key("method", patterns, refusing=False))

    def _flag(self, name: str, *, holds: bool = True) -> Term:
        return self.terms.atom(self.atoms.flag(name), holds=holds)

    def _own_origin(self, location: Location) -> Term:
        return self._flag(ORIGIN, holds=False) if location.same_origin else TRUE

    def _without_certificate(
        self, policy: PolicySpec, spec: LocationSpec, location: Location
    ) -> Term:
        exempt = self.any_of(policy, rules_of(policy, spec, "without_certificate"), refusing=False)
        deny = self.any_of(policy, rules_of(policy, spec, "deny"), refusing=True, of_request=True)
        return self.terms.all(
            [
                exempt,
                self._flag(CERT, holds=False),
                self._own_origin(location),
                self.terms.negate(deny),
            ]
        )

    def _with_certificate(
        self, policy: Policy, spec: PolicySpec, written: LocationSpec, location: Location
    ) -> Term:
        deny = self.any_of(spec, rules_of(spec, written, "deny"), refusing=True)
        allow = TRUE
        if not location.verified:
            allow = self.any_of(spec, rules_of(spec, written, "allow"), refusing=False)
        return self.terms.all(
            [
                self._flag(CERT),
                self._verified(policy, location),
                self._names(location),
                self._own_origin(location),
                self.terms.negate(deny),
                allow,
            ]
        )

    # -- trust

    def _verified(self, policy: Policy, location: Location) -> Term:
        """nginx's verdict, the issuer and the denylists, trust by trust."""
        success = self.terms.atom(self.atoms.among("verify", frozenset({SUCCESS})))
        failed = self.terms.atom(self.atoms.among("verify", frozenset({FAILED})))
        if not policy.trusts:
            return success
        return self.terms.any(
            self.terms.all(
                [
                    self.terms.atom(self.atoms.among("trust", frozenset({trust.name}))),
                    self.terms.any([success, failed]) if trust.sidecar_verifies else success,
                    self.terms.negate(self._on_denylist(trust)),
                ]
            )
            for trust in location.trusts
        )

    def _on_denylist(self, trust: Trust) -> Term:
        found = []
        for denylist in trust.denylists:
            for kind, number in self.denied & denylist.entries.keys():
                until = denylist.entries[kind, number].until
                text = f"{number:X}" if kind == "serial" else f"{number:064x}"
                pattern = KEY_COMPARISONS[kind].parse(text)
                entry = self.terms.atom(self.atoms.key(kind, [pattern], refusing=False))
                found.append(self.terms.all([entry, self._window(None, until)]))
        return self.terms.any(found)

    # -- names

    def _names(self, location: Location) -> Term:
        san = self._covered() if location.san_matches_host else TRUE
        return self.terms.all([san, self._flag(SNI) if location.sni_matches_host else TRUE])

    def _covered(self) -> Term:
        """Whether the certificate covers the host.

        Where the host is free, it may be any that the certificate covers, or one that it doesn't.
        """
        named = {"ip": _address_of(self.host)}
        named["dns"] = "" if named["ip"] else self.host or self.served
        certified = self.terms.any(
            self.terms.atom(
                self.atoms.predicate(kind, named[kind], lambda name: covers_host(name, self.host))
            )
            for kind in ("dns", "ip")
        )
        return certified if self.host else self.terms.all([self._flag(HOST), certified])

    # -- rules

    def any_of(
        self, policy: PolicySpec, rules: Rules, *, refusing: bool, of_request: bool = False
    ) -> Term:
        """Whether any of some rules matches; `of_request`: of those about the request alone."""
        found = []
        for rule in rules:
            if isinstance(rule, Located):
                found.append(self._group(policy, rule.text, refusing, of_request))
            elif not (of_request and asks_for_certificate(policy, rule)):
                found.append(self._rule(policy, rule, refusing))
        return self.terms.any(found)

    def _group(self, policy: PolicySpec, name: str, refusing: bool, of_request: bool) -> Term:
        """A group's rules; written once, however many locations list it."""
        key = (id(policy), name, refusing, of_request)
        if key not in self.groups:
            members = policy.groups.get(name, ())
            found = self.any_of(policy, members, refusing=refusing, of_request=of_request)
            self.groups[key] = found
        return self.groups[key]

    def _rule(self, policy: PolicySpec, rule: RuleSpec, refusing: bool) -> Term:
        parts = [
            self.terms.atom(self.atoms.key(key, patterns, refusing=refusing))
            for key, patterns in rule.tests
        ]
        parts.append(self._window(rule.from_, rule.until))
        if rule.any is not None:
            parts.append(self.any_of(policy, rule.any, refusing=refusing))
        parts += [self.any_of(policy, [each], refusing=refusing) for each in rule.all or ()]
        if rule.not_ is not None:
            within = self.any_of(policy, rule.not_, refusing=not refusing)
            parts.append(self.terms.negate(within))
        return self.terms.all(parts)

    def _window(self, start: float | None, end: float | None) -> Term:
        first = -math.inf if start is None else start
        last = math.inf if end is None else end
        if (first, last) == (-math.inf, math.inf):
            return TRUE
        return self.terms.atom(self.atoms.window(first, last))


def asks_for_certificate(policy: PolicySpec, rule: RuleSpec | Located) -> bool:
    """Whether a rule, or one within it, asks about the certificate."""
    if isinstance(rule, Located):
        return any(asks_for_certificate(policy, each) for each in policy.groups.get(rule.text, ()))
    if any(key not in REQUEST_KEYS for key, _ in rule.tests):
        return True
    inner = (*(rule.any or ()), *(rule.all or ()), *(rule.not_ or ()))
    return any(asks_for_certificate(policy, each) for each in inner)


def _address_of(host: str) -> str:
    """The address that a host is; empty where it is a name."""
    try:
        return str(parse_ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        return ""


def covers_host(name: str, host: str = "") -> bool:
    """Whether a name of a certificate covers the host, or without one a host at all."""
    wanted = host or host_of(name)
    return san_matches_host((name,), (name,), wanted)


def host_of(name: str) -> str:
    """A host that a name of a certificate may cover: `*.x` covers `any.x`."""
    folded = fold_dns(name)
    if ":" in folded:
        return f"[{folded}]"
    return "any." + folded[2:] if folded.startswith("*.") else folded
