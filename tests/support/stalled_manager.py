"""A service manager whose queue any user of the host can fill."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def stalled_manager(path: Path) -> Iterator[tuple[socket.socket, Callable[[], None]]]:
    """Listen at `path`, and read nothing by itself; the function fills what waits to be read."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger,
    ):
        manager.bind(str(path))
        manager.settimeout(20)
        stranger.connect(str(path))
        stranger.setblocking(False)

        def fill() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    stranger.send(b"X=1")

        yield manager, fill
