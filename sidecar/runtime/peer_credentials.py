"""Tell which process is at the other end of a unix socket."""

from __future__ import annotations

import socket
import struct
from asyncio.trsock import TransportSocket
from typing import NamedTuple

_CREDENTIALS = struct.Struct("iII")  # struct ucred


class PeerCredentials(NamedTuple):
    """What the kernel noted as the peer connected or began to listen (`SO_PEERCRED`, unix(7)).

    `pid` is 0 where the process is in another namespace; `uid` is the effective user id.
    """

    pid: int
    uid: int
    gid: int


def peer_credentials(peer: socket.socket | TransportSocket) -> PeerCredentials:
    """Return the credentials of a connected unix socket's peer.  Raises OSError."""
    found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return PeerCredentials(*_CREDENTIALS.unpack(found))
