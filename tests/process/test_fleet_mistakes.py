"""Mistakes in calls of `mtls-sidecar fleet`, with a real server: what is wrong, and what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from fleet_hosts import Fleet
from fleet_secured import Secured, authority
from pki import CA, now

from sidecar.cli import main

DAY = timedelta(days=1)


@dataclass
class Scene:
    """A fleet with one release and one revocation, its server, and files that are wrong."""

    place: Path
    server: Secured
    fleet: Fleet
    settings: str

    def refused(self, *arguments: str, settings: str = "", code: int = 2) -> str:
        """What a command says that is refused: one line for people."""
        self.fleet.config.write_text(settings or self.settings)
        words = [each.replace("HERE", str(self.place)) for each in arguments]
        done = self.fleet.run(*words, check=False)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert "Error(" not in done.stderr
        assert "_ssl.c" not in done.stderr
        return done.stderr.replace(str(self.place), "HERE")

    def tls(self, ca: str = "fleet-ca.crt", cert: str = "publisher.crt", key: str = "") -> str:
        """The settings with other files for NATS."""
        nats = self.server.directory
        tls = f"{{ca: {nats / ca}, cert: {nats / cert}, key: {nats / (key or cert[:-3] + 'key')}}}"
        return re.sub(r"(?m)^  tls: .*$", f"  tls: {tls}", self.settings)

    def servers(self, *urls: str) -> str:
        return self.settings.replace(self.server.url, ", ".join(urls))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    place = tmp_path_factory.mktemp("scene")
    server = Secured(place / "nats")
    with server:
        fleet = Fleet(place / "fleet", server)
        settings = fleet.settings(f"state_dir: {place}/publisher", tls=server.tls("publisher"))
        fleet.config.write_text(settings)
        policy = place / "policy"
        policy.mkdir()
        text = "version: 1\nlocations: [{name: site, allow: verified}]\n"
        (policy / "policy.yaml").write_text(text)
        fleet.run("publish", str(policy))
        fleet.run("revoke", "--serial", "0A")
        ended = authority.issue(
            "publisher", o="fleet prod", not_before=now() - 9 * DAY, not_after=now() - 2 * DAY
        )
        leaves = {"ended": ended, "foreign": CA("Staff").issue("publisher", o="fleet prod")}
        for name, leaf in leaves.items():
            (server.directory / f"{name}.crt").write_bytes(leaf.pem)
            (server.directory / f"{name}.key").write_bytes(leaf.key_pem)
        for name, data in (("junk", b"hello"), ("ec.key", ended.key_pem)):
            (place / name).write_bytes(data)
            (place / name).chmod(0o600)
        fleet.run("keygen", str(place / "other.key"))
        fleet.run("keygen", "--head", str(place / "wide.key"))
        (place / "wide.key").chmod(0o644)
        yield Scene(place, server, fleet, settings)


CALLS = {
    "publish HERE": "HERE has no policy.yaml; name the directory that holds it",
    "publish HERE/policy --to 150%": "--to 150% is no percentage; write 1% to 100%",
    "publish HERE/policy --to a.b": "'a.b' is no name; use A-Z a-z 0-9 _ -",
    "rollback 99": "the log has no entry 99; it ends at 2",
    "rollback 2": "entry 2 is no release; see `mtls-sidecar fleet log`",
    "undo 99": "the log has no entry 99; it ends at 2",
    "undo 1": "entry 1 is no revocation; see `mtls-sidecar fleet log`",
    "keys --add ed25519": "'ed25519' is no public key; write what `mtls-sidecar fleet keygen`",
    "keys --remove 1f2e3d4c": "no key with the id '1f2e3d4c' counts; see `mtls-sidecar fleet keys`",
    "status --forget web9": "no node web9 has reported; those that have: none",
    "revoke --file /nowhere.crt": "/nowhere.crt: No such file or directory",
    "revoke --serial 0B --signing-key HERE/none": "HERE/none, the key that signs, is not there; "
    "make it with `mtls-sidecar fleet keygen`, or name another: --signing-key FILE",
    "revoke --serial 0B --signing-key HERE/junk": "HERE/junk is no private key; name the file that",
    "revoke --serial 0B --signing-key HERE": "HERE: it is a directory",
    "revoke --serial 0B --signing-key HERE/ec.key": "HERE/ec.key is no Ed25519 key; make one with",
    "revoke --serial 0B --signing-key HERE/wide.key": "others may read HERE/wide.key, the fleet's "
    "key; chmod 600 HERE/wide.key",
    "revoke --serial 0B --signing-key HERE/other.key": "may not sign for fleet prod; add it to "
    "`keys` of sidecar.yaml on every host",
    "keeper --signing-key HERE/other.key": "is not pinned for fleet prod; add it to `keys`",
    "keygen HERE/other.key": "HERE/other.key is there already; name another file, or move it away",
    "keygen HERE/none/x.key": "HERE/none/x.key: No such file or directory",
}


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_says_what_to_write(scene: Scene, call: str) -> None:
    """What is wrong, where, and what to write instead; nothing is published, exit 2."""
    before = scene.fleet.run("log").stdout
    assert CALLS[call] in scene.refused(*call.split())
    scene.fleet.config.write_text(scene.settings)
    assert scene.fleet.run("log").stdout == before


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"ca": "none.crt"},
            "none.crt can't be used as the authority of the NATS servers: No",
        ),
        ({"ca": "../junk"}, "junk can't be used as the authority of the NATS servers"),
        ({"ca": "publisher.crt"}, "its certificate is not accepted: unable to get local issuer"),
        ({"cert": "none.crt"}, "none.crt: No such file or directory"),
        ({"key": "keeper.key"}, "are no certificate and its key: key values mismatch"),
        ({"key": "../junk"}, "junk are no certificate and its key"),
        (
            {"cert": "stranger.crt"},
            "it gives no user of its configuration to HERE/nats/stranger",
        ),
        ({"cert": "ended.crt"}, f"ended.crt, which ended {now() - 2 * DAY:%Y-%m-%d}"),
        ({"cert": "foreign.crt"}, "foreign.crt, subject CN=publisher,O=fleet prod"),
    ],
)
def test_a_wrong_certificate_is_named(scene: Scene, files: dict[str, str], told: str) -> None:
    """The file, its subject, and why the servers or this machine can't take it."""
    assert told in scene.refused("status", settings=scene.tls(**files))


def test_servers_that_can_not_be_used_are_each_named(scene: Scene) -> None:
    """With what is wrong with each, at once; one that can be used is enough."""
    began = time.monotonic()
    bad = (
        "tls://localhost:1",
        "tls://nowhere.invalid:4222",
        f"tls://127.0.0.1:{scene.server.port}",
    )
    told = scene.refused("status", settings=scene.servers(*bad))
    assert time.monotonic() - began < 30
    assert "tls://localhost:1: connection refused" in told
    assert "tls://nowhere.invalid:4222: " in told
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in told
    scene.fleet.config.write_text(scene.servers(*bad, scene.server.url))
    scene.fleet.run("status")
    text = re.sub(r"(?m)^  servers: .*\n", "", scene.settings)
    assert "the fleet names no servers; add servers:" in scene.refused("status", settings=text)


@pytest.mark.parametrize("role", ["keeper", "web1"])
def test_another_roles_certificate_is_not_waited_for(scene: Scene, role: str) -> None:
    """The servers don't answer what they refuse; it is told after the first question."""
    began = time.monotonic()
    told = scene.refused("revoke", "--serial", "0B", settings=scene.tls(cert=f"{role}.crt"))
    assert "the NATS servers refuse this: permissions violation" in told
    assert "does nats.conf give this certificate the role that it needs?" in told
    assert time.monotonic() - began < 20


def test_a_label_that_nobody_has_is_told(scene: Scene) -> None:
    """As a warning: a host that has it may come."""
    told = scene.refused("publish", "HERE/policy", "--to", "canery", code=0)
    assert "warning: no node has the label canery; there are: none" in told


def test_the_last_key_stays_and_none_is_added_twice(scene: Scene) -> None:
    """Nodes would refuse the one, and the other says nothing."""
    scene.fleet.config.write_text(scene.settings)
    name = scene.fleet.run("keys").stdout.split()[0]
    assert "no key would be left that signs releases" in scene.refused("keys", "--remove", name)
    assert "counts already" in scene.refused("keys", "--add", scene.fleet.public)


def test_a_keepers_key_publishes_nothing(scene: Scene) -> None:
    """And it is said that it is one."""
    (scene.place / "wide.key").chmod(0o600)
    head = scene.fleet.run("keygen", "--head", str(scene.place / "head.key")).stdout.strip()
    text = scene.settings.replace(
        f"keys: [{scene.fleet.public}]", f"keys: [{scene.fleet.public}, {head}]"
    )
    told = scene.refused("undo", "2", "--signing-key", "HERE/head.key", settings=text)
    assert "is a keeper's: it signs heads and nothing else" in told
    assert "name the publisher's: --signing-key FILE" in told


def test_a_policy_beside_the_fleet_is_not_ignored_in_silence(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`serve` and `check` name the line; `serve --policy` is refused; without a release, `check`
    says that none has arrived."""
    scene.fleet.config.write_text(scene.settings)
    host = scene.fleet.host("web1", tls=scene.server.tls("web1"))
    config = str(host.daemon.config)
    try:
        line = rf"{re.escape(config)}:\d+:1: policy is not read: the releases of fleet prod are"
        host.has(2)
        capsys.readouterr()
        assert main(["check", "--config", config]) == 0
        assert re.search(rf"warning: {line}", capsys.readouterr().err)
        assert re.search(line, host.daemon.log.read_text())
    finally:
        host.stop()
    assert main(["serve", "--config", config, "--policy", str(scene.place / "policy.yaml")]) == 2
    assert "--policy: the releases of fleet prod are the policy here" in capsys.readouterr().err
    alone = tmp_path / "sidecar.yaml"
    alone.write_text(scene.settings.replace("/publisher\n", "/empty\n"))
    assert main(["check", "--config", str(alone)]) == 2
    assert "no release of fleet 'prod' has arrived yet" in capsys.readouterr().err
