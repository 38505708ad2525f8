"""Decide which download replaces a CRL, and when the next one is due."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest
from pki import CA, now

from sidecar.core.revocation.crl.index import read_crls
from sidecar.fetcher.crl_job import (
    FIRST_RETRY,
    INTERVAL,
    LAST_RETRY,
    LONGEST,
    SHORTEST,
    CrlJob,
    Validators,
    Verdict,
    judge,
)
from sidecar.fetcher.plan import CrlSource

STAFF, OTHER = CA("Staff"), CA("Other")
URL = "http://ca.test/staff.crl"


def verdict(data: bytes, held: bytes | None = None) -> Verdict:
    old = None if held is None else read_crls(held, URL, (STAFF.der,))
    return judge(read_crls(data, URL, (STAFF.der,)), old, time.time())


def test_a_newer_crl_of_the_trust_replaces_the_old() -> None:
    """By its number; the same one does too, and the times are those that it states."""
    old, new = STAFF.crl(number=1), STAFF.crl(number=2)
    found = verdict(new, old)
    assert (found.result, found.replaces) == ("updated", True)
    assert found.this_update < found.next_update
    assert verdict(new, new).result == "updated"


def test_an_older_crl_or_one_of_a_stranger_replaces_nothing() -> None:
    """An older CRL, one of another authority and garbage replace nothing."""
    old, new = STAFF.crl(number=1), STAFF.crl(number=2)
    assert verdict(old, new).result == "backwards"
    assert verdict(OTHER.crl(number=9)).result == "invalid"
    assert verdict(b"garbage").result == "invalid"
    assert not any(verdict(each, new).replaces for each in (old, OTHER.crl(number=9), b""))


def test_an_older_crl_joined_with_a_newer_one_counts_for_nothing() -> None:
    """`cat old.crl new.crl`, longer each time, is updated; its newest one tells the times, and
    goes back or doesn't."""
    ended = now() - timedelta(days=1)
    old = STAFF.crl(number=1, this_update=ended - timedelta(days=9), next_update=ended)
    one, two = old + STAFF.crl(number=2), old + STAFF.crl(number=2) + STAFF.crl(number=3)
    assert [verdict(one).result, verdict(two, one).result] == ["updated", "updated"]
    assert verdict(one, two).result == "backwards"


def test_what_can_not_be_compared_does_not_hold_up_a_new_crl() -> None:
    """A held CRL of another authority, from the future, or unreadable doesn't make a new one
    older."""
    new = STAFF.crl(number=2)
    ahead = STAFF.crl(number=9, this_update=now() + timedelta(days=1))
    for held in (OTHER.crl(number=9), ahead, b"garbage"):
        assert verdict(new, held).result == "updated"


def test_a_crl_past_its_end_is_stale_and_replaces() -> None:
    """A CRL after its nextUpdate is `stale` and still replaces an older one, because it revokes."""
    ended = STAFF.crl(
        number=3, this_update=now() - timedelta(days=9), next_update=now() - timedelta(days=1)
    )
    found = verdict(ended, STAFF.crl(number=2, this_update=now() - timedelta(days=10)))
    assert (found.result, found.replaces) == ("stale", True)


def test_a_clock_that_is_set_ahead_ends_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a suspended machine's sleep: what was due by then is asked for at once; and a clock
    that is set back lengthens no pause."""
    monkeypatch.setattr("sidecar.fetcher.crl_job.LOOK_EVERY", 0.01)
    source = CrlSource("staff", URL, (STAFF.der,))
    steps: list[float] = []
    ahead = 0.0

    class Counted(CrlJob):
        async def step(self) -> float:
            nonlocal ahead
            steps.append(time.monotonic())
            if len(steps) == 1:
                asyncio.get_running_loop().call_later(0.1, set_clock, 3600.0)
                return 3600.0
            if len(steps) == 2:
                asyncio.get_running_loop().call_later(0.1, set_clock, -3600.0)
                return 0.3
            raise asyncio.CancelledError

    def set_clock(by: float) -> None:
        nonlocal ahead
        ahead = by

    job = Counted(source, tmp_path, None, None, clock=lambda: time.time() + ahead)  # type: ignore[arg-type]  # nothing is asked
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(asyncio.wait_for(job.run(), 60))
    assert len(steps) == 3


def test_validators_are_sent_only_where_the_server_gave_them() -> None:
    """An empty validator gives no header."""
    assert Validators().headers() == {}
    assert Validators("ab", '"1"').headers() == {"If-None-Match": '"1"'}
    assert set(Validators("ab", '"1"', "Mon").headers()) == {"If-None-Match", "If-Modified-Since"}


class Job(CrlJob):
    """One whose clock stands at zero and whose CRL ends then and then."""

    def __init__(self, tmp_path: Path, next_update: float) -> None:
        source = CrlSource("staff", URL, (STAFF.der,))
        super().__init__(source, tmp_path, None, None, clock=lambda: 0.0)  # type: ignore[arg-type]  # nothing is asked
        self._standing = Verdict("updated", next_update=next_update)

    def delay(self, fresh_for: float | None) -> float:
        return self._delay(fresh_for)

    def pause(self, asked: float, failures: int) -> float:
        self._failures = failures
        return self._pause(asked)


@pytest.mark.parametrize(
    ("fresh_for", "expected"),
    [(None, INTERVAL), (1.0, SHORTEST), (600.0, 600.0), (10 * LONGEST, LONGEST)],
)
def test_the_next_download_is_due_by_max_age(
    tmp_path: Path, fresh_for: float | None, expected: float
) -> None:
    """The interval follows max-age within its bounds, with a jitter of at most a tenth."""
    found = Job(tmp_path, 30 * LONGEST).delay(fresh_for)
    assert 0.9 * expected <= found <= 1.1 * expected


def test_the_next_download_comes_before_the_end(tmp_path: Path) -> None:
    """A CRL is downloaded again before it ends, whatever max-age says."""
    assert Job(tmp_path, 3600.0).delay(LONGEST) < 3600.0


def test_pauses_grow_and_are_bounded(tmp_path: Path) -> None:
    """The pause doubles after failures; Retry-After never makes it longer than the maximum."""
    job = Job(tmp_path, 0.0)
    assert job.pause(0.0, 1) <= 1.1 * FIRST_RETRY
    assert job.pause(0.0, 30) <= 1.1 * LAST_RETRY
    assert job.pause(1e9, 1) <= 1.1 * LAST_RETRY
