"""What signs."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from fleet_entries import Author

from sidecar.core.config.fleet_settings import FleetSigner
from sidecar.fleet.signer import make_key, signer_of

ENTRY = Author().entry("undo", {"sequence": 1})


def test_a_key_file_signs(tmp_path: Path) -> None:
    """Made for its owner alone, with or without a passphrase; it is never overwritten."""
    public = make_key(tmp_path / "key", None)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    signed = signer_of(FleetSigner(), tmp_path / "key").sign(ENTRY)
    assert public.verifies(signed.signature, ENTRY.content())
    with pytest.raises(ValueError, match="is there already"):
        make_key(tmp_path / "key", None)
    make_key(tmp_path / "closed", b"secret")
    (tmp_path / "word").write_text("secret\n")
    closed = FleetSigner(passphrase_file=str(tmp_path / "word"))
    signer_of(closed, tmp_path / "closed").sign(ENTRY)
    with pytest.raises(ValueError, match="has a passphrase") as error:
        signer_of(FleetSigner(), tmp_path / "closed")
    assert "--passphrase-file" in error.value.args[1]


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """With what to type."""
    make_key(tmp_path / "key", None)
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ValueError, match="others may read") as error:
        signer_of(FleetSigner(), tmp_path / "key")
    assert error.value.args[1].startswith("chmod 600")


def test_a_credential_of_the_service_manager_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`LoadCredential=` shows a bit of the group, which stands for an ACL."""
    make_key(tmp_path / "key", None)
    (tmp_path / "key").chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    signer_of(FleetSigner(), tmp_path / "key").sign(ENTRY)


@pytest.mark.parametrize("data", [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nAA\n"])
def test_what_is_no_key_is_refused(tmp_path: Path, data: bytes) -> None:
    """One line, no library's traceback."""
    (tmp_path / "key").write_bytes(data)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(ValueError, match=r"is no private key|can't be used as a key"):
        signer_of(FleetSigner(), tmp_path / "key")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("print('AAAA')", "printed no Ed25519 signature"),
        ("print('A' * 86 + '==')", "is not of its key"),
        ("import sys; sys.exit('the token is locked')", "the token is locked"),
        ("import sys; sys.stdout.buffer.write(b'\\xff')", "printed no Ed25519 signature"),
    ],
)
def test_a_command_that_does_not_sign_is_told(code: str, told: str) -> None:
    """Nothing is published with what it printed."""
    author = Author()
    signer = signer_of(
        FleetSigner(command=(sys.executable, "-c", code), public=author.public), Path("none")
    )
    with pytest.raises(ValueError, match=told):
        signer.sign(ENTRY)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("cat /dev/zero", "printed more than 4096 octets"),
        ("sleep 600 & exit 3", "failed: 3"),
        ("cat /dev/zero | head -c 100000000 >&2; exit 3", "failed"),
        ("exec sleep 600", "took more than 2 s"),
    ],
)
def test_a_command_without_end_holds_up_nothing(
    script: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither endless output, nor a child that keeps its pipes, nor one that never ends."""
    monkeypatch.setattr("sidecar.fleet.signer.COMMAND_SECONDS", 2)
    author, start = Author(), time.monotonic()
    settings = FleetSigner(command=("/bin/sh", "-c", script), public=author.public)
    with pytest.raises(ValueError, match=told):
        signer_of(settings, Path("none")).sign(ENTRY)
    assert time.monotonic() - start < 60


def test_a_command_that_is_not_there_is_told() -> None:
    """By its name, as one that fails."""
    author = Author()
    settings = FleetSigner(command=("/nonexistent/tool",), public=author.public)
    with pytest.raises(ValueError, match="can't be started: /nonexistent/tool: No such file"):
        signer_of(settings, Path("none")).sign(ENTRY)


def test_a_command_can_ask_at_the_terminal() -> None:
    """It stays in the session of whoever publishes, so that a token's tool can ask for a PIN."""
    author = Author()
    code = "import os, sys; sys.exit(f'session {os.getsid(0)}')"
    settings = FleetSigner(command=(sys.executable, "-c", code), public=author.public)
    with pytest.raises(ValueError, match=f"session {os.getsid(0)}$"):
        signer_of(settings, Path("none")).sign(ENTRY)


def test_a_command_needs_its_public_key() -> None:
    """Else nobody would notice that it signs with another."""
    with pytest.raises(ValueError, match="names a command but no public"):
        signer_of(FleetSigner(command=("true",)), Path("none"))
