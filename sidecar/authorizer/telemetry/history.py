"""How many decisions there were in each minute of the last hour, for the status page."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

MINUTES = 60
"""Minutes that are kept."""

MAX_LOCATIONS = 100
"""Most locations that one minute is kept of: those with most decisions, the denied ones first."""

Label = tuple[str, str, str]
"""Location, verdict and reason."""

Kind = tuple[str, str]
"""Verdict and reason."""


@dataclass(slots=True)
class _Minute:
    number: int
    all: Counter[Kind] = field(default_factory=Counter)
    locations: dict[str, Counter[Kind]] = field(default_factory=dict)


class History:
    """The last hour.  Every method may be called from any thread."""

    def __init__(self) -> None:
        self._minutes: deque[_Minute] = deque(maxlen=MINUTES)
        self._before: dict[Label, int] = {}
        self._one_at_a_time = threading.Lock()

    def take(self, counts: Mapping[Label, int], now: float) -> None:
        """Take the counts as they are at `now`, seconds since the epoch: what is new is of now."""
        with self._one_at_a_time:
            current = dict(counts)
            before, self._before = self._before, current
            minute = self._minute(int(now // 60))
            for label, count in current.items():
                if more := count - before.get(label, 0):
                    location, *kind = label
                    minute.all[kind[0], str(kind[1])] += more
                    found = minute.locations.setdefault(location, Counter())
                    found[kind[0], str(kind[1])] += more
            if len(minute.locations) > 2 * MAX_LOCATIONS:
                minute.locations = _largest(minute.locations)

    def _minute(self, number: int) -> _Minute:
        if not self._minutes or self._minutes[-1].number < number:
            if self._minutes:
                self._minutes[-1].locations = _largest(self._minutes[-1].locations)
            self._minutes.append(_Minute(number))
        return self._minutes[-1]

    def per_minute(self, verdict: str, now: float, location: str | None = None) -> list[int]:
        """How many there were in each minute, the present one last."""
        first = int(now // 60) - MINUTES + 1
        found = [0] * MINUTES
        for number, counted in self._counted(location):
            if 0 <= number - first < MINUTES:
                found[number - first] = sum(n for kind, n in counted.items() if kind[0] == verdict)
        return found

    def in_the_hour(self, now: float, location: str | None = None) -> Counter[Kind]:
        """How many there were of each verdict and reason."""
        first = int(now // 60) - MINUTES + 1
        found: Counter[Kind] = Counter()
        for number, counted in self._counted(location):
            if number >= first:
                found.update(counted)
        return found

    def locations(self) -> set[str]:
        """The locations of which something is kept."""
        with self._one_at_a_time:
            return {name for minute in self._minutes for name in minute.locations}

    def _counted(self, location: str | None) -> list[tuple[int, Counter[Kind]]]:
        with self._one_at_a_time:
            return [
                (each.number, Counter(each.all if location is None else each.locations[location]))
                for each in self._minutes
                if location is None or location in each.locations
            ]


def _largest(locations: dict[str, Counter[Kind]]) -> dict[str, Counter[Kind]]:
    if len(locations) <= MAX_LOCATIONS:
        return locations

    def worth(name: str) -> tuple[int, int]:
        counted = locations[name]
        return sum(n for kind, n in counted.items() if kind[0] == "deny"), counted.total()

    return {name: locations[name] for name in sorted(locations, key=worth)[-MAX_LOCATIONS:]}
