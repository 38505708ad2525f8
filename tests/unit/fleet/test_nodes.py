"""What nodes report: nobody's word is trusted to be well-formed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sidecar.fleet.canary import Condition, verdict
from sidecar.fleet.nats_client import Bus
from sidecar.fleet.nodes import MAX_REPORT, parse_report, wait_for
from sidecar.fleet.subjects import Subjects


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


class Reporting:
    """A client of NATS to which web1 and web2, both behind, report something at once."""

    def __init__(self, *reports: tuple[str, bytes]) -> None:
        self.reports = reports

    async def subscribe(self, _: str, cb: Callable[[Any], Awaitable[None]]) -> None:
        for subject, data in self.reports:
            await cb(SimpleNamespace(subject=subject, data=data))

    async def flush(self) -> None:
        return


class Servers(Bus):
    async def reports(self) -> dict[str, tuple[bytes, float]]:
        return dict.fromkeys(("web1", "web2"), (report({"sequence": 1}), time.time()))


def test_no_node_confirms_for_another() -> None:
    """Who reports is the subject, which the servers vouch for, and not what the report says."""
    subjects = Subjects("prod", 1)
    said = json.dumps({"node": "web2", "daemon": {"sequence": 9}, "agent": {}}).encode()
    client = Reporting((subjects.report("web1"), said))
    told: list[str] = []
    behind = asyncio.run(
        wait_for(
            Servers(cast(Any, client), subjects), 2, 0.1, lambda name, _: told.append(name), 0.0
        )
    )
    assert (told, behind) == (["web1"], ["web2"])


def test_a_count_without_an_end_breaks_no_sum() -> None:
    """It counts as none: the shares of a canary's denials can be computed."""
    said = report({"sequence": 10**400, "decisions": {"not_allowed": 10**400, "allowed": 1}})
    found = parse_report("web1", said, 0.0)
    assert found.sequence == 0
    assert verdict({}, {"web1": found}, Condition(1.0, 1.0, ("not_allowed",))) == ""
