"""User and password of a CRL's address stand in the policy, and nowhere else that is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from daemon import Daemon
from forked import mtls_sidecar
from nginx import free_port
from pki import CA

staff = CA("Staff")
alice = staff.issue("alice")

USER, PASSWORD = "hermes", "s3cr3t"
GOOD = """\
version: 1
trust:
  staff:
    ca: ca.crt
    crl: "http://{user}:{password}@127.0.0.1:{port}/ca.crl?x=1"
    revocation: {mode}
locations:
  - {{name: site, location: /, allow: verified}}
"""
BROKEN = GOOD.replace("/ca.crl?x=1", ":x/ca.crl")


def run(directory: Path, *arguments: str) -> str:
    """Everything that a command prints, without the path of its settings."""
    done = mtls_sidecar(arguments[0], "-c", "sidecar.yaml", *arguments[1:], cwd=directory)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def policy(text: str, mode: str) -> str:
    return text.format(user=USER, password=PASSWORD, port=free_port(), mode=mode)


COMMANDS = (
    ("check",),
    ("explain", "--location", "site", "--cert", "alice.crt"),
    ("explain", "--location", "site", "--cert", "alice.crt", "--json"),
    ("fetch", "--once"),
    ("doctor", "nginx.conf"),
    ("revoke", "alice.crt"),
    ("revoke", "--list"),
    ("revoke", "--undo", "alice.crt"),
)


@pytest.mark.parametrize("mode", ["required", "best_effort"])
@pytest.mark.parametrize("text", [GOOD, BROKEN], ids=["good", "broken"])
def test_no_command_tells_the_password(tmp_path: Path, text: str, mode: str) -> None:
    """Neither of an address that nobody answers at nor of one that is none."""
    Daemon(tmp_path, policy(text, mode), "", ca_crt=staff.pem, alice_crt=alice.pem)
    (tmp_path / "nginx.conf").write_text("events {} http { server { listen 1; } }\n")
    for command in COMMANDS:
        told = run(tmp_path, *command)
        assert told, command
        assert PASSWORD not in told, command
        assert USER not in told, command


def test_the_daemon_tells_the_password_nowhere(tmp_path: Path) -> None:
    """Not in its log, its metrics, its page, its probes, nor in an answer, before and after a
    reload that is refused."""
    with Daemon(tmp_path, policy(GOOD, "best_effort"), "", ca_crt=staff.pem) as daemon:
        told = str(daemon.ask("site", alice).headers)
        for path in ("/", "/metrics", "/readyz", "/livez"):
            told += daemon.get(path)[1]
        daemon.write("policy.yaml", policy(BROKEN, "best_effort"))
        daemon.until(lambda: daemon.has_failed(1))
        for path in ("/", "/metrics", "/readyz"):
            told += daemon.get(path)[1]
    told += daemon.log.read_text()
    names = " ".join(each.name for each in (tmp_path / "state").rglob("*"))
    assert "127.0.0.1" in told
    for secret in (USER, PASSWORD):
        assert secret not in told
        assert secret not in names
