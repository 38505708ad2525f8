"""The keeper: says every few seconds, signed, where the log ends.

A node that hears no such head knows that it may miss something.  A keeper signs no head for a log
that is shorter than the one it has verified, and none while most servers don't answer: a server
that is cut off from the others has what is old, and its nodes would think it new.  More than one
keeper may run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.core.errors import brief
from sidecar.core.fleet.entry import Entry

from .ledger import Ledger
from .nats_client import Bus, Unreachable, connected
from .publisher import Publisher
from .signer import Signer

log = logging.getLogger("mtls-sidecar")

INTERVAL = 5.0
"""Seconds between two heads."""

LIFE = 60.0
"""Seconds after which a node doesn't take a head any more."""


async def keep(
    fleet: FleetSettings,
    ledger: Ledger,
    signer: Signer,
    *,
    interval: float = INTERVAL,
    ready: Callable[[], object] = int,
) -> None:
    """Sign heads until cancelled."""
    known = {key.id for key in ledger.chain.keys.values()}
    if signer.public.id not in known:
        raise ValueError(
            f"the key {signer.public} is not pinned for fleet {fleet.name}",
            f"add it to `keys` of sidecar.yaml on every host: {signer.public} head",
        )
    async with connected(fleet, "keeper", patient=True) as bus:
        publisher = Publisher(bus, ledger, signer)
        ready()
        told = ""
        while True:
            try:
                await _round(publisher, signer)
                told = ""
            except (Unreachable, OSError) as error:
                if brief(error) != told:
                    told = brief(error)
                    log.error("no head is signed: %s", told)
            await asyncio.sleep(interval)


async def _round(publisher: Publisher, signer: Signer) -> None:
    """Sign a head for what most servers had when the round began; a server alone proves nothing."""
    now, bus = time.time(), publisher.bus
    try:
        await bus.prove_majority()
    except Unreachable:
        await publisher.sync()  # it may know better why
        raise
    await publisher.sync()
    await bus.put_data(bus.subjects.head, head(publisher.ledger, signer, now))


def head(ledger: Ledger, signer: Signer, now: float) -> bytes:
    """The line of a head for the log as it is."""
    chain = ledger.chain
    entry = Entry(
        fleet=chain.fleet,
        epoch=chain.epoch,
        sequence=chain.sequence,
        previous=chain.hash,
        kind="head",
        body={"issued": int(now * 1000)},
        not_after=int(now + LIFE),
    )
    return signer.sign(entry).line()


async def head_once(bus: Bus, ledger: Ledger, signer: Signer | None) -> None:
    """Sign a head right after an entry, so that it is known at once to be the last."""
    if signer is not None:
        with contextlib.suppress(Unreachable):
            await bus.put_data(bus.subjects.head, head(ledger, signer, time.time()))
