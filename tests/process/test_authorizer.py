"""The daemon as a process: start, reload, drain, stop; what it logs and counts."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from daemon import ROOT, Daemon, question
from pki import CA
from stalled_manager import stalled_manager

staff = CA("Staff")
alice = staff.issue("alice")
bob = staff.issue("bob")
carol = staff.issue("carol")

ALICE = "version: 1\nlocations:\n  - {name: site, allow: [{cn: alice}]}\n"
BOTH = "version: 1\nlocations:\n  - {name: site, allow: [{cn: [alice, bob]}]}\n"
TRUST = (
    "version: 1\ntrust:\n  staff: {ca: ca.crt, denylist: deny.txt, crl: [crl.pem]}\n"
    "locations:\n  - {name: site, allow: verified}\n"
)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, ALICE) as found:
        yield found


@pytest.fixture
def trusting(tmp_path: Path) -> Iterator[Daemon]:
    crl = staff.crl(number=5)
    with Daemon(tmp_path, TRUST, ca_crt=staff.pem, deny_txt=b"", crl_pem=crl) as found:
        yield found


# -- sockets


def test_the_socket_has_its_mode(tmp_path: Path) -> None:
    """socket_mode is the mode of the file; the default lets the group in and nobody else."""
    with Daemon(tmp_path, ALICE) as daemon:
        assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660
    assert not daemon.socket.exists()
    (tmp_path / "x").mkdir()
    with Daemon(tmp_path / "x", ALICE, "socket_mode: 0600\n") as daemon:
        assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o600


def test_a_stale_socket_is_replaced_and_a_live_one_refused(tmp_path: Path) -> None:
    """What a crash left is no obstacle; another daemon's socket is."""
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "authz.sock"))
    stale.close()
    with Daemon(tmp_path, ALICE) as daemon:
        assert daemon.ask("site", alice).status == 204
        second = Daemon.__new__(Daemon)
        second.__dict__.update(daemon.__dict__, log=tmp_path / "second.txt")
        second.start(wait=False)
        assert second.process is not None
        assert second.process.wait(10) == 2
        assert "served by another process" in second.log.read_text()
        assert daemon.ask("site", alice).status == 204


def test_a_file_in_the_sockets_place_is_refused(tmp_path: Path) -> None:
    """What isn't a socket is never removed."""
    (tmp_path / "authz.sock").write_text("precious")
    daemon = Daemon(tmp_path, ALICE)
    daemon.start(wait=False)
    assert daemon.process is not None
    assert daemon.process.wait(10) == 2
    assert (tmp_path / "authz.sock").read_text() == "precious"


def test_sockets_of_the_service_manager_win(tmp_path: Path) -> None:
    """LISTEN_FDNAMES=authz hands a socket over; it is served, and its file stays at the end."""
    daemon = Daemon(tmp_path, ALICE)
    path = tmp_path / "handed.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        code = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', "
            "LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='authz'); "
            "os.execv(sys.executable, [sys.executable, '-m', 'sidecar', *sys.argv[2:]])"
        )
        with daemon.log.open("wb") as log:
            daemon.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", code, str(listener.fileno())),
                    *("serve", "--config", str(daemon.config)),
                ],
                cwd=ROOT,
                pass_fds=(listener.fileno(),),
                stderr=log,
            )
        daemon.until(lambda: daemon.status("/readyz") == 200)
        daemon.socket = path
        assert daemon.ask("site", alice).status == 204
        assert daemon.stop() == 0
    assert path.exists()
    assert not (tmp_path / "authz.sock").exists()


# -- start


def test_a_broken_policy_does_not_start_until_it_is_mended(tmp_path: Path) -> None:
    """With nothing to fall back to it serves nothing, says every mistake, and waits.

    Mended, it serves by itself; told to stop meanwhile, it stops.
    """
    daemon = Daemon(tmp_path, "version: 1\nlocations: [{nam: x}]\n")
    daemon.start(wait=False)
    daemon.until(lambda: daemon.status("/readyz") == 503)
    assert "no policy is in force" in daemon.get("/readyz")[1]
    assert "policy.yaml:2:14: unknown key 'nam'" in daemon.log.read_text()
    assert not daemon.socket.exists()
    daemon.write("policy.yaml", ALICE)
    daemon.until(lambda: daemon.status("/readyz") == 200)
    assert daemon.ask("site", alice).status == 204
    assert daemon.stop() == 0
    assert not daemon.socket.exists()


def test_a_daemon_without_a_policy_stops_when_told(tmp_path: Path) -> None:
    """SIGTERM ends the wait for a policy, SIGHUP doesn't."""
    daemon = Daemon(tmp_path, "junk: [\n")
    daemon.start(wait=False)
    daemon.until(lambda: "no policy is in force" in daemon.log.read_text())
    daemon.signal(signal.SIGHUP)
    daemon.until(lambda: daemon.status("/readyz") == 503)
    assert daemon.stop() == 0


def test_a_policy_that_anybody_may_write_is_refused(tmp_path: Path) -> None:
    """A world-writable policy is no policy, unless the settings say so."""
    daemon = Daemon(tmp_path, ALICE)
    daemon.policy.chmod(0o666)
    daemon.start(wait=False)
    daemon.until(lambda: "everyone may write it" in daemon.log.read_text())
    assert not daemon.socket.exists()
    daemon.stop()
    (tmp_path / "b").mkdir()
    lenient = Daemon(tmp_path / "b", ALICE, "allow_writable_policy: true\n")
    lenient.policy.chmod(0o666)
    with lenient:
        assert lenient.ask("site", alice).status == 204


# -- reload


def test_each_way_to_save_a_policy_is_noticed(daemon: Daemon) -> None:
    """In place, by rename, and by SIGHUP: the next decision is by the new policy."""
    assert daemon.ask("site", bob).status == 403
    daemon.policy.write_text(BOTH)
    daemon.until(lambda: daemon.ask("site", bob).status == 204)
    daemon.write("policy.yaml", ALICE)
    daemon.until(lambda: daemon.ask("site", bob).status == 403)
    before = daemon.metric('mtls_sidecar_policy_reloads_total{result="success"}')
    daemon.signal(signal.SIGHUP)
    daemon.until(
        lambda: daemon.metric('mtls_sidecar_policy_reloads_total{result="success"}') > before
    )


def test_a_swapped_symlink_is_noticed(tmp_path: Path) -> None:
    """Kubernetes swaps `..data`: policy.yaml → ..data/policy.yaml → another directory."""
    for name, text in (("v1", ALICE), ("v2", BOTH)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.yaml").write_text(text)
    daemon = Daemon(tmp_path, "")
    (tmp_path / "..data").symlink_to("v1")
    daemon.policy.unlink()
    daemon.policy.symlink_to("..data/policy.yaml")
    with daemon:
        assert daemon.ask("site", bob).status == 403
        (tmp_path / "..tmp").symlink_to("v2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        daemon.until(lambda: daemon.ask("site", bob).status == 204)
        shutil.rmtree(tmp_path / "v1")
        assert daemon.ask("site", bob).status == 204


def test_a_broken_reload_changes_nothing_and_is_counted(daemon: Daemon) -> None:
    """The old policy stays in force; log, metric and status page say what is wrong, and where."""
    hash_before = daemon.ask("site", alice).headers["x-auth-policy"]
    daemon.write("policy.yaml", BOTH.replace("cn", "cnn"))
    failed = 'mtls_sidecar_policy_reloads_total{result="error"}'
    daemon.until(lambda: daemon.metric(failed) == 1)
    assert daemon.ask("site", bob).status == 403
    assert daemon.ask("site", alice).headers["x-auth-policy"] == hash_before
    assert "policy.yaml:3:27: unknown key 'cnn'" in daemon.log.read_text()
    assert "unknown key" in daemon.get("/")[1]
    assert daemon.status("/readyz") == 200
    daemon.write("policy.yaml", BOTH)
    daemon.until(lambda: daemon.ask("site", bob).status == 204)
    assert "unknown key" not in daemon.get("/")[1]


def test_a_policy_that_vanishes_stays_in_force(daemon: Daemon) -> None:
    """Removing the file is a failed reload, not the end; its return is noticed."""
    daemon.policy.unlink()
    daemon.until(lambda: daemon.metric('mtls_sidecar_policy_reloads_total{result="error"}') >= 1)
    assert daemon.ask("site", alice).status == 204
    daemon.policy.write_text(BOTH)
    daemon.until(lambda: daemon.ask("site", bob).status == 204)


def test_a_new_line_in_the_denylist_denies_on_an_open_connection(trusting: Daemon) -> None:
    """Within a second, without a new connection."""
    with trusting.client() as client:
        assert client.ask("site", alice).status == 204
        trusting.write("deny.txt", f"sha256 {alice.sha256} # laptop stolen\n")
        start = time.monotonic()
        while client.ask("site", alice).status == 204:
            assert time.monotonic() - start < 2
            time.sleep(0.02)
        assert client.ask("site", alice).reason == "revoked"
        assert client.ask("site", bob).status == 204


def test_a_typo_elsewhere_does_not_hold_up_a_denial(trusting: Daemon) -> None:
    """With a broken policy.yaml and a broken CRL, a new denylist line still takes effect."""
    trusting.write("policy.yaml", TRUST + "typo\n")
    trusting.write("crl.pem", b"garbage")
    trusting.until(
        lambda: trusting.metric('mtls_sidecar_policy_reloads_total{result="error"}') >= 1
    )
    assert trusting.ask("site", alice).status == 204
    trusting.write("deny.txt", f"serial {alice.serial:x}\n")
    trusting.until(lambda: trusting.ask("site", alice).reason == "revoked")
    assert trusting.ask("site", bob).status == 204


def test_a_broken_crl_leaves_the_last_good_one(trusting: Daemon) -> None:
    """Garbage, or a CRL by another key, is refused and counted; who was revoked stays revoked."""
    trusting.write("crl.pem", staff.crl([alice], number=6))
    trusting.until(lambda: trusting.ask("site", alice).reason == "revoked")
    for count, data in enumerate((b"garbage", CA("Staff").crl(number=7)), 1):
        trusting.write("crl.pem", data)
        trusting.until(partial(trusting.has_failed, count))
        assert trusting.ask("site", alice).reason == "revoked"
        assert trusting.ask("site", bob).status == 204
    assert trusting.metric('mtls_sidecar_crl_entries{source="crl.pem",trust="staff"}') == 1


def test_a_crl_that_goes_backwards_is_refused_also_across_a_restart(trusting: Daemon) -> None:
    """A lower number is refused and counted; the last good one serves, also after a restart."""
    trusting.write("crl.pem", staff.crl([alice], number=9))
    trusting.until(lambda: trusting.ask("site", alice).reason == "revoked")
    trusting.write("crl.pem", staff.crl([bob], number=8))
    trusting.until(lambda: trusting.metric("mtls_sidecar_crl_backwards_total") >= 1)
    for _ in range(2):
        assert trusting.ask("site", alice).reason == "revoked"
        assert trusting.ask("site", bob).reason == "revoked"
        assert trusting.ask("site", carol).status == 204
        assert trusting.stop() == 0
        trusting.start()
    assert trusting.metric("mtls_sidecar_crl_backwards_total") >= 1
    trusting.write("crl.pem", staff.crl([alice], number=10))
    trusting.until(lambda: trusting.ask("site", bob).status == 204)
    assert trusting.ask("site", alice).reason == "revoked"


# -- the end


def test_sigterm_answers_what_is_under_way(daemon: Daemon) -> None:
    """A request half sent at SIGTERM is still answered; a silent connection is closed."""
    with daemon.client() as busy, daemon.client() as idle:
        idle.ask("site", alice)
        data = question("site", alice)
        busy.send(data[:100])
        time.sleep(0.1)
        daemon.signal(signal.SIGTERM)
        assert idle.closed()
        busy.send(data[100:])
        answer = busy.receive()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (204, "close")
    assert daemon.process is not None
    assert daemon.process.wait(10) == 0


def test_who_has_just_connected_is_answered(daemon: Daemon) -> None:
    """At SIGTERM a peer that has connected, or sends its next request, still gets its answer."""
    with daemon.client() as fresh, daemon.client() as idle:
        assert idle.ask("site", alice).status == 204
        daemon.until(lambda: daemon.metric("mtls_sidecar_connections") == 2)
        daemon.signal(signal.SIGTERM)
        assert [client.ask("site", alice).status for client in (fresh, idle)] == [204, 204]
        assert fresh.closed()
        assert idle.closed()


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    """READY, RELOADING, WATCHDOG and STOPPING arrive on NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        daemon = Daemon(tmp_path, ALICE)
        daemon.environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        with daemon:
            said = manager.recv(4096)
            while b"WATCHDOG=1" not in said:
                said += manager.recv(4096)
            assert b"READY=1" in said
            daemon.signal(signal.SIGHUP)
            while b"RELOADING=1" not in said or not said.rpartition(b"RELOADING=1")[2].count(
                b"READY=1"
            ):
                said += manager.recv(4096)
            assert b"MONOTONIC_USEC=" in said
        while b"STOPPING=1" not in said:
            said += manager.recv(4096)


def test_a_service_manager_that_reads_nothing_holds_nobody_up(tmp_path: Path) -> None:
    """Any user can fill the manager's queue, or hold the manager up: a revocation and a policy take
    effect, and the manager learns later what is in force."""
    with stalled_manager(tmp_path / "notify") as (manager, fill):
        crl = staff.crl(number=5)
        daemon = Daemon(tmp_path, TRUST, ca_crt=staff.pem, deny_txt=b"", crl_pem=crl)
        daemon.environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with daemon:
            while b"READY=1" not in manager.recv(4096):
                pass
            fill()
            daemon.write("deny.txt", f"sha256 {alice.sha256}\n")
            daemon.until(lambda: daemon.ask("site", alice).reason == "revoked")
            daemon.write("policy.yaml", TRUST + "  - {name: more, allow: verified}\n")
            daemon.until(lambda: daemon.ask("more").status == 401)
            told = f"policy {daemon.ask('more').headers['x-auth-policy']} in force".encode()
            while told not in manager.recv(4096):
                pass


# -- log and metrics


def test_the_log_says_why_and_can_not_be_forged(tmp_path: Path) -> None:
    """One JSON line a decision, with whatever the client chose escaped."""
    evil = staff.issue('al"ice\u202e', ou=["x y"])
    with Daemon(
        tmp_path, ALICE, "log_format: json\ndecision_log_file: %s\n" % (tmp_path / "d.log")
    ) as d:
        d.ask(
            "site", evil, X_Original_URI="/a?b=\x1b[31m".replace("\x1b", "\x80"), X_Request_ID="r-1"
        )
        d.ask("site", alice)
    lines = (tmp_path / "d.log").read_bytes().splitlines()
    assert all(0x20 <= byte < 0x7F for line in lines for byte in line)
    denied, allowed = map(json.loads, lines)
    assert (denied["decision"], denied["reason"], denied["id"]) == ("deny", "not_allowed", "r-1")
    assert denied["sha256"] == evil.sha256
    assert "\u202e" in denied["subject"]
    assert (allowed["decision"], allowed["rule"]) == ("allow", "allow[0]")


def test_text_log_and_denied_only(tmp_path: Path) -> None:
    """decision_log: denied leaves the allowed ones out."""
    with Daemon(tmp_path, ALICE, "decision_log: denied\n") as daemon:
        daemon.ask("site", alice)
        daemon.ask("site", bob)
    lines = [line for line in daemon.log.read_text().splitlines() if "reason=" in line]
    assert len(lines) == 1
    assert "not_allowed" in lines[0]


def test_the_log_is_opened_anew_after_rotation(tmp_path: Path) -> None:
    """logrotate moves the file and sends SIGHUP: lines go on in a new one."""
    path = tmp_path / "d.log"
    with Daemon(tmp_path, ALICE, f"decision_log_file: {path}\n") as daemon:
        daemon.ask("site", alice)
        daemon.until(path.exists)
        path.rename(tmp_path / "d.log.1")
        daemon.signal(signal.SIGHUP)
        daemon.until(path.exists)
        daemon.ask("site", bob)
        daemon.until(lambda: "not_allowed" in path.read_text())


def test_decisions_are_counted_without_a_clients_words(daemon: Daemon) -> None:
    """Counts by location, decision and reason; an unknown location has no label of its own."""
    daemon.ask("site", alice)
    daemon.ask("site", bob)
    daemon.ask("secret-name", bob)
    text = daemon.get("/metrics")[1]
    assert (
        'mtls_sidecar_decisions_total{decision="allow",location="site",reason="allowed"} 1.0'
        in text
    )
    assert 'decision="deny",location="site",reason="not_allowed"} 1.0' in text
    assert 'decision="deny",location="",reason="unknown_location"} 1.0' in text
    for word in ("secret-name", "alice", "bob", alice.sha256):
        assert word not in text
    assert "mtls_sidecar_decision_duration_seconds_count 3.0" in text
    assert "process_resident_memory_bytes" in text


def test_monitor_mode_is_counted_as_what_it_would_be(tmp_path: Path) -> None:
    """Shadow decisions, and how many distinct certificates enforcing would lock out."""
    policy = ALICE.replace("name: site", "name: site, mode: monitor")
    with Daemon(tmp_path, policy) as daemon:
        for leaf in (alice, bob, bob, staff.issue("eve")):
            assert daemon.ask("site", leaf).status == 204
        assert daemon.metric('mtls_sidecar_shadow_would_break_clients{location="site"}') == 2
        labels = 'decision="deny",location="site",reason="not_allowed"'
        assert daemon.metric(f"mtls_sidecar_shadow_decisions_total{{{labels}}}") == 3


def test_metrics_are_valid_for_prometheus(daemon: Daemon) -> None:
    """promtool finds nothing to complain about."""
    from tools import Missing, promtool

    found = promtool()
    if isinstance(found, Missing):
        pytest.skip(str(found))
    daemon.ask("site", alice)
    text = daemon.get("/metrics")[1]
    result = subprocess.run(
        [str(getattr(found, "path", found)), "check", "metrics"],
        input=text,
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_admin_listener_only_reads(daemon: Daemon) -> None:
    """Health, the page under a strict policy, and no method but GET."""
    import urllib.request

    assert daemon.get("/livez") == (200, "ok\n")
    status, page = daemon.get("/")
    assert status == 200
    assert "<form" not in page.replace(
        '<form class="search" role="search" action="/" method="get">', ""
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.port}/") as found:
        policy = found.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert daemon.get("/nothing")[0] == 404
    request = urllib.request.Request(
        f"http://127.0.0.1:{daemon.port}/metrics", method="POST", data=b""
    )
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request)


def test_a_page_can_not_be_injected_into(tmp_path: Path) -> None:
    """A mistake that carries HTML is shown as text."""
    with Daemon(tmp_path, ALICE) as daemon:
        daemon.write("policy.yaml", 'version: 1\n"<img src=x>": 1\nlocations: []\n')
        daemon.until(
            lambda: daemon.metric('mtls_sidecar_policy_reloads_total{result="error"}') == 1
        )
        page = daemon.get("/")[1]
        assert "<img" not in page
        assert "&lt;img" in page
