"""Warn before a CRL ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sidecar.core.policy.model import Policy
from sidecar.core.revocation.crl.index import Crl

log = logging.getLogger("mtls-sidecar")

WARN_BEFORE = 2 * 86400
"""Seconds before a CRL's nextUpdate at which a warning is logged, or half its lifetime if less."""


class CrlEnds:
    """Log a warning, once for each CRL, before it ends."""

    def __init__(self) -> None:
        self._warned: set[tuple[str, float]] = set()

    async def watch(self, policy: Callable[[], Policy]) -> None:
        """Look at the policy's CRLs each minute, until cancelled."""
        while True:
            self.look(policy(), time.time())
            await asyncio.sleep(60)

    def look(self, policy: Policy, now: float) -> None:
        """Warn of the CRLs that end soon, and forget those that are no longer there."""
        crls = [crl for trust in policy.trusts.values() for crl in trust.crl_list]
        for crl in crls:
            self._warn_of_end(crl, now)
        self._warned &= {(crl.source, crl.next_update or now) for crl in crls}

    def _warn_of_end(self, crl: Crl, now: float) -> None:
        end = crl.next_update or now
        ahead = min(WARN_BEFORE, (end - crl.this_update) / 2)
        if now > end - ahead and (crl.source, end) not in self._warned:
            self._warned.add((crl.source, end))
            log.warning("CRL %s ends in %.1f hours", crl.source, (end - now) / 3600)
