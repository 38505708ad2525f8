"""Limit the unanswered requests of all connections together."""

from __future__ import annotations

import pytest
from asking import site
from daemon import question
from fuzz_targets import Transport, silent
from pki import CA

from sidecar.authorizer import connection
from sidecar.authorizer.connection import Connection, Service
from sidecar.authorizer.decision_cache import Engine
from sidecar.core.config.settings import Limits

alice = CA("Staff").issue("alice")


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
