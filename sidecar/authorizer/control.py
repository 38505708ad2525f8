"""Answer questions on the control socket: which denylist lines are in force.

The answer to `{"kind": "sha256", "value": "ab12…"}` has the policy's file and, for each trust, its
denylists and the lines of that kind and value that are in force; `until` is null if a line has no
end.  It waits, for two seconds at most, until the files in force are copied for the next start, and
`kept` says whether they are: then a confirmed revocation survives the loss of both this process and
the denylist.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sidecar.core.errors import brief
from sidecar.core.policy.model import Policy
from sidecar.core.revocation.denylist import ENTRY_KINDS
from sidecar.runtime.control_socket import MAX_LINE, open_control, remove_control
from sidecar.runtime.listen import ListenError

log = logging.getLogger("mtls-sidecar")

PATIENCE = 5.0
"""Seconds that a peer has to send its question."""

RETRY = 2.0
"""Seconds between two attempts to listen."""

SOON = 0.05
"""The same while another instance is just doing it."""


def denylist_lines(policy: Policy, file: str, question: object) -> dict[str, Any]:
    """Return the answer to a question, or `{"error": …}`."""
    try:
        kind, value = question["kind"], int(question["value"], 16)  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        return {"error": "expected a kind and a value in hexadecimal"}
    if kind not in ENTRY_KINDS:
        return {"error": f"unknown kind; expected one of {', '.join(ENTRY_KINDS)}"}
    trusts: dict[str, Any] = {}
    for name, trust in policy.trusts.items():
        found = [each.entries.get((kind, value)) for each in trust.denylists]
        trusts[name] = {
            "denylists": [str(Path(each.file).absolute()) for each in trust.denylists],
            "lines": [
                {
                    "file": str(Path(entry.file).absolute()),
                    "line": entry.line,
                    "until": None if entry.until == math.inf else entry.until,
                }
                for entry in found
                if entry is not None
            ],
        }
    return {"policy": file, "trusts": trusts}


async def serve_control(
    state_dir: Path,
    file: Path,
    in_force: Callable[[], Policy],
    kept: Callable[[], Awaitable[bool]],
) -> None:
    """Answer questions until cancelled.  If the socket can't be opened, retry."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            line = await asyncio.wait_for(reader.readline(), PATIENCE)
            told = denylist_lines(in_force(), str(file.absolute()), json.loads(line))
            told["kept"] = await kept()
            writer.write(json.dumps(told).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), PATIENCE)
        writer.close()

    listener = await _listener(state_dir)
    server = await asyncio.start_unix_server(
        answer, sock=listener, limit=MAX_LINE, start_serving=False
    )
    try:
        await server.start_serving()
        await asyncio.Event().wait()
    finally:
        server.close()
        remove_control(state_dir)


async def _listener(state_dir: Path) -> Any:
    told, start = "", time.monotonic()
    while True:
        pause = RETRY
        try:
            return open_control(state_dir)
        except (OSError, ListenError) as error:
            if isinstance(error, BlockingIOError) and time.monotonic() - start < RETRY:
                pause = SOON  # another instance is opening its own socket
            elif brief(error) != told:
                told = brief(error)
                log.warning("`revoke` can't ask this daemon for confirmation: %s", told)
        await asyncio.sleep(pause)
