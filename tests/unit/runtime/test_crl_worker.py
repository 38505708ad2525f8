"""Parse CRLs in a worker process, with the same result as in this process."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from large_crl import large_crl
from pki import CA

from sidecar.runtime import crl_worker
from sidecar.runtime.crl_worker import HERE, OCTETS_AT_ONCE, CrlWorkers, read_crl_file

STAFF, OTHER = CA("Staff"), CA("Other")


def test_a_worker_reads_what_this_process_reads(tmp_path: Path) -> None:
    """File and octets give the same entries, and the SHA-256 is the file's."""
    path = tmp_path / "a.crl"
    alice = STAFF.issue("alice")
    path.write_bytes(STAFF.crl([alice], number=3))
    workers = CrlWorkers()
    try:
        there = workers.read(path, "a.crl", (STAFF.der,), trusted_only=False)
        octets = workers.read_data(path.read_bytes(), "a.crl", (STAFF.der,))
    finally:
        workers.close()
    here = read_crl_file(path, "a.crl", (STAFF.der,), HERE, trusted_only=False)
    assert there.digest == here.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    [crl] = there.found.crls
    assert crl.find(crl.issuer, alice.serial) == here.found.crls[0].find(crl.issuer, alice.serial)
    assert len(octets.crls) == 1


def test_a_large_table_holds_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of many CRLs would take what is kept for files and connections; nothing of the table
    or of the file's octets is lost on the way, however many parts it comes in."""
    monkeypatch.setattr(crl_worker, "PART", 50_000)
    path = tmp_path / "a.crl"
    path.write_bytes(large_crl(STAFF, 20_000, also=[7]))
    workers = CrlWorkers()
    before = len(os.listdir("/proc/self/fd"))
    try:
        there = workers.read(path, "a.crl", (STAFF.der,), trusted_only=False)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        workers.close()
    here = read_crl_file(path, "a.crl", (STAFF.der,), HERE, trusted_only=False)
    [one], [other] = there.found.crls, here.found.crls
    assert isinstance(there.octets, mmap.mmap)
    assert one.entries.own.data[:] == other.entries.own.data
    assert one.entries.own.starts[:] == other.entries.own.starts
    assert there.octets[:] == here.octets == path.read_bytes()
    assert one.find(one.issuer, 7) == other.find(one.issuer, 7) is not None


def test_a_file_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    """A missing file raises the same error as without a worker."""
    workers = CrlWorkers()
    try:
        with pytest.raises(FileNotFoundError):
            workers.read(tmp_path / "gone.crl", "gone.crl", (), trusted_only=False)
    finally:
        workers.close()


def test_a_worker_that_takes_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is killed, and the error is temporary."""
    path = tmp_path / "a.crl"
    path.write_bytes(STAFF.crl())
    monkeypatch.setattr(crl_worker, "PATIENCE", 0)
    workers = CrlWorkers()
    try:
        with pytest.raises(OSError, match="ended"):
            workers.read(path, "a.crl", (STAFF.der,), trusted_only=False)
    finally:
        workers.close()


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """What the error says where a worker is this script, which says something and fails."""

    def said(script: str) -> str:
        program = tmp_path / "worker"
        program.write_text(f"#!/bin/sh\n{script}\nexit 3\n")
        program.chmod(0o755)
        path = tmp_path / "a.crl"
        path.write_bytes(STAFF.crl())
        monkeypatch.setattr(sys, "executable", str(program))
        workers = CrlWorkers()
        try:
            with pytest.raises(OSError, match=r"ended.*status 3") as caught:
                workers.read(path, "a.crl", (STAFF.der,), trusted_only=False)
        finally:
            workers.close()
        return str(caught.value.strerror).rpartition("status 3.")[2]

    return said


def test_a_worker_has_nothing_of_its_caller_s(
    told: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of a session of its own, has pipes alone open, and neither the directory nor the
    variables of who has started it: root's `fetch --once` does, as a user who may trace it."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("SECRET", "root's")
    seen = told(
        "for each in 0 1 2; do if [ ! -p /proc/$$/fd/$each ]; then exit; fi; done\n"
        "session=$(ps -o sid= -p $$ | tr -d ' ')\n"
        "names=$(tr '\\0' '\\n' </proc/$$/environ | sed 's/=.*//' | grep -v ^COVERAGE_)\n"
        'echo "$(pwd) $((session == $$)) $names" >&2'
    )
    assert seen == ": / 1 PYTHONPATH"


def test_what_a_worker_said_last_is_reported(told: Callable[[str], str]) -> None:
    """Its traceback goes nowhere else; the last line of it, cut, is in the error."""
    assert told("echo first >&2; echo 'ValueError: odd' >&2") == ": ValueError: odd"
    assert len(told("printf %01000d 0 >&2")) == 202


def test_a_file_that_becomes_large_as_it_is_read_is_parsed_in_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns a file's directory exchanges it, while it is read, for a large one: this
    process parses none of that."""
    path, large = tmp_path / "a.crl", tmp_path / "large"
    path.write_bytes(STAFF.crl())
    large.write_bytes(b"#" * (HERE + 1))
    looked, parsed, looks = os.fstat, [], 0

    def exchange(descriptor: int) -> os.stat_result:
        nonlocal looks
        found, looks = looked(descriptor), looks + 1
        if looks == 2:  # it is open, after its kind was looked at
            large.replace(path)
        return found

    monkeypatch.setattr("sidecar.runtime.files.os.fstat", exchange)
    monkeypatch.setattr(crl_worker, "read_crls", lambda data, *_: parsed.append(len(data)))
    workers = CrlWorkers()
    try:
        found = workers.read_file(path, "a.crl", (STAFF.der,), trusted_only=False)
    finally:
        workers.close()
    assert not large.exists()
    assert parsed == []
    assert len(found.found.mistakes) == 1


def test_a_worker_reads_no_more_than_it_has_a_turn_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is larger by then than it was when its turn came is refused, to be read anew."""
    path = tmp_path / "a.crl"
    path.write_bytes(STAFF.crl())
    monkeypatch.setattr(crl_worker, "_place", lambda _: (str(path), 10))
    workers = CrlWorkers()
    try:
        with pytest.raises(OSError, match="larger"):
            workers.read(path, "a.crl", (STAFF.der,), trusted_only=False)
    finally:
        workers.close()


def test_who_signs_a_crl_that_takes_long_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one of the greatest size is parsed, and more of the same authorities wait, another
    trust's has its turn."""
    run, goes_on, running = CrlWorkers._run, threading.Event(), threading.Semaphore(0)

    def slowly(self: CrlWorkers, question: bytes, shared: Sequence[int]) -> bytes:
        if b"huge" in question:
            running.release()
            goes_on.wait()
        return run(self, question, shared)

    monkeypatch.setattr(CrlWorkers, "_run", slowly)
    (tmp_path / "a.crl").write_bytes(large_crl(STAFF, 30_000))
    workers = CrlWorkers()

    def read_huge(number: int, size: int) -> None:
        path = tmp_path / f"huge{number}.crl"
        with path.open("wb") as file:
            file.truncate(size)
        with contextlib.suppress(OSError):
            workers.read(path, "", (OTHER.der,), trusted_only=False)

    sizes = (OCTETS_AT_ONCE + 1, OCTETS_AT_ONCE, HERE, HERE)
    threads = [threading.Thread(target=read_huge, args=each) for each in enumerate(sizes)]
    try:
        threads[0].start()
        running.acquire()
        for each in threads[1:]:
            each.start()
        found = workers.read(tmp_path / "a.crl", "", (STAFF.der,), trusted_only=False)
        assert found.found.crls
    finally:
        monkeypatch.undo()
        workers._closed = True
        goes_on.set()
        for each in threads:
            each.join()
        workers.close()
