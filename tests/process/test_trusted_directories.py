"""Files of the policy that somebody else could replace by another are not taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from daemon import Daemon
from pki import CA

from sidecar.runtime.files import read_file, untrusted_directory, writable_directory

staff = CA("Staff")
POLICY = "version: 1\ntrust: {staff: {ca: ca.crt}}\nlocations: [{name: site, allow: verified}]\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
STRANGER = 64321


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file two directories deep."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("x")
    return tmp_path / "a/b/file"


def refusal(path: Path) -> str:
    """Why a trusted reader refuses a file, or nothing."""
    try:
        read_file(path, trusted_only=True)
    except PermissionError as error:
        return error.strerror or str(error)
    return ""


@pytest.mark.parametrize("at", ["a/b", "a"])
def test_no_directory_on_the_way_may_be_writable_by_everyone(file: Path, at: str) -> None:
    """The error names the directory and the way out; without `trusted_only` it is taken."""
    place = file.parents[2] / at
    assert refusal(file) == ""
    place.chmod(0o777)
    assert refusal(file) == f"everyone may write {place}; chmod o-w {place}"
    assert read_file(file) == b"x"
    place.chmod(0o1777)
    assert refusal(file) == ""


@needs_root
@pytest.mark.parametrize("at", ["a/b", "a"])
def test_every_directory_belongs_to_root_us_or_the_files_owner(file: Path, at: str) -> None:
    """A stranger's directory is refused; the file's owner may have his own."""
    place = file.parents[2] / at
    os.chown(place, STRANGER, -1)
    assert f"{place} belongs to user {STRANGER}" in refusal(file)
    os.chown(file, STRANGER, -1)
    assert refusal(file) == ""


@needs_root
def test_what_stands_in_a_shared_directory_is_ours(file: Path) -> None:
    """In a sticky directory anybody could have made the file, a link or a directory."""
    shared = file.parent
    shared.chmod(0o1777)
    assert refusal(file) == ""
    os.chown(file, STRANGER, -1)
    assert "everybody can create files in its directory" in refusal(file)
    (shared / "link").symlink_to("/etc/hostname")
    os.chown(shared / "link", STRANGER, -1, follow_symlinks=False)
    assert f"{shared}/link belongs to user {STRANGER}" in untrusted_directory(shared / "link", 0)
    (shared / "own").mkdir()
    (shared / "own/file").touch()
    assert refusal(shared / "own/file") == ""
    os.chown(shared / "own", STRANGER, -1)
    assert f"{shared}/own belongs to user {STRANGER}" in refusal(shared / "own/file")


@pytest.mark.parametrize("kind", ["absolute", "relative", "of a directory", "a chain"])
def test_links_are_followed_step_by_step(tmp_path: Path, file: Path, kind: str) -> None:
    """The link's directory and the target's both count, also of links in the middle."""
    (tmp_path / "links").mkdir()
    link = tmp_path / "links/link"
    if kind == "of a directory":
        link.symlink_to("../a/b")
        named = link / "file"
    elif kind == "a chain":
        (tmp_path / "a/again").symlink_to("b/../../a/b/file")
        link.symlink_to("../a/again")
        named = link
    else:
        link.symlink_to(file if kind == "absolute" else "../a/b/file")
        named = link
    assert refusal(named) == ""
    for place in (tmp_path / "links", file.parent, tmp_path / "a"):
        place.chmod(0o777)
        assert refusal(named) == f"everyone may write {place}; chmod o-w {place}"
        assert writable_directory(named) == refusal(named)
        place.chmod(0o755)


def test_a_config_map_is_taken(tmp_path: Path) -> None:
    """Kubernetes' way: a file linked through `..data` to a directory of a date."""
    (tmp_path / "..2026_11_26").mkdir()
    (tmp_path / "..2026_11_26/policy.yaml").write_text("x")
    (tmp_path / "..data").symlink_to("..2026_11_26")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
    assert refusal(tmp_path / "policy.yaml") == ""
    (tmp_path / "..2026_11_26").chmod(0o777)
    assert "..2026_11_26" in refusal(tmp_path / "policy.yaml")


def test_odd_paths_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path, `..`, a link to itself, what isn't there."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    assert refusal(Path("file")) == ""
    assert refusal(Path("../../../../../../../..") / tmp_path.relative_to("/") / "file") == ""
    Path("loop").symlink_to("loop")
    assert untrusted_directory("loop", 0) == ""
    assert untrusted_directory("nowhere/at/all", 0) == ""


def test_the_daemon_refuses_such_a_policy(tmp_path: Path) -> None:
    """It names the directory, and serves once that is mended; or with the setting against it."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "shared/ca.crt").write_bytes(staff.pem)
    policy = POLICY.replace("ca.crt", str(tmp_path / "shared/ca.crt"))
    (tmp_path / "two").mkdir()
    with Daemon(tmp_path / "two", policy, "allow_writable_policy: true\n") as lenient:
        assert lenient.status("/readyz") == 200
    (tmp_path / "one").mkdir()
    strict = Daemon(tmp_path / "one", policy).start(wait=False)
    strict.until(lambda: f"chmod o-w {tmp_path}/shared" in strict.log.read_text())
    assert not strict.socket.exists()
    (tmp_path / "shared").chmod(0o755)
    strict.until(lambda: strict.status("/readyz") == 200)
    assert strict.stop() == 0
