"""The last hour, by the minute."""

from __future__ import annotations

from sidecar.authorizer.telemetry.history import MAX_LOCATIONS, MINUTES, History

START = 1_000_000 * 60.0


def test_each_minute_has_what_was_new_in_it() -> None:
    """Counts that only grow become numbers of each minute, by verdict, reason and location."""
    history = History()
    counts = {("site", "allow", "allowed"): 5}
    history.take(counts, START)
    counts["site", "allow", "allowed"] = 8
    history.take(counts, START + 30)
    counts["site", "deny", "expired"] = 2
    counts["admin", "deny", "revoked"] = 1
    history.take(counts, START + 120)
    now = START + 125
    assert history.per_minute("allow", now)[-3:] == [8, 0, 0]
    assert history.per_minute("deny", now)[-3:] == [0, 0, 3]
    assert history.per_minute("deny", now, "site")[-1] == 2
    assert history.in_the_hour(now, "admin") == {("deny", "revoked"): 1}
    assert history.locations() == {"site", "admin"}


def test_what_is_older_than_an_hour_is_gone() -> None:
    """The plots move on, also when nothing comes."""
    history = History()
    history.take({("site", "allow", "allowed"): 5}, START)
    later = START + MINUTES * 60
    assert history.per_minute("allow", later - 60)[0] == 5
    assert sum(history.per_minute("allow", later)) == 0
    assert not history.in_the_hour(later)


def test_a_clock_that_goes_back_adds_to_the_last_minute() -> None:
    """Nothing is lost and nothing fails."""
    history = History()
    history.take({("site", "allow", "allowed"): 1}, START)
    history.take({("site", "allow", "allowed"): 3}, START - 3600)
    assert history.per_minute("allow", START)[-1] == 3


def test_a_minute_keeps_the_busiest_locations() -> None:
    """Ten thousand locations take no more room than so many; those with denials are kept."""
    history = History()
    counts = {(f"l{n}", "allow", "allowed"): n for n in range(10_000)}
    counts["quiet", "deny", "revoked"] = 1
    for minute in range(3):
        history.take(counts, START + 60 * minute)
    assert len(history.locations()) <= 2 * MAX_LOCATIONS
    assert "quiet" in history.locations()
    assert sum(history.per_minute("allow", START + 120)) == sum(range(10_000))
