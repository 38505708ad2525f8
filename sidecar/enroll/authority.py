"""Make the issuing CA: its key, encrypted, and its certificate or a CSR for an offline root."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from .bundles import encrypted_key
from .certificate_profile import PrivateKey, ca_certificate, ca_extensions, new_key, now_utc
from .issuer import load_key_issuer, read_passphrase, signature_hash
from .settings import IssuerSettings

CA_DAYS = 3650
"""How long a self-signed CA is valid."""

CA_KEY = "ec-p384"
"""The kind of an issuing CA's key."""


def request_path(settings: IssuerSettings) -> Path:
    """Return where the CSR for an offline root is written."""
    return Path(settings.cert).with_suffix(".csr")


def make_authority(
    settings: IssuerSettings,
    environ: Mapping[str, str],
    *,
    name: str,
    below_root: bool,
    now: float,
) -> list[str]:
    """Make what isn't there yet; what was done, a line each.  Raises OSError and ValueError."""
    key_file, cert_file = Path(settings.key_), Path(settings.cert)
    if cert_file.exists():
        load_key_issuer(settings, environ)
        return [f"{cert_file}: there is a CA, and its key fits; nothing to make"]
    if key_file.exists():
        raise ValueError(
            f"{key_file} is there, and {cert_file} is not: put the CA's certificate there, or "
            "move the key away"
        )
    passphrase = _passphrase(settings, environ)
    key = new_key(CA_KEY)
    _write_new(key_file, encrypted_key(key, passphrase), 0o600)
    if below_root:
        place = request_path(settings)
        _write_new(place, _request(name, key), 0o644)
        return [
            f"{key_file}: the issuing CA's key, encrypted",
            f"{place}: have your root sign this as a CA (pathlen 0)",
            f"{cert_file}: put the certificate there, and the root's behind it",
        ]
    builder = ca_certificate(name, key, now_utc(now), CA_DAYS)
    cert = builder.sign(key, signature_hash(key))
    _write_new(cert_file, cert.public_bytes(Encoding.PEM), 0o644)
    return [
        f"{key_file}: the issuing CA's key, encrypted",
        f"{cert_file}: its certificate, until {cert.not_valid_after_utc:%Y-%m-%d}",
    ]


def _passphrase(settings: IssuerSettings, environ: Mapping[str, str]) -> bytes:
    """Read the passphrase; make one where its file isn't there.  Raises OSError, ValueError."""
    place = settings.passphrase_file
    if not place:
        raise ValueError(
            "the issuer has no passphrase_file, and the key is stored encrypted; add it to the "
            "issuer in enroll.yaml"
        )
    if not place.startswith("credential:") and not Path(place).exists():
        _write_new(Path(place), secrets.token_urlsafe(32).encode() + b"\n", 0o600)
    return read_passphrase(place, environ)


def _request(name: str, key: PrivateKey) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension, critical in ca_extensions(key):
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, signature_hash(key)).public_bytes(Encoding.PEM)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that isn't there yet, with its mode from the start.  Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
        os.fchmod(descriptor, mode)
