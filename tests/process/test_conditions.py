"""What may go wrong around a daemon that serves: it says so once, says when it is over, and serves.

The disk is /dev/full behind a link, limits are the kernel's own (RLIMIT_NOFILE), log readers are
pipes that nobody reads.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from signal import SIGHUP

import pytest
from daemon import ROOT, Daemon, question
from pki import CA, now

POLICY = """\
version: 1
trust: {staff: {ca: ca.crt, crl: [staff.crl]}}
locations:
  - {name: site, allow: verified}
  - {name: open, allow: public}
"""

staff = CA("Staff")
alice = staff.issue("alice")


@pytest.fixture(name="directory")
def _directory(tmp_path: Path) -> Path:
    (tmp_path / "ca.crt").write_bytes(staff.pem)
    (tmp_path / "staff.crl").write_bytes(staff.crl())
    return tmp_path


def said(daemon: Daemon, text: str) -> int:
    """How many lines of the log have this."""
    return daemon.log.read_text().count(text)


def shown(daemon: Daemon, text: str) -> bool:
    """Whether both the status page and /readyz say so, and it is ready all the same."""
    code, ready = daemon.get("/readyz")
    told = text.partition(": ")[2] or text  # what is wrong is the heading there
    return code == 200 and text in ready and told in daemon.get("/")[1]


def test_a_full_disk_is_said_once_and_when_it_is_over(directory: Path) -> None:
    """One ERROR line, the page and /readyz say so, lines are counted; then one line that it is
    over, and how many were lost."""
    log = directory / "decisions.log"
    log.symlink_to("/dev/full")
    with Daemon(directory, POLICY, f"decision_log_file: {log}\n") as daemon:
        for _ in range(3):
            assert daemon.ask("site", alice).status == 204
        daemon.until(lambda: said(daemon, "ERROR decision log") > 0)
        assert shown(daemon, "decision log: lines are lost: No space left on device")
        lost = daemon.metric("mtls_sidecar_log_lines_dropped_total")
        assert lost == 3
        log.unlink()
        daemon.signal(SIGHUP)
        daemon.until(lambda: daemon.ask("site", alice).status == 204 and log.exists())
        daemon.until(lambda: said(daemon, "WARNING decision log: over") == 1, 20)
        assert "No space" not in daemon.get("/readyz")[1]
        assert said(daemon, "ERROR decision log") == 1
        assert "site" in log.read_text()


def test_a_limit_on_files_says_how_many_connections_there_are(directory: Path) -> None:
    """Too few descriptors for max_connections: said at the start, and connections beyond are
    closed, said once, and when it is over.  Files can still be read meanwhile."""
    daemon = Daemon(directory, POLICY)
    daemon.under = ["prlimit", "--nofile=120:120"]
    with daemon:
        most = int(re.findall(r"limits.max_connections is (\d+), not", daemon.log.read_text())[0])
        with ExitStack() as stack:
            clients = [stack.enter_context(daemon.client()) for _ in range(2 * most)]
            _reaches_the_limit(daemon, most)
            answered = 0
            for client in clients:
                with suppress(OSError):
                    client.send(question("site", alice))
                    answered += client.receive() is not None
            assert answered == most
            daemon.write("policy.yaml", POLICY.replace("verified", "[{cn: bob}]"))
            daemon.until(lambda: clients[0].ask("site", alice).status == 403)
        daemon.until(lambda: said(daemon, "WARNING connections: over") == 1, 20)
        assert said(daemon, "ERROR connections") == 1
        assert said(daemon, "descriptors") == 0
        assert daemon.ask("site", alice).status == 403


def test_the_connection_limit_is_said_once_and_when_it_is_over(directory: Path) -> None:
    """`limits.max_connections` reached: one line, also on the page, and one at the end."""
    settings = "limits: {max_connections: 5}\n"
    with Daemon(directory, POLICY, settings) as daemon:
        with ExitStack() as stack:
            clients = [stack.enter_context(daemon.client()) for _ in range(5)]
            assert all(client.ask("site", alice).status == 204 for client in clients)
            with daemon.client() as refused:
                assert refused.closed()
            _reaches_the_limit(daemon, 5)
            assert shown(daemon, "connections: all 5 are open")
            assert daemon.metric("mtls_sidecar_connections_refused_total") == 1
        daemon.until(lambda: said(daemon, "WARNING connections: over") == 1, 20)
        assert said(daemon, "ERROR connections") == 1


def _reaches_the_limit(daemon: Daemon, most: int) -> None:
    daemon.until(lambda: said(daemon, f"ERROR connections: all {most} are open") == 1)


@pytest.mark.parametrize("gone", [False, True], ids=["hung", "gone"])
def test_a_reader_of_stderr_that_is_hung_or_gone_stops_nothing(directory: Path, gone: bool) -> None:
    """Neither decisions nor reloads wait for whoever reads the log, however much is to be said;
    page, /readyz and metrics say that lines are lost."""
    daemon = Daemon(directory, POLICY, "limits: {logged_denials: 0}\n")
    reading, writing = os.pipe()
    daemon.process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "serve", "--config", str(daemon.config)],
        cwd=ROOT, stderr=writing,
    )  # fmt: skip
    try:
        os.close(writing)
        daemon.until(lambda: daemon.status("/readyz") == 200)
        if gone:
            os.close(reading)
        mistakes = "".join(f"unknown_key_{i}: 1\n" for i in range(5000))
        daemon.write("policy.yaml", POLICY + mistakes)
        daemon.until(lambda: daemon.has_failed(1))
        asked = question("site", None, {"X-Original-URI": "/" + "\xff" * 8000})
        with daemon.client() as client:
            for _ in range(10 if gone else 9000):
                client.send(asked)
                assert client.receive() is not None
        daemon.until(lambda: daemon.metric("mtls_sidecar_log_lines_dropped_total") > 0, 20)
        daemon.until(lambda: shown(daemon, "decision log: lines are lost"))
        daemon.write("policy.yaml", POLICY)
        daemon.until(lambda: daemon.metric("mtls_sidecar_policy_stale") == 0)
        assert daemon.ask("site", alice).status == 204
    finally:
        daemon.process.kill()
        daemon.process.wait()
        if not gone:
            os.close(reading)


def test_a_crl_that_ends_while_it_is_in_force_says_who_is_locked_out(directory: Path) -> None:
    """ERROR lines name the trust, the CA, the CRL and the locations that are shut; /readyz is 503;
    a new CRL ends it, and that is said."""
    end = now() + timedelta(seconds=10)
    (directory / "staff.crl").write_bytes(staff.crl(next_update=end))
    policy = POLICY.replace("ca: ca.crt", "ca: ca.crt, clock_tolerance: 0")
    with Daemon(directory, policy) as daemon:
        assert daemon.ask("site", alice).status == 204
        daemon.until(lambda: daemon.status("/readyz") == 503, 30)
        assert daemon.ask("site", alice).reason == "revocation_unknown"
        daemon.until(lambda: said(daemon, "ERROR trust staff: no CRL is in force") == 1)
        assert said(daemon, "everyone whom it certified is denied at site") == 1
        daemon.until(lambda: said(daemon, "staff.crl of CA 'CN=Staff' has ended") == 1)
        daemon.write("staff.crl", staff.crl(number=2))
        daemon.until(lambda: daemon.status("/readyz") == 200)
        assert daemon.ask("site", alice).status == 204
        daemon.until(lambda: said(daemon, "WARNING trust staff: over") == 1, 20)


def test_strangers_can_not_flush_the_audit_trail(directory: Path) -> None:
    """30,000 denials of a stranger make at most some hundred lines; each one is counted, and who
    was let in meanwhile has a line of its own."""
    log = directory / "decisions.log"
    with Daemon(directory, POLICY, f"decision_log_file: {log}\n") as daemon:
        with daemon.client() as client:
            for i in range(30_000):
                client.send(question("site", None, {"X-Request-ID": f"{i:032x}"}))
                assert client.receive() is not None
                if i % 1000 == 0:
                    assert client.ask("site", alice).status == 204
            for _ in range(2000):
                assert client.ask("open").status == 204
        summarized = daemon.metric("mtls_sidecar_log_lines_summarized_total")
        assert daemon.metric("mtls_sidecar_log_lines_dropped_total") == 0
    lines = log.read_text().splitlines()
    denied = [line for line in lines if 'reason="no_certificate"' in line]
    counts = [int(found) for found in re.findall(r'summarized="(\d+)"', "\n".join(denied))]
    assert sum(counts) + len(denied) - len(counts) == 30_000
    assert len(denied) < 6000
    assert sum('reason="allowed"' in line for line in lines) == 30
    total = sum(int(found) for found in re.findall(r'summarized="(\d+)"', "\n".join(lines)))
    assert total == summarized
    # In a line of its own where an interval began just before it.
    assert f'id="{29_999:032x}"' in "\n".join(denied)
