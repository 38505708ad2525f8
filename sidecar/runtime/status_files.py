"""Files in which processes tell what is so while they run; each holds a lock for as long.

A file whose lock nobody holds is of a process that has ended, however it did.  Whoever may read the
lock may ask whether it is held, and can't hold it: it is an exclusive record lock of an open file
(`F_OFD_SETLK`, fcntl(2)), which takes a descriptor to write with, and shared ones don't count.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from .files import write_file
from .release_directory import make_directory

_LOCK = struct.Struct("hhqqi4x")
"""The kernel's `struct flock`: type, whence, start, length (0: all of it), pid (0)."""

_MODE = 0o640

GONE_SECONDS = 60.0
"""How long the file of a process that has ended is left."""


class StatusFile:
    """One process's file."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / f"{secrets.token_hex(8)}.json"
        self._lock = -1

    def write(self, data: bytes) -> None:
        """Replace the file; those of processes that are gone are removed.  Raises OSError."""
        if self._lock < 0:
            make_directory(self._path.parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock = os.open(self._path.with_suffix(".lock"), flags, 0o600)
            exclusive = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(self._lock, fcntl.F_OFD_SETLK, exclusive)
            os.fchmod(self._lock, _MODE)  # not before: a shared lock would be in the way
            _remove_gone(self._path.parent)
        write_file(self._path, data, _MODE)

    def close(self) -> None:
        """Remove the file: the process ends."""
        if self._lock >= 0:
            self._path.unlink(missing_ok=True)
            self._path.with_suffix(".lock").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1


def status_files(directory: Path) -> Iterator[tuple[Path, bool]]:
    """Every file, and whether its process runs.  Raises OSError."""
    for path in sorted(directory.glob("*.json")):
        yield path, _is_held(path.with_suffix(".lock"))


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        shared = _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, shared)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    in_the_way: int = _LOCK.unpack(found)[0]
    return in_the_way != fcntl.F_UNLCK


def _remove_gone(directory: Path) -> None:
    with contextlib.suppress(OSError):
        for path, is_held in status_files(directory):
            if not is_held and time.time() - path.stat().st_mtime > GONE_SECONDS:
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
