"""Log lines that nobody else can write: the one place where they are made harmless.

Whatever a message is filled with may come from a peer, a certificate, a file's name or another's
library, and may hold line ends, escape sequences and marks that turn the direction of writing.  So
every value is escaped here and cut, and what still has several lines (a traceback, a list of
mistakes) goes on indented: a line that begins at the margin is always the program's own.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Mapping

from sidecar.core.errors import PolicyError, printable

from .systemd import is_journal

MAX_VALUE = 4000
"""Most characters of one value; of a value's text, nobody needs more."""

MAX_LINES = 1000
"""Most lines of one message."""

INDENT = "    "

ROOM = 4 * 2**20
"""Most octets that wait for the thread that writes."""

PATIENCE = 2.0
"""Seconds that the end of the process waits for what isn't written yet."""


MAX_LINE = 8000
"""Most bytes of a line, but for its margin; the journal would make two of a line over 48 KiB."""

CUT = "..."
"""What stands behind a line that was cut."""

PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
"""The journal's, by level (sd-daemon(3))."""


class OneMargin(logging.Formatter):
    """Formats a record so that only its first line begins at the margin.

    With `priorities` each line begins with its priority, as the journal reads it.
    """

    def __init__(self, *, priorities: bool = False) -> None:
        super().__init__()
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        """The whole text, without a line end behind it."""
        text = f"{record.levelname} {self._message(record)}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + record.stack_info
        first, *more = text.split("\n")[:MAX_LINES]
        mark = f"<{PRIORITIES.get(record.levelname, 5)}>" if self._priorities else ""
        return "\n".join([mark + _cut(first), *(mark + INDENT + _cut(line) for line in more)])

    def _message(self, record: logging.LogRecord) -> str:
        """The message with harmless values; as it is where they don't fit, so that none is lost."""
        args = record.args
        try:
            if isinstance(args, Mapping):
                return record.msg % {name: harmless(value) for name, value in args.items()}
            return str(record.msg) % tuple(map(harmless, args)) if args else str(record.msg)
        except (TypeError, ValueError, KeyError):
            return f"{record.msg} {harmless(args)}"


def harmless(value: object) -> object:
    """A value as it may stand in a message: one line, but for the mistakes of a file."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, PolicyError):
        return "\n".join(map(str, value.diagnostics))
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - an object of another's library may fail at anything
        text = f"({type(value).__name__} without a text)"
    return printable(text[:MAX_VALUE])


def _cut(line: str) -> str:
    data = printable(line[:MAX_LINE]).encode(errors="backslashreplace")
    if len(data) <= MAX_LINE and len(line) <= MAX_LINE:
        return data.decode()
    return data[: MAX_LINE - len(CUT)].decode(errors="ignore") + CUT


ONE_WRITER = threading.Lock()
"""Held by threads that write to stderr: a line that a slow reader makes wait is not torn apart, and
what follows in it, such as a URI, never begins a line."""


class AsideHandler(logging.Handler):
    """Writes records to stderr on a thread of its own: nobody waits for who reads them.

    Where the reader stops (a container's log driver, a journal that hangs), records beyond `ROOM`
    octets are dropped and counted, and their number is written once there is room again.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._room = ROOM
        self._untold = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Leave a record for the thread.  Never blocks on the reader."""
        try:
            self._leave(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:  # noqa: BLE001 - a record that can't be written stops nothing
            self.dropped += 1

    def _leave(self, data: bytes) -> None:
        with self._changed:
            if len(data) > self._room:
                self.dropped += 1
                self._untold += 1
                return
            if self._untold:
                self._waiting.append(self._note())
                self._room -= len(self._waiting[-1])
                self._untold = 0
            self._waiting.append(data)
            self._room -= len(data)
            self._changed.notify_all()

    def _note(self) -> bytes:
        message = "%d lines of this log were dropped: nobody read it"
        args = (self._untold,)
        record = logging.LogRecord("mtls-sidecar", logging.WARNING, "", 0, message, args, None)
        return self.format(record).encode() + b"\n"

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                data = self._waiting[0]
            self._put(data)
            with self._changed:
                self._waiting.popleft()
                self._room += len(data)
                self._changed.notify_all()

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            with ONE_WRITER:
                while view:
                    view = view[os.write(self._descriptor, view) :]
        except OSError:
            self.dropped += 1

    def flush(self) -> None:
        """Wait until all is written, for `PATIENCE` seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, PATIENCE)


def log_aside() -> AsideHandler:
    """Write the log on a thread from now on, as processes do that serve."""
    handler = AsideHandler(2)
    root = logging.getLogger()
    for each in list(root.handlers):
        if isinstance(each.formatter, OneMargin):
            handler.setFormatter(each.formatter)
            root.removeHandler(each)
            root.addHandler(handler)
    return handler


def configure_logging() -> None:
    """Log to stderr by these lines, other libraries' warnings too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneMargin(priorities=is_journal(os.environ, 2)))
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(handler)
        root.setLevel(logging.INFO)
    logging.captureWarnings(True)
