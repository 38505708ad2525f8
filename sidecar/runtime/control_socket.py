"""Open and ask the daemon's control socket, which is for its own user and root.

The socket is in the state directory, where only the daemon's user can create one, so an answer
comes from the daemon.  Each connection carries one question and one answer, each a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sidecar.core.config.settings import Address

from .listen import open_listener, remove_socket

NAME = "control.sock"

MAX_LINE = 1024 * 1024
"""Maximum bytes of a question or an answer."""


class NoDaemon(Exception):
    """No daemon uses this state directory; the argument says how this was determined."""


@contextlib.contextmanager
def _short(state_dir: Path) -> Iterator[str]:
    """Yield a path to the socket that is short enough for a socket address."""
    directory = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{NAME}"
    finally:
        os.close(directory)


def open_control(state_dir: Path) -> socket.socket:
    """Open a listening socket that only its owner and root can connect to.

    Raises OSError and `ListenError`.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _short(state_dir) as path:
        return open_listener(Address(path=path), 0o600, "")


def remove_control(state_dir: Path) -> None:
    """Remove the socket's file after its listener was closed."""
    with contextlib.suppress(OSError), _short(state_dir) as path:
        remove_socket(path)


def ask(state_dir: Path, question: dict[str, Any], patience: float) -> dict[str, Any]:
    """Ask the daemon a question and return its answer.

    Raises `NoDaemon`, and OSError if there may be a daemon that can't be asked: it may belong to
    another user, or not answer in time.
    """
    end = time.monotonic() + patience
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as peer:
        peer.settimeout(patience)
        try:
            with _short(state_dir) as path:
                peer.connect(path)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NoDaemon(f"nothing answers in {state_dir}") from None
        peer.sendall(json.dumps(question).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            peer.settimeout(max(0.001, end - time.monotonic()))
            part = peer.recv(65536)
            if not part:
                raise ConnectionResetError(104, "the daemon ended before it answered")
            answer += part
    found: dict[str, Any] = json.loads(answer)
    return found
