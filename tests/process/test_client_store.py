"""The store of clients seen: what a real daemon keeps of them, and what it survives."""

from __future__ import annotations

import json
import signal
import tracemalloc
from pathlib import Path

import pytest
from daemon import Daemon
from pki import CA

from sidecar.authorizer import client_store
from sidecar.authorizer.client_store import ClientStore
from sidecar.core.decision import Decision, Reason
from sidecar.core.seen_clients import SeenClient
from sidecar.core.x509.certificate import from_der
from sidecar.runtime.seen_clients_file import seen_clients, seen_clients_path

staff, other = CA("Staff"), CA("Other")
alice, bob, carol = staff.issue("alice"), staff.issue("bob"), staff.issue("carol")
POLICY = """\
version: 1
trust: {staff: {ca: ca.crt}}
locations:
  - {name: site, allow: [{cn: [alice, carol]}]}
  - {name: admin, allow: [{cn: carol}], mode: monitor}
  - {name: open, allow: public}
"""


def daemon(place: Path, settings: str = "") -> Daemon:
    return Daemon(place, POLICY, settings, ca_crt=staff.pem)


def kept(place: Path) -> dict[str, SeenClient]:
    return seen_clients(place / "state")


def test_verified_clients_are_kept_across_a_restart(tmp_path: Path) -> None:
    """Each with certificate, moments, location, reason and rule, whether let in; no stranger."""
    assert kept(tmp_path) == {}
    running = daemon(tmp_path)
    with running:
        running.ask("site", alice)
        running.ask("site", bob)
        running.ask("admin", bob)
        running.ask("site", other.issue("mallory"))
        running.ask("open", carol)
        running.ask("site")
        running.until(lambda: len(kept(tmp_path)) == 2, seconds=30)
    found = kept(tmp_path)
    assert set(found) == {alice.sha256, bob.sha256}
    assert found[alice.sha256].der == alice.der
    assert found[alice.sha256].visits["site"][1:] == ("allow", "allowed", "allow[0]")
    assert found[bob.sha256].visits["site"][1:] == ("deny", "not_allowed", "")
    assert found[bob.sha256].visits["admin"].shadowed
    first = found[alice.sha256].first_seen
    with running:
        running.ask("site", alice)
        running.ask("site", carol)
    found = kept(tmp_path)
    assert set(found) == {alice.sha256, bob.sha256, carol.sha256}
    assert found[alice.sha256].first_seen == first
    assert found[alice.sha256].last_seen > first


def test_a_cached_answer_counts_as_seen(tmp_path: Path) -> None:
    """Who is answered from the cache is seen again all the same."""
    running = daemon(tmp_path)
    with running, running.client() as client:
        client.ask("site", alice)
        running.until(lambda: alice.sha256 in kept(tmp_path), seconds=30)
        before = kept(tmp_path)[alice.sha256].last_seen
        client.ask("site", alice)
        client.ask("site", alice)
    assert kept(tmp_path)[alice.sha256].last_seen > before


def test_a_killed_daemon_leaves_what_was_written(tmp_path: Path) -> None:
    """A torn last line costs that line alone, and the file is whole again afterwards."""
    running = daemon(tmp_path).start()
    running.ask("site", alice)
    running.until(lambda: alice.sha256 in kept(tmp_path), seconds=30)
    running.signal(signal.SIGKILL)
    running.stop()
    path = seen_clients_path(tmp_path / "state")
    with path.open("ab") as file:
        file.write(b'{"sha256": "torn')
    with running:
        running.ask("site", bob)
        running.until(lambda: bob.sha256 in kept(tmp_path), seconds=30)
        assert alice.sha256 in kept(tmp_path)
        assert all(json.loads(line) for line in path.read_bytes().splitlines())
    assert "1 of its lines are broken" in running.log.read_text()


def test_who_removes_the_file_has_the_daemon_forget(tmp_path: Path) -> None:
    """The clients seen before are forgotten, and those seen afterwards are kept."""
    running = daemon(tmp_path)
    with running:
        running.ask("site", alice)
        running.until(lambda: alice.sha256 in kept(tmp_path), seconds=30)
        seen_clients_path(tmp_path / "state").unlink()
        running.ask("site", bob)
        running.until(lambda: set(kept(tmp_path)) == {bob.sha256}, seconds=30)


def test_what_stands_in_the_files_place_is_set_aside(tmp_path: Path) -> None:
    """A directory there stops nothing: it is renamed and told, and the clients are kept."""
    path = seen_clients_path(tmp_path / "state")
    path.mkdir(parents=True)
    with daemon(tmp_path) as running:
        assert running.ask("site", alice).status == 204
        running.until(lambda: path.is_file() and alice.sha256 in kept(tmp_path), seconds=30)
        assert "it is set aside" in running.log.read_text()


def test_a_state_directory_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    """Decisions go on while the clients can't be kept."""
    (tmp_path / "state").write_bytes(b"a file")
    with daemon(tmp_path) as running:
        assert running.ask("site", alice).status == 204
        told = "the clients seen aren't kept across restarts"
        running.until(lambda: told in running.log.read_text(), seconds=30)
        assert running.ask("site", bob).status == 403
    assert running.log.read_text().count(told) == 1


def test_none_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    """`seen_clients: 0` removes what was kept before."""
    with daemon(tmp_path) as running:
        running.ask("site", alice)
    assert kept(tmp_path)
    with daemon(tmp_path, "limits: {seen_clients: 0}\n") as running:
        running.ask("site", alice)
        running.until(lambda: not seen_clients_path(tmp_path / "state").exists(), seconds=30)
    assert kept(tmp_path) == {}


def test_a_fault_of_the_program_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever taking over raises, it is logged once, and the next try keeps the client."""
    store = ClientStore(tmp_path, 10)
    decision = Decision(Reason.ALLOWED, "site", "allow[0]", subject=from_der(alice.der))
    with monkeypatch.context() as broken:
        broken.setattr(client_store, "write_file", lambda *_: 1 / 0)
        for _ in range(2):
            store.note(decision, 1.0)
            store.save()
    assert [record.message.partition(": ")[2] for record in caplog.records] == ["division by zero"]
    store.save()
    assert list(seen_clients(tmp_path)) == [alice.sha256]


def test_one_client_takes_one_place_among_the_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many decisions are made about it, another client is noted; of its own, the last."""
    monkeypatch.setattr(client_store, "MAX_NOTES", 2)
    store = ClientStore(tmp_path, 10)
    first, second = (
        Decision(Reason.ALLOWED, "site", rule, subject=from_der(alice.der))
        for rule in ("allow[0]", "allow[1]")
    )
    for moment, decision in enumerate((first, second, first)):
        store.note(decision, float(moment))
    store.note(Decision(Reason.ALLOWED, "site", "allow[0]", subject=from_der(bob.der)), 3.0)
    store.save()
    found = {client.sha256: client.visits["site"] for client in store.clients()}
    assert found[bob.sha256].at == 3.0
    assert found[alice.sha256] == (2.0, "allow", "allowed", "allow[0]")


def test_the_file_is_written_anew_by_lines(tmp_path: Path) -> None:
    """Of 2,000 clients with 2 KiB each, no second copy is made in memory, which would stay the
    process's."""
    store = ClientStore(tmp_path, 2000)
    store.save()
    for number in range(2000):
        sha256 = f"{number:064x}"
        store._clients.by_sha256[sha256] = SeenClient(sha256, bytes(2048), 1e12, 1.0)
    store._must_rewrite = True
    tracemalloc.start()
    store.save()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < store.path.stat().st_size / 4
    assert len(store.path.read_bytes().splitlines()) == 2000
