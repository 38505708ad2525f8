"""Change a denylist's file: add a line, remove lines, never lose one.

The file is replaced at once, under a lock, as it was: owner, group, mode and access lists.  Where
that can't be kept, a line is appended in place, so that whoever could read the file still can.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sidecar.core.errors import Diagnostic
from sidecar.core.revocation.denylist import (
    DenylistEntry,
    format_entry,
    is_same,
    one_entry,
    read_lines,
)
from sidecar.runtime.files import MAX_POLICY, read_file, replacing, writable_directory

from .target import Target

PATIENCE = 10.0
"""Seconds that one `revoke` waits for another."""


def locate(path: Path) -> Path:
    """The file that a denylist's path leads to, which need not be there yet.

    Raises OSError where it is a link that leads nowhere: writing through it would make a file
    that nobody meant.
    """
    if path.exists():
        return path.resolve()
    place = path.parent.resolve() / path.name
    if os.path.islink(place):
        why = f"it is a link to {os.readlink(place)}, which isn't there; mend the link"
        raise FileNotFoundError(errno.ENOENT, why, str(path))
    if not place.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no directory {place.parent}", str(path))
    return place


def read_entries(path: Path) -> tuple[list[DenylistEntry], list[Diagnostic]]:
    """The entries of a file, and the lines that can't be read.  Raises OSError."""
    said = [each for _, each in read_lines(_read(path), str(path))]
    return (
        [each for each in said if isinstance(each, DenylistEntry)],
        [each for each in said if isinstance(each, Diagnostic)],
    )


def _read(path: Path) -> bytes:
    try:
        return read_file(path, MAX_POLICY)
    except FileNotFoundError:
        return b""


def add(path: Path, target: Target, until: str, reason: str) -> str | None:
    """Put the line into the file; the line, or None where it denies that already.

    Lines that can't be read stay as they are.  Raises OSError and ValueError.
    """
    stamp = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
    comment = ", ".join(part for part in (stamp, target.who, reason) if part)
    line = format_entry(target.kind, target.value, until, comment)
    wanted = one_entry(target.kind, target.value, until)
    with _locked(path):
        data = _read(path)
        for _, entry in read_lines(data, str(path)):
            if (
                isinstance(entry, DenylistEntry)
                and is_same(entry, wanted)
                and entry.until >= wanted.until
            ):
                return None
        gap = b"" if not data or data.endswith(b"\n") else b"\n"
        _write(path, data, gap + line.encode() + b"\n")
    return line


def remove(path: Path, target: Target) -> list[str]:
    """Take out the lines about this very target; the lines that were there.

    Raises OSError and ValueError.
    """
    wanted = one_entry(target.kind, target.value)
    kept: list[bytes] = []
    removed: list[str] = []
    with _locked(path):
        for raw, entry in read_lines(_read(path), str(path)):
            if isinstance(entry, DenylistEntry) and is_same(entry, wanted):
                removed.append(raw.decode("utf-8", "replace").strip())
            else:
                kept.append(raw)
        if removed:
            try:
                with replacing(path) as file:
                    file.write(b"".join(kept))
                    _inherit(path, file.fileno())
            except _NotKept:
                why = "its owner and group can't be kept; undo it as its owner or root"
                raise PermissionError(errno.EPERM, why, str(path)) from None
    return removed


# -- the lock


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the denylist's lock: two who revoke at once lose no line.

    It is a file beside it that only who may write the denylist can open: nobody else can hold it
    up.  Raises OSError where it isn't free within `PATIENCE` seconds.
    """
    if why := writable_directory(path):
        raise PermissionError(errno.EPERM, why, str(path))
    place = path.with_name(f".{path.name}.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(place, flags, 0o600)
    try:
        _own(descriptor, place, path)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    why = "another `revoke` holds it; see who does: fuser " + str(place)
                    raise TimeoutError(errno.ETIMEDOUT, why, str(place)) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _own(descriptor: int, place: Path, path: Path) -> None:
    """Open the lock to those who may write the denylist, and refuse one that others may hold.

    Raises PermissionError.
    """
    found = os.fstat(descriptor)
    try:
        listed = os.stat(path)
    except FileNotFoundError:
        listed = found
    ours = {0, os.geteuid(), listed.st_uid, os.stat(place.parent).st_uid}
    if found.st_uid == os.geteuid() and stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        group = 0o060 if listed.st_mode & stat.S_IWGRP else 0
        with contextlib.suppress(OSError):
            os.fchown(descriptor, -1, listed.st_gid)
            os.fchmod(descriptor, 0o600 | group)
        found = os.fstat(descriptor)
    if found.st_uid not in ours or found.st_mode & 0o007 or not stat.S_ISREG(found.st_mode):
        why = "it is no lock of ours, and others could hold it; remove it"
        raise PermissionError(errno.EPERM, why, str(place))


# -- the file


class _NotKept(Exception):
    """The new file can't have the old one's owner, group or access lists."""


def _write(path: Path, data: bytes, more: bytes) -> None:
    """Add to a file, by a new one in its place, or else in place.  Raises OSError."""
    try:
        with replacing(path) as file:
            file.write(data + more)
            _inherit(path, file.fileno())
    except (_NotKept, OSError):
        if not path.exists():
            raise
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(descriptor, "ab", buffering=0) as file:
            if file.write(more) != len(more):
                raise OSError(errno.ENOSPC, "the line is not whole; mend it", str(path)) from None
            os.fsync(descriptor)


def _inherit(path: Path, descriptor: int) -> None:
    """Give the new file the old one's owner, group, mode and access lists.  Raises `_NotKept`."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644)
        return
    try:
        new = os.fstat(descriptor)
        if new.st_gid != old.st_gid:
            os.fchown(descriptor, -1, old.st_gid)
        if new.st_uid != old.st_uid:
            os.fchown(descriptor, old.st_uid, -1)
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
        for name in os.listxattr(path):
            if os.getxattr(path, name) != _xattr(descriptor, name):
                os.setxattr(descriptor, name, os.getxattr(path, name))
    except OSError:
        raise _NotKept from None
    if old.st_nlink > 1:
        raise _NotKept


def _xattr(descriptor: int, name: str) -> bytes:
    try:
        return os.getxattr(descriptor, name)
    except OSError:
        return b""
