"""Parse the target of `revoke`, and never guess."""

from __future__ import annotations

from pathlib import Path

import pytest
from pki import CA

from sidecar.commands.revoke.target import form_of, read_target

STAFF = CA("Staff")
ALICE, BOB = STAFF.issue("alice"), STAFF.issue("bob")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory without a file that a target could name."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("0A1B", "serial"),
        ("0a:1b", "serial"),
        ("0x" + "1" * 32, "serial"),
        ("-1f", "serial"),
        ("ab" * 32, "fingerprint"),
        ("AB:" * 31 + "AB", "fingerprint"),
    ],
)
def test_a_form_that_is_certain(text: str, form: str) -> None:
    """Serial numbers and fingerprints are recognized in their usual spellings."""
    assert form_of(text) == form


@pytest.mark.parametrize(
    ("text", "told"),
    [("zzz", "neither a file nor"), ("a" * 40, "a SHA-1 fingerprint"), ("a" * 32, "an MD5")],
)
def test_a_form_that_is_not_certain_is_asked_about(text: str, told: str) -> None:
    """A wrong guess would deny nobody, or somebody else."""
    with pytest.raises(ValueError, match=told):
        form_of(text)


def test_a_file_with_the_name_of_a_number_is_asked_about(tmp_path: Path) -> None:
    """The error names both options."""
    (tmp_path / "0A1B").write_bytes(ALICE.pem)
    with pytest.raises(ValueError, match=r"--file 0A1B, or --serial 0A1B"):
        form_of("0A1B")
    assert read_target("0A1B", form="file").value == ALICE.sha256
    assert read_target("0A1B", form="serial").value == "0A1B"


def test_a_certificate_or_its_key(tmp_path: Path) -> None:
    """The default is the certificate; --key means all certificates with its key."""
    (tmp_path / "alice.crt").write_bytes(ALICE.pem)
    found = read_target("alice.crt")
    assert (found.kind, found.value, found.who) == ("sha256", ALICE.sha256, "CN=alice")
    found = read_target("alice.crt", key=True)
    assert (found.kind, found.value) == ("spki_sha256", ALICE.spki_sha256)
    assert read_target("ab" * 32, key=True).kind == "spki_sha256"
    with pytest.raises(ValueError, match="--key goes with"):
        read_target("0A1B", key=True)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (ALICE.pem + BOB.pem, "holds 2 certificates"),
        (b"-----BEGIN PKCS7-----\nMA==\n", "openssl pkcs7"),
        (b"-----BEGIN PRIVATE KEY-----\nMA==\n", "it holds a PRIVATE KEY"),
        (b"\x30\x82\x01\x00\x02\x01\x03\x30\x82", "it is PKCS #12"),
        (b"hello", "give the certificate as PEM or DER"),
    ],
)
def test_another_file_is_refused_with_the_way_out(tmp_path: Path, data: bytes, told: str) -> None:
    """The error names the file's type and how to extract the certificate."""
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ValueError, match=told):
        read_target("file")


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    """A dangling link is reported as such, not as an unknown word."""
    (tmp_path / "alice.crt").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match="a link to a file that isn't there"):
        read_target("alice.crt")


def test_a_number_that_looks_decimal_is_asked_about() -> None:
    """The error shows both readings of the number in hexadecimal."""
    with pytest.raises(ValueError, match="0x38D7EA4C68000 if it is decimal"):
        read_target("1000000000000000")
    with pytest.raises(ValueError, match="is not a serial number"):
        read_target("xyz", form="serial")
    with pytest.raises(ValueError, match="is not a SHA-256"):
        read_target("xyz", form="fingerprint")
