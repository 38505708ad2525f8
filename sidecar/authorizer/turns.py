"""Spread the work on requests that aren't cached over turns of the event loop.

In one turn the loop reads from every connection that has something.  Hundreds of large
certificates or targets at once take milliseconds each, and cached answers and reloads would wait
for all of them.  So a turn works off about `OCTETS`, and what is left waits for the next turns: the
smaller requests go first, as nginx's are small, and every fourth time another size does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

OCTETS = 32 * 1024
"""Octets of requests that are worked off in a turn, at least one request: a few milliseconds."""

SIZES = 7
"""Sizes that wait apart: up to 4 KiB, 8 KiB, and so on, and more than 128 KiB."""

SMALLEST_FIRST = 4
"""How often the smallest go first, but for once."""


_Work = Callable[[], None]


class Turns:
    """Who waits for a turn; `call_soon` runs a function in the next turn of the loop."""

    def __init__(self, call_soon: Callable[[_Work], object]) -> None:
        self._call_soon = call_soon
        self._waiting = [OrderedDict[object, tuple[int, _Work]]() for _ in range(SIZES)]
        self._spent = self._number = 0
        self._working = self._scheduled = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting))

    def admits(self, octets: int) -> bool:
        """Return whether a request may be worked off at once; it is then counted."""
        if self._working:
            return True
        if self._spent >= OCTETS or any(self._waiting):
            return False
        self._spent += octets
        self._schedule()
        return True

    def wait(self, who: object, octets: int, work: _Work) -> None:
        """Call `work` when it has its turn, unless `who` leaves before."""
        size = min(SIZES - 1, (octets >> 12).bit_length())
        self._waiting[size][who] = octets, work
        self._schedule()

    def leave(self, who: object) -> None:
        """Wait no longer."""
        for each in self._waiting:
            each.pop(who, None)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._work)

    def _work(self) -> None:
        """Begin a turn, with those that wait."""
        self._spent, self._scheduled, self._working = 0, False, True
        try:
            while self._spent < OCTETS and any(self._waiting):
                octets, work = self._next()
                self._spent += octets
                work()
        finally:
            self._working = False
            if self._spent:
                self._schedule()

    def _next(self) -> tuple[int, _Work]:
        self._number += 1
        times, rest = divmod(self._number, SMALLEST_FIRST)
        first = 0 if rest else times % SIZES
        order = (*self._waiting[first:], *self._waiting[:first])
        return next(each for each in order if each).popitem(last=False)[1]
