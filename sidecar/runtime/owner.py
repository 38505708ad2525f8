"""Work as the user whom a directory belongs to."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def become_owner_of(directory: Path) -> None:
    """If this is root's process, make it that of a directory's owner, for good.

    What it writes is then that user's, and what that user put there leads root nowhere.  If the
    directory is root's, or not there, whoever could put another there is its owner.  Raises
    OSError, also for a link.
    """
    if os.geteuid() != 0:
        return
    if directory.is_symlink():
        why = "it is a link; look at who put it there, and remove it"
        raise OSError(errno.ELOOP, why, str(directory))
    for place in (directory, directory.parent):
        with contextlib.suppress(FileNotFoundError):
            found = place.lstat() if place == directory else place.stat()
            if found.st_uid != 0:
                os.setgroups([found.st_gid])
                os.setgid(found.st_gid)
                os.setuid(found.st_uid)
                return
