"""Commands of root work in the state directory as its owner."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.enroll.state_owner import as_owner_of

NOBODY = 65534


def test_another_user_s_directory_is_his(tmp_path: Path) -> None:
    """Where this is root's, files are the owner's, and what is closed to the owner stays closed."""
    if os.geteuid() != 0:
        with as_owner_of(tmp_path):
            assert os.geteuid() == os.getuid()
        return
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for each in (tmp_path, *tmp_path.parents):
        if each.stat().st_mode & 0o001 == 0:
            each.chmod(each.stat().st_mode | 0o001)  # pytest's directories are its user's alone
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    ours.write_text("secret")
    ours.chmod(0o600)
    (theirs / "link").symlink_to(ours)
    with as_owner_of(theirs):
        (theirs / "file").touch()
        with pytest.raises(PermissionError):
            (theirs / "link").write_text("x")
    assert (theirs / "file").stat().st_uid == NOBODY
    assert (os.geteuid(), ours.read_text()) == (0, "secret")


def test_a_directory_that_is_not_there_counts_as_ours(tmp_path: Path) -> None:
    """`enroll init` makes it."""
    with as_owner_of(tmp_path / "none"):
        assert os.geteuid() == os.getuid()
