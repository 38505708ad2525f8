"""What a change of a location means: examples that both policies bear out, or a proof of none.

The property test compares with brute force: every certificate and request of a small world is
decided by both policies.
"""

from __future__ import annotations

import itertools
import json
import os
from functools import cache
from typing import Any

import pytest
from asking import policy
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from pki import CA

from sidecar.commands.asking import Circumstances, PolicyFile, request_of
from sidecar.commands.diff.compare import Comparison, Pair, Shared, compare
from sidecar.commands.diff.example import Question, decide
from sidecar.commands.diff.solve import Bounds
from sidecar.commands.explain import described
from sidecar.core.config.dates import parse_date
from sidecar.core.evaluate import evaluate
from sidecar.core.policy.cases import Principal
from sidecar.core.policy.rule_lines import RuleLines
from sidecar.core.policy.spec import read_policy
from sidecar.core.request import AuthzRequest

NOW = parse_date("2026-06-01T12:00:00Z")
STAFF, OTHERS = CA("Staff"), CA("Others")


def written(text: str, **files: bytes) -> PolicyFile:
    spec = read_policy(text.encode(), "policy.yaml")
    return PolicyFile(policy(text, **files), spec, "policy.yaml", RuleLines(spec))


def site(keys: str, head: str = "", **files: bytes) -> PolicyFile:
    return written(f"version: 1\n{head}\nlocations:\n  - {{name: site, {keys}}}\n", **files)


def compared(old: PolicyFile, new: PolicyFile, bounds: Bounds | None = None) -> Comparison:
    pair = Pair(old, new, "site", "site", Question("site"))
    return compare(pair, Shared(NOW, bounds or Bounds()))


def change(old: str, new: str, **files: bytes) -> Comparison:
    return compared(site(old, "", **files), site(new, "", **files))


def told(comparison: Comparison) -> dict[str, Any]:
    found: dict[str, Any] = {"exact": comparison.exact}
    for direction in ("gains", "loses"):
        example = getattr(comparison, direction)
        if example is not None:
            kept = {k: v for k, v in example.request.items() if k in _SHOWN}
            if kept.get("method") == "GET":
                del kept["method"]
            found[direction] = (example.cert, kept)
    return found


_SHOWN = ("host", "sni", "method", "client_ip", "sec_fetch_site", "verify_failed")
SOMEONE = {"cn": "someone"}

CHANGES = [
    ("allow: [{cn: [alice, bob]}]", "allow: [{cn: alice}]", {"loses": ({"cn": "bob"}, {})}),
    ("allow: [{cn: alice}]", "allow: verified", {"gains": (SOMEONE, {})}),
    ("allow: [{cn: a}, {cn: b}]", "allow: [{cn: [b, a]}]", {"gains": ({"cn": ["a", "b"]}, {})}),
    ('allow: [{cn: "ops-*"}]', 'allow: [{cn: "ops-a*"}]', {"loses": ({"cn": "ops-x"}, {})}),
    ("allow: [{cn: '~[ab]+'}]", "allow: [{cn: '~(a|b)*[ab]'}]", {}),
    ("allow: [{cn: '~[ab]+'}]", "allow: [{cn: '~[ab]*c?'}]", {"gains": ({"cn": "c"}, {})}),
    ("allow: [{cn: '~(?i:x)y'}]", "allow: [{cn: '~xy'}]", {"loses": ({"cn": "Xy"}, {})}),
    ("allow: verified, deny: [{o: x}]", "allow: verified", {"gains": (SOMEONE | {"o": ["x"]}, {})}),
    (
        "allow: [{dns: '*.example.org'}]",
        "allow: [{dns: a.example.org}]",
        {"loses": (SOMEONE | {"dns": ["any.example.org"]}, {})},
    ),
    (
        "allow: [{uri: 'spiffe://x/a/*'}]",
        "allow: [{uri: 'spiffe://x/*'}], deny: [{uri: 'spiffe://x/a/b'}]",
        {
            "gains": (SOMEONE | {"uri": ["spiffe://x/x"]}, {}),
            "loses": (SOMEONE | {"uri": ["spiffe://x/a/b"]}, {}),
        },
    ),
    ("allow: [{email: '*@x.org'}]", "allow: [{email: '*@X.org'}]", {}),
    ("allow: [{upn: 'a@x'}]", "allow: [{upn: 'b@x'}]", {
        "gains": (SOMEONE | {"upn": ["b@x"]}, {}), "loses": (SOMEONE | {"upn": ["a@x"]}, {}),
    }),
    ("allow: [{serial: '0A'}]", "allow: [{serial: [a]}]", {}),
    ("allow: verified", "allow: verified, deny: [{eku: clientAuth}]", {"loses": (SOMEONE, {})}),
    (
        "allow: [{policy_oid: 1.2.3}]",
        "allow: [{policy_oid: [1.2.3, 1.2.4]}]",
        {"gains": (SOMEONE | {"policy_oid": ["1.2.4"]}, {})},
    ),
    (
        f"allow: [{{spki_sha256: {'a' * 64}}}]",
        f"allow: [{{sha256: {'b' * 64}}}]",
        {
            "gains": (SOMEONE | {"sha256": "b" * 64}, {}),
            "loses": (SOMEONE | {"spki_sha256": "a" * 64}, {}),
        },
    ),
    ("allow: [{issuer_cn: A}]", "allow: [{issuer_cn: [A, B]}]", {
        "gains": (SOMEONE | {"issuer_cn": "B"}, {})
    }),
    ("allow: [{client_ip: 10.0.0.0/8}]", "allow: [{client_ip: [10.0.0.0/9, 10.128.0.0/9]}]", {}),
    (
        "allow: [{client_ip: 10.0.0.0/8}]",
        "allow: [{client_ip: [10.0.0.0/9, 10.129.0.0/16]}]",
        {"loses": (SOMEONE, {"client_ip": "10.128.0.0"})},
    ),
    (
        "allow: [{ip: '2001:db8::/32'}]",
        "allow: [{ip: '2001:db8::/33'}]",
        {"loses": (SOMEONE | {"ip": ["2001:db8:8000::"]}, {})},
    ),
    ("allow: verified", "allow: [{not: {method: POST}}]", {"loses": (SOMEONE, {"method": "POST"})}),
    ("allow: public", "allow: verified", {"loses": (None, {})}),
    ("allow: [{cn: a}]", "allow: [{cn: a}], public_methods: [OPTIONS]", {
        "gains": (None, {"method": "OPTIONS"}),
        "loses": None,
    }),
    ("allow: []", "allow: [], mode: monitor", {"gains": (None, {})}),
    (
        "allow: verified",
        "allow: verified, san_matches_host: true",
        {"loses": (SOMEONE, {"host": "host.invalid"})},
    ),
    (
        "allow: verified, sni_matches_host: true",
        "allow: verified",
        {"gains": (SOMEONE, {"host": "host.invalid", "sni": "other-host.invalid"})},
    ),
    (
        "allow: verified, san_matches_host: true",
        "allow: [{dns: a.example.org}]",
        {
            "gains": (SOMEONE | {"dns": ["a.example.org"]}, {"host": "host.invalid"}),
            "loses": (
                SOMEONE | {"dns": ["app.example.org"]}, {"host": "app.example.org"}
            ),
        },
    ),
    (
        "allow: verified",
        "allow: verified, same_origin: false",
        {"gains": (SOMEONE, {"sec_fetch_site": "cross-site"})},
    ),
    (
        "allow: []",
        "allow: [], without_certificate: [{client_ip: 10.0.0.0/8}], deny: [{client_ip: 10.1.0.1}]",
        {"gains": (None, {"client_ip": "10.0.0.1"})},
    ),
    ("allow: [{dn: 'CN=a,O=x'}]", "allow: [{dn: 'CN=a,O=y'}]", {
        "gains": ({"cn": "a", "o": ["y"]}, {}), "loses": ({"cn": "a", "o": ["x"]}, {}),
    }),
    ("allow: verified", "allow: verified, cache_seconds: 60", {}),
    (
        "allow: [{any: [{cn: a}, {cn: b}], not: {ou: x}}]",
        "allow: [{all: [{cn: [a, b]}, {not: {ou: x}}]}]",
        {"gains": ({"cn": ["a", "b"]}, {})},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), CHANGES)
def test_a_change_is_shown_by_an_example_in_each_direction(
    old: str, new: str, expected: dict[str, Any]
) -> None:
    """Each example is the smallest there is, and where there is none, it is proven."""
    found = told(change(old, new))
    if expected.get("loses", ()) is None:
        del expected["loses"]
        found.pop("loses", None)
    assert found == {"exact": True, **expected}


def test_a_rule_that_ends_is_told_by_the_moment() -> None:
    """The moment belongs to the request: a later `until` gains from the old one on."""
    old, new = ("allow: [{cn: a, until: 2027-01-31}]", "allow: [{cn: a, until: 2027-02-28}]")
    found = change(old, new)
    assert found.loses is None
    assert found.exact
    assert found.gains is not None
    assert found.gains.request["now"] == "2027-02-01T00:00:00Z"


TRUST = "trust: {%s}"


def test_certificates_of_another_authority_are_told_by_their_trust() -> None:
    """A location that takes one trust less loses that trust's certificates, and no others."""
    head = TRUST % "staff: {ca: a.crt}, others: {ca: b.crt}"
    files = {"a_crt": STAFF.pem, "b_crt": OTHERS.pem}
    old = site("allow: verified", head, **files)
    new = site("allow: verified, trust: [staff]", head, **files)
    found = compared(old, new)
    assert told(found) == {"exact": True, "loses": (SOMEONE | {"trust": "others"}, {})}


def test_a_policy_that_names_its_first_trust_loses_everybody_else() -> None:
    """Without a trust nginx's own list counts; the example is of no trust that is named."""
    new = site("allow: verified", TRUST % "staff: {ca: a.crt}", a_crt=STAFF.pem)
    found = told(compared(site("allow: verified"), new))
    assert found == {"exact": True, "loses": (SOMEONE | {"trust": "unlisted"}, {})}


def test_an_entry_of_a_denylist_loses_and_its_removal_gains() -> None:
    """Serial numbers and fingerprints of denylists are compared entry by entry."""
    head = TRUST % "staff: {ca: a.crt, denylist: d.txt}"
    old = site("allow: verified", head, a_crt=STAFF.pem, d_txt=b"serial 0A\nserial 0B\n")
    lines = f"serial 0A\nsha256 {'c' * 64}\n".encode()
    new = site("allow: verified", head, a_crt=STAFF.pem, d_txt=lines)
    assert told(compared(old, new)) == {
        "exact": True,
        "gains": (SOMEONE | {"serial": "0B", "trust": "staff"}, {}),
        "loses": (SOMEONE | {"sha256": "c" * 64, "trust": "staff"}, {}),
    }


def test_verify_sidecar_gains_what_nginx_could_not_verify() -> None:
    """Where the chain is verified here, nginx's FAILED is no end of it."""
    files = {"a_crt": STAFF.pem}
    old = site("allow: verified", TRUST % "staff: {ca: a.crt}", **files)
    new = site("allow: verified", TRUST % "staff: {ca: a.crt, verify: sidecar}", **files)
    found = compared(old, new)
    assert found.gains is not None
    assert found.gains.request["verify"].startswith("FAILED")
    assert found.loses is None
    assert found.exact


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"allow: [{cn: '~\bx'}]", r"allow: [{cn: '~x'}]"),
        (r"allow: [{cn: '~(a|b|c){999}(a|b){999}(a|b){999}(a|b){999}(a|b){999}'}]", "allow: []"),
        ("allow: [{dn: 'CN=a*,O=x'}]", "allow: [{dn: 'CN=ab*,O=x'}]"),
        ("allow: [{email: '~(a|B)@x'}]", "allow: [{email: '~(B|a)@x'}]"),
    ],
)
def test_what_no_automaton_follows_is_never_called_proven(old: str, new: str) -> None:
    """A word boundary, an expression too large, a glob of a DN: none is found, and it says so."""
    found = change(old, new)
    assert not found.exact
    assert found.doubts


def test_a_search_beyond_its_bounds_is_not_exact() -> None:
    """The bounds end a search; nothing is claimed then."""
    rules = [f"{{any: [{{cn: a{i}}}, {{ou: b{i}}}], all: [{{o: c{i}}}]}}" for i in range(9)]
    old, new = f"allow: [{', '.join(rules)}]", f"allow: [{', '.join(reversed(rules[1:]))}]"
    found = compared(site(old), site(new), Bounds(choices=1))
    assert found.doubts == ["the search took too long and was given up"]


def test_thousands_of_rules_that_stay_cost_next_to_nothing() -> None:
    """What both policies have in common is left out before anything is searched."""
    rules = ", ".join(f"{{cn: u{i}, ou: [a, b]}}" for i in range(3000))
    found = compared(
        site(f"allow: [{rules}]"), site(f"allow: [{rules}, {{cn: new}}]"), Bounds(choices=20)
    )
    assert told(found) == {"exact": True, "gains": ({"cn": "new"}, {})}


# -- against brute force ---------------------------------------------------------------------------

NAMES = ["a", "b", "ab"]
CERTS: list[dict[str, Any] | None] = [
    None,
    *(
        {"cn": list(cn), "ou": list(ou), "dns": list(dns), "serial": serial}
        for cn in [c for n in (0, 1, 2) for c in itertools.combinations(NAMES, n)]
        for ou in ((), ("a",), ("a", "b"))
        for dns in ((), ("a.x",), ("b.x", "x"))
        for serial in ("01", "02")
    ),
]
REQUESTS = [
    {"location": "site", "method": method, "client_ip": address, "now": moment}
    for method in ("GET", "POST")
    for address in ("10.0.0.1", "10.128.0.1", "")
    for moment in ("2026-06-01T12:00:00Z", "2027-06-01T12:00:00Z")
]


def listed(values: list[str]) -> st.SearchStrategy[str]:
    quoted = [f"'{value}'" for value in values]
    return st.lists(st.sampled_from(quoted), min_size=1, max_size=2).map(
        lambda found: f"[{', '.join(found)}]"
    )


PARTS = [
    listed(["a", "b", "a*", "*b", "~a|b", "~[^a]+", "~.*b"]).map(lambda v: f"cn: {v}"),
    listed(["a", "b", "*a*"]).map(lambda v: f"ou: {v}"),
    listed(["a.x", "*.x", "x", "~[ab].x"]).map(lambda v: f"dns: {v}"),
    listed(["01", "02"]).map(lambda v: f"serial: {v}"),
    listed(["10.0.0.0/8", "10.0.0.0/9", "10.128.0.1"]).map(lambda v: f"client_ip: {v}"),
    st.just("method: POST"),
    st.just("until: 2027-01-01"),
]


def mapping(parts: list[st.SearchStrategy[str]]) -> st.SearchStrategy[str]:
    chosen = st.lists(st.sampled_from(range(len(parts))), min_size=1, max_size=2, unique=True)
    return chosen.flatmap(lambda at: st.tuples(*(parts[i] for i in at))).map(
        lambda found: f"{{{', '.join(found)}}}"
    )


SIMPLE = mapping(PARTS)
RULES = st.lists(
    st.one_of(
        SIMPLE,
        SIMPLE.map(lambda rule: f"{{not: {rule}}}"),
        st.tuples(SIMPLE, SIMPLE).map(lambda two: f"{{any: [{two[0]}, {two[1]}]}}"),
        st.tuples(SIMPLE, SIMPLE).map(lambda two: f"{{all: [{two[0]}, {{not: {two[1]}}}]}}"),
    ),
    max_size=3,
).map(lambda rules: f"[{', '.join(rules)}]")
EXEMPT = mapping(PARTS[4:]).map(lambda rule: f"without_certificate: [{rule}]")
LOCATIONS = st.tuples(
    RULES.map(lambda rules: f"allow: {rules}"),
    st.one_of(st.just("deny: []"), RULES.map(lambda rules: f"deny: {rules}")),
    st.one_of(st.just("same_origin: true"), EXEMPT, st.just("public_methods: POST")),
).map(", ".join)


def asked(cert: dict[str, Any] | None, request: dict[str, str]) -> tuple[AuthzRequest, float]:
    """The request as the daemon reads it, and its moment."""
    now = parse_date(request["now"])
    who = Principal() if cert is None else described(json.dumps(cert))
    given = Circumstances(now, method=request["method"], client_ip=request["client_ip"])
    return request_of(given, who)._replace(location="site"), now


World = list[tuple[dict[str, Any] | None, dict[str, str], AuthzRequest, float]]


@cache
def world() -> World:
    return [(cert, request, *asked(cert, request)) for cert in CERTS for request in REQUESTS]


def brute_force(old: PolicyFile, new: PolicyFile) -> dict[str, Any]:
    """The first of the small world who gains and who loses."""
    found: dict[str, Any] = {}
    for cert, request, question, now in world():
        was, then = (evaluate(each.policy, question, now) for each in (old, new))
        if was.allowed != then.allowed:
            found.setdefault("gains" if then.allowed else "loses", (cert, request))
    return found


@seed(1)
@settings(
    max_examples=int(os.environ.get("MTLS_SIDECAR_EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(LOCATIONS, LOCATIONS)
def test_nothing_that_brute_force_finds_is_missed(old: str, new: str) -> None:
    """Where a small world has one who gains or loses, `diff` has one too, and proves the rest."""
    before, after = site(old), site(new)
    found = compared(before, after)
    assert found.exact, (old, new, found.doubts)
    for direction in brute_force(before, after):
        assert getattr(found, direction) is not None, (direction, old, new)
    for direction, allowed in (("gains", [False, True]), ("loses", [True, False])):
        example = getattr(found, direction)
        if example is not None:
            again = decide((before, after), json.loads(json.dumps(example.cert)), example.request)
            assert again is not None
            assert [each.allowed for each in again] == allowed
