"""A real daemon at a socket of the service manager, while no policy can be used."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import ROOT, Client, Daemon, question
from pki import CA

from sidecar.runtime.files import crl_state_path

POLICY = "version: 1\nlocations:\n  - {name: site, allow: public}\n"
HAND_OVER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', "
    "LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='authz'); "
    "os.execvp(sys.argv[2], sys.argv[2:])"
)
SLOW = """
import pathlib, sys, time
from sidecar.authorizer import readings
from sidecar.cli import main
from sidecar.runtime.crl_worker import CrlWorkers
readings.START_PATIENCE, readings.COPY_PATIENCE, readings.FETCHED_PATIENCE = 0.4, 0.4, 0.2
read, done = CrlWorkers.read_file, pathlib.Path(sys.argv.pop(1))
def slow(*given, **more):
    while not done.exists():
        time.sleep(0.02)
    return read(*given, **more)
CrlWorkers.read_file = slow
sys.exit(main())
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that was handed its socket, and whose policy is broken; without a last good one."""
    daemon = Daemon(tmp_path, "typo\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(daemon.socket))
        listener.listen(64)
        daemon.under = [sys.executable, "-c", HAND_OVER, str(listener.fileno())]
        daemon.start(wait=False, pass_fds=(listener.fileno(),))
        yield daemon
        assert daemon.stop() == 0, daemon.log.read_text()


def test_questions_are_refused_at_once(daemon: Daemon) -> None:
    """A denial as of a policy without locations, also to those who waited before: 403, and 400 to
    what is no question; closed, and never another status."""
    with daemon.client() as early:
        answer = early.ask("site")
        assert (answer.status, answer.reason) == (403, "unknown_location")
        assert early.closed()
    bad = (b"junk\r\n\r\n", b"x" * 300_000, b"POST /authz/site HTTP/1.1\r\n\r\n")
    for status, data in ((403, question("site")), *((400, each) for each in bad)):
        with daemon.client() as client:
            client.send(data)
            found = client.receive()
            assert found is not None
            assert found.status == status


def test_once_mended_the_same_socket_serves(daemon: Daemon) -> None:
    """Who connects from then on is answered; nobody's connection is refused meanwhile."""
    with daemon.client() as silent:
        with daemon.client() as client:
            assert client.ask("site").status == 403
        daemon.write("policy.yaml", POLICY)
        daemon.until(lambda: daemon.status("/readyz") == 200)
        assert daemon.ask("site").status == 204
        assert silent.closed()
    daemon.write("policy.yaml", "typo\n")  # a last good one is in force: nothing is refused
    daemon.until(lambda: daemon.metric("mtls_sidecar_policy_stale") == 1)
    assert daemon.ask("site").status == 204


def test_many_who_say_nothing_keep_nobody_from_an_answer(daemon: Daemon) -> None:
    """More silent connections than are held: the daemon stays, serves once mended, and ends."""
    with daemon.client() as client:
        assert client.ask("site").status == 403
    silent: list[Client] = []
    for _ in range(1100):
        silent.append(daemon.client())
        os.write(silent[-1].socket.fileno(), b"GET")
    daemon.write("policy.yaml", POLICY)
    daemon.until(lambda: daemon.status("/readyz") == 200)
    assert daemon.ask("site").status == 204
    for each in silent:
        each.socket.close()


def test_it_ends_while_it_waits(daemon: Daemon) -> None:
    """SIGTERM while questions are refused: a clean end."""
    with daemon.client() as client:
        assert client.ask("site").status == 403
        daemon.signal(signal.SIGTERM)
        assert daemon.process is not None
        assert daemon.process.wait(15) == 0


def _slowly(daemon: Daemon, done: Path) -> list[str]:
    """The command of a daemon that reads no CRL before a file is there."""
    return [sys.executable, "-c", SLOW, str(done), "serve", "--config", str(daemon.config)]


def test_a_start_goes_on_while_a_file_takes_long_to_read(tmp_path: Path) -> None:
    """The service manager, which would end it after 90 s, again and again, is told to wait."""
    staff, done = CA("Staff"), tmp_path / "done"
    trust = "trust: {staff: {ca: ca.crt, crl: a.crl}}\n"
    policy = POLICY.replace("locations", trust + "locations")
    daemon = Daemon(tmp_path, policy, ca_crt=staff.pem, a_crl=staff.crl())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with subprocess.Popen(_slowly(daemon, done), cwd=ROOT, env=environ) as process:
            try:
                while (said := manager.recv(4096)) != b"EXTEND_TIMEOUT_USEC=120000000":
                    assert b"READY=1" not in said
                done.touch()
                while b"READY=1" not in manager.recv(4096):
                    pass
            finally:
                process.terminate()


def test_a_copy_that_takes_long_to_read_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    """A start serves while a fetched CRL, and its copy, are parsed: whoever needs that trust is
    denied, with the reason in /readyz and the log; lines and edits take effect meanwhile."""
    staff, other, url = CA("Staff"), CA("Other"), "http://127.0.0.1/a.crl"
    alice, bob, olivia = staff.issue("alice"), staff.issue("bob"), other.issue("olivia")
    policy = f"""\
version: 1
trust:
  staff: {{ca: ca.crt, denylist: denied.txt}}
  other: {{ca: other.crt, crl: ["{url}"], revocation: best_effort}}
locations:
  - {{name: site, trust: staff, allow: verified}}
  - {{name: others, trust: other, allow: verified}}
"""
    daemon = Daemon(tmp_path, policy, ca_crt=staff.pem, other_crt=other.pem, denied_txt=b"")
    place = crl_state_path(tmp_path / "state", "other", url)
    place.parent.mkdir(parents=True)
    place.write_bytes(other.crl())
    daemon.start()
    assert daemon.ask("others", olivia).status == 204
    daemon.stop()
    done = tmp_path / "done"
    with (
        daemon.log.open("ab") as log,
        subprocess.Popen(_slowly(daemon, done), cwd=ROOT, stderr=log) as process,
    ):
        daemon.process = process
        try:
            daemon.until(lambda: daemon.status("/readyz") == 200)
            assert daemon.ask("site", alice).status == 204
            assert daemon.ask("others", olivia).reason == "revocation_unknown"
            told = daemon.get("/readyz")[1]
            assert "trust other: what was in force before is still being read" in told
            daemon.until(
                lambda: b"everyone whom it certified is denied at others" in daemon.log.read_bytes()
            )
            daemon.write("denied.txt", f"serial {alice.serial:x}\n")
            daemon.until(lambda: daemon.ask("site", alice).reason == "revoked")
            daemon.write("policy.yaml", policy.replace("name: site", "name: new"))
            daemon.until(lambda: daemon.ask("new", bob).status == 204)
            assert daemon.ask("others", olivia).reason == "revocation_unknown"
            done.touch()
            daemon.until(lambda: daemon.ask("others", olivia).status == 204)
        finally:
            process.terminate()
