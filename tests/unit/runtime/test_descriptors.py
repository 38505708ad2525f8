"""Reserve descriptors for files, so that connections can't use them all."""

from __future__ import annotations

import errno
import logging
import os
import resource

import pytest

from sidecar.runtime.descriptors import RESERVE, connections_with_room, why_no_more


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "found", "raised"),
    [
        (1024, 4096, 512, 512, None),
        (1024, 4096, 2000, 2000, 2000 + RESERVE),
        (1024, 4096, 4096, 4096 - RESERVE, 4096),
        (1024, resource.RLIM_INFINITY, 9000, 9000, 9000 + RESERVE),
        (64, 64, 4096, 32, 64),
        (1, 1, 4096, 1, 1),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 9000, 9000, None),
    ],
)
def test_the_limit_leaves_room_for_files(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, found: int, raised: int
) -> None:
    """The soft limit is raised as far as allowed; `RESERVE` descriptors, or half of a small limit,
    are kept."""
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    assert connections_with_room(wanted) == found
    assert limits == ([] if raised is None else [(raised, hard)])


def test_fewer_connections_than_set_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the number of connections, and the limit to raise."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    with caplog.at_level(logging.WARNING):
        assert connections_with_room(4096) == 1024 - RESERVE
    assert "limits.max_connections is 768, not 4096" in caplog.text
    assert f"LimitNOFILE (ulimit -n) to {4096 + RESERVE}" in caplog.text


def test_a_process_that_can_open_files_says_nothing() -> None:
    """While a descriptor is free, there is no reason."""
    assert why_no_more() == ""


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.EMFILE, os.strerror(errno.EMFILE)), (errno.ENFILE, "in system"), (errno.EBADF, "")],
)
def test_why_no_file_can_be_opened(monkeypatch: pytest.MonkeyPatch, number: int, told: str) -> None:
    """Only the limits of the process and of the system are reasons."""

    def dup(_: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "dup", dup)
    found = why_no_more()
    assert told in found
    assert bool(found) == bool(told)
