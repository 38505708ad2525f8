"""Where a POST comes from."""

from __future__ import annotations

import pytest

from sidecar.enroll.same_origin import why_foreign

OWN = "https://app.example.com"


@pytest.mark.parametrize(
    ("origins", "sites"),
    [([], []), ([OWN], []), ([OWN], ["same-origin"]), (["null"], ["same-origin"])],
)
def test_our_own_page_and_programs_may_post(origins: list[str], sites: list[str]) -> None:
    """Our origin, a browser that keeps it secret but says same-origin, and curl."""
    assert why_foreign(origins, sites, OWN) == ""


@pytest.mark.parametrize(
    ("origins", "sites"),
    [
        (["https://evil.example"], []),
        (["https://evil.example"], ["same-origin", "same-origin"]),
        ([OWN], ["cross-site"]),
        ([OWN], ["same-site"]),
        ([], ["cross-site"]),
        ([], ["none"]),
        (["null"], []),
        (["null"], ["cross-site"]),
        ([OWN, "https://evil.example"], []),
        (["http://app.example.com"], []),
        (["https://app.example.com:444"], []),
        (["https://app.example.com.evil.example"], []),
        ([""], []),
    ],
)
def test_other_pages_may_not(origins: list[str], sites: list[str]) -> None:
    """Another origin, a frame without one, and whatever says two things."""
    assert why_foreign(origins, sites, OWN)
