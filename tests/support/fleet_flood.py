"""Publish many revocations: `python fleet_flood.py SIDECAR_YAML COUNT RATE`, RATE a second."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path

from sidecar.core.config.settings import read_settings
from sidecar.fleet.ledger import Ledger
from sidecar.fleet.nats_client import connected
from sidecar.fleet.publisher import Publisher
from sidecar.fleet.signer import signer_of


async def flood(config: Path, count: int, rate: float) -> None:
    settings = read_settings(config.read_bytes(), str(config))
    assert settings.fleet is not None
    signer = signer_of(settings.fleet.signer, config.parent / "fleet.key")
    directory = Path(settings.state_dir) / "fleet-publisher"
    with contextlib.closing(Ledger(directory, settings.fleet, only_copy=True)) as ledger:
        async with connected(settings.fleet, "publisher") as bus:
            publisher = Publisher(bus, ledger, signer)
            await publisher.sync()
            start = time.monotonic()
            for number in range(count):
                await asyncio.sleep(start + number / rate - time.monotonic())
                body = {"deny": "sha256", "value": f"{number:064x}", "comment": ""}
                await publisher.publish("revocation", body)


if __name__ == "__main__":
    asyncio.run(flood(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
