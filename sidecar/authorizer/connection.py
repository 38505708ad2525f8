"""Serve the authorization socket; this is the hot path.

A `Connection` carries one request at a time: nginx sends the next request only after it has read
the answer.  Further bytes before the answer is written are answered 400 without a decision, and the
connection is closed.  While a request waits for an OCSP answer, other connections proceed.
`request_head` parses the requests.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from fcntl import ioctl
from termios import FIONREAD
from typing import cast

from sidecar.authorizer.telemetry.recorder import DecisionRecorder
from sidecar.core.answer import render
from sidecar.core.config.settings import Limits
from sidecar.core.evaluate import OcspQuestion, refuse
from sidecar.core.request import AuthzRequest
from sidecar.core.revocation.ocsp.response import OcspKey
from sidecar.runtime.peer_credentials import peer_credentials

from .decision_cache import Engine
from .open_connections import OpenConnections
from .request_cache import RenderedDecision
from .request_head import BYTES_BEHIND, NotOneRequest, RequestHead, is_complete, read_head
from .turns import Turns

log = logging.getLogger("mtls-sidecar")

MAX_HELD = 64 * 2**20
"""Maximum bytes of unanswered requests, of all connections together.

These are incomplete requests, and requests that wait for their turn or for an OCSP answer.
"""

SMALL = 16 * 1024
"""Bytes of an unanswered request for which there is always room: large ones can't take that."""

TURN = 512
"""Arrivals that are taken before everything else in the loop has a turn.

uvloop itself would give it none before 48 times 1,024 of them: a reload would wait for several
turns of seconds each, beside a thousand peers that ask without end.
"""


@dataclass(slots=True)
class Service:
    """The state shared by all connections.

    `held` counts the bytes limited by `MAX_HELD`, `refused` the connections over the limit, `left`
    what may arrive until the next turn of the loop (no end to it without a loop); what is beyond is
    `late`.
    """

    engine: Engine
    recorder: DecisionRecorder
    limits: Limits
    ask: Callable[[list[OcspQuestion], float], Awaitable[None]] | None = None
    turns: Turns | None = None
    connections: OpenConnections[Connection] = field(init=False)
    draining: bool = False
    held: int = 0
    refused: int = 0
    left: float = math.inf
    late: deque[tuple[Connection, bytes]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.connections = OpenConnections(self.limits.max_connections)

    def postpone(self, connection: Connection, data: bytes) -> None:
        """Take what has arrived on a connection in a later turn of the loop."""
        if not self.late:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self.late.append((connection, data))

    def _next_turn(self) -> None:
        self.left = TURN
        while self.late and self.left > 0:
            connection, data = self.late.popleft()
            connection.take_up(data)
        if self.late:
            asyncio.get_running_loop().call_soon(self._next_turn)

    def decide(
        self, request: AuthzRequest, questions: list[OcspQuestion] | None = None
    ) -> RenderedDecision:
        """Return the engine's answer; after any error, log it and answer 400."""
        try:
            return self.engine.decide(request, questions)
        except Exception:  # fail closed: answer 400 after any error
            log.exception("a decision failed; it is answered 400")
            decision = refuse("the decision failed, see the log")
            return RenderedDecision(
                decision, render(decision, self.engine.policy.hash, 0.0), 0.0, 0.0
            )

    def sweep(self, now: float) -> None:
        """Close connections that are too slow or silent; called about once a second."""
        for connection in self.connections:
            connection.check(now)

    def drain(self) -> None:
        """Close idle connections, and the others after their answer."""
        self.draining = True
        for connection in self.connections:
            connection.close_when_idle()


class State(Enum):
    """The state of a connection."""

    IDLE = "no byte of a request has arrived"
    READING = "a part of a request has arrived"
    QUEUED = "the request waits for its turn"
    WAITING = "the request waits for an OCSP answer"
    LINGERING = "the last answer is sent; further bytes are discarded"
    CLOSED = "closed, or about to be"


_IDLE, _READING, _QUEUED, _WAITING = State.IDLE, State.READING, State.QUEUED, State.WAITING
_LINGERING = State.LINGERING
_PENDING = (_QUEUED, _WAITING)
"""The states of a complete request that isn't answered yet."""
_TAKING = (_IDLE, _READING, _LINGERING)
"""The states in which bytes may arrive again and again."""


class Connection(asyncio.Protocol):
    """Read requests of one peer and write the answers."""

    __slots__ = (
        "_fd",
        "_held",
        "_late",
        "_leaving",
        "_lively",
        "_part",
        "_since",
        "_state",
        "_transport",
        "_unsent",
        "_waiting",
        "service",
    )  # fmt: skip

    def __init__(self, service: Service) -> None:
        self.service = service
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        self._state = _IDLE
        self._part = bytearray()
        self._held = 0
        self._late = False  # what has arrived waits for its turn
        self._leaving = False  # close after the next answer
        self._lively = False  # a cached request arrived since `check`
        self._unsent = False  # the transport may still buffer an answer
        self._waiting: asyncio.Task[None] | None = None
        self._since = time.monotonic()

    # -- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the same methods
        peer = self._transport.get_extra_info("socket")
        self._fd = peer.fileno()
        if not self.service.connections.admit(self, peer_credentials(peer).uid):
            self.service.refused += 1
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.service.connections.discard(self)
        self._leave(State.CLOSED)

    def data_received(self, data: bytes) -> None:
        """Answer from the request cache without parsing; else parse the request."""
        service = self.service
        if service.left <= 0 and self._state in _TAKING:
            self._postpone(b"" if self._state is _LINGERING else data)
            return
        service.left -= 1
        if self._state is not _IDLE or self._unsent:
            self._continue(data)
            return
        request_cache = service.engine.request_cache
        clock = request_cache.clock
        start = clock()
        known = request_cache.find(data, start)
        if known is None or service.draining:
            self._begin(data)
            return
        cached, uri, request_id = known
        # Write immediately: uvloop would write only after all events of this iteration.
        answer = cached.answer
        try:
            written = os.write(self._fd, answer)
        except OSError:  # the buffer is full, or the peer is gone: the transport handles it
            written = 0
        if written < len(answer):
            self._send(answer[written:])
        self._lively = True
        service.recorder.record_cached(cached, uri, request_id, start, clock())

    def _postpone(self, data: bytes) -> None:
        """Read nothing more until this has been taken up."""
        if self._transport is not None and self._hold(len(data)):
            self._transport.pause_reading()
            self._late = True
            self.service.postpone(self, data)

    def take_up(self, data: bytes) -> None:
        """Process what was postponed, unless the connection was closed meanwhile."""
        self._late = False
        if self._transport is None or self._state not in _TAKING:
            return
        self._held -= len(data)
        self.service.held -= len(data)
        self._transport.resume_reading()
        self.data_received(data)

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
            self._unsent = True

    def _is_unsent(self) -> bool:
        transport = self._transport
        self._unsent = transport is not None and transport.get_write_buffer_size() > 0
        return self._unsent

    def eof_received(self) -> bool:
        """Close after the answer: the peer has finished sending."""
        self._leaving = True
        return self._state in _PENDING

    # -- one request

    def _begin(self, data: bytes) -> None:
        """Process the first bytes of a request, usually all of it."""
        try:
            complete = is_complete(data)
        except NotOneRequest as error:
            self._fail(str(error))
            return
        if complete:
            self._in_turn(data, in_one_read=True)
            return
        self._state, self._since = _READING, time.monotonic()
        self._part += data
        self._hold(len(data))

    def _in_turn(self, data: bytes, *, in_one_read: bool) -> None:
        """Process a complete request now, or when it has its turn."""
        turns = self.service.turns
        if turns is None or turns.admits(len(data)):
            self._process(data, in_one_read)
            return
        self._state = _QUEUED
        if self._hold(len(data)):
            turns.wait(self, len(data), lambda: self._proceed(data, in_one_read))

    def _proceed(self, data: bytes, in_one_read: bool) -> None:
        """Process a request that has waited; meanwhile its answer may be cached."""
        self._rest()
        if in_one_read and not self._leaving:
            self.data_received(data)
        else:
            self._process(data, in_one_read=False)

    def _process(self, data: bytes, in_one_read: bool) -> None:
        try:
            answered = self._take(data)
        except NotOneRequest as error:
            self._fail(str(error))
            return
        if in_one_read and answered is not None:
            self.service.engine.remember(data, *answered)

    def _continue(self, data: bytes) -> None:
        """Process further bytes: the rest of a request, or bytes that nginx would not send yet."""
        if self._state is _READING:
            self._read_on(data)
        elif self._state in _PENDING:
            self._fail(BYTES_BEHIND)
        elif self._state is _IDLE:
            if self._is_unsent():  # the previous answer is not written yet
                self.abort()
            else:
                self.data_received(data)

    def _read_on(self, data: bytes) -> None:
        seen = len(self._part)
        self._part += data
        try:
            complete = is_complete(self._part, seen)
        except NotOneRequest as error:
            self._fail(str(error))
            return
        if not complete:
            self._hold(len(data))
            return
        whole = bytes(self._part)
        self._rest()
        self._in_turn(whole, in_one_read=False)

    def _hold(self, size: int) -> bool:
        """Count bytes of an unanswered request; close the connection if there are too many."""
        if self._held + size > SMALL and self.service.held + size > MAX_HELD:
            self._fail("too many large requests are incomplete, or wait")
            return False
        self._held += size
        self.service.held += size
        return True

    def _rest(self) -> None:
        """Discard the bytes of the current request."""
        self._state, self._since = _IDLE, time.monotonic()
        self._part.clear()
        self.service.held -= self._held
        self._held = 0

    def _take(self, data: bytes) -> tuple[AuthzRequest, RenderedDecision] | None:
        """Answer one complete request; return request and answer if they may be cached.

        Raises `NotOneRequest`.
        """
        head = read_head(data)
        if self._has_more():
            raise NotOneRequest(BYTES_BEHIND)
        start = time.perf_counter()
        if head.mistake:
            self._refuse(head, start)
            return None
        service = self.service
        questions: list[OcspQuestion] = []
        answered = service.decide(head.request, questions)
        if questions and service.ask is not None:
            self._wait(head, start, questions, len(data))
            return None
        self._answer(answered, head, start)
        return (head.request, answered) if head.keep and not head.old else None

    def _has_more(self) -> bool:
        """Return whether more bytes have arrived: a large request arrives in several reads."""
        count = bytearray(4)
        try:
            ioctl(self._fd, FIONREAD, count)
        except (OSError, ValueError):  # it is closed
            return False
        return any(count)

    # -- answers

    def _answer(self, answered: RenderedDecision, head: RequestHead, start: float) -> None:
        self._write(answered.head, head)
        self.service.recorder.record(answered, head.request, time.perf_counter() - start)

    def _refuse(self, head: RequestHead, start: float) -> None:
        decision = refuse(head.mistake)
        answer = render(decision, self.service.engine.policy.hash, 0.0)
        self._write(answer, head)
        answered = RenderedDecision(decision, answer, 0.0, 0.0)
        self.service.recorder.record(answered, None, time.perf_counter() - start)

    def _write(self, answer: bytes, head: RequestHead) -> None:
        ends = self._leaving or not head.keep or self.service.draining
        if ends:
            answer += b"Connection: close\r\n\r\n"
        else:
            answer += b"Connection: keep-alive\r\n\r\n" if head.old else b"\r\n"
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._send(answer)
        if ends:
            self._end(transport, head.lingers)

    def _end(self, transport: asyncio.Transport, lingers: bool) -> None:
        """Close the connection; with `lingers`, close only the sending side for now.

        Closing with unread bytes would reset the connection, and the peer could lose the answer
        (see nginx's `lingering_close`).  Further bytes are discarded until the peer closes, or its
        time is over.
        """
        if lingers:
            self._leave(State.LINGERING)
            transport.write_eof()
        else:
            self._leave(State.CLOSED)
            transport.close()

    def _fail(self, detail: str) -> None:
        """Answer 400 and stop reading: the peer doesn't send one request at a time."""
        if self._state not in (State.LINGERING, State.CLOSED):
            self._leave(self._state)
            self._refuse(
                RequestHead(AuthzRequest(None), detail, False, False, True), time.perf_counter()
            )

    def _leave(self, state: State) -> None:
        """Discard the current request and change to a final state."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self._state in _PENDING and self.service.turns is not None:
            self.service.turns.leave(self)
        self._rest()
        self._state = state

    # -- waiting for an OCSP answer

    def _wait(
        self, head: RequestHead, start: float, questions: list[OcspQuestion], size: int
    ) -> None:
        self._state = _WAITING
        if not self._hold(size):  # deciding without an answer would let floods get someone in
            return
        task = self._finish(head, start, questions, size)
        self._waiting = asyncio.get_running_loop().create_task(task)

    async def _finish(
        self, head: RequestHead, start: float, questions: list[OcspQuestion], size: int
    ) -> None:
        """Ask for OCSP answers and decide again, until none is wanted or the time is over.

        Thousands may wait for one answer: they decide in turn.
        """
        service = self.service
        assert service.ask is not None
        end = time.monotonic() + service.limits.ocsp_timeout
        asked: set[OcspKey] = set()
        while questions and time.monotonic() < end:
            asked.update(question.key for question in questions)
            try:
                await service.ask(questions, end - time.monotonic())
            except Exception:  # the decision is made without the answers
                log.exception("asking for OCSP answers failed")
            await self._turn(size)
            if self._has_more():
                self._waiting = None
                self._fail(BYTES_BEHIND)
                return
            wanted: list[OcspQuestion] = []
            answered = service.decide(head.request, wanted)
            questions = [question for question in wanted if question.key not in asked]
        self._waiting = None
        self._rest()
        self._answer(answered, head, start)

    async def _turn(self, size: int) -> None:
        """Wait for a turn of the event loop that has room for so many bytes."""
        turns = self.service.turns
        if turns is not None and not turns.admits(size):
            begun = asyncio.Event()
            turns.wait(self, size, begun.set)
            await begun.wait()

    # -- deadlines and draining

    def check(self, now: float) -> None:
        """Close if a request arrives too slowly, or if the connection was idle for too long."""
        if self._lively:
            self._lively, self._since = False, now
        limits = self.service.limits
        limit = limits.idle_timeout if self._state is _IDLE else limits.header_timeout
        if self._state not in _PENDING and now - self._since > limit:
            self.abort()

    def abort(self) -> None:
        """Close at once, without an answer."""
        self._leave(State.CLOSED)
        if self._transport is not None:
            self._transport.abort()

    def give_way(self) -> bool:
        """Close if no complete request is here; return whether that is so."""
        if self._state in _PENDING or self._late:
            return False
        self.abort()
        return True

    def close_when_idle(self) -> None:
        """Close now if idle, else after the current answer."""
        if self._state is not _IDLE or self._late:
            self._leaving = True
        elif self._transport is not None:
            self._leave(State.CLOSED)
            self._transport.close()
