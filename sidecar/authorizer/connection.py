"""The authorization listener: the hot path.

One `Connection` per peer, over httptools (llhttp, its leniencies off).  Requests are answered in
the order they came; while one waits for an OCSP answer, those behind it on the same connection
wait too, and nobody else does.  Whatever isn't a plain bodyless GET is answered 400.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import httptools

from sidecar.authorizer.telemetry.recorder import Ledger
from sidecar.core.config.settings import Limits
from sidecar.core.evaluate import Question, refuse
from sidecar.core.wire import (
    CONTROL_HEADERS,
    MAX_CERT_HEADER,
    AuthzRequest,
    BadRequest,
    build,
    is_second_spelling,
    parse_target,
    render,
)

from .decision_cache import Engine
from .request_cache import Answered

log = logging.getLogger("mtls-sidecar")

MAX_HEAD = MAX_CERT_HEADER + 64 * 1024
"""Longest request head, in bytes."""

_SPELT = (
    b"SSL-Client-Verify", b"SSL-Client-Cert", b"Host", b"SSL-Server-Name", b"X-Original-URI",
    b"X-Original-Method", b"X-Real-IP", b"X-Request-ID",
)  # fmt: skip
_AS_WRITTEN = {name: CONTROL_HEADERS[name.lower()] for name in _SPELT}
"""The control headers as nginx's configuration spells them: the common case needs no folding."""


@dataclass(slots=True)
class Service:
    """What every connection shares."""

    engine: Engine
    ledger: Ledger
    limits: Limits
    ask: Callable[[list[Question], float], Awaitable[None]] | None = None
    connections: set[Connection] = field(default_factory=set)
    draining: bool = False

    def decide(self, request: AuthzRequest, questions: list[Question] | None = None) -> Answered:
        """The engine's answer; should it ever fail, a loud one that lets nobody in."""
        try:
            return self.engine.decide(request, questions)
        except Exception:  # whatever it is: nginx gets its answer, and it is no
            log.exception("a decision failed; it is answered 400")
            decision = refuse("the decision failed, see the log")
            return Answered(decision, render(decision, self.engine.policy.hash, 0.0), 0.0)

    def sweep(self, now: float) -> None:
        """Close connections that are too slow or silent; called about once a second."""
        for connection in list(self.connections):
            connection.check(now)

    def drain(self) -> None:
        """Answer what is under way, close the rest."""
        self.draining = True
        for connection in list(self.connections):
            connection.close_when_idle()


class Connection(asyncio.Protocol):
    """One peer: bytes in, answers out."""

    __slots__ = (
        "_bad",
        "_busy",
        "_closing",
        "_ended",
        "_fd",
        "_fields",
        "_fresh",
        "_half_closed",
        "_head",
        "_keep",
        "_lingers",
        "_lively",
        "_out",
        "_parser",
        "_queue",
        "_since",
        "_started",
        "_target",
        "_transport",
        "_unsent",
        "_waiting",
        "service",
    )  # fmt: skip

    def __init__(self, service: Service) -> None:
        self.service = service
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._target = b""
        self._fd = -1
        self._fields: dict[str, bytes] = {}
        self._bad = ""
        self._fresh: list[tuple[AuthzRequest, Answered]] = []  # of the bytes being read
        self._head = 0
        self._keep = True
        self._out: list[bytes] = []
        self._queue: deque[tuple[AuthzRequest | str, bool, bool]] = deque()
        self._busy = False
        self._ended = False
        self._closing = False
        self._lingers = False
        self._lively = False  # something known was asked for since `check`
        self._unsent = False  # the transport may hold something back
        self._half_closed = False
        self._started = False
        self._waiting: asyncio.Task[None] | None = None
        self._since = time.monotonic()

    # -- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._fd = self._transport.get_extra_info("socket").fileno()
        service = self.service
        if len(service.connections) >= service.limits.max_connections or service.draining:
            self._ended = self._closing = True
            self._transport.abort()
            return
        service.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.connections.discard(self)
        self._ended = self._closing = True
        if self._waiting is not None:
            self._waiting.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer a request that is known without parsing, or else parse."""
        if self._started or self._busy or self._ended:
            if not self._ended:
                self._parse(data)
            return
        service = self.service
        repeats = service.engine.repeats
        clock = repeats.clock
        start = clock()
        known = repeats.find(data, start)
        if known is None or service.draining:
            self._fresh.clear()
            self._parse(data)
            if len(self._fresh) == 1:
                service.engine.remember(data, *self._fresh[0])
            return
        repeat, uri, request_id = known
        # Written at once where nothing waits: uvloop would write only after all that came.
        answer, written = repeat.answer, 0
        if not (self._unsent and self._still_unsent()):
            try:
                written = os.write(self._fd, answer)
            except OSError:  # no room, or nobody there any more: the transport sees to it
                written = 0
        if written < len(answer):
            self._send(answer[written:])
        self._lively = True
        service.ledger.enter_again(repeat, uri, request_id, start, clock())

    def _parse(self, data: bytes) -> None:
        self._head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("an upgrade")
        except httptools.HttpParserError as error:
            self._fail(f"not HTTP: {error}")
        if self._head > MAX_HEAD and not self._ended:
            self._fail("the request head is too long")
        self._flush()

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
            self._unsent = True

    def _still_unsent(self) -> bool:
        transport = self._transport
        self._unsent = transport is not None and transport.get_write_buffer_size() > 0
        return self._unsent

    def eof_received(self) -> bool:
        """The peer sends no more: it still gets the answers to what it asked."""
        self._ended = True
        return self._busy

    def pause_writing(self) -> None:
        """The peer doesn't read its answers: take no more requests until it does."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._busy:
            self._transport.resume_reading()

    # -- the parser's events

    def on_message_begin(self) -> None:
        self._target = b""
        self._fields = {}
        self._bad = ""
        self._keep = True
        self._started = True
        self._since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        field = _AS_WRITTEN.get(name)
        if field is None:
            name = name.lower()
            field = CONTROL_HEADERS.get(name)
        if field is not None:
            if field in self._fields:
                self._bad = f"header {name.decode('latin-1')!r} is repeated"
            self._fields[field] = value
        elif name == b"content-length":
            if value != b"0":
                self._body("Content-Length")
        elif name == b"transfer-encoding":
            self._body("Transfer-Encoding")
        elif is_second_spelling(name):
            self._bad = f"header {name.decode('latin-1')!r} in a second spelling"

    def _body(self, header: str) -> None:
        """A body may never come, or be the next request in disguise: close after the answer."""
        self._bad = f"{header}: set proxy_pass_request_body off and Content-Length ''"
        self._keep = False
        self._lingers = True

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._bad, self._keep = f"HTTP version {version}", False
        elif self._parser.should_upgrade():
            self._bad = "an upgrade"
            self._keep, self._lingers = False, True
        elif version == "1.1" and "host" not in self._fields:
            self._bad = "HTTP/1.1 without Host"
        if self._parser.get_method() not in (b"GET", b"HEAD"):
            self._bad = "the method is not GET"
        old = version == "1.0"
        self._keep = self._keep and self._parser.should_keep_alive()
        self._take(self._read(), self._keep, old)
        if not self._keep:  # nothing behind it will be read, a body least of all
            self._ended = True

    def on_message_complete(self) -> None:
        self._head = 0
        self._started = False
        self._since = time.monotonic()

    # -- requests and answers

    def _read(self) -> AuthzRequest | str:
        """The request, or what is wrong with it."""
        if self._bad:
            return self._bad
        try:
            return build(parse_target(self._target), self._fields)
        except BadRequest as error:
            return str(error)

    def _take(self, request: AuthzRequest | str, keep: bool, old: bool) -> None:
        if self._busy:
            self._queue.append((request, keep, old))
            return
        start = time.perf_counter()
        if isinstance(request, str):
            self._refuse(request, keep, old, start)
            return
        service = self.service
        questions: list[Question] = []
        answered = service.decide(request, questions)
        if questions and service.ask is not None:
            self._wait(request, keep, old, start, questions)
        else:
            self._answer(answered, request, keep, old, start)
            if keep and not old:
                self._fresh.append((request, answered))

    def _answer(
        self, answered: Answered, request: AuthzRequest, keep: bool, old: bool, start: float
    ) -> None:
        self._write(answered.head, keep, old)
        self.service.ledger.enter(answered, request, time.perf_counter() - start)

    def _refuse(self, detail: str, keep: bool, old: bool, start: float) -> None:
        decision = refuse(detail)
        head = render(decision, self.service.engine.policy.hash, 0.0)
        self._write(head, keep, old)
        self.service.ledger.enter(Answered(decision, head, 0.0), None, time.perf_counter() - start)

    def _write(self, head: bytes, keep: bool, old: bool) -> None:
        if not keep or self.service.draining:
            self._out += (head, b"Connection: close\r\n\r\n")
            self._closing = True
        else:
            self._out += (head, b"Connection: keep-alive\r\n\r\n" if old else b"\r\n")

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._out:
            self._send(b"".join(self._out))
            self._out = []
        if self._closing and not self._busy:
            self._end(transport)

    def _end(self, transport: asyncio.Transport) -> None:
        """Close; where more of what can't be read may be on its way, only our side.

        Closing with unread bytes would reset the connection and take the answer with it
        (nginx's `lingering_close`).  What still comes is thrown away until the peer closes, or
        its time is up.
        """
        if not self._lingers:
            transport.close()
        elif not self._half_closed:
            self._half_closed, self._started = True, True
            self._since = time.monotonic()
            transport.write_eof()

    def _fail(self, detail: str) -> None:
        """The stream can't be read any further: answer 400 in its turn, and close."""
        if not self._ended:
            self._ended = self._lingers = True
            self._take(detail, False, False)

    # -- waiting for an OCSP answer

    def _wait(
        self,
        request: AuthzRequest,
        keep: bool,
        old: bool,
        start: float,
        questions: list[Question],
    ) -> None:
        self._busy = True
        if self._transport is not None:
            self._transport.pause_reading()
        task = self._finish(request, keep, old, start, questions)
        self._waiting = asyncio.get_running_loop().create_task(task)

    async def _finish(
        self,
        request: AuthzRequest,
        keep: bool,
        old: bool,
        start: float,
        questions: list[Question],
    ) -> None:
        """Ask, decide again by what is known then, and go on with what came meanwhile."""
        service = self.service
        assert service.ask is not None
        try:
            await service.ask(questions, float(service.limits.ocsp_timeout))
        finally:
            self._busy, self._waiting = False, None
        self._answer(service.decide(request), request, keep, old, start)
        while self._queue and not self._busy:
            self._take(*self._queue.popleft())
        self._flush()
        transport = self._transport
        if not self._busy and transport is not None and not transport.is_closing():
            transport.resume_reading()

    # -- deadlines and draining

    def check(self, now: float) -> None:
        """Close if a request is arriving too slowly, or nothing was asked for too long."""
        if self._lively:
            self._lively, self._since = False, now
        limits = self.service.limits
        limit = limits.header_timeout if self._started else limits.idle_timeout
        if not self._busy and now - self._since > limit:
            self.abort()

    def abort(self) -> None:
        """Close at once, unanswered."""
        self._ended = self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def close_when_idle(self) -> None:
        """Close now, or after what is under way."""
        if self._busy or self._started:
            self._keep = False
        elif self._transport is not None:
            self._ended = self._closing = True
            self._transport.close()
