"""Rules over certificate and request."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from asking import ask, site
from counted import calls
from cryptography import x509
from pki import CA, Leaf

from sidecar.core.decision import Reason
from sidecar.core.errors import PolicyError
from sidecar.core.policy.patterns import KEY_COMPARISONS, ComparedValue
from sidecar.core.policy.rules import FREE_VALUES, Facts, Match, RuleSet

staff = CA("Staff")
alice = staff.issue(
    "alice",
    o="Example",
    ou=["SRE"],
    dns=["a.example.com", "b.example.com"],
    email=["alice@example.com"],
    uri=["spiffe://example.org/ns/prod/web"],
    ip=["192.0.2.7"],
    upn=["alice@corp"],
    policies=["1.2.3.4"],
    serial=0x0A1B2C,
)
two = staff.issue(cns=["alice", "mallory"])


def allowed(rule: str, leaf: Leaf = alice, **fields: str) -> bool:
    return ask(site(f"[{rule}]"), leaf, **fields).allowed


def denied(rule: str, leaf: Leaf = alice, **fields: str) -> bool:
    found = ask(site("verified", f"    deny: [{rule}]\n"), leaf, **fields).reason
    assert found in (Reason.DENIED_BY_RULE, Reason.ALLOWED)
    return found is Reason.DENIED_BY_RULE


@pytest.mark.parametrize(
    "rule",
    [
        "{cn: alice}",
        "{cn: [x, alice]}",
        '{cn: "al*"}',
        '{cn: "~al.*"}',
        "{o: Example}",
        "{ou: SRE, cn: alice}",
        '{dn: "*CN=alice*"}',
        "{dns: b.example.com}",
        '{dns: "*.example.com"}',
        "{email: alice@EXAMPLE.com}",
        '{uri: "spiffe://example.org/ns/prod/*"}',
        "{ip: 192.0.2.0/24}",
        "{upn: alice@corp}",
        "{issuer_cn: Staff}",
        '{issuer_dn: "CN=Staff"}',
        '{serial: "0A:1B:2C"}',
        "{serial: 0a1b2c}",
        f"{{sha256: {alice.sha256}}}",
        f"{{spki_sha256: {alice.spki_sha256.upper()}}}",
        "{eku: clientAuth}",
        "{policy_oid: 1.2.3.4}",
        "{any: [{cn: x}, {cn: alice}]}",
        "{all: [{cn: alice}, {ou: SRE}]}",
        "{not: {cn: mallory}}",
        "{cn: alice, not: [{ou: HR}, {ou: Sales}]}",
        "{from: 2020-01-01, until: 2099-12-31}",
    ],
)
def test_each_key_can_match(rule: str) -> None:
    """Every key of the contract matches what the certificate has, on both sides."""
    assert allowed(rule)
    assert denied(rule)


@pytest.mark.parametrize(
    "rule",
    [
        "{cn: Alice}",
        "{cn: alice, ou: HR}",
        '{cn: "~al"}',
        "{dns: c.example.com}",
        "{eku: serverAuth}",
        "{serial: 0a1b2d}",
        "{any: [{cn: x}, {cn: y}]}",
        "{all: [{cn: alice}, {ou: HR}]}",
        "{not: {cn: alice}}",
        "{until: 2020-01-01}",
        "{from: 2099-01-01}",
    ],
)
def test_each_key_can_fail(rule: str) -> None:
    """A missing value doesn't match, on either side."""
    assert not allowed(rule)
    assert not denied(rule)


def test_of_several_cns_all_must_match_to_grant_and_one_to_refuse() -> None:
    """A second CN neither helps to grant nor hides a refused one."""
    assert not allowed("{cn: alice}", two)
    assert allowed("{cn: [alice, mallory]}", two)
    assert denied("{cn: mallory}", two)
    assert not allowed("{not: {cn: mallory}}", two)
    assert denied("{not: {cn: alice}}", two)


def test_a_certificate_without_a_name_matches_no_name() -> None:
    """Without a CN, neither `*` nor a rule under `not` matches."""
    nameless = staff.issue("", dns=["x.example"])
    assert not allowed('{cn: "*"}', nameless)
    assert allowed("{not: {cn: mallory}}", nameless)


def test_requests_are_asked_about_address_and_method() -> None:
    """client_ip and method are read from nginx's headers."""
    assert allowed("{client_ip: 10.0.0.0/8}", client_ip="10.1.2.3")
    assert not allowed("{client_ip: 10.0.0.0/8}", client_ip="192.0.2.1")
    assert allowed("{method: [GET, HEAD]}", method="HEAD")
    assert not allowed("{method: GET}", method="POST")


def test_what_nginx_did_not_tell_grants_nothing_and_refuses() -> None:
    """A missing X-Real-IP or X-Original-Method fails closed on both sides."""
    assert not allowed("{client_ip: 0.0.0.0/0}")
    assert denied("{client_ip: 10.0.0.0/8}")
    assert not allowed("{method: GET}")
    assert denied("{method: DELETE}")
    assert not allowed("{not: {client_ip: 10.0.0.0/8}}")


def test_deny_is_asked_before_allow() -> None:
    """A deny rule wins over any allow."""
    decision = ask(site("verified", "    deny: [{name: thieves, cn: alice}]\n"), alice)
    assert (decision.reason, decision.rule) == (Reason.DENIED_BY_RULE, "thieves")


def test_the_first_rule_that_matches_names_itself_and_its_roles() -> None:
    """The roles are those of the first matching rule, in written order."""
    rules = site(
        '[{cn: x}, {name: ops, ou: "S*", roles: [a, b]}, {name: later, cn: alice, roles: c}]'
    )
    decision = ask(rules, alice)
    assert (decision.rule, decision.roles) == ("ops", ("a", "b"))


@pytest.mark.parametrize(
    ("allow", "rule", "roles"),
    [
        ("[{any: [ops]}]", "allow[0]", ("a",)),
        ("[{any: [{cn: x, roles: q}, {cn: alice, roles: r}]}]", "allow[0]", ("r",)),
        ("[{all: [ops, {ou: SRE, roles: [b, a]}], roles: c}]", "allow[0]", ("c", "a", "b")),
        ("[{cn: alice, roles: c, any: [{all: [{ou: SRE, roles: d}]}]}]", "allow[0]", ("c", "d")),
        ("[{any: [{name: inner, cn: alice, roles: r}]}]", "inner", ("r",)),
        ("[{name: outer, any: [{name: inner, cn: alice}]}]", "outer", ()),
        ("[{all: [{ou: SRE}, {name: second, cn: alice}]}]", "second", ()),
        ("[named]", "chief", ("z",)),
        ("[{any: [named]}]", "chief", ("z",)),
        ("[{cn: alice, not: ops_not}]", "allow[0]", ()),
    ],
)
def test_rules_within_rules_grant_their_roles(
    allow: str, rule: str, roles: tuple[str, ...]
) -> None:
    """What matched within `any`, `all` and groups grants its roles; the outermost name counts."""
    groups = (
        "groups:\n  ops: [{cn: alice, roles: a}]\n"
        "  named: [{name: chief, cn: alice, roles: z}]\n  ops_not: [{cn: bob, roles: n}]\n"
    )
    decision = ask(site(allow, groups), alice)
    assert (decision.allowed, decision.rule, decision.roles) == (True, rule, roles)


def test_a_group_with_roles_may_deny() -> None:
    """A group's roles are granted by `allow`; in `deny` the group only refuses."""
    text = "    deny: [ops]\ngroups:\n  ops: [{cn: alice, roles: a}]\n"
    decision = ask(site("verified", text), alice)
    assert (decision.reason, decision.roles) == (Reason.DENIED_BY_RULE, ())


def test_groups_nest_and_name_their_rules() -> None:
    """A group stands wherever a rule may."""
    text = "groups:\n  one: [{cn: x}, {cn: alice}]\n  two: [one, {cn: y}]\n"
    decision = ask(site("[two]", text), alice)
    assert (decision.allowed, decision.rule) == (True, "one[1]")
    assert ask(site("[{not: two}]", text), alice).reason is Reason.NOT_ALLOWED
    assert ask(site("[{all: [two, {ou: SRE}]}]", text), alice).allowed


def test_groups_that_list_a_group_twice_cost_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group is evaluated once per decision, so that nested doublings don't multiply the
    cost."""
    asked: list[RuleSet] = []
    match = RuleSet.match

    def counted(rules: RuleSet, facts: Facts) -> Match | None:
        asked.append(rules)
        return match(rules, facts)

    monkeypatch.setattr(RuleSet, "match", counted)
    for twice in ("[{0}, {0}]", "[{{any: [{0}, {0}]}}]", "[{{not: {0}}}, {{all: [{0}, {0}]}}]"):
        groups = "".join(f"  g{i}: {twice.format(f'g{i - 1}')}\n" for i in range(1, 13))
        asked.clear()
        ask(site("[g12]", f"groups:\n  g0: [{{cn: bob}}]\n{groups}"), alice)
        assert 12 <= len(asked) < 100


def test_groups_in_groups_are_bounded() -> None:
    """Nesting that is too deep is a mistake with its place, not a crash."""
    groups = "".join(f"  g{i}: [g{i + 1}]\n" for i in range(400))
    with pytest.raises(PolicyError, match="nested deeper than 32"):
        site("[g0]", f"groups:\n{groups}  g400: [{{cn: alice}}]\n")
    groups = "".join(f"  g{i}: [g{i + 1}]\n" for i in range(30))
    chain = site("[g0]", f"groups:\n{groups}  g30: [{{cn: alice}}]\n")
    assert ask(chain, alice).allowed


def test_until_holds_through_its_day() -> None:
    """until: 2026-12-31 still grants on the 31st, and no longer in 2027 (UTC)."""
    rules = site("[{cn: a, until: 2026-12-31}]")
    leaf = staff.issue("a", not_after=staff.cert.not_valid_after_utc)
    end = 1798761600.0  # 2027-01-01T00:00:00Z
    assert ask(rules, leaf, at=end - 1).allowed
    assert not ask(rules, leaf, at=end).allowed


def test_many_rules_cost_no_more_than_a_few() -> None:
    """Rules with exact patterns are found in an index: 20,000 cost no more than one.

    No clock is used: the evaluated predicates are counted.
    """
    from sidecar.core.policy import rules as module

    many = site("[" + ", ".join(f"{{cn: u{i}}}" for i in range(20_000)) + ", {cn: alice}]")
    tried = 0
    original = module._Rule.holds

    def counted(self: module._Rule, facts: module.Facts) -> bool:
        nonlocal tried
        tried += 1
        return original(self, facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Rule, "holds", counted)
        assert ask(many, alice).allowed
    assert tried == 1


@pytest.mark.parametrize("key", ["email", "uri", "dns"])
def test_names_are_prepared_once_for_all_rules(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SAN of thousands of names is prepared for comparison once, not by each rule: it would hold
    up everybody's questions for many seconds."""
    read: list[str] = []
    usual = KEY_COMPARISONS[key]

    def counted(name: str) -> ComparedValue:
        read.append(name)
        return usual.refuses(name)

    monkeypatch.setitem(KEY_COMPARISONS, key, replace(usual, refuses=counted))
    pattern = {"email": "*@x{}.test", "uri": "https://x{}.test/*", "dns": "*.x{}.test"}[key]
    rules = ", ".join(f'{{{key}: "{pattern.format(i)}"}}' for i in range(20))
    names = {"email": "a{}@y.test", "uri": "https://y{}.test/a", "dns": "y{}.test"}[key]
    values = [names.format(i) for i in range(50)]
    many = {
        "email": lambda: staff.issue("alice", email=values),
        "uri": lambda: staff.issue("alice", uri=values),
        "dns": lambda: staff.issue("alice", dns=values),
    }[key]()
    assert not denied(rules, many)
    assert len(read) == 50


THOUSANDS = staff.issue("alice", uri=[f"https://y.test/{at}" for at in range(2000)])
HUNDREDS = ", ".join(f'{{uri: "https://x{at}.test/*"}}' for at in range(300))


def test_thousands_of_names_at_hundreds_of_patterns() -> None:
    """Names times patterns are bounded: beyond that, rules refuse and don't grant, and `not` is the
    other side; few names are tried with any number of patterns."""
    last = '{uri: "https://y.test/*"}'
    assert ask(site(f"[{last}]"), THOUSANDS).allowed
    assert not ask(site(f"[{HUNDREDS}, {last}]"), THOUSANDS).allowed
    assert not ask(site(f"[{{not: {{any: [{HUNDREDS}]}}}}]"), THOUSANDS).allowed
    assert denied(HUNDREDS, THOUSANDS)
    assert denied(f"{{not: {{any: [{HUNDREDS}, {last}]}}}}", THOUSANDS)
    few = staff.issue("alice", uri=[f"https://y.test/{at}" for at in range(FREE_VALUES)])
    assert ask(site(f"[{HUNDREDS}, {last}]"), few).allowed
    assert not denied(HUNDREDS, few)
    assert ask(site(f"[{HUNDREDS}, {{cn: alice}}]"), THOUSANDS).allowed


def test_each_text_that_is_compared_counts() -> None:
    """What refuses has up to seven texts of a name, and a long text takes longer: a certificate
    held up everybody's questions for seconds within the bound."""
    rules = ", ".join(f'{{email: "*@x{at}.test"}}' for at in range(60))
    plain = staff.issue("alice", email=[f"a{at}@y.test" for at in range(200)])
    spelt = staff.issue("alice", email=[f'"a{at}"@Y.test.' for at in range(200)])
    assert not denied(rules, plain)
    assert denied(rules, spelt)
    usual = staff.issue("alice", uri=[f"https://Y.test/{'a' * 600}/{at}" for at in range(16)])
    long = staff.issue("alice", uri=[f"https://Y.test/{'a' * 4000}/{at}" for at in range(16)])
    many = ", ".join([HUNDREDS] * 2)
    assert not denied(many, usual)
    assert denied(many, long)


def test_the_cost_of_names_and_patterns_is_bounded() -> None:
    """A certificate of 2,000 names costs no more at 3,000 patterns than at 300."""
    policies = [site("verified", f"    deny: [{', '.join([HUNDREDS] * n)}]\n") for n in (1, 10)]
    few, many = (calls(partial(ask, each, THOUSANDS)) for each in policies)
    assert many < 1.5 * few


def test_an_unknown_extension_does_not_hide_a_name() -> None:
    """An unknown extension doesn't affect the known parts of a certificate."""
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
    leaf = staff.issue("mallory", extra_extensions=[(extension, False)])
    assert denied("{cn: mallory}", leaf)
