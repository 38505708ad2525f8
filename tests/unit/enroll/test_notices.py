"""Notices of certificates that end: at each time before the end once, and never twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from issuing import Issuing

from sidecar.enroll import clients
from sidecar.enroll.issuance import Wanted
from sidecar.enroll.notices import due, give_notices
from sidecar.enroll.settings import NotifySettings

DAY = 86400
BEFORE = (30 * DAY, 7 * DAY, DAY)


@pytest.fixture
def found(tmp_path: Path) -> Issuing:
    """A certificate of 60 days, and a hook that keeps what it is told."""
    issuing = Issuing(tmp_path, "profiles: {default: {validity: 60d, renew_before: 40d}}\n")
    issuing.issuance.redeem(issuing.invite(device="phone"), Wanted("p12"))
    return issuing


def hook(tmp_path: Path, *, code: int = 0) -> NotifySettings:
    script = f"cat >>{tmp_path}/told; echo >>{tmp_path}/told; exit {code}"
    return NotifySettings(("/bin/sh", "-c", script), BEFORE, 60)


def give(issuing: Issuing, settings: NotifySettings) -> int:
    return give_notices(issuing.store, settings, issuing.clock)


def told(tmp_path: Path) -> list[dict[str, object]]:
    file = tmp_path / "told"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_each_time_before_the_end_has_one_notice(found: Issuing, tmp_path: Path) -> None:
    """At 30, 7 and 1 days, each once, however often it is looked; none after the end."""
    start, settings = found.clock.now, hook(tmp_path)
    for day in (0, 29, 30.5, 31, 40, 53.5, 54, 59.5, 59.9, 61):
        found.clock.now = start + day * DAY
        for _ in range(2):
            give(found, settings)
    assert [each["before_seconds"] for each in told(tmp_path)] == list(BEFORE)
    assert [each["days_left"] for each in told(tmp_path)] == [29, 6, 0]
    first = told(tmp_path)[0]
    assert (first["name"], first["device"], first["sha256"]) == (
        *("alice", "phone"),
        found.clients[0].sha256,
    )


def test_a_time_that_was_missed_is_told_by_the_next_one(found: Issuing, tmp_path: Path) -> None:
    """A service that was off for a month tells once, not three times."""
    found.clock.now += 59.5 * DAY
    assert give(found, hook(tmp_path)) == 1
    assert give(found, hook(tmp_path)) == 0


def test_a_hook_that_fails_is_tried_again(
    found: Issuing, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The notice is not lost, and the reason is logged."""
    found.clock.now += 31 * DAY
    assert give(found, hook(tmp_path, code=3)) == 0
    assert "the command failed (3)" in caplog.text
    missing = NotifySettings((str(tmp_path / "missing"),), BEFORE, 60)
    assert give(found, missing) == 0
    slow = NotifySettings(("/bin/sleep", "60"), BEFORE, 0)
    assert give(found, slow) == 0
    assert "took more than" in caplog.text
    assert give(found, hook(tmp_path)) == 1


def test_one_that_was_cut_off_is_not_given_again(found: Issuing, tmp_path: Path) -> None:
    """It may have been given: never twice."""
    found.clock.now += 31 * DAY
    (notice,) = due(found.store, BEFORE, found.clock())
    with found.store.changing() as connection:
        row = (notice.certificate.sha256, notice.before, "started", found.clock())
        connection.execute("INSERT INTO notices VALUES (?, ?, ?, ?)", row)
    assert give(found, hook(tmp_path)) == 0


def test_who_has_a_newer_one_or_is_revoked_is_not_told(found: Issuing, tmp_path: Path) -> None:
    """A renewed certificate, and a revoked one, need no renewal."""
    found.clock.now += 31 * DAY
    old = found.clients[0]
    found.issuance.renew(old.sha256, Wanted("p12"))
    assert give(found, hook(tmp_path)) == 0
    found.issuance.redeem(found.invite("bob", device="phone"), Wanted("p12"))
    bob = next(each for each in found.clients if each.name == "bob")
    with found.store.changing() as connection:
        clients.mark_revoked(connection, [bob.sha256], found.clock(), "")
    found.clock.now += 31 * DAY
    assert {each.certificate.name for each in due(found.store, BEFORE, found.clock())} == {"alice"}
