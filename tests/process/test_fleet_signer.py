"""Signing with deploy/fleet/sign-with-agent.py and a real SSH agent, for a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_hosts import ROOT, Fleet, Nats, until
from tools import need, ssh_agent

SCRIPT = ROOT / "deploy/fleet/sign-with-agent.py"


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An agent that holds the key of a file, whose name comes back; its file is gone."""
    tool = need(ssh_agent())
    key, place = tmp_path / "key", tmp_path / "agent.sock"
    process = subprocess.Popen([tool.path, "-D", "-a", place], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
    try:
        until(place.exists, "the agent listens")
        beside = tool.path.parent
        subprocess.run(
            [beside / "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True
        )
        subprocess.run([beside / "ssh-add", "-q", key], check=True, stderr=subprocess.DEVNULL)
        key.unlink()
        yield tmp_path / "key.pub"
    finally:
        process.terminate()
        process.wait()


def script(*arguments: str | Path, data: bytes = b"", **environ: str) -> tuple[int, str]:
    """The exit code of the script, and what it says."""
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=60,
        env={**os.environ, **environ},
    )
    return done.returncode, done.stdout.decode().strip()


def test_an_agent_signs_releases_and_revocations(agent: Path, tmp_path: Path) -> None:
    """The key is in no file of the publisher's; without it in the agent nothing is published."""
    code, public = script("--public", agent)
    assert code == 0
    with Nats(tmp_path / "nats") as nats:
        fleet = Fleet(tmp_path / "fleet", nats)
        fleet.public = public
        fleet.key.unlink()
        command = f"[{sys.executable}, {SCRIPT}, {agent}]"
        signer = f"{{command: {command}, public: {public}}}"
        fleet.config.write_text(fleet.settings(f"state_dir: {tmp_path}/p", signer=signer))
        policy = tmp_path / "policy"
        policy.mkdir()
        (policy / "policy.yaml").write_text("version: 1\nlocations: [{name: a, allow: verified}]\n")
        for number in range(500):  # an entry of more than 64 KiB
            (policy / f"{number:064}.txt").write_text(str(number))
        fleet.run("publish", str(policy))
        fleet.run("revoke", "--serial", "0A")
        subprocess.run(["ssh-add", "-q", "-D"], check=True, stderr=subprocess.DEVNULL)
        done = fleet.run("revoke", "--serial", "0B", check=False)
        assert done.returncode == 2
        assert "the agent does not sign: does `ssh-add -L` list the key?" in done.stderr
        kinds = [each["kind"] for each in json.loads(fleet.run("log", "--json").stdout)]
        assert kinds == ["release", "revocation"]


def test_what_can_not_be_used_is_told(agent: Path, tmp_path: Path) -> None:
    """Another kind of key, no agent, one that is gone, junk in its place: one line each."""
    other = tmp_path / "other.pub"
    other.write_text("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ== x")
    for arguments, environ, told in (
        ([other], {}, "is no ssh-ed25519 public key; make one: ssh-keygen -t ed25519"),
        ([tmp_path / "none"], {}, f"{tmp_path}/none: No such file or directory"),
        ([agent], {"SSH_AUTH_SOCK": ""}, "there is no SSH agent: SSH_AUTH_SOCK is not set"),
        ([agent], {"SSH_AUTH_SOCK": "/none"}, "the agent: No such file or directory"),
    ):
        code, said = script(*arguments, data=b"x", **environ)
        assert (code, len(said.splitlines())) == (1, 1)
        assert told in said
    assert script()[0] == 2
