"""The fleet's log as a file: one signed entry a line, appended and synced, read as it grows.

A process that is killed while it appends leaves a last line without a line feed: that line was
never taken, and the next writer cuts it off.  Nothing here verifies an entry.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sidecar.core.fleet.entry import MAX_LINE

from .files import open_regular, sync_directory

_CHUNK = 4 * 1024 * 1024
MODE = 0o640
LOCK_MODE = 0o600
"""A lock that others may open, if only to read it, they may also hold for ever."""


class LogWriter:
    """Appends to a log.

    Several daemons of one host may keep one log: each appends the same lines in the same order, so
    that a line which is there already is left as it is.  Their lock is a file of its own, which
    only their user can open: the log itself is for the group to read.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock = os.open(path.with_name(f".{path.name}.lock"), flags, LOCK_MODE)
        self._descriptor = os.open(path, flags, MODE)
        with self._locked():
            self._size = self._end_of_last_line()
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
        sync_directory(path.parent)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _end_of_last_line(self) -> int:
        end = os.fstat(self._descriptor).st_size
        at = max(0, end - MAX_LINE - 1)
        tail = os.pread(self._descriptor, end - at, at)
        found = tail.rfind(b"\n")
        return at + found + 1 if found >= 0 or at == 0 else end

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines, all of them or none.  Raises OSError."""
        data = b"".join(line + b"\n" for line in lines)
        with self._locked():
            if os.pread(self._descriptor, len(data), self._size) != data:
                self._write(data)
        self._size += len(data)

    def _write(self, data: bytes) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], self._size + written)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise

    def cut(self, size: int) -> None:
        """Forget all lines from an offset on.  Raises OSError."""
        os.ftruncate(self._descriptor, size)
        os.fsync(self._descriptor)
        self._size = size

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)
        os.close(self._lock)


class LogReader:
    """Reads a log that another process may append to, replace, or fill with anything."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None
        self.offset = 0

    def new_lines(self) -> Iterator[bytes]:
        """Whole lines that were not read yet; all of them where the file is another now.

        Raises OSError.
        """
        try:
            descriptor = open_regular(self._path)
        except FileNotFoundError:
            return
        with open(descriptor, "rb", buffering=0) as file:
            found = os.fstat(descriptor)
            this = found.st_dev, found.st_ino
            if this != self._file or found.st_size < self.offset:
                self._file, self.offset = this, 0
            while data := os.pread(file.fileno(), _CHUNK, self.offset):
                whole, sign, _ = data.rpartition(b"\n")
                if not sign and len(data) > MAX_LINE:
                    self.offset += len(data)
                    yield data
                    continue
                if not sign:
                    return
                for line in whole.split(b"\n"):
                    self.offset += len(line) + 1
                    yield line
