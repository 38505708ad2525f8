"""Ask the fetcher for OCSP responses, verify them, and cache the answers.

The daemon makes no outbound connections.  `OcspClient` asks the fetcher over its unix socket.
`OcspAnswers` verifies each response again, caches it until it expires, and refreshes answers in use
before that, so that no request waits twice.

A failure is never cached as an answer: the store holds only good and revoked answers, and each is
used until it expires.  After a failure the same question (or, if the fetcher or the responder is
unreachable, any question to that responder) isn't asked for `PAUSE` seconds, so that not every
request waits for the deadline.  In that time there is no answer, which means UNKNOWN.

Each responder, known by its address, has places of its own for questions: beyond `MAX_ASKING` a
question waits until another one has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from sidecar.core.evaluate import OcspQuestion
from sidecar.core.revocation.ocsp.response import OcspAnswer, OcspKey, ocsp_key, verify_response
from sidecar.core.revocation.status import RevocationStatus
from sidecar.core.x509.certificate import from_der
from sidecar.runtime import fetch_protocol

log = logging.getLogger(__name__)

PAUSE = 2.0
"""Seconds between two attempts after a failure."""

ASK_SECONDS = 10.0
"""Maximum seconds of a question, a little more than the fetcher's own limit."""

MAX_ASKING = 16
"""Maximum number of questions to one responder at the same time; further ones wait."""

BUSY_PAUSE = 0.1
"""Seconds until a question is repeated that the fetcher had no room for."""

MAX_ANSWERS = 4096
"""Maximum number of cached answers, and of pauses; the least recently used is evicted first."""

MAX_BYTES = 32 * 2**20
"""Approximate maximum bytes of all answers together with their certificates."""

REFRESH_FROM = 0.75
"""Part of an answer's lifetime after which it is refreshed; jitter adds up to a tenth."""

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
    """Ask the fetcher, with one connection for each question."""

    def __init__(self, path: Path) -> None:
        self.path = path

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
                answer = await self._exchange(fetch_protocol.encode(question))
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
class _Query:
    """A question: DER of a certificate and of its issuer; `tolerance` of clocks in seconds."""

    trust: str
    cert: bytes
    issuer: bytes
    tolerance: float


@dataclass(slots=True)
class _HeldAnswer:
    """One cached answer, its DER as verified at `at`, and the question, to ask it again."""

    answer: OcspAnswer
    query: _Query
    der: bytes
    at: float
    refresh_at: float
    used: bool = True

    @property
    def weight(self) -> int:
        """The approximate size in bytes, including the parsed response."""
        return len(self.query.cert) + len(self.query.issuer) + 3 * len(self.der) + 1000


class StoredResponse(NamedTuple):
    """A verified response in the form kept across a restart: DER, and the time of verification.

    `responder` is the address of who was asked.
    """

    trust: str
    cert: bytes
    issuer: bytes
    response: bytes
    at: float
    responder: str = ""


class OcspAnswers(Mapping[OcspKey, OcspAnswer]):
    """The verified answers by `ocsp_key`, limited in number and bytes.  Reading never waits.

    An answer read here may have expired, or be from the future after a clock went back: the reader
    must check `holds` with its own `now`.  A revoked answer is kept after it expires, until a later
    one replaces it; if space is needed, good answers are evicted first.

    A revoked answer also serves other keys of its certificate: another clock tolerance, another
    certificate of its issuer's key, or another responder.  That one is asked nevertheless: there it
    never holds.  A good answer serves, and lifts, what its own responder has said and no other one.

    `changed` is called when a certificate's status changes, or when a good answer ends earlier than
    before: a cache of decisions must then be cleared.  `version` counts all changes of the store,
    `turns` the calls of `changed`.
    """

    def __init__(
        self,
        client: OcspClient,
        *,
        clock: Callable[[], float] = time.time,
        pause: float = PAUSE,
        size: int = MAX_ANSWERS,
        changed: Callable[[OcspKey], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._pause = pause
        self._size = size
        self._changed = changed
        self._entries: OrderedDict[OcspKey, _HeldAnswer] = OrderedDict()
        self._revoked: dict[str, list[OcspKey]] = {}
        self._ended: OrderedDict[OcspKey, float] = OrderedDict()
        self._bytes = 0
        self.version = self.turns = 0
        self._asking: dict[OcspKey, asyncio.Task[None]] = {}
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(MAX_ASKING)
        )
        self._pauses: OrderedDict[OcspKey | str, float] = OrderedDict()
        self._logged: dict[tuple[str, str], float] = {}
        self.failures: dict[str, int] = {}

    def __getitem__(self, key: OcspKey) -> OcspAnswer:
        place = self._key_of(key)
        entry = self._entries[place]
        entry.used = True
        self._entries.move_to_end(place)
        if place.responder != key.responder:
            return replace(entry.answer, since=math.inf)
        return entry.answer

    def _key_of(self, key: OcspKey) -> OcspKey:
        """Return the key itself if it has an answer, else that of a revoked answer, if any.

        One of the same responder comes first.
        """
        others = self._revoked.get(key.signed_sha256)
        if key in self._entries or not others:
            return key
        return next((each for each in others if each.responder == key.responder), others[-1])

    def _own(self, key: OcspKey) -> _HeldAnswer | None:
        """Return what its responder has said, if anything."""
        place = self._key_of(key)
        return self._entries.get(place) if place.responder == key.responder else None

    def __iter__(self) -> Iterator[OcspKey]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, key: OcspKey) -> bool:
        """Return whether there is a currently usable answer for `key`."""
        entry = self._own(key)
        return entry is not None and entry.answer.holds(self._clock())

    async def ensure(self, question: OcspQuestion, tolerance: float, deadline: float) -> bool:
        """Wait up to `deadline` seconds for an answer; return whether there is one now.

        `tolerance` is the clock tolerance in seconds.  Concurrent calls for one certificate and
        responder share one question, which continues after a caller's deadline.
        """
        key = question.key
        if question.not_by and not self._paused(key):
            self._drop_good(key, question.not_by)
        if self.fresh(key):
            return True
        task = self._asking.get(key)
        if task is None:
            if self._paused(key):
                return False
            query = _Query(question.trust, question.cert.der, question.issuer.der, tolerance)
            task = self._start(key, query, question.not_by)
        await asyncio.wait({task}, timeout=deadline)
        return self.fresh(key)

    def _drop_good(self, key: OcspKey, signer: str) -> None:
        """Drop a good answer that this responder signed."""
        entry = self._entries.get(key)
        is_good = entry is not None and entry.answer.status is RevocationStatus.GOOD
        if entry is not None and is_good and _delegate_of(entry.answer) == signer:
            self._drop(key)

    def _start(self, key: OcspKey, query: _Query, not_by: str = "") -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._ask(key, query, not_by))
        self._asking[key] = task
        task.add_done_callback(lambda _: self._asking.pop(key, None))
        return task

    async def _ask(self, key: OcspKey, query: _Query, not_by: str) -> None:
        """Ask once; cache the answer, or begin a pause after a failure.  Never raises.

        A good answer that is signed by `not_by` is a failure.
        """
        nonce = os.urandom(32)
        try:
            async with self._in_place_of(key.responder):
                if self._paused(key):  # the responder has failed meanwhile
                    return
                der = await self._query(query, nonce)
            now = self._clock()
            answer = self._verify(der, query, nonce, now)
            is_good = answer.status is RevocationStatus.GOOD
            if is_good and not_by and _delegate_of(answer) == not_by:
                raise NoAnswer("unverified", "the responder's certificate is revoked")
            self._keep(key, _HeldAnswer(answer, query, der, now, self._refresh_at(answer)))
            if not answer.holds(now):
                raise NoAnswer("unverified", answer.detail)
        except NoAnswer as failure:
            self._failed(key, query.trust, failure)
        else:
            self._pauses.pop(key.responder, None)

    @contextlib.asynccontextmanager
    async def _in_place_of(self, responder: str) -> AsyncIterator[None]:
        """Wait for one of its places.  Raises `NoAnswer` if none is left for too long."""
        places = self._places[responder]
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await places.acquire()
        except TimeoutError:
            raise NoAnswer("busy", "too many questions wait for an answer") from None
        try:
            yield
        finally:
            places.release()

    async def _query(self, query: _Query, nonce: bytes) -> bytes:
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

    def _verify(self, der: bytes, query: _Query, nonce: bytes | None, now: float) -> OcspAnswer:
        """Verify a response: the fetcher is trusted to deliver it, but not to have verified it."""
        try:
            cert, issuer = from_der(query.cert), from_der(query.issuer)
        except ValueError as error:
            raise NoAnswer("refused", str(error)) from None
        answer = verify_response(der, cert, issuer, now, query.tolerance, nonce)
        if answer.status is RevocationStatus.UNKNOWN:
            raise NoAnswer("unverified", answer.detail)
        return answer

    def _keep(self, key: OcspKey, entry: _HeldAnswer) -> None:
        """Cache an answer.  Raises `NoAnswer` if a later one is cached already (a replay)."""
        new, ended = entry.answer, self._ended.get(key, 0.0)
        if new.this_update < ended <= entry.at and not new.holds(entry.at):
            raise NoAnswer("older", "older than a good answer that has ended")
        place = self._key_of(key)
        held = self._entries.get(place)
        for earlier in self._before(key, entry.answer):
            self._follow(earlier.answer, entry)
        if held is not None:
            entry.used = False
            if place.responder == key.responder:
                self._drop(place)
        self._entries[key] = entry
        self._bytes += entry.weight
        overruled = False
        if entry.answer.status is RevocationStatus.REVOKED:
            overruled = self._overrule(key, entry.answer)
            self._revoked.setdefault(key.signed_sha256, []).append(key)
        self.version += 1
        self._make_room()
        if overruled or (held is not None and _turns(held.answer, entry.answer)):
            self.turns += 1
            self._changed(key)
        elif entry.answer.status is RevocationStatus.REVOKED:
            self.turns += 1

    def _before(self, key: OcspKey, new: OcspAnswer) -> list[_HeldAnswer]:
        """Return the answers that a new one must not be older than.

        These are its own responder's and, if it says good, all that say revoked.
        """
        own = self._own(key)
        found = [] if own is None else [own]
        if new.status is RevocationStatus.GOOD:
            revoked = (self._entries[each] for each in self._revoked.get(key.signed_sha256, ()))
            found += (entry for entry in revoked if entry is not own)
        return found

    def _follow(self, held: OcspAnswer, entry: _HeldAnswer) -> None:
        """Replace a cached answer by a new one.  Raises `NoAnswer` if the new one is older.

        Responders may round `thisUpdate`: of two equally old answers, revoked is the later.
        """
        new = entry.answer
        revoked = held.status is RevocationStatus.REVOKED
        revives = revoked and new.status is RevocationStatus.GOOD
        if held.this_update > new.this_update or (revives and held.this_update == new.this_update):
            # A good answer from the future (a clock went back) must not block a current one.
            if revoked or entry.at >= held.since:
                raise NoAnswer("older", "older than the answer held")
        elif (
            held.status is new.status is RevocationStatus.GOOD
            and held.until >= new.since > held.since
        ):
            entry.answer = replace(new, since=held.since)  # good without interruption

    def _overrule(self, key: OcspKey, revoked: OcspAnswer) -> bool:
        """Drop answers about a revoked certificate under other keys, if they aren't later.

        They come from trusts with another clock tolerance or responder, or another certificate of
        the issuer.  What another responder has revoked stays.
        """
        others = [
            other
            for other, entry in self._entries.items()
            if other.signed_sha256 == key.signed_sha256
            and other != key
            and entry.answer.this_update <= revoked.this_update
            and (other.responder == key.responder or entry.answer.status is RevocationStatus.GOOD)
        ]
        for other in others:
            self._drop(other)
        return bool(others)

    def _make_room(self) -> None:
        """Evict the least recently used answers, revoked ones last."""
        while self._entries and (len(self._entries) > self._size or self._bytes > MAX_BYTES):
            good = (k for k, e in self._entries.items() if e.answer.status is RevocationStatus.GOOD)
            self._drop(next(good, next(iter(self._entries))))

    def _note_end(self, key: OcspKey, this_update: float) -> None:
        """Note when an answer was good: what revoked before, and is refused now, is a replay."""
        self._ended[key] = this_update
        self._ended.move_to_end(key)
        while len(self._ended) > self._size:
            self._ended.popitem(last=False)

    def _drop(self, key: OcspKey) -> None:
        self._bytes -= self._entries.pop(key).weight
        others = self._revoked.get(key.signed_sha256, [])
        if key in others:
            others.remove(key)
            if not others:
                del self._revoked[key.signed_sha256]
        self.version += 1

    # -- across a restart

    def records(self) -> list[StoredResponse]:
        """Return all cached responses for storage, the least recently used first."""
        found = ((key.responder, entry.query, entry) for key, entry in self._entries.items())
        return [StoredResponse(q.trust, q.cert, q.issuer, e.der, e.at, who) for who, q, e in found]

    def restore(
        self,
        record: StoredResponse,
        tolerance: int,
        *,
        only_other: bool = False,
        only_revoked: bool = False,
    ) -> bool:
        """Cache a stored response if it passes all checks again; return whether it did.

        With `only_other`, one that says what is held already is left out; with `only_revoked`, one
        that says good.

        It is checked at the moment of its first verification, because a revoked answer is used even
        after it expires.  The reader must check whether it holds now.
        """
        query = _Query(record.trust, record.cert, record.issuer, tolerance)
        try:
            cert, issuer = from_der(record.cert), from_der(record.issuer)
            key = ocsp_key(cert, issuer, tolerance, record.responder)
            answer = self._verify(record.response, query, None, record.at)
            is_good = answer.status is RevocationStatus.GOOD
            if is_good and (only_revoked or self._clock() >= answer.until):
                return False
            held = self._own(key)
            if only_other and held is not None and held.answer.status is answer.status:
                return False
            due = self._refresh_at(answer)
            self._keep(key, _HeldAnswer(answer, query, record.response, record.at, due))
        except (NoAnswer, ValueError):
            return False
        return True

    def _failed(self, key: OcspKey, trust: str, failure: NoAnswer) -> None:
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

    def _paused(self, key: OcspKey) -> bool:
        """Return whether an attempt failed recently; a clock that goes back ends every pause."""
        now = self._clock()
        ends = (self._pauses.get(about, 0.0) for about in (key, key.responder))
        return any(0.0 < end - now <= self._pause for end in ends)

    def _refresh_at(self, answer: OcspAnswer) -> float:
        """Return the time of the refresh: after 3/4 of the time to `nextUpdate`, with jitter."""
        now = self._clock()
        part = REFRESH_FROM + random.uniform(0.0, 0.1)
        return now + max(0.0, answer.next_update - now) * part

    # -- ahead of time -------------------------------------------------------------------------

    async def keep_fresh(self, every: float = 1.0) -> None:
        """Refresh answers that are in use and near their end, until cancelled."""
        try:
            while True:
                await asyncio.sleep(every)
                self.refresh_due()
        finally:
            for task in list(self._asking.values()):
                task.cancel()

    def refresh_due(self) -> None:
        """Start due refreshes, discard expired answers, and stop refreshing unused ones."""
        now = self._clock()
        asked = Counter(key.responder for key in self._asking)
        for key, entry in list(self._entries.items()):
            ended = now >= entry.answer.until
            if ended and entry.answer.status is not RevocationStatus.REVOKED:
                self._drop(key)
                self._note_end(key, entry.answer.this_update)
            elif now >= entry.refresh_at and entry.used and key not in self._asking:
                responder = key.responder
                if asked[responder] < MAX_ASKING // 2 and not self._paused(key):
                    self._start(key, entry.query)
                    asked[responder] += 1
        lasting = ((k, end) for k, end in self._pauses.items() if 0.0 < end - now <= self._pause)
        self._pauses = OrderedDict(lasting)


def _delegate_of(answer: OcspAnswer) -> str:
    """Return the fingerprint of the delegated responder, empty if there is none."""
    return answer.delegate.sha256 if answer.delegate is not None else ""


def _turns(held: OcspAnswer, new: OcspAnswer) -> bool:
    """Return whether a decision by the cached answer could differ with the new one."""
    if held.status is not new.status or _delegate_of(held) != _delegate_of(new):
        return True
    # A revoked answer stays revoked; only the time for which decisions may be cached changes.
    return new.until < held.until or (
        new.since > held.since and new.status is RevocationStatus.GOOD
    )
