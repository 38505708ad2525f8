"""Cache verified OCSP answers; tests/process/test_ocsp_answers.py has real fetchers."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import ocsp_pki
import pytest

from sidecar.authorizer import ocsp_answers
from sidecar.authorizer.ocsp_answers import OcspAnswers, StoredResponse
from sidecar.authorizer.ocsp_queue import MAX_ASKING, NoAnswer, OcspClient
from sidecar.core.evaluate import OcspQuestion
from sidecar.core.revocation.ocsp.response import OcspKey, ocsp_key
from sidecar.core.revocation.status import RevocationStatus
from sidecar.core.x509.certificate import from_der

AUTHORITY, ALICE, BOB = ocsp_pki.authority(), ocsp_pki.leaf("alice"), ocsp_pki.leaf("bob")
REVOKED = b"\xa1\x11\x18\x0f20260101000000Z"


def question(pair: ocsp_pki.Pair = ALICE) -> OcspQuestion:
    cert, issuer = from_der(pair.der), from_der(AUTHORITY.der)
    return OcspQuestion(ocsp_key(cert, issuer, 300), "staff", cert, issuer)


def of_trust(trust: str, pair: ocsp_pki.Pair = ALICE) -> OcspQuestion:
    """The same question for a trust that has a responder of its own."""
    asked = question(pair)
    return replace(asked, trust=trust, key=asked.key._replace(responder=f"http://{trust}/"))


def response(
    pair: ocsp_pki.Pair = ALICE, status: bytes = b"\x80\x00", start: float = -60, end: float = 3600
) -> bytes:
    one = ocsp_pki.single(pair.cert, AUTHORITY.cert, status=status, start=start, end=end)
    return ocsp_pki.craft(AUTHORITY, [one])


@dataclass
class Fetcher(OcspClient):
    """Answers with what it is given, in turn."""

    answers: list[bytes | NoAnswer]
    asked: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def query(
        self, trust: str, cert_der: bytes, issuer_der: bytes, deadline: float, nonce: bytes | None
    ) -> bytes:
        self.asked += 1
        await self.gate.wait()
        found = self.answers.pop(0)
        if isinstance(found, NoAnswer):
            raise found
        return found


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def store(*answers: bytes | NoAnswer) -> tuple[OcspAnswers, Fetcher, Clock, list[OcspKey]]:
    fetcher, clock, changed = Fetcher(list(answers)), Clock(), list[OcspKey]()
    fetcher.gate.set()
    return OcspAnswers(fetcher, clock=clock, changed=changed.append), fetcher, clock, changed


async def test_concurrent_requests_share_one_question() -> None:
    """All get the answer, and the next request finds it cached."""
    answers, fetcher, _, _ = store(response())
    fetcher.gate.clear()
    asking = [asyncio.create_task(answers.ensure(question(), 300, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    fetcher.gate.set()
    assert await asyncio.gather(*asking) == [True] * 3
    assert await answers.ensure(question(), 300, 60)
    assert fetcher.asked == 1
    assert answers[question().key].status is RevocationStatus.GOOD


async def test_no_question_is_left_out_because_others_are_asked() -> None:
    """Many clients at once, after a start: each is asked about in its turn, while its request
    waits.  What another trust's responder holds up takes none of the turns."""
    people = [ocsp_pki.issue(f"client {number}", AUTHORITY) for number in range(40)]
    by_der = {each.der: each for each in people}
    at_once, most, gate = 0, 0, asyncio.Event()

    class Responder(OcspClient):
        async def query(
            self, trust: str, cert: bytes, issuer: bytes, deadline: float, nonce: bytes | None
        ) -> bytes:
            nonlocal at_once, most
            at_once += trust == "staff"
            most = max(most, at_once)
            await (asyncio.sleep(0.01) if trust == "staff" else gate.wait())
            at_once -= trust == "staff"
            return response(by_der[cert])

    answers = OcspAnswers(Responder(Path("none")))

    async def ask(pairs: list[ocsp_pki.Pair], trust: str) -> list[bool]:
        asked = (of_trust(trust, pair) for pair in pairs)
        return await asyncio.gather(*(answers.ensure(each, 300, 20) for each in asked))

    hanging = asyncio.create_task(ask(people[20:], "partners"))
    await asyncio.sleep(0)
    assert await ask(people[:20], "staff") == [True] * 20
    assert most == MAX_ASKING
    assert not hanging.done()
    gate.set()
    assert await hanging == [True] * 20


async def test_another_trusts_responder_is_not_this_ones() -> None:
    """Two trusts of one CA have a responder each.  What one of them doesn't answer, the other is
    asked, also at the same time and within the pause of the first."""
    answers, fetcher, _, _ = store(NoAnswer("no_answer", "x"), response(status=REVOKED))
    fetcher.gate.clear()
    asked = question(), of_trust("partners")
    asking = [asyncio.create_task(answers.ensure(each, 300, 60)) for each in asked]
    await asyncio.sleep(0)
    fetcher.gate.set()
    assert await asyncio.gather(*asking) == [False, True]
    assert answers[question().key].status is RevocationStatus.REVOKED
    assert not answers.fresh(question().key)
    answers, fetcher, _, _ = store(NoAnswer("no_answer", "x"), response(status=REVOKED))
    assert [await answers.ensure(each, 300, 60) for each in asked] == [False, True]


async def test_each_responder_speaks_for_itself() -> None:
    """One trust's good serves no other trust, whose responder may know more, and lifts nothing that
    this one has revoked; what either has revoked is revoked in both, until each says good later.
    """
    here, there = of_trust("here"), of_trust("there")
    good, revoked = RevocationStatus.GOOD, RevocationStatus.REVOKED
    answers, fetcher, clock, changed = store(response(start=-90), response(status=REVOKED))
    assert await answers.ensure(here, 300, 60)
    assert not answers.fresh(there.key)
    assert there.key not in answers
    assert await answers.ensure(there, 300, 60)
    assert [answers[each.key].status for each in (here, there)] == [revoked, revoked]
    assert not answers.fresh(here.key)
    assert not answers[here.key].holds(clock.now)
    assert changed == [there.key]
    fetcher.answers = [response(start=-60), response(start=-30)]
    assert not await answers.ensure(here, 300, 60)  # as old as what revoked
    clock.now += 3
    assert await answers.ensure(here, 300, 60)
    assert [answers[each.key].status for each in (here, there)] == [good, revoked]
    clock.now += 2 * 3600
    answers.refresh_due()
    await asyncio.sleep(0.01)
    assert answers[here.key].status is revoked
    fetcher.answers = [response(start=7100, end=9999)]
    clock.now += 3
    assert await answers.ensure(there, 300, 60)
    assert there.key in list(answers)
    assert here.key not in answers


async def test_what_two_responders_have_revoked_each_must_lift() -> None:
    """A good answer of one leaves what the other has said, whichever came last."""
    here, there = of_trust("here"), of_trust("there")
    for first, second in ((-90, -60), (-60, -90)):
        answers, fetcher, clock, _ = store(
            response(status=REVOKED, start=first), response(status=REVOKED, start=second)
        )
        for each in (here, there):
            assert await answers.ensure(each, 300, 60)
        clock.now += 2 * 3600
        fetcher.answers = [response(start=7100, end=9999)]
        assert await answers.ensure(here, 300, 60)
        assert answers[here.key].status is RevocationStatus.GOOD
        assert answers[there.key].status is RevocationStatus.REVOKED
        assert {key.responder for key in answers} == {"http://here/", "http://there/"}


async def test_a_question_is_repeated_while_the_fetcher_is_busy() -> None:
    """It has room again soon: several instances share it."""
    answers, fetcher, _, _ = store(NoAnswer("busy", "x"), NoAnswer("busy", "x"), response())
    assert await answers.ensure(question(), 300, 60)
    assert fetcher.asked == 3
    assert answers.failures == {}


@pytest.mark.parametrize(
    ("kind", "other"), [("no_answer", True), ("unreachable", False), ("fetcher", False)]
)
async def test_a_failure_pauses_what_it_applies_to(kind: str, other: bool) -> None:
    """A failed question is not repeated at once; an unreachable responder pauses its trust."""
    answers, fetcher, clock, _ = store(NoAnswer(kind, "x"), response(BOB), response())
    assert not await answers.ensure(question(), 300, 60)
    assert not await answers.ensure(question(), 300, 60)
    assert fetcher.asked == 1
    assert await answers.ensure(question(BOB), 300, 60) is other
    clock.now += 3
    fetcher.answers = [response()]
    assert await answers.ensure(question(), 300, 60)
    assert answers.failures == {kind: 1}


async def test_a_response_that_does_not_verify_is_no_answer() -> None:
    """The fetcher is trusted to deliver a response, not to have verified it."""
    answers, _, _, _ = store(response(BOB))
    assert not await answers.ensure(question(), 300, 60)
    assert answers.failures == {"unverified": 1}
    assert not answers


async def test_a_change_of_status_is_reported() -> None:
    """A revocation replaces a good answer and is reported; a replay is refused."""
    answers, _, _, changed = store()
    key = question().key

    def restore(der: bytes) -> bool:
        record = StoredResponse("staff", ALICE.der, AUTHORITY.der, der, time.time())
        return answers.restore(record, 300)

    assert restore(response(start=-90))
    assert changed == []
    assert restore(response(status=REVOKED, start=-60))
    assert changed == [key]
    assert not restore(response(start=-120))
    assert answers[key].status is RevocationStatus.REVOKED
    [record] = answers.records()
    assert record.trust == "staff"


async def test_a_good_answer_as_old_as_a_revoked_one_is_a_replay() -> None:
    """Responders round `thisUpdate`, to the hour even: of two answers that name the same moment the
    revoked one stays, whichever comes last, and a later one replaces it.
    """
    second = 0
    while int(time.time()) != second:  # both name the same second
        second = int(time.time())
        good, revoked = response(), response(status=REVOKED)
    for order in ((good, revoked, good), (revoked, good)):
        answers, _, _, _ = store()
        for der in order:
            record = StoredResponse("staff", ALICE.der, AUTHORITY.der, der, time.time())
            answers.restore(record, 300)
        assert answers[question().key].status is RevocationStatus.REVOKED
    later = StoredResponse("staff", ALICE.der, AUTHORITY.der, response(start=-30), time.time())
    assert answers.restore(later, 300)
    assert answers[question().key].status is RevocationStatus.GOOD


@pytest.mark.parametrize("change", ["clock tolerance", "issuer's certificate"])
async def test_a_revocation_outlives_a_change_of_the_policy(change: str) -> None:
    """A revoked answer serves its certificate also under another clock tolerance, and where its
    issuer's certificate was renewed; a good one as old doesn't revive it, and a later one does.
    """
    key = question().key
    other = (
        key._replace(tolerance=301)
        if change == "clock tolerance"
        else key._replace(issuer_sha256="0" * 64)
    )
    answers, fetcher, clock, changed = store(response(status=REVOKED))
    assert await answers.ensure(question(), 300, 60)
    assert answers[other].status is RevocationStatus.REVOKED
    assert answers.fresh(other)
    clock.now += 2 * 3600
    fetcher.answers = [
        NoAnswer("unreachable", "x"),
        response(start=-90),
        response(start=7100, end=9999),
    ]
    asked = replace(question(), key=other)
    for _ in range(2):
        assert not await answers.ensure(asked, 300, 60)
        assert answers[other].status is RevocationStatus.REVOKED
        clock.now += 3
    assert await answers.ensure(asked, 300, 60)
    assert answers[other].status is RevocationStatus.GOOD
    assert changed == [other]
    assert list(answers) == [other]


@pytest.mark.parametrize("older", [True, False])
async def test_a_revocation_overrules_good_answers_under_other_keys(older: bool) -> None:
    """Two trusts differ in clock tolerance: what one learns is revoked in the other, unless that
    one's good answer is later.  Decisions made with the good answer are forgotten."""
    start = -90 if older else -30
    answers, _, _, changed = store(response(start=start), response(status=REVOKED, start=-60))
    other = replace(question(), key=question().key._replace(tolerance=301))
    assert await answers.ensure(other, 301, 60)
    assert answers[other.key].status is RevocationStatus.GOOD
    assert await answers.ensure(question(), 300, 60)
    assert answers[question().key].status is RevocationStatus.REVOKED
    expected = RevocationStatus.REVOKED if older else RevocationStatus.GOOD
    assert answers[other.key].status is expected
    assert changed == ([question().key] if older else [])


async def test_an_answer_that_revokes_though_it_has_ended() -> None:
    """It revokes, and the responder is asked on, but not by every request; a later good answer
    revives, and once that is there an ended one is a replay."""
    ended = response(status=REVOKED, start=-7200, end=-3600)
    answers, fetcher, clock, _ = store(ended, response(), ended)
    for _ in range(3):
        assert not await answers.ensure(question(), 300, 60)
        answers.refresh_due()
        assert answers[question().key].status is RevocationStatus.REVOKED
    assert fetcher.asked == 1
    clock.now += 3
    assert await answers.ensure(question(), 300, 60)
    assert answers[question().key].status is RevocationStatus.GOOD
    clock.now += 3400
    answers.refresh_due()
    await asyncio.sleep(0.01)
    assert fetcher.asked == 3
    assert answers[question().key].status is RevocationStatus.GOOD


async def test_a_released_certificate_stays_so_when_its_good_answer_has_ended() -> None:
    """Who holds up the responder's answers, and replays the old one that revoked, keeps nobody out
    by it; one that is newer than the good one revokes, though it has ended by now."""
    old = response(status=REVOKED, start=-7200, end=-3600)
    newer = response(status=REVOKED, start=600, end=1200)
    answers, _, clock, _ = store(old, response(start=-90), old, newer)
    key = question().key
    assert not await answers.ensure(question(), 300, 60)
    clock.now += 3
    assert await answers.ensure(question(), 300, 60)
    clock.now += 2 * 3600
    answers.refresh_due()
    await asyncio.sleep(0.01)
    assert not await answers.ensure(question(), 300, 60)
    assert key not in answers
    clock.now += 3
    assert not await answers.ensure(question(), 300, 60)
    assert answers[key].status is RevocationStatus.REVOKED
    assert answers.failures == {"unverified": 2, "older": 1}


async def test_another_answer_takes_the_place_of_a_revoked_responders() -> None:
    """While the responder goes on to sign with that certificate it is not asked by every request;
    with another one, its answer counts at once, also an older one."""
    first, second = (
        ocsp_pki.issue(name, AUTHORITY, eku=[ocsp_pki.OCSP_SIGNING]) for name in ("one", "two")
    )

    def good(signer: ocsp_pki.Pair, start: float) -> bytes:
        single = ocsp_pki.single(ALICE.cert, AUTHORITY.cert, start=start)
        return ocsp_pki.craft(signer, [single], certs=[signer])

    answers, fetcher, clock, _ = store(good(first, -60), good(first, -50), good(second, -90))
    assert await answers.ensure(question(), 300, 60)
    instead = replace(question(), not_by=from_der(first.der).sha256)
    for _ in range(3):
        assert not await answers.ensure(instead, 300, 60)
    assert fetcher.asked == 2
    assert not answers
    clock.now += 3
    assert await answers.ensure(instead, 300, 60)
    delegate = answers[question().key].delegate
    assert delegate is not None
    assert delegate.der == second.der
    assert await answers.ensure(instead, 300, 60)
    assert fetcher.asked == 3


async def test_an_expired_good_answer_is_discarded_and_a_revoked_one_kept() -> None:
    """After its end, good says nothing; revoked still revokes."""
    answers, _, clock, _ = store(response(), response(BOB, status=REVOKED))
    assert await answers.ensure(question(), 300, 60)
    assert await answers.ensure(question(BOB), 300, 60)
    clock.now += 2 * 3600
    assert not answers.fresh(question().key)
    for key in list(answers):
        answers._entries[key].used = False
    answers.refresh_due()
    assert list(answers) == [question(BOB).key]


async def test_a_responder_without_answers_is_not_counted() -> None:
    """A policy may name ever new ones."""
    answers, _, clock, _ = store(response())
    assert await answers.ensure(question(), 300, 60)
    clock.now += 2 * 3600
    answers.refresh_due()
    assert not answers
    assert not answers._numbers
    assert not answers._bytes


@dataclass
class _Octets:
    der: bytes


async def test_what_nobody_has_signed_takes_no_room_of_other_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fetcher puts certificates of strangers into each answer, as long as it likes: whom the
    first one revoked stays revoked, with and without a responder's own certificate."""
    responder = ocsp_pki.issue("responder", AUTHORITY, eku=[ocsp_pki.OCSP_SIGNING])
    people = [ocsp_pki.issue(f"client {number}", AUTHORITY) for number in range(6)]
    padding = _Octets(b"\x30\x83\x03\x00\x00" + bytes(3 * 2**16))

    def padded(pair: ocsp_pki.Pair, signer: ocsp_pki.Pair) -> bytes:
        one = ocsp_pki.single(pair.cert, AUTHORITY.cert, status=REVOKED)
        return ocsp_pki.craft(signer, [one], certs=[signer, padding])

    monkeypatch.setattr(ocsp_answers, "MAX_BYTES", 2**20)
    signers = [AUTHORITY, responder] * 3
    found, *_ = store(*(padded(*each) for each in zip(people, signers, strict=True)))
    for pair in people:
        assert await found.ensure(question(pair), 300, 5)
    assert [found[question(pair).key].status for pair in people] == [RevocationStatus.REVOKED] * 6
    again = store()[0]
    assert all(again.restore(record, 300) for record in found.records())


@dataclass
class Responder(Fetcher):
    """Answers each question with *good*, as often as it is asked."""

    people: dict[bytes, ocsp_pki.Pair] = field(default_factory=dict)

    async def query(
        self, trust: str, cert_der: bytes, issuer_der: bytes, deadline: float, nonce: bytes | None
    ) -> bytes:
        self.asked += 1
        return response(self.people[cert_der])


async def test_some_clients_more_than_answers_do_not_evict_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """11 clients come in turn, and there is room for 10 answers: most find theirs, and each has one
    when its question has been answered."""
    monkeypatch.setattr(ocsp_answers, "random", random.Random(1))
    people = [ocsp_pki.issue(f"client {number}", AUTHORITY) for number in range(11)]
    fetcher = Responder([], people={pair.der: pair for pair in people})
    found = OcspAnswers(fetcher, size=10)
    asked = [question(pair) for pair in people]
    for each in asked * 10:
        assert await found.ensure(each, 300, 5)
    assert len(found) == 10
    assert fetcher.asked < len(people) * 10 / 2


@pytest.mark.parametrize("limit", ["bytes", "number"])
async def test_what_one_responder_says_takes_no_room_of_another(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA revokes more of its own certificates than there is room for, by answers as long as it
    likes: whom another trust's responder has revoked, or called good, stays so."""
    people = [ocsp_pki.issue(f"client {number}", AUTHORITY) for number in range(8)]
    rest = [ocsp_pki.single(people[0].cert, AUTHORITY.cert)] * (500 if limit == "bytes" else 0)

    def answer(pair: ocsp_pki.Pair) -> bytes:
        one = ocsp_pki.single(pair.cert, AUTHORITY.cert, status=REVOKED)
        return ocsp_pki.craft(AUTHORITY, [one, *(rest if pair is not people[0] else ())])

    monkeypatch.setattr(ocsp_answers, "MAX_BYTES", 2**20 if limit == "bytes" else 2**30)
    size = 1000 if limit == "bytes" else 4
    answers = [response(BOB, REVOKED), response(ALICE), *map(answer, people)]
    fetcher = Fetcher(list(answers))
    fetcher.gate.set()
    found = OcspAnswers(fetcher, size=size)
    ours = [of_trust("staff", pair) for pair in (BOB, ALICE)]
    theirs = [of_trust("partner", pair) for pair in people]
    for asked in (*ours, *theirs):
        await found.ensure(asked, 300, 5)
    assert len(found) < 10
    said = [found[asked.key].status for asked in ours]
    assert said == [RevocationStatus.REVOKED, RevocationStatus.GOOD]


async def test_what_one_issuer_has_revoked_takes_no_room_of_another_at_its_responder() -> None:
    """Two trusts share a responder, and the CA of one revokes more certificates than there is room
    for: whom the other one's has revoked stays so."""
    other = ocsp_pki.authority("Other CA")
    people = [ocsp_pki.issue(f"client {number}", other) for number in range(8)]
    theirs = []
    answers = [response(BOB, REVOKED)]
    for pair in people:
        cert, issuer = from_der(pair.der), from_der(other.der)
        theirs.append(OcspQuestion(ocsp_key(cert, issuer, 300), "partner", cert, issuer))
        one = ocsp_pki.single(pair.cert, other.cert, status=REVOKED)
        answers.append(ocsp_pki.craft(other, [one]))
    fetcher = Fetcher([*answers])
    fetcher.gate.set()
    found = OcspAnswers(fetcher, size=4)
    for asked in (question(BOB), *theirs):
        await found.ensure(asked, 300, 5)
    assert len(found) == 4
    assert found[question(BOB).key].status is RevocationStatus.REVOKED
