"""Read certificates of clients from files and directories."""

from __future__ import annotations

from pathlib import Path

import pytest
from pki import CA

from sidecar.commands.certificate_files import given_certificates

STAFF = CA("Staff")
ALICE, BOB = STAFF.issue("alice"), STAFF.issue("bob")


def test_each_certificate_is_read_once(tmp_path: Path) -> None:
    """PEM and DER are found in directories at any depth by suffix; duplicates are removed."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "alice.crt").write_bytes(ALICE.pem)
    (tmp_path / "deep" / "again.DER").write_bytes(ALICE.der)
    (tmp_path / "deep" / "bob.pem").write_bytes(BOB.pem)
    (tmp_path / "notes.txt").write_bytes(STAFF.pem)
    found, unread = given_certificates([str(tmp_path)])
    assert set(found) == {ALICE.sha256, BOB.sha256}
    assert unread == []


def test_a_file_that_is_named_must_be_a_certificate(tmp_path: Path) -> None:
    """A named file must contain a certificate; an invalid file in a directory is only reported."""
    (tmp_path / "garbage.crt").write_bytes(b"\x30garbage")
    (tmp_path / "empty.pem").write_bytes(b"")
    with pytest.raises(ValueError, match=r"garbage\.crt: "):
        given_certificates([str(tmp_path / "garbage.crt")])
    with pytest.raises(ValueError, match="no certificate in it"):
        given_certificates([str(tmp_path / "empty.pem")])
    with pytest.raises(FileNotFoundError):
        given_certificates([str(tmp_path / "gone.pem")])
    found, unread = given_certificates([str(tmp_path)])
    assert found == {}
    assert [each.split(":")[0] for each in unread] == [str(tmp_path / "garbage.crt")]
