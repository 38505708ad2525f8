"""Numbers and moments in words, for a person who reads the status page."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ((31_557_600, "years"), (86_400, "d"), (3_600, "h"), (60, "min"))


def moment(at: float | None) -> str:
    """A moment in UTC, or `never`."""
    if at is None:
        return "never"
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (OverflowError, OSError, ValueError):
        return "never"


def machine_time(at: float | None) -> str:
    """The same for a `datetime` attribute; empty where there is none."""
    text = moment(at)
    return "" if text == "never" else text.replace(" ", "T")


def span(seconds: float) -> str:
    """How long something takes, in one unit: `45 s`, `12 min`, `3 h`, `8 d`, `10 years`."""
    seconds = abs(seconds)
    for size, unit in _UNITS:
        if seconds >= 2 * size or (unit == "min" and seconds >= size):
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def relative(at: float | None, now: float) -> str:
    """`12 min ago`, `in 8 d`, `never`."""
    if at is None or moment(at) == "never":
        return "never"
    if abs(at - now) < 1:
        return "now"
    return f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"


def counted(number: int, noun: str) -> str:
    """`1 client`, `2 clients`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
