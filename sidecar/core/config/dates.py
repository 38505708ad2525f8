"""Parse the dates and times of the policy, of denylists and of the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime


def parse_date(text: str, *, end: bool = False) -> float:
    """Parse a date or an RFC 3339 time to seconds since the epoch.  Raises ValueError.

    A date alone means the first moment of that day in UTC; with `end`, the first moment after it,
    so that `until: 2027-01-31` includes the 31st.  A time without an offset is refused.
    """
    hint = "write 2027-01-31 or 2027-01-31T18:00:00Z"
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
            return day.timestamp() + (86400 if end else 0)
        if not re.fullmatch(
            r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", text
        ):
            raise ValueError
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a date", hint) from None
