"""Work as the user whom the state directory belongs to.

A command of root that wrote there as root would leave files that the service can't open, and could
be led elsewhere by a link that a broken service has put there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from sidecar.core.errors import printable


def _owner_of(directory: Path) -> os.stat_result:
    try:
        return os.stat(directory)
    except FileNotFoundError:
        return os.stat("/")


@contextlib.contextmanager
def ended_after(seconds: float, told: str) -> Iterator[None]:
    """End this process with a line if the block takes longer.

    SQLite opens files without a limit of time, and again after a signal: the service's user, who
    puts a FIFO there or holds a lease, would hold a command of root up, which Ctrl-C doesn't end.
    """
    done = threading.Event()

    def watch() -> None:
        if not done.wait(seconds):
            with contextlib.suppress(OSError):
                os.write(2, f"mtls-sidecar: {printable(told)}\n".encode())
            os._exit(2)

    threading.Thread(target=watch, name="longest", daemon=True).start()
    try:
        yield
    finally:
        done.set()


@contextlib.contextmanager
def as_owner_of(directory: Path) -> Iterator[None]:
    """Have the effective user and group of a directory's owner, where this is root's process.

    A directory that isn't there yet counts as this user's.  For commands, whose every thread it is.
    """
    if os.geteuid() != 0:
        yield
        return
    found = _owner_of(directory)
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([found.st_gid])
    os.setegid(found.st_gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
