"""How long until a revocation or a release is on every host of a fleet?

    PYTHONPATH=.:tests/support .venv/bin/python bench/fleet.py [--agents N] [--hosts N] …

One NATS server.  N agents run in one process, each with the real code and a state directory of its
own below --directory (memory, by default: one disk for 1,000 hosts would measure that disk).  A few
whole hosts beside them, agent and daemon as processes, are asked at their authorization sockets.
Prints p50, p99 and the last, in milliseconds after the publisher's call; and, as the ceiling, how
long a plain subscriber of the same server waits for a message of the same size in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from fleet_hosts import Fleet, Host, Nats
from pki import CA, Leaf

from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.core.config.settings import read_settings
from sidecar.fleet import node as node_module
from sidecar.fleet.ledger import Ledger
from sidecar.fleet.nats_client import Bus, connected
from sidecar.fleet.node import Node
from sidecar.fleet.publisher import Publisher
from sidecar.fleet.signer import signer_of
from sidecar.fleet.streams import make_streams
from sidecar.runtime.release_directory import ReleaseDirectory

POLICY = """\
version: 1
trust: {staff: {ca: pki/ca.crt, denylist: [large.txt]}}
locations: [{name: site, allow: verified}]
"""

PATIENCE = 300.0


@dataclass(slots=True)
class MeasuredNode(Node):
    """An agent that notes when an entry, or a release's directory, was there."""

    taken: dict[int, float] = field(default_factory=dict)

    async def _step(self, bus: Bus) -> None:
        before = self._ledger.chain.sequence
        await Node._step(self, bus)
        now = time.monotonic()
        for number in range(before + 1, self._ledger.chain.sequence + 1):
            self.taken[number] = now

    @property
    def log(self) -> Path:
        """Return the file of its log."""
        return self._ledger.path

    def release(self) -> str:
        """Return the directory of the release that is there."""
        return ReleaseDirectory(self._places.agent).current() or ""


def shown(name: str, seconds: list[float]) -> str:
    """Return one row: how many, p50, p99, the last."""
    found = sorted(each * 1000 for each in seconds)
    if not found:
        return f"| {name} | 0 | | | |"
    p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
    return (
        f"| {name} | {len(found)} | {statistics.median(found):.0f} | {p99:.0f} | {found[-1]:.0f} |"
    )


async def until(holds: Callable[[], bool], pause: float = 0.005) -> None:
    """Wait until something holds.  Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(pause)


class Asked:
    """Asks the sockets of whole hosts, one thread each, until they deny; notes when."""

    def __init__(self, hosts: list[Host], leaf: Leaf) -> None:
        self.at: dict[str, float] = {}
        self._threads = [threading.Thread(target=self._ask, args=(host, leaf)) for host in hosts]
        for each in self._threads:
            each.start()

    def _ask(self, host: Host, leaf: Leaf) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if host.daemon.ask("site", leaf).status == 403:
                self.at[host.name] = time.monotonic()
                return
            time.sleep(0.005)

    async def wait(self) -> None:
        await until(lambda: not any(each.is_alive() for each in self._threads))


@contextlib.asynccontextmanager
async def agents(
    fleet: FleetSettings, directory: Path, count: int
) -> AsyncIterator[list[MeasuredNode]]:
    """Run so many agents in this process."""
    found = []
    for number in range(count):
        state = directory / f"{number}"
        state.mkdir(parents=True)
        found.append(MeasuredNode(fleet, f"agent{number}", state))
    tasks = []
    for each in found:
        tasks.append(asyncio.create_task(each.run()))
        await asyncio.sleep(0.002)  # not all at once
    try:
        yield found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def release_files(directory: Path, authority: CA, octets: int) -> dict[str, bytes]:
    """Write a release of about so many octets: a policy whose denylist is large."""
    lines = octets // 42
    numbers = random.Random(octets)
    text = "".join(f"serial {numbers.getrandbits(128):032X}\n" for _ in range(lines))
    files = {
        "policy.yaml": POLICY.encode(),
        "pki/ca.crt": authority.pem,
        "large.txt": text.encode(),
    }
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return files


async def revocations(
    publisher: Publisher, nodes: list[MeasuredNode], hosts: list[Host], staff: CA, count: int
) -> list[str]:
    """Revoke one certificate after the other."""
    agents_took: list[float] = []
    hosts_took: list[float] = []
    for number in range(count):
        leaf = staff.issue(f"client{number}")
        asked = Asked(hosts, leaf)
        await asyncio.sleep(0.2)
        start = time.monotonic()
        body = {"deny": "sha256", "value": leaf.sha256, "comment": "bench"}
        signed = await publisher.publish("revocation", body)
        sequence = signed.entry.sequence
        await until(lambda: all(sequence in each.taken for each in nodes))  # noqa: B023 - now
        await asked.wait()
        agents_took += [each.taken[sequence] - start for each in nodes]
        hosts_took += [at - start for at in asked.at.values()]
    return [
        shown("revocation, verified and written by an agent", agents_took),
        shown("revocation, denied at a host's authorization socket", hosts_took),
    ]


async def steady(
    publisher: Publisher, nodes: list[MeasuredNode], hosts: list[Host], rate: int, seconds: int
) -> list[str]:
    """Publish so many entries a second; at the end all logs are the publisher's."""
    start, began = time.monotonic(), {}
    for number in range(rate * seconds):
        await asyncio.sleep(start + number / rate - time.monotonic())
        now = time.monotonic()
        body = {"deny": "sha256", "value": f"{number:064x}", "comment": "bench"}
        signed = await publisher.publish("revocation", body)
        began[signed.entry.sequence] = now
    took = time.monotonic() - start
    last = publisher.ledger.chain.sequence
    await until(lambda: all(last in each.taken for each in nodes), 0.05)
    await until(lambda: all(host.sequence() == last for host in hosts), 0.05)
    behind = time.monotonic() - start - took
    expected = publisher.ledger.path.read_bytes()
    logs = [each.log for each in nodes]
    logs += [host.state / "fleet-in-force" / logs[0].name for host in hosts]
    assert all(log.read_bytes() == expected for log in logs), "a log is another"
    found = [node.taken[number] - at for number, at in began.items() for node in nodes]
    name = f"{len(began)} entries in {took:.1f} s, verified and written by an agent"
    return [
        shown(name, found),
        f"| the same, in force on the last whole host after the last entry | {len(hosts)} | | | "
        f"{behind * 1000:.0f} |",
    ]


async def release(
    publisher: Publisher, nodes: list[MeasuredNode], hosts: list[Host], staff: CA, octets: int
) -> list[str]:
    """Publish one release."""
    with tempfile.TemporaryDirectory() as aside:
        files = release_files(Path(aside), staff, octets)
    start = time.monotonic()
    listed = await publisher.put_files(files)
    stored = time.monotonic() - start
    body: dict[str, Any] = {"files": listed, "to": None, "comment": ""}
    signed = await publisher.publish("release", body)
    sequence = signed.entry.sequence
    took: dict[str, float] = {}

    def look() -> bool:
        for each in nodes:
            if each.name not in took and each.release().startswith(f"{sequence}-"):
                took[each.name] = time.monotonic() - start
        return len(took) == len(nodes)

    await until(look, 0.05)
    await until(lambda: all(host.sequence() >= sequence for host in hosts), 0.05)
    last = time.monotonic() - start
    size = f"{octets / 1e6:g} MB"
    return [
        f"| {size} stored by the server | 1 | {stored * 1000:.0f} | | |",
        shown(f"release of {size}, verified and written by an agent", list(took.values())),
        f"| release of {size}, in force on the last whole host | {len(hosts)} | | | "
        f"{last * 1000:.0f} |",
    ]


async def ceiling(url: str, count: int, rounds: int) -> list[str]:
    """Measure plain subscribers of the same server, as many, in this same process."""
    clients = [await nats.connect(url) for _ in range(count)]
    took: list[float] = []
    start = 0.0

    async def note(_: object) -> None:
        took.append(time.monotonic() - start)

    for each in clients:
        await each.subscribe("ceiling", cb=note)
        await each.flush()
    for number in range(1, rounds + 1):
        start = time.monotonic()
        await clients[0].publish("ceiling", b"x" * 600)
        await until(lambda: len(took) == count * number)  # noqa: B023 - now
    for each in clients:
        await each.close()
    return [shown("plain NATS message at a subscriber (the ceiling)", took)]


async def measure(options: argparse.Namespace, fleet: Fleet, directory: Path) -> None:
    staff = CA("Staff")
    settings = read_settings(fleet.config.read_bytes(), str(fleet.config)).fleet
    assert settings is not None
    # Each agent looks at its daemon's status twenty times a second; here there is none.
    node_module.STATUS_SECONDS = 5.0
    rows = await ceiling(fleet.nats.url, options.agents, 5)
    async with connected(settings, "publisher") as bus:
        await make_streams(bus)
        ledger = Ledger(directory / "ledger", settings)
        publisher = Publisher(bus, ledger, signer_of(settings.signer, fleet.key))
        first = await asyncio.to_thread(release_files, directory / "first", staff, 1000)
        body = {"files": await publisher.put_files(first), "to": None, "comment": ""}
        await publisher.publish("release", body)
        hosts = [await asyncio.to_thread(fleet.host, f"host{n}") for n in range(options.hosts)]
        async with agents(settings, directory / "agents", options.agents) as nodes:
            await until(lambda: all(each.release() for each in nodes), 0.1)
            await until(lambda: all(host.sequence() >= 1 for host in hosts), 0.1)
            rows += await revocations(publisher, nodes, hosts, staff, options.revocations)
            if options.seconds:
                rows += await steady(publisher, nodes, hosts, options.rate, options.seconds)
            for octets in options.release:
                rows += await release(publisher, nodes, hosts, staff, octets)
        ledger.close()
    print(f"{options.agents} agents in one process, {options.hosts} whole hosts, milliseconds:\n")
    print("| what | samples | p50 | p99 | last |\n| --- | --- | --- | --- | --- |")
    print("\n".join(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--revocations", type=int, default=20)
    parser.add_argument("--release", type=int, nargs="*", default=[100_000], metavar="OCTETS")
    parser.add_argument("--rate", type=int, default=100, help="entries a second, for --seconds")
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    parent = options.directory if os.access(options.directory, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="bench-fleet.", dir=parent))
    try:
        with Nats(directory / "nats") as server:
            fleet = Fleet(directory / "fleet", server)
            try:
                asyncio.run(measure(options, fleet, directory))
            finally:
                fleet.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
