"""A file system that hangs: whoever looks at what is in it waits until it is gone."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MNT_DETACH = 2


@contextmanager
def hanging(directory: Path) -> Iterator[None]:
    """Cover a directory by a FUSE file system whose server never answers; at the end it is gone.

    Takes root.  Raises OSError where it can't be mounted.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    target = os.fsencode(directory)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if libc.mount(b"fuse", target, b"fuse", 0, options):
            raise OSError(ctypes.get_errno(), "can't mount FUSE", str(directory))
        yield
    finally:
        os.close(server)  # whoever waits gets ENOTCONN
        libc.umount2(target, MNT_DETACH)
