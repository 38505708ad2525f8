"""A fleet whose three NATS servers are cut off from each other, or set back together.

One cluster and one node for all tests of this file, as in test_fleet_cluster.py.  The ways between
the servers are cut; their clients reach them all the while.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator

import pytest
from fleet_cluster import Cluster, Scene, Server
from fleet_hosts import Fleet, until
from pki import CA

# The NATS client does not close the transport of a server that never answers.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)

PATIENCE = 60.0
CUT_SECONDS = 30.0
"""Longer than servers wait for each other, so that what they stored before is no news."""
POLICY = """\
version: 1
trust: {staff: {ca: ca.crt}}
locations:
  - {name: site, allow: [{cn: alice}]}
  - {name: strict, allow: [{cn: alice}], stale: deny}
"""
staff = CA("Staff")
alice = staff.issue("alice")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A cluster with a first release that web1 has in force."""
    directory = tmp_path_factory.mktemp("partition")
    (directory / "policy").mkdir()
    (directory / "policy/policy.yaml").write_text(POLICY)
    (directory / "policy/ca.crt").write_bytes(staff.pem)
    cluster = Cluster(directory / "nats")
    with cluster:
        fleet = Fleet(directory / "fleet", cluster)
        state = f"state_dir: {directory}/fleet/publisher"
        fleet.config.write_text(fleet.settings(state, tls=cluster.tls("publisher")))
        found = Scene(cluster, fleet, directory)
        try:
            fleet.host("web1", tls=cluster.tls("web1"))
            found.publish("publish", str(directory / "policy"))
            until(lambda: found.host.sequence() == 1, "web1 has the release", PATIENCE)
            yield found
        finally:
            fleet.stop()


def follower(scene: Scene) -> Server:
    """A server that does not lead the log."""
    leader = scene.leader()
    return next(each for each in scene.cluster.servers if each is not leader)


@pytest.mark.parametrize(("name", "choose"), [("web2", follower), ("web3", Scene.leader)])
def test_a_node_at_a_server_that_is_cut_off_goes_on_and_catches_up(
    scene: Scene, name: str, choose: object
) -> None:
    """Beside a follower, or the leader alone: the node knows that it may miss something.

    A keeper at that server, which sees no more than the node, vouches for nothing meanwhile.  The
    others go on; once healed, the node takes all that it missed, in order, nothing twice.
    """
    assert callable(choose)
    server = choose(scene)
    with scene.keeper(server), scene.node(name, server, stale_after="12") as host:
        end = scene.end()
        until(lambda: host.sequence() == end, host.told(), PATIENCE)
        until(lambda: host.daemon.ask("strict", alice).status == 204, "a head is there", PATIENCE)
        with scene.cluster.cut(server):
            start = time.monotonic()
            other = next(each for each in scene.cluster.servers if each is not server)
            scene.flood(20, {}, other)
            assert scene.publish("revoke", alice.sha256) == end + 21
            until(lambda: len(scene.stored(other)) == end + 21, "the others have it", PATIENCE)
            time.sleep(max(0.0, start + CUT_SECONDS - time.monotonic()))
            age = host.daemon.metric("mtls_sidecar_fleet_head_age_seconds")
            assert age > time.monotonic() - start - 1, "a head came that nobody could vouch for"
            assert host.daemon.ask("strict", alice).reason == "revocation_unknown"
            assert host.sequence() == end
            assert host.daemon.ask("site", alice).status == 204
        until(lambda: host.daemon.ask("site", alice).reason == "revoked", host.told(), PATIENCE)
        scene.publish("undo", str(end + 21))
        until(lambda: host.daemon.ask("strict", alice).status == 204, "heads come", PATIENCE)
        scene.whole()


def test_a_cluster_that_was_set_back_is_noticed_and_filled_again(scene: Scene) -> None:
    """All three stores are an older copy: the node keeps what it had, and tells; so the publisher.

    `fleet status` shows it all the same.  `fleet restore` writes again what is missing.
    """
    snapshot = Snapshot(scene)
    end = scene.publish("revoke", alice.sha256)
    until(lambda: scene.host.sequence() == end, scene.host.told(), PATIENCE)
    snapshot.put_back()
    told = until(lambda: refused_by(scene, "rollback"), scene.host.told(), PATIENCE)
    assert f"the servers lack entry {end}" in told
    assert scene.host.daemon.ask("site", alice).reason == "revoked"
    assert scene.host.sequence() == end
    again = scene.fleet.run("revoke", staff.issue("bob").sha256, check=False)
    assert again.returncode == 2
    assert f"the servers don't have entry {end}" in again.stderr
    assert "fleet restore" in again.stderr
    assert "1 entries were written again" in scene.fleet.run("restore").stdout
    assert scene.publish("undo", str(end)) == end + 1
    until(lambda: scene.host.daemon.ask("site", alice).status == 204, scene.host.told(), PATIENCE)
    scene.everywhere(scene.lines())
    until(lambda: "the servers lack" not in status(scene), "all is well again", PATIENCE)


def test_another_history_is_refused_and_a_higher_epoch_leads_out_of_it(scene: Scene) -> None:
    """Servers and a publisher's machine are set back, and that one publishes on.

    Nodes keep what they had, and count each entry of the other history; the true publisher can't
    restore over it.  In a new epoch all follow again, and what was revoked stays so all the while.
    """
    host, fleet = scene.host, scene.fleet
    snapshot = Snapshot(scene)
    end = scene.publish("revoke", alice.sha256)
    until(lambda: host.sequence() == end, host.told(), PATIENCE)
    snapshot.put_back()
    old = ("--state-dir", str(snapshot.publisher))
    until(lambda: fleet.run("revoke", "ab" * 32, *old, check=False).returncode == 0, "a fork", 60)
    until(lambda: refused_by(scene, "fork"), host.told(), PATIENCE)
    assert host.daemon.ask("site", alice).reason == "revoked"
    assert host.sequence() == end
    refused = fleet.run("restore", check=False)
    assert refused.returncode == 2
    assert f"another entry {end}" in refused.stderr
    assert "epoch" in refused.stderr

    scene.cluster.allow_epoch(2)
    for config in (fleet.config, host.daemon.config):
        text = config.read_text()
        config.write_text(text.replace("  name: prod\n", "  name: prod\n  epoch: 2\n"))
    host.stop()
    host.start_agent()
    host.daemon.start()
    assert host.daemon.ask("site", alice).reason == "revoked"
    until(lambda: fleet.run("revoke", alice.sha256, check=False).returncode == 0, "again", 60)
    until(lambda: published(scene), "the policy is published", PATIENCE)
    until(lambda: host.sequence() == 2, host.told(), PATIENCE)
    assert host.daemon.ask("site", alice).reason == "revoked"
    fleet.run("undo", "1")
    until(lambda: host.daemon.ask("site", alice).status == 204, host.told(), PATIENCE)


def published(scene: Scene) -> bool:
    return scene.fleet.run("publish", str(scene.directory / "policy"), check=False).returncode == 0


class Snapshot:
    """What all servers, and the publisher's machine, hold now."""

    def __init__(self, scene: Scene) -> None:
        scene.whole()
        self._servers = scene.cluster.servers
        self.publisher = scene.directory / "publisher.old"
        shutil.rmtree(self.publisher, ignore_errors=True)
        shutil.copytree(scene.fleet.directory / "publisher", self.publisher)
        self._exchange("store", "store.old")

    def put_back(self) -> None:
        """Have all servers hold it again."""
        self._exchange("store.old", "store")

    def _exchange(self, source: str, target: str) -> None:
        for server in self._servers:
            server.stop(signal.SIGTERM)
        for server in self._servers:
            shutil.rmtree(server.directory / target, ignore_errors=True)
            shutil.copytree(server.directory / source, server.directory / target)
        for server in self._servers:
            server.start()


def status(scene: Scene) -> str:
    """What `fleet status` prints."""
    return scene.fleet.run("status", check=False).stdout


def refused_by(scene: Scene, why: str) -> str:
    """What `fleet status` says of web1, once that refused something and its log says why."""
    line = next((each for each in status(scene).splitlines() if "web1:" in each), "")
    told = (scene.host.directory / "agent.txt").read_text()
    return line if " refused" in line and f"refused ({why})" in told else ""
