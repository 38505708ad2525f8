"""File descriptors: enough left for files, however many connections there are."""

from __future__ import annotations

import errno
import logging
import os
import resource

log = logging.getLogger("mtls-sidecar")

RESERVE = 128
"""Descriptors for all but connections: files that are read, logs, processes, the admin listener."""


def connections_with_room(wanted: int) -> int:
    """How many connections may be open at once so that files can be read all the same.

    Raises the process's soft limit as far as it may: who opens connections must not be able to
    keep a denylist from being read.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    needed = wanted + RESERVE
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = max(1, min(wanted, soft - min(RESERVE, soft // 2)))
    if found < wanted:
        log.warning(
            "limits.max_connections is %d, not %d: this process may open %d files only; raise "
            "LimitNOFILE (ulimit -n) to %d",
            found,
            wanted,
            soft,
            needed,
        )
    return found


def why_no_more() -> str:
    """Why no further file can be opened now; empty where one can."""
    try:
        os.close(os.dup(0))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return error.strerror or str(error)
    return ""
