"""Commands that take certificates from the clients that a real daemon has seen."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon
from forked import mtls_sidecar
from pki import CA

staff = CA("Staff")
alice, bob, carol, dave = (staff.issue(name) for name in ("alice", "bob", "carol", "dave"))
POLICY = """\
version: 1
trust: {staff: {ca: ca.crt, denylist: denylist.txt}}
locations:
  - {name: site, allow: [{cn: alice}]}
  - {name: admin, allow: [{cn: alice}], deny: [{cn: carol}], mode: monitor}
  - {name: lan, allow: [{client_ip: 10.0.0.0/8}], mode: monitor}
"""
BOB_ID = "b" * 32


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A daemon's directory after clients came and it was stopped."""
    directory = tmp_path_factory.mktemp("seen")
    log = f"decision_log_file: {directory / 'decisions.log'}\n"
    daemon = Daemon(directory, POLICY, log, ca_crt=staff.pem, denylist_txt=b"# nobody\n")
    with daemon, daemon.client() as client:
        client.ask("site", alice)
        client.ask("site", bob, {"X-Request-ID": BOB_ID})
        for leaf in (alice, bob, carol, dave):
            client.ask("admin", leaf)
        client.ask("lan", alice, {"X-Real-IP": "10.1.2.3"})
        client.ask("lan", bob, {"X-Real-IP": "192.0.2.9"})
    return directory


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return mtls_sidecar(*arguments, "--config", "sidecar.yaml", cwd=place)


def facts(place: Path, *arguments: str, code: int = 0) -> Any:
    done = run(place, *arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def names(clients: list[dict[str, str]]) -> set[str]:
    return {each["subject"].removeprefix("CN=") for each in clients}


def test_who_asks_about_the_clients_seen(place: Path) -> None:
    """Without --certs, those of the clients seen that get in are told; with it, those given."""
    found = facts(place, "who", "site")
    [client] = found["clients"]
    assert list(client) == ["subject", "sha256", "not_after", "decision", "rule"]
    assert client["sha256"] == alice.sha256
    told = run(place, "who", "site").stdout
    assert "last seen 20" in told
    assert "1 of 4 clients seen get in" in told
    (place / "dave.crt").write_bytes(dave.pem)
    assert facts(place, "who", "site", "--certs", "dave.crt")["clients"] == []


def test_who_shadow_tells_who_would_be_locked_out(place: Path) -> None:
    """By location, each distinct client with the reason and the rule that would deny it."""
    found = {each["location"]: each["clients"] for each in facts(place, "who", "--shadow")}
    assert set(found) == {"admin", "lan"}
    assert names(found["admin"]) == {"bob", "carol", "dave"}
    by_rule = {each["subject"]: (each["reason"], each["rule"]) for each in found["admin"]}
    assert by_rule["CN=carol"] == ("denied_by_rule", "deny[0]")
    assert by_rule["CN=bob"] == ("not_allowed", "")
    assert names(found["lan"]) == {"bob"}  # by the address that the daemon saw
    told = run(place, "who", "--shadow", "admin").stdout
    assert "3 of 4 clients seen here would be locked out: 2 not_allowed, 1 denied_by_rule" in told


def test_who_shadow_asks_todays_policy(place: Path) -> None:
    """Who is let in by the policy as it is now is no longer told, without coming again."""
    policy = POLICY.replace("allow: [{cn: alice}], deny", "allow: [{cn: [alice, bob]}], deny")
    (place / "new.yaml").write_text(policy)
    found = facts(place, "who", "admin", "--shadow", "--policy", "new.yaml")
    assert names(found["clients"]) == {"carol", "dave"}
    assert facts(place, "who", "site", "--shadow")["clients"][0]["subject"] == "CN=bob"


def test_why_explains_with_a_certificate_seen(place: Path) -> None:
    """The client's certificate needn't be given."""
    [found] = facts(place, "why", BOB_ID)
    assert found["now"]["reason"] == "not_allowed"
    assert found["steps"][-1]["step"] == "allow"


def test_replay_asks_with_the_certificates_seen(place: Path) -> None:
    """Nobody's certificate needs to be given for a replay of the daemon's own log."""
    (place / "open.yaml").write_text(
        POLICY.replace("site, allow: [{cn: alice}]", "site, allow: [{cn: bob}]")
    )
    found = facts(place, "replay", "decisions.log", "--policy", "open.yaml", code=1)
    assert found["skipped"] == 0
    assert [each["subject"] for each in found["gains"]] == ["CN=bob"]
    assert [each["subject"] for each in found["loses"]] == ["CN=alice"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["who"], "who --shadow"),
        (["who", "nowhere", "--shadow"], "name one of"),
        (["who", "site", "--shadow", "--certs", "ca.crt"], "not both"),
    ],
)
def test_a_wrong_call_is_told(place: Path, arguments: list[str], hint: str) -> None:
    """Exit 2, and what to write instead."""
    done = run(place, *arguments)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_cannot_be_read_is_told(place: Path, tmp_path: Path) -> None:
    """`who` says to give certificates; `why` goes on without the store."""
    (tmp_path / "state" / "clients.jsonl").mkdir(parents=True)
    (tmp_path / "policy.yaml").write_text(
        "version: 1\nlocations: [{name: site, allow: verified}]\n"
    )
    config = (
        (place / "sidecar.yaml").read_text().replace(str(place / "state"), str(tmp_path / "state"))
    )
    (tmp_path / "sidecar.yaml").write_text(
        config.replace(str(place / "policy.yaml"), "policy.yaml")
    )
    done = run(tmp_path, "who", "site")
    assert done.returncode == 2
    assert "--certs DIR" in done.stderr
    done = run(tmp_path, "why", BOB_ID)
    assert done.returncode == 0, done.stderr
    assert "warning: the clients seen can't be read" in done.stderr


def test_metrics_and_log_tell_of_monitor_mode_and_of_authorities(tmp_path: Path) -> None:
    """Distinct clients by location and by rule, in metrics and log; when each CA's file ends."""
    policy = POLICY.replace("ca: ca.crt", "ca: [ca.crt, other.crt]")
    (tmp_path / "other.crt").write_bytes(CA("Other").pem)
    running = Daemon(tmp_path, policy, ca_crt=staff.pem, denylist_txt=b"# nobody\n")
    with running as daemon:
        for leaf in (alice, bob, carol, dave):
            daemon.ask("admin", leaf)
            daemon.ask("admin", leaf)
        name = "mtls_sidecar_shadow_would_break_clients"
        assert daemon.metric(f'{name}{{location="admin"}}') == 3
        by_rule = f'{name}_by_rule{{location="admin",reason='
        assert daemon.metric(f'{by_rule}"not_allowed",rule=""}}') == 2
        assert daemon.metric(f'{by_rule}"denied_by_rule",rule="deny[0]"}}') == 1
        ends = 'mtls_sidecar_ca_not_after_timestamp_seconds{source="ca.crt",trust="staff"}'
        assert daemon.metric(ends) == pytest.approx(staff.cert.not_valid_after_utc.timestamp())
        assert daemon.metric(ends.replace("ca.crt", "other.crt")) > 0
        told = "monitor mode: enforcing would lock out clients: admin "
        daemon.until(lambda: told in daemon.log.read_text(), seconds=30)
