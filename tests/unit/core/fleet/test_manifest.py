"""What a release may hold."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.fleet.manifest import MAX_FILE, MAX_RELEASE, check_name, parse_files


def file(name: str, size: Any = 1, sha256: Any = "ab" * 32) -> dict[str, Any]:
    return {"name": name, "sha256": sha256, "size": size}


POLICY = file("policy.yaml")


@pytest.mark.parametrize(
    "name", ["policy.yaml", "pki/ca.crt", "a b/c@d+e_f-1.pem", "a/b/c/d/e/f/g/h"]
)
def test_a_plain_relative_path_is_taken(name: str) -> None:
    """Also with blanks inside."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/etc/passwd", "../x", "a/../b", "a/..", "a//b", "a/", "./a", "a/./b",
        ".hidden", "a/.hidden", "a\\b", "a\0b", "a\nb", "ä", "a ", "a/b/c/d/e/f/g/h/i",
        "x" * 129, "\u202ea", "a\x7fb",
    ],
)  # fmt: skip
def test_a_path_that_could_lead_elsewhere_is_refused(name: str) -> None:
    """Upwards, absolute, hidden, empty parts, and characters that two readers take differently."""
    with pytest.raises(ValueError, match="can't be a file of a release"):
        check_name(name)


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        {},
        [file("ca.crt")],
        [POLICY, POLICY],
        [POLICY, file("ca.crt")],
        [file("a"), file("a/b"), POLICY],
        [file("policy.yaml", -1)],
        [file("policy.yaml", MAX_FILE + 1)],
        [file("policy.yaml", "1")],
        [file("policy.yaml", True)],
        [file("policy.yaml", sha256="AB" * 32)],
        [file("policy.yaml", sha256=None)],
        [{**POLICY, "mode": 511}],
        ["policy.yaml"],
        [file(f"f{n}", MAX_FILE) for n in range(MAX_RELEASE // MAX_FILE)] + [POLICY],
        [file(f"f{n:05}") for n in range(2000)] + [POLICY],
    ],
)
def test_what_is_no_list_of_files_is_refused(files: Any) -> None:
    """No policy, doubles, no order, a file that is a directory too, sizes beyond the bounds."""
    with pytest.raises(ValueError, match=r"."):
        parse_files(files)
