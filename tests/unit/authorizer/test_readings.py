"""Read files in threads: once for each version, and again after temporary errors."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from sidecar.authorizer import readings
from sidecar.authorizer.readings import (
    LARGE,
    RETRY_SECONDS,
    RETRY_SMALL,
    SETTLE_SECONDS,
    Readings,
    _pause,
)
from sidecar.runtime.files import FileVersion, may_pass

SMALL = FileVersion(1, 1, LARGE - 1, 0, 0)
BIG = FileVersion(1, 1, LARGE, 0, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "file"
    write(found, "one")
    return found


def write(path: Path, text: str) -> None:
    """Write a file that has rested: its times are long ago."""
    path.write_text(text)
    os.utime(path, (1, len(text)))


@pytest.fixture(autouse=True)
def rested(monkeypatch: pytest.MonkeyPatch) -> None:
    """ctime can't be set, so a file of this test would always be young."""
    monkeypatch.setattr(readings, "_is_young", lambda _: False)


def test_each_version_is_read_once(path: Path) -> None:
    """The outcome is cached until the file changes."""
    found, reads = Readings(), []
    for _ in range(2):
        found.begin(patient=True)
        outcome = found.ask(("k",), path, lambda: reads.append(1) or path.read_text())  # type: ignore[func-returns-value]
        assert outcome is not None
        assert outcome.value == "one"
        found.end()
    assert (len(reads), found.moved(), found.take_fresh(), found.take_fresh()) == (1, False, 1, 0)
    write(path, "second")
    assert found.moved()
    found.begin(patient=True)
    outcome = found.ask(("k",), path, path.read_text)
    assert outcome is not None
    assert outcome.value == "second"


def test_a_reload_looks_at_all_known_files_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread for all files that are as before, not one for each: a policy may name hundreds."""
    paths = [tmp_path / str(number) for number in range(20)]
    for path in paths:
        write(path, "one")
    found = Readings()

    def reload() -> list[str]:
        found.begin(patient=True)
        outcomes = [found.ask((path,), path, path.read_text) for path in paths]
        found.end()
        return ["" if each is None else each.value for each in outcomes]

    reload()
    walks: list[list[Path]] = []
    walk = found.file_versions._walk
    monkeypatch.setattr(found.file_versions, "_walk", lambda each: walks.append(each) or walk(each))  # type: ignore[func-returns-value]
    assert (reload(), len(walks)) == (20 * ["one"], 1)
    write(paths[7], "second")
    assert reload()[7] == "second"


def test_an_error_is_an_outcome(path: Path) -> None:
    """A permanent error is not retried; a temporary one is, after a pause."""
    found = Readings()
    found.begin(patient=True)

    def fails(number: int) -> object:
        raise OSError(number, os.strerror(number))

    lasting = found.ask(("a",), path, lambda: fails(errno.EACCES))
    passing = found.ask(("b",), path, lambda: fails(errno.EIO))
    assert lasting is not None
    assert passing is not None
    assert isinstance(lasting.error, PermissionError)
    assert lasting.again is None
    assert passing.again is not None


def test_a_start_waits_less_for_the_fetcher(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the fetcher's that isn't read leaves time for its kept copy, and all the rest."""
    monkeypatch.setattr(readings, "FETCHED_PATIENCE", 0.0)
    found, ended = Readings(), threading.Event()
    found.begin(patient=True)
    slow = found.ask(("fetched",), path, ended.wait, is_fetched=True)
    assert slow is not None
    assert "can't be read within 0 seconds" in str(slow.error)
    kept = found.ask(("kept",), path, path.read_text)
    assert kept is not None
    assert kept.value == "one"
    ended.set()


def test_what_nobody_asked_for_is_forgotten(path: Path) -> None:
    """A file that the policy stops naming is read again when it names it again."""
    found = Readings()
    found.begin(patient=True)
    found.ask(("k",), path, path.read_text)
    found.end()
    found.begin(patient=True)
    found.end()
    found.begin(patient=True)
    found.ask(("k",), path, path.read_text)
    assert found.take_fresh() == 2


def test_which_faults_may_pass() -> None:
    """A missing file is permanent until somebody creates it; an I/O error may be temporary."""
    assert not may_pass(FileNotFoundError(errno.ENOENT, ""))
    assert not may_pass(ValueError("garbage"))
    assert not may_pass(None)
    assert may_pass(OSError(errno.EIO, ""))
    assert may_pass(MemoryError())


@pytest.mark.parametrize(
    ("version", "first", "longest"),
    [(SMALL, *RETRY_SMALL), (None, *RETRY_SMALL), (BIG, *RETRY_SECONDS)],
)
def test_pauses_double_up_to_the_longest(
    version: FileVersion | None, first: float, longest: float
) -> None:
    """The pause doubles up to a maximum, which is longer for a large file."""
    assert _pause(0, version) == first
    assert _pause(1, version) == 2 * first
    assert _pause(1000, version) == longest


def test_a_change_settles_by_this_machines_clock(path: Path) -> None:
    """On a network file system, times are by another clock (here: of 1970): a file that was just
    seen to change isn't read in the middle of being written."""
    found = Readings()
    found.begin(patient=True)
    assert found.ask(("k",), path, path.read_text) is not None
    found.end()
    write(path, "")
    found.begin(patient=False)
    assert found.ask(("k",), path, path.read_text) is None
    assert found.pending
    write(path, "second")
    assert found.ask(("k",), path, path.read_text) is None
    time.sleep(SETTLE_SECONDS)
    found.begin(patient=False)
    outcome = found.ask(("k",), path, path.read_text)
    assert outcome is not None
    assert (outcome.value, outcome.restless) == ("second", False)
