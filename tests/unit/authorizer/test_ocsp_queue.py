"""Ask questions for OCSP responses in turn; test_ocsp_answers.py has the answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sidecar.authorizer.ocsp_queue import NoAnswer, OcspClient, OcspQueue, Query
from sidecar.core.revocation.ocsp.response import OcspKey

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
