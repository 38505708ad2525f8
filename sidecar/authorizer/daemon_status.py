"""The state of the daemon that the probes and the status page show."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sidecar.authorizer.telemetry.counters import Counts
from sidecar.authorizer.telemetry.history import History
from sidecar.authorizer.telemetry.recent_denials import Denial
from sidecar.core.evaluate import NO_ANSWERS
from sidecar.core.policy.model import Policy
from sidecar.core.revocation.ocsp.response import OcspAnswer, OcspKey
from sidecar.core.seen_clients import SeenClient


@dataclass(slots=True)
class DaemonStatus:
    """The state of the daemon.

    `not_ready` says why it isn't ready ("": it is); `standing` returns the current conditions, such
    as a full disk; `ocsp` are the OCSP answers at hand.  A function may be called from any thread.
    """

    counts: Counts
    policy: Policy | None = None
    loaded_at: float = 0.0
    problems: tuple[str, ...] = ()
    not_ready: str = "no policy is in force yet"
    standing: Callable[[], tuple[str, ...]] = tuple
    history: History = field(default_factory=History)
    denials: Callable[[], list[Denial]] = list
    clients: Callable[[], list[SeenClient]] = list
    ocsp: Mapping[OcspKey, OcspAnswer] = field(default_factory=lambda: NO_ANSWERS)
    started: float = field(default_factory=time.time)
