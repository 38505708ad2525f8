"""Tell of reloads in the log, but not without end.

Each one tells all mistakes and warnings.  Whoever may write a file that is read, such as
the fetcher, can bring about five a second, and their lines would push decisions out of the journal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sidecar.core.errors import PolicyError

from .policy_store import Reload

log = logging.getLogger("mtls-sidecar")

MAX_LINES = 300
"""Lines after which no more reloads of a period are told, but for the last one at its end."""

PERIOD = 60.0
"""Seconds of a period."""

Later = Callable[[float, Callable[[], None]], object]
"""Calls a function after some seconds."""


def _later(seconds: float, call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(seconds, call)


class ReloadLines:
    """Log the results of reloads; of too many in a period only the last, at its end."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, later: Later = _later
    ) -> None:
        self._clock, self._later = clock, later
        self._end = 0.0
        self._lines = self._untold = 0
        self._last: Reload | None = None

    def tell(self, result: Reload) -> None:
        """Log a reload now, or at the end of the period."""
        now = self._clock()
        if self._last is None and now >= self._end:
            self._end, self._lines = now + PERIOD, 0
        if self._lines < MAX_LINES:
            self._write(result)
            return
        if self._last is None:
            self._later(self._end - now, self._catch_up)
        self._last, self._untold = result, self._untold + 1

    def _catch_up(self) -> None:
        last, untold = self._last, self._untold - 1
        self._last, self._untold = None, 0
        self._end, self._lines = self._clock() + PERIOD, 0
        if untold:
            log.warning("%d reloads before this one aren't told: files change all the time", untold)
        if last is not None:
            self._write(last)

    def _write(self, result: Reload) -> None:
        warnings = result.policy.warnings_at(result.at)
        self._lines += 1 + len(result.diagnostics) + len(warnings)
        if result.ok:
            log.info("policy %s is in force", result.policy.hash)
        else:
            mistakes = PolicyError(result.diagnostics)
            log.error("reload refused, policy %s stays in force:\n%s", result.policy.hash, mistakes)
        for warning in warnings:
            log.warning("%s", warning)
