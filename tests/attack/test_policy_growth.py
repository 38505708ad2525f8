"""How the cost of a policy grows with each of its sizes: by calls of functions, not by seconds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from counted import calls, growth

from sidecar.core.errors import PolicyError
from sidecar.core.policy.compile import compile_draft
from sidecar.core.policy.rule_lines import RuleLines

MOST = 2.3
"""Growth of what is linear, with a little for what isn't counted evenly."""


def each(number: int, text: str) -> str:
    return "".join(text.replace("%", str(at)) + "\n" for at in range(number))


def listed(number: int, text: str) -> str:
    return ", ".join(text.replace("%", str(at)) for at in range(number))


def locations(number: int, keys: str) -> str:
    return "locations:\n" + each(number, f"  - {{name: l%, {keys}}}")


SIZES: dict[str, tuple[int, Callable[[int], str]]] = {
    "locations": (50, lambda n: locations(n, "location: /x%/, allow: verified")),
    "locations by expression": (20, lambda n: locations(n, "location: ~ ^/%/, allow: verified")),
    "servers": (
        50,
        lambda n: locations(n, "server_name: h%.example, location: /, allow: verified"),
    ),
    "names of a server": (
        50,
        lambda n: (
            "locations:\n"
            + "".join(
                f"  - {{name: l{k}, server_name: [{listed(n, 'h%.example')}], location: /{k}, "
                "allow: verified}\n"
                for k in range(2)
            )
        ),
    ),
    "rules": (50, lambda n: f"locations: [{{name: l, allow: [{listed(n, '{cn: u%}')}]}}]"),
    "globs": (50, lambda n: f"locations: [{{name: l, allow: [{listed(n, '{cn: u%*}')}]}}]"),
    "patterns": (50, lambda n: f"locations: [{{name: l, allow: [{{cn: [{listed(n, 'u%')}]}}]}}]"),
    "roles": (
        50,
        lambda n: f"locations: [{{name: l, allow: [{{cn: a, roles: [{listed(n, 'r%')}]}}]}}]",
    ),
    "denying rules of defaults, and locations": (
        20,
        lambda n: (
            f"defaults: {{deny: [{listed(n, '{cn: u%}')}]}}\n{locations(n, 'allow: verified')}"
        ),
    ),
    "exemptions of defaults, and locations": (
        20,
        lambda n: (
            f"defaults: {{without_certificate: [{listed(n, '{client_ip: 10.0.0.%}')}]}}\n"
            + locations(n, "allow: verified")
        ),
    ),
    "members of a denied group, and locations": (
        20,
        lambda n: (
            f"groups: {{g: [{listed(n, '{client_ip: 10.0.0.%}')}]}}\n"
            + locations(n, "allow: verified, deny: [g]")
        ),
    ),
    "groups that name the next one twice": (
        4,
        lambda n: (
            "groups:\n  g0: [{cn: alice}]\n"
            + "".join(f"  g{at + 1}: [g{at}, g{at}]\n" for at in range(n))
            + f"locations: [{{name: l, allow: verified, deny: [g{n}]}}]"
        ),
    ),
    "trusts, and locations of all of them": (
        20,
        lambda n: "trust:\n" + each(n, "  t%: {ca: ca.crt}") + locations(n, "allow: verified"),
    ),
}

UNKNOWN: dict[str, Callable[[int], str]] = {
    "groups, and names of none of them": (
        lambda n: "groups:\n" + each(n, "  group%: [{cn: u%}]") + locations(n, "allow: [grupp%]")
    ),
    "trusts, and names of none of them": (
        lambda n: (
            "trust:\n"
            + each(n, "  trust%: {ca: ca.crt}")
            + locations(n, "trust: [trusst%], allow: verified")
        )
    ),
}


def compiled(text: str) -> Callable[[], object]:
    data = b"version: 1\n" + text.encode()

    def compiling() -> None:
        with suppress(PolicyError):
            draft = compile_draft(data, "policy.yaml")
            draft.bind(draft.policy.trusts)
            next(iter(draft.policy.locations.values())).deny.labels()
            RuleLines(draft.spec).line("l", "denied_by_rule", "other")

    return compiling


@pytest.mark.parametrize("size", SIZES)
def test_cost_is_linear(size: str) -> None:
    """Twice as much of it makes at most twice as many calls when a policy is read."""
    at, text = SIZES[size]
    assert growth(lambda number: compiled(text(number)), at) < MOST


@pytest.mark.parametrize("kind", UNKNOWN)
def test_names_are_suggested_for_a_few(kind: str) -> None:
    """What is meant by an unknown name is looked for among a bounded number of names."""
    few, more = (calls(compiled(UNKNOWN[kind](number))) for number in (150, 300))
    assert more < MOST * few
