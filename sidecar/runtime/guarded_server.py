"""Accept connections, also on a unix socket to which peers can pass descriptors.

asyncio's and uvloop's servers may accept one connection each time that the event loop looks for
events: beside a thousand busy connections, new ones would wait for seconds.

Peers can pass descriptors to a unix socket (unix(7), SCM_RIGHTS).  The kernel closes a passed one
in the thread that reads or closes the connection, for as long as the sender wishes: a TCP socket
with SO_LINGER, a locked file of his FUSE.  Linux 6.16 can refuse them (`refuse_descriptors`), but
not on connections that were made before, as to a socket of the service manager's before the first
start.  For these, and older kernels, `GuardedServer` looks at the bytes before it reads exactly
these: MSG_PEEK tells of
descriptors beside them (MSG_CTRUNC), and leaves them where they are.  Such a connection is closed
unread, by another process (`closing_apart`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Any, Protocol

from . import closing_apart
from .closing_apart import ClosingApart
from .listen import BACKLOG, takes_descriptors

PART = 256 * 1024
"""Maximum bytes that are read at once."""

ACCEPTED = 64
"""Usual maximum number of connections that are accepted before others are looked at."""

PAUSE = 1.0
"""Seconds without new connections, where no descriptors or no memory are left for them."""

HIGH, LOW = 64 * 1024, 16 * 1024
"""Unsent bytes from which, and down to which, the protocol should pause."""

_NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_PASSED_ALONG = (socket.SO_PASSCRED, 34, 76)
"""SO_PASSCRED, SO_PASSSEC and SO_PASSPIDFD: what is passed by the kernel sets MSG_CTRUNC, too."""

_PEEKED = [bytearray(PART)]

Factory = Callable[[], asyncio.BaseProtocol]


class Server(Protocol):
    """What listens until it is closed."""

    def close(self) -> None:
        """Stop listening; connections go on."""


class Room:
    """The descriptors of some listeners' connections on which descriptors can be passed.

    `most` is the number of connections that their protocol keeps.  Those that wait to be closed
    take `closing_apart.MAX_OPEN` others, and of the `most` what isn't needed.
    """

    def __init__(self, most: int) -> None:
        self.apart = ClosingApart()
        self.served = 0
        self.most = most

    @property
    def left(self) -> int:
        """How many connections may be accepted now."""
        return self.most + closing_apart.MAX_OPEN - self.served - self.apart.waiting


async def start_server(
    factory: Factory, listener: socket.socket, room: Room, at_once: int = ACCEPTED
) -> Server:
    """Serve a listening socket, with a protocol for each connection.

    Up to `at_once` connections are accepted before others are looked at, and before those are
    closed that the protocol doesn't keep.
    """
    if listener.family == socket.AF_UNIX:
        return GuardedServer(factory, listener, room, at_once)
    return PlainServer(factory, listener, at_once)


class PlainServer:
    """Accept connections, up to `at_once` at a time; the event loop serves them."""

    def __init__(self, factory: Factory, listener: socket.socket, at_once: int = ACCEPTED) -> None:
        self._factory = factory
        self._at_once = at_once
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        self._beginning: set[asyncio.Task[object]] = set()
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._start()

    def _start(self) -> None:
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._later = self._loop.call_later(PAUSE, self._start)

    def _accept(self) -> None:
        number = self._number()
        if number <= 0:
            self._pause()
        for _ in range(number):
            try:
                peer, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _NONE_LEFT:
                    self._pause()
                return
            peer.setblocking(False)
            self._serve(peer)

    def _number(self) -> int:
        """Return how many connections may be accepted in this turn."""
        return self._at_once

    def _serve(self, peer: socket.socket) -> None:
        begin = self._loop.connect_accepted_socket(self._factory, peer)
        task: asyncio.Task[object] = self._loop.create_task(begin)
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    def close(self) -> None:
        """Stop listening; connections go on."""
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()


class GuardedServer(PlainServer):
    """Close those connections on which descriptors are passed.

    Where the listener refuses them, they can be passed on those that were made before it did, which
    are accepted first; the event loop serves the others.
    """

    def __init__(
        self, factory: Factory, listener: socket.socket, room: Room, at_once: int = ACCEPTED
    ) -> None:
        self._room = room
        self._may_pass = True
        for option in _PASSED_ALONG:
            with contextlib.suppress(OSError):
                listener.setsockopt(socket.SOL_SOCKET, option, 0)
        super().__init__(factory, listener, at_once)

    def _number(self) -> int:
        return min(self._at_once, self._room.left)

    def _serve(self, peer: socket.socket) -> None:
        self._may_pass = self._may_pass and takes_descriptors(peer)
        if not self._may_pass:
            super()._serve(peer)
            return
        # else a read passes over an urgent byte, and closes what lies beside it
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        self._room.served += 1
        _Transport(self._loop, peer, self._factory(), self._end)

    def _end(self, peer: socket.socket) -> None:
        """Close a connection, of which nothing is read and written any more."""
        self._room.served -= 1
        if _discard_unread(peer):
            peer.close()
        else:
            self._room.apart.take(peer)


class _Transport(asyncio.Transport):
    """One connection, as asyncio's own transports serve it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        peer: socket.socket,
        protocol: Any,
        close: Callable[[socket.socket], object],
    ) -> None:
        super().__init__({"socket": peer, "peername": ""})
        self._loop, self._peer, self._protocol, self._close = loop, peer, protocol, close
        self._fd = peer.fileno()
        self._unsent = bytearray()
        self._reading = self._closing = self._ending = self._eof = self._paused = False
        protocol.connection_made(self)
        self.resume_reading()

    # -- reading

    def _read(self) -> None:
        try:
            size, _, flags, _ = self._peer.recvmsg_into(_PEEKED, 0, socket.MSG_PEEK)
            if flags & socket.MSG_CTRUNC:
                self.abort()
                return
            data = self._peer.recv(size) if size else b""  # what came since stays
        except BlockingIOError:
            return
        except OSError as error:
            self._end_soon(error)
            return
        try:
            if data:
                self._protocol.data_received(data)
            else:
                self.pause_reading()
                if not self._protocol.eof_received():
                    self.close()
        except Exception as error:  # noqa: BLE001 - of the protocol: as asyncio does
            text = "a protocol failed"
            self._loop.call_exception_handler({"message": text, "exception": error})
            self._end_soon(error)

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.add_reader(self._fd, self._read)

    # -- writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._ending or self._eof:
            return
        if not self._unsent:
            data = data[self._send(data) :]
            if not data or self._ending:
                return
            self._loop.add_writer(self._fd, self._write_on)
        self._unsent += data
        if len(self._unsent) > HIGH and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def _send(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return self._peer.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._end_soon(error)
            return 0

    def _write_on(self) -> None:
        del self._unsent[: self._send(self._unsent)]
        if self._paused and len(self._unsent) <= LOW:
            self._paused = False
            self._protocol.resume_writing()
        if not self._unsent and not self._ending:
            self._loop.remove_writer(self._fd)
            if self._eof:
                self._shut(socket.SHUT_WR)
            if self._closing:
                self._end_soon(None)

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._eof = True
        if not self._unsent:
            self._shut(socket.SHUT_WR)

    # -- closing

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self.pause_reading()
            self._closing = True
            if not self._unsent:
                self._end_soon(None)

    def abort(self) -> None:
        self._end_soon(None)

    def _end_soon(self, error: Exception | None) -> None:
        if self._ending:
            return
        self.pause_reading()
        self._closing = self._ending = True
        if self._unsent:
            self._loop.remove_writer(self._fd)
            self._unsent.clear()
        self._loop.call_soon(self._end, error)

    def _end(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._shut(socket.SHUT_RDWR)  # the peer can send nothing more
            self._close(self._peer)

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):
            self._peer.shutdown(how)


def _discard_unread(peer: socket.socket) -> bool:
    """Read what lies in a socket; stop and return False at descriptors, or if it can't be told."""
    while True:
        try:
            size, _, flags, _ = peer.recvmsg_into(_PEEKED, 0, socket.MSG_PEEK)
            if flags & socket.MSG_CTRUNC:
                return False
            if not size:
                return True
            peer.recv(size)
        except ConnectionResetError:  # told once, at the end of what lies there
            continue
        except OSError:
            return False
