"""Open and ask the daemon's control socket, which is for its own user and root.

The socket is in the state directory, where only the daemon's user can create one, so an answer
comes from the daemon.  Each connection carries one question and one answer, each a line of JSON.
Of several instances with one state directory each has a socket: the first `control.sock`, every
further one `control-HEX.sock`.  A question goes to all of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sidecar.core.config.settings import Address

from .listen import open_listener, refuse_descriptors, remove_socket
from .peer_credentials import peer_credentials

NAME = "control.sock"

LOCK = "control.lock"

_NAMES = re.compile(r"control(-[0-9a-f]{8})?\.sock")

MAX_LINE = 1024 * 1024
"""Maximum bytes of a question."""

MAX_ANSWER = 16 * 1024 * 1024
"""Maximum bytes of an answer, which names every trust."""


_STREAM = socket.SOCK_STREAM | socket.SOCK_CLOEXEC


class NoDaemon(Exception):
    """No daemon uses this state directory; the argument says how this was determined."""


@contextlib.contextmanager
def _short(state_dir: Path) -> Iterator[str]:
    """Yield a path to the directory that is short enough for a socket address."""
    directory = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}"
    finally:
        os.close(directory)


@contextlib.contextmanager
def _alone(place: str) -> Iterator[None]:
    """Keep other instances from replacing or removing a socket meanwhile.  Raises OSError.

    It never waits: an instance may hang, or be stopped, while it holds the lock.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(f"{place}/{LOCK}", flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _sockets(place: str) -> list[str]:
    """Return the paths of the sockets of all instances, also of those that have ended."""
    return [f"{place}/{name}" for name in sorted(os.listdir(place)) if _NAMES.fullmatch(name)]


def open_control(state_dir: Path) -> socket.socket:
    """Open a listening socket that only its owner and root can connect to.

    Raises OSError and `ListenError`.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _short(state_dir) as place, _alone(place):
        _remove_ended(place)
        another = f"{place}/control-{secrets.token_hex(4)}.sock"
        path = another if os.path.lexists(f"{place}/{NAME}") else f"{place}/{NAME}"
        return open_listener(Address(path=path), 0o600, "")


def _remove_ended(place: str) -> None:
    for path in _sockets(place):
        with contextlib.suppress(OSError):
            remove_socket(path)


def remove_control(state_dir: Path) -> None:
    """Remove the socket's file after its listener was closed."""
    with contextlib.suppress(OSError), _short(state_dir) as place, _alone(place):
        _remove_ended(place)


def ask_all(state_dir: Path, question: dict[str, Any], patience: float) -> list[dict[str, Any]]:
    """Ask every instance a question at the same time, and return their answers.

    Raises `NoDaemon`, OSError if there may be a daemon that can't be asked, such as another user's,
    and TimeoutError with the names of those that don't answer within `patience` seconds.
    """
    end = time.monotonic() + patience
    found, silent = [], []
    with contextlib.ExitStack() as opened:
        for name, peer in _asked(state_dir, question, end, opened):
            try:
                found.append(_answer(peer, end))
            except TimeoutError:
                silent.append(name)
    if silent:
        why = f"timed out: {' and '.join(silent)} did not answer"
        raise TimeoutError(errno.ETIMEDOUT, why)
    if not found:
        raise NoDaemon(f"nothing answers in {state_dir}")
    return found


def _asked(
    state_dir: Path, question: dict[str, Any], end: float, opened: contextlib.ExitStack
) -> list[tuple[str, socket.socket | None]]:
    """Send a question to every instance; return their names, and None for one that takes none."""
    line = json.dumps(question).encode() + b"\n"
    found: list[tuple[str, socket.socket | None]] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), _short(state_dir) as place:
        for path in _sockets(place):
            peer = opened.enter_context(socket.socket(socket.AF_UNIX, _STREAM))
            name = f"the instance of {os.path.basename(path)}"
            refuse_descriptors(peer)
            try:
                peer.settimeout(_left(end))
                peer.connect(path)
                name += _process(peer)
                peer.sendall(line)
            except (FileNotFoundError, ConnectionRefusedError):
                continue
            except TimeoutError:
                found.append((name, None))
            else:
                found.append((name, peer))
    return found


def _process(peer: socket.socket) -> str:
    """Say which process listens on the other end; nothing if it is in another namespace."""
    pid = peer_credentials(peer).pid
    return f" (process {pid})" if pid else ""


def _left(end: float) -> float:
    return max(0.001, end - time.monotonic())


def _answer(peer: socket.socket | None, end: float) -> dict[str, Any]:
    """Read an answer.  Raises OSError and ValueError; TimeoutError also without a peer."""
    if peer is None:
        raise TimeoutError
    answer = bytearray()
    while not answer.endswith(b"\n"):
        if len(answer) > MAX_ANSWER:
            raise ValueError(f"it answered more than {MAX_ANSWER >> 20} MiB")
        if answer and time.monotonic() > end:  # a peer that never stops is none that answers
            raise TimeoutError
        peer.settimeout(_left(end))
        part = peer.recv(65536)
        if not part:
            raise ConnectionResetError(errno.ECONNRESET, "the daemon ended before it answered")
        answer += part
    try:
        found = json.loads(answer)
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("it answered something else than an object")
    return found
