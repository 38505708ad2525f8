"""docs/fleet.md on three machines: its commands are typed one by one, and then things go wrong.

Each machine is a booted systemd with a root of its own; they reach each other over a network that
has 127.0.0.1 and nothing else.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from container import BOOTED, in_container
from fleet_hosts import nats_server, until
from machines import Machines
from pages import ROOT, blocks
from pki import CA
from tools import need, systemd_nspawn

PAGE = ROOT / "docs/fleet.md"
MACHINES = ("admin", "nats1", "web1")
AGENT, DAEMON, KEEPER = "mtls-sidecar-fleet", "mtls-sidecar", "mtls-sidecar-fleet-keeper"
STALE_AFTER = 6

# What apt-get brings, as far as the page uses it.
APT = f"""\
printf '#!/bin/sh\\n\
install -m 0755 {in_container(Path(nats_server()))} /usr/sbin/nats-server\\n\
useradd --system --user-group --no-create-home nats\\n' >/usr/local/bin/apt-get
chmod +x /usr/local/bin/apt-get
"""


@dataclass
class Site:
    """The three machines, as the page leaves them."""

    machines: Machines
    seconds: dict[str, float] = field(default_factory=dict)

    def follow_page(self) -> None:
        """Type every block that names a machine, in order."""
        for block in blocks(PAGE):
            if block.language == "sh" and block.title in MACHINES:
                began = time.monotonic()
                for part in re.split(r"(?m)^(scp .*\n)", block.text):
                    if part.startswith("scp "):
                        self._scp(block.title, part)
                    elif part.strip():
                        self.machines.run(block.title, f"set -e\n{part}")
                self.seconds[str(block)] = time.monotonic() - began

    def _scp(self, machine: str, line: str) -> None:
        _, _, source, target = shlex.split(line)
        name, _, path = target.partition(":")
        self.machines.copy(machine, f"/srv/release/{source}", name, f"/srv/home/{path}")

    def admin(self, script: str, *, check: bool = True) -> str:
        return self.machines.run("admin", script, check=check)

    def web1(self, script: str, *, check: bool = True) -> str:
        return self.machines.run("web1", script, check=check).strip()

    def ask(self, name: str) -> str:
        """What nginx would be told about somebody's certificate."""
        return self.web1(f"python3 -I /src/{BOOTED.relative_to(ROOT)}/question.py site /{name}.crt")

    def becomes(self, holds: Callable[[], object], what: str) -> None:
        until(holds, f"{what}\n{self.machines.told('web1')}")

    def page(self, path: str) -> str:
        return self.web1(f"curl -s http://127.0.0.1:9641{path}")

    def is_stale(self) -> bool:
        """Whether the host says that it may miss something: on /readyz and by the metric."""
        age = re.search(r"(?m)^mtls_sidecar_fleet_head_age_seconds (\S+)", self.page("/metrics"))
        told = "newer entries may be missing" in self.page("/readyz")
        return told and age is not None and float(age[1]) > STALE_AFTER

    def revoke(self, serial: str) -> None:
        """Revoke, and wait until it is in force on web1."""
        told = self.admin(f"mtls-sidecar fleet revoke --serial {serial} --wait 30")
        assert "web1: in force after" in told

    def as_user(self, machine: str, unit: str, script: str) -> str:
        """What a unit's process could do, in its mount namespace and as its user."""
        pid = f"$(systemctl show -P MainPID {unit})"
        user = "runuser -u mtls-sidecar-fleet -g mtls-sidecar"
        if unit == DAEMON:
            user = "runuser -u mtls-sidecar -g mtls-sidecar"
        return self.machines.run(
            machine, f"nsenter -t {pid} -m {user} -- sh -c {shlex.quote(script)}", check=False
        ).strip()


authority = CA("Staff")
PEOPLE = {"alice": 0x0A1B, "bob": 0x0B0B, "carol": 0x0C0C}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page's commands have been typed; alice (serial 0A1B), bob and carol have certificates."""
    nspawn = need(systemd_nspawn())
    place = tmp_path_factory.mktemp("machines")
    with Machines(nspawn, place, MACHINES, hosts=("nats1.example.com",)) as machines:
        machines.run("nats1", APT)
        for name, serial in PEOPLE.items():
            pem = authority.issue("alice" if name == "carol" else name, serial=serial).pem.decode()
            machines.run("web1", f"cat >/{name}.crt <<'END'\n{pem}END")
        found = Site(machines)
        found.follow_page()
        yield found


def test_the_page_makes_a_fleet(site: Site) -> None:
    """Its commands as they stand: bob gets in, alice was revoked, the host reports, all of it in
    less than ten minutes."""
    print(site.seconds)
    assert sum(site.seconds.values()) < 300  # with the time to read and type
    assert site.ask("alice") == "403 revoked"
    assert site.ask("bob") == "204 allowed"
    status = json.loads(site.admin("mtls-sidecar fleet status --json"))
    assert [(each["name"], each["sequence"]) for each in status["nodes"]] == [("web1", 2)]
    assert status["head_age"] < 60


def test_the_agent_alone_has_a_way_to_the_network(site: Site) -> None:
    """It runs as its own user; the daemon's namespace has its own loopback and nothing else."""
    for unit, user in ((AGENT, "mtls-sidecar-fleet:mtls-sidecar"), (DAEMON, "mtls-sidecar:mtls-sidecar")):  # fmt: skip  # noqa: E501
        assert site.web1(f"stat -c %U:%G /proc/$(systemctl show -P MainPID {unit})") == user
    space = "readlink /proc/$(systemctl show -P MainPID {})/ns/net".format
    assert site.web1(space(AGENT)) == site.web1("readlink /proc/1/ns/net")
    assert site.web1(space(DAEMON)) != site.web1("readlink /proc/1/ns/net")
    shown = site.web1(f"cat /proc/$(systemctl show -P MainPID {DAEMON})/net/dev")
    assert shown.count(":") == 1
    running = site.web1(
        "ps -eo user:32,args | grep -c '^mtls-sidecar.* /opt/mtls-sidecar/bin/python'"
    )
    assert running == "2"


def test_the_agents_user_can_change_no_policy_and_read_no_key(site: Site) -> None:
    """It writes its own directory and nothing else; the keys that sign are root's, and the daemon
    can't read the agent's certificate's key."""
    places = (
        "/etc/mtls-sidecar /etc/mtls-sidecar/fleet /var/lib/mtls-sidecar /var/lib/mtls-sidecar/crl "
        "/var/lib/mtls-sidecar/fleet-in-force /var/lib/mtls-sidecar/fleet-status "
        "/run/mtls-sidecar /opt/mtls-sidecar /var/log/mtls-sidecar"
    )
    touch = f"for p in {places}; do touch $p/x 2>/dev/null && echo $p; done; touch /var/lib/mtls-sidecar/fleet/x && echo own"  # fmt: skip  # noqa: E501
    assert site.as_user("web1", AGENT, touch) == "own"
    kill = f"kill -0 {site.web1(f'systemctl show -P MainPID {DAEMON}')} 2>/dev/null && echo daemon"
    assert site.as_user("web1", AGENT, kill) == ""
    read = "cat /etc/mtls-sidecar/fleet.key /etc/mtls-sidecar/keeper.key | wc -c"
    assert site.as_user("admin", KEEPER, read).endswith("\n0")
    assert site.as_user("web1", DAEMON, "cat /etc/mtls-sidecar/fleet/nats.key").endswith("denied")
    site.as_user("web1", DAEMON, "rm -f /var/lib/mtls-sidecar/fleet/x")


def test_what_the_agents_user_writes_into_a_release_is_not_taken(site: Site) -> None:
    """Everybody let in, in each file of its own directory, and the log with it: neither the daemon
    that runs nor one that starts anew goes by it."""
    site.as_user(
        "web1",
        AGENT,
        "cd /var/lib/mtls-sidecar/fleet; for f in releases/*/policy.yaml current/policy.yaml; do "
        "printf 'version: 1\\nlocations: [{name: site, allow: public}]\\n' >$f; done; : >log.1",
    )
    time.sleep(1)
    assert site.ask("alice") == "403 revoked"
    site.web1(f"systemctl restart {DAEMON}")
    assert site.ask("alice") == "403 revoked"
    site.web1(f"systemctl restart {AGENT}")
    assert site.ask("alice") == "403 revoked"


def test_both_are_restarted_and_killed(site: Site) -> None:
    """By systemctl and by kill -9: what was in force is, at once, and a new revocation comes."""
    site.web1(f"systemctl restart {AGENT} {DAEMON}")
    assert (site.ask("alice"), site.ask("bob")) == ("403 revoked", "204 allowed")
    site.web1(f"systemctl kill -s KILL {AGENT} {DAEMON}")
    site.becomes(lambda: site.ask("bob") == "204 allowed", "the daemon is back")
    assert site.ask("alice") == "403 revoked"
    site.becomes(
        lambda: site.web1(f"systemctl is-active {AGENT}", check=False) == "active", "agent"
    )
    site.revoke("0C0C")
    assert site.ask("carol") == "403 revoked"


def test_without_a_keeper_the_host_says_so(site: Site) -> None:
    """On /readyz, by the metric and in `fleet status`; decisions go on, and it is over with it."""
    settings = "/etc/mtls-sidecar/sidecar.yaml"
    for machine in ("web1", "admin"):
        site.machines.run(
            machine, f"sed -i 's/^  name: prod$/&\\n  stale_after: {STALE_AFTER}/' {settings}"
        )
    site.web1(f"systemctl restart {DAEMON} {AGENT}")
    site.admin(f"systemctl stop {KEEPER}")
    site.becomes(site.is_stale, "the head is too old")
    assert re.search(r"(?m)(?<!fleet: )fleet: the last head is \d+ s old", site.page("/readyz"))
    assert site.ask("bob") == "204 allowed"
    told = site.admin("mtls-sidecar fleet status")
    assert re.search(r"head \d+ s old, is a keeper running\?", told), told
    site.admin(f"systemctl start {KEEPER}")
    site.becomes(lambda: not site.is_stale(), "there is a head again")


def test_without_nats_the_host_lives_on(site: Site) -> None:
    """It is stale and says so, a daemon and an agent that start anew do, too; with the server come
    the revocations again."""
    site.machines.run("nats1", "systemctl stop nats-server")
    site.web1(f"systemctl restart {DAEMON} {AGENT}")
    site.becomes(site.is_stale, "the head is too old")
    assert (site.ask("alice"), site.ask("bob")) == ("403 revoked", "204 allowed")
    told = site.admin("mtls-sidecar fleet status; echo code $?")
    assert "tls://nats1.example.com:4222: connection refused" in told
    assert told.endswith("code 2\n")
    assert "Traceback" not in told
    site.machines.run("nats1", "systemctl start nats-server")
    site.becomes(lambda: not site.is_stale(), "there is a head again")
    site.revoke("0D0D")


def test_a_node_is_shut_out_and_let_in_again(site: Site) -> None:
    """Its block is taken out of nats.conf and the server reloaded: its connection is closed,
    nothing more comes, and the host is stale; put back, all that was missed comes."""
    block = r"""'/^      {$/{N;/CN=web1,/{:a;/\n      }$/!{N;ba};d}}'"""
    conf = "/etc/nats/nats.conf"
    told = site.machines.run(
        "nats1",
        f"cp -p {conf} /kept; sed -i {block} {conf}; diff /kept {conf}\n"
        "systemctl reload nats-server",
    )
    assert "fleet.prod.report.web1" in told
    told = site.admin("mtls-sidecar fleet revoke --serial 0B0B --wait 3; echo code $?")
    assert told.endswith("code 1\n"), told
    assert "not in force on 1 nodes: web1" in told
    assert site.ask("bob") == "204 allowed"
    site.becomes(site.is_stale, "the head is too old")
    assert "it gives no user of its configuration to" in site.web1(f"journalctl -u {AGENT}")
    site.machines.run("nats1", f"cp -p /kept {conf}; systemctl reload nats-server")
    site.becomes(lambda: site.ask("bob") == "403 revoked", "what was missed")


def test_the_journals_hold_no_traceback_and_no_noise(site: Site) -> None:
    """After all of that."""
    for machine, unit in (("web1", AGENT), ("web1", DAEMON), ("admin", KEEPER)):
        told = site.machines.run(machine, f"journalctl --no-pager -u {unit}")
        assert "Traceback" not in told, told
        assert "eof_received" not in told, told


def test_root_publishes_beside_what_is_the_daemons(site: Site) -> None:
    """In a directory of root's own: in those of another owner it makes and follows nothing."""
    assert site.admin("find /var/lib/mtls-sidecar -user root") == ""
    place = "/var/lib/mtls-sidecar-fleet-publisher"
    assert site.admin(f"stat -c %a:%U {place}") == "750:root\n"
    assert site.admin(f"wc -l <{place}/log.1").strip() != "0"


def test_uninstalling_leaves_the_publishers_log_and_the_keys(site: Site) -> None:
    """Which are not to be had again; nothing else of the state, and no user."""
    site.admin("sh deploy/install.sh --uninstall")
    left = site.admin("ls -d /var/lib/mtls-sidecar*; getent passwd mtls-sidecar-fleet", check=False)
    assert left == "/var/lib/mtls-sidecar-fleet-publisher\n"
    assert site.admin("ls /etc/mtls-sidecar/*.key").split() == [
        "/etc/mtls-sidecar/fleet.key",
        "/etc/mtls-sidecar/keeper.key",
    ]
