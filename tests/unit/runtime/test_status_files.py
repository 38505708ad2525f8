"""Files in which processes tell what is so while they run."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import ROOT

from sidecar.runtime.status_files import GONE_SECONDS, StatusFile, status_files


def told(directory: Path) -> list[tuple[bytes, bool]]:
    return [(path.read_bytes(), runs) for path, runs in status_files(directory)]


def test_a_file_is_its_processes_while_that_runs(tmp_path: Path) -> None:
    """Two of one host have a file each; one that ends in order takes its own away."""
    one, other = StatusFile(tmp_path / "status"), StatusFile(tmp_path / "status")
    one.write(b"1")
    other.write(b"2")
    one.write(b"3")
    assert sorted(told(tmp_path / "status")) == [(b"2", True), (b"3", True)]
    one.close()
    assert told(tmp_path / "status") == [(b"2", True)]
    other.close()
    assert told(tmp_path / "status") == []


def test_the_file_of_a_killed_process_is_known_as_such(tmp_path: Path) -> None:
    """Its lock went with it; after a minute the next process removes it."""
    code = (
        "import sys, signal, pathlib; from sidecar.runtime.status_files import StatusFile; "
        "file = StatusFile(pathlib.Path(sys.argv[1])); file.write(b'1'); print(1, flush=True); "
        "signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert told(tmp_path) == [(b"1", True)]
        process.send_signal(signal.SIGKILL)
    assert told(tmp_path) == [(b"1", False)]
    [(path, _)] = status_files(tmp_path)
    old = path.stat().st_mtime - GONE_SECONDS - 1
    os.utime(path, (old, old))
    file = StatusFile(tmp_path)
    file.write(b"2")
    assert told(tmp_path) == [(b"2", True)]
    file.close()


def test_who_may_read_a_lock_can_not_hold_it(tmp_path: Path) -> None:
    """Not while its process runs, and not after: what it told then isn't taken for a running one's,
    and is removed."""
    file = StatusFile(tmp_path)
    file.write(b"1")
    [lock] = tmp_path.glob("*.lock")
    reader = os.open(lock, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(OSError, match="Bad file descriptor"):
        fcntl.lockf(reader, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(BlockingIOError):
        fcntl.lockf(reader, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert told(tmp_path) == [(b"1", True)]
    os.close(file._lock)  # as if it was killed
    fcntl.lockf(reader, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert told(tmp_path) == [(b"1", False)]
    os.close(reader)


def test_the_group_may_read_and_nobody_else(tmp_path: Path) -> None:
    """Whatever the umask: the agent is in the daemon's group."""
    before = os.umask(0o077)
    try:
        file = StatusFile(tmp_path / "status")
        file.write(b"1")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "status").iterdir()}
    assert modes == {0o640}
    assert (tmp_path / "status").stat().st_mode & 0o777 == 0o750
    file.close()
