"""Log conditions when they begin and when they end."""

from __future__ import annotations

import logging

import pytest

from sidecar.runtime.conditions import QUIET, Conditions


class Clock:
    """Moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def levels(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in caplog.records]


def test_its_beginning_and_its_end_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A condition gives one ERROR line at its beginning and one line with its cost at its end."""
    clock = Clock()
    conditions = Conditions(clock)
    for second in range(60):
        clock.now = second
        conditions.report("decision log", "lines are lost: No space left on device", 7 * second)
        assert conditions.standing == ("decision log: lines are lost: No space left on device",)
    for second in range(60, 120):
        clock.now = second
        conditions.report("decision log", "", 420)
    assert levels(caplog) == [
        (logging.ERROR, "decision log: lines are lost: No space left on device"),
        (
            logging.WARNING,
            "decision log: over after 59 s, 420 in all; it was: "
            "lines are lost: No space left on device",
        ),
    ]
    assert conditions.standing == ()


def test_what_comes_and_goes_is_one(caplog: pytest.LogCaptureFixture) -> None:
    """An intermittent condition is logged once, until it has been quiet."""
    clock = Clock()
    conditions = Conditions(clock)
    for second in range(100):
        clock.now = second
        conditions.report("connections", "full" if second % 2 else "")
    assert len(caplog.records) == 1
    clock.now += QUIET
    conditions.report("connections", "")
    assert len(caplog.records) == 2


def test_another_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A changed reason of a condition is logged at once."""
    conditions = Conditions(Clock())
    conditions.report("decision log", "No space left on device")
    conditions.report("decision log", "Input/output error")
    assert [text for _, text in levels(caplog)] == [
        "decision log: No space left on device",
        "decision log: Input/output error",
    ]
