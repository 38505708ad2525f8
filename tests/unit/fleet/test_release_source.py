"""The directory that is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.fleet.release_source import read_directory


def test_every_file_is_published_but_hidden_ones(tmp_path: Path) -> None:
    """With folders, and links within the directory as what they lead to."""
    (tmp_path / "pki").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("policy.yaml", "pki/ca.crt", ".git/config", ".policy.yaml.swp"):
        (tmp_path / name).write_text(name)
    (tmp_path / "pki/same.crt").symlink_to("ca.crt")
    assert read_directory(tmp_path) == {
        "policy.yaml": b"policy.yaml",
        "pki/ca.crt": b"pki/ca.crt",
        "pki/same.crt": b"pki/ca.crt",
    }


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    """The publisher's other files don't go to every host."""
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/policy.yaml").write_text("version: 1")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "policy/secret").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="is a link out of"):
        read_directory(tmp_path / "policy")


@pytest.mark.parametrize(("exchanged", "file"), [("secret", "secret"), ("pki", "pki/secret")])
def test_what_is_exchanged_for_a_link_meanwhile_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanged: str, file: str
) -> None:
    """The directory's owner may not be root, who publishes: a file, or a directory on the way, is
    a link once it was looked at."""
    policy, other = tmp_path / "policy", tmp_path / "other"
    for each in (policy / "pki", other / "pki"):
        each.mkdir(parents=True)
    (policy / "policy.yaml").write_text("version: 1")
    for name in ("secret", "pki/secret"):
        (policy / name).write_text("his")
        (other / name).write_text("root's")
    resolve = Path.resolve

    def looked_at(path: Path, strict: bool = False) -> Path:
        found = resolve(path, strict)
        if path == policy / file and not (policy / exchanged).is_symlink():
            (policy / exchanged).rename(tmp_path / "aside")
            (policy / exchanged).symlink_to(other / exchanged)
        return found

    monkeypatch.setattr(Path, "resolve", looked_at)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        read_directory(policy)


def test_a_directory_without_a_policy_is_refused(tmp_path: Path) -> None:
    """With what to name instead."""
    with pytest.raises(ValueError, match=r"has no policy\.yaml"):
        read_directory(tmp_path)
