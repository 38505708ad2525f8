"""Change a denylist's file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sidecar.commands.revoke.denylist_file import add, locate, read_entries, remove
from sidecar.commands.revoke.target import Target

ONE, TWO = Target("serial", "0A", "CN=alice"), Target("serial", "0B")


def test_a_line_is_added_and_found_again(tmp_path: Path) -> None:
    """The line has its comment; it is added again only if it must last longer."""
    path = tmp_path / "denylist.txt"
    path.write_text("garbage\nserial 0C")
    path.chmod(0o640)
    line = add(path, ONE, "2099-01-01", "laptop stolen")
    assert line is not None
    assert line.endswith("CN=alice, laptop stolen")
    assert add(path, ONE, "2098-01-01", "") is None
    assert add(path, ONE, "", "") is not None
    text = path.read_text()
    assert text.startswith("garbage\nserial 0C\nserial 0A until 2099-01-01")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    entries, mistakes = read_entries(path)
    assert len(entries) == 3
    assert [mistake.line for mistake in mistakes] == [1]


def test_only_the_lines_of_the_target_are_removed(tmp_path: Path) -> None:
    """Comments, invalid lines and other entries are unchanged; without a match nothing is
    written."""
    path = tmp_path / "denylist.txt"
    path.write_text("# ours\nserial 0A # one\ngarbage\nserial 00:0A\nserial 0B\n")
    assert remove(path, ONE) == ["serial 0A # one", "serial 00:0A"]
    assert path.read_text() == "# ours\ngarbage\nserial 0B\n"
    before = path.stat().st_ino
    assert remove(path, ONE) == []
    assert path.stat().st_ino == before


def test_where_a_denylist_is(tmp_path: Path) -> None:
    """A link is followed; a dangling link and a missing directory are errors."""
    path = tmp_path / "denylist.txt"
    assert locate(path) == path
    path.touch()
    (tmp_path / "link").symlink_to(path)
    assert locate(tmp_path / "link") == path
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="which doesn't exist; correct the link"):
        locate(tmp_path / "dangling")
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        locate(tmp_path / "none" / "denylist.txt")


def test_a_missing_file_is_made(tmp_path: Path) -> None:
    """The first line makes the file."""
    path = tmp_path / "denylist.txt"
    assert add(path, TWO, "", "") is not None
    assert len(read_entries(path)[0]) == 1
