"""A real daemon whose clock is set ahead and back while it runs (libfaketime)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from daemon import UNMEASURED, Daemon
from pki import CA, Leaf, now
from tools import faketime, need

DAY = timedelta(days=1)
STAFF = CA("Staff", not_before=now() - DAY)
ALICE, BOB = (
    STAFF.issue(name, not_before=now() - DAY, not_after=now() + 900 * DAY)
    for name in ("alice", "bob")
)
POLICY = """
version: 1
trust: {staff: {ca: ca.crt, crl: [ca.crl]}}
locations: [{name: site, allow: verified}]
"""
MARKS = "state/crl-watermarks.json"
RELOADS = 'mtls_sidecar_policy_reloads_total{result="success"}'
REFUSED = "mtls_sidecar_crl_backwards_total"
Step = Callable[[timedelta], None]


def crl(number: int, ahead: timedelta, *revoked: Leaf) -> bytes:
    """A CRL whose thisUpdate is so far from now."""
    start = now() + ahead
    return STAFF.crl(revoked, number=number, this_update=start, next_update=start + 9 * DAY)


@pytest.fixture
def stepped(tmp_path: Path) -> Iterator[tuple[Daemon, Step]]:
    """A daemon with a CRL in force, and what sets its clock."""
    offset = tmp_path / "offset"

    def step(by: timedelta) -> None:
        aside = tmp_path / "offset.new"
        aside.write_text(f"{by.total_seconds():+.0f}")
        aside.rename(offset)

    step(timedelta())
    first = crl(5, -timedelta(hours=1))
    daemon = Daemon(tmp_path, POLICY, ca_crt=STAFF.pem, ca_crl=first)
    daemon.environ = UNMEASURED | {
        "LD_PRELOAD": str(need(faketime()).path),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # or each wait with a time-out would spin
        "NO_FAKE_STAT": "1",
    }
    daemon.start(wait=False)
    try:
        daemon.until(lambda: daemon.status("/readyz") == 200, 120)
        yield daemon, step
    finally:
        daemon.stop()


def reasons(daemon: Daemon) -> list[str]:
    return [daemon.ask("site", leaf).reason for leaf in (ALICE, BOB)]


def test_a_crl_issued_while_the_clock_was_ahead_bars_no_right_one(
    stepped: tuple[Daemon, Step],
) -> None:
    """Whom it lists stays revoked, an older one is refused still; also after a restart."""
    daemon, step = stepped
    step(365 * DAY)
    daemon.until(lambda: reasons(daemon) == ["revocation_unknown"] * 2)
    daemon.write("ca.crl", crl(6, 365 * DAY, BOB))
    daemon.until(lambda: reasons(daemon) == ["allowed", "revoked"])
    step(timedelta())
    daemon.until(lambda: reasons(daemon) == ["revocation_unknown", "revoked"])
    daemon.write("ca.crl", crl(7, timedelta()))
    daemon.until(lambda: reasons(daemon) == ["allowed", "revoked"])
    assert daemon.metric("mtls_sidecar_policy_stale") == 0
    daemon.write("ca.crl", crl(4, -timedelta(hours=2)))
    daemon.until(lambda: daemon.metric("mtls_sidecar_crl_backwards_total") == 1)
    daemon.write("ca.crl", crl(7, timedelta()))
    daemon.until(lambda: daemon.metric("mtls_sidecar_policy_stale") == 0)
    daemon.stop()
    daemon.start(wait=False)
    daemon.until(lambda: daemon.status("/readyz") == 200, 120)
    assert reasons(daemon) == ["allowed", "revoked"]


def test_the_crl_beside_the_next_one_serves_again(stepped: tuple[Daemon, Step]) -> None:
    """A clock that goes beyond the next CRL's thisUpdate and back puts the current one into force
    again, though no file has changed since."""
    daemon, step = stepped
    successes = daemon.metric(RELOADS)
    daemon.write("ca.crl", crl(5, -timedelta(hours=1)) + crl(6, 2 * DAY))
    daemon.until(lambda: daemon.metric(RELOADS) > successes)
    assert reasons(daemon) == ["allowed"] * 2
    step(3 * DAY)
    daemon.until(lambda: "[6," in daemon.directory.joinpath(MARKS).read_text())
    daemon.write("ca.crl", crl(5, -timedelta(hours=1)))  # alone: refused as going backwards
    daemon.until(lambda: daemon.metric(REFUSED) > 0)
    assert reasons(daemon) == ["allowed"] * 2
    daemon.until(lambda: daemon.metric("mtls_sidecar_policy_stale") == 1)
    step(timedelta())
    daemon.until(lambda: daemon.metric("mtls_sidecar_policy_stale") == 0)
    assert reasons(daemon) == ["allowed"] * 2
