"""What the log tells of reloads."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from sidecar.authorizer.policy_store import Reload
from sidecar.authorizer.reload_lines import MAX_LINES, PERIOD, ReloadLines
from sidecar.core.errors import Diagnostic
from sidecar.core.policy.compile import compile_draft

POLICY = compile_draft(b"version: 1\nlocations: [{name: site, allow: public}]\n", "p.yaml").bind({})


class Timer:
    """A clock, and what it is to call."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.calls.append((self.now + seconds, call))

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        due = [each for each in self.calls if each[0] <= self.now]
        self.calls = [each for each in self.calls if each not in due]
        for _, call in due:
            call()


def refused(number: int, mistakes: int = 10) -> Reload:
    found = (Diagnostic(f"{number}.crl", line, 1, "broken") for line in range(mistakes))
    return Reload(POLICY, tuple(found), 0.0)


def test_reloads_without_end_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Of many minutes of refused reloads only some are told; the last one always is."""
    timer = Timer()
    lines = ReloadLines(clock=lambda: timer.now, later=timer.later)
    with caplog.at_level(logging.INFO):
        for number in range(3000):
            lines.tell(refused(number))
            timer.sleep(0.2)
        timer.sleep(PERIOD)
    assert len(caplog.text.splitlines()) < 12 * (MAX_LINES + 30)
    assert "2999.crl" in caplog.text
    assert "reloads before this one aren't told" in caplog.text
    assert not timer.calls


def test_few_reloads_are_all_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """However much there is to say of one of them."""
    timer = Timer()
    lines = ReloadLines(clock=lambda: timer.now, later=timer.later)
    with caplog.at_level(logging.INFO):
        lines.tell(refused(1, 200))
        lines.tell(Reload(POLICY, (), 0.0))
        lines.tell(refused(2, 200))
        assert "1.crl" in caplog.text
        assert "2.crl" in caplog.text
        assert "is in force" in caplog.text
        caplog.clear()
        lines.tell(Reload(POLICY, (), 0.0))
        assert not caplog.text
        timer.sleep(PERIOD)
        assert "is in force" in caplog.text
        assert "aren't told" not in caplog.text
