"""Determine file versions while some files hang."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sidecar.authorizer import file_versions
from sidecar.authorizer.file_versions import FileVersions
from sidecar.runtime.files import FileVersion, file_version


def test_files_that_hang_hold_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If two of five files hang, these keep their last version and the others are current; later
    all are."""
    paths = [tmp_path / name for name in "abcde"]
    hang, calls = threading.Event(), [0]
    hang.set()

    def slow(path: Path) -> FileVersion | None:
        calls[0] += 1
        if path.name in "bd":
            hang.wait(30)
        return file_version(path)

    monkeypatch.setattr(file_versions, "file_version", slow)
    found = FileVersions()
    assert set(found.at_all(paths).values()) == {None}
    for path in paths:
        path.write_text("x")
    hang.clear()
    for _ in range(3):
        seen = found.at_all(paths)
        assert {path.name for path in paths if seen[path] is not None} == {"a", "c", "e"}
    assert calls[0] == 5 + 5 + 3 + 3  # nobody asks again about what hangs
    hang.set()
    while found.at(paths[1]) is None or found.at(paths[3]) is None:
        pass
    assert found.at_all(paths) == {path: file_version(path) for path in paths}


def test_without_threads_it_looks_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no thread can be started, versions are still determined."""

    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    assert FileVersions().at(tmp_path) == file_version(tmp_path)
