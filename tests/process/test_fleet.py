"""A fleet of real parts: a NATS server, the publisher's commands, agents and daemons."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fleet_entries import Author
from fleet_hosts import ROOT, Fleet, Nats, until
from pki import CA

from sidecar.cli import main
from sidecar.core.fleet.entry import parse_line

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
    (tmp_path / "alice.crt").write_bytes(alice.pem)
    asked = ["--location", "site", "--cert", str(tmp_path / "alice.crt")]
    with contextlib.redirect_stdout(io.StringIO()) as out:  # commands know the revocation, too
        assert main(["explain", "--config", str(host.daemon.config), *asked]) == 1
    assert "revoked" in out.getvalue()
    status = fleet.status()
    assert set(status) == {"sequence", "head_age", "nodes"}
    (node,) = status["nodes"]
    assert set(node) == {"name", "sequence", "hash", "age", "version", "refused"}
    assert (status["sequence"], node["name"], node["sequence"]) == (2, "one", 2)
    assert node["hash"] == denied.headers["x-auth-policy"]
    fleet.run("undo", "2", "--wait")
    assert host.daemon.ask("site", alice).status == 204


def test_a_daemon_that_starts_anew_replaces_what_it_told(fleet: Fleet, tmp_path: Path) -> None:
    """The node is not taken for two daemons, of which the gone one is behind: it has one status."""
    host = fleet.host("one")
    fleet.run("publish", str(release(tmp_path / "policy")), "--wait")
    host.daemon.stop()
    host.daemon.start()
    fleet.run("revoke", bob.sha256, "--wait")
    assert len(list((host.state / "fleet-status").glob("*.json"))) == 1


def test_a_host_lives_on_without_servers_and_catches_up(fleet: Fleet, tmp_path: Path) -> None:
    """NATS killed: decisions go on, also of a daemon that starts anew; then what was missed."""
    host = fleet.host("one")
    fleet.run("publish", str(release(tmp_path / "policy")))
    host.has(1)
    fleet.run("revoke", bob.sha256, "--wait")
    fleet.nats.stop()
    host.daemon.stop()
    host.daemon.start()
    assert host.daemon.ask("site", alice).status == 204
    assert host.daemon.ask("site", bob).reason == "revoked"
    fleet.nats.start()
    fleet.run("revoke", alice.sha256, "--wait")
    until(lambda: host.daemon.ask("site", alice).reason == "revoked", "the revocation is here")


def test_a_release_goes_to_some_hosts_first_and_back(fleet: Fleet, tmp_path: Path) -> None:
    """By label; the others advance without it; `rollback` is a new entry for all."""
    canary, other = fleet.host("canary", labels="[first]"), fleet.host("other")
    fleet.run("publish", str(release(tmp_path / "policy")))
    for host in (canary, other):
        host.has(1)
    fleet.run("publish", str(release(tmp_path / "policy", "bob")), "--to", "first", "--wait")
    assert canary.daemon.ask("site", bob).status == 204
    assert other.daemon.ask("site", bob).reason == "not_allowed"
    assert {host.sequence() for host in (canary, other)} == {2}
    told = fleet.run("rollback", "1", "--wait").stdout
    assert "3 " in told
    assert canary.daemon.ask("site", bob).reason == "not_allowed"
    log = json.loads(fleet.run("log", "--json").stdout)
    assert [each["kind"] for each in log] == ["release"] * 3
    assert log[2]["body"]["files"] == log[0]["body"]["files"]
    assert log[2]["previous"] == log[1]["hash"]


def test_a_canary_is_held_or_promoted_by_what_its_hosts_decide(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Denials that the release causes hold it; without them it goes to all."""
    first, other = fleet.host("first", labels="[first]"), fleet.host("other")
    fleet.run("publish", str(release(tmp_path / "policy", "bob")))
    for host in (first, other):
        host.has(1)
    watched = ["--to", "first", "--promote-after", "6"]
    with fleet.start("publish", str(release(tmp_path / "policy")), *watched) as publishing:
        first.has(2)
        until(lambda: first.daemon.ask("site", bob).reason == "not_allowed", "bob is denied")
        told, _ = publishing.communicate(timeout=60)
    assert publishing.returncode == 1, told
    assert "release 2 is held: " in told
    assert other.daemon.ask("site", bob).status == 204
    watched = ["--to", "50%", "--promote-after", "1"]
    assert fleet.run("publish", str(release(tmp_path / "policy", "eve")), "--to", "first").stdout
    # nobody asks meanwhile: nothing speaks against it
    fleet.run("publish", str(release(tmp_path / "policy", "eve")), "--to", "first", *watched[2:])
    for host in (first, other):
        host.has(5)
        assert host.daemon.ask("site", bob).reason == "not_allowed"


def test_a_stale_host_denies_where_it_should(fleet: Fleet, tmp_path: Path) -> None:
    """`stale: deny` refuses as `revocation_unknown` once no head comes, until one does."""
    host = fleet.host("one", stale_after="4", stale="deny")
    directory = release(tmp_path / "policy")
    more = "  - {name: open, allow: verified, stale: serve}\n  - {name: site,"
    text = (directory / "policy.yaml").read_text()
    text = text.replace("locations: [{name: site,", f"locations:\n{more}")
    (directory / "policy.yaml").write_text(text.replace("}]}]", "}]}"))
    fleet.keep()
    fleet.run("publish", str(directory))
    host.has(1)
    until(lambda: host.daemon.ask("site", alice).status == 204, "a head has arrived")
    fleet.nats.stop()
    until(
        lambda: host.daemon.ask("site", alice).reason == "revocation_unknown", "the head is too old"
    )
    assert host.daemon.ask("open", alice).status == 204
    assert host.daemon.metric("mtls_sidecar_fleet_head_age_seconds") > 4
    until(lambda: "the last head is" in host.daemon.get("/readyz")[1], "it is told")
    fleet.nats.start()
    until(lambda: host.daemon.ask("site", alice).status == 204, "the keeper is heard again")


def test_of_two_publishers_one_is_told(fleet: Fleet, tmp_path: Path) -> None:
    """Both sign the next number; the servers store one, and hosts never see the other."""
    host = fleet.host("one")
    both = [
        fleet.start(
            "publish", str(release(tmp_path / name, name)), state_dir=tmp_path / f"{name}.d"
        )
        for name in ("left", "right")
    ]
    told = [publishing.communicate(timeout=60) for publishing in both]
    codes = [publishing.returncode for publishing in both]
    lost = [text for _, text in told if "another publisher was first" in text]
    assert sorted(codes) in ([0, 0], [0, 1]), told  # one may have been slower altogether
    assert len(lost) == codes.count(1)
    host.has(len(codes) - len(lost))
    assert host.daemon.metric('mtls_sidecar_fleet_refused_total{why="fork"}') == 0
    assert fleet.status()["nodes"][0]["refused"] == 0


def test_servers_that_lost_the_log_get_it_back(fleet: Fleet, tmp_path: Path) -> None:
    """Nothing is published on top of a hole; `restore` brings entries and files back."""
    host = fleet.host("one")
    fleet.run("publish", str(release(tmp_path / "policy")))
    host.has(1)
    fleet.run("revoke", bob.sha256, "--wait")
    fleet.nats.stop()
    fleet.nats.wipe()
    fleet.nats.start()
    lost = fleet.run("revoke", alice.sha256, check=False)
    assert lost.returncode == 2
    assert "fleet restore" in lost.stderr
    assert host.daemon.ask("site", bob).reason == "revoked"
    assert "2 entries were written again" in fleet.run("restore").stdout
    fleet.run("revoke", alice.sha256)
    until(lambda: host.daemon.ask("site", alice).reason == "revoked", "alice is revoked")
    fresh = fleet.host("two")  # it has all from the servers alone
    fresh.has(3)
    assert fresh.daemon.ask("site", bob).reason == "revoked"


def test_servers_whose_first_entries_are_gone_serve_a_host_that_has_them(
    fleet: Fleet, tmp_path: Path
) -> None:
    """It starts anew with its own log, and asks for what is behind that only.

    A fresh host has nothing to stand on, and tells; `restore` fills the servers' log again.
    """
    host = fleet.host("one")
    fleet.run("publish", str(release(tmp_path / "policy")))
    host.has(1)
    fleet.run("revoke", bob.sha256, "--wait")
    host.stop()
    lines = (fleet.directory / "publisher/fleet-publisher/log.1").read_bytes().splitlines()
    asyncio.run(leave_only(fleet.nats.url, "fleet.prod.put.1.2", lines[1]))
    host.start_agent()
    host.daemon.start()
    fleet.run("revoke", alice.sha256)
    until(lambda: host.daemon.ask("site", alice).reason == "revoked", host.told())
    assert host.daemon.ask("site", bob).reason == "revoked"
    assert fleet.status()["nodes"][0]["refused"] == 0
    fresh = fleet.host("two")
    until(lambda: "refused (gap): the log ends at 3" in fresh.told(), fresh.told())
    assert "1 entries were written again" in fleet.run("restore").stdout
    fleet.run("undo", "3")
    fresh.has(4)
    assert fresh.daemon.ask("site", bob).reason == "revoked"


async def leave_only(url: str, subject: str, line: bytes) -> None:
    """Replace the log by one that has one entry, as limits or an administrator could."""
    client = await nats.connect(url)
    context = client.jetstream()
    config = (await context.stream_info("FLEET-prod-1")).config
    await context.delete_stream("FLEET-prod-1")
    await context.add_stream(config)
    await context.publish(subject, line)
    await client.close()


def test_a_killed_agent_goes_on_where_it_was(fleet: Fleet, tmp_path: Path) -> None:
    """kill -9 again and again while entries come: all arrive, in order, none is refused."""
    host = fleet.host("one")
    fleet.run("publish", str(release(tmp_path / "policy")))
    host.has(1)
    with fleet.flood(60) as flooding:
        while flooding.poll() is None:
            host.stop_agent(signal.SIGKILL)
            host.start_agent()
            time.sleep(0.4)  # another moment of its life each time
        assert flooding.wait(60) == 0
    host.has(61)
    lines = (host.state / "fleet/log.1").read_bytes().splitlines()
    assert [json.loads(line)["entry"]["sequence"] for line in lines] == list(range(1, 62))
    text = host.daemon.get("/metrics")[1]
    refused = re.findall(r"(?m)^mtls_sidecar_fleet_refused_total\{.*\} (\S+)", text)
    assert {float(count) for count in refused} == {0.0}


def test_a_hundred_entries_a_second_are_lost_nowhere(fleet: Fleet, tmp_path: Path) -> None:
    """For four seconds: every host has each of them once, in the publisher's order."""
    hosts = [fleet.host("one"), fleet.host("two")]
    fleet.run("publish", str(release(tmp_path / "policy")))
    for host in hosts:
        host.has(1)
    with fleet.flood(400, rate=100) as flooding:
        assert flooding.wait(120) == 0
    published = (fleet.directory / "publisher/fleet-publisher/log.1").read_bytes()
    assert published.count(b"\n") == 401
    for host in hosts:
        host.has(401)
        assert (host.state / "fleet-in-force/log.1").read_bytes() == published
    assert [node["refused"] for node in fleet.status()["nodes"]] == [0, 0]


def test_what_a_server_makes_up_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    """Entries and heads that anybody sent: counted, reported, and nothing else."""
    host = fleet.host("one")
    fleet.run("publish", str(release(tmp_path / "policy")))
    host.has(1)
    stranger = Author(sequence=1)
    forged = stranger.revocation(alice.sha256)
    asyncio.run(send(fleet.nats.url, "fleet.prod.log.1.2", forged.line(), b"garbage"))
    asyncio.run(send(fleet.nats.url, "fleet.prod.head.1", stranger.head().line()))
    until(lambda: fleet.status()["nodes"][0]["refused"] >= 3, "the refusals are reported")
    assert host.daemon.ask("site", alice).status == 204
    fleet.run("revoke", alice.sha256, "--wait")
    assert host.daemon.ask("site", alice).reason == "revoked"


def test_entries_that_a_server_sends_out_of_order_and_twice_are_taken_once(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Each when what comes before it is there; nothing is refused that was signed."""
    host = fleet.host("one")
    fleet.run("publish", str(release(tmp_path / "policy")))
    host.has(1)
    first = (host.state / "fleet/log.1").read_bytes().splitlines()
    key = load_pem_private_key(fleet.key.read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    author = Author(key=key, sequence=1, previous=parse_line(first[0]).entry.hash)
    two, three, four = (author.revocation(f"{number:064x}").line() for number in (2, 3, 4))
    order = [four, three, two, two, four, three, three, two, four, four, first[0]]
    asyncio.run(send(fleet.nats.url, "fleet.prod.log.1.9", *order))
    host.has(4)
    for log in ("fleet", "fleet-in-force"):
        assert (host.state / log / "log.1").read_bytes().splitlines() == [*first, two, three, four]
    text = host.daemon.get("/metrics")[1]
    refused = re.findall(r"(?m)^mtls_sidecar_fleet_refused_total\{.*\} (\S+)", text)
    assert {float(count) for count in refused} == {0.0}


async def send(url: str, subject: str, *messages: bytes) -> None:
    client = await nats.connect(url)
    for message in messages:
        await client.publish(subject, message)
    await client.flush()
    await client.close()


def test_a_key_is_rolled_over_and_a_command_signs(fleet: Fleet, tmp_path: Path) -> None:
    """The old key adds the new one, which then signs by a command, and removes the old."""
    host = fleet.host("one")
    fleet.run("publish", str(release(tmp_path / "policy")))
    host.has(1)
    new = tmp_path / "new.key"
    public = fleet.run("keygen", str(new)).stdout.strip()
    fleet.run("keys", "--add", public, "--wait")
    old = fleet.run("keys").stdout.split()[0]
    script = tmp_path / "sign.py"
    script.write_text(SIGN)
    command = f"[{sys.executable}, {script}, {new}]"
    text = fleet.settings("state_dir: " + str(fleet.directory / "publisher"))
    fleet.config.write_text(f"{text}  signer: {{command: {command}, public: {public}}}\n")
    fleet.run("keys", "--remove", old, "--wait")
    fleet.run("revoke", alice.sha256, "--wait")
    assert host.daemon.ask("site", alice).reason == "revoked"
    refused = fleet.run("undo", "4", "--signing-key", str(fleet.key), check=False)
    assert refused.returncode == 2
    assert "may not sign" in refused.stderr


SIGN = """\
import base64, pathlib, sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key
key = load_pem_private_key(pathlib.Path(sys.argv[1]).read_bytes(), None)
print(base64.b64encode(key.sign(sys.stdin.buffer.read())).decode())
"""


def test_without_the_extra_each_command_says_what_to_install(tmp_path: Path) -> None:
    """No traceback: the line to type."""
    (tmp_path / "nats.py").write_text("raise ImportError('none')\n")
    (tmp_path / "sidecar.yaml").write_text("fleet: {name: prod, keys: [" + KEY + "]}\n")
    for command in (["status"], ["node"], ["publish", "."], ["revoke", "0A"]):
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", "fleet", *command, "-c", tmp_path / "sidecar.yaml"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
            check=False,
            timeout=60,
        )
        assert done.returncode == 2
        assert "pip install 'nginx-mtls-sidecar[fleet]'" in done.stderr
        assert "Traceback" not in done.stderr


KEY = "ed25519 SIvIQYcWlYVT3nJHf57vG5F3hQmFJ1Ub9aqcAhHT+3g="
