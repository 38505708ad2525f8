"""deploy/fleet/certificates.sh: what it makes, twice, and what it refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from fleet_hosts import ROOT


def make(place: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", ROOT / "deploy/fleet/certificates.sh", place, *names],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_more_names_leave_what_is_there_alone(tmp_path: Path) -> None:
    """A directory for each machine, nobody else's to read; servers are clients of each other, too,
    and a node is no server.  The subject is what nats.conf names."""
    place = tmp_path / "pki"
    assert make(place, "nats1.example.com", "web1").returncode == 0
    before = {path: path.read_bytes() for path in place.rglob("*.*") if path.is_file()}
    assert make(place, "web1", "web2").stdout == f"{place}/web2\n"
    assert {path: path.read_bytes() for path in before} == before
    assert not [path for path in place.rglob("*") if path.stat().st_mode & 0o077]
    usages = {"nats1.example.com/server.crt": 2, "web1/nats.crt": 1, "web2/nats.crt": 1}
    for name, count in usages.items():
        cert = x509.load_pem_x509_certificate((place / name).read_bytes())
        eku = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert len(eku) == count
        assert ExtendedKeyUsageOID.CLIENT_AUTH in eku
        assert cert.subject.rfc4514_string() == f"CN={name.partition('/')[0]},O=fleet prod"


@pytest.mark.parametrize("name", ["../x", "a/b", "-subj", "a,O=b", "a b", ".", "", "a\nb"])
def test_a_name_that_could_say_more_is_refused(tmp_path: Path, name: str) -> None:
    """Neither a path nor another part of a subject nor a line of an extension; nothing is made."""
    done = make(tmp_path / "pki", "web1", name)
    assert done.returncode == 2
    assert "is no name: use A-Z a-z 0-9 . _ -" in done.stderr
    assert not (tmp_path / "pki").exists()
