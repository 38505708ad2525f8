"""A fleet on three NATS servers with TLS, certificates and roles, and what befalls the servers.

One cluster and one node for all tests of this file: each test goes on with what the one before
left, so a fault that does lasting harm shows in every test behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nats
import pytest
from fleet_cluster import Cluster, Scene, Server, ignore
from fleet_hosts import ROOT, Fleet, until
from pki import CA
from tools import faketime, need

from sidecar.fleet.subjects import Subjects

# The NATS client does not close the transport of a server that never answers.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)

PATIENCE = 60.0
POLICY = """\
version: 1
trust: {staff: {ca: ca.crt}}
locations:
  - {name: site, allow: [{cn: [alice, NAMES]}]}
  - {name: strict, allow: [{cn: alice}], stale: deny}
"""
staff = CA("Staff")
alice = staff.issue("alice")


def release(scene: Scene, names: str) -> Path:
    """A directory to publish."""
    found = scene.directory / "policy"
    found.mkdir(exist_ok=True)
    (found / "policy.yaml").write_text(POLICY.replace("NAMES", names))
    (found / "ca.crt").write_bytes(staff.pem)
    return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A cluster with a first release that web1 has in force."""
    directory = tmp_path_factory.mktemp("cluster")
    cluster = Cluster(directory / "nats")
    with cluster:
        fleet = Fleet(directory / "fleet", cluster)
        state = f"state_dir: {directory}/fleet/publisher"
        fleet.config.write_text(fleet.settings(state, tls=cluster.tls("publisher")))
        found = Scene(cluster, fleet, directory)
        try:
            fleet.host("web1", tls=cluster.tls("web1"))
            text = fleet.config.read_text()
            fleet.config.write_text(text.replace("/publisher.", "/keeper."))
            fleet.keep()
            until(lambda: list(directory.glob("fleet/publisher/fleet-keeper/.lock")), "a keeper")
            fleet.config.write_text(text)
            found.publish("publish", str(release(found, "bob")))
            until(lambda: found.host.sequence() == 1, "web1 has the release", PATIENCE)
            yield found
        finally:
            fleet.stop()


def test_the_streams_are_on_three_servers(scene: Scene) -> None:
    """Raft-replicated: the log, and the files with it."""
    for stream in ("FLEET-prod-1", "FLEET-prod-data"):
        info = until(partial(scene.info, stream), f"{stream} is there", PATIENCE)
        assert info.config.num_replicas == 3
        assert len(info.cluster.replicas) == 2


FORBIDDEN = (
    "fleet.prod.put.1.2",
    "fleet.prod.log.1.2",
    "fleet.prod.head.1",
    f"fleet.prod.blob.{'ab' * 32}.0",
    "fleet.prod.report.web2",
    "$JS.API.STREAM.CREATE.FLEET-other",
    "$JS.API.STREAM.UPDATE.FLEET-prod-1",
    "$JS.API.STREAM.PURGE.FLEET-prod-1",
    "$JS.API.STREAM.PURGE.FLEET-prod-data",
    "$JS.API.STREAM.DELETE.FLEET-prod-1",
    "$JS.API.STREAM.MSG.DELETE.FLEET-prod-1",
    "$JS.API.STREAM.LEADER.STEPDOWN.FLEET-prod-1",
    "$JS.API.STREAM.PEER.REMOVE.FLEET-prod-1",
    "$JS.API.STREAM.SNAPSHOT.FLEET-prod-1",
    "$JS.API.STREAM.RESTORE.FLEET-prod-1",
    "$JS.API.CONSUMER.CREATE.FLEET-prod-1",
    "$JS.API.CONSUMER.CREATE.FLEET-prod-1.thief.fleet.prod.put.>",
    "$JS.API.CONSUMER.DURABLE.CREATE.FLEET-prod-1.thief",
    "$JS.API.INFO",
    "$SYS.REQ.SERVER.PING",
    "_INBOX_publisher.x",
)


def test_a_node_reads_the_log_and_writes_its_report_and_nothing_else(scene: Scene) -> None:
    """By its certificate, on any server; the log is as it was."""
    subjects = Subjects("prod")

    def refused(server: Server, before: int) -> list[str]:
        told = server.log.read_bytes()[before:].decode()
        return re.findall('Publish Violation - Subject "(.*)"', told)

    async def go() -> None:
        for server in scene.cluster.servers:
            start = server.log.stat().st_size
            client = await nats.connect(
                server.url,
                tls=scene.cluster.context("web1"),
                inbox_prefix=b"_INBOX_node-web1",
                error_cb=ignore,
                allow_reconnect=False,
            )
            entry = await client.jetstream().get_last_msg(
                subjects.log_stream, subjects.put(1), direct=True
            )
            assert bytes(entry.data or b"") == scene.lines()[0]
            for subject in (subjects.report("web1"), *FORBIDDEN):
                await client.publish(subject, b"{}")

            def done(server: Server = server, start: int = start) -> bool:
                return FORBIDDEN[-1] in refused(server, start)

            await asyncio.to_thread(until, done, "the last is refused", PATIENCE)
            assert refused(server, start) == list(FORBIDDEN)
            await client.close()

    before = scene.lines()
    scene.everywhere(before)
    asyncio.run(go())
    scene.everywhere(before)
    info = scene.info("FLEET-prod-1")
    assert info is not None
    assert info.state.consumer_count == 0


def test_without_a_certificate_of_the_fleet_there_is_no_connection(scene: Scene) -> None:
    """None, and one of another authority with a role's name."""
    stranger = CA("Fleet CA").issue("publisher", o="fleet prod")
    place = scene.directory / "stranger"
    place.mkdir()
    certificate, key = stranger.write(place)
    other = scene.cluster.context()
    other.load_cert_chain(certificate, key)

    async def go(context: object) -> None:
        client = await nats.connect(
            scene.cluster.servers[0].url, tls=context, allow_reconnect=False, error_cb=ignore
        )
        await client.close()

    for context in (scene.cluster.context(), other):
        with pytest.raises((nats.errors.Error, OSError)):
            asyncio.run(go(context))


def test_a_publisher_killed_between_files_and_entry_publishes_nothing(scene: Scene) -> None:
    """The servers have the files, and nothing names them; the next publisher goes on."""
    before = scene.lines()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, release(scene, "carol"), scene.fleet.config],
        cwd=ROOT,
        check=False,
        timeout=120,
    )
    assert killed.returncode == -9
    scene.everywhere(before)
    assert scene.host.daemon.ask("site", staff.issue("carol")).reason == "not_allowed"
    end = scene.publish("publish", str(release(scene, "carol")), "--wait")
    assert end == len(before) + 1
    assert scene.host.daemon.ask("site", staff.issue("carol")).status == 204
    scene.whole()


KILLED = """\
import os, signal, sys
from sidecar.cli import main
from sidecar.fleet.publisher import Publisher
async def publish(*_):
    os.kill(os.getpid(), signal.SIGKILL)
Publisher.publish = publish
main(["fleet", "publish", sys.argv[1], "--config", sys.argv[2]])
"""


def test_a_leader_that_is_killed_loses_nothing(scene: Scene) -> None:
    """kill -9 while an entry is under way; the others go on; it comes back and has the rest."""
    leader = scene.leader()
    scene.flood(30, {10: leader.stop, 20: leader.start})
    scene.whole()


def test_a_leader_that_is_cut_off_and_comes_back_loses_nothing(scene: Scene) -> None:
    """It answers nobody while the others elect another; back, it takes what they say."""
    leader = scene.leader()
    try:
        scene.flood(20, {5: leader.pause, 15: leader.resume})
    finally:
        leader.resume()
    assert scene.end() > 20
    scene.whole()


def test_a_server_that_lost_its_store_is_filled_by_the_others(scene: Scene) -> None:
    """Also with what was published while it was away."""
    server = scene.cluster.servers[0]

    def lose() -> None:
        server.stop()
        server.wipe()

    scene.flood(10, {3: lose})
    server.start()
    scene.whole()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_node_whose_disk_is_full_goes_on_once_there_is_space(scene: Scene) -> None:
    """What was in force stays; nothing is restarted; all arrives, in order."""
    host = scene.fleet.host("web2", serve=False, agent=False, tls=scene.cluster.tls("web2"))
    host.state.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", host.state], check=True)
    try:
        host.daemon.start(wait=False)
        host.start_agent()
        end = scene.end()
        until(lambda: host.sequence() == end, host.told(), PATIENCE)
        fill(host.state / "full")
        scene.flood(20, {})
        assert scene.publish("publish", str(release(scene, "dave"))) == end + 21
        until(lambda: "No space left" in host.told(), host.told(), PATIENCE)
        assert host.daemon.ask("site", alice).status == 204
        assert host.daemon.ask("site", staff.issue("dave")).reason == "not_allowed"
        (host.state / "full").unlink()
        until(lambda: host.sequence() == end + 21, host.told(), PATIENCE)
        assert host.daemon.ask("site", staff.issue("dave")).status == 204
        log = (host.state / "fleet-in-force/log.1").read_bytes().splitlines()
        assert log == scene.lines()
    finally:
        host.stop()
        scene.fleet.hosts.remove(host)
        subprocess.run(["umount", host.state], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)


@pytest.mark.parametrize(("name", "offset"), [("web3", -600), ("web4", 600)])
def test_a_node_whose_clock_is_off_still_revokes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str, offset: int
) -> None:
    """Ten minutes: entries count at once; ahead, each head has ended, and `stale: deny` denies."""
    monkeypatch.setenv("LD_PRELOAD", str(need(faketime()).path))
    monkeypatch.setenv("FAKETIME", f"{offset:+d}")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    monkeypatch.setenv("FAKETIME_FORCE_MONOTONIC_FIX", "0")  # or each wait would spin
    host = scene.fleet.host(name, tls=scene.cluster.tls(name))
    monkeypatch.undo()
    try:
        until(lambda: host.sequence() == scene.end(), host.told(), PATIENCE)
        assert host.daemon.ask("site", alice).status == 204
        end = scene.publish("revoke", alice.sha256)
        until(lambda: host.daemon.ask("site", alice).reason == "revoked", host.told(), PATIENCE)
        assert scene.publish("undo", str(end)) == end + 1
        until(lambda: host.daemon.ask("site", alice).status == 204, host.told(), PATIENCE)
        reason = host.daemon.ask("strict", alice).reason
        assert reason == ("revocation_unknown" if offset > 0 else "allowed")
    finally:
        host.stop()
        scene.fleet.hosts.remove(host)
