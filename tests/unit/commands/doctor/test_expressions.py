"""What an expression can match below a path is told by its tree, as PCRE matches."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from good_nginx import GOOD, found
from hypothesis import given
from hypothesis import strategies as st

from sidecar.commands.doctor.expressions import can_begin, may_give_up

ATOMS = ["a", "/", "[ab]", "[^a]", ".", "(?:a|/b)", "a?", "(?:/b)*", "b+", "^", "$", "a{2}"]


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("^/(realms|resources|js|robots.txt)(/|$)", "/admin/", False),
        ("^/v[0-9]+/public/", "/v1/admin/", False),
        ("^/v[0-9]+/", "/v1/admin/", True),
        ("^/v.*/public/", "/v1/admin/", True),
        (r"\.php$", "/admin/", True),
        ("^/adm$", "/admin/", False),
        ("^/ADM", "/admin/", False),
        ("(?i)^/ADM", "/admin/", True),
        ("^/(?!a)", "/admin/", None),
        ("(" * 200, "/admin/", None),
        ("^/(?:(?:a{0}){1000}){1000}$", "/", None),
    ],
)
def test_what_can_begin_with_a_path(pattern: str, path: str, expected: bool | None) -> None:
    """Alternatives, classes, repetitions; lookarounds, and what takes too long, can't be told."""
    assert can_begin(pattern, path, ignore_case=False) is expected


@given(pattern=st.lists(st.sampled_from(ATOMS), max_size=6).map("".join), text=st.text("ab/"))
def test_nothing_that_matches_is_missed(pattern: str, text: str) -> None:
    """Where an expression matches a text, it can match what begins as that text does."""
    if pattern and re.search(pattern, text):
        for end in range(len(text) + 1):
            assert can_begin(pattern, text[:end], ignore_case=False) is not False


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("~ ^/(realms|js|robots.txt)(/|$)", False),
        ("~ ^/[a-z]+/public/", True),
        ("~ ^/[b-z]+/public/", False),
        ("~* ^/[A-Z]+/public/", True),
        ("~* ^/A/public/", False),
    ],
)
def test_what_takes_a_part_of_a_prefix(expression: str, expected: bool, tmp_path: Path) -> None:
    """Keycloak's public paths beside /admin/: only what can match there takes anything away."""
    other = f"location {expression} {{ auth_request off; proxy_pass http://app; }}"
    asking = "location /a/ { auth_request /authz/site; proxy_pass http://app; }"
    text = GOOD.replace("location /public/", f"{asking} {other} location /public/")
    assert ("regex-takes" in {each for each, _ in found(text, tmp_path)}) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("^/(?:ab)*$", True),
        ("^/(ab|c)+$", True),
        ("^/(?:(?:a|bc){2,}/){1,3}$", True),
        ("(?>a(?:bc)*d)", True),
        ("^/[ab]*.*$", False),
        ("^/(?:a)+$", False),
        ("^/(?:ab)*+/$", False),
        ("^/(?:ab){0,3}$", False),
        ("^/(?!a)(?:ab)*$", False),
    ],
)
def test_what_pcre_may_give_up_on(pattern: str, expected: bool) -> None:
    """A group that repeats without end; a look-around can't be read."""
    assert may_give_up(pattern) is expected
