"""Releases of the fleet on the disk: a directory each, and a link to the one that counts.

A release appears whole or not at all, also after a crash: it is written aside, synced, renamed,
and the link is swapped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .files import sync_directory

KEPT = 3
"""How many releases are left on the disk."""

_NAME = re.compile(r"[0-9]{1,16}-[0-9a-f]{16}")
_FILE_MODE, _DIRECTORY_MODE = 0o640, 0o750
"""The service's group reads it: the daemon what the agent brings, the fetcher what is in force."""


@dataclass(frozen=True, slots=True)
class ReleaseDirectory:
    """The directory `releases` below a path, and the link `current` beside it."""

    path: Path

    def place(self, name: str) -> Path:
        """Return where the release of a name is, or would be."""
        return self.path / "releases" / name

    def current(self) -> str:
        """Return the name of the release that counts, or nothing."""
        try:
            name = os.path.basename(os.readlink(self.path / "current"))
        except OSError:
            return ""
        return name if _NAME.fullmatch(name) and self.place(name).is_dir() else ""

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing a release meanwhile.  Raises OSError."""
        make_directory(self.path)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path / ".releases.lock", flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a directory to write files to; it is the release that counts when the block ends.

        On an error nothing is changed.  Raises OSError.
        """
        releases = self.path / "releases"
        make_directory(releases)
        for left in releases.glob(".new.*"):
            shutil.rmtree(left, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(dir=releases, prefix=".new."))
        try:
            yield aside
            _sync(aside)
            if self.place(name).exists():  # by a process that was killed before it swapped the link
                shutil.rmtree(self.place(name))
            aside.rename(self.place(name))
            sync_directory(releases)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        self._point_to(name)
        self._remove_old(name)

    def _point_to(self, name: str) -> None:
        aside = self.path / ".current.new"
        aside.unlink(missing_ok=True)
        aside.symlink_to(Path("releases") / name)
        aside.replace(self.path / "current")
        sync_directory(self.path)

    def _remove_old(self, current: str) -> None:
        """Leave the last few; what can't be removed stays."""
        with contextlib.suppress(OSError):
            found = [
                path for path in (self.path / "releases").iterdir() if _NAME.fullmatch(path.name)
            ]
            found.sort(key=lambda path: int(path.name.partition("-")[0]), reverse=True)
            for path in [each for each in found if each.name != current][KEPT - 1 :]:
                shutil.rmtree(path, ignore_errors=True)


def make_directory(path: Path) -> None:
    """Make a directory that the service's group may read, whatever the umask.  Raises OSError."""
    path.mkdir(parents=True, exist_ok=True)
    if path.stat().st_mode & 0o777 != _DIRECTORY_MODE:
        os.chmod(path, _DIRECTORY_MODE)


@contextlib.contextmanager
def new_part(directory: Path, name: str) -> Iterator[BinaryIO]:
    """Open one file of a release that is being written; synced at the end.  Raises OSError."""
    place = directory / name
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_part(directory: Path, name: str, data: bytes) -> None:
    """Write one file of a release that is being written.  Raises OSError."""
    with new_part(directory, name) as file:
        file.write(data)


def _sync(directory: Path) -> None:
    """Let the group read it, and have it on the disk."""
    for at, _, files in os.walk(directory):
        os.chmod(at, _DIRECTORY_MODE)
        for name in files:
            os.chmod(os.path.join(at, name), _FILE_MODE)
        sync_directory(Path(at))
