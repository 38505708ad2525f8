"""A command of the administrator ends when it must, and takes no more memory than it may."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from sidecar.runtime.external_command import CommandFailed, run_command


def shell(script: str, given: bytes = b"", timeout: float = 60, limit: int = 100_000) -> bytes:
    return run_command(("/bin/sh", "-c", script), given, timeout, limit=limit).output


def test_it_reads_and_prints_much() -> None:
    """More than a pipe holds, in both directions; and one that reads nothing is no error."""
    data = os.urandom(90_000)
    assert shell("cat", data) == data
    assert shell("echo hello", data * 10) == b"hello\n"
    done = run_command(("/bin/sh", "-c", "echo no >&2; echo lost; exit 3"), b"", 60)
    assert (done.code, done.output, done.said) == (3, b"", "no")


def test_children_that_stay_hold_nothing_up(tmp_path: Path) -> None:
    """Neither one that keeps its pipes open, nor one of its own session, nor after the timeout."""
    start, pids = time.monotonic(), tmp_path / "pids"
    stays = f"setsid sleep 600 & echo $! >>{pids}; "
    try:
        assert shell(stays + "echo done") == b"done\n"
        assert shell(stays.removeprefix("setsid ") + "echo done") == b"done\n"
        with pytest.raises(CommandFailed, match="took more than"):
            shell(stays + "exec sleep 600", timeout=0.5)
    finally:
        for pid in map(int, pids.read_text().split()):
            os.kill(pid, signal.SIGKILL)
    assert time.monotonic() - start < 300


def test_output_without_end_is_cut_off() -> None:
    """On stdout it is refused; on stderr the end is kept."""
    with pytest.raises(CommandFailed, match="printed more than 100000 octets"):
        shell("cat /dev/zero")
    script = "head -c 5000000 /dev/zero >&2; echo the end >&2"
    done = run_command(("/bin/sh", "-c", script), b"", 60)
    assert done.said.endswith("the end")
    assert len(done.said) < 5000
