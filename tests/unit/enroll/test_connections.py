"""Bound the connections of the enrolment service."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from sidecar.enroll.connections import MAX_OCTETS, SILENT_SECONDS, Connections


def test_who_is_silent_is_closed_and_who_waits_for_a_certificate_is_not() -> None:
    """Counted from the connection's start, or from the end of its last request; however long a
    request takes, its connection stays."""
    silent: Any = "silent"
    asking: Any = "asking"
    under_way = {asking}
    server: Any = SimpleNamespace(connections=[silent, asking])
    connections = Connections(server, under_way)
    assert connections.silent(100) == []
    assert connections.silent(100 + SILENT_SECONDS) == []
    assert connections.silent(101 + SILENT_SECONDS) == [silent]
    server.connections.remove(silent)
    under_way.clear()
    assert connections.silent(100 + 2 * SILENT_SECONDS) == []
    assert connections.silent(102 + 2 * SILENT_SECONDS) == [asking]
    server.connections.clear()
    assert connections.silent(103 + 2 * SILENT_SECONDS) == []


@pytest.mark.parametrize("why", ["under way", "unread"])
def test_who_sends_more_than_a_form_is_closed(why: str) -> None:
    """While a request is under way, or its answer isn't read, as much as a form with its head is
    passed on, however many requests came before; one octet more ends the connection."""
    handler = Mock()
    under_way: set[object] = set()
    server: Any = Mock(return_value=handler, connections=[])
    peer = cast(Any, Connections(server, under_way).accept())
    peer.connection_made(Mock())
    for _ in range(3):
        peer.data_received(bytes(MAX_OCTETS))
    if why == "unread":
        peer.pause_writing()
        peer.resume_writing()
        peer.pause_writing()
    else:
        under_way.add(handler)
    peer.data_received(b"")
    assert handler.data_received.call_count == 4
    assert not handler.transport.abort.called
    peer.data_received(b"x")
    assert handler.data_received.call_count == 4
    assert handler.transport.abort.called
