"""Publish many revocations: `python fleet_flood.py SIDECAR_YAML COUNT [PAUSE]`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from sidecar.core.config.settings import read_settings
from sidecar.fleet.ledger import Ledger
from sidecar.fleet.nats_client import connected
from sidecar.fleet.publisher import Publisher
from sidecar.fleet.signer import signer_of


async def flood(config: Path, count: int, pause: float) -> None:
    settings = read_settings(config.read_bytes(), str(config))
    assert settings.fleet is not None
    signer = signer_of(settings.fleet.signer, config.parent / "fleet.key")
    directory = Path(settings.state_dir) / "fleet-publisher"
    with contextlib.closing(Ledger(directory, settings.fleet, only_copy=True)) as ledger:
        async with connected(settings.fleet, "publisher") as bus:
            publisher = Publisher(bus, ledger, signer)
            await publisher.sync()
            for number in range(count):
                body = {"deny": "sha256", "value": f"{number:064x}", "comment": ""}
                await publisher.publish("revocation", body)
                await asyncio.sleep(pause)


if __name__ == "__main__":
    pause = float(sys.argv[3]) if len(sys.argv) > 3 else 0.05
    asyncio.run(flood(Path(sys.argv[1]), int(sys.argv[2]), pause))
