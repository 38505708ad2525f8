"""The state of the daemon that the probes and the status page show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.authorizer.telemetry.counters import Counts
from sidecar.core.policy.model import Policy


@dataclass(slots=True)
class DaemonStatus:
    """The state of the daemon.

    `not_ready` says why it isn't ready ("": it is); `standing` returns the current conditions, such
    as a full disk.
    """

    counts: Counts
    policy: Policy | None = None
    loaded_at: float = 0.0
    problems: tuple[str, ...] = ()
    not_ready: str = "no policy is in force yet"
    standing: Callable[[], tuple[str, ...]] = tuple
