"""Which denials are logged one by one, and the counts of those that are not.

Anybody can be denied as often as he likes, and would fill the log with it until older lines are
thrown away.  So denials have a budget of lines per second: one for all strangers together, one for
each certificate that is known and denied, and one for what is let through without asking who it is
(`allow: public`, monitor mode).  Beyond it a denial is counted, by reason and location.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.core.decision import ISSUED, Decision, Reason

INTERVAL = 5.0
"""Seconds that one summary is about."""

BURST = 10
"""Seconds' worth of lines that a budget saves up."""

MAX_BUDGETS = 10_000
"""Most certificates that have a budget of their own; the others share one."""

Who = str
"""Whose budget it is: a verdict for all strangers, or a certificate's SHA-256."""

_OTHERS = "others"


@dataclass(slots=True)
class Summary:
    """Decisions that were counted in place of being logged, and the first and last of them."""

    verdict: str
    reason: str
    location: str
    sha256: str
    count: int = 0
    first: tuple[float, str, bytes] = (0.0, "", b"")
    last: tuple[float, str, bytes] = (0.0, "", b"")


@dataclass(slots=True)
class _Budget:
    lines: float
    since: float


class Summaries:
    """The budgets.  `rate` is lines per second, 0 for no bound; `clock` never goes back."""

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._budgets: dict[Who, _Budget] = {}
        self._open: dict[tuple[str, str, str, Who], Summary] = {}
        self._since = clock()
        self.total = 0

    def admits(self, decision: Decision, client_ip: str, request_id: bytes, at: float) -> bool:
        """Whether a decision is to be logged; if not, count it.

        `request_id` as it stands in a log line, `at` in seconds since the epoch.
        """
        who = budget_of(decision)
        if not who or not self._rate or self._spend(who):
            return True
        key = (decision.verdict, str(decision.reason), decision.location, who)
        summary = self._open.get(key)
        if summary is None:  # the first of its kind is logged, whatever the others do
            sha256 = who if decision.subject is not None and who == decision.subject.sha256 else ""
            self._open[key] = Summary(*key[:3], sha256)
            return True
        summary.last = (at, client_ip, request_id)
        if not summary.count:
            summary.first = summary.last
        summary.count += 1
        self.total += 1
        return False

    def take(self, *, all_of_them: bool = False) -> list[Summary]:
        """The summaries of an interval that has ended, or of the one under way, too."""
        now = self._clock()
        if now - self._since < INTERVAL and not all_of_them:
            return []
        self._since = now
        done = [summary for summary in self._open.values() if summary.count]
        self._open.clear()
        full = self._rate * BURST
        self._budgets = {
            who: budget
            for who, budget in self._budgets.items()
            if budget.lines + (now - budget.since) * self._rate < full
        }
        return done

    def _spend(self, who: Who) -> bool:
        budget = self._budgets.get(who)
        if budget is None:
            who = who if len(self._budgets) < MAX_BUDGETS else _OTHERS
            budget = self._budgets.setdefault(who, _Budget(self._rate * BURST, self._clock()))
        now = self._clock()
        saved = budget.lines + (now - budget.since) * self._rate
        budget.lines, budget.since = min(saved, self._rate * BURST), now
        if budget.lines < 1:
            return False
        budget.lines -= 1
        return True


def budget_of(decision: Decision) -> Who:
    """Whose budget a decision's line is of; empty for a line that is always written.

    Always written is that a known client was let in, or an exempt one.
    """
    if decision.reason is Reason.PUBLIC:
        return "public"
    if decision.granted:
        return ""
    if decision.subject is None or decision.reason not in ISSUED:
        return decision.verdict
    return decision.subject.sha256
