"""Cache decisions: only for their period of validity, and bounded by weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import asking
import pytest
from cryptography import x509
from daemon import question
from der import der_extension, der_oid, der_rdn, tlv
from fuzz_targets import Transport, silent
from hypothesis import given
from hypothesis import strategies as st
from pki import CA, Leaf

from sidecar.authorizer import decision_cache
from sidecar.authorizer.connection import Connection, Service
from sidecar.authorizer.decision_cache import Engine
from sidecar.core.config.settings import Limits
from sidecar.core.policy.model import Policy
from sidecar.core.request import AuthzRequest

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
    """After the clock goes back, `until`, `from` and notBefore are decided again, in both
    directions."""
    here = Clocked(policy())
    for _ in range(2):
        assert here.ask(NOW + 5, leaf) == b"204"
        assert here.ask(NOW - DAY, leaf) != b"204"
        assert here.ask(NOW - 2, leaf) != b"204"
        assert here.ask(NOW + DAY / 2, leaf) == b"204"


def test_a_clock_that_jumps_ahead_forgets() -> None:
    """A certificate that ends before the new time is expired, and valid again when the clock is
    back."""
    brief = staff.issue("alice", not_after=datetime.now(UTC) + timedelta(days=2))
    here = Clocked(verified())
    for _ in range(2):
        assert here.ask(NOW + 5, brief) == b"204"
        assert here.ask(NOW + 400 * DAY, brief) == b"401"


@given(moments=st.lists(st.floats(-5.0, 5.0), max_size=20))
def test_any_walk_of_the_clock_is_as_if_nothing_were_remembered(moments: list[float]) -> None:
    """For any sequence of times around a change, each answer is the same as without a cache."""
    here = WALKED
    for offset in moments:
        moment = int(NOW) + offset
        assert here.ask(moment) == (b"204" if moment >= int(NOW) else b"403")


WALKED = Clocked(rule_from())


# -- refusals of strangers


TRUSTED = """
version: 1
trust: {staff: {ca: ca.crt, revocation: off}}
locations:
  - {name: site, allow: verified}
  - {name: names, allow: verified, san_matches_host: true}
"""
nobody = CA("Nobody")
bmp = tlv(0x30, der_oid("2.5.4.3"), tlv(0x1E, b"\0a"))
SKI = x509.SubjectKeyIdentifier(b"k" * 20)
HOSTILE = {
    "4,800 names": staff.forge(subject=tlv(0x30, *[tlv(0x31, bmp)] * 4800)),
    "one RDN of 4,800": staff.forge(subject=tlv(0x30, tlv(0x31, *[bmp] * 4800))),
    "a name of 60 KB": staff.forge(subject=tlv(0x30, der_rdn("2.5.4.3", b"a" * 60_000))),
    "5,000 alternative names": nobody.forge(dns=["a.b"] * 5000),
    "4,000 alternative names": nobody.forge(dns=["a.b"] * 4000),
    "2,000 extensions": nobody.forge(extensions=[der_extension(SKI)] * 2000),
    "nested": nobody.forge(
        extensions=[tlv(0x30, der_oid("2.5.29.17"), tlv(0x04, b"\x30\x80" * 20_000))]
    ),
    "of nobody": nobody.issue("alice"),
    "expired": staff.issue("alice", not_after=datetime.fromtimestamp(NOW - DAY, UTC)),
    "young": staff.issue("alice", not_before=datetime.fromtimestamp(NOW + DAY, UTC)),
}


def engine(entries: int = 64) -> Engine:
    rules = asking.policy(TRUSTED, ca_crt=staff.pem)
    return Engine(rules, entries=entries, answers={}, clock=lambda: NOW)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_refusal_of_a_certificate_is_remembered(kind: str) -> None:
    """The second time nothing is parsed or verified, and log line and answer are the same."""
    found = engine()
    request = asking.request(HOSTILE[kind])
    first = found.decide(request)
    assert not first.decision.granted
    with patch.object(decision_cache, "evaluate", side_effect=AssertionError):
        again = found.decide(request)
    assert (again.head, again.decision.reason) == (first.head, first.decision.reason)
    said, told = (each.decision.subject for each in (first, again))
    if said is not None and told is not None:
        assert (told.dn, told.serial_hex, told.sha256) == (said.dn, said.serial_hex, said.sha256)
        assert told.der == b""


@pytest.mark.parametrize(
    "other",
    [
        asking.request(HOSTILE["of nobody"], "names", host="a.example"),
        asking.request(HOSTILE["of nobody"], verify="FAILED:x"),
        asking.request(nobody.issue("alice")),
        asking.request(alice),
    ],
)
def test_a_refusal_is_for_the_very_same_question(other: AuthzRequest) -> None:
    """Another location, verify result or certificate is decided again."""
    found = engine()
    found.decide(asking.request(HOSTILE["of nobody"]))
    with (
        patch.object(decision_cache, "evaluate", side_effect=AssertionError),
        pytest.raises(AssertionError),
    ):
        found.decide(other)


def test_endless_strangers_evict_no_regulars() -> None:
    """Any number of unknown certificates evicts no used entry and needs only bounded memory."""
    found = engine(entries=8)
    for _ in range(3):
        found.decide(asking.request(alice))
    key = nobody.issue("x").private
    for number in range(300):
        found.decide(asking.request(nobody.issue(f"mallory{number}", key=key)))
    assert len(found._refusals) < 50
    with patch.object(decision_cache, "evaluate", side_effect=AssertionError):
        assert found.decide(asking.request(alice)).decision.granted


@pytest.mark.parametrize("at", [NOW - 1, NOW + 2 * DAY], ids=["back", "later"])
def test_a_refusal_holds_while_it_can_not_turn(at: float) -> None:
    """A certificate that is not yet valid is allowed later; a clock that goes back discards the
    refusal."""
    clocked = Clocked(asking.policy(TRUSTED, ca_crt=staff.pem))
    assert clocked.ask(NOW, HOSTILE["young"]) == b"401"
    assert clocked.ask(at, HOSTILE["young"]) == (b"204" if at > NOW else b"401")
    assert clocked.ask(NOW, HOSTILE["young"]) == b"401"
