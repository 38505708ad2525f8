"""Dates and times, as the policy, denylists and the command line have them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sidecar.core.config.dates import parse_date


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]  # year and so on


@pytest.mark.parametrize(
    ("text", "begins", "ends"),
    [
        ("2027-01-31", at(2027, 1, 31), at(2027, 2, 1)),
        ("2027-01-31T18:00:00Z", at(2027, 1, 31, 18), at(2027, 1, 31, 18)),
        ("2027-01-31 18:00:00+02:00", at(2027, 1, 31, 16), at(2027, 1, 31, 16)),
        ("2027-01-31t18:00:00.5z", at(2027, 1, 31, 18) + 0.5, at(2027, 1, 31, 18) + 0.5),
    ],
)
def test_a_day_is_wholly_in_and_a_time_is_a_moment(text: str, begins: float, ends: float) -> None:
    """As an end, a day means the first moment after it (UTC); a time means itself."""
    assert parse_date(text) == begins
    assert parse_date(text, end=True) == ends


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2027-02-30",
        "2027-1-1",
        "2027-01-31T18:00:00",
        "2027-01-31T25:00:00Z",
        "2027",
    ],
)
def test_another_text_is_refused_with_what_to_write(text: str) -> None:
    """A time without an offset, too: nobody knows whose."""
    with pytest.raises(ValueError, match="is not a date") as caught:
        parse_date(text)
    assert caught.value.args[1] == "write 2027-01-31 or 2027-01-31T18:00:00Z"
