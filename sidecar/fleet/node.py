"""The node agent: brings the fleet's log and releases to this host, and reports for it.

It decides nothing: the daemon verifies everything again.  Whatever the servers say or don't say,
what is on the disk stays, and the daemon goes on with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sidecar import __version__
from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.core.errors import brief
from sidecar.core.fleet.entry import MAX_LINE, Refused, parse_line
from sidecar.runtime.files import FileVersion, write_file
from sidecar.runtime.fleet_places import HEAD, FleetPlaces
from sidecar.runtime.release_directory import ReleaseDirectory

from . import daemon_status
from .chunks import ChunkReader, Missing
from .following import catch_up, has_last
from .ledger import Ledger
from .nats_client import Bus, Unreachable, connected
from .release_files import bring

log = logging.getLogger("mtls-sidecar")

POLL_SECONDS = 30.0
"""How often the servers are asked for what was missed, if nothing told of it."""

RETRY_SECONDS = 1.0
"""Until the next try after something failed."""

SURE = 4
"""How often servers must lack our last entry before they count as set back: one of a cluster can be
a moment behind the others."""

STATUS_SECONDS = 0.05
"""How often the daemon's status file is looked at."""

REPORT_SECONDS = 10.0
"""How often a node reports though nothing has changed."""

MOST_WAITING = 16 * 1024 * 1024
"""Most octets that wait to be looked at; what is beyond is asked for again later."""


@dataclass(slots=True)
class Node:
    """One node's agent.  `run` until cancelled."""

    fleet: FleetSettings
    name: str
    state_dir: Path
    clock: Callable[[], float] = time.time
    _places: FleetPlaces = field(init=False)
    _ledger: Ledger = field(init=False)
    _entries: list[bytes] = field(default_factory=list)
    _head: bytes = b""
    _missed: bool = True
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _due: asyncio.Event = field(default_factory=asyncio.Event)
    _problem: str = ""
    _waiting: int = 0
    _lacking: int = 0

    def __post_init__(self) -> None:
        """Raises OSError, and ValueError where another agent runs."""
        self._places = FleetPlaces(self.state_dir)
        self._ledger = Ledger(self._places.agent, self.fleet)

    async def run(self, ready: Callable[[], object] = int) -> None:
        """Follow the fleet until cancelled."""
        try:
            ready()
            self._due.set()
            async with connected(
                self.fleet, f"node-{self.name}", patient=True, again=self._catch_up
            ) as bus:
                await self._subscribe(bus)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._follow(bus))
                    tasks.create_task(self._bring_releases(bus))
                    tasks.create_task(self._report(bus))
        finally:
            self._ledger.close()

    async def _subscribe(self, bus: Bus) -> None:
        await bus.subscribe(bus.subjects.stored, self._take_entry)
        await bus.subscribe(bus.subjects.head, self._take_head)

    # -- what arrives

    def _take_entry(self, _: str, line: bytes) -> None:
        if self._waiting + len(line) <= MOST_WAITING:
            self._entries.append(line)
            self._waiting += len(line)
        else:
            self._missed = True
        self._wake.set()

    def _take_head(self, _: str, line: bytes) -> None:
        self._head = line
        self._wake.set()

    def _catch_up(self) -> None:
        self._missed = True
        self._wake.set()

    # -- the log

    async def _follow(self, bus: Bus) -> None:
        while True:
            try:
                await self._step(bus)
                self._tell(self._set_back())
            except (Unreachable, OSError) as error:
                self._tell(brief(error))
                self._missed = True
                await asyncio.sleep(RETRY_SECONDS)
                continue
            with contextlib.suppress(TimeoutError):
                pause = RETRY_SECONDS if 0 < self._lacking < SURE else POLL_SECONDS
                await asyncio.wait_for(self._wake.wait(), pause)
                continue
            self._missed = True

    async def _step(self, bus: Bus) -> None:
        """Take what has arrived, then what is missing.  Raises `Unreachable`, OSError."""
        self._wake.clear()
        lines, self._entries, self._waiting = self._entries, [], 0
        gap = self._ledger.take(lines)
        if self._missed or gap:
            self._missed = False
            await self._fetch(bus)
            head = await bus.head()
            self._head = self._head or head or b""
            await self._look_back(bus)
        await self._judge_head(bus)
        self._due.set()

    async def _fetch(self, bus: Bus) -> None:
        """Ask for the entries behind our own."""
        await catch_up(bus, self._ledger)

    async def _look_back(self, bus: Bus) -> None:
        """Notice servers that lack what was taken from them; counted once for each time."""
        self._lacking = 0 if await has_last(bus, self._ledger) else self._lacking + 1
        if self._lacking == SURE:
            self._ledger.refuse(Refused("rollback", self._set_back()))

    def _set_back(self) -> str:
        if self._lacking < SURE:
            return ""
        return (
            f"the servers lack entry {self._ledger.chain.sequence}, which was taken here: they "
            "were set back, or the one that answers is cut off from the others"
        )

    async def _judge_head(self, bus: Bus) -> None:
        line, self._head = self._head, b""
        if not line:
            return
        for is_last in (False, True):
            try:
                signed = parse_line(line)
                end = signed.entry.not_after
                if end is not None and self.clock() >= end and signed.entry.kind == "head":
                    raise Refused("ended", f"a head that ended {self.clock() - end:.0f} s ago")
                if self._ledger.chain.take_head(signed):
                    write_file(self._places.agent / HEAD, line, 0o640)
                return
            except Refused as error:
                if error.why != "gap" or is_last:
                    self._ledger.refuse(error)
                    return
                await self._fetch(bus)

    # -- releases

    async def _bring_releases(self, bus: Bus) -> None:
        """Bring the release that is due, whenever that is another one."""
        told, reader = "", ChunkReader(bus.chunk)
        while True:
            await self._due.wait()
            self._due.clear()
            release = self._ledger.chain.release_for(self.name, self.fleet.labels)
            if release is None:
                continue
            if ReleaseDirectory(self._places.agent).current() == release.directory:
                continue
            try:
                await bring(self._places.agent, release, reader.read)
                log.info("release %d is here", release.sequence)
                told = ""
            except Refused as error:
                self._ledger.refuse(error)
                self._due.set()
                await asyncio.sleep(RETRY_SECONDS)
            except (Missing, Unreachable, OSError) as error:
                if brief(error) != told:
                    told = brief(error)
                    log.warning("release %d can't be brought: %s", release.sequence, told)
                self._due.set()
                await asyncio.sleep(RETRY_SECONDS)

    # -- the report

    async def _report(self, bus: Bus) -> None:
        """Tell what the daemon has in force, whenever that changes and every few seconds."""
        seen: list[FileVersion | None] = []
        told_at, refused = 0.0, -1
        while True:
            found = daemon_status.looks(self._places.status)
            count = self._ledger.refused.total()
            is_due = time.monotonic() - told_at > REPORT_SECONDS
            if is_due or found != seen or count != refused:
                seen, refused, told_at = found, count, time.monotonic()
                with contextlib.suppress(Exception):  # the connection is lost: later again
                    await bus.client.publish(bus.subjects.report(self.name), self.report())
            await asyncio.sleep(STATUS_SECONDS)

    def report(self) -> bytes:
        """Return what this node says of itself."""
        chain = self._ledger.chain
        told = daemon_status.read(self._places.status)
        agent = {
            "received": chain.sequence,
            "refused": dict(self._ledger.refused),
            "problem": self._problem,
            "version": __version__,
            "labels": list(self.fleet.labels),
        }
        return json.dumps({"node": self.name, "daemon": told, "agent": agent}).encode()[:MAX_LINE]

    def _tell(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem
