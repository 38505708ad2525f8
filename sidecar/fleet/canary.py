"""A release that some nodes have first: promoted to all, or held, by what those nodes decide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sidecar.core.fleet.bodies import Release, To, parse_body
from sidecar.core.fleet.entry import SignedEntry

from .log_lines import describe
from .nodes import NodeState, known_nodes
from .publisher import Publisher

ARRIVAL_SECONDS = 120.0
"""How long the canary nodes have to put the release into force."""

FRESH_SECONDS = 60.0
"""How old a node's report may be to count."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Hold where more than `percent` of the decisions in `seconds` are denials for `reasons`."""

    seconds: float
    percent: float
    reasons: tuple[str, ...]


def verdict(
    before: Mapping[str, NodeState], after: Mapping[str, NodeState], condition: Condition
) -> str:
    """Why the release is to be held, or nothing.

    A node whose counts went back was started anew: all that it counts is new.
    """
    total = denied = 0
    for name, state in after.items():
        old = before[name].decisions if name in before else {}
        restarted = sum(old.values()) > sum(state.decisions.values())
        for reason, count in state.decisions.items():
            new = count if restarted else max(0, count - old.get(reason, 0))
            total += new
            denied += new if reason in condition.reasons else 0
        if name in before and state.refused > before[name].refused:
            return f"node {name} refused something: {state.problem or 'see its log'}"
    share = 100.0 * denied / total if total else 0.0
    if share > condition.percent:
        return f"{denied} of {total} decisions ({share:.1f}%) were denials that it can cause"
    return ""


async def promote(
    publisher: Publisher,
    signed: SignedEntry,
    condition: Condition,
    tell: Callable[[str], object],
) -> int:
    """Watch the nodes that have a release first; then publish it to all, or hold it (exit 1)."""
    release = parse_body(signed.entry)
    assert isinstance(release, Release)
    before = await _arrived(publisher, release)
    if not before:
        tell(f"release {release.sequence} is held: no node that it is for has it in force")
        return 1
    tell(f"release {release.sequence} is in force on {len(before)} nodes, watched from now on")
    await asyncio.sleep(condition.seconds)
    after = await _states(publisher, release.to)
    missing = before.keys() - after.keys()
    why = verdict(before, after, condition)
    if missing:
        why = why or f"node {min(missing)} does not report any more"
    if why:
        tell(f"release {release.sequence} is held: {why}")
        return 1
    files = [{"name": f.name, "sha256": f.sha256, "size": f.size} for f in release.files]
    comment = f"release {release.sequence}, promoted"
    await publisher.sync()
    if publisher.ledger.chain.releases[-1].sequence != release.sequence:
        tell(f"release {release.sequence} is held: another was published meanwhile")
        return 1
    body = {"files": files, "to": None, "comment": comment}
    tell(describe(await publisher.publish("release", body)))
    return 0


async def _arrived(publisher: Publisher, release: Release) -> dict[str, NodeState]:
    """The nodes meant, once all of them that report have the release in force."""
    end = time.monotonic() + ARRIVAL_SECONDS
    while True:
        states = await _states(publisher, release.to)
        if states and all(state.sequence >= release.sequence for state in states.values()):
            return states
        if time.monotonic() > end:
            return {}
        await asyncio.sleep(0.2)


async def _states(publisher: Publisher, to: To) -> dict[str, NodeState]:
    nodes = await known_nodes(publisher.bus, time.time())
    fleet = publisher.ledger.chain.fleet
    return {
        node.name: node
        for node in nodes
        if node.age < FRESH_SECONDS and to.includes(fleet, node.name, node.labels)
    }
