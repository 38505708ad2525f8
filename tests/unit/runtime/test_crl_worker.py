"""Parse CRLs in a worker process, with the same result as in this process."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pki import CA

from sidecar.runtime import crl_worker
from sidecar.runtime.crl_worker import CrlWorkers, read_crl_file

STAFF = CA("Staff")


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
    here = read_crl_file(path, "a.crl", (STAFF.der,), trusted_only=False)
    assert there.digest == here.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    [crl] = there.found.crls
    assert crl.find(crl.issuer, alice.serial) == here.found.crls[0].find(crl.issuer, alice.serial)
    assert len(octets.crls) == 1


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


def test_a_worker_has_no_terminal_and_no_variables_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of a session of its own; where its modules are is said by this process alone."""
    path = tmp_path / "a.crl"
    path.write_bytes(STAFF.crl())
    sessions = []

    class Watched(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            sessions.append(os.getsid(self.pid))

    monkeypatch.setattr(subprocess, "Popen", Watched)
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    workers = CrlWorkers()
    try:
        workers.read(path, "a.crl", (STAFF.der,), trusted_only=False)
    finally:
        workers.close()
    assert sessions != [os.getsid(0)]
