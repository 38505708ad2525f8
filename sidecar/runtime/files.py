"""Reading files that may change, or be hostile, at any time.

Only regular files, only up to a size, never half of a change that happens meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sidecar.core.config.crl_place import crl_file_name, is_address, shown
from sidecar.core.revocation.crl.index import Crl, read_crls
from sidecar.core.revocation.denylist import Denylist, parse_denylist
from sidecar.core.x509.bundle import Bundle, read_bundle

MAX_POLICY = 16 * 1024 * 1024
MAX_BUNDLE = 4 * 1024 * 1024
MAX_DENYLIST = 16 * 1024 * 1024
MAX_CRL = 256 * 1024 * 1024
"""Most octets of each kind of file."""

_TRIES = 5

LEFT_SECONDS = 600.0
"""After which a file that is being written counts as left behind by a process that was killed."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What tells one version of a file from another."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, found: os.stat_result) -> Signature:
        """The signature in a stat result."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def signature(path: str | Path) -> Signature | None:
    """The file's signature, symlinks followed; None where it can't be looked at."""
    try:
        return Signature.of(os.stat(path))
    except (OSError, ValueError):
        return None


def read_file(path: str | Path, limit: int = MAX_POLICY, *, trusted_only: bool = False) -> bytes:
    """A regular file's bytes, read whole while it did not change.

    Raises OSError: also for a directory, a FIFO or a device, for more than `limit` bytes, for a
    file that changes each time it is read, and with `trusted_only` for one that others may write
    or could replace by another.
    """
    for _ in range(_TRIES):
        # O_NONBLOCK: opening a FIFO that nobody writes must not wait.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            before = os.fstat(descriptor)
            _check(before, str(path), limit, trusted_only)
            if trusted_only and (why := untrusted_directory(path, before.st_uid)):
                # EAGAIN: mending a directory changes nothing of the file; it is tried again.
                raise PermissionError(errno.EAGAIN, why, str(path))
            data = file.read(limit + 1)
            after = os.fstat(descriptor)
        if Signature.of(before) == Signature.of(after) and len(data) == after.st_size:
            return data
    raise OSError(errno.EAGAIN, "it changes while it is read", str(path))


def _check(found: os.stat_result, path: str, limit: int, trusted_only: bool) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory", path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    if found.st_size > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit >> 20} MiB", path)
    if trusted_only and found.st_mode & stat.S_IWOTH:
        raise PermissionError(errno.EPERM, "everyone may write it; chmod o-w it", path)


# -- who could put another file in a file's place

MAX_LINKS = 40
"""Most symbolic links on the way to a file, as Linux has it."""


def untrusted_directory(path: str | Path, owner: int) -> str:
    """Why somebody else could replace a file of this owner, or nothing.

    As sshd's StrictModes: each directory on the way, through every link, must belong to root, this
    process's user or the file's owner, and only they may write it.  In a directory like /tmp, what
    is there must be theirs; the file itself root's or this process's user's.
    """
    ours = {0, os.geteuid()}
    for place, found, shared, is_last in _way(path):
        if is_last and shared and found.st_uid not in ours:
            return f"it stands where everybody can make files; chown root {place}, or move it"
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
    """Which directory on the way to a file anybody could change, and what to do; or nothing."""
    for place, found, _, _ in _way(path):
        if stat.S_ISDIR(found.st_mode) and _anybody_may_replace(found):
            return f"everyone may write {place}; chmod o-w {place}"
    return ""


def _anybody_may_replace(found: os.stat_result) -> bool:
    return bool(found.st_mode & stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX


def _way(path: str | Path) -> Iterator[tuple[str, os.stat_result, bool, bool]]:
    """Every directory and link on the way to a file, from / on, and the file itself.

    Each with what `lstat` says, whether everybody may make files where it is, and whether it is
    the file.  What isn't there ends it.
    """
    at, left, links = "/", os.path.join(os.getcwd(), path).split("/")[1:], 0
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


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file atomically; create its directory if there is none.

    A FIFO or a link in its place is replaced itself.  Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    with replacing(path) as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)


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
    """Remove what writers of a file left beside it when they were killed."""
    with contextlib.suppress(OSError):
        for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
            if time.time() - left.lstat().st_mtime > LEFT_SECONDS:
                left.unlink()


def set_aside(path: Path) -> None:
    """Rename what can't be used to NAME.broken, in place of an older one."""
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
    """The file in which the fetcher leaves the CRL of an address: `STATE_DIR/crl/HASH.crl`."""
    return state_dir / crl_file_name(trust, url)


def crl_place(base: Path, state_dir: Path, trust: str, place: str) -> Path:
    """The file of a CRL: beside the policy, or where the fetcher puts it."""
    return crl_state_path(state_dir, trust, place) if is_address(place) else base / place


@dataclass(slots=True)
class DirectSources:
    """A policy's files, read when asked for: for commands that run once."""

    base: Path
    state_dir: Path
    trusted_only: bool = False

    def certificates(self, path: str) -> Bundle:
        """The certificates of a file.  Raises OSError, ValueError."""
        return read_bundle(read_file(self.base / path, MAX_BUNDLE, trusted_only=self.trusted_only))

    def denylist(self, path: str) -> Denylist:
        """A denylist.  Raises OSError, PolicyError."""
        data = read_file(self.base / path, MAX_DENYLIST, trusted_only=self.trusted_only)
        return parse_denylist(data, str(self.base / path))

    def crls(
        self, place: str, trust: str, authorities: tuple[bytes, ...]
    ) -> tuple[Crl, ...] | None:
        """The CRLs of a file; None where it is an address that wasn't fetched yet."""
        try:
            path = crl_place(self.base, self.state_dir, trust, place)
            # The state directory is its daemon's, who isn't always the user of a command; what
            # is fetched is verified by its signature, whoever wrote it.
            trusted_only = self.trusted_only and not is_address(place)
            data = read_file(path, MAX_CRL, trusted_only=trusted_only)
        except FileNotFoundError:
            if is_address(place):
                return None
            raise
        found = read_crls(data, shown(place), authorities)
        for mistake in found.mistakes:
            raise mistake
        return found.crls
