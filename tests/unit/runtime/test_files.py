"""Read regular files alone, and write files atomically."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.runtime import files
from sidecar.runtime.files import (
    LEFT_SECONDS,
    lock_within,
    may_pass,
    read_file,
    write_file,
    write_named_file,
)
from sidecar.runtime.fleet_log import LogReader


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    """Old temporary files of the same name are removed; fresh ones and other names stay."""
    for name in (".a.json.abcd1234", ".a.json.fresh123", ".b.json.abcd1234", "a.json.abcd1234"):
        (tmp_path / name).write_bytes(b"x")
        if "fresh" not in name:
            os.utime(tmp_path / name, (0, 0))
    assert LEFT_SECONDS > 60
    write_file(tmp_path / "a.json", b"1")
    write_file(tmp_path / "c.json", b"1")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".a.json.fresh123", ".b.json.abcd1234", "a.json.abcd1234", "a.json", "c.json"}
    write_file(tmp_path / "b.json", b"1")
    assert not (tmp_path / ".b.json.abcd1234").exists()


def test_a_lock_is_waited_for_only_so_long(tmp_path: Path) -> None:
    """A second holder gets it once the first lets go, and not while it holds on."""
    with (tmp_path / "lock").open("wb") as first, (tmp_path / "lock").open("rb") as second:
        assert lock_within(first.fileno(), 0.0)
        assert not lock_within(second.fileno(), 0.1)
        first.close()
        assert lock_within(second.fileno(), 0.0)


def test_a_name_that_somebody_typed_replaces_regular_files_alone(tmp_path: Path) -> None:
    """A link that another user has put there is not followed, and /dev/stdout stays what it is."""
    other = tmp_path / "other"
    other.write_bytes(b"kept")
    named = tmp_path / "named"
    named.symlink_to(other)
    with pytest.raises(OSError, match="not a regular file"):
        write_named_file(named, b"new", 0o600)
    assert named.is_symlink()
    assert other.read_bytes() == b"kept"
    write_named_file(other, b"new", 0o600)
    assert other.read_bytes() == b"new"


def test_a_file_whose_content_is_yet_to_come_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for, and never read as an empty one; it may be readable soon."""
    place = tmp_path / "file"
    os.mkfifo(place)
    monkeypatch.setattr(
        files, "_check_kind", lambda *_: None
    )  # regular to `stat`, as /proc/kmsg is
    writer = os.open(place, os.O_RDWR)
    try:
        with pytest.raises(OSError, match="without waiting") as found:
            read_file(place)
    finally:
        os.close(writer)
    assert may_pass(found.value)


IN_OPEN = 0x20


@pytest.mark.parametrize("is_link", [False, True])
@pytest.mark.parametrize(
    "read",
    [read_file, lambda path: read_file(path, follow=False), lambda p: [*LogReader(p).new_lines()]],
)
def test_what_is_no_regular_file_is_never_opened(
    tmp_path: Path, read: Callable[[Path], object], is_link: bool
) -> None:
    """A device acts on that, such as a watchdog: others may put a link to it in a file's place."""
    place, device = tmp_path / "file", tmp_path / "device"
    os.mkfifo(device)
    place.symlink_to(device)
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    try:
        assert libc.inotify_add_watch(watch, bytes(device), IN_OPEN) > 0
        with pytest.raises(OSError, match=r"regular file|symbolic links") as found:
            read(place if is_link else device)
        assert not may_pass(found.value)
        with pytest.raises(BlockingIOError):
            os.read(watch, 4096)
    finally:
        os.close(watch)
