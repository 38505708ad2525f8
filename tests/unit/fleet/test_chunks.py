"""Chunks of a file: in turn, few at a time, again where the servers were too slow."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import pytest

from sidecar.core.fleet.entry import Refused
from sidecar.core.fleet.manifest import File
from sidecar.fleet import chunks as module
from sidecar.fleet.chunks import MOST, TRIES, ChunkReader, Missing
from sidecar.fleet.nats_client import Unreachable
from sidecar.fleet.subjects import CHUNK

DATA = bytes(range(251)) * 42_000
FILE = File("policy.yaml", hashlib.sha256(DATA).hexdigest(), len(DATA))


class Servers:
    """Have a file; `slow` says whether the servers are too slow this time."""

    def __init__(self, slow: Callable[[int, float], bool] = lambda number, seconds: False) -> None:
        self._slow = slow
        self.asked: list[int] = []
        self.together = self.most_together = 0

    async def get(self, sha256: str, number: int, seconds: float) -> bytes | None:
        assert sha256 == FILE.sha256
        self.asked.append(number)
        self.together += 1
        self.most_together = max(self.most_together, self.together)
        try:
            await asyncio.sleep(0)
            if self._slow(number, seconds):
                raise Unreachable("timeout")
            return self.chunk(number)
        finally:
            self.together -= 1

    def chunk(self, number: int) -> bytes | None:
        return DATA[number * CHUNK : (number + 1) * CHUNK]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.001)


def read(servers: Servers) -> bytes:
    async def go() -> bytes:
        return b"".join([part async for part in ChunkReader(servers.get).read(FILE)])

    return asyncio.run(go())


def test_a_file_is_read_in_turn_and_few_chunks_at_a_time() -> None:
    """Each is asked for once."""
    servers = Servers()
    assert read(servers) == DATA
    assert servers.asked == list(range(41))
    assert servers.most_together == MOST


def test_a_chunk_that_was_not_there_in_time_is_asked_for_again() -> None:
    """With more time; what has arrived is not asked for again, and less is asked for at once."""
    servers = Servers(lambda number, seconds: seconds < 0.004)
    reader = ChunkReader(servers.get)

    async def first() -> int:
        async for _ in reader.read(FILE):
            return reader.at_once
        return 0

    assert asyncio.run(first()) == 1
    servers.asked.clear()
    assert read(servers) == DATA
    assert sorted(servers.asked) == sorted(list(range(41)) * 3)


def test_servers_that_never_answer_are_given_up() -> None:
    """So that a release which is due by then is looked at."""
    servers = Servers(lambda number, seconds: number == 7)
    with pytest.raises(Unreachable):
        read(servers)
    assert servers.asked.count(7) == TRIES


@pytest.mark.parametrize(
    ("chunk", "error"), [(None, Missing), (b"", Refused), (b"x" * (CHUNK + 1), Refused)]
)
def test_a_chunk_that_is_missing_or_has_another_length_ends_it(
    chunk: bytes | None, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file becomes larger than the entry says; nothing is left under way."""
    servers = Servers()
    whole = servers.chunk
    monkeypatch.setattr(servers, "chunk", lambda n: chunk if n == 5 else whole(n))
    with pytest.raises(error):
        read(servers)
    assert servers.together == 0
