"""Ask questions for OCSP responses in turn; test_ocsp_answers.py has the answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sidecar.authorizer import ocsp_queue
from sidecar.authorizer.ocsp_queue import (
    MAX_ASKING,
    MAX_SHARED,
    NoAnswer,
    OcspClient,
    OcspQueue,
    Places,
    Query,
)
from sidecar.core.revocation.ocsp.response import OcspKey
from sidecar.fetcher.ocsp_service import MAX_CONNECTIONS

QUERY = Query("staff", b"cert", b"issuer", 300)


def key(responder: str = "http://here/", number: int = 0) -> OcspKey:
    return OcspKey(f"{number:064x}", "1" * 64, 300, responder)


@dataclass
class Fetcher(OcspClient):
    """Answers with what it is given, in turn."""

    path: Path = Path("none")
    answers: list[bytes | NoAnswer] = field(default_factory=list)

    async def query(self, *_: object) -> bytes:
        found = self.answers.pop(0)
        if isinstance(found, NoAnswer):
            raise found
        return found


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("kind", "all_of_them"), [("no_answer", False), ("unreachable", True)])
async def test_a_pause_is_of_the_question_or_of_the_responder(kind: str, all_of_them: bool) -> None:
    """It ends after its time, with an answer, or as the clock goes back."""
    clock = Clock()
    queue = OcspQueue(Fetcher(), clock, 2.0, 100)
    queue.failed(key(), "staff", NoAnswer(kind, "x"))
    assert queue.is_paused(key())
    assert queue.is_paused(key(number=1)) is all_of_them
    assert not queue.is_paused(key("http://there/"))
    assert queue.failures == {kind: 1}
    for later in (2.0, -1.0):
        clock.now = 1000.0 + later
        assert not queue.is_paused(key())
    clock.now = 1000.0
    queue.answered("http://here/")
    assert queue.is_paused(key()) is not all_of_them


async def test_a_responder_that_failed_meanwhile_is_not_asked() -> None:
    """Whoever waited for a place isn't asked about in the pause."""
    queue = OcspQueue(Fetcher(answers=[b"answer"]), Clock(), 2.0, 100)
    assert await queue.ask(key(), QUERY, b"") == b"answer"
    queue.failed(key(number=1), "staff", NoAnswer("unreachable", "x"))
    assert await queue.ask(key(), QUERY, b"") is None


async def test_a_question_under_way_is_found_and_given_up() -> None:
    """One task for each key, until it has ended."""
    queue = OcspQueue(Fetcher(), Clock(), 2.0, 100)

    async def work() -> None:
        await asyncio.Event().wait()

    task = queue.start(key(), work())
    assert queue.task_of(key()) is task
    assert queue.by_responder() == {"http://here/": 1}
    queue.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert queue.task_of(key()) is None


@dataclass
class Responders(OcspClient):
    """Those whose trust is `hung` never answer; `most` is how many were asked at once, in all."""

    path: Path = Path("none")
    asked: int = 0
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def query(self, trust: str, *_: object) -> bytes:
        self.asked += 1
        self.most = max(self.most, self.asked)
        try:
            await (self.gate.wait() if trust == "hung" else asyncio.sleep(0))
        finally:
            self.asked -= 1
        return trust.encode()


async def test_responders_that_hang_leave_the_others_their_places() -> None:
    """However many questions wait for nine of them, another one's are asked, and no more at once
    than the fetcher has room for."""
    client = Responders()
    queue = OcspQueue(client, Clock(), 2.0, 100)
    hung = Query("hung", b"cert", b"issuer", 300)
    keys = [key(f"http://{one}/", number) for one in range(9) for number in range(30)]
    hanging = [asyncio.create_task(queue.ask(each, hung, b"")) for each in keys]
    await asyncio.sleep(0)
    asked = [queue.ask(key(number=number), QUERY, b"") for number in range(30)]
    assert await asyncio.gather(*asked) == [b"staff"] * 30
    assert not any(task.done() for task in hanging)
    assert MAX_SHARED < client.most < MAX_CONNECTIONS
    client.gate.set()
    assert await asyncio.gather(*hanging) == [b"hung"] * len(keys)
    assert client.most < MAX_CONNECTIONS


async def test_a_place_is_free_again_whatever_ended_the_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failure, a question given up, one that waited too long: none of them keeps a place."""
    monkeypatch.setattr(ocsp_queue, "ASK_SECONDS", 0.05)
    places = Places()

    async def hold(until: asyncio.Event) -> None:
        async with places.one_of("http://here/"):
            await until.wait()
            raise NoAnswer("no_answer", "x")

    for _ in range(3):
        end = asyncio.Event()
        tasks = [asyncio.create_task(hold(end)) for _ in range(MAX_ASKING + 9)]
        await asyncio.wait(tasks[-9:])
        assert {str(task.exception()) for task in tasks[-9:]} == {
            "too many questions wait for an answer"
        }
        tasks[0].cancel()
        end.set()
        await asyncio.wait(tasks)
        assert sum(task.cancelled() for task in tasks) == 1
