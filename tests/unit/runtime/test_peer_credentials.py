"""Who is at the other end of a unix socket."""

from __future__ import annotations

import os
import socket

from sidecar.runtime.peer_credentials import peer_credentials


def test_the_process_and_the_user_of_a_peer() -> None:
    """Are who connected, by the kernel's word."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_credentials(ours) == (os.getpid(), os.geteuid(), os.getegid())
