"""When a release that some nodes have first is held."""

from __future__ import annotations

from sidecar.fleet.canary import Condition, verdict
from sidecar.fleet.nodes import NodeState

CONDITION = Condition(60.0, 1.0, ("not_allowed",))


def node(name: str, refused: int = 0, **decisions: int) -> dict[str, NodeState]:
    return {name: NodeState(name, 1, "", 0.0, "", refused, "", decisions)}


def test_only_what_came_since_counts() -> None:
    """Old denials and those for other reasons hold nothing."""
    before = node("a", allowed=10, not_allowed=1000)
    assert not verdict(before, node("a", allowed=200, not_allowed=1001), CONDITION)
    assert not verdict(before, node("a", allowed=11, not_allowed=1000, expired=900), CONDITION)
    why = verdict(before, node("a", allowed=20, not_allowed=1010), CONDITION)
    assert why.startswith("10 of 20 decisions (50.0%)")


def test_a_daemon_that_was_started_anew_counts_from_nothing() -> None:
    """Its counts went back: all of them are new."""
    before = node("a", allowed=5000, not_allowed=500)
    assert not verdict(before, node("a", allowed=100, not_allowed=1), CONDITION)
    assert verdict(before, node("a", allowed=100, not_allowed=50), CONDITION)


def test_nodes_count_together() -> None:
    """A node without requests says nothing; one that refuses something holds."""
    before = {**node("a", allowed=1), **node("b", allowed=1)}
    assert not verdict(before, {**node("a", allowed=1), **node("b", allowed=1)}, CONDITION)
    after = {**node("a", allowed=1000), **node("b", allowed=1, not_allowed=5)}
    assert not verdict(before, after, CONDITION)
    refusing = {**node("a", allowed=1000), **node("b", refused=1, allowed=1)}
    assert "node b refused" in verdict(before, refusing, CONDITION)
