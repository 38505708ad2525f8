"""What `revoke` prints: after its work, whatever the terminal does."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from daemon import ROOT
from fleet_hosts import until

from sidecar.commands.revoke.late_output import printed_at_the_end


def test_a_stopped_terminal_holds_no_revocation_up(tmp_path: Path) -> None:
    """The line stands in the denylist while what is to be told before and after it waits."""
    denylist = tmp_path / "deny.txt"
    denylist.touch()
    (tmp_path / "enroll.yaml").write_text("no: settings\n")  # there is a warning, first of all
    (tmp_path / "sidecar.yaml").write_text(f"state_dir: {tmp_path}/state\n")
    arguments = ["-c", "sidecar.yaml", "--denylist", "deny.txt", "ab" * 32]
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    termios.tcflow(slave, termios.TCOOFF)  # Ctrl-S
    command = [sys.executable, "-m", "sidecar", "revoke", *arguments]
    with subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    ) as process:
        try:
            until(lambda: "ab" * 32 in denylist.read_text(), "the line")
            assert not select.select([master], [], [], 0)[0]
            termios.tcflow(slave, termios.TCOON)
            until(lambda: process.poll() is not None, "its end")
            told = os.read(master, 65536).decode()
        finally:
            process.kill()
            os.close(slave)
            os.close(master)
    assert told.index("clients of enroll can't be read") < told.index("deny.txt: sha256 abab")


def test_what_was_printed_comes_in_order_also_with_an_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Nothing that was said is lost, and each text goes to its own stream."""

    @printed_at_the_end()
    def fail() -> None:
        print("one")
        print("two", file=sys.stderr)
        assert capfd.readouterr() == ("", "")
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        fail()
    sys.stdout.flush()
    assert capfd.readouterr() == ("one\n", "two\n")


def test_a_hangup_ends_the_process_as_before_once_it_is_done() -> None:
    """The signal is ignored within the block alone."""
    before = signal.getsignal(signal.SIGHUP)
    with printed_at_the_end():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) is before
