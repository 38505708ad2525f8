"""Sign certificates: with an issuing CA's key of our own, or by a command of another CA."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.runtime.external_command import CommandFailed, run_command
from sidecar.runtime.files import MAX_BUNDLE, everyone_may_read, read_file

from .certificate_profile import Identity, PrivateKey, PublicKey, client_certificate, now_utc
from .settings import IssuerSettings

log = logging.getLogger(__name__)

MAX_OUTPUT = 256 * 1024
"""Most octets that are read of what a command prints."""


class IssuerError(Exception):
    """No certificate was made, or one that can't be given out; the argument says why.

    `certificate` is one that the CA has made all the same.
    """

    def __init__(self, message: str, certificate: x509.Certificate | None = None) -> None:
        super().__init__(message)
        self.certificate = certificate


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, and those above it, the nearest first."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]


class Issuer(Protocol):
    """Whoever makes a certificate of a request."""

    @property
    def goes_by_request(self) -> bool:
        """Whether names in the request can end up in the certificate."""

    def issue(
        self, identity: Identity, request: x509.CertificateSigningRequest, now: float
    ) -> Issued:
        """Make a certificate for the request's key.  Raises `IssuerError`.  It may take long."""


# -- a key of our own


@dataclass(frozen=True, slots=True)
class KeyIssuer:
    """An issuing CA whose key this process has."""

    key: PrivateKey
    chain: tuple[x509.Certificate, ...]
    goes_by_request: bool = False

    @property
    def certificate(self) -> x509.Certificate:
        """The issuing CA's own certificate."""
        return self.chain[0]

    def issue(
        self, identity: Identity, request: x509.CertificateSigningRequest, now: float
    ) -> Issued:
        """Sign a certificate; of the request only the key counts.  Raises `IssuerError`."""
        key = request.public_key()
        assert isinstance(key, PublicKey)  # `check_key` let it in
        try:
            builder = client_certificate(identity, key, self.certificate, now_utc(now))
            return Issued(builder.sign(self.key, signature_hash(self.key)), self.chain)
        except ValueError as error:
            raise IssuerError(str(error)) from None


def signature_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384:
    """Return the hash that goes with a CA's key."""
    large = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256
    return hashes.SHA384() if large else hashes.SHA256()


def load_key_issuer(settings: IssuerSettings, environ: Mapping[str, str]) -> KeyIssuer:
    """Load the issuing CA, and check that it can issue.  Raises OSError and ValueError."""
    chain = load_chain(settings.cert)
    data = read_secret(settings.key_, MAX_BUNDLE)
    key = _private_key(data, settings, environ)
    if key.public_key() != chain[0].public_key():
        raise ValueError(f"{settings.key_} is not the key of the certificate {settings.cert}")
    if why := why_no_authority(chain[0]):
        raise ValueError(f"{settings.cert}: {why}")
    return KeyIssuer(key, tuple(chain))


def load_chain(path: str) -> list[x509.Certificate]:
    """Load certificates of a PEM file.  Raises OSError and ValueError."""
    try:
        return x509.load_pem_x509_certificates(read_file(path, MAX_BUNDLE, trusted_only=True))
    except ValueError:
        hint = "write a PEM file that begins with -----BEGIN CERTIFICATE-----"
        raise ValueError(f"{path} holds no readable certificate", hint) from None


def _private_key(data: bytes, settings: IssuerSettings, environ: Mapping[str, str]) -> PrivateKey:
    encrypted = b"ENCRYPTED" in data
    if encrypted and not settings.passphrase_file:
        raise ValueError(f"{settings.key_} is encrypted; add passphrase_file to the issuer")
    passphrase = read_passphrase(settings.passphrase_file, environ) if encrypted else None
    if not encrypted:
        log.warning("%s is not encrypted: `openssl pkey -aes256` encrypts it", settings.key_)
    try:
        key = serialization.load_pem_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        why = "with this passphrase" if encrypted else "as a private key in PEM"
        raise ValueError(f"{settings.key_} can't be read {why}") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError(f"{settings.key_}: a CA's key here is RSA or EC")
    return key


def read_secret(path: str, limit: int, *, trusted_only: bool = True) -> bytes:
    """Read a key or passphrase, and warn where every user can.  Raises OSError."""
    if everyone_may_read(path):
        log.warning("%s can be read by everyone: chmod o-r it, and take it for known", path)
    return read_file(path, limit, trusted_only=trusted_only)


def read_passphrase(place: str, environ: Mapping[str, str]) -> bytes:
    """Read a passphrase from a file or a systemd credential, without its line end.

    Raises OSError and ValueError.
    """
    name = place.removeprefix("credential:")
    if name != place:
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            hint = f"start it by a unit with LoadCredential={name}:FILE"
            raise ValueError(f"systemd gave no credentials, and {place} is one", hint)
        place = str(Path(directory) / name)
    found = read_secret(place, 65536, trusted_only=False).rstrip(b"\r\n")
    if not found:
        raise ValueError(f"{place} is empty, and the CA's passphrase is expected in it")
    return found


def why_no_authority(cert: x509.Certificate) -> str:
    """Say why a certificate is none of a CA that may issue; nothing where it is one."""
    try:
        basic = cert.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return "it is not a CA's certificate: it has no basicConstraints"
    if not basic.ca:
        return "it is not a CA's certificate: basicConstraints says CA:FALSE"
    try:
        usage = cert.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    return "" if usage.key_cert_sign else "its keyUsage has no keyCertSign"


# -- a command of another CA


@dataclass(frozen=True, slots=True)
class CommandIssuer:
    """A program that reads a CSR (PEM) from stdin and prints the certificate (PEM).

    What the certificate is for stands in its environment: MTLS_SIDECAR_NAME, _DEVICE, _PROFILE,
    _SUBJECT (RFC 4514), _SAN (`DNS:…,email:…,URI:…`), _DAYS and _SECONDS.
    """

    command: tuple[str, ...]
    timeout: float
    chain: tuple[x509.Certificate, ...] = ()
    goes_by_request: bool = True

    def issue(
        self, identity: Identity, request: x509.CertificateSigningRequest, now: float
    ) -> Issued:
        """Run the command, and check what it prints.  Raises `IssuerError`."""
        output = self._run(identity, request.public_bytes(serialization.Encoding.PEM))
        try:
            found, *above = x509.load_pem_x509_certificates(output)
        except ValueError:
            raise IssuerError("the CA's command printed no certificate in PEM") from None
        if why := why_not_as_asked(found, identity, request, now):
            raise IssuerError(f"the CA's command made another certificate: {why}", found)
        return Issued(found, tuple(above) or self.chain)

    def _run(self, identity: Identity, request: bytes) -> bytes:
        environ = {**os.environ, **_described(identity)}
        try:
            done = run_command(
                self.command, request, self.timeout, limit=MAX_OUTPUT, environ=environ
            )
        except CommandFailed as error:
            raise IssuerError(f"the CA's command {error}") from None
        if done.code:
            raise IssuerError(f"the CA's command failed ({done.code}): {done.said}")
        return done.output


def _described(identity: Identity) -> dict[str, str]:
    seconds = identity.profile.validity
    return {
        "MTLS_SIDECAR_NAME": identity.name,
        "MTLS_SIDECAR_DEVICE": identity.device,
        "MTLS_SIDECAR_PROFILE": identity.profile.name,
        "MTLS_SIDECAR_SUBJECT": identity.subject().rfc4514_string(),
        "MTLS_SIDECAR_SAN": ",".join(map(_spelled, identity.alternative_names())),
        "MTLS_SIDECAR_DAYS": str(max(1, seconds // 86400)),
        "MTLS_SIDECAR_SECONDS": str(seconds),
    }


def _spelled(name: x509.GeneralName) -> str:
    """Spell an alternative name as OpenSSL's configuration does."""
    kinds = {x509.DNSName: "DNS", x509.RFC822Name: "email", x509.UniformResourceIdentifier: "URI"}
    return f"{kinds[type(name)]}:{name.value}"


def why_not_as_asked(
    cert: x509.Certificate,
    identity: Identity,
    request: x509.CertificateSigningRequest,
    now: float,
) -> str:
    """Say in what a certificate differs from what was asked for; nothing where it doesn't.

    Not checked: its signature, which nginx verifies, extensions without a meaning here, and other
    attributes of its subject than CN and OU.
    """
    try:
        names = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        groups = cert.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        extensions = {each.oid: each.value for each in cert.extensions}
        if cert.public_key() != request.public_key():
            return "it has another key"
    except (ValueError, UnsupportedAlgorithm):
        return "it can't be read"
    others = {each.value for each in groups} - set(identity.profile.ou)
    if [each.value for each in names] != [identity.name] or others:
        return f"its subject is {cert.subject.rfc4514_string()!r}"
    basic = extensions.get(x509.BasicConstraints.oid)
    if isinstance(basic, x509.BasicConstraints) and basic.ca:
        return "it is a CA's"
    latest = now_utc(now + identity.profile.validity + ROUNDED_UP)
    begun = cert.not_valid_before_utc <= now_utc(now + CLOCKS)
    if not begun or not now_utc(now) < cert.not_valid_after_utc <= latest:
        return f"it is valid from {cert.not_valid_before_utc} to {cert.not_valid_after_utc}"
    purposes = extensions.get(x509.ExtendedKeyUsage.oid)
    if isinstance(purposes, x509.ExtendedKeyUsage) and (
        ExtendedKeyUsageOID.CLIENT_AUTH not in purposes
    ):
        return "its extendedKeyUsage has no clientAuth"
    san = extensions.get(x509.SubjectAlternativeName.oid)
    given = set(san) if isinstance(san, x509.SubjectAlternativeName) else set()
    if given != set(identity.alternative_names()):
        told = ", ".join(sorted(repr(each.value) for each in given)) or "none"
        return f"its alternative names are {told}"
    return ""


CLOCKS = 300.0
"""Seconds by which the CA's clock may be ahead."""

ROUNDED_UP = 86400 + CLOCKS
"""Seconds by which a certificate may be valid for longer than asked: CAs that count in days."""


def load_issuer(settings: IssuerSettings, environ: Mapping[str, str]) -> Issuer:
    """Load the issuer that enroll.yaml names.  Raises OSError and ValueError."""
    if not settings.command:
        return load_key_issuer(settings, environ)
    chain = tuple(load_chain(settings.cert)) if settings.cert else ()
    return CommandIssuer(settings.command, settings.timeout, chain)
