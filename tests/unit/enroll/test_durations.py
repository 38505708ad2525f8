"""Durations such as 24h, and moments as RFC 3339."""

from __future__ import annotations

import pytest

from sidecar.enroll.durations import for_people, in_words, parse_duration, rfc3339


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("24h", 86400), ("30d", 2592000), ("4w", 2419200)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    """s, m, h, d and w."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "h", "0h", "-1d", "1.5h", "1y", "24 h", "9" * 10 + "w"])
def test_what_is_no_duration_is_refused_with_what_to_write(text: str) -> None:
    """The message says what, the hint what to write."""
    with pytest.raises(ValueError, match=r".") as error:
        parse_duration(text)
    assert "write" in error.value.args[1]


def test_moments_and_spans_for_people() -> None:
    """Whole seconds in UTC; a span by its largest unit."""
    assert rfc3339(1_800_000_000.9) == "2027-01-15T08:00:00Z"
    assert for_people(1_801_418_400) == "31 January 2027, 18:00 UTC"
    spans = [in_words(each) for each in (86400 * 2.5, 86400, 7199, 60, 5)]
    assert spans == ["2 days", "1 day", "1 hour", "1 minute", "less than a minute"]
