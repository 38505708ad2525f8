"""Files in which processes tell what is so while they run; each holds a lock for as long.

A file whose lock nobody holds is of a process that has ended, however it did.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from .files import write_file
from .release_directory import make_directory

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
            self._lock = os.open(self._path.with_suffix(".lock"), flags, 0o640)
            os.fchmod(self._lock, 0o640)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_gone(self._path.parent)
        write_file(self._path, data, 0o640)

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
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _remove_gone(directory: Path) -> None:
    with contextlib.suppress(OSError):
        for path, is_held in status_files(directory):
            if not is_held and time.time() - path.stat().st_mtime > GONE_SECONDS:
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
