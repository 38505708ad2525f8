"""docs/clients.md: its commands are run with a .p12 file, against a real nginx and sidecar."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from daemon import ROOT
from stack import Stack
from tools import NginxBinary, need, nginx_binaries, nss_tool

PAGE = ROOT / "docs" / "clients.md"
SITE = "https://app.example.com/"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_every_command_of_the_page_works(tmp_path: Path) -> None:
    """The certificate gets into Chromium's store and into PEM files, and opens the site for curl,
    wget, git's settings and Python.  keytool and wget are run where they are installed."""
    binary = next(each for each in nginx_binaries() if isinstance(each, NginxBinary))
    home = tmp_path / "home"
    home.mkdir()
    with Stack(binary, tmp_path / "stack") as stack:
        alice = stack.people.alice
        (home / "alice.p12").write_bytes(
            serialize_key_and_certificates(
                b"alice", alice.private, alice.cert, None, BestAvailableEncryption(b"secret")
            )
        )
        (home / "password").write_text("secret\n")
        (home / "server-ca.crt").write_bytes(stack.people.server.pem)
        (home / ".wgetrc").write_text(f"ca_certificate = {home / 'server-ca.crt'}\n")
        here = f"https://localhost:{stack.ports['nginx.conf']}/"
        programs = [need(nss_tool(name)) for name in ("certutil", "pk12util")]
        environment = {
            "HOME": str(home),
            "PATH": os.pathsep.join([*(str(p.path.parent) for p in programs), os.environ["PATH"]]),
            "SSL_CERT_FILE": str(home / "server-ca.crt"),
            "CURL_CA_BUNDLE": str(home / "server-ca.crt"),
            **dict(programs[0].extra_env),
        }
        lines = [line for block in blocks("sh") for line in block.splitlines() if _can(line)]
        told = "\n".join(lines)
        printed = run(["sh", "-euc", told.replace(SITE, here)], home, environment)
        assert '"app": true' in printed
        (script,) = blocks("python")
        script = script.replace(SITE, here)
        assert run([sys.executable, "-c", script], home, environment) == "200\n"
    store = run(["certutil", "-L", "-d", f"sql:{home}/.pki/nssdb"], home, environment)
    assert re.search(r"(?m)^alice\s+u,u,u", store)
    assert "sslcert=" in run(["git", "config", "--global", "--list"], home, environment)


def _can(line: str) -> bool:
    program = line.split()[0] if line.split() else ""
    return program not in ("wget", "keytool") or shutil.which(program) is not None


def run(command: list[str], home: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
