"""Bound the connections of the enrolment service."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sidecar.enroll.connections import SILENT_SECONDS, Connections


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
