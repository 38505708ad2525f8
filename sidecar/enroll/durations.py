"""Read durations such as `24h` or `30d`, and write moments as RFC 3339."""

from __future__ import annotations

import re
from datetime import UTC, datetime

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
"""Seconds of each unit."""

MOST = 100 * 366 * 86400
"""Longest duration, in seconds."""


def parse_duration(text: str) -> int:
    """Parse `90s`, `15m`, `24h`, `30d` or `4w` into seconds.  Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,10})([smhdw])", text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration", "write 24h or 30d (units: s, m, h, d, w)")
    seconds = int(found[1]) * SECONDS[found[2]]
    if not 0 < seconds <= MOST:
        raise ValueError(f"{text!r} is out of place", "write a duration from 1s to 100 years")
    return seconds


def rfc3339(moment: float) -> str:
    """Format seconds since the epoch as `2027-01-31T18:00:00Z`."""
    return f"{datetime.fromtimestamp(int(moment), UTC):%Y-%m-%dT%H:%M:%SZ}"


def for_people(moment: float) -> str:
    """Format seconds since the epoch as `31 January 2027, 18:00 UTC`."""
    found = datetime.fromtimestamp(int(moment), UTC)
    months = "January February March April May June July August September October November December"
    return f"{found.day} {months.split()[found.month - 1]} {found:%Y, %H:%M} UTC"


def in_words(seconds: float) -> str:
    """Format a duration for people, rounded down to its largest unit: `3 days`."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // size)
        if count:
            return f"{count} {unit}{'s' * (count != 1)}"
    return "less than a minute"
