"""Limit the unanswered requests of all connections together."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
import uvloop
from asking import policy, site
from daemon import question
from fuzz_targets import Transport, silent
from pki import CA

from sidecar.authorizer import connection
from sidecar.authorizer.connection import Connection, Service
from sidecar.authorizer.decision_cache import Engine
from sidecar.authorizer.request_cache import RenderedDecision
from sidecar.authorizer.turns import OCTETS, Turns
from sidecar.core.config.settings import Limits

staff = CA("Staff")
alice = staff.issue("alice")

ASKING = """
version: 1
trust: {staff: {ca: ca.pem, ocsp: "http://r/", revocation: best_effort}}
locations: [{name: site, allow: verified}]
"""


def connect(service: Service) -> tuple[Connection, Transport]:
    found, transport = Connection(service), Transport()
    found.connection_made(transport)  # type: ignore[arg-type]  # one in all but name
    return found, transport


def test_half_sent_requests_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part over the limit gets 400; complete requests are answered, and a closed connection
    frees its bytes."""
    monkeypatch.setattr(connection, "MAX_HELD", 10_000)
    monkeypatch.setattr(connection, "SMALL", 0)
    service = Service(Engine(site("verified"), entries=4, answers={}), silent(), Limits())
    whole = question("site", alice, {"X-Other": "x" * 3000})
    half = [connect(service) for _ in range(4)]
    for each, _ in half:
        each.data_received(whole[:3000])
    assert [transport.sent[:12] for _, transport in half] == [b"", b"", b"", b"HTTP/1.1 400"]
    other, transport = connect(service)
    other.data_received(whole)
    assert transport.sent.startswith(b"HTTP/1.1 204")
    half[0][0].connection_lost(None)
    half[1][0].data_received(whole[3000:])
    assert half[1][1].sent.startswith(b"HTTP/1.1 204")
    again, transport = connect(service)
    again.data_received(whole[:3000])
    assert transport.sent == b""
    for each, _ in (*half, (again, transport)):
        each.connection_lost(None)
    assert service.held == 0


async def test_a_flood_of_requests_that_wait_gets_nobody_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there is no room for another request that waits for OCSP, it gets 400: decided without
    the answer, `best_effort` would let in who is revoked."""
    monkeypatch.setattr(connection, "MAX_HELD", 10_000)
    monkeypatch.setattr(connection, "SMALL", 0)
    asked = asyncio.Event()

    async def ask(questions: Sequence[object], deadline: float) -> None:
        asked.set()
        await asyncio.sleep(60)

    rules = policy(ASKING, ca_pem=staff.pem)
    service = Service(Engine(rules, entries=4, answers={}), silent(), Limits(), ask)
    whole = question("site", alice, {"X-Other": "x" * 3000})
    waiting = [connect(service) for _ in range(4)]
    for each, _ in waiting:
        each.data_received(whole)
    found = [transport.sent[:12] for _, transport in waiting]
    count = 10_000 // len(whole)
    assert found == [b""] * count + [b"HTTP/1.1 400"] * (4 - count)
    await asked.wait()
    for each, _ in waiting:
        each.connection_lost(None)
    assert service.held == 0


def test_large_requests_leave_room_for_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where large requests that are incomplete take all the room, one of a usual size that arrives
    in two parts is answered."""
    monkeypatch.setattr(connection, "MAX_HELD", 100_000)
    service = Service(Engine(site("verified"), entries=4, answers={}), silent(), Limits())
    large = question("site", alice, {"X-Other": "x" * 60_000})
    kept = [connect(service) for _ in range(3)]
    for each, _ in kept:
        each.data_received(large[:50_000])
    assert [transport.sent[:12] for _, transport in kept] == [b"", b"", b"HTTP/1.1 400"]
    whole = question("site", alice)
    other, transport = connect(service)
    other.data_received(whole[:500])
    other.data_received(whole[500:])
    assert transport.sent.startswith(b"HTTP/1.1 204")


class Waiting:
    """A service with turns, and connections with a large request each, of which one is answered."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.service = Service(Engine(site("verified"), entries=4, answers={}), silent(), Limits())
        self.service.turns = Turns(self.soon.append)
        self.peers = [connect(self.service) for _ in range(4)]
        for number, (each, _) in enumerate(self.peers):
            each.data_received(question("site", alice, {"X-Other": f"{number}" * OCTETS}))

    def turn(self) -> None:
        soon, self.soon[:] = self.soon[:], []
        for each in soon:
            each()

    @property
    def answers(self) -> list[bytes]:
        return [transport.sent[9:12] for _, transport in self.peers]


def test_large_requests_at_once_are_answered_one_a_turn() -> None:
    """A turn of the loop works off one large request, and all are answered in the end; a small one
    goes before those that wait, and one that is cached doesn't wait at all."""
    waiting = Waiting()
    assert waiting.answers == [b"204", b"", b"", b""]
    small, transport = connect(waiting.service)
    small.data_received(question("site", alice))
    assert transport.sent == b""
    waiting.turn()
    assert transport.sent.startswith(b"HTTP/1.1 204")
    assert waiting.answers == [b"204", b"204", b"", b""]
    small.data_received(question("site", alice))
    assert transport.sent.count(b"HTTP/1.1 204") == 2
    waiting.turn()
    waiting.turn()
    assert waiting.answers == [b"204"] * 4
    assert waiting.service.held == 0
    waiting.turn()
    assert not waiting.soon


def test_who_waits_for_his_turn_can_leave_or_be_wrong() -> None:
    """Bytes behind a request that waits for its turn are 400; a closed connection frees its bytes;
    who has only finished sending gets his answer."""
    waiting = Waiting()
    _, wrong, gone, finished = (each for each, _ in waiting.peers)
    wrong.data_received(b"G")
    gone.connection_lost(None)
    assert finished.eof_received()
    for _ in range(4):
        waiting.turn()
    assert waiting.answers == [b"204", b"400", b"", b"204"]
    assert b"\r\nConnection: close\r\n" in waiting.peers[3][1].sent
    assert waiting.service.held == 0
    assert waiting.service.turns is not None
    assert waiting.service.turns.waiting == 0


async def test_who_waited_for_one_answer_are_decided_in_turn() -> None:
    """A turn of the loop decides one large request of those that waited for the same OCSP answer;
    who leaves before his turn is not decided, and frees his bytes."""
    answered = asyncio.Event()
    asked: list[int] = []
    decided: list[int] = []

    async def ask(questions: Sequence[object], deadline: float) -> None:
        asked.append(1)
        await answered.wait()

    class Counted(Service):
        def decide(self, *given: Any) -> RenderedDecision:
            decided.append(1)
            return super().decide(*given)

    loop = asyncio.get_running_loop()
    engine = Engine(policy(ASKING, ca_pem=staff.pem), entries=4, answers={})
    service = Counted(engine, silent(), Limits(), ask, Turns(loop.call_soon))
    peers = [connect(service) for _ in range(5)]
    for number, (each, _) in enumerate(peers):
        each.data_received(question("site", alice, {"X-Other": f"{number}" * OCTETS}))
    while len(asked) < 5:
        await asyncio.sleep(0)
    answered.set()
    steps = []
    while not peers[0][1].sent:
        await asyncio.sleep(0)
    assert service.turns is not None
    waiting = service.turns.waiting
    peers[4][0].connection_lost(None)
    assert service.turns.waiting == waiting - 1
    while service.held:
        before = len(decided)
        await asyncio.sleep(0)
        steps.append(len(decided) - before)
    assert max(steps) == 1
    assert [transport.sent[9:12] for _, transport in peers] == [b"204"] * 4 + [b""]
    assert len(decided) == 5 + 4


async def test_who_sends_on_after_his_last_answer_takes_arrivals_of_a_turn_too() -> None:
    """Bytes behind a request that is no HTTP are discarded, but not read without end before
    everything else has a turn."""
    service = Service(Engine(site("verified"), entries=4, answers={}), silent(), Limits())
    told: list[str] = []

    class Paused(Transport):
        def pause_reading(self) -> None:
            told.append("pause")

        def resume_reading(self) -> None:
            told.append("resume")

    peer, transport = Connection(service), Paused()
    peer.connection_made(transport)  # type: ignore[arg-type]  # one in all but name
    peer.data_received(b"x")
    assert transport.sent.startswith(b"HTTP/1.1 400")
    service.left = 1
    peer.data_received(b"y")
    assert told == []
    peer.data_received(b"y")
    assert told == ["pause"]
    await asyncio.sleep(0)
    assert told == ["pause", "resume"]
    assert service.held == 0


PEERS = 1100
"""More than uvloop looks at by one system call, 1,024: then it looks again before anything else."""


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Enough descriptors for both ends of all peers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 3 * PEERS)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
def test_peers_who_ask_without_end_leave_a_turn_to_everything_else() -> None:
    """Where there is always something to read, a step of a reload waits for twice `TURN` arrivals
    at most, and all peers are answered alike."""
    service = Service(Engine(site("verified"), entries=64, answers={}), silent(), Limits())
    service.left = connection.TURN
    whole = question("site", alice)
    peers: dict[int, socket.socket] = {}
    taken: list[int] = []  # by whom
    steps: list[int] = []  # how many each turn of the loop took
    last = 20 * connection.TURN

    class Counted(Connection):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._late or len(taken) > last:
                return
            taken.append(self._fd)
            if not self._unsent:  # answered: it asks again at once, as from another process
                peers[self._fd].recv(65536)
                peers[self._fd].send(data)

    async def check() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(PEERS):
            ours, peer = socket.socketpair()
            peer.setblocking(False)
            peers[ours.fileno()] = peer
            await loop.connect_accepted_socket(lambda: Counted(service), ours)
        primer, _ = connect(service)
        primer.data_received(whole)  # from here on it is cached
        primer.connection_lost(None)
        for peer in peers.values():
            peer.send(whole)
        ends = [0]
        while len(taken) <= last:
            await asyncio.sleep(0)
            ends.append(len(taken))
        steps.extend(after - before for before, after in pairwise(ends))
        service.drain()
        for peer in peers.values():
            peer.close()
        for _ in range(PEERS):
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(check(), 30))
    times = Counter(taken)
    assert max(steps) <= 2 * connection.TURN
    assert set(times) == set(peers)
    assert max(times.values()) - min(times.values()) <= 2
    assert service.held == 0
