"""The commands, as an administrator types them."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import chains
import pytest
from daemon import ROOT
from der import pem
from pki import CA, Leaf

from sidecar.commands import revoke

staff = CA("Staff")
alice = staff.issue("alice", dns=["app.example.com"])
bob = staff.issue("bob")

POLICY = """\
version: 1
trust:
  staff: {ca: ca.crt, denylist: deny.txt}
locations:
  - {name: admin, location: /admin/, allow: [{name: ops, cn: alice, roles: [op]}]}
  - {name: site, location: /, allow: verified, san_matches_host: true, sni_matches_host: true}
  - {name: lan, allow: [{client_ip: 10.0.0.0/8, method: GET}]}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "ca.crt").write_bytes(staff.pem)
    (tmp_path / "deny.txt").write_text("# nobody yet\n")
    for leaf in (alice, bob):
        (tmp_path / f"{leaf.name}.crt").write_bytes(leaf.pem)
        (tmp_path / f"{leaf.name}.der").write_bytes(leaf.der)
    return tmp_path


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidecar", *arguments]
    if "--policy" not in arguments and arguments[0] not in ("schema", "check"):
        command += ["--policy", str(place / "policy.yaml")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=60, check=False, env=env
    )


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--location", "admin", "--cert", "alice.crt"], 0, "allowed"),
        (["--location", "admin", "--cert", "alice.der"], 0, "allowed"),
        (["--location", "admin", "--cert", "bob.crt"], 1, "not_allowed"),
        (["--location", "admin"], 1, "no_certificate"),
        (["--location", "admin", "--cert", "ca.crt"], 1, "not_allowed"),
        (["--location", "admin", "--cert", "policy.yaml"], 1, "malformed_certificate"),
        (["--location", "admin", "--cert", "alice.crt", "--verify", "NONE"], 1, "verify_failed"),
        (["--location", "admin", "--cert", "alice.crt", "--now", "1999-01-01"], 1, "not_yet_valid"),
        (["--location", "nope"], 1, "unknown_location"),
        (
            ["--host", "App.Example.com:443", "--uri", "/admin/x", "--cert", "alice.crt"],
            0,
            "allowed",
        ),
        (["--host", "app.example.com", "--uri", "/", "--cert", "alice.crt"], 1, "sni_mismatch"),
        (
            "--host app.example.com --uri / --sni app.example.com --cert alice.crt".split(),
            0,
            "allowed",
        ),
        (["--location", "lan", "--cert", "bob.crt", "--client-ip", "10.1.1.1"], 0, "allowed"),
        (
            "--location lan --cert bob.crt --client-ip 10.1.1.1 --method PUT".split(),
            1,
            "not_allowed",
        ),
    ],
)
def test_explain(place: Path, arguments: list[str], code: int, reason: str) -> None:
    """explain answers as the daemon would: exit 0 allow, 1 deny, with each step it took."""
    found = run(place, "explain", *arguments, "--json")
    assert found.returncode == code, found.stderr
    told = json.loads(found.stdout)
    assert {"decision", "reason", "rule", "location", "steps"} <= told.keys()
    assert told["reason"] == reason
    assert told["decision"] == ("allow" if code == 0 else "deny")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--location", "admin", "--uri", "/"],
        ["--location", "admin", "--cert", "missing.crt"],
        ["--location", "admin", "--now", "soon"],
        ["--location", "admin", "--policy", "missing.yaml"],
        ["--nonsense"],
    ],
)
def test_a_wrong_call_is_2(place: Path, arguments: list[str]) -> None:
    """Exit 2 and a word about it, never a traceback."""
    found = run(place, "explain", *arguments)
    assert found.returncode == 2
    assert found.stderr
    assert "Traceback" not in found.stderr


def test_explain_shows_steps_to_people(place: Path) -> None:
    """Without --json each step is a line, and the last one is the verdict."""
    lines = run(place, "explain", "--location", "admin", "--cert", "bob.crt").stdout.splitlines()
    assert lines[0].split()[:2] == ["ok", "location"]
    assert lines[-2].startswith("STOP allow")
    assert lines[-1] == "deny (not_allowed)"


def test_check(place: Path) -> None:
    """check says ok, or every mistake with its place; exit 0 or 2."""
    found = run(place, "check", "policy.yaml")
    assert (found.returncode, "ok, 3 locations" in found.stdout) == (0, True)
    (place / "bad.yaml").write_text(POLICY.replace("cn:", "cnn:").replace("ca.crt", "no.crt"))
    found = run(place, "check", "bad.yaml")
    assert found.returncode == 2
    assert "bad.yaml:3:15: can't read 'no.crt'" in found.stderr
    assert "bad.yaml:5:58: unknown key 'cnn'; did you mean 'cn'?" in found.stderr
    assert run(place, "check", "missing.yaml").returncode == 2


@pytest.mark.parametrize("target", ["alice.crt", "alice.der", "serial", "sha256"])
def test_revoke_denies(place: Path, target: str) -> None:
    """By file, serial or fingerprint: one line, once, with date and reason; alice is denied."""
    (place / "deny.txt").chmod(0o640)
    named = {"serial": f"{alice.serial:X}", "sha256": alice.sha256}.get(target, target)
    for _ in range(2):
        found = run(place, "revoke", named, "--reason", "laptop\nstolen")
        assert found.returncode == 0, found.stderr
    lines = (place / "deny.txt").read_text().splitlines()
    assert len(lines) == 2
    assert "laptop stolen" in lines[1]
    assert stat.S_IMODE((place / "deny.txt").stat().st_mode) == 0o640
    assert run(place, "explain", "--location", "admin", "--cert", "alice.crt").returncode == 1
    assert (
        run(place, "explain", "--location", "admin", "--cert", "bob.crt", "--json").returncode == 1
    )


def test_revoke_a_key_denies_every_certificate_of_it(place: Path) -> None:
    """--key writes the key's fingerprint."""
    assert run(place, "revoke", "alice.crt", "--key").returncode == 0
    assert alice.spki_sha256 in (place / "deny.txt").read_text()
    again: Leaf = staff.issue("alice", key=alice.private)
    (place / "again.crt").write_bytes(again.pem)
    found = run(place, "explain", "--location", "admin", "--cert", "again.crt", "--json")
    assert json.loads(found.stdout)["reason"] == "revoked"


def test_revoke_until(place: Path) -> None:
    """--until ends the denial after that day."""
    assert run(place, "revoke", "alice.crt", "--until", "2001-01-01").returncode == 0
    assert run(place, "explain", "--location", "admin", "--cert", "alice.crt").returncode == 0
    assert run(place, "revoke", "alice.crt", "--until", "soon").returncode == 2


@pytest.mark.parametrize(
    "arguments", [["zzz"], ["alice.crt", "--trust", "nobody"], ["0A", "--key"]]
)
def test_revoke_refuses_what_it_can_not_do(place: Path, arguments: list[str]) -> None:
    """A target that is none, or an unknown trust: exit 2, nothing written."""
    before = (place / "deny.txt").read_bytes()
    found = run(place, "revoke", *arguments)
    assert found.returncode == 2
    assert found.stderr
    assert (place / "deny.txt").read_bytes() == before


def test_revoke_leaves_a_broken_denylist_alone(place: Path) -> None:
    """A mistake in the file is told with its line, and nothing is changed."""
    (place / "deny.txt").write_text("serial ??\n")
    found = run(place, "revoke", "alice.crt")
    assert (found.returncode, "deny.txt:1:8" in found.stderr) == (2, True)
    assert (place / "deny.txt").read_text() == "serial ??\n"


def test_two_who_revoke_at_once_lose_nothing(place: Path) -> None:
    """Ten at the same time are ten lines."""
    serials = [f"{number:02X}" for number in range(10, 20)]
    threads = [threading.Thread(target=run, args=(place, "revoke", s)) for s in serials]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = (place / "deny.txt").read_text()
    assert all(f"serial {serial} " in text for serial in serials)


def test_nobody_else_holds_a_revocation_up(place: Path) -> None:
    """A lock that any user can take, on the directory or on the denylist, is none of ours."""
    with (place / "deny.txt").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        directory = os.open(place, os.O_RDONLY)
        fcntl.flock(directory, fcntl.LOCK_EX)
        assert run(place, "revoke", "0A").returncode == 0
        os.close(directory)
    assert stat.S_IMODE((place / ".deny.txt.lock").stat().st_mode) == 0o600


def test_a_revocation_that_waits_too_long_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held up by another `revoke` that hangs: an error with the way out, not an endless wait."""
    monkeypatch.setattr(revoke, "PATIENCE", 0.1)
    with (place / ".deny.txt.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another `revoke` holds it"):
            revoke.add(place / "deny.txt", revoke.Target("serial", "0A"), "", "")


def test_schema_is_json() -> None:
    """schema prints a JSON Schema for editors."""
    found = run(ROOT, "schema")
    assert json.loads(found.stdout)["title"] == "mtls-sidecar policy"


@pytest.mark.parametrize("kind", ["sm2", "secp160r1"])
def test_check_warns_of_an_authority_whose_key_cannot_be_used(place: Path, kind: str) -> None:
    """`check` names the file and which certificate of it; the policy stands."""
    odd = chains.Spec(chains.name(chains.cn("Odd")), chains.key(kind), (chains.basic(),))
    der = chains.signed(odd, chains.root())
    (place / "ca.crt").write_bytes(staff.pem + pem("CERTIFICATE", der))
    done = run(place, "check", "policy.yaml")
    assert done.returncode == 0, done.stderr
    assert "policy.yaml:3:" in done.stderr
    assert "ca.crt: certificate 2 (CN=Odd) verifies nothing: " in done.stderr
    assert "Traceback" not in done.stderr
