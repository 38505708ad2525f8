"""Change a denylist's file."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import ROOT

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


@pytest.mark.parametrize("bits", [stat.S_ISUID, stat.S_ISGID, stat.S_ISVTX])
def test_no_list_is_made_a_program_of_somebodys(tmp_path: Path, bits: int) -> None:
    """Of the old file's mode only the permissions stay, and no capabilities."""
    path = tmp_path / "denylist.txt"

    def mark() -> None:
        path.chmod(0o640 | bits)
        if os.geteuid() == 0:  # who alone could copy them
            os.setxattr(path, "security.capability", struct.pack("<5I", 0x2000001, 1, 0, 0, 0))

    path.write_text("serial 0C\n")
    mark()
    add(path, TWO, "", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    mark()
    assert remove(path, TWO)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "security.capability" not in os.listxattr(path)


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


@as_root
@pytest.mark.parametrize("by", ["mode", "access-list"])
def test_who_may_write_a_policy_with_others_names_only_denylists(tmp_path: Path, by: str) -> None:
    """A member of the group of root's policy, or of a directory above it, or whom an access list
    names: `revoke` and `revoke --undo` leave alone what is no denylist, and make no lock there."""
    place = tmp_path / "policy"
    place.mkdir(mode=0o755)
    policy, ours = place / "policy.yaml", tmp_path / "sudoers"
    policy.touch(0o644)
    ours.write_text("root ALL=(ALL) ALL\n")
    assert not named_by(ours, of=policy)
    for each in (policy, place):
        before = stat.S_IMODE(each.stat().st_mode)
        if by == "mode":
            os.chown(each, 0, THEIRS)
        else:  # u::rw-,user:THEIRS:rw-,g::r--,m::rw-,o::r--
            entries = [(1, 6, -1), (2, 6, THEIRS), (4, 4, -1), (16, 6, -1), (32, 4, -1)]
            packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
            os.setxattr(each, "system.posix_acl_access", struct.pack("<I", 2) + packed)
        each.chmod(before | 0o020)
        users = named_by(ours, of=policy)
        assert users
        with pytest.raises(PermissionError, match=f"say --denylist {ours} if it is meant"):
            add(ours, ONE, "", "", users)
        with pytest.raises(PermissionError, match=f"say --denylist {ours} if it is meant"):
            remove(ours, ONE, users)
        each.chmod(before)
        if by == "access-list":
            os.removexattr(each, "system.posix_acl_access")
        assert not named_by(ours, of=policy)
    assert ours.read_text() == "root ALL=(ALL) ALL\n"
    assert not list(tmp_path.glob(".sud*"))
    assert remove(tmp_path / "none", ONE, users) == []
    assert not list(tmp_path.glob(".none*"))


@as_root
def test_a_line_needs_no_inode(tmp_path: Path) -> None:
    """Anybody may have used up those of a file system, before the first `revoke`."""
    steps = """
        mount -t tmpfs -o nr_inodes=20 tmpfs full && touch full/denylist.txt full/1
        i=1; while touch full/$i 2>/dev/null; do i=$((i + 1)); done
        "$@" && cat full/denylist.txt
    """
    (tmp_path / "full").mkdir()
    code = f"""from pathlib import Path
from sidecar.commands.revoke.denylist_file import add
from sidecar.commands.revoke.target import Target
add(Path({str(tmp_path / "full/denylist.txt")!r}), Target("serial", "0A"), "", "")"""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", steps, "sh", sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("serial 0A # "), done.stderr


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
