"""Ask questions for OCSP responses: a few of each responder at a time, with pauses after failures.

After a failure the same question (or, if the fetcher or the responder is unreachable, any question
to that responder) isn't asked for `PAUSE` seconds, so that not every request waits for the
deadline.

Each responder, known by its address, has up to `MAX_ASKING` places for questions, out of
`MAX_SHARED`; `OWN_PLACES` it has whatever others hold, so that those that hang don't stop it.
Further questions wait until another one has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path

from sidecar.core.revocation.ocsp.response import OcspKey
from sidecar.runtime import fetch_protocol
from sidecar.runtime.loop_thread import LoopThread

log = logging.getLogger(__name__)

PAUSE = 2.0
"""Seconds between two attempts after a failure."""

ASK_SECONDS = 10.0
"""Maximum seconds of a question, a little more than the fetcher's own limit."""

MAX_ASKING = 16
"""Maximum number of questions to one responder at the same time; further ones wait."""

OWN_PLACES = 4
"""Number of questions that each responder is asked whatever others hold."""

MAX_SHARED = 64
"""Maximum number of questions at the same time, but for the `OWN_PLACES` of each responder.  The
fetcher has room for 128."""

BUSY_PAUSE = 0.1
"""Seconds until a question is repeated that the fetcher had no room for."""

UNREACHABLE = frozenset({"unreachable", "fetcher"})
"""Kinds of failure that apply to every question to the responder."""

FAILURE_KINDS = UNREACHABLE | {"refused", "busy", "no_answer", "unverified", "older"}

LOG_EVERY = 10.0
"""Seconds between two log lines about the same kind of failure of one trust."""


class NoAnswer(Exception):
    """The fetcher gave no response; `kind` is its error kind, or `fetcher` if it is unreachable."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind if kind in FAILURE_KINDS else "no_answer"


class OcspClient:
    """Ask the fetcher, with one connection for each question.

    In a thread of its own: what the fetcher sends may make it stand still, and nothing else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = LoopThread("fetcher")

    async def ask(
        self,
        trust: str,
        cert_der: bytes,
        issuer_der: bytes,
        deadline: float,
        nonce: bytes | None = None,
    ) -> bytes | None:
        """Return the response's DER, which is not verified here, or None.

        `deadline` is the number of seconds to wait.
        """
        try:
            return await self.query(trust, cert_der, issuer_der, deadline, nonce)
        except NoAnswer:
            return None

    async def query(
        self, trust: str, cert_der: bytes, issuer_der: bytes, deadline: float, nonce: bytes | None
    ) -> bytes:
        """Do as `ask`, but raise `NoAnswer` with the reason instead of returning None."""
        question = {
            "trust": trust,
            "cert": fetch_protocol.pack(cert_der),
            "issuer": fetch_protocol.pack(issuer_der),
            "nonce": fetch_protocol.pack(nonce or b""),
        }
        try:
            async with asyncio.timeout(deadline):
                encoded = fetch_protocol.encode(question)
                answer = await self._thread.run(lambda: self._exchange(encoded))
            if "response" in answer:
                return fetch_protocol.unpack(answer, "response")
        except TimeoutError:
            raise NoAnswer("fetcher", "no answer within the deadline") from None
        except (OSError, fetch_protocol.MessageError) as error:
            raise NoAnswer("fetcher", str(error) or type(error).__name__) from None
        raise NoAnswer(answer.get("kind", "fetcher"), answer.get("error", "no response"))

    async def _exchange(self, question: bytes) -> Mapping[str, str]:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        try:
            writer.write(question)
            await writer.drain()
            answer = await fetch_protocol.read(reader)
        finally:
            writer.close()
        if answer is None:
            raise fetch_protocol.MessageError("the fetcher closed the connection")
        return answer


@dataclass(frozen=True, slots=True)
class Query:
    """A question: DER of a certificate and of its issuer; `tolerance` of clocks in seconds."""

    trust: str
    cert: bytes
    issuer: bytes
    tolerance: float


class Places:
    """The places for questions, and who waits for one, in turn."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def one_of(self, responder: str) -> AsyncIterator[None]:
        """Hold one of a responder's places.  Raises `NoAnswer` if none is left for too long."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(responder, deque()).append(turn)
        self._serve(responder)
        try:
            await self._wait(turn)
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._held[responder] -= 1
                for each in (responder, *self._waiting):
                    self._serve(each)

    @staticmethod
    async def _wait(turn: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await turn
        except TimeoutError:
            raise NoAnswer("busy", "too many questions wait for an answer") from None

    def _serve(self, responder: str) -> None:
        """Give the free places of a responder to those who wait for them."""
        waiting = self._waiting.get(responder, deque())
        while waiting and (waiting[0].done() or self._has_room(responder)):
            turn = waiting.popleft()
            if not turn.done():
                self._held[responder] += 1
                turn.set_result(None)
        if not waiting:
            self._waiting.pop(responder, None)

    def _has_room(self, responder: str) -> bool:
        held = self._held[responder]
        shared = self._held.total() < MAX_SHARED and held < MAX_ASKING
        return held < OWN_PLACES or shared


class OcspQueue:
    """The questions under way, by key, and the pauses; `size` is the maximum number of pauses.

    `failures` counts questions without an answer by kind.
    """

    def __init__(
        self, client: OcspClient, clock: Callable[[], float], pause: float, size: int
    ) -> None:
        self._client = client
        self._clock = clock
        self._pause = pause
        self._size = size
        self._asking: dict[OcspKey, asyncio.Task[None]] = {}
        self._places = Places()
        self._pauses: OrderedDict[OcspKey | str, float] = OrderedDict()
        self._logged: dict[tuple[str, str], float] = {}
        self.failures: dict[str, int] = {}

    def task_of(self, key: OcspKey) -> asyncio.Task[None] | None:
        """Return the question that is under way, if one is."""
        return self._asking.get(key)

    def start(self, key: OcspKey, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Begin to ask `key`'s question; `work` calls `ask`."""
        task = asyncio.get_running_loop().create_task(work)
        self._asking[key] = task
        task.add_done_callback(lambda _: self._asking.pop(key, None))
        return task

    def by_responder(self) -> Counter[str]:
        """Count the questions under way, also those that wait for a place."""
        return Counter(key.responder for key in self._asking)

    def cancel(self) -> None:
        """Give up all questions."""
        for task in list(self._asking.values()):
            task.cancel()

    async def ask(self, key: OcspKey, query: Query, nonce: bytes) -> bytes | None:
        """Ask the fetcher in one of the responder's places; None if it has failed meanwhile.

        Raises `NoAnswer`.
        """
        async with self._places.one_of(key.responder):
            if self.is_paused(key):
                return None
            return await self._query(query, nonce)

    async def _query(self, query: Query, nonce: bytes) -> bytes:
        """Ask the fetcher, again and again while it has no room.  Raises `NoAnswer`."""
        end = time.monotonic() + ASK_SECONDS
        while True:
            try:
                return await self._client.query(
                    query.trust, query.cert, query.issuer, ASK_SECONDS, nonce
                )
            except NoAnswer as failure:
                if failure.kind != "busy" or time.monotonic() >= end:
                    raise
            await asyncio.sleep(BUSY_PAUSE)

    def failed(self, key: OcspKey, trust: str, failure: NoAnswer) -> None:
        """Note a failure, and begin a pause.  Logs it now and then."""
        self.failures[failure.kind] = self.failures.get(failure.kind, 0) + 1
        self._log(trust, failure)
        self._begin_pause(key.responder if failure.kind in UNREACHABLE else key)

    def _begin_pause(self, about: OcspKey | str) -> None:
        """Ask no such question for a while; none of a responder, by its address."""
        self._pauses[about] = self._clock() + self._pause
        self._pauses.move_to_end(about)
        while len(self._pauses) > self._size:
            self._pauses.popitem(last=False)

    def _log(self, trust: str, failure: NoAnswer) -> None:
        now = time.monotonic()
        if now - self._logged.get((trust, failure.kind), -LOG_EVERY) >= LOG_EVERY:
            self._logged[trust, failure.kind] = now
            log.warning("trust %s: no OCSP answer (%s): %s", trust, failure.kind, failure)

    def is_paused(self, key: OcspKey) -> bool:
        """Return whether an attempt failed recently; a clock that goes back ends every pause."""
        now = self._clock()
        ends = (self._pauses.get(about, 0.0) for about in (key, key.responder))
        return any(0.0 < end - now <= self._pause for end in ends)

    def answered(self, responder: str) -> None:
        """End the pause of a responder."""
        self._pauses.pop(responder, None)

    def forget_pauses(self) -> None:
        """Drop the pauses that are over."""
        now = self._clock()
        lasting = ((k, end) for k, end in self._pauses.items() if 0.0 < end - now <= self._pause)
        self._pauses = OrderedDict(lasting)
