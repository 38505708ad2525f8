"""Tell files and addresses of CRLs apart."""

from __future__ import annotations

import pytest

from sidecar.core.config.crl_place import crl_file_name, is_address, shown
from sidecar.core.errors import PolicyError
from sidecar.core.policy.spec import read_policy


@pytest.mark.parametrize(
    ("place", "address"),
    [("http://ca.test/a.crl", True), ("HTTPS://ca.test/", True), ("pki/a.crl", False), ("", False)],
)
def test_only_http_and_https_are_addresses(place: str, address: bool) -> None:
    """Any other text is a file's path."""
    assert is_address(place) is address


def test_a_password_is_never_shown() -> None:
    """User and password are removed; a path is shown as it is."""
    assert shown("http://user:secret@ca.test/a.crl") == "http://ca.test/a.crl"
    assert shown("pki/a@b.crl") == "pki/a@b.crl"


@pytest.mark.parametrize(
    "address",
    [
        *("http://u:SE/CRET@ca.test/", "http://u:12/CRET@ca.test/", "http://u:SE?CRET@ca.test/"),
        *("http://u:SE#CRET@ca.test/", "http://u:SE@CRET@ca.test/", "http:/u:SECRET@ca.test/"),
        *("https:u:SECRET@ca.test/", "HTTP:\\\\u:SECRET@ca.test/", "ldap://u:SE/CRET@ca.test/"),
    ],
)
def test_a_password_is_not_shown_where_the_address_is_mistyped(address: str) -> None:
    """Neither where it has a character that ends a host; such an address is refused."""
    assert "CRET" not in shown(address)
    policy = f"version: 1\ntrust: {{a: {{ca: ca.crt, crl: ['{address}']}}}}\nlocations: []\n"
    with pytest.raises(PolicyError) as refused:
        read_policy(policy.encode(), "p.yaml")
    assert "is not an http(s) address" in str(refused.value)
    assert "CRET" not in str(refused.value)


def test_each_address_of_each_trust_has_its_own_file() -> None:
    """The name contains neither address nor password."""
    names = {
        crl_file_name(trust, url)
        for trust in ("a", "b")
        for url in ("http://u:secret@ca.test/1", "http://ca.test/1")
    }
    assert len(names) == 4
    assert not [name for name in names if "secret" in name or "ca.test" in name]
