"""What the nodes of a fleet report of themselves."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.core.errors import printable

from .nats_client import Bus

MAX_REPORT = 128 * 1024

MAX_COUNT = 2**63
"""What a node counts is less: sums and shares of it can be computed."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """The last report of a node.  `age` in seconds; `refused` counts entries and files."""

    name: str
    sequence: int
    hash: str
    age: float
    version: str
    refused: int
    problem: str = ""
    decisions: Mapping[str, int] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As `fleet status --json` has it."""
        names = ("name", "sequence", "hash", "age", "version", "refused")
        return {name: getattr(self, name) for name in names}


def parse_report(name: str, data: bytes, age: float) -> NodeState:
    """A node's report; of one that is none, nothing is known."""
    try:
        if len(data) > MAX_REPORT:
            raise ValueError
        told = json.loads(data)
        daemon, agent = _mapping(told["daemon"]), _mapping(told["agent"])
    except (ValueError, KeyError, TypeError, RecursionError):
        daemon, agent = {}, {}
    counts = [_mapping(each.get("refused")) for each in (daemon, agent)]
    decisions = _mapping(daemon.get("decisions"))
    labels = agent.get("labels")
    return NodeState(
        name=name,
        sequence=_number(daemon.get("sequence")),
        hash=_text(daemon.get("policy")),
        age=round(max(0.0, age), 3),
        version=_text(daemon.get("version")) or _text(agent.get("version")),
        refused=sum(_number(value) for count in counts for value in count.values()),
        problem=_text(daemon.get("problem")) or _text(agent.get("problem")),
        decisions={_text(key): _number(value) for key, value in decisions.items()},
        labels=tuple(map(_text, labels)) if isinstance(labels, list) else (),
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT
    return value if is_count else 0


def _text(value: Any) -> str:
    return printable(value[:500]) if isinstance(value, str) else ""


async def known_nodes(bus: Bus, now: float) -> list[NodeState]:
    """Every node that ever reported, by name."""
    reports = await bus.reports()
    found = [parse_report(name, data, now - at) for name, (data, at) in reports.items()]
    return sorted(found, key=lambda node: node.name)


async def wait_for(
    bus: Bus,
    sequence: int,
    patience: float,
    told: Callable[[str, float], object],
    since: float,
) -> list[str]:
    """Wait until every known node has an entry in force; the names of those that have not.

    `told` is called for each with the seconds since `since` (monotonic).
    """
    waiting = {node.name for node in await known_nodes(bus, time.time())}
    news = asyncio.Event()
    arrived: list[tuple[NodeState, float]] = []

    def take(subject: str, data: bytes) -> None:
        # Not by the name in the report: a node could write another's there.
        state = parse_report(subject.removeprefix(bus.subjects.report("")), data, 0.0)
        if state.sequence >= sequence:
            arrived.append((state, time.monotonic()))
            news.set()

    def settle(name: str, at: float) -> None:
        if name in waiting:
            waiting.discard(name)
            told(name, max(0.0, at - since))

    await bus.subscribe(bus.subjects.report("*"), take)
    await bus.client.flush()
    for node in await known_nodes(bus, time.time()):
        if node.sequence >= sequence:
            settle(node.name, time.monotonic())
    end = time.monotonic() + patience
    while waiting and (left := end - time.monotonic()) > 0:
        while arrived:
            state, at = arrived.pop(0)
            settle(state.name, at)
        news.clear()
        if waiting:
            try:
                await asyncio.wait_for(news.wait(), left)
            except TimeoutError:
                break
    return sorted(waiting)
