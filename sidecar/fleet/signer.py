"""What signs: a key file, or a command that keeps the key elsewhere.

A command is given the octets on its standard input and prints the Ed25519 signature in base64, as
an agent, a PKCS#11 token's tool or a script on another machine can.
"""

from __future__ import annotations

import base64
import getpass
import os
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from sidecar.core.config.fleet_settings import FleetSigner
from sidecar.core.errors import brief
from sidecar.core.fleet.entry import Entry, SignedEntry
from sidecar.core.fleet.keys import SIGNATURE_OCTETS, PublicKey, decode_base64
from sidecar.runtime.external_command import CommandFailed, run_command
from sidecar.runtime.files import read_file

COMMAND_SECONDS = 60
"""How long a signer command may take: somebody may have to touch a token."""

_MAX_KEY = 16 * 1024
_MAX_OUTPUT = 4096


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs entries with one key."""

    public: PublicKey
    sign_octets: Callable[[bytes], bytes]

    def sign(self, entry: Entry) -> SignedEntry:
        """The entry with its signature, which was verified.  Raises OSError, ValueError."""
        content = entry.content()
        signature = self.sign_octets(content)
        if not self.public.verifies(signature, content):
            raise ValueError(f"the signer's signature is not of its key {self.public}")
        return SignedEntry(entry, self.public.id, signature)


def make_key(path: Path, passphrase: bytes | None) -> PublicKey:
    """Make a key and write it; a file that is there stays.  Raises OSError, ValueError."""
    key = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ValueError(f"{path} is there already", "name another file, or move it away") from None
    with open(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(descriptor)
    return _public(key)


def _public(key: Ed25519PrivateKey) -> PublicKey:
    return PublicKey(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def signer_of(settings: FleetSigner, key_file: Path) -> Signer:
    """The signer that is configured, or else the key of a file.  Raises OSError, ValueError."""
    if settings.command:
        if settings.public is None:
            raise ValueError("signer names a command but no public", "add public: ed25519 BASE64")
        return Signer(settings.public, _by_command(settings.command))
    key = _load(key_file, settings.passphrase_file)
    return Signer(_public(key), key.sign)


def _load(path: Path, passphrase_file: str) -> Ed25519PrivateKey:
    try:
        data = read_file(path, _MAX_KEY)
    except FileNotFoundError:
        raise ValueError(
            f"{path}, the key that signs, is not there",
            "make it with `mtls-sidecar fleet keygen`, or name another: --signing-key FILE",
        ) from None
    mode = path.stat().st_mode
    # systemd's own copy shows the group's bit for an ACL of the service's user.
    is_credential = path.parent == Path(os.environ.get("CREDENTIALS_DIRECTORY") or "/dev/null")
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and not is_credential:
        raise ValueError(f"others may read {path}, the fleet's key", f"chmod 600 {path}")
    passphrase = None
    if b"ENCRYPTED" in data:
        passphrase = read_passphrase(passphrase_file, path)
    try:
        key = load_pem_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if b"PRIVATE KEY-----" not in data:
            raise ValueError(
                f"{path} is no private key", "name the file that `fleet keygen` wrote"
            ) from None
        if passphrase is not None:
            raise ValueError(f"{path} can't be opened: is that its passphrase?") from None
        raise ValueError(f"{path} can't be used as a key: {brief(error)}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} is no Ed25519 key", "make one with `mtls-sidecar fleet keygen`")
    return key


def read_passphrase(file: str, path: Path) -> bytes:
    """The passphrase out of a file, or as typed.  Raises OSError, ValueError."""
    if file:
        return read_file(file, _MAX_KEY).rstrip(b"\r\n")
    if not sys.stdin.isatty():
        raise ValueError(f"{path} has a passphrase", "name its file: --passphrase-file FILE")
    return getpass.getpass(f"Passphrase of {path}: ").encode()


def _by_command(command: Sequence[str]) -> Callable[[bytes], bytes]:
    def sign(data: bytes) -> bytes:
        try:
            found = run_command(
                command, data, COMMAND_SECONDS, limit=_MAX_OUTPUT, own_session=False
            )
        except CommandFailed as error:
            raise ValueError(f"the signer {command[0]} {error}") from None
        if found.code:
            told = found.said[-200:]
            raise ValueError(f"the signer {command[0]} failed: {told or found.code}")
        try:
            return decode_base64(found.output.decode().strip(), SIGNATURE_OCTETS)
        except ValueError:
            raise ValueError(
                f"the signer {command[0]} printed no Ed25519 signature in base64"
            ) from None

    return sign


def as_base64(signature: bytes) -> str:
    """What a signer command prints."""
    return base64.b64encode(signature).decode()
