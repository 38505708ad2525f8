"""Run a policy's own tests, and report failures and invalid tests."""

from __future__ import annotations

import time

import pytest
from asking import mistakes, policy
from pki import CA

from sidecar.core.policy_tests import Outcome, run_cases, untested

staff = CA("Staff")
POLICY = """
version: 1
trust:
  staff: {ca: staff.crt, denylist: denylist.txt}
  partners: {ca: partners.crt}
groups: {admins: [{cn: [alice, "ops-*"], roles: [admin]}]}
defaults: {trust: [staff]}
locations:
  - name: admin
    server_name: app.example.com
    location: /admin/
    san_matches_host: true
    allow: [admins]
    deny: [{name: banned, serial: "0A"}]
  - {name: site, server_name: app.example.com, location: /, allow: verified}
  - {name: watched, mode: monitor, allow: [{cn: carol}]}
tests:
"""
FILES = {
    "staff_crt": staff.pem,
    "partners_crt": CA("Partners").pem,
    "denylist_txt": f"sha256 {staff.issue('x').sha256}\n".encode(),
}
CERTS = {"alice.crt": staff.issue("alice").pem, "eve.crt": CA("Evil").issue("alice").pem}


def read(path: str) -> bytes:
    if path not in CERTS:
        raise FileNotFoundError(2, "No such file or directory", path)
    return CERTS[path]


def run(*cases: str) -> Outcome:
    text = POLICY + "".join(f"  - {case}\n" for case in cases)
    rules = policy(text, **FILES)
    return run_cases(rules, rules.tests, "policy.yaml", time.time(), read)


PASSING = [
    "{location: admin, cert: {cn: alice, dns: app.example.com}, host: app.example.com, "
    "expect: allow, reason: allowed, rule: 'admins[0]', roles: [admin]}",
    "{location: admin, cert: {cn: alice}, host: app.example.com, expect: deny, "
    "reason: host_mismatch}",
    "{location: admin, cert: {cn: bob, dns: [app.example.com]}, host: app.example.com, "
    "expect: deny, reason: not_allowed}",
    "{location: admin, cert: {cn: alice, dns: app.example.com, serial: '0a'}, "
    "host: app.example.com, expect: deny, rule: banned}",
    "{host: app.example.com, uri: /admin/x, cert: {cn: z}, expect: deny, reason: host_mismatch}",
    "{host: app.example.com, uri: /x, cert: {cn: z}, expect: allow}",
    "{location: site, expect: deny, reason: no_certificate}",
    "{location: site, cert: none, expect: deny}",
    "{location: site, client_ip: 'unix:', expect: deny}",
    "{location: site, client_ip: 'fe80::1%eth0', expect: deny}",
    "{location: site, cert: {cn: z}, verify: 'FAILED:x', expect: deny, reason: verify_failed}",
    "{location: site, cert: {not_after: 2020-01-01}, expect: deny, reason: expired}",
    "{location: site, cert: {not_after: 2020-01-01}, now: 2020-01-01T12:00:00Z, expect: allow}",
    "{location: site, cert: {cn: z, trust: staff}, expect: allow}",
    "{location: site, cert: {cn: z, trust: partners}, expect: deny, reason: untrusted_issuer}",
    "{location: site, cert: alice.crt, expect: allow}",
    "{location: site, cert: eve.crt, expect: deny, reason: untrusted_issuer}",
    "{location: watched, cert: {cn: z}, expect: deny, reason: not_allowed}",
    "{location: nowhere, cert: {cn: z}, expect: deny, reason: unknown_location}",
    "{principals: {a: {cn: ops-1, dns: app.example.com}, b: {cn: b}, n: none}, "
    "host: app.example.com, allow: {admin: a, site: [a, b]}}",
]


@pytest.mark.parametrize("case", PASSING)
def test_what_is_so_passes(case: str) -> None:
    """Requests by name and by URI, certificates by fields and by file, moments and tables pass."""
    outcome = run(case)
    assert not outcome.failed
    assert outcome.passed == (6 if "principals" in case else 1)


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (
            "{location: site, cert: {cn: z}, expect: deny}",
            "policy.yaml:18:5: a test fails: expected deny, got allow (allowed) by verified",
        ),
        (
            "{name: bob stays out, location: site, cert: {cn: z}, expect: deny}",
            "test 'bob stays out' fails",
        ),
        (
            "{location: site, expect: deny, reason: expired}",
            "expected deny (expired), got deny (no_certificate): no certificate was presented",
        ),
        (
            "{location: admin, host: app.example.com, cert: {cn: alice, dns: app.example.com}, "
            "expect: allow, roles: [operator]}",
            "with roles operator, got allow (allowed) by admins[0] with roles admin",
        ),
        (
            "{location: site, cert: {cn: z}, expect: allow, rule: other}",
            "expected allow by other, got allow (allowed) by verified",
        ),
        (
            "{location: stie, cert: {cn: z}, expect: deny}",
            "expected deny, got deny (unknown_location): the policy has no location 'stie'",
        ),
        (
            "{location: site, cert: gone.crt, expect: allow}",
            "expected allow, got gone.crt: No such file or directory",
        ),
        (
            "{principals: {a: {cn: a}, n: none}, allow: {site: [n]}}",
            "test 'a at site' fails: expected deny, got allow (allowed) by verified",
        ),
    ],
)
def test_what_is_otherwise_is_told(case: str, told: str) -> None:
    """A failure names its place, the expected and the actual decision."""
    failed = run(case).failed
    assert told in str(failed[0].diagnostic())


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("{location: site}", "a test that expects nothing"),
        ("{expect: deny}", "asks about no location"),
        ("{location: site, expect: maybe}", "maybe"),
        ("{location: site, cert: {cm: x}, expect: deny}", "unknown key 'cm'"),
        ("{location: site, cert: {serial: zz}, expect: deny}", "not a serial number"),
        ("{location: site, cert: {ip: x}, expect: deny}", "not an address"),
        ("{location: site, client_ip: 10.0.0.0/8, expect: deny}", "not an address"),
        ("{location: site, method: GET /, expect: deny}", "'GET /' is not a method"),
        ("{location: site, cert: {dns: é}, expect: deny}", "not ASCII"),
        (
            '{location: site, cert: {cn: "a\\x01"}, expect: deny}',
            "a certificate can't have these fields",
        ),
        ("{location: site, cert: {eku: web}, expect: deny}", "not an extended key usage"),
        ("{location: site, uri: /admin/, expect: deny}", "names a location, and a uri"),
        ("{principals: {a: {cn: a}}, allow: {site: [a]}, cert: none}", "`cert` has no effect"),
        ("{principals: {a: {cn: a}}, allow: {site: [a]}, location: x}", "`location` has no"),
        ("{principals: {a: {cn: a}}, allow: {site: [a]}, uri: /x}", "`uri` has no effect"),
        ("{principals: {a: {cn: a}}}", "needs principals and allow"),
        ("{principals: {a: {cn: a}}, allow: {site: [b]}}", "no principal 'b'"),
        ("{principals: {a: {cn: a}}, allow: {there: [a]}}", "no location 'there'"),
        ("{principals: {a: {cn: a}}, allow: {site: [a]}, expect: deny}", "and no expect"),
    ],
)
def test_a_test_that_can_not_be_meant(case: str, told: str) -> None:
    """An invalid test is a mistake with its place."""
    found = mistakes(POLICY + f"  - {case}\n", **FILES)
    assert [each for each in found if told in str(each) and each.line == 18], found


def test_a_revocation_fails_no_test() -> None:
    """Denylists and CRLs never make a policy's tests fail."""
    denied = f"sha256 {staff.issue('alice').sha256}\n".encode()
    CERTS["denied.crt"] = (leaf := staff.issue("denied")).pem
    text = POLICY + "  - {location: site, cert: denied.crt, expect: allow}\n"
    files = {**FILES, "denylist_txt": denied + f"sha256 {leaf.sha256}\n".encode()}
    rules = policy(text, **files)
    assert not run_cases(rules, rules.tests, "policy.yaml", time.time(), read).failed


def test_what_no_test_touched() -> None:
    """Unused locations, and unused rules of used locations, are listed."""
    outcome = run(PASSING[0], PASSING[-2])
    rules = policy(POLICY + "  []\n", **FILES)
    assert untested(rules, outcome.decided) == ["site", "watched", "admin: banned"]
