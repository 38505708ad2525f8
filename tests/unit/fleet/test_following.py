"""What servers answer is taken a part at a time, and no further than it holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from fleet_entries import Author

from sidecar.core.config.fleet_settings import FleetSettings
from sidecar.fleet import following
from sidecar.fleet.following import catch_up, has_last
from sidecar.fleet.ledger import Ledger
from sidecar.fleet.nats_client import Bus


class Servers:
    """Answers with what `answer` makes of a number, in parts of 10 entries."""

    def __init__(self, answer: Callable[[int], bytes | None]) -> None:
        self._answer = answer
        self.asked = 0

    async def entry(self, number: int) -> bytes | None:
        self.asked += 1
        return self._answer(number)

    async def entries(self, first: int) -> list[bytes]:
        found = [await self.entry(number) for number in range(first, first + 10)]
        return [each for each in found if each is not None]


def run(
    what: Callable[[Bus, Ledger], object], servers: Servers, directory: Path, author: Author
) -> Ledger:
    settings = FleetSettings(name=author.fleet, keys=(author.public,))
    with contextlib.closing(Ledger(directory, settings)) as ledger:
        asyncio.run(what(cast("Bus", servers), ledger))  # type: ignore[arg-type]  # a coroutine
        return ledger


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "MOST_ENTRIES", 10)


def test_a_long_log_is_taken_in_parts(tmp_path: Path) -> None:
    """To its end, however many parts that are."""
    author = Author()
    lines = [author.revocation(f"{number:064x}").line() for number in range(35)]
    servers = Servers(lambda number: lines[number - 1] if number <= len(lines) else None)
    assert run(catch_up, servers, tmp_path, author).chain.sequence == 35


@pytest.mark.parametrize("kind", ["junk", "stranger", "the same again"])
def test_servers_that_answer_without_an_end_are_left(tmp_path: Path, kind: str) -> None:
    """They could fill the memory; nothing is taken that does not hold."""
    author, stranger = Author(), Author()
    same = author.revocation().line()
    answers = {"junk": b"junk", "stranger": stranger.revocation().line(), "the same again": same}
    servers = Servers(lambda _: answers[kind])
    ledger = run(catch_up, servers, tmp_path, author)
    assert ledger.chain.sequence == (1 if kind == "the same again" else 0)
    assert servers.asked == 10


def test_servers_that_lack_the_last_entry_or_have_another_are_noticed(tmp_path: Path) -> None:
    """Nobody needs to have what a new log lacks."""
    author, twin = Author(), Author()
    twin.key = author.key
    line, other = author.revocation().line(), twin.revocation("cd" * 32).line()
    found = []

    async def look(bus: Bus, ledger: Ledger) -> None:
        found.append(await has_last(bus, ledger))
        ledger.take([line])
        found.append(await has_last(bus, ledger))

    answers: tuple[bytes | None, ...] = (line, None, other, b"junk")
    for number, answer in enumerate(answers):
        run(look, Servers(partial(always, answer)), tmp_path / str(number), author)
    assert found == [True, True, True, False, True, False, True, False]


def always(answer: bytes | None, _: int) -> bytes | None:
    return answer
