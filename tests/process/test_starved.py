"""A real daemon without what it needs: a reader of its log, descriptors, room on the disk."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Daemon
from hanging_mount import hanging
from pki import CA

from sidecar.runtime.descriptors import RESERVE

STAFF = CA("Staff")
ALICE, BOB = STAFF.issue("alice"), STAFF.issue("bob")
POLICY = """\
version: 1
trust:
  staff: {ca: ca.crt, crl: [ca.crl], denylist: [list.txt]}
locations:
  - {name: site, allow: verified}
"""
LINE = f"sha256 {BOB.sha256}\n"


def daemon_in(directory: Path, settings: str = "") -> Daemon:
    return Daemon(
        directory, POLICY, settings, ca_crt=STAFF.pem, ca_crl=STAFF.crl(number=5), list_txt=b""
    )


def is_denied(daemon: Daemon) -> bool:
    return daemon.ask("site", BOB).reason == "revoked"


@pytest.fixture
def unread() -> Iterator[int]:
    """The end of a pipe that nobody reads, full but for a little."""
    end, into = os.pipe()
    os.set_blocking(into, False)
    while True:
        try:
            os.write(into, b"x" * 512)
        except BlockingIOError:
            break
    os.set_blocking(into, True)
    yield into
    os.close(into)
    os.close(end)


def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path, unread: int) -> None:
    """A full pipe for stderr: it starts, decides, takes revocations and reloads, and ends."""
    daemon = daemon_in(tmp_path)
    daemon.stderr = unread
    with daemon:
        assert daemon.ask("site", BOB).status == 204
        daemon.write("list.txt", LINE)
        daemon.until(lambda: is_denied(daemon))
        daemon.write("policy.yaml", "typo\n")
        daemon.until(lambda: daemon.metric("mtls_sidecar_policy_stale") == 1)
        daemon.write("list.txt", b"")
        daemon.until(lambda: daemon.ask("site", BOB).status == 204)


def test_a_slow_reader_sees_whole_lines(tmp_path: Path) -> None:
    """Two threads write to a pipe that is full again and again: no line begins with a rest."""
    end, into = os.pipe()
    daemon = daemon_in(tmp_path)
    daemon.stderr = into
    daemon.start()
    os.close(into)
    uri = "/" + "x" * 900
    with daemon.client() as client:
        for number in range(300):
            client.ask("site", ALICE, {"X-Original-URI": uri})
            if number % 10 == 0:
                daemon.signal(signal.SIGHUP)
    daemon.signal(signal.SIGTERM)
    seen = b""
    while data := os.read(end, 1000):
        seen += data
    os.close(end)
    assert daemon.stop() == 0
    starts = {line[:4] for line in seen.splitlines()}
    assert starts <= {b"INFO", b"WARN", b"    ", time.strftime("%Y").encode()}


def test_whoever_takes_every_connection_keeps_no_revocation_away(tmp_path: Path) -> None:
    """With fewer descriptors than connections are allowed, some are left for files."""
    daemon = daemon_in(tmp_path)
    daemon.under = ["prlimit", "--nofile=64:64"]
    with daemon:
        assert "limits.max_connections is 32, not 4096" in daemon.log.read_text()
        held = []
        with daemon.client() as asking:
            assert asking.ask("site", BOB).status == 204
            for _ in range(200):
                peer = socket.socket(socket.AF_UNIX)
                peer.connect(str(daemon.socket))
                held.append(peer)
            daemon.write("list.txt", LINE)
            daemon.until(lambda: asking.ask("site", BOB).reason == "revoked")
        for peer in held:
            peer.close()


def test_another_user_who_takes_every_connection_leaves_some_to_nginx(tmp_path: Path) -> None:
    """Whoever may open the socket beside nginx, with half requests, too: the oldest of his
    connections give way to those of another user."""
    if os.getuid() != 0:
        pytest.skip("only root is another user, too")
    daemon = daemon_in(tmp_path)
    daemon.under = ["prlimit", "--nofile=64:64"]
    with daemon:
        peers = []
        os.seteuid(65534)
        ctypes.CDLL(None).setfsuid(0)  # the directory stays within reach
        try:
            for number in range(40):
                peers.append(socket.socket(socket.AF_UNIX))
                peers[-1].connect(str(daemon.socket))
                if number % 2:
                    with contextlib.suppress(BrokenPipeError):  # the 33rd and later are closed
                        peers[-1].send(b"GET /authz/site HTTP/1.1\r\n")
        finally:
            os.seteuid(0)
        with contextlib.ExitStack() as held:
            for _ in range(16):
                client = held.enter_context(daemon.client())
                assert client.ask("site", BOB).status == 204
            assert client.ask("site", BOB).status == 204
        for peer in peers:
            peer.close()


def test_the_soft_limit_of_descriptors_is_raised(tmp_path: Path) -> None:
    """A shell's usual 1,024 aren't enough for 4,096 connections: the hard limit counts."""
    daemon = daemon_in(tmp_path)
    daemon.under = ["prlimit", "--nofile=1024:8192"]
    with daemon:
        assert daemon.process is not None
        limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
        assert limits.partition("Max open files")[2].split()[0] == str(4096 + RESERVE)


def mounted(directory: Path, size: str) -> list[str]:
    """A command that runs another with a small file system for the state, in its own namespace."""
    script = f'mount -t tmpfs -o size={size} tmpfs "{directory}" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_disk_for_the_state_stops_nothing(tmp_path: Path) -> None:
    """No room for copies, watermarks or anything else: told, and all else works."""
    (tmp_path / "state").mkdir()
    daemon = daemon_in(tmp_path)
    daemon.under = mounted(tmp_path / "state", "4k,nr_inodes=2")
    with daemon:
        daemon.until(lambda: "aren't kept for the next start" in daemon.log.read_text())
        daemon.write("list.txt", LINE)
        daemon.until(lambda: is_denied(daemon))
        assert daemon.ask("site", ALICE).status == 204


def test_a_state_directory_that_is_a_file_stops_nothing(tmp_path: Path) -> None:
    """It starts, and revokes."""
    daemon = daemon_in(tmp_path)
    (tmp_path / "state").write_text("")
    with daemon:
        daemon.write("list.txt", LINE)
        daemon.until(lambda: is_denied(daemon))


def test_the_log_is_whole_at_the_end(tmp_path: Path) -> None:
    """What is written aside is there when the process has ended, also of one that can't start."""
    daemon = daemon_in(tmp_path)
    with daemon:
        pass
    assert daemon.log.read_text().endswith("INFO stopped\n")
    settings = daemon.config.read_text()
    daemon.config.write_text(settings.replace(str(daemon.socket), "/nonexistent/x.sock"))
    daemon.start(wait=False)
    assert isinstance(daemon.process, subprocess.Popen)
    assert daemon.process.wait(15) == 2
    assert "no directory for /nonexistent/x.sock" in daemon.log.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
@pytest.mark.parametrize("name", ["policy.yaml", "ca.crt", "ca.crl"])
def test_a_file_system_that_hangs_holds_up_no_revocation(tmp_path: Path, name: str) -> None:
    """No `stat` of a file returns: a line takes effect; what changed meanwhile does after."""
    away = tmp_path / "away"
    away.mkdir()
    daemon = daemon_in(tmp_path)
    (tmp_path / name).rename(away / name)
    (tmp_path / name).symlink_to(away / name)
    for other in {"ca.crt", "ca.crl", "list.txt"} - {name}:
        (away / other).symlink_to(tmp_path / other)
    with daemon:
        assert daemon.ask("site", BOB).status == 204
        with hanging(away):
            daemon.write("list.txt", LINE)
            daemon.until(lambda: is_denied(daemon), 5)
            daemon.write("list.txt", b"")
            daemon.until(lambda: daemon.ask("site", BOB).status == 204, 5)
        daemon.write("list.txt", LINE)
        daemon.until(lambda: is_denied(daemon), 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
def test_a_start_beside_a_file_system_that_hangs_is_by_the_last_good_files(tmp_path: Path) -> None:
    """What can't be read for a while counts as broken: the copy serves, and later the file."""
    away = tmp_path / "away"
    away.mkdir()
    daemon = daemon_in(tmp_path)
    (tmp_path / "ca.crl").rename(away / "ca.crl")
    (tmp_path / "ca.crl").symlink_to(away / "ca.crl")
    daemon.under = [sys.executable, "-c", IMPATIENT]
    manifest = tmp_path / "state" / "last-good" / "manifest.json"
    with daemon:
        daemon.until(manifest.exists)
    with hanging(away), daemon:
        assert "it can't be read within 1 seconds" in daemon.log.read_text()
        daemon.write("list.txt", LINE)
        daemon.until(lambda: is_denied(daemon), 5)


IMPATIENT = (
    "import sys, runpy; from sidecar.authorizer import readings; readings.START_PATIENCE = 1.0; "
    "sys.argv = ['sidecar', *sys.argv[4:]]; runpy.run_module('sidecar', run_name='__main__')"
)
"""Runs the daemon, which gives a file a second at its start."""
