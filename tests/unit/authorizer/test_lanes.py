"""Many files of CRLs are read in a few threads; no owner's files hold up another's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.authorizer.lanes import CrlReaders, Lane
from sidecar.runtime.crl_worker import HERE
from sidecar.runtime.files import FileVersion


class Slow:
    """Work that goes on until it may end."""

    def __init__(self) -> None:
        self.begun, self.ended = threading.Semaphore(0), threading.Semaphore(0)
        self.may_end = threading.Event()
        self.threads: set[threading.Thread] = set()

    def __call__(self) -> None:
        self.threads.add(threading.current_thread())
        self.begun.release()
        self.may_end.wait()
        self.ended.release()


@pytest.fixture
def slow() -> Any:
    found = Slow()
    yield found
    found.may_end.set()


def _all(semaphore: threading.Semaphore, number: int) -> bool:
    return all(semaphore.acquire(timeout=10) for _ in range(number))


def test_many_are_worked_off_by_few_threads(slow: Slow) -> None:
    """Those beyond `at_once` wait without a thread, and all have their turn."""
    lane = Lane(3, 3)
    for _ in range(40):
        lane.start("ca", slow)
    assert _all(slow.begun, 3)
    assert not slow.begun.acquire(timeout=0.05)
    slow.may_end.set()
    assert _all(slow.ended, 40)
    assert len(slow.threads) == 3


def test_one_owner_holds_up_no_other(slow: Slow) -> None:
    """While one has as many as it may, and many more wait, another one's begins at once."""
    lane, other = Lane(3, 2), Slow()
    other.may_end.set()
    for _ in range(40):
        lane.start("slow", slow)
    assert _all(slow.begun, 2)
    for _ in range(4):
        lane.start("other", other)
    assert _all(other.ended, 4)
    assert not slow.begun.acquire(timeout=0.05)
    slow.may_end.set()
    assert _all(slow.ended, 40)


def test_work_for_which_there_is_no_thread(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and forgotten; a lane that has a thread already goes on with that one."""
    lane, started = Lane(2, 2), Slow()
    start: Callable[..., None] = threading.Thread.start

    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError, match="new thread"):
            lane.start("ca", started)
    lane.start("ca", slow)
    assert _all(slow.begun, 1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        lane.start("ca", slow)
    assert threading.Thread.start is start
    slow.may_end.set()
    assert _all(slow.ended, 2)
    assert not started.begun.acquire(blocking=False)


@pytest.mark.parametrize(("size", "is_small"), [(HERE, True), (HERE + 1, False)])
def test_large_files_hold_up_no_small_ones(size: int, is_small: bool) -> None:
    """They have threads of their own; the administrator's small files need none to wait for."""
    version = FileVersion(1, 1, size, 0, 0)
    fetched, own = CrlReaders(), CrlReaders(are_own=True)
    assert (fetched.lane(version) is fetched.lane(None)) == is_small
    assert (own.lane(version) is None) == is_small
    assert own.lane(version) is not fetched.lane(version)
