"""Change a denylist's file: add a line or remove lines, without losing another one.

The file is replaced atomically under a lock, with the same owner, group, mode and access lists.  If
these can't be kept, the line is appended in place, so that all readers keep their access.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Set
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
    SOME_GROUP,
    group_may_write,
    held_directory,
    lock_within,
    read_file,
    replacing,
    writable_directory,
    writers_on_way,
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


def _read(path: Path, *, follow: bool = True) -> bytes:
    try:
        return read_file(path, MAX_POLICY, follow=follow)
    except FileNotFoundError:
        return b""


def add(
    path: Path, target: Target, until: str, reason: str, named_by: Set[int] = frozenset()
) -> str | None:
    """Add a line to the file and return it; return None if the file already denies the target.

    Invalid lines are left unchanged.  `named_by` are other users who had a say in which file this
    is: they may name one of their own, or one that is a denylist.  Raises OSError and ValueError.
    """
    stamp = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%SZ}"
    comment = ", ".join(part for part in (stamp, target.who, reason) if part)
    line = format_entry(target.kind, target.value, until, comment)
    wanted = one_entry(target.kind, target.value, until)
    if named_by:
        _check_named(path, named_by)
    with _lock_or_append(path) as (held, is_locked):
        data = _read(held, follow=False)
        for _, entry in read_lines(data, str(path)):
            if (
                isinstance(entry, DenylistEntry)
                and is_same(entry, wanted)
                and entry.until >= wanted.until
            ):
                return None
        gap = b"" if not data or data.endswith(b"\n") else b"\n"
        _write(held, data, gap + line.encode() + b"\n", in_place=not is_locked)
    return line


def remove(path: Path, target: Target, named_by: Set[int] = frozenset()) -> list[str]:
    """Remove the lines about exactly this target, and return them; `named_by` as in `add`.

    Raises OSError and ValueError.
    """
    wanted = one_entry(target.kind, target.value)
    kept: list[bytes] = []
    removed: list[str] = []
    if not os.path.lexists(path):
        return []
    if named_by:
        _check_named(path, named_by)
    with _locked(path) as held:
        for raw, entry in read_lines(_read(held, follow=False), str(path)):
            if isinstance(entry, DenylistEntry) and is_same(entry, wanted):
                removed.append(raw.decode("utf-8", "replace").strip())
            else:
                kept.append(raw)
        if removed:
            try:
                with replacing(held) as file:
                    file.write(b"".join(kept))
                    _inherit(held, file.fileno())
            except _NotKept:
                why = "its owner and group can't be kept; undo it as its owner or root"
                raise PermissionError(errno.EPERM, why, str(path)) from None
    return removed


# -- who named it


def named_by(path: Path, of: Path | None = None, told_by: int = 0) -> frozenset[int]:
    """Return the users beside root who have a say in which file root's process writes.

    These are those who may write what is on the way to it, and a policy `of` that names it.
    """
    if os.geteuid() != 0:
        return frozenset()
    found = {told_by, *writers_on_way(path)}
    if of is not None:
        found |= writers_on_way(of)
        with contextlib.suppress(OSError):
            policy = os.stat(of)
            found.add(policy.st_uid)
            if group_may_write(of, policy):
                found.add(SOME_GROUP)
    return frozenset(found - {0})


def _check_named(path: Path, users: Set[int]) -> None:
    """Refuse a file that is none of these users', and no denylist: root would write it for them.

    Raises OSError.
    """
    why = "somebody who isn't root has named it, and it isn't his"
    with _named(path.parent), held_directory(path.parent) as directory:
        held = directory / path.name
        try:
            if directory.stat().st_uid in users or held.lstat().st_uid in users:
                return
            said = [each for _, each in read_lines(_read(held, follow=False), str(path))]
        except FileNotFoundError:
            why = f"{why}; make it first, with touch, if it is meant"
            raise PermissionError(errno.EPERM, why, str(path)) from None
    is_denylist = any(isinstance(each, DenylistEntry) for each in said)
    if any(isinstance(each, Diagnostic) for each in said) and not is_denylist:
        why = f"{why}, nor a denylist; say --denylist {path} if it is meant"
        raise PermissionError(errno.EPERM, why, str(path))


# -- the lock


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """Hold the denylist's lock, so that concurrent calls lose no line.

    Yields a path to the file within its directory as it is now, wherever that is moved meanwhile.
    The lock is a file beside the denylist that only users who may write the denylist can open, so
    that others can't block it.  Raises OSError if it isn't free within `PATIENCE` seconds.
    """
    if why := writable_directory(path):
        raise PermissionError(errno.EPERM, why, str(path))
    with _named(path.parent), held_directory(path.parent) as directory:
        held = directory / path.name
        place = path.with_name(f".{path.name}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(directory / place.name, flags, 0o600)
        try:
            _own(descriptor, place, held)
            if not lock_within(descriptor, PATIENCE):
                why = "another `revoke` holds it; see who does: fuser " + str(place)
                raise TimeoutError(errno.ETIMEDOUT, why, str(place))
            yield held
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _lock_or_append(path: Path) -> Iterator[tuple[Path, bool]]:
    """Do as `_locked`, but go on without the lock if there is no room to make its file.

    Any user may have used up the inodes of a file system; a line can be appended all the same.
    """
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(_locked(path))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not path.exists():
                raise
            yield stack.enter_context(held_directory(path.parent)) / path.name, False
        else:
            yield held, True


@contextlib.contextmanager
def _named(directory: Path) -> Iterator[None]:
    """Have errors name a file as it is known, not by a descriptor of its directory."""
    try:
        yield
    except OSError as error:
        name = Path(str(error.filename))
        if error.errno is None or name.parent.parent != Path("/proc/self/fd"):
            raise
        why = error.strerror or os.strerror(error.errno)
        raise OSError(error.errno, why, str(directory / name.name)) from None


def _own(descriptor: int, place: Path, path: Path) -> None:
    """Give the lock the denylist's owner and mode, and refuse one that other users could hold.

    Raises PermissionError.
    """
    found = os.fstat(descriptor)
    try:
        listed = os.lstat(path)
    except FileNotFoundError:
        listed = found
    ours = {0, os.geteuid(), listed.st_uid, os.stat(path.parent).st_uid}
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


def _write(path: Path, data: bytes, more: bytes, *, in_place: bool = False) -> None:
    """Replace a file by a new one, or else append `more` in place.  Raises OSError."""
    try:
        if in_place:
            raise _NotKept
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
    """Give the new file the old one's owner, group, permissions and access lists.

    Not its setuid and setgid bits, nor capabilities: whoever owns the directory may exchange the
    file, for a program of root's.  Raises `_NotKept`.
    """
    try:
        old = os.lstat(path)
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644)
        return
    if old.st_nlink > 1:
        raise _NotKept
    try:
        new = os.fstat(descriptor)
        if new.st_gid != old.st_gid:
            os.fchown(descriptor, -1, old.st_gid)
        if new.st_uid != old.st_uid:
            os.fchown(descriptor, old.st_uid, -1)
        os.fchmod(descriptor, old.st_mode & 0o777)
        for name in {*os.listxattr(path, follow_symlinks=False)} - {"security.capability"}:
            value = os.getxattr(path, name, follow_symlinks=False)
            if value != _xattr(descriptor, name):
                os.setxattr(descriptor, name, value)
    except OSError:
        raise _NotKept from None


def _xattr(descriptor: int, name: str) -> bytes:
    try:
        return os.getxattr(descriptor, name)
    except OSError:
        return b""
