"""Answer the daemon's OCSP questions; tests/process/test_ocsp_answers.py has real responders."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import ocsp_pki
import pytest
from prometheus_client import CollectorRegistry

from sidecar.core.x509.certificate import from_der
from sidecar.fetcher import ocsp_service
from sidecar.fetcher.http_client import Failure, FetchError
from sidecar.fetcher.metrics import FetchMetrics
from sidecar.fetcher.ocsp_service import MAX_QUESTIONS, OcspService
from sidecar.fetcher.peer_shares import Share
from sidecar.fetcher.plan import FetchPlan, Responder
from sidecar.runtime.fetch_protocol import encode, pack, read, unpack

AUTHORITY, ALICE = ocsp_pki.authority(), ocsp_pki.leaf("alice")
STRANGER = ocsp_pki.issue("alice", ocsp_pki.authority("Other CA"))
GOOD = ocsp_pki.craft(AUTHORITY, [ocsp_pki.single(ALICE.cert, AUTHORITY.cert)])


class Service(OcspService):
    """One whose responder gives what it is told."""

    def __init__(self, reply: bytes | FetchError = GOOD) -> None:
        issuer = from_der(AUTHORITY.der)
        responder = Responder("staff", "http://ca.test/", {issuer.sha256: issuer})
        plan = FetchPlan(responders={"staff": responder})
        self.metrics = FetchMetrics(CollectorRegistry())
        super().__init__(None, lambda: plan, self.metrics)  # type: ignore[arg-type]  # no session
        self.reply = reply

    async def _exchange(self, url: str, request: bytes) -> bytes:
        if isinstance(self.reply, FetchError):
            raise self.reply
        return self.reply


def question(**more: str) -> dict[str, str]:
    return {"trust": "staff", "cert": pack(ALICE.der), "issuer": pack(AUTHORITY.der), **more}


async def test_a_verified_response_is_passed_on() -> None:
    """As the responder sent it."""
    assert unpack(await Service().answer(question(), Share()), "response") == GOOD


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"trust": "other"}, "the policy names no responder"),
        ({"issuer": pack(STRANGER.der)}, "not an authority of this trust"),
        ({"cert": pack(STRANGER.der)}, "not signed by this issuer"),
        ({"cert": pack(b"garbage")}, "certificate"),
        ({"cert": "*"}, "not Base64"),
        ({"nonce": pack(b"x" * 200)}, "a nonce has 1 to 128 octets"),
    ],
)
async def test_only_certificates_of_the_trust_are_asked_about(
    change: dict[str, str], told: str
) -> None:
    """Another question is refused before anything is sent."""
    found = await Service(FetchError(Failure.NETWORK, "asked")).answer(question(**change), Share())
    assert found["kind"] == "refused"
    assert told in found["error"]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (FetchError(Failure.NETWORK, "refused"), "unreachable"),
        (FetchError(Failure.TIMEOUT, "slow"), "unreachable"),
        (FetchError(Failure.STATUS, "HTTP status 500"), "no_answer"),
        (b"garbage", "no_answer"),
    ],
)
async def test_a_failure_says_whether_it_applies_to_others(
    reply: bytes | FetchError, kind: str
) -> None:
    """Only a responder that can't be reached is `unreachable`; the metric has the same label."""
    service = Service(reply)
    found = await service.answer(question(), Share())
    assert found["kind"] == kind
    assert service.metrics.registry.get_sample_value(
        "mtls_sidecar_fetch_ocsp_queries_total", {"trust": "staff", "result": kind}
    )


async def test_too_many_questions_are_refused() -> None:
    """A user's question over the limit is told that the fetcher is busy; another user's is not, nor
    one about another trust."""
    service = Service()

    def share(trust: str, questions: int) -> Share:
        return Share(questions=Counter({trust: questions}))

    assert (await service.answer(question(), share("staff", MAX_QUESTIONS)))["kind"] == "busy"
    for left in (share("staff", MAX_QUESTIONS - 1), share("partners", MAX_QUESTIONS)):
        assert "response" in await service.answer(question(), left)


async def test_a_question_waits_for_a_turn_no_longer_than_for_an_answer() -> None:
    """A user's turns with one responder are bounded; another user's question has one at once, and
    so has one about another trust, whose responder may be well."""
    service = Service()
    service._limits = replace(service._limits, total=0.2)
    busy, elsewhere = Share(), Share()
    busy.turns["staff"] = elsewhere.turns["partners"] = asyncio.Semaphore(0)
    assert (await service.answer(question(), busy))["kind"] == "unreachable"
    assert "response" in await service.answer(question(), elsewhere)


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One over the limit is closed unread, and there is room again after one has ended: the
    daemon's whole group may open the socket."""
    monkeypatch.setattr(ocsp_service, "MAX_CONNECTIONS", 2)
    place = tmp_path / "sock"
    server = await asyncio.start_unix_server(Service().connected, place)
    peers = [await asyncio.open_unix_connection(place) for _ in range(2)]
    reader, writer = await asyncio.open_unix_connection(place)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    for each in (writer, peers[0][1]):
        each.close()
    await asyncio.sleep(0.1)
    reader, writer = await asyncio.open_unix_connection(place)
    writer.write(encode(question()))
    answer = await asyncio.wait_for(read(reader), 5)
    assert answer is not None
    assert unpack(answer, "response") == GOOD
    for each in (writer, peers[1][1]):
        each.close()
    server.close()
