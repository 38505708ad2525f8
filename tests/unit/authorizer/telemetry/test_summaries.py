"""The budgets of denials in the decision log: what is logged one by one, and what is counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pki import CA

from sidecar.authorizer.request_cache import CachedAnswer, RenderedDecision
from sidecar.authorizer.telemetry.decision_log import DecisionLog
from sidecar.authorizer.telemetry.summaries import (
    BURST,
    INTERVAL,
    MAX_BUDGETS,
    Summaries,
    budget_of,
)
from sidecar.core.decision import ISSUED, Decision, Reason
from sidecar.core.request import AuthzRequest
from sidecar.core.x509.certificate import from_der

ca = CA("Staff")
alice = from_der(ca.issue("alice").der)

RATE = 50
FULL = RATE * BURST


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def denial(reason: Reason = Reason.NO_CERTIFICATE, location: str = "site", **more: Any) -> Decision:
    return Decision(reason, location, **more)


def admitted(summaries: Summaries, decision: Decision, times: int) -> int:
    return sum(summaries.admits(decision, "192.0.2.1", b"a" * 32, 5.0) for _ in range(times))


def test_a_flood_of_strangers_is_counted() -> None:
    """Beyond the burst a stranger's denials are in the summary, and none is lost in number."""
    summaries = Summaries(RATE, clock := Clock())
    assert admitted(summaries, denial(), 100_000) == FULL + 1
    clock.now += INTERVAL
    [summary] = summaries.take()
    assert summary.count == summaries.total == 100_000 - FULL - 1
    assert (summary.verdict, summary.reason, summary.location) == ("deny", "no_certificate", "site")


def test_the_first_of_each_kind_is_always_logged() -> None:
    """A flood of one reason at one location hides no other: the first of each has its line."""
    summaries = Summaries(RATE, clock := Clock())
    admitted(summaries, denial(), 10_000)
    for reason in (Reason.EXPIRED, Reason.UNTRUSTED_ISSUER, Reason.BAD_REQUEST):
        assert admitted(summaries, denial(reason), 3) == 1
    assert admitted(summaries, denial(location="admin"), 3) == 1
    clock.now += INTERVAL
    assert len(summaries.take()) == 5


def test_the_budget_comes_back() -> None:
    """A second later so many lines are there again, and never more than the burst."""
    summaries = Summaries(RATE, clock := Clock())
    admitted(summaries, denial(), 10_000)
    clock.now += 1
    assert admitted(summaries, denial(), 10_000) == RATE
    clock.now += 3600
    summaries.take()
    assert admitted(summaries, denial(), 10_000) == FULL + 1


def test_strangers_spend_no_known_client_s_budget() -> None:
    """A known client that is denied has its own budget, and so has each."""
    summaries = Summaries(RATE, Clock())
    bob = from_der(ca.issue("bob").der)
    admitted(summaries, denial(), 10_000)
    for subject in (alice, bob):
        denied = denial(Reason.REVOKED, subject=subject)
        assert admitted(summaries, denied, 10_000) == FULL + 1


@pytest.mark.parametrize("reason", sorted(ISSUED - {Reason.ALLOWED}))
def test_a_known_client_s_flood_is_counted_under_its_certificate(reason: Reason) -> None:
    """A revoked or denied client floods no log either; the summary says whose it is."""
    summaries = Summaries(RATE, Clock())
    admitted(summaries, denial(reason, subject=alice), 10_000)
    [summary] = summaries.take(all_of_them=True)
    assert summary.sha256 == alice.sha256


def test_who_is_let_in_by_its_certificate_is_always_logged() -> None:
    """A grant to a known client is never counted in place of being logged."""
    allowed = Decision(Reason.ALLOWED, "site", subject=alice)
    assert budget_of(allowed) == ""
    assert admitted(Summaries(1, Clock()), allowed, 10_000) == 10_000


@given(
    reason=st.sampled_from(Reason),
    known=st.booleans(),
    monitored=st.booleans(),
)
def test_every_line_that_anybody_can_cause_has_a_budget(
    reason: Reason, known: bool, monitored: bool
) -> None:
    """Whatever the reason: without a proven identity, or denied with one, lines are bounded."""
    decision = Decision(reason, "site", subject=alice if known else None, monitored=monitored)
    let_in = decision.granted and reason is not Reason.PUBLIC
    assert bool(budget_of(decision)) is not let_in
    proven = known and reason in ISSUED
    if not let_in and not proven:
        assert budget_of(decision) != alice.sha256


def test_no_bound_at_all() -> None:
    """`logged_denials: 0` logs every one."""
    assert admitted(Summaries(0, Clock()), denial(), 100_000) == 100_000


def test_certificates_without_end_take_little_memory() -> None:
    """More certificates than can have a budget share one; those that rest have none kept."""
    summaries = Summaries(RATE, clock := Clock())
    for i in range(MAX_BUDGETS + 5000):
        subject = SimpleNamespace(sha256=f"{i:064x}")
        denied = denial(Reason.NOT_ALLOWED, subject=subject)
        summaries.admits(denied, "192.0.2.1", b"", 5.0)
    assert len(summaries._budgets) <= MAX_BUDGETS + 1
    clock.now += BURST + 1
    summaries.take()
    assert not summaries._budgets


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_summary_s_line(tmp_path: Path, form: str) -> None:
    """Count, first and last client and id, all escaped as in any other line."""
    path = tmp_path / "log"
    log = DecisionLog("all", form, str(path), rate=1)
    answered = RenderedDecision(denial(), b"", 0.0, 9e9)
    for i in range(100):
        request = AuthzRequest("site", client_ip=f'192.0.2.{i}"\n', request_id=f'id{i}"\\\x1b')
        log.write(answered, request, 0.0)
    log.close()
    lines = path.read_text().splitlines()
    assert len(lines) == BURST + 1 + 1
    line = lines[-1]
    if form == "json":
        found = json.loads(line)
        assert found["summarized"] == str(100 - BURST - 1)
        assert (found["first_id"], found["last_id"]) == ('id11"\\\x1b', 'id99"\\\x1b')
        assert (found["first_client_ip"], found["last_client_ip"]) == (
            '192.0.2.11"\n',
            '192.0.2.99"\n',
        )
        assert found["decision"] == "deny"
        assert found["time"].endswith("Z")
    else:
        assert f'reason="no_certificate" location="site" sha256="" summarized="{89}"' in line
        assert r'last_id="id99\"\\\u001b"' in line


def test_repeats_are_counted_too(tmp_path: Path) -> None:
    """Requests known again without parsing spend the same budget: lines and counts make up all."""
    path = tmp_path / "log"
    log = DecisionLog("all", "json", str(path), rate=RATE)
    known = CachedAnswer(
        AuthzRequest("site"), RenderedDecision(denial(), b"", 0.0, 9e9), b"", 0.0, 9e9
    )
    for _ in range(1000):
        log.write_cached([(known, b"/", b"0" * 32, 5.0, 5.0)] * 16)
    log.close()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    counted = Counter("summarized" in line for line in found)
    assert counted[False] + sum(int(line.get("summarized", 0)) for line in found) == 16_000
    assert counted[False] < 2 * FULL


@pytest.mark.parametrize("mode", ["off", "denied"])
def test_what_is_not_logged_is_not_summarized(tmp_path: Path, mode: str) -> None:
    """`decision_log: denied` counts nothing that was let through, `off` nothing at all."""
    log = DecisionLog(mode, "json", str(tmp_path / "log"), rate=1)
    for reason in (Reason.PUBLIC, Reason.ALLOWED):
        answered = RenderedDecision(Decision(reason, "site"), b"", 0.0, 9e9)
        for _ in range(100):
            log.write(answered, None, 0.0)
    if mode == "off":
        for _ in range(100):
            log.write(RenderedDecision(denial(), b"", 0.0, 9e9), None, 0.0)
    log.close()
    assert log.summaries.total == 0
    assert not (tmp_path / "log").exists() or not (tmp_path / "log").read_text()
