"""The fleet's log as a file."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from sidecar.core.fleet.entry import MAX_LINE
from sidecar.runtime.fleet_log import LogReader, LogWriter


def test_lines_are_read_as_they_come(tmp_path: Path) -> None:
    """Each once; half a line not before its other half."""
    path = tmp_path / "log"
    reader = LogReader(path)
    assert list(reader.new_lines()) == []
    writer = LogWriter(path)
    writer.append([b"one", b"two"])
    assert list(reader.new_lines()) == [b"one", b"two"]
    with path.open("ab") as file:
        file.write(b"thr")
    assert list(reader.new_lines()) == []
    with path.open("ab") as file:
        file.write(b"ee\n")
    assert list(reader.new_lines()) == [b"three"]
    writer.close()


def test_another_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    """One that was replaced, and one that became shorter."""
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\n")
    reader = LogReader(path)
    assert list(reader.new_lines()) == [b"one", b"two"]
    (tmp_path / "new").write_bytes(b"1\n2\n3\n4\n5\n")
    (tmp_path / "new").rename(path)
    assert list(reader.new_lines()) == [b"1", b"2", b"3", b"4", b"5"]
    os.truncate(path, 4)
    assert list(reader.new_lines()) == [b"1", b"2"]


def test_a_line_without_end_is_given_out_in_pieces(tmp_path: Path) -> None:
    """Whoever reads it refuses the first: nothing waits for a line feed for ever."""
    path = tmp_path / "log"
    path.write_bytes(b"x" * (MAX_LINE + 10))
    assert [len(line) for line in LogReader(path).new_lines()] == [MAX_LINE + 10]


def test_what_a_killed_writer_left_is_cut_off(tmp_path: Path) -> None:
    """The next writer goes on behind the last whole line."""
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    writer = LogWriter(path)
    writer.append([b"two"])
    writer.close()
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails halfway is taken back, and the next one succeeds."""
    path = tmp_path / "log"
    writer = LogWriter(path)
    writer.append([b"one"])
    true = os.pwrite

    def full(descriptor: int, data: bytes, at: int) -> int:
        if at > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return true(descriptor, data[:3], at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        writer.append([b"two two"])
    monkeypatch.undo()
    assert path.read_bytes() == b"one\n"
    writer.append([b"three"])
    writer.close()
    assert path.read_bytes() == b"one\nthree\n"


def test_two_daemons_of_one_host_write_one_log(tmp_path: Path) -> None:
    """Each appends the same lines; whoever is later leaves them as they are."""
    path = tmp_path / "log"
    one, other = LogWriter(path), LogWriter(path)
    one.append([b"1", b"2"])
    other.append([b"1"])
    other.append([b"2", b"3"])
    one.append([b"3"])
    one.close()
    other.close()
    assert path.read_bytes() == b"1\n2\n3\n"


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    """A log is never where somebody else has pointed."""
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        LogWriter(tmp_path / "log")
    assert not (tmp_path / "elsewhere").exists()


def test_whoever_may_read_it_can_not_hold_it_up(tmp_path: Path) -> None:
    """The group reads the log, and may so lock it; lines are appended all the same.  The writers'
    own lock is a file that nobody else can open."""
    path = tmp_path / "log"
    writer = LogWriter(path)
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        appending = threading.Thread(target=writer.append, args=([b"one"],), daemon=True)
        appending.start()
        appending.join(10)
        assert not appending.is_alive()
    writer.close()
    assert path.read_bytes() == b"one\n"
    (lock,) = tmp_path.glob(".*.lock")
    assert lock.stat().st_mode & 0o777 == 0o600
