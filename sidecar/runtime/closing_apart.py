"""Close sockets in another process, which hold descriptors that a peer has passed (SCM_RIGHTS).

The kernel closes those with the socket, in the process whose copy of it is the last.  That may take
as long as the sender wishes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time

from .peer_credentials import peer_credentials

log = logging.getLogger("mtls-sidecar")

MAX_OPEN = 32
"""Descriptors for sockets that wait for a process, of `descriptors.RESERVE`; further ones are of
those kept for connections (`guarded_server.Room`)."""

MAX_PROCESSES = 4
"""Processes at the same time: each ends once all that it closes is closed."""

PAUSE = 1.0
"""Seconds between two processes: a flood of such sockets costs one a second."""

SELDOM = 60.0
"""Seconds between two log lines."""

_UNTIL_CLOSED_HERE = "import os; os.read(0, 1)"


class ClosingApart:
    """Sockets that another process closes, soon."""

    def __init__(self) -> None:
        self._open: list[int] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._next_line = 0.0

    @property
    def waiting(self) -> int:
        """How many sockets wait for a process."""
        return len(self._open)

    def take(self, peer: socket.socket) -> None:
        """Take over a socket, of which nothing is read and written any more."""
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + SELDOM
            uid = peer_credentials(peer).uid
            log.warning("user %d passed descriptors on a connection, which is closed", uid)
        # No object of Python's: at the end of this process the kernel closes it, without lingering.
        self._open.append(peer.detach())
        if self._timer is None:
            self._plan(0)

    def _plan(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._processes = [each for each in self._processes if each.poll() is None]
        if self._open and len(self._processes) < MAX_PROCESSES:
            self._hand_over()
        self._timer = None
        if self._open or self._processes:
            self._plan(PAUSE)

    def _hand_over(self) -> None:
        """Start a process with the sockets, which ends, and so closes them, after this one has.

        A process that ends lets no TCP connection linger.
        """
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _UNTIL_CLOSED_HERE],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=self._open,
                cwd="/",
                env={},
            )
        except OSError as error:
            log.error("no process closes what peers have passed, for now: %s", error)
            return
        assert process.stdin is not None
        for each in self._open:
            os.close(each)
        self._open.clear()
        process.stdin.close()
        self._processes.append(process)
