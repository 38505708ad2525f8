"""What runs out, passes or fails meanwhile: nothing is lost, and nobody is held up for long."""

from __future__ import annotations

import asyncio
import errno
import pickle
import resource
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from daemon import ROOT, Daemon
from nginx import free_port
from pki import CA

from sidecar.authorizer import policy_store, readings, trust_files
from sidecar.authorizer.admin import admin_listener
from sidecar.authorizer.daemon_status import DaemonStatus
from sidecar.authorizer.policy_store import Reload, Store
from sidecar.authorizer.readings import Readings
from sidecar.authorizer.telemetry.counters import Counts
from sidecar.core.policy.compile import Draft
from sidecar.core.policy.model import Policy
from sidecar.core.revocation.crl.index import CrlFile
from sidecar.runtime import admin_listener as runtime_listener
from sidecar.runtime.admin_listener import MAX_CONNECTIONS
from sidecar.runtime.crl_worker import CrlWorkers
from sidecar.runtime.files import FileVersion, crl_state_path, may_pass

staff = CA("Staff")
alice = staff.issue("alice")
POLICY = """\
version: 1
trust: {staff: {ca: ca.crt, denylist: denylist.txt}}
locations: [{name: site, allow: [{cn: alice}]}]
"""
DENIED = f"sha256 {alice.sha256}\n"


@pytest.mark.parametrize("name", ["denylist.txt", "policy.yaml"])
def test_a_moment_without_descriptors_loses_no_change(tmp_path: Path, name: str) -> None:
    """What was saved while nothing could be opened is in force once it can be.

    And who could not connect meanwhile, can.
    """
    saved = {"denylist.txt": DENIED, "policy.yaml": POLICY.replace("alice", "bob")}
    with (
        Daemon(tmp_path, POLICY, ca_crt=staff.pem, denylist_txt=b"") as daemon,
        daemon.client() as client,
    ):
        assert daemon.process is not None
        assert client.ask("site", alice).status == 204
        soft, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (1, hard))
        daemon.write(name, saved[name])
        daemon.until(lambda: "Too many open files" in daemon.log.read_text())
        with socket.socket(socket.AF_UNIX) as late:
            late.connect(str(daemon.socket))
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
            daemon.until(lambda: client.ask("site", alice).status == 403)
            daemon.until(lambda: daemon.ask("site", alice).status == 403)


def test_the_admin_listener_takes_few_connections(tmp_path: Path) -> None:
    """Whoever opens hundreds takes no descriptors from nginx, nor from what must be read."""
    with (
        Daemon(tmp_path, POLICY, ca_crt=staff.pem, denylist_txt=b"") as daemon,
        ExitStack() as held,
    ):
        assert daemon.process is not None
        for _ in range(5 * MAX_CONNECTIONS):
            held.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        descriptors = Path(f"/proc/{daemon.process.pid}/fd")
        daemon.until(lambda: daemon.ask("site", alice).status == 204)
        assert len(list(descriptors.iterdir())) < MAX_CONNECTIONS + 50
        daemon.write("denylist.txt", DENIED)
        daemon.until(lambda: daemon.ask("site", alice).status == 403)
        held.close()
        daemon.until(lambda: daemon.status("/readyz") == 200)


def test_an_admin_connection_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent ones, and those that never finish their request, are cut; an answer ends one, too."""
    monkeypatch.setattr(runtime_listener, "DEADLINE", 0.5)
    counts = Counts()

    def until_end(peer: socket.socket) -> bytes:
        found = b""
        with peer, suppress(ConnectionResetError):
            while data := peer.recv(4096):
                found += data
        return found

    async def lasting(listener: socket.socket) -> list[bytes]:
        found = admin_listener(DaemonStatus(counts))
        await found.start([listener])
        peers = [socket.create_connection(listener.getsockname(), 30) for _ in range(3)]
        peers[1].send(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-")
        peers[2].send(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        try:
            return await asyncio.gather(*(asyncio.to_thread(until_end, each) for each in peers))
        finally:
            await found.close()

    with socket.create_server(("127.0.0.1", free_port())) as listener:
        listener.setblocking(False)
        silent, slow, whole = asyncio.run(lasting(listener))
    assert (silent, slow) == (b"", b"")
    assert whole.endswith(b"\r\n\r\nok\n")


def test_a_reload_that_fails_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a mistake of our own leaves the policy in force, is told, and the watch goes on."""
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nlocations: [{name: a, allow: public}]\n")
    told: list[Reload] = []
    found = Store(path, tmp_path, trusted_only=False, changed=told.append)
    first = found.load().policy

    def broken(*_: object) -> None:
        raise RuntimeError("a mistake of our own")

    def put(name: str) -> None:
        path.write_text(f"version: 1\nlocations: [{{name: {name}, allow: public}}]\n")

    async def watch() -> None:
        watching = asyncio.create_task(found.watch())
        with monkeypatch.context() as patched:
            patched.setattr(policy_store, "compile_draft", broken)
            put("b")
            while not told and not watching.done():
                await asyncio.sleep(0.02)
        with monkeypatch.context() as patched:
            patched.setattr(trust_files.TrustFiles, "resolve", broken)
            put("c")
            while len(told) < 2 and not watching.done():
                await asyncio.sleep(0.02)
        put("d")
        while not told[-1].ok and not watching.done():
            await asyncio.sleep(0.02)
        watching.cancel()
        await found.close()

    asyncio.run(asyncio.wait_for(watch(), 30))
    assert told[0].policy is told[1].policy is first
    assert "RuntimeError: a mistake of our own" in str(told[0].diagnostics[0])
    assert "RuntimeError, see the log" in str(told[1].diagnostics[0])
    assert "d" in told[-1].policy.locations


def test_what_can_not_be_read_is_tried_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that goes on failing doesn't keep the daemon busy, and a small one is seen soon."""
    large = FileVersion(0, 0, 1 << 30, 0, 0)
    waits = [readings._pause(tries, large) for tries in range(12)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert max(readings._pause(tries, None) for tries in range(99)) == 5.0


def test_a_file_that_fails_for_a_while_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may pass by itself is tried again; what can't is left alone until the file changes."""
    monkeypatch.setattr(readings, "RETRY_SMALL", (0.0, 0.0))
    found = Readings()
    raised: list[BaseException] = [OSError(errno.EMFILE, "no"), MemoryError(), ValueError("no")]

    def read() -> int:
        raise raised.pop(0)

    for _ in range(5):
        found.begin(patient=True)
        outcome = found.ask(("x",), tmp_path, read)
        found.end()
    assert outcome is not None
    assert isinstance(outcome.error, ValueError)
    assert not raised
    assert not found.moved()


def test_a_chore_that_fails_ends_the_daemon(tmp_path: Path) -> None:
    """Better started anew by the service manager than serving without its watch."""
    daemon = Daemon(tmp_path, POLICY, ca_crt=staff.pem, denylist_txt=b"")
    program = (
        "import sys\nfrom sidecar.cli import main\nfrom sidecar.authorizer.service import Daemon\n"
        "async def sweep(self): raise RuntimeError('a mistake of our own')\n"
        "Daemon._sweep = sweep\nsys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "--config", str(daemon.config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "a mistake of our own" in done.stderr) == (1, True)
    assert not daemon.socket.exists()


def test_a_large_crl_that_anybody_may_write_is_refused_too(tmp_path: Path) -> None:
    """The process that reads it aside asks the same of it as ours."""
    path = tmp_path / "staff.crl"
    path.write_bytes(staff.crl([alice]))
    workers = CrlWorkers()
    reading = workers.read(path, "staff.crl", (staff.der,), trusted_only=True)
    assert reading.found.crls[0].entry_count == 1
    path.chmod(0o666)
    with pytest.raises(PermissionError):
        workers.read(path, "staff.crl", (staff.der,), trusted_only=True)


def test_a_killed_reader_is_no_verdict_on_a_crl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process that reads a large CRL is killed, the CRL is read again later."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (tmp_path / "staff.crl").write_bytes(staff.crl())
    with pytest.raises(OSError, match="ended") as caught:
        CrlWorkers().read(tmp_path / "staff.crl", "staff.crl", (staff.der,), trusted_only=True)
    assert may_pass(caught.value)


def test_the_reader_of_crls_runs_nothing_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `sidecar.py` where the daemon happens to be started is never run."""
    (tmp_path / "sidecar.py").write_text("open('ran', 'w')\n")
    (tmp_path / "staff.crl").write_bytes(staff.crl())
    monkeypatch.chdir(tmp_path)
    reading = CrlWorkers().read(
        tmp_path / "staff.crl", "staff.crl", (staff.der,), trusted_only=True
    )
    assert not reading.found.mistakes
    assert not (tmp_path / "ran").exists()


URL = "http://user:s3cret@crl.example.com/ca.crl"
FETCHED = f"""\
version: 1
trust: {{staff: {{ca: ca.crt, crl: "{URL}", revocation: best_effort}}}}
locations: [{{name: site, allow: [{{cn: alice}}]}}]
"""


def test_a_fetched_crl_that_is_gone_is_not_forgotten(tmp_path: Path) -> None:
    """Whoever is on it stays denied, the loss is told, and nowhere is the address's password."""
    place = crl_state_path(tmp_path / "state", "staff", URL)
    place.parent.mkdir(parents=True)
    place.write_bytes(staff.crl([alice], der=True))
    with Daemon(tmp_path, FETCHED, ca_crt=staff.pem) as daemon:
        assert daemon.ask("site", alice).reason == "revoked"
        place.unlink()
        daemon.until(lambda: daemon.has_failed(1))
        assert daemon.ask("site", alice).reason == "revoked"
        told = daemon.get("/")[1] + daemon.get("/metrics")[1] + daemon.log.read_text()
        assert "what was fetched is gone" in told
        assert "http://crl.example.com/ca.crl" in told
        assert "s3cret" not in told
        place.write_bytes(staff.crl([alice], der=True))
        daemon.until(lambda: "The last reload was refused" not in daemon.get("/")[1])


def test_large_crls_are_read_few_octets_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many large files, no more are read at once than memory is there for; all are read."""
    sizes = [200, 100, 20, 90, 200, 10, 60]
    lock, running, most = threading.Lock(), list[int](), list[int]()

    def run(self: CrlWorkers, question: bytes, shared: int) -> bytes:
        (path, *_), limit = pickle.loads(question)
        size = Path(path).stat().st_size >> 20
        assert limit >> 20 == size
        with lock:
            running.append(size)
            most.append(sum(running) if len(running) > 1 else 0)
        time.sleep(0.05)
        with lock:
            running.remove(size)
        return pickle.dumps((CrlFile((), ()), ""))

    monkeypatch.setattr(CrlWorkers, "_run", run)
    workers = CrlWorkers()
    threads = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.crl"
        with path.open("wb") as file:
            file.truncate(size << 20)
        read = partial(workers.read, path, "x", (), trusted_only=False)
        threads.append(threading.Thread(target=read))
        threads[-1].start()
    for thread in threads:
        thread.join(30)
    assert len(most) == len(sizes)
    assert max(most) <= 128


def test_a_policy_that_fails_when_it_is_put_into_force_holds_up_no_denylist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of our own in a new policy: the old one stays, with what its files revoke now."""
    (tmp_path / "ca.crt").write_bytes(staff.pem)
    (tmp_path / "denylist.txt").write_bytes(b"")
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    found = Store(policy, tmp_path / "state", trusted_only=False, changed=lambda _: None)
    first = found.load().policy
    bind = Draft.bind

    def fail(self: Draft, *given: Any) -> Policy:
        if "broken" in self.spec.locations[0].name:
            raise RuntimeError("a mistake of our own")
        return bind(self, *given)

    monkeypatch.setattr(Draft, "bind", fail)
    policy.write_text(POLICY.replace("site", "broken"))
    (tmp_path / "denylist.txt").write_text(DENIED)
    monkeypatch.setattr(readings, "SETTLE_SECONDS", 0.0)
    result = found.load()
    assert "RuntimeError: a mistake of our own" in str(result.diagnostics[0])
    assert result.policy is not first
    assert result.policy.trusts["staff"].denylists[0].entries


def test_a_list_that_never_rests_takes_nobody_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read while it is being written, its new lines count, and who was denied stays so; at rest it
    counts as it is."""
    (tmp_path / "ca.crt").write_bytes(staff.pem)
    place, policy = tmp_path / "denylist.txt", tmp_path / "policy.yaml"
    place.write_text(DENIED)
    policy.write_text(POLICY)
    found = Store(policy, tmp_path / "state", trusted_only=False, changed=lambda _: None)

    def denied() -> set[int]:
        while True:
            result = found.load()
            if not found._readings.pending:
                return {serial for _, serial in result.policy.trusts["staff"].denylists[0].entries}

    with monkeypatch.context() as restless:
        restless.setattr(readings, "LONGEST_SETTLING", 0.0)
        restless.setattr(readings, "_is_young", lambda signature: signature is not None)
        alice_s = denied()
        assert len(alice_s) == 1
        place.write_text("")
        assert denied() == alice_s
        place.write_text("serial 99\n")
        assert denied() == alice_s | {0x99}
    time.sleep(readings.SETTLE_SECONDS)
    assert denied() == {0x99}
