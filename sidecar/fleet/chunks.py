"""Read a release's files from the servers, a chunk at a time, without asking for too much at once.

When a release is published every node asks for it.  What the servers can't send in time is asked
for again, later and less of it at a time, and what has arrived is not asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from sidecar.core.fleet.entry import Refused
from sidecar.core.fleet.manifest import File

from .nats_client import Unreachable
from .subjects import CHUNK, chunks

MOST = 4
"""Most chunks that are asked for at a time: 1 MiB, 20 MB/s where a server is 50 ms away."""

SECONDS = 10.0
"""How long the servers have for a chunk at first.  A thousand nodes that ask one server at a time
have a GiB under way, which a Gbit/s link carries in less."""

TRIES = 5
"""How often one chunk is asked for; each time the servers have twice as long."""

Get = Callable[[str, int, float], Awaitable[bytes | None]]
"""A chunk by the file's SHA-256 and its number, within so many seconds; None where it is not there.
Raises `Unreachable`."""


class Missing(Exception):
    """A file of the release is not there, or not wholly."""


@dataclass(slots=True)
class ChunkReader:
    """Reads files one after the other."""

    get: Get
    _share: float = 2.0

    @property
    def at_once(self) -> int:
        """How many chunks are asked for together: more as long as all come in time, as TCP does."""
        return int(self._share)

    async def read(self, file: File) -> AsyncGenerator[bytes, None]:
        """Yield a file's octets, unverified but for their number.

        Raises `Missing`, `Refused`, `Unreachable`.
        """
        total, asked = chunks(file.size), 0
        waiting: deque[asyncio.Task[bytes]] = deque()
        try:
            while asked < total or waiting:
                while asked < total and len(waiting) < self.at_once:
                    waiting.append(asyncio.create_task(self._chunk(file, asked)))
                    asked += 1
                yield await waiting.popleft()
                self._share = min(self._share + 1 / self._share, MOST)
        finally:
            for task in waiting:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*waiting, return_exceptions=True)

    async def _chunk(self, file: File, number: int) -> bytes:
        seconds = SECONDS
        for tries in range(TRIES):
            try:
                found = await self.get(file.sha256, number, seconds)
            except Unreachable:
                if tries == TRIES - 1:
                    raise
                self._share = 1.0
                await asyncio.sleep(random.uniform(0, seconds))
                seconds *= 2
                continue
            if found is None:
                raise Missing(f"{file.name} is not there")
            if len(found) != min(CHUNK, file.size - number * CHUNK):
                raise Refused("file", f"{file.name}: a part of it has {len(found)} octets")
            return found
        raise AssertionError
