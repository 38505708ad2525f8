"""What servers send to an agent waits for its turn, within bounds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from fleet_entries import Author

from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.fleet.nats_client import Bus
from sidecar.fleet.node import MOST_WAITING, SURE, Node


class Servers:
    """Hold some entries, and no head."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines

    async def entry(self, number: int) -> bytes | None:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else None

    async def entries(self, first: int) -> list[bytes]:
        return self.lines[first - 1 :]

    async def head(self) -> bytes | None:
        return None


def node(author: Author, directory: Path) -> Node:
    return Node(FleetSettings(name=author.fleet, keys=(author.public,)), "web1", directory)


def test_more_than_fits_is_dropped_and_fetched_instead(tmp_path: Path) -> None:
    """A server that sends large junk fills no memory, and hides nothing."""
    author = Author()
    lines = [author.revocation(f"{number:064x}").line() for number in range(3)]
    agent = node(author, tmp_path)
    agent._missed = False
    for _ in range(40):
        agent._take_entry("", bytes(1024 * 1024))
    agent._take_entry("", lines[0])
    assert sum(map(len, agent._entries)) <= MOST_WAITING + len(lines[0])
    asyncio.run(agent._step(cast("Bus", Servers(lines))))
    assert agent._ledger.chain.sequence == 3
    agent._take_entry("", bytes(1024 * 1024))
    assert len(agent._entries) == 1
    agent._ledger.close()


def test_servers_that_were_set_back_are_counted_once_and_told(tmp_path: Path) -> None:
    """Not at the first look, which may meet a server that is a moment behind."""
    author = Author()
    lines = [author.revocation(f"{number:064x}").line() for number in range(3)]
    agent, servers = node(author, tmp_path), Servers(lines)
    asyncio.run(agent._step(cast("Bus", servers)))
    servers.lines = lines[:2]
    for looks in range(1, 2 * SURE):
        agent._missed = True
        asyncio.run(agent._step(cast("Bus", servers)))
        assert agent._ledger.refused["rollback"] == (looks >= SURE)
        assert bool(agent._set_back()) == (looks >= SURE)
    servers.lines = lines
    agent._missed = True
    asyncio.run(agent._step(cast("Bus", servers)))
    assert not agent._set_back()
    agent._ledger.close()
