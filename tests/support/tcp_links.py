"""Ways between servers that can be cut: a port for each, behind which another one is.

What is cut loses nothing at once: octets wait, as they do on a network that drops packets, until
the way is there again or one side gives up.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from nginx import free_port


@dataclass
class Link:
    """One way, from whoever connects to `port`, to `target`."""

    target: int
    port: int = field(default_factory=free_port)
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> asyncio.Server:
        self._open.set()
        return await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            await self._open.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            ends.append(far_writer)
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except OSError:
            await self._open.wait()
        finally:
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        await self._open.wait()
        writer.close()

    def switch(self, *, cut: bool) -> None:
        (self._open.clear if cut else self._open.set)()


class Links:
    """All ways between servers 0, 1, 2, …, each with a port of its own."""

    def __init__(self, ports: list[int]) -> None:
        count = range(len(ports))
        self._links = {(a, b): Link(ports[b]) for a in count for b in count if a != b}
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def port(self, source: int, target: int) -> int:
        """Where one server reaches another."""
        return self._links[source, target].port

    def start(self) -> None:
        self._thread.start()
        for link in self._links.values():
            server = asyncio.run_coroutine_threadsafe(link.serve(), self._loop).result(10)
            self._servers.append(server)

    @contextlib.contextmanager
    def cut(self, server: int) -> Iterator[None]:
        """Let nothing from and to one server through, until the block ends."""
        self._switch(server, cut=True)
        try:
            yield
        finally:
            self._switch(server, cut=False)

    def _switch(self, server: int, *, cut: bool) -> None:
        for ends, link in self._links.items():
            if server in ends:
                self._loop.call_soon_threadsafe(partial(link.switch, cut=cut))

    def stop(self) -> None:
        async def end() -> None:
            for server in self._servers:
                server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
