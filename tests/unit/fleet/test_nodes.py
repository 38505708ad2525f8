"""What nodes report: nobody's word is trusted to be well-formed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.fleet.nodes import MAX_REPORT, parse_report


def report(daemon: Any, agent: Any = None) -> bytes:
    return json.dumps({"node": "web1", "daemon": daemon, "agent": agent or {}}).encode()


def test_a_report_is_read() -> None:
    """What the daemon has in force counts; what both refused is summed."""
    daemon = {
        "sequence": 7,
        "policy": "e0ad3bf0b56c",
        "version": "0.1.0",
        "refused": {"fork": 1},
        "decisions": {"allowed": 5},
    }
    found = parse_report("web1", report(daemon, {"refused": {"gap": 2}, "labels": ["a"]}), 1.5)
    assert found.as_json() == {
        "name": "web1",
        "sequence": 7,
        "hash": "e0ad3bf0b56c",
        "age": 1.5,
        "version": "0.1.0",
        "refused": 3,
    }
    assert (found.decisions, found.labels) == ({"allowed": 5}, ("a",))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"{}",
        b" " * (MAX_REPORT + 1),
        report(None),
        report([1], "x"),
        report({"sequence": "9", "policy": 3, "refused": 7, "decisions": [], "version": {}}),
        report({"sequence": -4, "refused": {"x": "y"}}, {"labels": "all", "version": None}),
    ],
)
def test_a_report_that_is_none_says_nothing(data: bytes) -> None:
    """The node counts as far behind, and nothing breaks."""
    found = parse_report("web1", data, -3.0)
    assert (found.sequence, found.hash, found.refused, found.age) == (0, "", 0, 0.0)


def test_what_a_node_says_reaches_no_terminal_raw() -> None:
    """Control characters are escaped."""
    found = parse_report("web1", report({"problem": "\x1b[2J\n", "policy": "a\x07"}), 0.0)
    assert found.problem.isprintable()
    assert found.hash.isprintable()
