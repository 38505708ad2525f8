"""Read lines of the decision log, as text or JSON."""

from __future__ import annotations

import json
import re
from calendar import timegm
from datetime import datetime

_START = re.compile(rb'\{"time":"|(?=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?:decision|reason)=")')
_PAIR = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|(\d+))')
_ID = (b' id="', b',"id":"')

Fields = dict[str, str]

MAX_VALUES = 100
"""Most values of a line; the decision log writes about 20."""

FULL = 24
"""Octets of a line's time: 2026-01-31T12:00:00.000Z."""


def split(line: bytes) -> tuple[bytes, bytes] | None:
    """Split a line into its time and the part equal for equal questions; None for other lines."""
    start = _START.search(line, 0, 256)
    if start is None:
        return None
    at = start.end()
    end = line.find(_ID[line[start.start() : at] != b""], at)
    return (line[at : at + FULL], line[at + FULL : end if end > 0 else None])


def read_line(line: bytes) -> Fields | None:
    """Parse the values of a line by name; return None for other lines and invalid ones."""
    start = _START.search(line, 0, 256)
    if start is None:
        return None
    text = line[start.start() :].decode("utf-8", "replace").strip()
    try:
        if text.startswith("{"):
            found = json.loads(text)
            if len(found) > MAX_VALUES:
                return None
            return {str(name): str(value) for name, value in found.items()}
        pairs = _PAIR.findall(text)
        read = {
            name: json.loads(f'"{quoted}"') if quoted else plain for name, quoted, plain in pairs
        }
    except (ValueError, RecursionError):
        return None
    return {"time": text[:FULL], **read} if len(read) <= MAX_VALUES else None


def moment(stamp: bytes) -> float:
    """Convert a line's time to seconds since the epoch.  Raises ValueError."""
    found = datetime.strptime(stamp[:19].decode("latin-1"), "%Y-%m-%dT%H:%M:%S")
    return timegm(found.timetuple()) + float(stamp[19:23])


def is_cut(value: str) -> bool:
    """Return whether the log has shortened this value."""
    return len(value) >= 40 and value.endswith("...")
