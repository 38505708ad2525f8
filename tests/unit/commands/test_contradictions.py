"""Rules that can never match, and rules that `deny` leaves nobody to: told where it is proven.

The property test compares with brute force: no certificate and request of a small world may match a
rule that is told.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from functools import cache

import pytest
from asking import policy
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from sidecar.commands.asking import Circumstances, PolicyFile, request_of
from sidecar.commands.contradictions import contradictions
from sidecar.commands.explain import described
from sidecar.core.decision import Reason
from sidecar.core.errors import Diagnostic
from sidecar.core.evaluate import evaluate
from sidecar.core.policy.rule_lines import RuleLines
from sidecar.core.policy.spec import read_policy
from sidecar.core.request import AuthzRequest

NOW = 1780315200.0


def written(text: str) -> PolicyFile:
    spec = read_policy(text.encode(), "policy.yaml")
    return PolicyFile(policy(text), spec, "policy.yaml", RuleLines(spec))


def told(text: str, seconds: float = 60.0) -> list[Diagnostic]:
    found = list(contradictions(written(text), NOW, seconds))
    assert all(each.line and each.column and each.hint for each in found)
    return found


def at(keys: str, head: str = "") -> list[str]:
    text = f"version: 1\n{head}\nlocations:\n  - {{name: site, {keys}}}\n"
    return [each.message for each in told(text)]


NEVER = "rule allow[0] can never match: its conditions contradict each other"
WITHIN = "a rule within allow[0] can never match: its conditions contradict each other"


@pytest.mark.parametrize(
    "rule",
    [
        "{all: [{cn: alice}, {cn: bob}]}",
        "{cn: alice, not: {cn: alice}}",
        "{cn: [alice, bob], not: {any: [{cn: bob}, {cn: 'al*'}]}}",
        "{cn: alice, not: {any: [{cn: '*'}, {ou: x}]}}",
        "{cn: 'a*', all: [{cn: 'b*'}]}",
        "{cn: '~a+', all: [{cn: '~b+'}]}",
        "{issuer_cn: A, all: [{issuer_cn: B}]}",
        "{client_ip: 10.0.0.0/8, all: [{client_ip: 192.168.0.0/16}]}",
        "{from: 2027-01-31, all: [{until: 2027-01-01}]}",
        "{method: GET, all: [{method: POST}]}",
        "{method: GET, not: {method: [GET, POST]}}",
        "{serial: 0A, all: [{serial: 0B}]}",
        f"{{sha256: {'a' * 64}, all: [{{sha256: {'b' * 64}}}]}}",
        "{dn: 'CN=a,O=x', not: {dn: 'CN=a,O=x'}}",
        "{upn: 'Alice@x.org', not: {upn: ['bob@x.org', 'Alice@x.org']}}",
        "{email: 'alice@x.org', not: {email: '*@x.org'}}",
        "{uri: 'spiffe://x/a', not: {uri: 'spiffe://x/*'}}",
        "{ip: 10.1.0.0/16, not: {ip: 10.0.0.0/8}}",
        "{eku: serverAuth, not: {eku: serverAuth}}",
        "{not: {not: {cn: alice}}, cn: bob}",
    ],
)
def test_a_rule_that_contradicts_itself_is_told(rule: str) -> None:
    """One warning with its place, where no certificate and no request can match."""
    assert at(f"allow: [{rule}]") == [NEVER]
    assert at(f"allow: [{{any: [{rule}, {{o: x}}]}}]") == [WITHIN]


@pytest.mark.parametrize(
    "rule",
    [
        "{all: [{dns: a.example.org}, {dns: b.example.org}]}",  # SANs are alternatives
        "{all: [{email: a@x.org}, {uri: 'spiffe://x'}]}",
        "{upn: '~[A-Z]+'}",
        "{all: [{upn: '~[A-Z]+'}, {upn: 'A*'}]}",
        "{all: [{email: '~\\x41@x.org'}]}",
        "{any: [{email: 'A*@x.org'}]}",
        "{all: [{dns: '~a_b\\x2f'}]}",
        "{cn: [alice, bob], all: [{cn: [bob, eve]}]}",
        "{cn: 'a*', not: {cn: alice}}",
        "{cn: 'Müller', all: [{cn: 'M*'}, {cn: '~.*ller'}]}",
        "{not: {any: [{cn: '*'}, {ou: '*'}]}}",  # a certificate with neither
        "{client_ip: 10.0.0.0/8, all: [{client_ip: 10.1.0.0/16}]}",
        "{from: 2027-01-01, all: [{until: 2027-01-31}]}",
        "{from: 9999-12-31T12:00:00Z, any: [{cn: a}]}",
        "{serial: [0A, 0B], all: [{serial: 0B}]}",
        "{eku: serverAuth, all: [{eku: clientAuth}]}",
        "{policy_oid: 1.2.3, all: [{policy_oid: 1.2.4}]}",
        "{all: [{cn: '~(a|b)\\bc'}, {cn: abc}]}",  # no automaton: not proven
    ],
)
def test_a_rule_that_can_match_is_not_told(rule: str) -> None:
    """Nor is one for which there is no proof."""
    assert at(f"allow: [{rule}]") == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{all: [{cn: alice}, {cn: bob}]}", False),  # of several CNs, any refuses
        ("{cn: alice, not: {cn: alice}}", False),  # CN=alice and CN=eve
        ("{client_ip: 10.0.0.0/8, all: [{client_ip: 192.168.0.0/16}]}", False),  # unknown: both
        ("{dns: a.example.org, not: {dns: a.example.org}}", False),  # unreadable names: both
        ("{uri: 'https://x.org/a', not: {uri: 'https://x.org/a'}}", False),  # https://X.org/a
        (f"{{sha256: {'a' * 64}, all: [{{sha256: {'b' * 64}}}]}}", False),  # other encodings
        ("{serial: 0A, all: [{serial: 0B}]}", True),
        ("{from: 2027-01-31, all: [{until: 2027-01-01}]}", True),
        ("{not: {all: [{cn: alice}, {cn: bob}]}}", True),  # within `not`, all CNs: all are refused
        ("{not: {cn: alice, any: [{cn: bob}, {o: x}]}}", False),
    ],
)
def test_a_rule_that_refuses_is_read_from_its_side(rule: str, expected: bool) -> None:
    """What refuses may match partly, so most of what contradicts itself above doesn't here."""
    found = at(f"allow: verified, deny: [{rule}]")
    assert len(found) == expected
    assert all("deny[0]" in message for message in found)


def test_a_group_is_read_from_the_sides_on_which_it_is_used() -> None:
    """Once, however many locations use it; a name is told by which a decision would tell it."""
    head = "groups: {both: [{name: pair, all: [{cn: alice}, {cn: bob}]}]}"
    message = "rule pair can never match: its conditions contradict each other"
    assert at("allow: [both]}\n  - {name: other, allow: [both]", head) == [message]
    assert at("allow: verified, deny: [both]", head) == []
    assert at("allow: verified", head) == []


@pytest.mark.parametrize(
    ("allow", "deny", "expected"),
    [
        ("{cn: alice}", "{cn: alice}", True),
        ("{cn: alice, ou: x}", "{cn: 'a*'}", True),
        ("{client_ip: 10.1.0.0/16}", "{client_ip: 10.0.0.0/8}", True),
        ("staff", "staff", True),
        ("staff", "{cn: [alice, bob]}", True),
        ("{cn: alice, until: 2027-01-01}", "{cn: alice, until: 2027-02-01}", True),
        ("{cn: [alice, bob]}", "{cn: alice}", False),
        ("{cn: alice}", "{cn: alice, until: 2027-01-01}", False),
        ("{cn: alice}", "{cn: alice, client_ip: 10.0.0.0/8}", False),
        ("{cn: 'a*'}", "{cn: alice}", False),
        ("staff", "{cn: alice}", False),
        ("{ou: x}", "{cn: eve}", False),
        ("verified", "{cn: '*'}", False),
        ("public", "{cn: '*'}", False),
    ],
)
def test_a_rule_that_deny_leaves_nobody_to_is_told(allow: str, deny: str, expected: bool) -> None:
    """A rule, or a group as a whole; `deny` that leaves somebody, at some time, is no mistake."""
    head = "groups: {staff: [{cn: alice}, {cn: bob}]}"
    name = allow if allow == "staff" else "allow[0]"
    message = f"{name} lets nobody into location 'site': its `deny` refuses all that matches"
    assert at(f"allow: [{allow}], deny: [{deny}]", head) == [message] * expected


def test_what_is_allowed_everywhere_may_be_denied_at_a_location() -> None:
    """Rules of `defaults` are for many locations; their own `deny` is meant."""
    head = "defaults: {allow: [{cn: alice}, {cn: bob}]}"
    assert at("deny: [{cn: alice}]", head) == []
    head = "defaults: {allow: [{cn: alice}, {cn: bob}], deny: [{cn: alice}]}"
    assert len(at("stale: serve}\n  - {name: other", head)) == 1
    assert at("allow: [{cn: bob}]", head) == []


def test_who_needs_no_certificate_is_denied_by_the_request_alone() -> None:
    """`without_certificate` is compared with those rules of `deny` that ask for no certificate."""
    rules = "allow: verified, without_certificate: [{client_ip: 10.1.0.1}], "
    assert at(rules + "deny: [{client_ip: 10.1.0.0/16, cn: a}]") == []
    assert at(rules + "deny: [{client_ip: 10.1.0.0/16}]") == [
        "without_certificate[0] lets nobody into location 'site': "
        "its `deny` refuses all that matches"
    ]


def test_thousands_of_rules_take_no_longer_than_is_given() -> None:
    """What isn't proven by then isn't told; plain rules cost next to nothing."""
    allow = ", ".join(
        f"{{cn: u{i}, all: [{{ou: a}}, {{not: {{cn: 'v{i}*'}}}}]}}" for i in range(3000)
    )
    deny = ", ".join(f"{{cn: w{i}}}" for i in range(3000))
    text = f"version: 1\nlocations:\n  - {{name: site, allow: [{allow}], deny: [{deny}]}}\n"
    file = written(text)
    start = time.monotonic()
    assert list(contradictions(file, NOW, 1.0)) == []
    assert time.monotonic() - start < 20  # generous: a single step isn't interrupted


# -- against brute force ---------------------------------------------------------------------------


@cache
def world() -> list[AuthzRequest]:
    return [
        request_of(
            Circumstances(NOW, method=method, client_ip=address),
            described(json.dumps({"cn": cn, "dns": dns, "serial": serial, "upn": upn})),
        )._replace(location="site")
        for cn in [list(c) for n in (0, 1, 2) for c in itertools.combinations(["a", "b", "ab"], n)]
        for dns in ([], ["a.x"], ["b.x", "x"])
        for upn in ([], ["A@x"], ["a@x", "b@x"])
        for serial in ("01", "02")
        for method, address in (("GET", "10.0.0.1"), ("POST", "10.128.0.1"), ("", ""))
    ]


PATTERNS = {
    "cn": ["a", "b", "a*", "*b", "~a|b", "~[^a]+", "[a, b]"],
    "dns": ["a.x", "'*.x'", "~[ab].x"],
    "upn": ["A@x", "a@x", "'A*'", "~[a-z]@x"],
    "serial": ["01", "02", "[01, 02]"],
    "client_ip": ["10.0.0.0/8", "10.0.0.0/9", "10.128.0.1"],
    "method": ["POST", "[GET, POST]"],
    "until": ["2027-01-01"],
}
KEYS = st.sampled_from(sorted(PATTERNS)).flatmap(
    lambda key: st.sampled_from(PATTERNS[key]).map(
        lambda value: f"{key}: '{value}'" if value[0] in "*~" else f"{key}: {value}"
    )
)
PLAIN = KEYS.map(lambda key: f"{{{key}}}")


def nested(rules: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(rules, min_size=1, max_size=3).map(", ".join)
    joined = st.tuples(st.sampled_from(["all", "any"]), several)
    return st.one_of(
        joined.map(lambda found: f"{{{found[0]}: [{found[1]}]}}"),
        st.tuples(KEYS, joined).map(lambda f: f"{{{f[0]}, {f[1][0]}: [{f[1][1]}]}}"),
        st.tuples(KEYS, rules).map(lambda found: f"{{{found[0]}, not: {found[1]}}}"),
    )


RULES = nested(st.recursive(PLAIN, nested, max_leaves=4))


def reasons(text: str) -> Iterator[Reason]:
    rules = policy(text)
    yield from (evaluate(rules, each, NOW).reason for each in world())


@seed(1)
@settings(
    max_examples=int(os.environ.get("MTLS_SIDECAR_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(RULES, RULES)
def test_nobody_in_a_small_world_matches_what_is_told(rule: str, other: str) -> None:
    """As a rule of `allow` and of `deny`, and as one that `deny` is to leave nobody to."""
    head = "version: 1\nlocations:\n  - {name: site, same_origin: false, "
    allowed = head + f"allow: [{rule}]}}\n"
    if any("rule allow[0]" in each.message for each in told(allowed) if "within" not in str(each)):
        assert Reason.ALLOWED not in set(reasons(allowed)), rule
    denied = head + f"allow: verified, deny: [{rule}]}}\n"
    if any("rule deny[0]" in each.message for each in told(denied) if "within" not in str(each)):
        assert Reason.DENIED_BY_RULE not in set(reasons(denied)), rule
    both = head + f"allow: [{rule}], deny: [{other}]}}\n"
    if any("lets nobody" in each.message for each in told(both)):
        assert Reason.ALLOWED not in set(reasons(both)), (rule, other)
