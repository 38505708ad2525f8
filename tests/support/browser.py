"""A real headless Chromium with a client certificate, in a home of its own.

Chromium takes client certificates from the NSS store of its user, and asks which one to offer,
unless a policy file of the administrator's says so.  It is run in a mount namespace of its own,
where that file is there and the machine's is untouched.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from pki import Leaf
from tools import chromium, need, nss_tool

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --ignore-certificate-errors "
    "--disable-dev-shm-usage"
).split()


class Browser:
    """Chromium, its user's certificate, and the names that it resolves to this machine."""

    def __init__(self, home: Path, leaf: Leaf | None) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root gives Chromium a policy file in a namespace of its own")
        self.home = home
        self._program = need(chromium())
        (home / "policies").mkdir(parents=True)
        (home / "policies" / "test.json").write_text(
            json.dumps({"AutoSelectCertificateForUrls": ['{"pattern": "*", "filter": {}}']})
        )
        if leaf is not None:
            self._import(leaf)

    def _import(self, leaf: Leaf) -> None:
        bundle = self.home / "client.p12"
        bundle.write_bytes(
            serialize_key_and_certificates(
                leaf.name.encode(), leaf.private, leaf.cert, None, NoEncryption()
            )
        )
        self.import_file(bundle, "")

    def import_file(self, bundle: Path, password: str) -> None:
        """Put a .p12 file's certificate and key into the user's store."""
        store = self.home / ".pki" / "nssdb"
        if not (store / "cert9.db").exists():
            store.mkdir(parents=True, exist_ok=True)
            self._nss("certutil", "-N", "--empty-password")
        self._nss("pk12util", "-i", str(bundle), "-W", password)

    def _nss(self, tool: str, *arguments: str) -> None:
        done = need(nss_tool(tool)).run(*arguments, "-d", f"sql:{self.home / '.pki' / 'nssdb'}")
        assert done.returncode == 0, done.stdout + done.stderr

    def page(self, url: str, names: Mapping[str, int]) -> str:
        """The DOM of a page after its scripts have run.  Each of `names` is this machine; its port
        443 (of `host`), or the one it names (`host:port`), is the one given."""
        done = subprocess.run(
            self.command(url, names, "--virtual-time-budget=15000", "--dump-dom"),
            env={**os.environ, "HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def command(self, url: str, names: Mapping[str, int], *more: str) -> list[str]:
        """The command that starts it, in a mount namespace of its own."""
        whole = {name if ":" in name else f"{name}:443": port for name, port in names.items()}
        rules = ",".join(f"MAP {name} 127.0.0.1:{port}" for name, port in whole.items())
        command = [
            *(str(self._program.path), *OPTIONS, *more, f"--user-data-dir={self.home / 'profile'}"),
            *(f"--host-resolver-rules={rules}", url),
        ]
        policies = "/etc/chromium/policies/managed"
        script = (
            f"mount -t tmpfs tmpfs /etc/chromium && mkdir -p {policies} && "
            f"cp {shlex.quote(str(self.home))}/policies/* {policies} && exec {shlex.join(command)}"
        )
        return ["unshare", "--mount", "sh", "-c", script]
