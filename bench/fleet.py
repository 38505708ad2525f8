"""Measure a fleet of many agents on one machine.

`PYTHONPATH=.:tests/support python bench/fleet.py [AGENTS [ROUNDS]]`.

The agents' real code, all in one process; one NATS server; a publisher.  Each agent verifies each
entry and writes a log of its own, in memory (/dev/shm): on real hosts their disks don't wait for each
other.  What is measured is the time from the publish call until an agent has written an entry, or has
a release in place.  Its daemon looks every 0.2 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fleet_hosts import Fleet, Nats

from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.core.config.settings import read_settings
from sidecar.fleet.ledger import Ledger
from sidecar.fleet.nats_client import connected
from sidecar.fleet.node import Node
from sidecar.fleet.publisher import Publisher
from sidecar.fleet.signer import signer_of
from sidecar.runtime.release_directory import ReleaseDirectory


def quantile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def tell(what: str, times: list[float]) -> None:
    p50, p99, last = quantile(times, 0.5), quantile(times, 0.99), max(times)
    print(
        f"| {what} | {p50 * 1000:.0f} ms | {p99 * 1000:.0f} ms | {last * 1000:.0f} ms |", flush=True
    )


def has_entry(sequence: int, node: Node) -> bool:
    return node._ledger.chain.sequence >= sequence


def has_release(name: str, node: Node) -> bool:
    return ReleaseDirectory(node._places.agent).current() == name


async def arrivals(nodes: list[Node], start: float, has: Callable[[Node], bool]) -> list[float]:
    """Return the seconds until each node has something."""
    left, found = set(range(len(nodes))), []
    while left:
        now = time.monotonic()
        for number in [n for n in left if has(nodes[n])]:
            left.discard(number)
            found.append(now - start)
        assert now - start < 300, f"{len(left)} nodes lack it"
        await asyncio.sleep(0.005)
    return found


async def measure(fleet: Fleet, settings: FleetSettings, count: int, rounds: int) -> None:
    base = fleet.directory / "nodes"
    nodes = [Node(settings, f"n{number}", base / f"n{number}") for number in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        bus = await stack.enter_async_context(connected(settings, "publisher"))
        ledger = Ledger(fleet.directory / "publisher", settings, only_copy=True)
        publisher = Publisher(bus, ledger, signer_of(settings.signer, fleet.key))
        await bus.make_streams()
        tasks = []
        for number, node in enumerate(nodes):
            tasks.append(asyncio.create_task(node.run()))
            if number % 50 == 49:
                await asyncio.sleep(0.3)
        await asyncio.sleep(5)
        print(f"| {count} agents | p50 | p99 | last |\n| --- | --- | --- | --- |")
        times: list[float] = []
        for number in range(rounds):
            start = time.monotonic()
            body = {"deny": "sha256", "value": f"{number:064x}", "comment": ""}
            signed = await publisher.publish("revocation", body)
            times += await arrivals(nodes, start, partial(has_entry, signed.entry.sequence))
            await asyncio.sleep(1)
        tell("a revocation", times)
        for size in (100_000, 10_000_000)[: 2 if count <= 200 else 1]:
            text = b"version: 1\nlocations: []\n"
            files = {"policy.yaml": text, "crl.pem": bytes(size - len(text))}
            start = time.monotonic()
            listed = await publisher.put_files(files)
            released: dict[str, Any] = {"files": listed, "to": None, "comment": ""}
            signed = await publisher.publish("release", released)
            name = f"{signed.entry.sequence}-{signed.entry.hash[:16]}"
            tell(
                f"a release of {size // 1000} KB",
                await arrivals(nodes, start, partial(has_release, name)),
            )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ledger.close()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    directory = Path(tempfile.mkdtemp(prefix="fleet-bench-", dir="/dev/shm"))
    try:
        with Nats(directory / "nats") as server:
            fleet = Fleet(directory / "fleet", server)
            found = read_settings(fleet.config.read_bytes(), str(fleet.config)).fleet
            assert found is not None
            asyncio.run(measure(fleet, found, count, rounds))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
