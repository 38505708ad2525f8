"""Print only once the work is done, so that no terminal can hold it up."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def printed_at_the_end() -> Iterator[None]:
    """Keep what the block prints, and print it in order when the block ends, however it does.

    A terminal that is stopped (Ctrl-S), or that nobody reads, holds up who prints, for ever; one
    that hangs up would end the process halfway.
    """
    kept: list[tuple[TextIO, str]] = []
    try:
        with (
            _without_hangups(),
            contextlib.redirect_stdout(_Kept(kept, sys.stdout)),
            contextlib.redirect_stderr(_Kept(kept, sys.stderr)),
        ):
            yield
    finally:
        for stream, text in kept:
            stream.write(text)


class _Kept(io.TextIOBase):
    """A stream whose texts are kept, each with the stream that they are for."""

    def __init__(self, kept: list[tuple[TextIO, str]], stream: TextIO) -> None:
        self._kept = kept
        self._stream = stream

    def write(self, text: str) -> int:
        self._kept.append((self._stream, text))
        return len(text)


@contextlib.contextmanager
def _without_hangups() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only that one may set signals
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
