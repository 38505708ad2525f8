"""One NATS server with deploy/fleet/nats.conf, and a certificate for each role."""

from __future__ import annotations

import re
import ssl
import subprocess
from pathlib import Path

from fleet_hosts import ROOT, Nats, nats_server, until
from pki import CA, SERVER_AUTH

authority = CA("Fleet CA")

ROLES = ("web1", "keeper", "publisher", "stranger")


class Secured(Nats):
    """One server with the shipped configuration, but for its addresses and its cluster."""

    def prepare(self) -> None:
        self.directory.mkdir()
        (self.directory / "fleet-ca.crt").write_bytes(authority.pem)
        server = authority.issue("server", dns=["localhost"], eku=[SERVER_AUTH])
        for name, leaf in {
            "server": server,
            **{name: authority.issue(name, o="fleet prod") for name in ROLES},
        }.items():
            (self.directory / f"{name}.crt").write_bytes(leaf.pem)
            (self.directory / f"{name}.key").write_bytes(leaf.key_pem)
        text = (ROOT / "deploy/fleet/nats.conf").read_text()
        text = re.sub(r"(?ms)^cluster \{.*?^\}\n", "", text)
        text = text.replace("0.0.0.0:4222", f"127.0.0.1:{self.port}")
        text = text.replace("/var/lib/nats", str(self.directory / "store"))
        self.conf.write_text(text.replace("/etc/nats", str(self.directory)))

    @property
    def conf(self) -> Path:
        return self.directory / "nats.conf"

    @property
    def url(self) -> str:
        return f"tls://localhost:{self.port}"

    def start(self) -> Nats:
        if not self.directory.exists():
            self.prepare()
        with (self.directory / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [nats_server(), "-c", self.conf], stdout=log, stderr=log
            )
        until(self.is_up, "nats-server listens")
        return self

    def tls(self, name: str) -> str:
        place = self.directory / name
        return f"{{ca: {self.directory}/fleet-ca.crt, cert: {place}.crt, key: {place}.key}}"

    def context(self, name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.directory / "fleet-ca.crt"))
        context.load_cert_chain(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        return context
