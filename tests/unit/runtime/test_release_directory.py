"""Releases on the disk: whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from sidecar.runtime.release_directory import KEPT, ReleaseDirectory, write_part


def name(number: int) -> str:
    return f"{number}-{number:016x}"


def put(directory: ReleaseDirectory, number: int) -> None:
    with directory.writing(name(number)) as aside:
        write_part(aside, "pki/ca.crt", b"ca")
        write_part(aside, "policy.yaml", b"%d" % number)


def test_a_release_is_swapped_in_whole(tmp_path: Path) -> None:
    """With its folders; the group may read it whatever the umask."""
    directory = ReleaseDirectory(tmp_path)
    assert directory.current() == ""
    before = os.umask(0o077)
    try:
        put(directory, 1)
    finally:
        os.umask(before)
    assert directory.current() == name(1)
    assert (tmp_path / "current/policy.yaml").read_bytes() == b"1"
    assert (tmp_path / "current/pki").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "current/pki/ca.crt").stat().st_mode & 0o777 == 0o640


def test_an_error_changes_nothing(tmp_path: Path) -> None:
    """What was there is in force, and no half release is left."""
    directory = ReleaseDirectory(tmp_path)
    put(directory, 1)
    with contextlib.suppress(RuntimeError), directory.writing(name(2)) as aside:
        write_part(aside, "policy.yaml", b"2")
        raise RuntimeError
    assert directory.current() == name(1)
    assert sorted(os.listdir(tmp_path / "releases")) == [name(1)]


def test_the_last_few_are_left(tmp_path: Path) -> None:
    """By their number, and the one in force whatever its number."""
    directory = ReleaseDirectory(tmp_path)
    for number in (10, 2, 3, 11, 1):
        put(directory, number)
    assert len(os.listdir(tmp_path / "releases")) == KEPT
    assert directory.current() == name(1)
    assert directory.place(name(1)).is_dir()


@pytest.mark.parametrize("target", ["/etc", "releases/../..", "releases/x", name(9)])
def test_a_link_to_what_is_no_release_is_none(tmp_path: Path, target: str) -> None:
    """Elsewhere, or nowhere."""
    put(ReleaseDirectory(tmp_path), 1)
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(target)
    assert ReleaseDirectory(tmp_path).current() == ""
