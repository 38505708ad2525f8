"""Change a denylist's file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sidecar.commands.revoke import denylist_file
from sidecar.commands.revoke.denylist_file import add, locate, named_by, read_entries, remove
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


# -- who names a file that root writes

THEIRS = 64321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root writes other users' files")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory of another user."""
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, THEIRS, THEIRS)
    return place


@as_root
def test_another_user_names_only_files_of_his_or_denylists(tmp_path: Path, theirs: Path) -> None:
    """By a link, or in a policy of his: root would write for him what he can't write himself."""
    ours, link = tmp_path / "sudoers", theirs / "denylist.txt"
    ours.write_text("root ALL=(ALL) ALL\n")
    link.symlink_to(ours)
    users = named_by(link)
    assert users == {THEIRS}
    with pytest.raises(PermissionError, match=f"say --denylist {ours} if it is meant"):
        add(locate(link), ONE, "", "", users)
    assert ours.read_text() == "root ALL=(ALL) ALL\n"
    assert not list(tmp_path.glob(".sud*"))
    with pytest.raises(PermissionError, match="make it first, with touch"):
        add(tmp_path / "ld.so.preload", ONE, "", "", users)
    assert not list(tmp_path.glob("*ld.so*"))
    for content in ("# nobody yet\n", "serial 0C\ngarbage\n", ""):
        ours.write_text(content)
        assert add(locate(link), ONE, "", "", users)
    own = theirs / "own.txt"
    own.write_text("garbage\n")
    assert add(locate(own), ONE, "", "", named_by(own))


@as_root
def test_whose_policy_it_is_counts(tmp_path: Path, theirs: Path) -> None:
    """Its owner's, and those of the directories above it; root's and a process's own don't."""
    policy = tmp_path / "policy.yaml"
    policy.touch()
    path = tmp_path / "denylist.txt"
    assert named_by(path, of=policy) == set()
    os.chown(policy, THEIRS, THEIRS)
    assert named_by(path, of=policy) == {THEIRS}
    assert named_by(path, of=theirs / "policy.yaml") == {THEIRS}
    assert named_by(path, told_by=THEIRS) == {THEIRS}
    assert named_by(path, of=tmp_path / "none") == set()


def test_a_directory_exchanged_meanwhile_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner puts a link there once the lock is held: the line goes where it was meant to go."""
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    (place / "denylist.txt").write_text("evil\n")

    def exchange(*_: object) -> bool:
        place.rename(tmp_path / "moved")
        place.symlink_to(elsewhere)
        return True

    monkeypatch.setattr(denylist_file, "lock_within", exchange)
    assert add(place / "denylist.txt", ONE, "", "")
    assert not list(elsewhere.iterdir())
    assert "serial 0A" in (tmp_path / "moved/denylist.txt").read_text()
    with pytest.raises(NotADirectoryError):
        add(place / "denylist.txt", TWO, "", "")


def test_a_list_exchanged_for_a_link_meanwhile_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What root alone can read doesn't come into the directory, and the error names the list."""
    secret, path = tmp_path / "secret", tmp_path / "denylist.txt"
    secret.write_text("secret\n")
    path.touch()

    def exchange(*_: object) -> bool:
        path.unlink()
        path.symlink_to(secret)
        return True

    monkeypatch.setattr(denylist_file, "lock_within", exchange)
    for change in (lambda: add(path, ONE, "", ""), lambda: remove(path, ONE)):
        with pytest.raises(OSError, match=str(path)):
            change()
        assert path.is_symlink()
        path.unlink()
        path.touch()
