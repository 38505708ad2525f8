"""Which names cover a host (RFC 9525)."""

from __future__ import annotations

import pytest

from sidecar.core.x509.service_identity import covers, fold_dns, is_dns_name, san_matches_host


@pytest.mark.parametrize(
    ("presented", "host", "covered"),
    [
        ("a.test", "a.test", True),
        ("A.Test", "a.test", True),
        ("*.test", "a.test", True),
        ("*.test", "b.a.test", False),
        ("*.test", "test", False),
        ("*.test", ".test", False),
        ("a*.test", "ab.test", False),
        ("*", "a", False),
        ("*.*.test", "a.b.test", False),
        ("b.test", "a.test", False),
        ("a.test.", "a.test", False),
        ("", "", False),
    ],
)
def test_a_wildcard_is_one_whole_label(presented: str, host: str, covered: bool) -> None:
    """The left-most one; case doesn't count, and what is no DNS name covers nothing."""
    assert covers(presented, host) is covered


@pytest.mark.parametrize("name", ["a", "a-b.c_d", "1.test", "a" * 63, ".".join(["a" * 49] * 5)])
def test_what_is_a_dns_name(name: str) -> None:
    """Labels of 63 octets at most, 253 in all."""
    assert is_dns_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "-a", "a-", "a b", "é", "a" * 64, ".".join(["a" * 50] * 5) + ".a"]
)
def test_what_is_no_dns_name(name: str) -> None:
    """An empty label, a hyphen at an end, another character, too long."""
    assert not is_dns_name(name)


@pytest.mark.parametrize(
    ("dns", "ips", "host", "covered"),
    [
        (["a.test"], [], "a.test", True),
        (["192.0.2.7"], [], "192.0.2.7", False),
        (["a.test"], ["192.0.2.7"], "192.0.2.7", True),
        ([], ["::ffff:192.0.2.7"], "192.0.2.7", True),
        ([], ["2001:db8::7"], "[2001:db8:0::7]", True),
        ([], ["192.0.2.8"], "192.0.2.7", False),
        ([], ["garbage"], "192.0.2.7", False),
        ([], ["192.0.2.7"], "a.test", False),
        (["*"], [], "a b", False),
    ],
)
def test_addresses_and_names_are_kept_apart(
    dns: list[str], ips: list[str], host: str, covered: bool
) -> None:
    """An address is looked for among iPAddress alone, a name among dNSName alone."""
    assert san_matches_host(dns, ips, host) is covered


def test_only_ascii_letters_are_folded() -> None:
    """The Kelvin sign is no k: another name."""
    assert fold_dns("K\u212a\u00c9") == "k\u212a\u00c9"
