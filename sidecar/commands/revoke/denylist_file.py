"""Change a denylist's file: add a line or remove lines, without losing another one.

The file is replaced atomically under a lock, with the same owner, group, mode and access lists.  If
these can't be kept, the line is appended in place, so that all readers keep their access.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from sidecar.core.errors import Diagnostic
from sidecar.core.revocation.denylist import (
    DenylistEntry,
    format_entry,
    is_same,
    one_entry,
    read_lines,
)
from sidecar.runtime.files import (
    MAX_POLICY,
    lock_within,
    read_file,
    replacing,
    writable_directory,
)

from .target import Target

PATIENCE = 10.0
"""Seconds that one `revoke` waits for the lock of another."""


def locate(path: Path) -> Path:
    """Resolve the path of a denylist, which need not exist yet.

    Raises OSError for a dangling link: writing through it would create an unintended file.
    """
    if path.exists():
        return path.resolve()
    place = path.parent.resolve() / path.name
    if os.path.islink(place):
        why = f"it is a link to {os.readlink(place)}, which doesn't exist; correct the link"
        raise FileNotFoundError(errno.ENOENT, why, str(path))
    if not place.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no directory {place.parent}", str(path))
    return place


def read_entries(path: Path) -> tuple[list[DenylistEntry], list[Diagnostic]]:
    """Read the entries of a file and the mistakes of its invalid lines.  Raises OSError."""
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
    """Add a line to the file and return it; return None if the file already denies the target.

    Invalid lines are left unchanged.  Raises OSError and ValueError.
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
    """Remove the lines about exactly this target, and return them.

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
    """Hold the denylist's lock, so that concurrent calls lose no line.

    The lock is a file beside the denylist that only users who may write the denylist can open, so
    that others can't block it.  Raises OSError if it isn't free within `PATIENCE` seconds.
    """
    if why := writable_directory(path):
        raise PermissionError(errno.EPERM, why, str(path))
    place = path.with_name(f".{path.name}.lock")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(place, flags, 0o600)
    try:
        _own(descriptor, place, path)
        if not lock_within(descriptor, PATIENCE):
            why = "another `revoke` holds it; see who does: fuser " + str(place)
            raise TimeoutError(errno.ETIMEDOUT, why, str(place))
        yield
    finally:
        os.close(descriptor)


def _own(descriptor: int, place: Path, path: Path) -> None:
    """Give the lock the denylist's owner and mode, and refuse one that other users could hold.

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
        why = "other users could hold this lock; remove the file"
        raise PermissionError(errno.EPERM, why, str(place))


# -- the file


class _NotKept(Exception):
    """The new file can't have the old one's owner, group or access lists."""


def _write(path: Path, data: bytes, more: bytes) -> None:
    """Replace a file by a new one, or else append `more` in place.  Raises OSError."""
    try:
        with replacing(path) as file:
            file.write(data + more)
            _inherit(path, file.fileno())
    except (_NotKept, OSError):
        if not path.exists():
            raise
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(descriptor, "ab", buffering=0) as file:
            _append(file, more, path)


def _append(file: IO[bytes], more: bytes, path: Path) -> None:
    """Append all octets or none: half a line could deny somebody else.  Raises OSError."""
    size = os.fstat(file.fileno()).st_size
    try:
        if file.write(more) != len(more):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise


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
