"""Reserve file descriptors, so that connections can't use up those needed for files."""

from __future__ import annotations

import errno
import logging
import os
import resource

log = logging.getLogger("mtls-sidecar")

RESERVE = 256
"""Descriptors reserved for all but connections on the authorization socket.

At most 64 questions about OCSP, and 4 for each responder beyond; of the admin listener 20
connections, and 32 that wait to be closed (`closing_apart`), as do 32 of the authorization socket;
the rest is for files, logs and processes.
"""


def connections_with_room(wanted: int) -> int:
    """Return the number of connections that may be open and still leave descriptors for files.

    The process's soft limit is raised as far as allowed.  A peer that opens many connections must
    not prevent a denylist from being read.
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
            "limits.max_connections is %d, not %d: this process may open only %d files; raise "
            "LimitNOFILE (ulimit -n) to %d",
            found,
            wanted,
            soft,
            needed,
        )
    return found


def why_no_more() -> str:
    """Explain why no further file can be opened now; return "" if one can."""
    try:
        os.close(os.dup(0))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return error.strerror or str(error)
    return ""
