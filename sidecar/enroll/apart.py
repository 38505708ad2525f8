"""Use the store in a process of its own, which ends in time whatever its files are.

SQLite opens files without a limit of time: one that is a FIFO, that is on a file system which
hangs, or of which somebody holds a lease, would hold up who opens it for ever.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidecar.core.errors import brief
from sidecar.runtime.owner import become_owner_of

from .store import StoreError

MAX_ANSWER = 64 * 1024 * 1024
"""Maximum octets of an answer: one person's certificates are far fewer."""

REAP_SECONDS = 1.0
"""Seconds that a killed process has to end."""


def apart(directory: Path, work: Callable[[], Any], seconds: float) -> Any:
    """Return what `work` returns, as JSON has it, in a new process of the directory's owner.

    For a process of one thread only.  Raises OSError: that of `work`, its `StoreError`, or
    TimeoutError if it takes longer than these seconds.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            become_owner_of(directory.resolve())
            with open(writing, "wb") as out:
                out.write(json.dumps(_answer(work)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    try:
        data = _read(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
        _end(child)
    if data is None:
        why = f"it takes longer than {seconds:g} s; see what is there: ls -l {directory}"
        raise TimeoutError(errno.ETIMEDOUT, why, str(directory))
    try:
        found = json.loads(data)
        if "error" in found:
            raise OSError(errno.EIO, str(found["error"]))
        return found["value"]
    except (ValueError, KeyError, TypeError):
        why = "the process that reads it has ended without an answer"
        raise OSError(errno.EIO, why, str(directory)) from None


def _answer(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": work()}
    except StoreError as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": f"{error.filename or 'the store'}: {error.strerror or error}"}
    except Exception as error:  # noqa: BLE001 - whatever a hostile database comes to
        return {"error": brief(error)}


def _read(descriptor: int, end: float) -> bytes | None:
    """Read to the end of a pipe; None where that takes too long, or is too much."""
    found = bytearray()
    while len(found) <= MAX_ANSWER:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return None
        part = os.read(descriptor, 65536)
        if not part:
            return bytes(found)
        found += part
    return None


def _end(child: int) -> None:
    """Kill a process, and wait for it, but not for one that can't be killed now."""
    os.kill(child, signal.SIGKILL)  # it is not reaped yet, so this number is nobody else's
    end = time.monotonic() + REAP_SECONDS
    while os.waitpid(child, os.WNOHANG)[0] == 0 and time.monotonic() < end:
        select.select([], [], [], 0.01)
