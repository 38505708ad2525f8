"""A fetcher that was taken over, and files with hostile names: none writes a line of the log."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

import ocsp_pki
from cryptography.hazmat.primitives.serialization import Encoding
from daemon import Daemon
from ocsp_stack import ALICE, AUTHORITY, POLICY

from sidecar.runtime import fetch_protocol

FORGED = '\n2026-01-01T00:00:00.000Z decision="allow" reason="allowed" subject="CN=forged"\r\x1b[2K'


def test_a_fetcher_that_was_taken_over_forges_no_line(tmp_path: Path) -> None:
    """Its error and its kind are logged on one line, escaped; the request is denied."""
    pem = AUTHORITY.cert.public_bytes(Encoding.PEM)
    daemon = Daemon(tmp_path, POLICY.format("http://127.0.0.1:1/"), ca_pem=pem)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "fetch.sock"))
    listener.listen()

    def lie() -> None:
        for n in range(4):
            try:
                peer, _ = listener.accept()
            except OSError:  # the test has ended, and closed it
                return
            with peer:
                size = int.from_bytes(peer.recv(4), "big")
                while size > 0:
                    size -= len(peer.recv(size))
                kind = ("refused", "unreachable" + FORGED, "no_answer", "fetcher")[n]
                peer.sendall(fetch_protocol.encode({"error": FORGED * 100, "kind": kind}))

    lying = threading.Thread(target=lie, daemon=True)
    lying.start()
    with listener, daemon:
        assert daemon.ask("site", ALICE).reason == "revocation_unknown"
        daemon.until(lambda: "no OCSP answer" in daemon.log.read_text())
    check(daemon)


def test_a_hostile_name_in_a_certificate_and_a_file_forges_no_line(tmp_path: Path) -> None:
    """A policy's file and its place, and an issuer's name."""
    pem = ocsp_pki.authority().cert.public_bytes(Encoding.PEM)
    name = "x" + FORGED.replace("/", "")
    daemon = Daemon(tmp_path, POLICY.format("http://127.0.0.1:1/"), ca_pem=pem)
    with daemon:
        text = POLICY.format("http://127.0.0.1:1/").replace("ca.pem", f'"{escaped(name)}"')
        daemon.write("policy.yaml", text)
        daemon.until(lambda: "reload refused" in daemon.log.read_text())
    check(daemon)


def escaped(text: str) -> str:
    """Text within double quotes of YAML."""
    replaced = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return replaced.replace("\r", "\\r").replace("\x1b", "\\e")


def check(daemon: Daemon) -> None:
    """Each line begins as the program writes it, and nothing in it steers a terminal."""
    log = daemon.log.read_bytes()
    assert b"CN=forged" in log
    assert not set(log) & set(b"\r\x1b")
    for line in log.decode().splitlines():
        assert re.match(r"INFO |WARNING |ERROR |    |2026-01-01T.* location=", line) or (
            "CN=forged" not in line
        ), line
        assert not line.startswith("2026-01-01T00:00:00.000Z"), line
