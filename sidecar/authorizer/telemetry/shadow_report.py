"""Log now and then how many clients monitor mode alone lets in, so that it leads somewhere."""

from __future__ import annotations

import logging

from .counters import Counts

log = logging.getLogger("mtls-sidecar")

INTERVAL = 600.0
"""Seconds between two lines, at least."""

MAX_NAMED = 10
"""Most locations named in one line: those with most clients."""


class ShadowReport:
    """What was told, and when."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._told = 0
        self._next = 0.0

    def look(self, now: float) -> None:
        """Log a line where more clients would be locked out than were told.

        `now` of a clock that never goes back.
        """
        total = self._counts.locked_out_total
        if total < self._told:  # a reload: they are counted anew
            self._told = 0
        if total == self._told or now < self._next:
            return
        self._told, self._next = total, now + INTERVAL
        found = {name: len(clients) for name, clients in self._counts.locked_out.items() if clients}
        largest = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        named = ", ".join(f"{name} {count}" for name, count in largest[:MAX_NAMED])
        more = f" and {len(largest) - MAX_NAMED} locations more" if len(largest) > MAX_NAMED else ""
        log.info(
            "monitor mode: enforcing would lock out clients: %s%s; "
            "`mtls-sidecar who --shadow` names them",
            named,
            more,
        )
