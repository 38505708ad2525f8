"""Verify OCSP responses, and cache the answers.

The daemon makes no outbound connections: `ocsp_queue` asks the fetcher over its unix socket.
`OcspAnswers` verifies each response again, caches it until it expires, and refreshes answers in use
before that, so that no request waits twice.

A failure is never cached as an answer: the store holds only good and revoked answers, and each is
used until it expires.  In the pause after a failure there is no answer, which means UNKNOWN.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from sidecar.core.evaluate import OcspQuestion
from sidecar.core.revocation.ocsp.responder import without_strangers
from sidecar.core.revocation.ocsp.response import OcspAnswer, OcspKey, ocsp_key, verify_response
from sidecar.core.revocation.status import RevocationStatus
from sidecar.core.x509.certificate import from_der

from .ocsp_queue import MAX_ASKING, PAUSE, NoAnswer, OcspClient, OcspQueue, Query

MAX_ANSWERS = 4096
"""Maximum number of cached answers, and of pauses; see `_make_room`."""

MAX_BYTES = 32 * 2**20
"""Approximate maximum bytes of all answers together with their certificates."""

REFRESH_FROM = 0.75
"""Part of an answer's lifetime after which it is refreshed; jitter adds up to a tenth."""


SPARED = 0.75
"""Part of the least recently used answers that aren't evicted all the same.

If all are in use in turn, by a few clients more than there is room for, the least recently used is
the one that is wanted next: each would be evicted just before its client comes.
"""


Share = tuple[str, str]
"""A responder, and an issuer whose certificates it tells of."""


@dataclass(slots=True)
class _HeldAnswer:
    """One cached answer, its DER as verified at `at`, and the question, to ask it again."""

    answer: OcspAnswer
    query: Query
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
    one replaces it; if space is needed, a responder's good answers are evicted first.

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
        self._clock = clock
        self._size = size
        self._changed = changed
        self._entries: OrderedDict[OcspKey, _HeldAnswer] = OrderedDict()
        self._revoked: dict[str, list[OcspKey]] = {}
        self._ended: OrderedDict[OcspKey, float] = OrderedDict()
        self._bytes, self._numbers = Counter[Share](), Counter[Share]()
        self.version = self.turns = 0
        self._queue = OcspQueue(client, clock, pause, size)
        self.failures = self._queue.failures

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

    def _tells_no_more(self, key: OcspKey, answer: OcspAnswer) -> bool:
        """Return whether its responder has said so here; a later *revoked* overrules more."""
        held = self._own(key)
        if held is None or held.answer.status is not answer.status:
            return False
        is_good = answer.status is RevocationStatus.GOOD
        return is_good or answer.this_update <= held.answer.this_update

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
        if question.not_by and not self._queue.is_paused(key):
            self._drop_good(key, question.not_by)
        if self.fresh(key):
            return True
        task = self._queue.task_of(key)
        if task is None:
            if self._queue.is_paused(key):
                return False
            query = Query(question.trust, question.cert.der, question.issuer.der, tolerance)
            task = self._queue.start(key, self._ask(key, query, question.not_by))
        await asyncio.wait({task}, timeout=deadline)
        return self.fresh(key)

    def _drop_good(self, key: OcspKey, signer: str) -> None:
        """Drop a good answer that this responder signed."""
        entry = self._entries.get(key)
        is_good = entry is not None and entry.answer.status is RevocationStatus.GOOD
        if entry is not None and is_good and _delegate_of(entry.answer) == signer:
            self._drop(key)

    async def _ask(self, key: OcspKey, query: Query, not_by: str) -> None:
        """Ask once; cache the answer, or begin a pause after a failure.  Never raises.

        A good answer that is signed by `not_by` is a failure.
        """
        nonce = os.urandom(32)
        try:
            der = await self._queue.ask(key, query, nonce)
            if der is None:  # the responder has failed meanwhile
                return
            now = self._clock()
            answer = self._verify(der, query, nonce, now)
            is_good = answer.status is RevocationStatus.GOOD
            if is_good and not_by and _delegate_of(answer) == not_by:
                raise NoAnswer("unverified", "the responder's certificate is revoked")
            self._keep(key, self._held(answer, query, der, now))
            if not answer.holds(now):
                raise NoAnswer("unverified", answer.detail)
        except NoAnswer as failure:
            self._queue.failed(key, query.trust, failure)
        else:
            self._queue.answered(key.responder)

    def _verify(self, der: bytes, query: Query, nonce: bytes | None, now: float) -> OcspAnswer:
        """Verify a response: the fetcher is trusted to deliver it, but not to have verified it."""
        try:
            cert, issuer = from_der(query.cert), from_der(query.issuer)
        except ValueError as error:
            raise NoAnswer("refused", str(error)) from None
        answer = verify_response(der, cert, issuer, now, query.tolerance, nonce)
        if answer.status is RevocationStatus.UNKNOWN:
            raise NoAnswer("unverified", answer.detail)
        return answer

    def _held(self, answer: OcspAnswer, query: Query, der: bytes, at: float) -> _HeldAnswer:
        """Build the entry of a verified response, without what nobody has signed.

        The fetcher could put so much there that others' answers would have to go.
        """
        signed = without_strangers(der, answer.delegate)
        return _HeldAnswer(answer, query, signed, at, self._refresh_at(answer))

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
        self._bytes[_share(key)] += entry.weight
        self._numbers[_share(key)] += 1
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
        """Evict answers of the responder that has most, there of the issuer that has most: of those
        used least recently, by chance.

        Revoked ones are the last.  So one whose CA makes long answers, or many certificates, takes
        nothing of others.
        """
        while (most := self._over()) is not None:
            by_responder = Counter[str]()
            for (responder, _), much in most.items():
                by_responder[responder] += much
            largest = max(by_responder, key=by_responder.__getitem__)
            share = max((each for each in most if each[0] == largest), key=most.__getitem__)
            good = (
                key
                for key, held in self._entries.items()
                if _share(key) == share and held.answer.status is RevocationStatus.GOOD
            )
            first = list(islice(good, _spared() + 2))
            if not first:
                self._drop(next(key for key in self._entries if _share(key) == share))
                continue
            *spared, evicted = first[:-1] or first
            for key in spared:
                self._entries.move_to_end(key)
            self._drop(evicted)

    def _over(self) -> Counter[Share] | None:
        """Return what is too much, bytes or answers, by their shares; None if there is room."""
        if self._bytes.total() > MAX_BYTES:
            return self._bytes
        return self._numbers if self._numbers.total() > self._size else None

    def _note_end(self, key: OcspKey, this_update: float) -> None:
        """Note when an answer was good: what revoked before, and is refused now, is a replay."""
        self._ended[key] = this_update
        self._ended.move_to_end(key)
        while len(self._ended) > self._size:
            self._ended.popitem(last=False)

    def _drop(self, key: OcspKey) -> None:
        share = _share(key)
        self._bytes[share] -= self._entries.pop(key).weight
        self._numbers[share] -= 1
        if not self._numbers[share]:
            del self._numbers[share], self._bytes[share]
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

        With `only_other`, one that says no more than what is held is left out; with `only_revoked`,
        one that says good.

        It is checked at the moment of its first verification, because a revoked answer is used even
        after it expires.  The reader must check whether it holds now.
        """
        query = Query(record.trust, record.cert, record.issuer, tolerance)
        try:
            cert, issuer = from_der(record.cert), from_der(record.issuer)
            key = ocsp_key(cert, issuer, tolerance, record.responder)
            answer = self._verify(record.response, query, None, record.at)
            is_good = answer.status is RevocationStatus.GOOD
            if is_good and (only_revoked or self._clock() >= answer.until):
                return False
            if only_other and self._tells_no_more(key, answer):
                return False
            self._keep(key, self._held(answer, query, record.response, record.at))
        except (NoAnswer, ValueError):
            return False
        return True

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
            self._queue.cancel()

    def refresh_due(self) -> None:
        """Start due refreshes, discard expired answers, and stop refreshing unused ones."""
        now = self._clock()
        asked = self._queue.by_responder()
        for key, entry in list(self._entries.items()):
            ended = now >= entry.answer.until
            if ended and entry.answer.status is not RevocationStatus.REVOKED:
                self._drop(key)
                self._note_end(key, entry.answer.this_update)
            elif now >= entry.refresh_at and entry.used and self._queue.task_of(key) is None:
                responder = key.responder
                if asked[responder] < MAX_ASKING // 2 and not self._queue.is_paused(key):
                    self._queue.start(key, self._ask(key, entry.query, ""))
                    asked[responder] += 1
        self._queue.forget_pauses()


def _spared() -> int:
    """Return how many answers in a row are spared, by chance."""
    count = 0
    while random.random() < SPARED:
        count += 1
    return count


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


def _share(key: OcspKey) -> Share:
    return key.responder, key.issuer_sha256
