"""Pack a key and its certificate as what a device installs."""

from __future__ import annotations

import plistlib
import uuid
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    PrivateFormat,
    pkcs7,
    pkcs12,
)

from .certificate_profile import PrivateKey
from .names import file_stem

LEGACY_ROUNDS = 50_000
"""Iterations of the old key derivation, whose strength is the password's."""

ROUNDS = 100_000
"""Iterations of PBKDF2."""


@dataclass(frozen=True, slots=True)
class File:
    """What a holder gets: octets, their media type and a file name of harmless characters."""

    data: bytes
    media_type: str
    name: str
    inline: bool = False


@dataclass(frozen=True, slots=True)
class Packed:
    """What goes into a file.  `label` is the name that the device shows."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    label: str
    name: str
    device: str
    host: str


@dataclass(frozen=True, slots=True)
class ProfileSigner:
    """The key of a server's certificate, which a profile for Apple devices is signed with."""

    key: PrivateKey
    chain: tuple[x509.Certificate, ...]


def modern_p12(packed: Packed, key: PrivateKey, password: str) -> File:
    """Pack a PKCS #12 file with AES-256 and a SHA-256 MAC."""
    encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(ROUNDS)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(password.encode())
    )
    return _p12_file(packed, _p12(packed, key, encryption))


def legacy_p12(packed: Packed, key: PrivateKey, password: str) -> File:
    """Pack a PKCS #12 file with Triple DES and a SHA-1 MAC, which systems before 2019 read."""
    return _p12_file(packed, _p12(packed, key, _legacy(password)))


def _legacy(password: str) -> KeySerializationEncryption:
    return (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(LEGACY_ROUNDS)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())  # what old systems read
        .build(password.encode())
    )


def _p12(packed: Packed, key: PrivateKey, encryption: KeySerializationEncryption) -> bytes:
    """Pack without the root: Windows and Android would offer to trust it, which nobody needs."""
    between = [each for each in packed.chain if not is_root(each)]
    return pkcs12.serialize_key_and_certificates(
        packed.label.encode(), key, packed.certificate, between or None, encryption
    )


def _p12_file(packed: Packed, data: bytes) -> File:
    return File(data, "application/x-pkcs12", f"{file_stem(packed.name, packed.device)}.p12")


def pem_chain(packed: Packed) -> File:
    """Pack the certificate and the intermediates above it, for a key that never left its device."""
    certs = [packed.certificate, *(each for each in packed.chain if not is_root(each))]
    data = b"".join(each.public_bytes(Encoding.PEM) for each in certs)
    name = f"{file_stem(packed.name, packed.device)}.crt"
    return File(data, "application/x-pem-file", name)


def is_root(cert: x509.Certificate) -> bool:
    """Whether a certificate is self-issued."""
    return cert.subject == cert.issuer


def mobileconfig(
    packed: Packed, key: PrivateKey, password: str, signer: ProfileSigner | None
) -> File:
    """Pack a configuration profile for iOS, iPadOS and macOS: the identity and the whole chain.

    The identity is a PKCS #12 in the old encryption, which all of them read; its password is not
    in the profile, so the device asks for it.
    """
    found = _profile(packed, _p12(packed, key, _legacy(password)))
    data = plistlib.dumps(found, fmt=plistlib.FMT_XML)
    if signer is not None:
        data = _signed(data, signer)
    name = f"{file_stem(packed.name, packed.device)}.mobileconfig"
    return File(data, "application/x-apple-aspen-config", name, inline=True)


def _profile(packed: Packed, identity: bytes) -> dict[str, object]:
    serial = f"{packed.certificate.serial_number:x}"
    base = ".".join(reversed(packed.host.split("."))) + f".mtls-sidecar.{serial}"
    payloads = [
        _payload(
            base,
            "identity",
            "com.apple.security.pkcs12",
            packed.label,
            identity,
            PayloadCertificateFileName=f"{file_stem(packed.name, packed.device)}.p12",
        ),
        *(_authority(base, number, each) for number, each in enumerate(packed.chain)),
    ]
    return {
        "PayloadContent": payloads,
        "PayloadDescription": f"The client certificate of {packed.name} for {packed.host}",
        "PayloadDisplayName": packed.label,
        "PayloadIdentifier": base,
        "PayloadOrganization": packed.host,
        "PayloadRemovalDisallowed": False,
        "PayloadType": "Configuration",
        "PayloadUUID": _uuid(base),
        "PayloadVersion": 1,
    }


def _authority(base: str, number: int, cert: x509.Certificate) -> dict[str, object]:
    kind = "com.apple.security.root" if is_root(cert) else "com.apple.security.pkcs1"
    name = cert.subject.rfc4514_string()
    return _payload(
        base,
        f"ca{number}",
        kind,
        name,
        cert.public_bytes(Encoding.DER),
        PayloadCertificateFileName=f"ca{number}.cer",
    )


def _payload(
    base: str, part: str, kind: str, label: str, content: bytes, **more: object
) -> dict[str, object]:
    return {
        "PayloadContent": content,
        "PayloadDisplayName": label,
        "PayloadIdentifier": f"{base}.{part}",
        "PayloadType": kind,
        "PayloadUUID": _uuid(f"{base}.{part}"),
        "PayloadVersion": 1,
        **more,
    }


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name)).upper()


def _signed(data: bytes, signer: ProfileSigner) -> bytes:
    """Sign a profile as CMS SignedData in DER, with the content inside."""
    builder = pkcs7.PKCS7SignatureBuilder().set_data(data)
    builder = builder.add_signer(signer.chain[0], signer.key, hashes.SHA256())
    for each in signer.chain[1:]:
        builder = builder.add_certificate(each)
    return builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary])


def encrypted_key(key: PrivateKey, passphrase: bytes) -> bytes:
    """Return a CA's key in PEM, encrypted (PKCS #8)."""
    encryption = BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
