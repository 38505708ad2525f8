"""The decision log: one line a decision, which no certificate and no client can break.

Every value is written as a JSON string in pure ASCII, so control characters, DEL and
bidirectional marks appear escaped, and cut: no line is longer than `MAX_LINE`.  A file is written
as nginx writes its access log with `buffer=`: by many lines at once; stderr, which may be a pipe
that somebody reads slowly, by a thread.  A full disk or a closed pipe stops no decision: lines that
find no room are dropped and counted.  Denials that are too many are summarized: see `summaries`.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii as quote

from sidecar.authorizer.request_cache import CachedAnswer, CacheHit, RenderedDecision
from sidecar.core.request import AuthzRequest
from sidecar.runtime.log_lines import ONE_WRITER

from .summaries import Summaries, Summary, budget_of

ROOM = 16 * 2**20
"""Most bytes that wait for the thread that writes to stderr."""

MAX_LINE = 8192
"""Most bytes of a line: the journal cuts at 48 KiB and takes the rest for a line of its own."""

MAX_URI = 2048
"""Most bytes of a URI in a line, escaped as it stands there."""

MAX_ID = 128
"""Most bytes of a request's id in a line, escaped."""

ROOM_FOR = {
    "location": 256,
    "rule": 512,
    "subject": 1536,
    "serial": 320,
    "detail": 1024,
    "method": 64,
    "host": 512,
    "client_ip": 64,
    "verify": 256,
    "sni": 256,
    "origin": 256,
}
"""Most bytes of each other value that a client or a certificate may choose, escaped."""

CUT = "..."
"""What stands behind a value that was cut."""

BATCH = 32
"""Lines that are written at once; fewer when `flush` is called."""

# Not blocking: to open a FIFO that nobody reads is an error, not a wait.
_OPEN = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_LINE_FEED, _QUOTE, _BACKSLASH, _LESS = b'\n"\\<'
_WHOLE = re.compile(
    r"(?:[^\\]+|\\[^u]|\\ud[89ab][0-9a-f]{2}\\u[0-9a-f]{4}|\\u(?!d[89ab])[0-9a-f]{4})*"
)
"""Characters of a JSON string, none of them in part."""
_PARTS = 6
"""Pieces of a line."""
_ABSENT = AuthzRequest(None)


class DecisionLog:
    """Writes decisions to a file or to stderr.  `mode`: all, denied or off; `form`: text, json.

    `rate`: denials logged a second before they are summarized, 0 for no bound.
    """

    def __init__(self, mode: str, form: str, path: str, rate: int = 0) -> None:
        """Raises OSError where the file can't be opened."""
        self._mode = mode
        self._json = form == "json"
        self._took = b'","us":%d,"uri":"' if self._json else b'" us=%d uri="'
        self._took_micros = [self._took % micros for micros in range(1000)]
        self._end = b'"}\n' if self._json else b'"\n'
        self._path = "" if path == "stderr" else path
        self._file = self._open()
        self._parts: list[bytes] = []  # of the lines to come, `_PARTS` each
        self._blocks: deque[tuple[bytes, int]] = deque()  # for the thread; and their lines
        self._wake = threading.Event()
        self._stopping = False
        self._torn = False
        self._stamp = b""  # of the milliseconds from `_since` to `_until`
        self._since = self._until = 0.0
        self._second = (-1, "")
        self._added = self._taken = 0  # bytes, ever; each is counted up by one thread only
        self.dropped = 0
        self.failing = ""  # why the last lines could not be written; empty once they could
        self.last_failure = ""  # the same, kept
        self.summaries = Summaries(rate)
        self._thread = threading.Thread(target=self._write, name="decision log", daemon=True)
        if mode != "off" and not self._path:
            self._thread.start()

    def write(
        self, answered: RenderedDecision, request: AuthzRequest | None, seconds: float
    ) -> None:
        """Log one decision, if its kind is to be logged."""
        if self._wants(answered):
            request = request or _ABSENT
            now = time.time()
            once = CachedAnswer(request, answered, b"", 0.0, 0.0)
            request_id = _inside(request.request_id, MAX_ID).encode()
            self.write_cached([(once, None, request_id, now - seconds, now)])

    def write_cached(self, asked: Iterable[CacheHit]) -> None:
        """Log decisions asked for again, by another id and, if there is one, another URI."""
        parts, took, end_of_line = self._parts, self._took_micros, self._end
        for cached, uri, request_id, start, end in asked:
            log_line = cached.log_line
            if log_line is None:
                log_line = self._begin(cached, request_id, end)
            if log_line:
                if uri is None:
                    uri = _within(cached.request.uri)
                elif _QUOTE in uri or _BACKSLASH in uri or _LESS in uri or len(uri) > MAX_URI:
                    uri = _within(uri)
                if not self._since <= end < self._until:
                    self._stamp_anew(end)
                micros = int((end - start) * 1e6)
                us = took[micros] if 0 <= micros < 1000 else self._took % max(0, micros)
                parts += (self._stamp, log_line, request_id, us, uri, end_of_line)
        if len(parts) >= BATCH * _PARTS:
            self.flush()

    def _begin(self, cached: CachedAnswer, request_id: bytes, end: float) -> bytes:
        """What is written of a request, if anything is; remembered where that is always so."""
        answered = cached.answered
        if not self._wants(answered):
            cached.log_line = b""
            return b""
        if not budget_of(answered.decision):
            cached.log_line = self._same(answered, cached.request)
            return cached.log_line
        client_ip = cached.request.client_ip[:MAX_ID]
        if self.summaries.admits(answered.decision, client_ip, request_id, end):
            return self._same(answered, cached.request)
        return b""

    def summarize(self, *, at_the_end: bool = False) -> None:
        """Log what was counted in place of being logged; to be called a few times a second."""
        for summary in self.summaries.take(all_of_them=at_the_end):
            self._stamp_anew(time.time())
            start = b'",' if self._json else b" "
            end = b"}\n" if self._json else b"\n"
            note = self._note_summary(summary).encode()
            self._parts += (self._stamp, start, note, end, b"", b"")

    def _note_summary(self, summary: Summary) -> str:
        fields = [
            ("decision", summary.verdict),
            ("reason", summary.reason),
            ("location", summary.location),
            ("sha256", summary.sha256),
            ("summarized", str(summary.count)),
        ]
        for name, (at, client_ip, request_id) in (("first", summary.first), ("last", summary.last)):
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
            fields += [(f"{name}_time", moment), (f"{name}_client_ip", client_ip)]
            fields += [(f"{name}_id", json.loads(b'"%b"' % request_id))]
        return self._join(fields)

    def flush(self) -> None:
        """Write what waits, or have it written; to be called a few times a second."""
        self.summarize()
        if not self._parts:
            return
        block, lines = b"".join(self._parts), len(self._parts) // _PARTS
        self._parts.clear()
        if self._path:
            self._put(block, lines)
        elif self._added - self._taken + len(block) > ROOM:
            self.dropped += lines
            self.failing = self.last_failure = "nobody reads it fast enough"
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
        self.summarize(at_the_end=True)
        self.flush()
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(patience)

    # -- one line

    def _note(self, answered: RenderedDecision) -> str:
        """What is the same for every request that is decided so."""
        decision = answered.decision
        subject = decision.subject
        fields = [
            ("decision", decision.verdict),
            ("reason", str(decision.reason)),
            ("location", decision.location),
            ("rule", decision.rule),
            ("subject", subject.dn if subject else ""),
            ("serial", subject.serial_hex if subject else ""),
            ("sha256", subject.sha256 if subject else ""),
            ("detail", "" if decision.granted else decision.detail),
            ("policy", answered.policy),
        ]
        return self._join(fields)

    def _wants(self, answered: RenderedDecision) -> bool:
        return self._mode == "all" or (self._mode == "denied" and not answered.granted)

    def _same(self, answered: RenderedDecision, request: AuthzRequest) -> bytes:
        """What stands between the time and the id."""
        if not answered.note:
            answered.note = self._note(answered)
        asked = self._join(
            [
                ("method", request.method),
                ("host", request.host),
                ("client_ip", request.client_ip),
                ("verify", request.verify),
                ("sni", request.server_name),
                ("origin", request.other_origin),
                ("by", "uri" if request.location is None else "name"),
            ]
        )
        if self._json:
            return f'",{answered.note},{asked},"id":"'.encode()
        return f' {answered.note} {asked} id="'.encode()

    def _join(self, fields: list[tuple[str, str]]) -> str:
        pairs = [(name, _inside(value, ROOM_FOR.get(name, 64))) for name, value in fields]
        if self._json:
            return ",".join([f'"{name}":"{value}"' for name, value in pairs])
        return " ".join([f'{name}="{value}"' for name, value in pairs])

    def _stamp_anew(self, now: float) -> None:
        second, millis = divmod(int(now * 1000), 1000)
        if second != self._second[0]:
            start = '{"time":"' if self._json else ""
            text = start + time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second, text
        self._stamp = f"{self._second[1]}.{millis:03d}Z".encode()
        self._since = second + millis / 1000
        self._until = self._since + 0.001

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
                with ONE_WRITER:
                    self._put(block, lines)
                self._taken += len(block)

    def _put(self, block: bytes, lines: int) -> None:
        view = memoryview(b"\n" + block if self._torn else block)
        try:
            while view:
                written = os.write(self._file, view)
                self._torn = view[written - 1] != _LINE_FEED
                view = view[written:]
            self.failing = ""
        except OSError as error:
            self.failing = self.last_failure = error.strerror or str(error)
            self.dropped += lines


def _inside(text: str, most: int) -> str:
    """What stands between the quotes of a JSON string, in at most so many ASCII characters.

    Without `<`: a line that another process's output breaks in two must not go on with what the
    journal takes for a priority.
    """
    found = quote(text[: most + 1])[1:-1]
    if "<" in found:
        found = found.replace("<", "\\u003c")
    if len(found) <= most:
        return found
    whole = _WHOLE.match(found, 0, most - len(CUT))
    assert whole is not None  # it matches nothing at all, too
    return whole[0] + CUT


def _within(value: bytes) -> bytes:
    """As `_inside`, of a URI as its header has it."""
    return _inside(value[: MAX_URI + 1].decode("latin-1"), MAX_URI).encode()
