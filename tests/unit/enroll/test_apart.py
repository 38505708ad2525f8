"""A process of its own for the store: its answer, its errors, and its end."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from sidecar.enroll.apart import apart
from sidecar.enroll.store import StoreError

NOBODY = 65534

# Other tests of this process may have left threads; a command has one alone.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def test_what_is_returned_comes_back(tmp_path: Path) -> None:
    """More than a pipe holds, too; and nothing is nothing."""
    assert apart(tmp_path, lambda: ["x" * 1_000_000], 30) == ["x" * 1_000_000]
    assert apart(tmp_path, lambda: None, 30) is None
    assert apart(tmp_path, os.getpid, 30) != os.getpid()


def test_what_it_raises_is_told() -> None:
    """The store's own errors, those of files, and any other, each as one OSError."""

    def fail(error: Exception) -> None:
        raise error

    for error, said in (
        (StoreError("it is damaged"), "it is damaged"),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied"),
        (RuntimeError("odd"), "odd"),
    ):
        with pytest.raises(OSError, match=said):
            apart(Path("/"), lambda error=error: fail(error), 30)  # type: ignore[misc]


def test_it_ends_in_time(tmp_path: Path) -> None:
    """What opens a FIFO that nobody writes is killed, and so is what has died without an answer."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(TimeoutError, match=r"takes longer than 0\.3 s"):
        apart(tmp_path, lambda: (tmp_path / "fifo").read_bytes().decode(), 0.3)
    with pytest.raises(OSError, match="ended without an answer"):
        apart(tmp_path, lambda: os.kill(os.getpid(), 9), 30)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_it_is_of_the_directorys_owner(tmp_path: Path) -> None:
    """For good: it can't become root again, and nobody traces or reads it."""
    os.chown(tmp_path, NOBODY, NOBODY)
    os.chmod(tmp_path, 0o700)
    assert apart(tmp_path, lambda: os.getresuid() + os.getresgid(), 30) == [NOBODY] * 6
    assert os.getresuid() == (0, 0, 0)
    kept = apart(tmp_path, lambda: os.stat("/proc/self/fd").st_uid, 30)
    assert kept == 0


def test_nothing_is_left(tmp_path: Path) -> None:
    """No process and no descriptor."""

    def left() -> list[str]:
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        return sorted([*children, *os.listdir("/proc/self/fd")])

    before = left()
    apart(tmp_path, time.time, 30)
    assert left() == before
