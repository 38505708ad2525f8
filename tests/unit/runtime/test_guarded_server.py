"""Serve a unix socket to which descriptors can be passed, as before Linux 6.16."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from lingering import lingering, pass_along

from sidecar.runtime import closing_apart, guarded_server
from sidecar.runtime.guarded_server import GuardedServer, Room, start_server
from sidecar.runtime.listen import refuse_descriptors, takes_descriptors

ROOT = Path(__file__).resolve().parents[3]


class Echo(asyncio.Protocol):
    """Sends back what it reads; `b"!"` has it stop reading, `b"."` close."""

    paused = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        if data.endswith(b"!"):
            self.transport.pause_reading()
        if data.endswith(b"."):
            self.transport.close()

    def eof_received(self) -> bool:
        self.transport.write(b"the end")
        self.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        self.transport.pause_reading()
        self.paused += 1

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Refused(Echo):
    """Closes at once, as a connection over the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


class Broken(Echo):
    """Fails at every byte."""

    def data_received(self, data: bytes) -> None:
        raise ValueError(data)


class Peer:
    """A client of one connection; what it does takes a turn of the loop."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.setblocking(False)

    async def said(self, size: int = 65536) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.socket, size)


@asynccontextmanager
async def serving(
    directory: Path,
    factory: Callable[[], Any] = Echo,
    room: Room | int = 100,
    name: str = "s.sock",
) -> AsyncIterator[Path]:
    path = directory / name
    room = Room(room) if isinstance(room, int) else room
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    server = await start_server(factory, listener, room)
    assert isinstance(server, GuardedServer)
    try:
        yield path
    finally:
        server.close()
        path.unlink()
        await asyncio.sleep(0)
        while room.apart._timer is not None:  # until all that was passed is closed
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing_apart, "PAUSE", 0.01)
    monkeypatch.setattr(guarded_server, "PAUSE", 0.01)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as found:
        yield found


def test_octets_pass_as_by_asyncios_own_transports(tmp_path: Path, runner: asyncio.Runner) -> None:
    """More than a socket holds, with a reader who is slow; the peer's end, and then ours."""

    async def check() -> None:
        protocol = Echo()
        async with serving(tmp_path, lambda: protocol) as path:
            peer = Peer(path)
            loop = asyncio.get_running_loop()
            data = os.urandom(1_500_000).hex().encode()  # nothing that Echo takes for a sign
            sending = asyncio.create_task(loop.sock_sendall(peer.socket, data))
            while not protocol.paused:
                await asyncio.sleep(0)
            found = bytearray()
            while len(found) < len(data):
                found += await peer.said()
            await sending
            assert found == data
            peer.socket.shutdown(socket.SHUT_WR)
            assert await peer.said() == b"the end"
            assert await peer.said() == b""
            protocol.transport.abort()
            peer.socket.close()

    runner.run(asyncio.wait_for(check(), 20))


def test_what_is_written_before_the_close_arrives(tmp_path: Path, runner: asyncio.Runner) -> None:
    """Also where it waits for the reader; a protocol that fails is closed, and told."""

    async def check() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
        async with serving(tmp_path) as path:
            peer = Peer(path)
            peer.socket.send(b"x" * 100_000 + b".")
            found = b""
            while data := await peer.said():
                found += data
            assert len(found) == 100_001
            peer.socket.close()
        async with serving(tmp_path, Broken) as path:
            peer = Peer(path)
            peer.socket.send(b"x")
            assert await peer.said() == b""
            peer.socket.close()
        assert len(told) == 1

    runner.run(asyncio.wait_for(check(), 20))


def _behind_octets(peer: socket.socket, descriptor: int) -> None:
    peer.send(b"x")
    pass_along(peer, b"y", descriptor)


def _unread(peer: socket.socket, descriptor: int) -> None:
    peer.send(b"!")
    pass_along(peer, b"x", descriptor)


def _and_gone(peer: socket.socket, descriptor: int) -> None:
    pass_along(peer, b"x", descriptor)
    peer.close()


PASSES: dict[str, tuple[type[Echo], Callable[[socket.socket, int], None]]] = {
    "beside octets": (Echo, lambda peer, fd: pass_along(peer, b"x", fd)),
    "behind octets": (Echo, _behind_octets),
    "beside an urgent byte": (Echo, lambda peer, fd: pass_along(peer, b"x", fd, socket.MSG_OOB)),
    "to one that doesn't read": (Echo, _unread),
    "to one that is refused": (Refused, lambda peer, fd: pass_along(peer, b"x", fd)),
    "and gone": (Echo, _and_gone),
}


@pytest.mark.parametrize("how", PASSES)
def test_a_descriptor_whose_close_lingers_holds_nothing_up(
    tmp_path: Path, runner: asyncio.Runner, how: str
) -> None:
    """Wherever it lies, the kernel closes it in another process: this one goes on, and the peer is
    turned away."""
    factory, passing = PASSES[how]

    async def check() -> None:
        async with serving(tmp_path, factory) as path:
            peer = Peer(path)
            with lingering() as (descriptor, _):
                number = os.dup(descriptor.fileno())
                descriptor.close()
                passing(peer.socket, number)
                await asyncio.to_thread(os.close, number)  # not the last: it is under way
                if peer.socket.fileno() >= 0 and how != "to one that doesn't read":
                    with contextlib.suppress(ConnectionError):
                        while await peer.said():
                            pass
                another = Peer(path)
                if factory is Echo:
                    another.socket.send(b"still here")
                    assert await another.said() == b"still here"
                else:
                    assert await another.said() == b""
                another.socket.close()
            peer.socket.close()

    runner.run(asyncio.wait_for(check(), 20))


def test_what_was_passed_is_closed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By a process that ends; nobody is let in while too many wait for one, and then again."""
    monkeypatch.setattr(closing_apart, "MAX_OPEN", 2)
    monkeypatch.setattr(closing_apart, "MAX_PROCESSES", 1)

    async def check() -> None:
        end, into = os.pipe()
        async with serving(tmp_path, room=0) as path:
            for _ in range(7):
                peer = Peer(path)
                pass_along(peer.socket, b"x", into)
                peer.socket.close()
            os.close(into)
            assert await asyncio.to_thread(os.read, end, 1) == b""
            peer = Peer(path)
            peer.socket.send(b"x")
            assert await peer.said() == b"x"
            peer.socket.close()
        os.close(end)

    asyncio.run(asyncio.wait_for(check(), 20))
    line = f"user {os.geteuid()} passed descriptors on a connection, which is closed"
    assert caplog.messages == [line]


def test_a_heap_of_passed_descriptors_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets that wait to be closed take descriptors of connections that aren't open: others are
    let in until there is none, and again once a process closes what waits."""
    monkeypatch.setattr(closing_apart, "MAX_OPEN", 2)
    monkeypatch.setattr(closing_apart, "MAX_PROCESSES", 0)

    async def check() -> None:
        end, into = os.pipe()
        async with serving(tmp_path, room=10) as path:
            for _ in range(8):
                peer = Peer(path)
                pass_along(peer.socket, b"x", into)
                peer.socket.close()
            peers, first = [], []
            try:
                for _ in range(4):
                    peers.append(Peer(path))
                    peers[-1].socket.send(b"x")
                    first.append(await asyncio.wait_for(peers[-1].said(), 5))
                peers.append(Peer(path))
                peers[-1].socket.send(b"x")
                for _ in range(5):
                    await asyncio.sleep(guarded_server.PAUSE)
                with pytest.raises(BlockingIOError):
                    peers[4].socket.recv(1)
            finally:
                monkeypatch.setattr(closing_apart, "MAX_PROCESSES", 1)
            assert [*first, await peers[4].said()] == [b"x"] * 5
            for peer in peers:
                peer.socket.send(b".")
                assert [await peer.said(), await peer.said()] == [b".", b""]
                peer.socket.close()
        os.close(into)
        os.close(end)

    asyncio.run(asyncio.wait_for(check(), 20))


def test_many_at_once_take_no_more_descriptors_than_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of all listeners together, though all have passed something before the first is
    accepted; what is beyond waits to be accepted."""
    monkeypatch.setattr(closing_apart, "MAX_OPEN", 2)
    monkeypatch.setattr(closing_apart, "MAX_PROCESSES", 0)

    async def check() -> None:
        end, into = os.pipe()
        room, found = Room(3), set()
        async with serving(tmp_path, Refused, room) as one:
            async with serving(tmp_path, Echo, room, "another") as another:
                for path in (one, another) * 10:
                    peer = Peer(path)
                    pass_along(peer.socket, b"x", into)
                    peer.socket.close()
                for _ in range(20):
                    await asyncio.sleep(0)
                    found.add(room.served + room.apart.waiting)
                monkeypatch.setattr(closing_apart, "MAX_PROCESSES", 1)
            os.close(into)
            assert await asyncio.to_thread(os.read, end, 1) == b""
        assert max(found) == 5
        os.close(end)

    asyncio.run(asyncio.wait_for(check(), 20))


@pytest.mark.parametrize("guarded", [False, True])
def test_connections_that_wait_are_accepted_in_few_turns(guarded: bool) -> None:
    """Of the event loop, which may be busy with other connections in each; all are served."""
    many = 3 * guarded_server.ACCEPTED
    made: list[Echo] = []

    def accept() -> Echo:
        made.append(Echo())
        return made[-1]

    async def turns(listener: socket.socket) -> int:
        server = await start_server(accept, listener, Room(many))
        count = 0
        while len(made) < many and count < many:
            await asyncio.sleep(0)
            count += 1
        while any(not hasattr(each, "transport") for each in made):
            await asyncio.sleep(0)
        for each in made:
            assert isinstance(each.transport, guarded_server._Transport) == guarded
            each.transport.close()
        await asyncio.sleep(0)
        server.close()
        return count

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        if not guarded:
            refuse_descriptors(listener)
            if takes_descriptors(listener):
                pytest.skip("this kernel can't refuse descriptors")
        listener.bind("")
        listener.listen(many)
        for _ in range(many):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.connect(listener.getsockname())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            assert runner.run(turns(listener)) < 20


async def test_where_none_can_be_passed_the_event_loop_serves() -> None:
    """Over TCP, and on a unix socket that refuses them."""
    with socket.socket(socket.AF_UNIX) as one, socket.socket() as another:
        refuse_descriptors(one)
        one.bind("")
        another.bind(("127.0.0.1", 0))
        for each in (one, another):
            [protocol] = made = [Echo()]
            server = await start_server(made.pop, each, Room(1))
            with socket.socket(each.family) as peer:
                peer.connect(each.getsockname())
                while not hasattr(protocol, "transport"):
                    await asyncio.sleep(0)
            guarded = isinstance(protocol.transport, guarded_server._Transport)
            assert guarded == takes_descriptors(each)
            protocol.transport.abort()
            server.close()


def test_who_was_connected_before_they_were_refused_passes_none(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    """Linux refuses them on later connections alone, and systemd's socket is there before the first
    start: a descriptor that comes by an earlier one isn't read, and who passes none is served."""

    async def check() -> None:
        path, room = tmp_path / "s.sock", Room(10)
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            early, other = Peer(path), Peer(path)
            refuse_descriptors(listener)
            if takes_descriptors(listener):
                pytest.skip("this kernel can't refuse descriptors")
            late = Peer(path)
            for each in (early, other, late):
                stack.callback(each.socket.close)
            stack.callback((await start_server(Echo, listener, room)).close)
            for each in (other, late):
                each.socket.send(b"x")
                assert await each.said() == b"x"
            with pytest.raises(PermissionError):
                pass_along(late.socket, b"x", 0)
            pass_along(early.socket, b"x", 0)
            assert await early.said() == b""
            for each in (other, late):
                each.socket.send(b"y")
                assert await each.said() == b"y"
        while room.served or room.apart._timer is not None:
            await asyncio.sleep(0.01)

    runner.run(asyncio.wait_for(check(), 20))


def test_every_listener_is_guarded() -> None:
    """No module listens by itself, but for the control socket, which only the daemon's user and
    root can open."""
    own = re.compile(r"(create|start_unix)_server\(|connect_accepted_socket\(|(Sock|Unix)Site\(")
    found = {
        str(path.relative_to(ROOT / "sidecar"))
        for path in (ROOT / "sidecar").rglob("*.py")
        if own.search(path.read_text())
    }
    assert found == {"runtime/guarded_server.py", "authorizer/control.py"}
