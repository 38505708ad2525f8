"""A fleet of real parts: a NATS server, the publisher's commands, agents and daemons."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet, Nats, until
from pki import CA

POLICY = """\
version: 1
trust: {staff: {ca: pki/ca.crt}}
locations: [{name: site, allow: [{cn: [alice, NAMES]}]}]
tests: [{location: site, cert: {cn: alice}, expect: allow}]
"""

staff = CA("Staff")
alice, bob = staff.issue("alice"), staff.issue("bob")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet without hosts, and its server."""
    with Nats(tmp_path / "nats") as nats:
        found = Fleet(tmp_path / "fleet", nats)
        yield found
        found.stop()


def release(directory: Path, names: str = "carol") -> Path:
    """A directory to publish."""
    (directory / "pki").mkdir(parents=True, exist_ok=True)
    (directory / "policy.yaml").write_text(POLICY.replace("NAMES", names))
    (directory / "pki/ca.crt").write_bytes(staff.pem)
    return directory


def test_a_release_and_a_revocation_are_in_force_on_the_host(fleet: Fleet, tmp_path: Path) -> None:
    """From keygen to a denial at the authorization socket, and back by `undo`."""
    host = fleet.host("one")
    fleet.run("publish", str(release(tmp_path / "policy")))
    host.has(1)
    assert host.daemon.ask("site", alice).status == 204
    told = fleet.run("revoke", alice.sha256, "--wait").stdout
    assert "one: in force after" in told
    denied = host.daemon.ask("site", alice)
    assert (denied.status, denied.reason) == (403, "revoked")
    status = fleet.status()
    assert set(status) == {"sequence", "head_age", "nodes"}
    (node,) = status["nodes"]
    assert set(node) == {"name", "sequence", "hash", "age", "version", "refused"}
    assert (status["sequence"], node["name"], node["sequence"]) == (2, "one", 2)
    assert node["hash"] == denied.headers["x-auth-policy"]
    fleet.run("undo", "2", "--wait")
    assert host.daemon.ask("site", alice).status == 204


def test_a_host_lives_on_without_servers_and_catches_up(fleet: Fleet, tmp_path: Path) -> None:
    """NATS killed: decisions go on, also of a daemon that starts anew; then what was missed."""
    host = fleet.host("one")
    fleet.run("publish", str(release(tmp_path / "policy")))
    fleet.run("revoke", bob.sha256, "--wait")
    fleet.nats.stop()
    host.daemon.stop()
    host.daemon.start()
    assert host.daemon.ask("site", alice).status == 204
    assert host.daemon.ask("site", bob).reason == "revoked"
    fleet.nats.start()
    fleet.run("revoke", alice.sha256, "--wait")
    until(lambda: host.daemon.ask("site", alice).reason == "revoked", "the revocation is here")
