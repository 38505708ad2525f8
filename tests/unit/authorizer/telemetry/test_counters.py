"""The counters: clients that end soon, and those that monitor mode alone lets in."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from asking import site
from pki import CA

from sidecar.authorizer.request_cache import CachedAnswer, RenderedDecision
from sidecar.authorizer.telemetry.counters import (
    DAY,
    HOUR,
    MOST_CLIENTS,
    MOST_STRANGERS,
    MOST_STRANGERS_LOCKED_OUT,
    Counts,
)
from sidecar.authorizer.telemetry.shadow_report import INTERVAL, ShadowReport
from sidecar.core.decision import Decision, Reason
from sidecar.core.request import AuthzRequest
from sidecar.core.x509.certificate import ClientCert, from_der

alice = from_der(CA("Staff").issue("alice").der)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def cert(number: int, not_after: float = 9e9) -> ClientCert:
    return replace(alice, sha256=f"{number:064x}", not_after=not_after)


def allowed(subject: ClientCert) -> RenderedDecision:
    return RenderedDecision(Decision(Reason.ALLOWED, "site", "a", subject=subject), b"", 0.0, 9e9)


def shadowed(
    subject: ClientCert, reason: Reason = Reason.NOT_ALLOWED, rule: str = ""
) -> RenderedDecision:
    decision = Decision(reason, "site", rule, subject=subject, monitored=True)
    return RenderedDecision(decision, b"", 0.0, 9e9)


def test_clients_that_end_soon_are_counted_by_time() -> None:
    """Each within its time; one that has ended does not count."""
    clock = Clock()
    counts = Counts(clock)
    for number, left in enumerate((-1, HOUR / 2, 2 * HOUR, 12 * HOUR, 3 * DAY, 20 * DAY, 90 * DAY)):
        counts.record(allowed(cert(number, clock.now + left)), 0.0)
    assert counts.expiring() == {"1h": 1, "6h": 2, "1d": 3, "7d": 4, "30d": 5}


def test_a_certificate_renewed_in_time_does_not_count() -> None:
    """A daily certificate that was replaced, and is used no more, is no reason for an alert."""
    clock = Clock()
    counts = Counts(clock)
    counts.record(allowed(cert(1, clock.now + DAY)), 0.0)
    clock.now += DAY * 2 / 3
    counts.record(allowed(cert(2, clock.now + DAY)), 0.0)
    clock.now += 7 * HOUR
    counts.record(allowed(cert(2, clock.now + DAY - 7 * HOUR)), 0.0)
    assert counts.expiring()["1h"] == counts.expiring()["6h"] == 0
    assert counts.overdue() == 0


@pytest.mark.parametrize(
    ("life", "left", "unused", "overdue"),
    [
        (DAY, 7 * HOUR, 0, 0),
        (DAY, 5 * HOUR, 0, 1),
        (DAY, 5 * HOUR, 2 * HOUR, 0),
        (90 * DAY, 30 * DAY, 0, 0),
        (90 * DAY, 13 * DAY, DAY, 1),
        (365 * DAY, 60 * DAY, 0, 0),
        (365 * DAY, 13 * DAY, DAY, 1),
        (365 * DAY, -1, DAY, 0),
    ],
)
def test_an_overdue_renewal_is_told_by_the_life_of_a_certificate(
    life: float, left: float, unused: float, overdue: int
) -> None:
    """Of a day or of a year: less than a quarter is left, at most 14 days, and it is in use."""
    clock = Clock()
    counts = Counts(clock)
    end = clock.now + unused + left
    used = replace(cert(1, end), not_before=end - life)
    counts.record(allowed(used), 0.0)
    clock.now += unused
    assert counts.overdue() == overdue


def test_an_answer_from_the_cache_counts_as_let_in() -> None:
    """A client that is only ever answered from the cache is in use all the same."""
    clock = Clock()
    counts = Counts(clock)
    answered = allowed(cert(1, clock.now + 3 * HOUR))
    counts.record(answered, 0.0)
    clock.now += 2.5 * HOUR
    assert counts.expiring()["1h"] == 0
    counts.count_cached([CachedAnswer(AuthzRequest("site"), answered, b"", 0.0, 9e9, uncounted=5)])
    assert counts.expiring()["1h"] == 1


def test_clients_locked_out_are_counted_by_what_denies_them() -> None:
    """Each certificate once, by its last reason and rule; up to a bound."""
    counts = Counts()
    for _ in range(3):
        counts.record(shadowed(cert(1)), 0.0)
    counts.record(shadowed(cert(2), Reason.DENIED_BY_RULE, "deny[0]"), 0.0)
    counts.record(shadowed(cert(1), Reason.DENIED_BY_RULE, "deny[1]"), 0.0)
    assert list(counts.locked_out["site"].values()) == [
        (Reason.DENIED_BY_RULE, "deny[1]"),
        (Reason.DENIED_BY_RULE, "deny[0]"),
    ]
    for number in range(MOST_CLIENTS + 10):
        counts.record(shadowed(cert(number)), 0.0)
    assert len(counts.locked_out["site"]) == counts.locked_out_total == MOST_CLIENTS


def test_strangers_take_no_room_of_the_clients_that_would_be_locked_out() -> None:
    """However many self-made certificates come, at however many locations, a client that a trust
    issued is counted; those of strangers are, too, up to their own number, anew after a reload."""
    counts = Counts(Clock())

    def come(locations: int, most: int) -> None:
        for number in range(most):
            one = shadowed(cert(number), Reason.UNTRUSTED_ISSUER)
            one.decision = one.decision._replace(location=f"l{number % locations}")
            counts.record(one, 0.0)

    come(1, MOST_STRANGERS + 10)
    assert len(counts.locked_out["l0"]) == MOST_STRANGERS
    come(20, MOST_STRANGERS_LOCKED_OUT + MOST_STRANGERS + 10)
    assert counts.locked_out_total == MOST_STRANGERS_LOCKED_OUT
    client = shadowed(cert(1 << 30))
    client.decision = client.decision._replace(location="l0")
    counts.record(client, 0.0)
    assert len(counts.locked_out["l0"]) == MOST_STRANGERS + 1
    counts.reloaded(site("verified"), ok=True, at=0.0)
    come(1, MOST_STRANGERS + 10)
    assert len(counts.locked_out["l0"]) == MOST_STRANGERS


def test_the_log_tells_of_them_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """One line when there are more, and no second one within ten minutes."""
    caplog.set_level(logging.INFO, "mtls-sidecar")
    counts = Counts()
    report = ShadowReport(counts)
    report.look(0.0)
    assert not caplog.messages
    for number in range(3):
        counts.record(shadowed(cert(number)), 0.0)
        report.look(float(number))
    report.look(INTERVAL - 1)
    assert len(caplog.messages) == 1
    assert "lock out clients: site 1" in caplog.messages[0]
    report.look(INTERVAL + 1)
    report.look(2 * INTERVAL + 2)
    assert ["site 1" in each or "site 3" in each for each in caplog.messages] == [True, True]
