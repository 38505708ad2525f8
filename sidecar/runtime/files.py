"""Read files that may change, or be hostile, at any time; write files atomically.

Only regular files up to a size limit are read, and never a file that changes while it is read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sidecar.core.config.crl_place import crl_file_name, is_address

MAX_POLICY = 16 * 1024 * 1024
MAX_BUNDLE = 4 * 1024 * 1024
MAX_DENYLIST = 16 * 1024 * 1024
MAX_CRL = 256 * 1024 * 1024
"""Maximum octets of each kind of file."""

LASTING = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EINVAL, errno.EFBIG,
           errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO)  # fmt: skip
"""Errors of reading that persist until somebody changes the file or its directory.

ENXIO is that of a unix socket."""

_TRIES = 5

LEFT_SECONDS = 600.0
"""Seconds after which a temporary file counts as left behind by a killed process."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """The version of a file: a change of content changes at least one field."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileVersion:
        """Take the version from a stat result."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def file_version(path: str | Path) -> FileVersion | None:
    """Return a file's version, with symlinks followed; None if `stat` fails."""
    try:
        return FileVersion.of(os.stat(path))
    except (OSError, ValueError):
        return None


def may_pass(error: BaseException | None) -> bool:
    """Return whether a file that couldn't be read may be readable soon, unchanged.

    So are those of a disk, or of too few descriptors or too little memory.
    """
    if isinstance(error, OSError):
        return error.errno not in LASTING
    return isinstance(error, MemoryError)


def read_file(
    path: str | Path,
    limit: int = MAX_POLICY,
    *,
    trusted_only: bool = False,
    follow: bool = True,
) -> bytes:
    """Read a regular file completely, and only while it doesn't change; without `follow`, no link.

    Raises OSError, also for a directory, a FIFO or a device, for more than `limit` bytes, for a
    file that changes each time it is read, and with `trusted_only` for one that other users can
    write or replace.
    """
    for _ in range(_TRIES):
        with open(open_regular(path, follow=follow), "rb") as file:
            descriptor = file.fileno()
            before = os.fstat(descriptor)
            _check(before, str(path), limit, trusted_only)
            if trusted_only and (why := untrusted_directory(path, before.st_uid)):
                # EAGAIN: repairing a directory doesn't change the file, so callers must retry.
                raise PermissionError(errno.EAGAIN, why, str(path))
            data: bytes | None = file.read(limit + 1)
            after = os.fstat(descriptor)
        if data is None:  # it would have to be waited for: /proc/kmsg, a file of somebody's FUSE
            raise OSError(errno.EAGAIN, "it can't be read without waiting", str(path))
        if FileVersion.of(before) == FileVersion.of(after) and len(data) == after.st_size:
            return data
    raise OSError(errno.EAGAIN, "it changes while it is read", str(path))


def open_regular(path: str | Path, *, follow: bool = True) -> int:
    """Open a regular file to read it, without waiting; without `follow`, no link.

    Nothing else is opened at all: a device may act on that (a watchdog is started, a tape rewound),
    and where others may put a link in a file's place, they choose what root opens.  Raises OSError.
    """
    only_path = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    place = os.open(path, only_path)
    try:
        _check_kind(os.fstat(place).st_mode, str(path))
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            return os.open(f"/proc/self/fd/{place}", flags)
        except FileNotFoundError:  # no /proc is mounted
            return os.open(path, flags | (only_path & os.O_NOFOLLOW))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(place)


def _check_kind(mode: int, path: str) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory", path)
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)


def _check(found: os.stat_result, path: str, limit: int, trusted_only: bool) -> None:
    _check_kind(found.st_mode, path)  # again: /proc may not be mounted
    if found.st_size > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit >> 20} MiB", path)
    if trusted_only and found.st_mode & stat.S_IWOTH:
        raise PermissionError(errno.EPERM, "everyone may write it; chmod o-w it", path)


# -- users who could replace a file

MAX_LINKS = 40
"""Maximum number of symbolic links on the way to a file, as in Linux."""


def untrusted_directory(path: str | Path, owner: int) -> str:
    """Explain why another user could replace a file of this owner; return "" if nobody could.

    As with sshd's StrictModes, each directory on the way, through every link, must belong to root,
    this process's user or the file's owner, and only these may write it.  In a directory like /tmp,
    each entry on the way must belong to these, and the file itself to root or this process's user.
    """
    ours = {0, os.geteuid()}
    for place, found, shared, is_last in _way(path):
        if is_last and shared and found.st_uid not in ours:
            return f"everybody can create files in its directory; chown root {place}, or move it"
        is_theirs = not is_last and (shared or stat.S_ISDIR(found.st_mode))
        if is_theirs and found.st_uid not in {*ours, owner}:
            return (
                f"{place} belongs to user {found.st_uid}, who could replace it; chown root "
                f"{place}, or move the file"
            )
        if stat.S_ISDIR(found.st_mode) and _anybody_may_replace(found):
            return f"everyone may write {place}; chmod o-w {place}"
    return ""


def writable_directory(path: str | Path) -> str:
    """Name a directory on the way to a file that everybody can write, and a remedy; else ""."""
    for place, found, _, _ in _way(path):
        if stat.S_ISDIR(found.st_mode) and _anybody_may_replace(found):
            return f"everyone may write {place}; chmod o-w {place}"
    return ""


def everyone_may_read(path: str | Path) -> bool:
    """Return whether every user of this machine can read a file, and come to it."""
    found = [each for each in _way(path) if not stat.S_ISLNK(each[1].st_mode)]
    return all(
        each.st_mode & (stat.S_IROTH if is_last else stat.S_IXOTH) for _, each, _, is_last in found
    )


SOME_GROUP = -1
"""Stands for the members of a group, or for whom an access list names, among users."""


def writers_on_way(path: str | Path) -> set[int]:
    """Return who can replace a file: whose the directories and links on the way to it are.

    `SOME_GROUP` is among them where others beside a directory's owner may write it.
    """
    users: set[int] = set()
    for place, found, _, is_last in _way(path):
        if not is_last:
            users.add(found.st_uid)
            if stat.S_ISDIR(found.st_mode) and group_may_write(place, found):
                users.add(SOME_GROUP)
    return users


def group_may_write(path: str | Path, found: os.stat_result) -> bool:
    """Return whether a group other than root's, or an access list, lets others write a file."""
    if not found.st_mode & stat.S_IWGRP:  # of a file with an access list, its mask
        return False
    try:
        return found.st_gid != 0 or "system.posix_acl_access" in os.listxattr(path)
    except OSError:
        return True


@contextlib.contextmanager
def held_directory(path: Path) -> Iterator[Path]:
    """Yield another path to a directory, which means that one even if it is moved meanwhile.

    A link on the way is refused: resolve the path before.  Raises OSError.
    """
    descriptor = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path.absolute().parts[1:]:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(name, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _anybody_may_replace(found: os.stat_result) -> bool:
    return bool(found.st_mode & stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX


def _way(path: str | Path) -> Iterator[tuple[str, os.stat_result, bool, bool]]:
    """Yield every directory and link on the way to a file, from / on, and the file itself.

    Each comes with its `lstat`, whether everybody may create files beside it, and whether it is the
    file.  A missing entry ends the iteration.
    """
    whole = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    at, left, links = "/", os.fspath(whole).split("/")[1:], 0
    found = os.lstat(at)
    yield at, found, False, False
    shared = [bool(found.st_mode & stat.S_IWOTH)]
    while left:
        name = left.pop(0)
        if name in ("", ".", ".."):
            if name == "..":
                at, shared = os.path.dirname(at), shared[:-1] or shared
            continue
        place = os.path.join(at, name)
        try:
            found = os.lstat(place)
        except OSError:
            return
        is_link = stat.S_ISLNK(found.st_mode)
        yield place, found, shared[-1], not left and not is_link
        if is_link:
            target = os.readlink(place)
            links += 1
            if links > MAX_LINKS:
                return
            left[:0] = target.split("/")
            if target.startswith("/"):
                at, shared = "/", shared[:1]
        else:
            at = place
            shared.append(bool(found.st_mode & stat.S_IWOTH))


def write_file(path: Path, data: bytes | Iterable[bytes], mode: int = 0o600) -> None:
    """Replace a file atomically, with bytes or with their parts; create a missing directory.

    A FIFO or a link is replaced itself.  Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    with replacing(path) as file:
        file.writelines([data] if isinstance(data, bytes) else data)
        os.fchmod(file.fileno(), mode)


def write_named_file(path: Path, data: bytes, mode: int) -> None:
    """As `write_file`, for a name that somebody has typed: nothing but a regular file is replaced.

    Root would replace /dev/stdout.  Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file; name another", str(path))
    write_file(path, data, mode)


LOCK_PAUSE = 0.02
"""Seconds between two attempts to lock a file."""


def lock_within(descriptor: int, seconds: float) -> bool:
    """Lock an open file for this holder alone (`flock`); return whether within some seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
        time.sleep(LOCK_PAUSE)


LOCK_SECONDS = 2.0
"""Seconds to wait for another instance that is writing; one that hangs holds nobody up."""


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other instances from writing a file meanwhile, unless one hangs.  Raises OSError.

    Where a file system has no locks, nobody is kept from it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(path.with_suffix(".lock"), flags, 0o600)
    try:
        with contextlib.suppress(OSError):
            lock_within(lock, LOCK_SECONDS)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that replaces `path` when the block ends without an error.

    It is written beside the old file, synced and renamed: a reader sees the old content or the
    new one, also after a crash.  On an error the old file stays.  Raises OSError.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Have the disk know which names a directory holds.  Raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_leftovers(path: Path) -> None:
    """Remove temporary files that killed writers of a file left beside it."""
    with contextlib.suppress(OSError):
        for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
            if time.time() - left.lstat().st_mtime > LEFT_SECONDS:
                left.unlink()


def rename_broken(path: Path) -> None:
    """Rename an unusable file to NAME.broken; replace an older one of that name."""
    aside = path.with_name(f"{path.name}.broken")
    with contextlib.suppress(OSError):
        aside.unlink()
    with contextlib.suppress(OSError):
        aside.rmdir()
    if os.path.lexists(aside):
        aside = path.with_name(f"{path.name}.broken.{os.getpid()}")
    with contextlib.suppress(OSError):
        path.replace(aside)


def crl_state_path(state_dir: Path, trust: str, url: str) -> Path:
    """Return the fetcher's file for the CRL of an address: `STATE_DIR/crl/HASH.crl`."""
    return state_dir / crl_file_name(trust, url)


def crl_place(base: Path, state_dir: Path, trust: str, place: str) -> Path:
    """Return the file of a CRL: beside the policy, or the fetcher's."""
    return crl_state_path(state_dir, trust, place) if is_address(place) else base / place


def revoking_path(crl: Path) -> Path:
    """The file beside a fetched CRL, of what came last from its address and only revokes."""
    return crl.with_suffix(".revoking")
