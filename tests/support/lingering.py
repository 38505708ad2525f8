"""A descriptor whose close lingers, and how it is passed to another process (unix(7))."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def lingering() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection whose close waits 30 seconds for a peer that doesn't read, and the peer.

    At the end the peer is closed, and so ends what lingers.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        ours = socket.create_connection(listening.getsockname())
        peer, _ = listening.accept()
    ours.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            ours.send(bytes(65536))
    ours.setblocking(True)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 30))
    try:
        yield ours, peer
    finally:
        peer.close()
        ours.close()


def pass_along(peer: socket.socket, data: bytes, descriptor: int, flags: int = 0) -> None:
    """Send octets with a descriptor beside them."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))
    peer.sendmsg([data], [rights], flags)


OLDER_KERNEL = (
    "import sys, runpy; from sidecar.runtime import listen; listen._SO_PASSRIGHTS = 0x7FFF; "
    "sys.argv = ['sidecar', *sys.argv[4:]]; runpy.run_module('sidecar', run_name='__main__')"
)
"""Runs `mtls-sidecar` as where the kernel doesn't know SO_PASSRIGHTS."""
