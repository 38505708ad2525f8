"""What is remembered of decisions: only between their making and their turning, and by weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asking
import pytest
from daemon import question
from fuzz_targets import Transport, silent
from hypothesis import given
from hypothesis import strategies as st
from pki import CA, Leaf

from sidecar.authorizer.connection import Connection, Service
from sidecar.authorizer.decision_cache import Engine
from sidecar.core.config.settings import Limits
from sidecar.core.policy.compile import Policy

staff = CA("Staff")
alice = staff.issue("alice")
NOW = datetime.now(UTC).timestamp()
DAY = 86_400.0


def stamp(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass
class Clocked:
    """An engine behind its connections, and the clock it reads."""

    policy: Policy
    at: float = NOW

    def __post_init__(self) -> None:
        engine = Engine(self.policy, entries=64, answers={}, clock=lambda: self.at)
        self.service = Service(engine, silent(), Limits())

    def ask(self, at: float, leaf: Leaf = alice, location: str = "site") -> bytes:
        """The first line of what is answered at a moment, three times the same."""
        self.at = at
        found = {self._once(question(location, leaf)) for _ in range(3)}
        assert len(found) == 1
        return found.pop()

    def _once(self, data: bytes) -> bytes:
        connection, transport = Connection(self.service), Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]  # one in all but name
        connection.data_received(data)
        return transport.sent.split(b" ")[1]


def denylist_until() -> Policy:
    text = """
version: 1
trust: {staff: {ca: ca.crt, denylist: [denylist.txt]}}
locations: [{name: site, allow: verified}]
"""
    line = f"sha256 {alice.sha256} until {stamp(NOW)}\n"
    return asking.policy(text, ca_crt=staff.pem, denylist_txt=line.encode())


def rule_from() -> Policy:
    return asking.site(f"[{{cn: alice, from: {stamp(NOW)}}}]")


def deny_until() -> Policy:
    return asking.site("verified", f"    deny: [{{cn: alice, until: {stamp(NOW)}}}]\n")


def verified() -> Policy:
    return asking.site("verified")


def cached() -> Policy:
    return asking.site(f"[{{cn: alice, from: {stamp(NOW)}}}]", "    cache_seconds: 60\n")


young = staff.issue("alice", not_before=datetime.fromtimestamp(NOW, UTC).replace(microsecond=0))


@pytest.mark.parametrize(
    ("policy", "leaf"),
    [
        (denylist_until, alice),
        (rule_from, alice),
        (deny_until, alice),
        (verified, young),
        (cached, alice),
    ],
)
def test_a_clock_that_goes_back_forgets(policy: Callable[[], Policy], leaf: Leaf) -> None:
    """What was allowed later isn't before: `until`, `from` and notBefore, in both directions."""
    here = Clocked(policy())
    for _ in range(2):
        assert here.ask(NOW + 5, leaf) == b"204"
        assert here.ask(NOW - DAY, leaf) != b"204"
        assert here.ask(NOW - 2, leaf) != b"204"
        assert here.ask(NOW + DAY / 2, leaf) == b"204"


def test_a_clock_that_jumps_ahead_forgets() -> None:
    """A certificate that has ended by then is expired, and is not once the clock is back."""
    brief = staff.issue("alice", not_after=datetime.now(UTC) + timedelta(days=2))
    here = Clocked(verified())
    for _ in range(2):
        assert here.ask(NOW + 5, brief) == b"204"
        assert here.ask(NOW + 400 * DAY, brief) == b"401"


@given(moments=st.lists(st.floats(-5.0, 5.0), max_size=20))
def test_any_walk_of_the_clock_is_as_if_nothing_were_remembered(moments: list[float]) -> None:
    """Whatever way the clock goes around a turn, each answer is that moment's own."""
    here = WALKED
    for offset in moments:
        moment = int(NOW) + offset
        assert here.ask(moment) == (b"204" if moment >= int(NOW) else b"403")


WALKED = Clocked(rule_from())
