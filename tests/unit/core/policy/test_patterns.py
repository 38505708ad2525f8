"""Patterns against values, and names against hosts."""

from __future__ import annotations

import fnmatch

import pytest
import re2
from asking import matches
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.policy.matching import glob
from sidecar.core.policy.patterns import KEY_COMPARISONS, PatternError
from sidecar.core.x509.service_identity import covers, san_matches_host


@pytest.mark.parametrize(
    ("key", "pattern", "value", "expected"),
    [
        ("cn", "alice", "alice", True),
        ("cn", "alice", "Alice", False),
        ("cn", "ops-*", "ops-1", True),
        ("cn", "ops-*", "dev-ops-1", False),
        ("cn", "*", "", True),
        ("cn", "~ops-[0-9]+", "ops-12", True),
        ("cn", "~ops-[0-9]+", "ops-12x", False),
        ("cn", "~ops", "ops\n", False),
        ("cn", "~a|ab", "ab", True),
        ("dns", "App.Example.com", "app.example.COM", True),
        ("dns", "*.example.com", "a.example.com", True),
        ("dns", "*.example.com", "a.b.example.com", False),
        ("dns", "*.example.com", "example.com", False),
        ("dns", "*.example.com", ".example.com", False),
        ("dns", "~.*[.]Example[.]com", "x.example.com", True),
        ("email", "alice@Example.com", "alice@example.COM", True),
        ("email", "Alice@example.com", "alice@example.com", False),
        ("email", "*@example.com", "bob@EXAMPLE.com", True),
        ("uri", "spiffe://x/ns/*", "spiffe://x/ns/a/b", True),
        ("ip", "192.0.2.0/24", "192.0.2.7", True),
        ("ip", "192.0.2.7", "192.0.2.7", True),
        ("client_ip", "2001:db8::/32", "2001:db8::1", True),
        ("client_ip", "10.0.0.0/8", "2001:db8::1", False),
        ("serial", "0A:1B", 2587, True),
        ("serial", "a1b", 2587, True),
        ("serial", "000a1b", 2587, True),
        ("serial", "-01", -1, True),
        ("sha256", "AB:" * 31 + "AB", "ab" * 32, True),
        ("eku", "clientAuth", "1.3.6.1.5.5.7.3.2", True),
        ("eku", "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.2", True),
        ("method", "GET", "GET", True),
    ],
)
def test_patterns(key: str, pattern: str, value: str | int, expected: bool) -> None:
    """Exact patterns, globs and regular expressions match by the rules of their key, on both
    sides."""
    assert matches(key, pattern, value) is expected
    assert matches(key, pattern, value, refusing=True) is expected


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("cn", ""),
        ("cn", "~("),
        ("cn", "~(?=a)b"),
        ("cn", r"~(a)\1"),
        ("dns", "a*.example.com"),
        ("dns", "*.*.example.com"),
        ("dns", "bücher.example"),
        ("dns", "*"),
        ("ip", "10.0.0.1/8"),
        ("email", "~a@b)|(.*"),
        ("email", "~a@b)("),
        ("client_ip", "localhost"),
        ("serial", "12 34"),
        ("serial", "xyz"),
        ("sha256", "abcd"),
        ("spki_sha256", "g" * 64),
        ("eku", "client_auth"),
        ("policy_oid", "1.2.03"),
        ("method", "get"),
    ],
)
def test_what_can_not_be_a_pattern_is_refused(key: str, pattern: str) -> None:
    """An invalid pattern is an error that says what to write instead."""
    with pytest.raises(PatternError) as caught:
        KEY_COMPARISONS[key].parse(pattern)
    assert len(caught.value.args) == 2


@given(st.text("ab*", max_size=12).filter(lambda s: "*" in s), st.text("ab", max_size=12))
def test_glob_is_what_fnmatch_says(pattern: str, value: str) -> None:
    """Only `*` is special, with the same meaning as in a shell."""
    assert glob(pattern)(value) is fnmatch.fnmatchcase(value, pattern)


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("https://*.example.org/*", "https://a.b.example.org/x", True),
        ("https://*.example.org/*", "https://other.test/.example.org/x", False),
        ("https://*.example.org/*", "https://other.test?.example.org/x", False),
        ("https://*.example.org/*", "https://other.test#.example.org/x", False),
        ("https://*.example.org/*", "https://other.test:.example.org/x", False),
        ("https://*.example.org/*", "https://other.test:1@a.example.org/x", False),
        ("spiffe://*/ns/prod/*", "spiffe://a.test/ns/prod/b/c", True),
        ("spiffe://*/ns/prod/*", "spiffe://a.test/ns/dev/ns/prod/b", False),
        ("*://a.test/*", "https://a.test/x", True),
        ("*://a.test/*", "https://other.test/://a.test/x", False),
        ("https://*", "https://a.test", True),
        ("https://*", "https://a.test:8443/x?y", True),
        ("https://*/x", "https://a.test:8443/x", True),
        ("https://a*.test?*", "https://ab.test?x/y", True),
        ("ssh://*@a.test/*", "ssh://u@a.test/x", True),
        ("https://a.test/*/x", "https://a.test/b/c/x", True),
        ("*/x", "https://a.test/x", True),
        ("*/x", "https://a.test/b/x", True),
        ("urn:*", "urn:a://b", True),
        ("sip:*", "sip://u:p@a.test/x", True),
        ("sip:*@a.test", "sip:u@a.test", True),
        ("sip:*@a.test", "sip:/u@a.test", True),
        ("sip:*@a.test", "sip://other.test/@a.test", False),
        ("*:*@a.test", "mailto://other.test/@a.test", False),
        ("*@a.test", "mailto:u@a.test", True),
        ("*@a.test", "https://other.test/@a.test", False),
        ("*.a.test/*", "https://b.a.test/x", True),
        ("*.a.test/*", "https://other.test/.a.test/x", False),
        ("*.a.test/*", "https://other.test:1@b.a.test/x", False),
        ("*b*.a.test/x", "https://b.other.test/.a.test/x", False),
        ("*//*.a.test/*", "https://b.a.test/x", True),
        ("*//a.test/*", "https://other.test//a.test/x", False),
        ("https:*.a.test/*", "https://b.a.test/x", True),
        ("https:/*.a.test/*", "https://other.test/.a.test/x", False),
        ("urn:*:x.y", "urn:a/b:x.y", True),
    ],
)
def test_a_star_before_the_path_of_a_uri_stays_there(
    pattern: str, value: str, expected: bool
) -> None:
    """Who may certify URIs of another host gets nothing by what stands behind that; what refuses
    still takes it all."""
    assert matches("uri", pattern, value) is expected
    assert matches("uri", pattern, value, refusing=True)


def test_runaway_patterns_take_linear_time() -> None:
    """Patterns with exponential backtracking elsewhere end at once."""
    assert not matches("cn", "~(a+)+$", "a" * 5000 + "!")
    assert not matches("cn", "*a" * 200 + "b", "a" * 5000)


@pytest.mark.parametrize(
    ("presented", "host", "expected"),
    [
        ("app.example.com", "app.example.com", True),
        ("APP.example.com", "app.example.com", True),
        ("*.example.com", "app.example.com", True),
        ("*.example.com", "a.app.example.com", False),
        ("*.example.com", "example.com", False),
        ("a*.example.com", "app.example.com", False),
        ("*a.example.com", "aa.example.com", False),
        ("app.*.com", "app.example.com", False),
        ("*.*.com", "app.example.com", False),
        ("*", "localhost", False),
        ("*.xn--bcher-kva.example", "a.xn--bcher-kva.example", True),
        ("xn--*.example", "xn--bcher-kva.example", False),
        ("app.example.com.", "app.example.com", False),
        ("", "", False),
        ("*.", "a.", False),
        ("app.example.com", "app.example.com.evil.net", False),
    ],
)
def test_dns_names_cover_hosts_as_rfc_9525_says(presented: str, host: str, expected: bool) -> None:
    """A wildcard is the whole left-most label and stands for one label."""
    assert covers(presented, host) is expected


@pytest.mark.parametrize(
    ("dns", "ips", "host", "expected"),
    [
        (["192.0.2.7"], [], "192.0.2.7", False),
        ([], ["192.0.2.7"], "192.0.2.7", True),
        ([], ["2001:db8::1"], "[2001:db8::1]", True),
        ([], ["2001:db8::1"], "[2001:0db8:0::1]", True),
        (["*.0.2.7"], [], "192.0.2.7", False),
        (["a.example"], ["192.0.2.7"], "a.example", True),
        ([], [], "a.example", False),
    ],
)
def test_addresses_are_looked_for_among_addresses_only(
    dns: list[str], ips: list[str], host: str, expected: bool
) -> None:
    """RFC 9525, 6.1: an IP address never matches a dNSName, nor a name an iPAddress."""
    assert san_matches_host(dns, ips, host) is expected


_PIECES = (
    *"aB.-_:/@%?#[]*()\\,+= 01",
    *("é", "e\u0301", "ß", "İ", "%41", "%2E", "..", "//", "https://", "mailto:", "[::1]", "xn--"),
)


@given(
    key=st.sampled_from(["cn", "email", "uri", "upn", "issuer_cn"]),
    pieces=st.lists(st.sampled_from(_PIECES), min_size=1, max_size=8),
    cut=st.tuples(st.integers(0, 12), st.integers(0, 3)),
    regex=st.booleans(),
)
def test_what_a_pattern_grants_it_refuses_too(
    key: str, pieces: list[str], cut: tuple[int, int], regex: bool
) -> None:
    """Whatever a pattern of `allow` lets in, the same one of `deny` keeps out."""
    value = "".join(pieces)
    head, tail = value[: cut[0]], value[sum(cut) :]
    pattern = f"~{re2.escape(head)}.*{re2.escape(tail)}" if regex else f"{head}*{tail}"
    for text in (pattern, value):
        try:
            granted = matches(key, text, value)
        except PatternError:
            continue
        assert not granted or matches(key, text, value, refusing=True)


@pytest.mark.parametrize(
    ("key", "pattern", "value"),
    [
        ("uri", "https://*?*", "https://evil.example/a?x=1"),
        ("uri", "https://evil.example*?token=*", "https://EVIL.example:443/a?token=1"),
        ("uri", "https://evil.example*#x", "https://evil.example./#x"),
        ("uri", "*//evil.example?x", "https://evil.example/?x"),
        ("uri", "~https://evil[.]example[?]x", "https://evil.example/?x"),
        ("uri", "*https://@0x*7f.1", "https://@0x7f.1"),
        ("email", "a@%41", "a@%41"),
        ("upn", "e*\u0301", "e\u0301"),
        ("cn", "e*\u0301", "e\u0301"),
    ],
)
def test_a_star_beside_what_is_normalized_refuses(key: str, pattern: str, value: str) -> None:
    """A `*` may go on into the path, or stand within what has another form."""
    assert matches(key, pattern, value, refusing=True)
