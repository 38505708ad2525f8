"""One call of `fleet …`: its arguments, and what follows from them and from sidecar.yaml."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.core.config.settings import Settings
from sidecar.core.errors import printable

from .hooks import Hooks
from .ledger import Ledger
from .nats_client import NotAllowed, SetBack, Unreachable, allowed, connected
from .publisher import Publisher
from .signer import Signer, signer_of
from .streams import make_streams

KEY_FILE = "fleet.key"

PATIENCE = 30.0
"""Seconds for which servers that answer nothing are asked again."""


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments, and what follows from them and from sidecar.yaml."""

    options: argparse.Namespace
    hooks: Hooks

    @property
    def settings(self) -> Settings:
        return self.hooks.settings(self.options)

    @property
    def fleet(self) -> FleetSettings:
        """Raises ValueError where sidecar.yaml names no fleet."""
        found = self.settings.fleet
        if found is None:
            file = self.hooks.config(self.options)
            raise ValueError(
                f"{file} names no fleet", "add fleet: {name: …, servers: […], keys: […]}"
            )
        if not found.servers:
            raise ValueError(
                f"{self.hooks.config(self.options)}: the fleet names no servers",
                "add servers: [tls://nats.example.com:4222]",
            )
        return found

    @property
    def key_file(self) -> Path:
        """The key that is named, configured, or beside sidecar.yaml."""
        given = self.options.signing_key or (self.fleet.signer.key if self.settings.fleet else "")
        return Path(given) if given else self.hooks.config(self.options).parent / KEY_FILE

    def signer(self) -> Signer:
        settings = self.fleet.signer
        if self.options.signing_key or self.options.passphrase_file:
            command = () if self.options.signing_key else settings.command
            passphrase = self.options.passphrase_file or settings.passphrase_file
            settings = replace(settings, command=command, passphrase_file=passphrase)
        return signer_of(settings, self.key_file)

    def ledger_directory(self, role: str) -> Path:
        """Where a publisher keeps its log: the state directory, one beside it, or the user's own.

        Beside it for root, where it is another's: its owner could put a link there, which root
        would follow, or remove what may be the only copy of the log.
        """
        if self.options.state_dir:
            return Path(self.options.state_dir) / f"fleet-{role}"
        state = Path(self.settings.state_dir)
        place = state / f"fleet-{role}"
        if os.geteuid() == 0 and state.exists() and state.stat().st_uid != 0:
            place = state.with_name(f"{state.name}-fleet-{role}")
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o750, parents=True, exist_ok=True)
            return place
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        return Path(home) / "mtls-sidecar" / f"fleet-{role}-{self.fleet.name}"

    def published(self) -> Ledger:
        """The publisher's log.  Raises OSError and ValueError."""
        return Ledger(self.ledger_directory("publisher"), self.fleet, only_copy=True)

    @contextlib.asynccontextmanager
    async def publisher(self, *, signing: bool = True) -> AsyncIterator[Publisher]:
        """A publisher that knows all that was published.

        A cluster that chooses a leader just now, or a server that is cut off from the others, is
        waited for, or another server found.  Raises `SetBack`, `Unreachable`.
        """
        signer = self.signer() if signing else None
        end = time.monotonic() + PATIENCE
        with contextlib.closing(self.published()) as ledger:
            while True:
                async with connected(self.fleet, "publisher") as bus:
                    publisher = Publisher(bus, ledger, signer)
                    if await _is_ready(publisher, end):
                        yield publisher
                        return
                await asyncio.sleep(1)


async def _is_ready(publisher: Publisher, end: float) -> bool:
    """Learn what was published; False to try again.  Raises `Unreachable` after the end."""
    try:
        if publisher.signer is not None:
            await make_streams(publisher.bus)
        await publisher.sync()
    except SetBack as error:
        if publisher.signer is not None:
            raise
        publisher.set_back = str(error)  # who only looks is shown what there is
    except Unreachable as error:
        told = allowed(error, publisher.bus.refused())
        if isinstance(told, NotAllowed) or time.monotonic() > end:
            raise told from None
        print(f"{printable(str(error))}; trying again", file=sys.stderr)
        return False
    return True
