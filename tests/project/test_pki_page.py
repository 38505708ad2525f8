"""docs/pki.md: every command of the page is run, in order, and what it made is looked at."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID
from daemon import ROOT
from tools import easyrsa, need, openssl

from sidecar.core.x509.certificate import serial_hex

PAGE = ROOT / "docs" / "pki.md"
POLICY = """\
version: 1
trust:
  staff: {ca: pki/ca.crt, crl: [pki/crl.pem]}
locations:
  - {name: app, allow: [{cn: alice}], san_matches_host: true}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The directory in which the page's commands were run, and what they printed."""
    place = tmp_path_factory.mktemp("pki")
    rsa = need(easyrsa())
    tool = need(openssl())
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    # A copy of each stage that a later one changes is kept for the tests.
    keep = "cp -R pki pki-before-revoking\n"
    renewing = next(block for block in blocks if "rm -f pki/reqs" in block)
    script = "\n".join(["set -eux", *blocks[:6], keep, *blocks[6:], renewing])  # a live one, too
    path = os.pathsep.join(
        [
            str(rsa.path.parent),
            str(tool.path.parent),
            str(ROOT / ".venv" / "bin"),
            os.environ["PATH"],
        ]
    )
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=place,
        env={**rsa.env, "PATH": path, "EASYRSA": str(rsa.path.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done.stdout


def cert(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[-1]


@pytest.mark.parametrize("path", ["pki-before-revoking/issued/alice.crt", "bob.crt"])
def test_client_certificates_are_for_clients_and_for_their_host(
    made: tuple[Path, str], path: str
) -> None:
    """EasyRSA's and OpenSSL's: clientAuth alone, and the SAN that was asked for."""
    found = cert(made[0] / path).extensions
    usage = found.get_extension_for_class(x509.ExtendedKeyUsage).value
    names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert names.get_values_for_type(x509.DNSName) == ["app.example.com"]


def test_the_checks_of_the_page_say_what_it_says(made: tuple[Path, str]) -> None:
    """The usage is printed, the chain verifies for a client, and the CRL lists one serial."""
    printed = made[1]
    assert "TLS Web Client Authentication" in printed
    assert "alice.crt: OK" in printed
    serial = cert(made[0] / "pki-before-revoking/issued/alice.crt").serial_number
    assert f"Serial Number: {serial_hex(serial)}" in printed


def test_both_bundles_open_with_the_password(made: tuple[Path, str]) -> None:
    """The modern one is AES, the legacy one RC2 or 3DES, each with key, certificate and CA."""
    for name, cipher in (("alice.p12", "AES-256-CBC"), ("alice-ios.p12", "3DES|RC2|TripleDES")):
        data = (made[0] / name).read_bytes()
        done = need(openssl()).run(
            "pkcs12",
            "-in",
            made[0] / name,
            "-info",
            "-noout",
            "-legacy",
            "-passin",
            "pass:change-me",
        )
        assert re.search(cipher, done.stderr, re.IGNORECASE), done.stderr
        if name == "alice.p12":
            key, leaf, more = pkcs12.load_key_and_certificates(data, b"change-me")
            assert key is not None
            assert leaf is not None
            assert len(more) == 1


def test_the_sidecar_decides_by_them(made: tuple[Path, str]) -> None:
    """Before the revocation alice is let in at her host, after it she isn't."""
    place = made[0]
    (place / "before.yaml").write_text(POLICY.replace("pki/", "pki-before-revoking/"))
    (place / "after.yaml").write_text(POLICY)
    leaf = place / "pki-before-revoking/issued/alice.crt"

    def explain(policy: str, host: str) -> str:
        done = subprocess.run(
            [
                *(ROOT / ".venv/bin/mtls-sidecar", "explain", "--policy", policy),
                *f"--location app --host {host} --cert {leaf}".split(),
            ],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
        told: str = done.stdout or done.stderr
        return told.splitlines()[-1]

    assert "(allowed)" in explain("before.yaml", "app.example.com")
    assert "(host_mismatch)" in explain("before.yaml", "other.example.com")
    assert "(revoked)" in explain("after.yaml", "app.example.com")


def test_the_denylist_line_is_there(made: tuple[Path, str]) -> None:
    """`revoke --denylist` wrote alice's fingerprint and the reason."""
    assert "laptop stolen" in (made[0] / "denylist.txt").read_text()
