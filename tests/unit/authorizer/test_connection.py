"""Limit the unanswered requests of all connections together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from asking import policy, site
from daemon import question
from fuzz_targets import Transport, silent
from pki import CA

from sidecar.authorizer import connection
from sidecar.authorizer.connection import Connection, Service
from sidecar.authorizer.decision_cache import Engine
from sidecar.core.config.settings import Limits

staff = CA("Staff")
alice = staff.issue("alice")

ASKING = """
version: 1
trust: {staff: {ca: ca.pem, ocsp: "http://r/", revocation: best_effort}}
locations: [{name: site, allow: verified}]
"""


def connect(service: Service) -> tuple[Connection, Transport]:
    found, transport = Connection(service), Transport()
    found.connection_made(transport)  # type: ignore[arg-type]  # one in all but name
    return found, transport


def test_half_sent_requests_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part over the limit gets 400; complete requests are answered, and a closed connection
    frees its bytes."""
    monkeypatch.setattr(connection, "MAX_HELD", 10_000)
    service = Service(Engine(site("verified"), entries=4, answers={}), silent(), Limits())
    whole = question("site", alice, {"X-Other": "x" * 3000})
    half = [connect(service) for _ in range(4)]
    for each, _ in half:
        each.data_received(whole[:3000])
    assert [transport.sent[:12] for _, transport in half] == [b"", b"", b"", b"HTTP/1.1 400"]
    other, transport = connect(service)
    other.data_received(whole)
    assert transport.sent.startswith(b"HTTP/1.1 204")
    half[0][0].connection_lost(None)
    half[1][0].data_received(whole[3000:])
    assert half[1][1].sent.startswith(b"HTTP/1.1 204")
    again, transport = connect(service)
    again.data_received(whole[:3000])
    assert transport.sent == b""
    for each, _ in (*half, (again, transport)):
        each.connection_lost(None)
    assert service.held == 0


async def test_a_flood_of_requests_that_wait_gets_nobody_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there is no room for another request that waits for OCSP, it gets 400: decided without
    the answer, `best_effort` would let in who is revoked."""
    monkeypatch.setattr(connection, "MAX_HELD", 10_000)
    asked = asyncio.Event()

    async def ask(questions: Sequence[object], deadline: float) -> None:
        asked.set()
        await asyncio.sleep(60)

    rules = policy(ASKING, ca_pem=staff.pem)
    service = Service(Engine(rules, entries=4, answers={}), silent(), Limits(), ask)
    whole = question("site", alice, {"X-Other": "x" * 3000})
    waiting = [connect(service) for _ in range(4)]
    for each, _ in waiting:
        each.data_received(whole)
    found = [transport.sent[:12] for _, transport in waiting]
    count = 10_000 // len(whole)
    assert found == [b""] * count + [b"HTTP/1.1 400"] * (4 - count)
    await asked.wait()
    for each, _ in waiting:
        each.connection_lost(None)
    assert service.held == 0
