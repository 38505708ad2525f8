"""Take sockets from the service manager and notify it of the daemon's state.

Implements sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3).  Without a service manager
these functions do nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Mapping, MutableMapping

from .listen import refuse_descriptors

FIRST_FD = 3


def listen_fds(environ: MutableMapping[str, str], pid: int) -> dict[str, list[socket.socket]]:
    """Take the service manager's listening sockets, by `FileDescriptorName=`.

    The variables are removed from `environ`, unless they are for another process.  Raises
    ValueError for invalid variables and descriptors.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    del environ["LISTEN_PID"]
    count = environ.pop("LISTEN_FDS", "0")
    names = environ.pop("LISTEN_FDNAMES", "")
    if not count.isascii() or not count.isdigit() or int(count) > 64:
        raise ValueError(f"LISTEN_FDS is {count!r}, not a small number")
    labels = names.split(":") if names else []
    found: dict[str, list[socket.socket]] = {}
    for position in range(int(count)):
        label = labels[position] if position < len(labels) else "unknown"
        found.setdefault(label, []).append(_listener(FIRST_FD + position, label))
    return found


def _listener(descriptor: int, label: str) -> socket.socket:
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise ValueError(f"descriptor {descriptor} ({label}) is not a socket")
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
        if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.close()
            raise ValueError(f"descriptor {descriptor} ({label}) does not listen")
    except OSError as error:
        raise ValueError(f"descriptor {descriptor} ({label}): {error}") from None
    refuse_descriptors(found)
    found.setblocking(False)
    return found


def is_journal(environ: Mapping[str, str], descriptor: int) -> bool:
    """Return whether a descriptor is the journal's stream (`JOURNAL_STREAM`, systemd.exec(5))."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """Return the watchdog's interval in seconds, or None without a watchdog for this process."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) else None


class Notifier:
    """Notify the service manager of the daemon's state.  A missing manager is not an error.

    Every user of the host can fill the manager's queue, or hold the manager up, so a thread of its
    own waits for room.  Of each kind of message the last one waits.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._waiting: dict[str, str] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def ready(self, status: str) -> None:
        """Send that the daemon is serving."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Send a status text while the daemon is not serving yet."""
        self._send(f"STATUS={status}")

    def extend(self, seconds: float) -> None:
        """Send that the start goes on, and takes up to so many seconds more."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def reloading(self) -> None:
        """Send that a reload has begun; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Send that the daemon is stopping."""
        self._send("STOPPING=1\nSTATUS=draining")

    def alive(self) -> None:
        """Send the watchdog's keep-alive."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        """Queue a message for the thread.  Never waits for the manager."""
        if not self._address:
            return
        kind = message.partition("=")[0]
        with self._changed:
            self._waiting.pop(kind, None)  # the new one comes behind the others
            self._waiting[kind] = message
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._deliver, name="notifier", daemon=True)
                self._thread.start()

    def _deliver(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                message = self._waiting.pop(next(iter(self._waiting)))
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer,
            ):
                peer.sendto(message.encode(), self._address)
