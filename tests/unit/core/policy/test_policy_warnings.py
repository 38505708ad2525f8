"""Report parts of a policy that can have no effect, as a mistake or a warning with its place."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from asking import NOW, mistakes, policy
from pki import CA, now, spki

from sidecar.core.policy import lockouts
from sidecar.core.x509.der import comparable_name

staff = CA("Staff")
HEAD = "version: 1\nlocations:\n"


def warnings(text: str, at: float = NOW, **files: bytes) -> list[str]:
    found = policy(text, **files).warnings_at(at)
    assert all(each.line and each.column for each in found)
    return [each.message for each in found]


def in_rule(rule: str) -> str:
    return HEAD + "  - {name: a, allow: [" + rule + "]}\n"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{from: 2026-02-01, until: 2026-01-31}", "isn't after"),
        ("{from: 2026-02-01T10:00:00Z, until: 2026-02-01T10:00:00Z}", "isn't after"),
        ("{dn: alice}", "not a DN"),
        ("{dn: 'CN=alice,'}", "not a DN"),
        ("{dn: 'CN=alice,nope=x'}", "unknown attribute type 'nope'"),
        ("{dn: 'CN=#0C05ab'}", "not a DER"),
        (r"{dn: 'CN=\C3,O=x'}", "not UTF-8"),
        ("{dn: 'CN=\"alice'}", "quotation mark"),
        (r"{dn: 'CN=a\0Ab'}", "control character"),
        ('{cn: "a\\tb"}', "control character"),
        ("{cn: '~'}", "empty regular expression"),
        ("{email: example.com}", "not a mail address"),
        ("{email: 'é@example.com'}", "not a mail address"),
        ("{email: '@example.com'}", "not a mail address"),
        ("{email: '@*.example.com'}", "not a mail address"),
        ("{email: 'alice@'}", "not a mail address"),
        ("{client_ip: 'fe80::1%eth0'}", "zone"),
        ("{sha256: " + "ab" * 20 + "}", "a SHA-1 fingerprint"),
        ("{spki_sha256: '" + ":".join(["AB"] * 20) + "'}", "a SHA-1 fingerprint"),
        ("{sha256: " + "ab" * 16 + "}", "an MD5 fingerprint"),
        ("{dns: example.com.}", "not a DNS name"),
        ("{policy_oid: 1.40.1}", "not an object identifier"),
        ("{eku: 3.1.2}", "not a key usage"),
        ("{method: TRACE}", "TRACE"),
        ("{method: M2}", "not a method"),
        ("{not: {cn: a, roles: [x]}}", "roles are not granted here"),
        ("{not: {cn: a, name: x}}", "a name within `not`"),
        ("{any: [verified]}", "'verified' is neither a rule nor a group"),
    ],
)
def test_a_rule_that_can_never_match_is_a_mistake(rule: str, message: str) -> None:
    """Told once, with its line, its column and what to write instead."""
    found = mistakes(in_rule(rule))
    assert [d.line for d in found] == [3]
    assert message in found[0].message
    assert found[0].column
    assert found[0].hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  - {name: a, allow: [verified, {cn: a}]}\n", "'verified' beside other rules"),
        ("  - {name: a, allow: [public, {cn: a}]}\n", "'public' beside other rules"),
        ("  - {name: a, deny: [verified]}\n", "'verified' is neither a rule nor a group"),
        ("  - {name: a, deny: [{cn: x, roles: [r]}]}\n", "roles are not granted here"),
        ("  - {name: a, deny: {any: [{cn: x, roles: r}]}}\n", "roles are not granted here"),
        ("  - {name: a, location: /, server_name: []}\n", "an empty list of server names"),
        ("  - {name: a, public_methods: [TRACE]}\n", "TRACE"),
    ],
)
def test_a_location_that_can_not_mean_what_it_says_is_a_mistake(text: str, message: str) -> None:
    """A contradictory location is one mistake, reported once."""
    found = mistakes(HEAD + text)
    assert len(found) == 1
    assert message in found[0].message


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("crl: ldap://ldap.example.com/cn=x", "not an http(s) address"),
        ("crl: ftp://example.com/x.crl", "not an http(s) address"),
        ("crl: file:///etc/x.crl", "not an http(s) address"),
        ("crl: 'ldap:///CN=x'", "not an http(s) address"),
        ("crl: http:/example.com/x", "not an http(s) address"),
        ("crl: 'https://'", "not an http(s) address"),
        ("crl: 'https:///x'", "not an http(s) address"),
        ("crl: https://example.com:99999/x", "no port"),
        ("crl: https://example.com:0/x", "no port"),
        ("crl: 'https://exa mple.com/x'", "not an http(s) address"),
        ("crl: 'https://bücher.example/x'", "not an http(s) address"),
        ("crl: 'https://example.com/x#y'", "not an http(s) address"),
        ("ocsp: 'http://:80'", "not an http(s) address"),
        ("ocsp: 'http://[::zz]/'", "not an http(s) address"),
        ("denylist: https://example.com/deny.txt", "not a file"),
        ("intermediates: https://example.com/ca.crt", "not a file"),
    ],
)
def test_an_address_that_can_never_be_fetched_is_a_mistake(key: str, message: str) -> None:
    """Only http(s) addresses with a host are fetched, and only for CRLs and OCSP."""
    text = f"version: 1\ntrust:\n  a: {{ca: s.crt, {key}}}\nlocations: []\n"
    found = mistakes(text, s_crt=staff.pem)
    assert [d.line for d in found] == [3]
    assert message in found[0].message


def test_a_password_in_an_address_is_not_told() -> None:
    """A message about an address never contains its user and password."""
    text = (
        "version: 1\ntrust:\n  a: {ca: s.crt, crl: 'ftp://u:secret@example.com/x'}\nlocations: []\n"
    )
    [found] = mistakes(text, s_crt=staff.pem)
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{until: 2020-01-31}", "is past"),
        ("{any: [{cn: a, until: 2020-01-31}, {cn: b}]}", "is past"),
        ("{cn: '~ x'}", "the blank after ~"),
        ("{cn: ' alice'}", "blank"),
        ("{cn: 'e\u0301'}", "NFC"),
        ("{upn: '@corp.example'}", "nothing before the @"),
        ("{serial: 1234567890123456789}", "looks decimal"),
        ("{client_ip: '::/0'}", "contains no IPv4 address"),
        ("{uri: example.org/x}", "has no scheme"),
        ("{uri: 'https://bücher.example/x'}", "isn't ASCII"),
        ("{dns: 192.0.2.7}", "no authority should certify it"),
        ("{dn: 'C=DE,O=Ex,CN=alice'}", "OpenSSL's order"),
        ("{dn: '/CN=a*'}", "no name begins with /"),
        ("{dn: 'cn=a*'}", "the type is written CN"),
        ("{dn: 'CN=a*, O=Ex'}", "there is no blank beside"),
        (r"{dn: 'CN=J\C3\BCrgen*'}", "letters aren't escaped"),
        (r"{dn: '~CN=J\\C3\\BCrgen.*'}", "letters aren't escaped"),
        (r"{dn: '~CN=a\\, b.*'}", "special characters are escaped in hex"),
        (r"{dn: '/CN=J\xFCrgen'}", "it can refuse, but grants nothing"),
    ],
)
def test_a_pattern_that_hardly_matches_is_a_warning(rule: str, message: str) -> None:
    """The pattern is accepted with a warning at its place."""
    found = warnings(in_rule(rule))
    assert any(message in each for each in found), found


@pytest.mark.parametrize(
    "rule",
    [
        "{cn: alice}",
        "{dn: 'CN=alice,O=Example'}",
        "{dn: 'CN=alice,*'}",
        "{dn: '*,O=Example,C=DE'}",
        "{dn: '~CN=[a-z]+,OU=(A|B),O=Example'}",
        "{dn: '2.5.4.97=PSD*'}",
        "{uri: 'spiffe://example.org/ns/*'}",
        "{serial: 4711}",
        "{client_ip: ['0.0.0.0/0', '2001:db8::/32']}",
        "{email: '*@example.com'}",
        "{until: 9999-12-31}",
    ],
)
def test_a_usual_pattern_is_no_warning(rule: str) -> None:
    """Usual patterns cause no warning."""
    found = warnings(in_rule(rule))
    assert [each for each in found if "2.5.4.97" not in each] == []


def test_an_end_is_told_once_it_is_past() -> None:
    """The same policy warns from the moment its rule ends."""
    text = in_rule("{cn: a, until: 2027-01-31}")
    end = 1801440000.0  # 2027-02-01T00:00:00Z
    assert warnings(text, end - 1) == []
    assert len(warnings(text, end)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("locations: []\n", "no locations"),
        ("locations: [{name: a}]\n", "has no `allow`"),
        ("locations: [{name: a, allow: public, deny: [{cn: x}]}]\n", "`deny` has no effect"),
        (
            "locations: [{name: a, allow: public, san_matches_host: true}]\n",
            "`san_matches_host` has no effect",
        ),
        (
            "locations: [{name: a, allow: public, same_origin: true}]\n",
            "`same_origin` has no effect",
        ),
        ("locations: [{name: a, allow: public, stale: deny}]\n", "`stale` has no effect"),
        (
            "locations: [{name: a, allow: verified, without_certificate: [{until: 2020-01-31}]}]\n",
            "is past",
        ),
        (
            "defaults: {without_certificate: {until: 2020-01-31}}\n"
            "locations: [{name: a, allow: verified}]\n",
            "is past",
        ),
        (
            "trust: {t: {ca: s.crt}, u: {ca: s.crt}}\n"
            "locations: [{name: a, trust: t, allow: verified}]\n",
            "no location names trust 'u'",
        ),
        (
            "trust: {t: {ca: s.crt, ocsp: 'http://x/', revocation: off}}\n"
            "locations: [{name: a, allow: verified}]\n",
            "uses neither",
        ),
        (
            "trust: {t: {ca: s.crt, revocation: best_effort}}\n"
            "locations: [{name: a, allow: verified}]\n",
            "names neither crl nor ocsp",
        ),
        (
            "trust: {t: {ca: s.crt, revocation: required}}\n"
            "locations: [{name: a, allow: verified}]\n",
            "it denies all",
        ),
        (
            "trust: {t: {ca: s.crt, crl_grace: 60}}\nlocations: [{name: a, allow: verified}]\n",
            "`crl_grace` has no effect",
        ),
    ],
)
def test_what_has_no_effect_is_a_warning(text: str, message: str) -> None:
    """A key without effect is reported."""
    found = warnings("version: 1\n" + text, s_crt=staff.pem)
    assert any(message in each for each in found), found


TRUST = "trust: {t: {ca: s.crt, crl: s.crl%s}}\nlocations: [{name: a, allow: verified}]\n"


def test_a_crl_that_has_ended_is_told() -> None:
    """Once it clears nobody any more: from its end on, the clocks' tolerance, and its grace."""
    end = now() + timedelta(hours=2)
    crl = staff.crl(next_update=end)
    at = end.timestamp()
    for more, grace, effect in (
        ("", 300, "all its clients are denied"),
        (", clock_tolerance: 0", 0, "all its clients are denied"),
        (", crl_grace: 60", 360, "all its clients are denied"),
        (", revocation: best_effort", 300, "never says good"),
    ):
        text = "version: 1\n" + TRUST % more
        assert warnings(text, at + grace - 1, s_crt=staff.pem, s_crl=crl) == []
        [told] = warnings(text, at + grace, s_crt=staff.pem, s_crl=crl)
        assert "CRL s.crl of CA 'CN=Staff' has ended" in told
        assert effect in told
    newer = staff.crl(next_update=end + timedelta(days=9), number=2)
    both = "version: 1\n" + (TRUST % "").replace("s.crl", "[s.crl, n.crl]")
    assert warnings(both, at, s_crt=staff.pem, s_crl=crl, n_crl=newer) == []


def test_a_crl_of_the_future_is_told_until_it_begins() -> None:
    """Alone it says good of nobody; beside one of now it does no harm."""
    begin = now() + timedelta(hours=2)
    crl, at = staff.crl(this_update=begin, number=2), begin.timestamp()
    text = "version: 1\n" + TRUST % ""
    [told] = warnings(text, at - 301, s_crt=staff.pem, s_crl=crl)
    assert "CRL s.crl of CA 'CN=Staff' is from the future: all its clients are denied" in told
    assert warnings(text, at - 300, s_crt=staff.pem, s_crl=crl) == []
    assert warnings(text, at - 301, s_crt=staff.pem, s_crl=crl + staff.crl()) == []


def test_a_ca_without_a_crl_is_told_where_one_is_required() -> None:
    """A second CA without a CRL is reported; a root above is not."""
    other = CA("Other")
    text = "version: 1\n" + TRUST % ""
    [told] = warnings(text, s_crt=staff.pem + other.pem, s_crl=staff.crl())
    assert "no CRL of CA 'CN=Other'" in told
    lax = "version: 1\n" + TRUST % ", revocation: best_effort"
    assert warnings(lax, s_crt=staff.pem + other.pem, s_crl=staff.crl()) == []
    below = staff.intermediate()
    assert warnings(text, s_crt=staff.pem + below.pem, s_crl=below.crl()) == []
    whole = "version: 1\n" + TRUST % ", chain: all"
    [told] = warnings(whole, s_crt=staff.pem + below.pem, s_crl=below.crl())
    assert "no CRL of CA 'CN=Staff'" in told


def test_a_namesake_of_another_root_has_no_crl_of_the_first_one() -> None:
    """A CRL covers no certificate of an issuer of the same name under another anchor."""
    other = CA("Staff")
    text = "version: 1\n" + TRUST % ""
    [told] = warnings(text, s_crt=staff.pem + other.pem, s_crl=staff.crl())
    assert "no CRL of CA 'CN=Staff'" in told
    assert warnings(text, s_crt=staff.pem + other.pem, s_crl=staff.crl() + other.crl()) == []


def test_names_of_many_authorities_are_read_a_few_times_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each reload looks for these warnings: thousands of pinned clients must hold up none."""
    asked: list[bytes] = []

    def counted(name: bytes) -> bytes:
        asked.append(name)
        return comparable_name(name)

    monkeypatch.setattr(lockouts, "comparable_name", counted)
    pinned = [CA(f"client {number}", key=staff.key) for number in range(40)]
    text = "version: 1\n" + TRUST % ", revocation: best_effort"
    both = staff.pem + b"".join(each.pem for each in pinned)
    assert warnings(text, s_crt=both, s_crl=staff.crl()) == []
    assert len(asked) < 10 * len(pinned)


def test_a_ca_that_has_ended_is_told() -> None:
    """The warning begins when the CA ends."""
    end = now() + timedelta(hours=1)
    ca = CA("Old", not_after=end)
    text = "version: 1\ntrust: {t: {ca: s.crt}}\nlocations: [{name: a, allow: verified}]\n"
    at = end.timestamp()
    assert warnings(text, at, s_crt=ca.pem) == []
    [told] = warnings(text, at + 1, s_crt=ca.pem)
    assert "CA 'CN=Old' has ended" in told


def test_a_ca_that_is_not_valid_yet_is_told() -> None:
    """The warning ends when the CA begins."""
    begin = now() + timedelta(hours=1)
    ca = CA("New", not_before=begin)
    text = "version: 1\ntrust: {t: {ca: s.crt}}\nlocations: [{name: a, allow: verified}]\n"
    at = begin.timestamp()
    assert warnings(text, at, s_crt=ca.pem) == []
    [told] = warnings(text, at - 1, s_crt=ca.pem)
    assert "CA 'CN=New' is not valid yet: all its clients are denied" in told


@pytest.mark.parametrize("kind", ["sha256", "spki_sha256"])
@pytest.mark.parametrize("which", ["anchor", "intermediate"])
def test_a_denylist_that_denies_everybody_below_a_ca_is_told(kind: str, which: str) -> None:
    """With its line, until that ends; a serial number is a client's, another key nobody's."""
    below = staff.intermediate()
    ca = staff if which == "anchor" else below
    head = "version: 1\ntrust: {t: {ca: s.crt, intermediates: i.crt, denylist: d.txt}}\n"
    text = head + "locations: [{name: a, allow: verified}]\n"

    def told(lines: str, at: float = NOW) -> list[str]:
        return warnings(text, at, s_crt=staff.pem, i_crt=below.pem, d_txt=lines.encode())

    value = hashlib.sha256(ca.der if kind == "sha256" else spki(ca.key)).hexdigest()
    other = f"{kind} {'ab' * 32}\nserial {ca.cert.serial_number:x}\n"
    assert told(other) == []
    lines = f"{other}{kind} {value} until 2031-01-01T00:00:00Z\n"
    [found] = told(lines)
    assert f"CA 'CN={ca.name}' is revoked by denylist" in found
    assert "d.txt:3: all its clients are denied" in found
    assert told(lines, datetime(2031, 1, 1, tzinfo=UTC).timestamp()) == []


def test_a_crl_that_lists_a_ca_is_told_where_the_whole_chain_is_asked() -> None:
    """By `chain: leaf` nobody asks about the CA."""
    below = staff.intermediate()

    def told(chain: str) -> list[str]:
        text = "version: 1\n" + TRUST % f", intermediates: i.crt, chain: {chain}"
        crls = staff.crl([below]) + below.crl()
        return warnings(text, s_crt=staff.pem, i_crt=below.pem, s_crl=crls)

    [found] = told("all")
    assert f"CA 'CN={below.name}' is revoked by CRL s.crl: all its clients are denied" in found
    assert told("leaf") == []


def test_an_intermediate_that_leads_to_no_anchor_is_told() -> None:
    """Unless another certificate of its name does: it was certified twice."""
    other = CA("Other")
    below, strange = staff.intermediate(), CA("Strange", issuer=other)
    head = "version: 1\ntrust: {t: {ca: s.crt, intermediates: i.crt}}\n"
    text = head + "locations: [{name: a, allow: verified}]\n"
    [told] = warnings(text, s_crt=staff.pem, i_crt=below.pem + strange.pem)
    assert "CA 'CN=Strange' leads to no anchor of the trust: all its clients are denied" in told
    twice = CA(below.name, key=below.key, issuer=other)
    third = CA("Third", issuer=below)
    assert warnings(text, s_crt=staff.pem, i_crt=third.pem + twice.pem + below.pem) == []


def test_a_crl_that_was_never_fetched_is_told() -> None:
    """Under `required`, everybody is denied until the fetcher has downloaded it."""
    text = "version: 1\n" + (TRUST % "").replace("s.crl", "'http://u:p@x.example/s.crl'")
    [told] = warnings(text, s_crt=staff.pem)
    assert "nothing was fetched yet from http://x.example/s.crl" in told


@pytest.mark.parametrize("empty", ["", "[]"])
def test_an_empty_deny_that_drops_the_deny_of_defaults_is_told(empty: str) -> None:
    """A location's value replaces that of `defaults`, even an empty one."""
    text = (
        "version: 1\ndefaults: {deny: [{cn: bob}]}\nlocations:\n  - name: a\n    allow: verified\n"
    )
    assert warnings(text + f"    deny: {empty}\n") == [
        "an empty `deny` in location 'a' removes the deny rules of defaults"
    ]
    assert warnings(text + "    deny: [{cn: carol}]\n") == []
    assert warnings(text) == []
    assert warnings(text.replace("deny: [{cn: bob}]", "") + f"    deny: {empty}\n") == []


def with_trust(rule: str) -> list[str]:
    text = f"version: 1\ntrust: {{staff: {{ca: ca.crt}}}}\ngroups: {{g: [{{cn: a, {rule}}}]}}\n"
    text += (
        f"locations: [{{name: a, allow: [g]}}, {{name: b, allow: verified, deny: [{{{rule}}}]}}]\n"
    )
    return warnings(text, ca_crt=staff.pem + CA("Issuing", issuer=CA("Root")).pem)


def test_an_issuer_in_another_case_is_reported_where_it_grants() -> None:
    """There case counts; a `deny` takes it, since the authority's name is the same."""
    (found,) = with_trust("issuer_cn: staff")
    assert "no authority of the policy's trusts has the name 'staff'" in found
    (found,) = with_trust("issuer_dn: 'CN=STAFF'")
    assert "has the name 'CN=STAFF'" in found


@pytest.mark.parametrize(
    "rule",
    [
        "issuer_cn: Stuff",
        "issuer_cn: [Staff, Stuff]",
        "issuer_dn: 'CN=Staff,O=Ex'",
        "issuer_dn: '~CN=Sales.*'",
        "issuer_cn: 'X*'",
        "not: {issuer_cn: Nobody}",
    ],
)
def test_an_issuer_that_is_no_authority_is_reported(rule: str) -> None:
    """A `deny` with a typo in it refuses nobody, and would say nothing of it."""
    found = with_trust(rule)
    assert len(found) == 2
    assert all("no authority of the policy's trusts has the name" in each for each in found)


@pytest.mark.parametrize(
    "rule",
    [
        "issuer_cn: Staff",
        "issuer_cn: [Staff, Issuing]",
        "issuer_cn: Root",
        "issuer_dn: /CN=Staff",
        "issuer_dn: 'cn=Staff'",
        "issuer_dn: '~CN=.*'",
        "issuer_cn: 'St*'",
    ],
)
def test_an_issuer_that_is_an_authority_is_not(rule: str) -> None:
    """In any spelling, and that of an anchor, which may be a client itself; nor is any without a
    trust."""
    assert with_trust(rule) == []
    assert warnings(in_rule(f"{{{rule}}}")) == []
