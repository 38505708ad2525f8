"""Find the line in the policy file of a decision's location and rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sidecar.core.config.schema import Located
from sidecar.core.config.yaml_tree import Node

from .spec import LocationSpec, PolicySpec, RuleSpec

SECTIONS = ("deny", "allow", "without_certificate")
"""Keys of a location that hold rules, in the order of evaluation."""

Rules = Sequence[RuleSpec | Located]

_SECTION_OF = {"denied_by_rule": "deny", "exempt": "without_certificate", "allowed": "allow"}
_KEY_OF = {"public": "allow", "verified": "allow"}
"""Rules that are a word in `allow`; other rules, such as `same_origin`, are a key of their own."""


class RuleLines:
    """The lines of a policy's locations and rules."""

    def __init__(self, spec: PolicySpec) -> None:
        self._spec = spec
        self._locations = {each.name: each for each in spec.locations}
        self._rules: dict[str, dict[tuple[str, str], int]] = {}

    def line(self, location: str, reason: str, rule: str) -> int:
        """Return the line of the rule, else of the location; 0 if the policy has neither."""
        spec = self._locations.get(location)
        if spec is None:
            return 0
        if not rule:
            return spec.node.line
        if location not in self._rules:
            self._rules[location] = dict(reversed(list(self._lines(spec))))
        found = self._rules[location].get((_SECTION_OF.get(reason, ""), rule))
        return found or _key_line(self._spec, spec, _KEY_OF.get(rule, rule))

    def _lines(self, spec: LocationSpec) -> Iterator[tuple[tuple[str, str], int]]:
        for section in SECTIONS:
            for label, line in labelled(self._spec, rules_of(self._spec, spec, section), section):
                yield (section, label), line


def rules_of(policy: PolicySpec, location: LocationSpec, section: str) -> Rules:
    """Return the rules under one key of a location, or else of `defaults`."""
    for layer in (location, policy.defaults):
        found: Rules | None = getattr(layer, section)
        if found is not None:
            return found
    return ()


def labelled(
    policy: PolicySpec, rules: Rules, label: str, seen: set[str] | None = None
) -> Iterator[tuple[str, int]]:
    """Yield the displayed names of rules, also of nested rules and groups, with their lines.

    Those of a group are yielded once: `seen` has the groups before.
    """
    seen = set() if seen is None else seen
    for position, rule in enumerate(rules):
        place = f"{label}[{position}]"
        if isinstance(rule, Located):
            if rule.text not in seen:
                seen.add(rule.text)
                yield from labelled(policy, policy.groups.get(rule.text, ()), rule.text, seen)
            continue
        yield rule.name or place, rule.node.line
        for inner in (*(rule.any or ()), *(rule.all or ())):
            yield from labelled(policy, [inner], rule.name or place, seen)


def _key_line(policy: PolicySpec, location: LocationSpec, key: str) -> int:
    """Return the line of a key in the location, else in `defaults`, else of the location."""
    defaults = [value for name, value in policy.node.pairs or () if name.text == "defaults"]
    for node in (location.node, *defaults):
        for name, _ in _pairs(node):
            if name.text == key:
                return name.line
    return location.node.line


def _pairs(node: Node) -> list[tuple[Node, Node]]:
    return node.pairs or []
