"""Format log lines so that no foreign value can forge one.

The values of a message may come from a peer, a certificate, a file name or a library, and may
contain line ends, escape sequences and marks that change the text direction.  So every value is
escaped and cut here.  The further lines of a message (a traceback, a list of mistakes) are
indented: a line without indentation is always the program's own.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Mapping

from sidecar.core.errors import PolicyError, error_text, printable

from .systemd import is_journal

MAX_VALUE = 4000
"""Maximum characters of one value."""

MAX_LINES = 1000
"""Maximum lines of one message."""

INDENT = "    "

ROOM = 4 * 2**20
"""Maximum octets that wait for the writing thread."""

PATIENCE = 2.0
"""Seconds that the end of the process waits for unwritten lines."""


MAX_LINE = 8000
"""Maximum bytes of a line without its indentation; the journal splits lines over 48 KiB."""

CUT = "..."
"""The end of a line that was cut."""

PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
"""The journal's priority of each level (sd-daemon(3))."""


class IndentingFormatter(logging.Formatter):
    """Format a record and indent all its lines but the first.

    With `priorities`, each line begins with its priority in the journal's form.
    """

    def __init__(self, *, priorities: bool = False) -> None:
        super().__init__()
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        """Format the record, without a line end."""
        text = f"{record.levelname} {self._message(record)}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + record.stack_info
        first, *more = text.split("\n")[:MAX_LINES]
        mark = f"<{PRIORITIES.get(record.levelname, 5)}>" if self._priorities else ""
        return "\n".join([mark + _cut(first), *(mark + INDENT + _cut(line) for line in more)])

    def _message(self, record: logging.LogRecord) -> str:
        """Fill the message with escaped values; if they don't fit its format, append them."""
        args = record.args
        try:
            if isinstance(args, Mapping):
                return record.msg % {name: harmless(value) for name, value in args.items()}
            return str(record.msg) % tuple(map(harmless, args)) if args else str(record.msg)
        except (TypeError, ValueError, KeyError):
            return f"{record.msg} {harmless(args)}"


def harmless(value: object) -> object:
    """Escape a value for a message; only the mistakes of a file keep several lines."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, PolicyError):
        return "\n".join(map(str, value.diagnostics))
    try:
        text = error_text(value) if isinstance(value, BaseException) else str(value)
    except Exception:  # noqa: BLE001 - an object of a library may raise anything in __str__
        text = f"({type(value).__name__} without a text)"
    return printable(text[:MAX_VALUE])


def _cut(line: str) -> str:
    data = printable(line[:MAX_LINE]).encode(errors="backslashreplace")
    if len(data) <= MAX_LINE and len(line) <= MAX_LINE:
        return data.decode()
    return data[: MAX_LINE - len(CUT)].decode(errors="ignore") + CUT


ONE_WRITER = threading.Lock()
"""The lock of all threads that write to stderr, so that lines are never mixed.

Otherwise a part of a line, such as a URI, could begin a line of its own.
"""


class ThreadHandler(logging.Handler):
    """Write records to stderr in a separate thread, so that no caller waits for the reader.

    If the reader stops (a container's log driver, a hanging journal), records beyond `ROOM` octets
    are dropped and counted; their number is written later.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._room = ROOM
        self._unreported = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record for the thread.  Never waits for the reader."""
        try:
            self._queue(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:  # noqa: BLE001 - a record that can't be formatted must not stop the caller
            self.dropped += 1

    def _queue(self, data: bytes) -> None:
        with self._changed:
            if len(data) > self._room:
                self.dropped += 1
                self._unreported += 1
                return
            if self._unreported:
                self._waiting.append(self._dropped_line())
                self._room -= len(self._waiting[-1])
                self._unreported = 0
            self._waiting.append(data)
            self._room -= len(data)
            self._changed.notify_all()

    def _dropped_line(self) -> bytes:
        message = "%d lines of this log were dropped: nobody read it"
        args = (self._unreported,)
        record = logging.LogRecord("mtls-sidecar", logging.WARNING, "", 0, message, args, None)
        return self.format(record).encode() + b"\n"

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                data = self._waiting[0]
            self._write_all(data)
            with self._changed:
                self._waiting.popleft()
                self._room += len(data)
                self._changed.notify_all()

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            with ONE_WRITER:
                while view:
                    view = view[os.write(self._descriptor, view) :]
        except OSError:
            self.dropped += 1

    def flush(self) -> None:
        """Wait until everything is written, for `PATIENCE` seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, PATIENCE)


def log_in_thread() -> ThreadHandler:
    """Write the log in a separate thread from now on, for processes that serve."""
    handler = ThreadHandler(2)
    root = logging.getLogger()
    for each in list(root.handlers):
        if isinstance(each.formatter, IndentingFormatter):
            handler.setFormatter(each.formatter)
            root.removeHandler(each)
            root.addHandler(handler)
    return handler


def configure_logging() -> None:
    """Log to stderr in this format, including warnings of libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(IndentingFormatter(priorities=is_journal(os.environ, 2)))
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(handler)
        root.setLevel(logging.INFO)
    logging.captureWarnings(True)
