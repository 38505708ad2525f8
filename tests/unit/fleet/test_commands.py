"""`fleet …`: the services."""

from __future__ import annotations

import logging
import sys

import pytest

from sidecar.fleet.commands import _until_stopped
from sidecar.runtime.log_lines import IndentingFormatter, ThreadHandler


async def test_a_service_does_not_wait_for_who_reads_its_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any user can hold journald up: a thread of its own writes, as in the other services."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(IndentingFormatter())
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    found: list[logging.Handler] = []

    async def work() -> None:
        found.extend(logging.getLogger().handlers)

    assert await _until_stopped(work()) == 0
    assert [type(each) for each in found] == [ThreadHandler]
