"""Hosts and URIs for which two policies choose different locations."""

from __future__ import annotations

import pytest
from asking import policy

from sidecar.commands.asking import PolicyFile
from sidecar.commands.diff.changes import changes
from sidecar.commands.diff.choice import choices
from sidecar.commands.diff.report import as_text
from sidecar.core.policy.rule_lines import RuleLines
from sidecar.core.policy.spec import read_policy


def written(*locations: str) -> PolicyFile:
    text = "version: 1\nlocations:\n" + "".join(f"  - {{{each}}}\n" for each in locations)
    spec = read_policy(text.encode(), "policy.yaml")
    return PolicyFile(policy(text), spec, "policy.yaml", RuleLines(spec))


SITE = "name: site, server_name: x.org, location: /, allow: verified"


def pairs(old: PolicyFile, new: PolicyFile) -> set[tuple[str, str, str | None, str | None]]:
    return {(each.host, each.uri, each.old, each.new) for each in choices(old, new).found}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("location: /a/", "location: /b/", {("/a/", "it", "site"), ("/b/", "site", "it")}),
        ("location: = /a", "location: /a", {("/a0beside", "site", "it")}),
        ("location: '^~ /a'", "location: /a", set()),
        (r"location: '~ \.php$'", r"location: '~ \.ph[p]$'", set()),
        (r"location: '~ \.php$'", r"location: '~* \.php$'", {("/.PHP", "site", "it")}),
        ("location: '/a b'", "location: /b", {("/a%20b", "it", "site"), ("/b", "site", "it")}),
    ],
)
def test_a_uri_is_found_for_each_pair_of_locations(
    old: str, new: str, expected: set[tuple[str, str, str]]
) -> None:
    """A location that moves takes some URIs from one location to the other."""
    before, after = (
        written(SITE, f"name: it, server_name: x.org, {each}, allow: verified")
        for each in (old, new)
    )
    found = {(uri, was, now) for _, uri, was, now in pairs(before, after)}
    assert {pair[1:] for pair in found} == {pair[1:] for pair in expected}
    if "a b" in old or "= /a" in old:
        assert found == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("y.org", "z.org", {("y.org", "it", None), ("z.org", None, "it")}),
        ("'*.y.org'", ".y.org", {("y.org", None, "it")}),
        ("y.*", "y.org", {("y.example", "it", None)}),
        (r"'~^y\d'", r"'~^y\d\d'", {("y0", "it", None)}),
    ],
)
def test_a_host_is_found_where_server_names_differ(
    old: str, new: str, expected: set[tuple[str, str | None, str | None]]
) -> None:
    """Each form of server_name has a host that is its own."""
    before, after = (
        written(SITE, f"name: it, server_name: {each}, location: /, allow: verified")
        for each in (old, new)
    )
    assert {(host, was, now) for host, _, was, now in pairs(before, after)} == expected


def test_without_regular_expressions_the_choice_is_exact() -> None:
    """With them, examples are tried, and it says so."""
    old = written(SITE)
    new = written(SITE, "name: it, server_name: x.org, location: /a, allow: verified")
    with_regex = written(SITE, "name: it, server_name: x.org, location: '~ a', allow: verified")
    assert choices(old, new).exact
    assert not choices(old, with_regex).exact
    assert choices(with_regex, with_regex).exact


def test_who_gains_by_a_location_that_moves_is_told_with_host_and_uri() -> None:
    """The locations themselves are the same: the difference is which of them is asked."""
    admin = "name: admin, server_name: x.org, allow: [{cn: alice}]"
    old, new = (written(SITE, f"{admin}, location: {path}") for path in ("/admin/", "/adm/"))
    found = changes(old, new, 1.8e9)
    assert found.differ
    assert not any(each.differs for each in found.locations.values())
    moved = {(e.chosen.uri, e.comparison.gains and "gains") for e in found.by_uri}
    assert moved == {("/admin/", "gains"), ("/adm/", None)}
    text = as_text(found, "new.yaml")
    assert "https://x.org/admin/ was admin, now site:" in text
    assert "--host x.org --uri /admin/" in text
    assert "no difference, proven: site, admin" in text
