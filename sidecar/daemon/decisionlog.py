"""The decision log: one line a decision, which no certificate and no client can break.

Every value is written as a JSON string in pure ASCII, so control characters, DEL and
bidirectional marks appear escaped.  A file is written as nginx writes its access log with
`buffer=`: by many lines at once; stderr, which may be a pipe that somebody reads slowly, by a
thread.  A full disk or a closed pipe stops no decision: lines that find no room are dropped and
counted.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii as quote

from ..core.decision import Decision
from ..core.wire import AuthzRequest
from .repeats import Again, Answered

ROOM = 16 * 2**20
"""Most bytes that wait for the thread that writes to stderr."""

BATCH = 128
"""Lines that are written at once; fewer when `flush` is called."""

# Not blocking: to open a FIFO that nobody reads is an error, not a wait.
_OPEN = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_LINE_FEED, _QUOTE, _BACKSLASH = b'\n"\\'
_Line = tuple[tuple[bytes, bytes, bytes], bytes, bytes, float, float]
"""What stands around id and URI; these two; the seconds it took and when it was."""
_PARTS = 8
"""Pieces of a line."""
_MICROS = [b"%d" % micros for micros in range(1000)]
_ABSENT = AuthzRequest(None)
_NOTHING = (b"", b"", b"")
"""Around nothing: a decision of a kind that isn't logged."""


class DecisionLog:
    """Writes decisions to a file or to stderr.  `mode`: all, denied or off; `form`: text, json."""

    def __init__(self, mode: str, form: str, path: str) -> None:
        """Raises OSError where the file can't be opened."""
        self._mode = mode
        self._json = form == "json"
        self._end = b"}\n" if self._json else b"\n"
        self._path = "" if path == "stderr" else path
        self._file = self._open()
        self._parts: list[bytes] = []  # of the lines to come, `_PARTS` each
        self._blocks: deque[tuple[bytes, int]] = deque()  # for the thread; and their lines
        self._wake = threading.Event()
        self._stopping = False
        self._torn = False
        self._millis = 0
        self._stamp = b""
        self._added = self._taken = 0  # bytes, ever; each is counted up by one thread only
        self.dropped = 0
        self._thread = threading.Thread(target=self._write, name="decision log", daemon=True)
        if mode != "off" and not self._path:
            self._thread.start()

    def write(self, answered: Answered, request: AuthzRequest | None, seconds: float) -> None:
        """Log one decision, if its kind is to be logged."""
        if self._wants(answered):
            request = request or _ABSENT
            around = self._around(answered, request)
            uri, name = _within(request.uri), _inside(request.request_id)
            self._add([(around, uri, name, seconds, time.time())])

    def write_again(self, asked: Iterable[Again]) -> None:
        """Log decisions asked for again, by another id and, if there is one, another URI."""
        lines: list[_Line] = []
        for repeat, uri, request_id, seconds, now in asked:
            around = repeat.written
            if around is None:
                wanted = self._wants(repeat.answered)
                around = self._around(repeat.answered, repeat.request) if wanted else _NOTHING
                repeat.written = around
            if around is not _NOTHING:
                if not uri or _QUOTE in uri or _BACKSLASH in uri:
                    uri = _within(uri or repeat.request.uri)
                lines.append((around, uri, request_id, seconds, now))
        self._add(lines)

    def flush(self) -> None:
        """Write what waits, or have it written; to be called a few times a second."""
        if not self._parts:
            return
        block, lines = b"".join(self._parts), len(self._parts) // _PARTS
        self._parts.clear()
        if self._path:
            self._put(block, lines)
        elif self._added - self._taken + len(block) > ROOM:
            self.dropped += lines
        else:
            self._added += len(block)
            self._blocks.append((block, lines))
            self._wake.set()

    def reopen(self) -> None:
        """Open the file anew, as after it was moved away (SIGHUP).  Raises OSError."""
        if self._path:
            fresh, old = self._open(), self._file
            self._file = fresh
            os.close(old)

    def close(self, patience: float = 2.0) -> None:
        """Write what waits, for at most so many seconds."""
        self.flush()
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(patience)

    # -- one line

    def _note(self, decision: Decision) -> str:
        """What is the same for every request that is decided so."""
        subject = decision.subject
        fields = [
            ("decision", decision.verdict),
            ("reason", str(decision.reason)),
            ("location", decision.location),
            ("rule", decision.rule),
            ("subject", subject.dn if subject else ""),
            ("serial", subject.serial_hex if subject else ""),
            ("sha256", subject.sha256 if subject else ""),
            ("detail", "" if decision.granted else decision.detail[:500]),
        ]
        return self._join(fields)

    def _wants(self, answered: Answered) -> bool:
        return self._mode == "all" or (self._mode == "denied" and not answered.granted)

    def _around(self, answered: Answered, request: AuthzRequest) -> tuple[bytes, bytes, bytes]:
        """What stands before the id, before the URI and after it."""
        if not answered.note:
            answered.note = self._note(answered.decision)
        between = self._join([("method", request.method), ("host", request.host)])
        after = self._join([("client_ip", request.client_ip), ("verify", request.verify)])
        if self._json:
            parts = f'",{answered.note},"id":"', f'",{between},"uri":"', f'",{after},"us":'
        else:
            parts = f' {answered.note} id="', f'" {between} uri="', f'" {after} us='
        before, between, after = parts
        return before.encode(), between.encode(), after.encode()

    def _add(self, lines: Iterable[_Line]) -> None:
        parts, end = self._parts, self._end
        for (before, between, after), uri, name, seconds, now in lines:
            millis, micros = int(now * 1000), int(seconds * 1e6)
            if millis != self._millis:
                self._stamp_anew(millis)
            taken = _MICROS[micros] if micros < 1000 else b"%d" % micros
            parts += (self._stamp, before, name, between, uri, after, taken, end)
        if len(parts) >= BATCH * _PARTS:
            self.flush()

    def _join(self, fields: list[tuple[str, str]]) -> str:
        if self._json:
            return ",".join([f'"{name}":{quote(value)}' for name, value in fields])
        return " ".join([f"{name}={quote(value)}" for name, value in fields])

    def _stamp_anew(self, millis: int) -> None:
        start = '{"time":"' if self._json else ""
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millis // 1000))
        self._stamp = f"{start}{second}.{millis % 1000:03d}Z".encode()
        self._millis = millis

    # -- the writing thread

    def _open(self) -> int:
        if not self._path:
            return 2
        return os.open(self._path, _OPEN, 0o640)

    def _write(self) -> None:
        while not self._stopping or self._blocks:
            self._wake.wait()
            self._wake.clear()
            while self._blocks:
                block, lines = self._blocks.popleft()
                self._put(block, lines)
                self._taken += len(block)

    def _put(self, block: bytes, lines: int) -> None:
        view = memoryview(b"\n" + block if self._torn else block)
        try:
            while view:
                written = os.write(self._file, view)
                self._torn = view[written - 1] != _LINE_FEED
                view = view[written:]
        except OSError:
            self.dropped += lines


def _inside(text: str) -> bytes:
    """What stands between the quotes of a JSON string."""
    return quote(text)[1:-1].encode()


def _within(value: bytes) -> bytes:
    """As `_inside`, of a header's value."""
    return _inside(value.decode("latin-1"))
