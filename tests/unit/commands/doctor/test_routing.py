"""Regular expressions of a configuration, held against its own names."""

from __future__ import annotations

import pytest

from sidecar.commands.doctor.routing import MAX_UNBOUNDED, matches

LONG = "/" + 60 * "a" + "!"


@pytest.mark.parametrize(
    "pattern",
    [
        r"^/(?!x)(a+)+$",
        r"^/(?!x)(a|a)*$",
        r"^/(?!x)(?:a?){60}a{60}$",
        "^/(?!x)" + (MAX_UNBOUNDED + 1) * "a*" + "$",
    ],
)
def test_an_expression_that_runs_away_is_not_tried(pattern: str) -> None:
    """With lookarounds RE2 can't have it, and Python's would take years: it can't be told."""
    assert matches(pattern, LONG) is None


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(r"^/(?!api/).*\.php$", True), (r"^/(?!app)", False), (r"^/app(?=/)", True)],
)
def test_a_lookaround_is_told(pattern: str, expected: bool) -> None:
    """What people write with lookarounds is tried all the same."""
    assert matches(pattern, "/app/index.php") is expected
