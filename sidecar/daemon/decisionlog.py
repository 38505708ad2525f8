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
from json.encoder import encode_basestring_ascii as quote

from ..core.decision import Decision
from ..core.wire import AuthzRequest
from .repeats import Answered, Repeat

ROOM = 16 * 2**20
"""Most bytes of lines that wait to be written."""

BATCH = 128
"""Lines that are written to a file at once; fewer when `flush` is called."""

# Not blocking: to open a FIFO that nobody reads is an error, not a wait.
_OPEN = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_LINE_FEED = ord("\n")
_ABSENT = AuthzRequest(None)
_NOTHING = ("", "", "")
"""Around nothing: a decision of a kind that isn't logged."""


class DecisionLog:
    """Writes decisions to a file or to stderr.  `mode`: all, denied or off; `form`: text, json."""

    def __init__(self, mode: str, form: str, path: str) -> None:
        """Raises OSError where the file can't be opened."""
        self._mode = mode
        self._json = form == "json"
        self._start, self._end = ('{"time":"', "}\n") if self._json else ("", "\n")
        self._path = "" if path == "stderr" else path
        self._file = self._open()
        self._lines: deque[str] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._torn = False
        self._millis = 0
        self._stamp = ""
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
            self._add(around, request.uri.decode("latin-1"), request.request_id, seconds)

    def write_again(self, repeat: Repeat, uri: str, request_id: str, seconds: float) -> None:
        """Log a decision asked for again, by another id and, if there is one, another URI."""
        around = repeat.written
        if around is None:
            wanted = self._wants(repeat.answered)
            around = self._around(repeat.answered, repeat.request) if wanted else _NOTHING
            repeat.written = around
        if around is not _NOTHING:
            self._add(around, uri or repeat.request.uri.decode("latin-1"), request_id, seconds)

    def flush(self) -> None:
        """Write to the file what waits; to be called a few times a second."""
        if self._path and self._lines:
            self._put_all()

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

    def _around(self, answered: Answered, request: AuthzRequest) -> tuple[str, str, str]:
        """What stands before the id, before the URI and after it."""
        if not answered.note:
            answered.note = self._note(answered.decision)
        between = self._join([("method", request.method), ("host", request.host)])
        after = self._join([("client_ip", request.client_ip), ("verify", request.verify)])
        if self._json:
            return f'",{answered.note},"id":', f',{between},"uri":', f',{after},"us":'
        return f" {answered.note} id=", f" {between} uri=", f" {after} us="

    def _add(self, around: tuple[str, str, str], uri: str, name: str, seconds: float) -> None:
        lines = self._lines
        if self._added - self._taken >= ROOM:
            self.dropped += 1
            return
        before, between, after = around
        line = (
            f"{self._start}{self._now()}{before}{quote(name)}{between}{quote(uri)}{after}"
            f"{int(seconds * 1e6)}{self._end}"
        )
        lines.append(line)
        self._added += len(line)
        if not self._path:
            if not self._wake.is_set():
                self._wake.set()
        elif len(lines) >= BATCH:
            self.flush()

    def _join(self, fields: list[tuple[str, str]]) -> str:
        if self._json:
            return ",".join([f'"{name}":{quote(value)}' for name, value in fields])
        return " ".join([f"{name}={quote(value)}" for name, value in fields])

    def _now(self) -> str:
        now = int(time.time() * 1000)
        if now != self._millis:
            self._millis = now
            second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1000))
            self._stamp = f"{second}.{now % 1000:03d}Z"
        return self._stamp

    # -- the writing thread

    def _open(self) -> int:
        if not self._path:
            return 2
        return os.open(self._path, _OPEN, 0o640)

    def _write(self) -> None:
        while not self._stopping or self._lines:
            self._wake.wait()
            self._wake.clear()
            if not self._stopping:
                time.sleep(0.02)  # let a few lines gather
            self._put_all()

    def _put_all(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        data = "".join(lines).encode("ascii")
        if lines and not self._put(data):
            self.dropped += len(lines)
        self._taken += len(data)

    def _put(self, data: bytes) -> bool:
        view = memoryview(b"\n" + data if self._torn else data)
        try:
            while view:
                written = os.write(self._file, view)
                self._torn = view[written - 1] != _LINE_FEED
                view = view[written:]
        except OSError:
            return False
        return True
