"""Show on a terminal how far the reading of logs has come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sidecar.core.errors import printable

from .log_files import Watch

_WIDTH = 30
_CLEAR = "\r\x1b[K"


@contextmanager
def bar(path: str, terminal: TextIO) -> Iterator[Watch | None]:
    """A bar for one log, which is removed at the end; None where the stream is no terminal."""
    if not terminal.isatty() or not Path(path).is_file():
        yield None
        return
    size = max(Path(path).stat().st_size, 1)
    name = printable(Path(path).name)

    def watch(octets: int, lines: int) -> None:
        part = min(octets / size, 1.0)
        full = round(part * _WIDTH)
        shown = "#" * full + "." * (_WIDTH - full)
        terminal.write(f"{_CLEAR}{name} [{shown}] {part:4.0%} {lines:,} lines")
        terminal.flush()

    watch(0, 0)
    try:
        yield watch
    finally:
        terminal.write(_CLEAR)
        terminal.flush()
