"""Compile servers and locations for `auth_request /authz`."""

from __future__ import annotations

import pytest
from asking import mistakes, policy
from pki import CA

HEAD = "version: 1\nlocations:\n"


def entry(name: str, server_name: str, location: str = "/") -> str:
    return (
        f"  - {{name: {name}, server_name: {server_name}, location: '{location}', "
        "allow: verified}\n"
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x.test", ".x.test"),
        (".x.test", "x.test"),
        ("'*.x.test'", ".x.test"),
        ("'~^x'", "['~^x', y.test]"),
        ("[a.test, '~^x']", "[b.test, '~^x']"),
        ("[a.test, b.test]", "a.test"),
        ("a.test", "a.test b.test"),
    ],
)
def test_servers_that_share_a_name_are_refused(first: str, second: str) -> None:
    """nginx ignores the name in the later server; the policy would have merged both."""
    text = HEAD + entry("one", first) + entry("two", second, "/admin/")
    (found,) = mistakes(text)
    assert found.line == 4
    assert "has some names of location 'one'" in found.message
    assert "list the same names" in found.hint


def test_a_name_twice_in_one_list_is_refused() -> None:
    """With `x .x`, nginx ignores `.x` completely."""
    (found,) = mistakes(HEAD + entry("one", "x.test .x.test"))
    assert "one name twice" in found.message


@pytest.mark.parametrize("names", ["x.test", "['~^x', y.test]", ".x.test", "a.test A.TEST"])
def test_locations_of_one_server_list_the_same_names(names: str) -> None:
    """Several locations of a server are its entries with all its names, in any order."""
    turned = names if "," not in names else "[y.test, '~^x']"
    assert not mistakes(HEAD + entry("one", names) + entry("two", turned, "/admin/"))


@pytest.mark.parametrize("names", ["[]", "", "' '", "['']"])
def test_no_server_name_is_an_error(names: str) -> None:
    """An entry whose list of names is empty would match nothing."""
    found = mistakes(HEAD + entry("one", names))
    assert found
    assert all(each.line == 3 for each in found)


def test_an_odd_name_is_taken_and_told() -> None:
    """`_` matches the host `_`, as in nginx; a warning explains the default server."""
    rules = policy(HEAD + entry("one", "_"))
    assert rules.chooser.choose("_", b"/") == "one"
    assert rules.chooser.choose("other.test", b"/") is None
    assert any("leave server_name out" in str(each) for each in rules.warnings)
    assert not policy(HEAD + entry("one", "a_b")).warnings


@pytest.mark.parametrize("value", ["true", "false"])
def test_merge_slashes_is_told_to_do_nothing(value: str) -> None:
    """The key is accepted without effect: an ambiguous URI is denied."""
    text = HEAD + entry("all", "a.test") + entry("admin", "a.test", "/admin/")
    for rules in (policy(text), policy(f"merge_slashes: {value}\n" + text)):
        assert rules.chooser.choose("a.test", b"/admin//x") == "admin"
        assert rules.chooser.choose("a.test", b"//admin/x") is None
    assert [each for each in rules.warnings if "merge_slashes" in str(each)]


def test_backslashes_of_nginx_conf_are_told() -> None:
    r"""`\\.` copied from nginx.conf is refused with an explanation."""
    (found,) = mistakes(HEAD + entry("one", "x.test", r"~ \\.php$"))
    assert found.line == 3
    assert r"\\. there means \. here" in found.hint


@pytest.mark.parametrize(
    ("place", "likely"),
    [("example.com/x.crl", True), ("www.example.com:80/x", True), ("pki/x.crl", False)],
)
def test_an_address_without_its_scheme_is_told_as_that(place: str, likely: bool) -> None:
    """It is taken for a file, which isn't there: the hint names the likely mistake."""
    text = f"version: 1\ntrust: {{t: {{ca: ca.crt, crl: '{place}'}}}}\nlocations: []\n"
    (found,) = (each for each in mistakes(text, ca_crt=CA("Staff").pem) if place in each.message)
    assert ("begins with http://" in found.hint) is likely
